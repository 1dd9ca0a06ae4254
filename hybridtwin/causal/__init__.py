"""What if: contrasts of worlds of one twin."""
