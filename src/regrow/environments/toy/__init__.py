"""Tiny environments whose values are known, to test agents on."""
