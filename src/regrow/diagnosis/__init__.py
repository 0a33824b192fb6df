"""Fork, intervene, compare, conclude: for any Subject."""
