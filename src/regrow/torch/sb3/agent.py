"""A model of Stable-Baselines3 as what interventions change."""

from typing import Any

import torch

from regrow.interventions.fit_noise import FitNoise
from regrow.interventions.prime import Prime
from regrow.torch.learners import TorchLearner
from regrow.torch.sb3 import experience
from regrow.torch.sb3.algorithms import learners_of, scalars_of
from regrow.torch.sb3.watching import quiet


class Sb3Agent:
    """A model as what interventions change."""

    def __init__(self, model: Any):
        self.model = model

    def learners(self) -> list[TorchLearner]:
        """The networks that it trains."""
        return learners_of(self.model)

    def inputs(self, name: str, count: int) -> Any:
        """What a learner's module reads of some transitions."""
        return experience.inputs(self.model, name, count)

    def renew_scalars(self, *, value: bool, moments: bool) -> None:
        """Temperature and standard deviation."""
        for scalar in scalars_of(self.model):
            if value:
                with torch.no_grad():
                    scalar.parameter.fill_(scalar.first)
            if moments:
                scalar.optimizer.state.pop(scalar.parameter, None)

    def fit_noise(self, what: FitNoise) -> None:
        """Trains on random rewards."""
        with quiet(self.model):
            experience.fit_noise(self.model, what)

    def prime(self, what: Prime) -> None:
        """Trains on the oldest transitions."""
        with quiet(self.model):
            experience.prime(self.model, what)
