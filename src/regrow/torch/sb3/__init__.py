"""Models of Stable-Baselines3 and sb3-contrib as agents that can be forked and changed."""
