"""Rows as numbers: conditions, claims, summaries."""
