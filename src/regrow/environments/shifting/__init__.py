"""Environments that change during training, each in one respect; `base` says when."""
