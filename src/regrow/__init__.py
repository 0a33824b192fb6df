"""regrow: has a deep-RL agent's network stopped being able to learn, and how to give it the ability back."""
