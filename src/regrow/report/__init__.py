"""Draws results, and computes nothing."""
