"""What the body does to a drug, and what the drug does to the body."""
