"""What the agents that learn by soft actor-critic have in common."""
