"""From records to posteriors: modes, sampling, diagnostics, verdicts."""
