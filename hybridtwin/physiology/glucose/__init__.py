"""Glucose and insulin: type 1 diabetes, Hovorka 2004, meals with a pancreas that answers, insulin products, UVA/Padova."""
