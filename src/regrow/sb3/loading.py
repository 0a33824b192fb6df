"""Models whose head was injected, from the zip files that `model.save` writes."""

from pathlib import Path
from typing import Any, TypeVar, cast

from stable_baselines3.common.base_class import BaseAlgorithm

from regrow.torch.saving import repeat

Model = TypeVar("Model", bound=BaseAlgorithm)


def load(algorithm: type[Model], path: str | Path, **options: Any) -> Model:
    """`algorithm.load(path, …)` of a model that may have been injected.

    `algorithm.load` builds the networks as they were at first, and would refuse the parameters.
    Options and errors are those of `load` of Stable-Baselines3.
    """

    class Loaded(algorithm):  # type: ignore[misc, valid-type]
        def set_parameters(self, params: Any, *given: Any, **named: Any) -> None:
            if isinstance(params, dict) and "policy" in params:
                repeat(self.policy, params["policy"])
            super().set_parameters(params, *given, **named)

    model = Loaded.load(path, **options)
    object.__setattr__(model, "__class__", algorithm)
    return cast("Model", model)
