"""The simulation that `control/…` and `pixels/…` share."""
