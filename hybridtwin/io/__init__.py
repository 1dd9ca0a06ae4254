"""Readers: a table of any kind becomes records, or an error that names person, row, column, reason and remedy."""
