"""Probes of all networks of an agent, by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from regrow.torch.learners import TorchLearner
from regrow.torch.probes import measure

Values = Mapping[str, Mapping[str, Any]]
"""By learner the tensors of a state dict."""


def measured(
    learners: Sequence[TorchLearner],
    inputs: Mapping[str, Any],
    probes: Sequence[str] = (),
    *,
    fresh: bool = False,
    first: Values | None = None,
    since: Values | None = None,
    forwards: Mapping[str, Callable[..., Any]] | None = None,
    losses: Mapping[str, Callable[[nn.Module], torch.Tensor]] | None = None,
) -> dict[str, float]:
    """Probe values by name, with the learner's in front where there are several.

    `inputs`, `forwards`, `losses`: of each learner's module, as in `regrow.torch.measure`. `fresh`:
    of newly initialised modules. `first`: the initial values, where they are known; `since`: those
    with which measures of change compare, by default the initial ones.
    """
    found = dict[str, float]()
    for learner in learners:
        module = (learner.made() or learner.module) if fresh else learner.module
        initial = None if first is None else first[learner.name]
        values = measure(
            module,
            inputs[learner.name],
            at=learner.at,
            probes=probes,
            forward=(forwards or {}).get(learner.name),
            loss=(losses or {}).get(learner.name),
            initial=initial,
            previous=initial if since is None else since[learner.name],
        )
        front = "" if len(learners) == 1 else f"{learner.name}."
        found |= {f"{front}{name}": value for name, value in values.items()}
    return found


def values_of(learners: Sequence[TorchLearner]) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of the values of all parameters and buffers, by learner and name."""
    return {
        learner.name: {
            name: value.detach().clone()
            for name, value in learner.module.state_dict().items()
            if isinstance(value, torch.Tensor)
        }
        for learner in learners
    }
