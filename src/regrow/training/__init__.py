"""Training, checkpointing, forking and probing of a Run: an agent in an environment."""
