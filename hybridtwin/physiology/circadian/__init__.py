"""The body clock and sleep: pacemakers driven by light, two processes of sleep, and the markers of phase."""
