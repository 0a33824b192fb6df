"""The five MinAtar games, one per module; `base` says how to add another."""
