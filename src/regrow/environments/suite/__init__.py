"""What `control/…` and `pixels/…` have in common: a simulation of the suite."""
