"""Studies carried out, by any number of processes."""
