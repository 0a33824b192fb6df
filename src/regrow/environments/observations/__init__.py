"""What agents see of observations that a space of Gymnasium declares."""
