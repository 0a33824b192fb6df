"""Runs tasks with dependencies, in this process or in several."""
