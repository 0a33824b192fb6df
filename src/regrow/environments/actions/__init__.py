"""Maps an agent's action to the environment's action."""
