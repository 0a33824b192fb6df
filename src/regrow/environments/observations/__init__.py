"""How agents see observations of a Gymnasium space."""
