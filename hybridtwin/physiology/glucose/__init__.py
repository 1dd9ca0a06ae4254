"""Glucose and insulin: type 1 diabetes, meals with a pancreas that answers, insulin products, the UVA/Padova simulator."""
