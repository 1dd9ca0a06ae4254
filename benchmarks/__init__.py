"""Benchmarks of hybridtwin, one script a claim: `python -m benchmarks.NAME --json`."""
