"""Hormones under feedback: cortisol, the thyroid, parathyroid hormone with calcium."""
