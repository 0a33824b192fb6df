"""Numbers with intervals, from arrays."""
