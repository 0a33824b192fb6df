"""Runs studies, with any number of processes."""
