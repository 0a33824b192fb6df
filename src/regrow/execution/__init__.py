"""Carries out tasks that need each other, in this process or in several."""
