"""Tiny environments whose values are known, for testing agents."""
