"""Models whose head was injected, from the zip files that `model.save` writes."""

from pathlib import Path
from typing import Any, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm

from regrow.torch.sb3.zips import load_injected

Model = TypeVar("Model", bound=BaseAlgorithm)


def load(algorithm: type[Model], path: str | Path, **options: Any) -> Model:
    """`algorithm.load(path, …)` of a model that may have been injected.

    Options and errors are those of `load` of Stable-Baselines3, pickles in the zip included.
    """
    return load_injected(algorithm, path, **options)
