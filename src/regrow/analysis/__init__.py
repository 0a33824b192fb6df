"""From rows to numbers: conditions, claims, summaries."""
