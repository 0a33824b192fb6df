"""What an optimizer holds of a module's parameters, and how it forgets them.

`torch.optim` keeps its state by parameter object. Surgery keeps the objects of the live parameters,
so that groups and their options stay; a fresh parameter has no state, and its step count begins
at 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import LBFGS, Optimizer

from regrow.errors import require

Optimizers = Optimizer | Sequence[Optimizer] | None
"""One, several, or none."""


def as_list(optimizer: Optimizers) -> list[Optimizer]:
    """The optimizers as a list. Raises `RegrowError` for what is none, and for LBFGS."""
    held = [] if optimizer is None else optimizer
    held = [held] if isinstance(held, Optimizer) else list(held)
    for one in held:
        require(
            isinstance(one, Optimizer),
            f"expected a torch.optim.Optimizer, received {type(one).__name__}",
        )
        require(
            not isinstance(one, LBFGS),
            "LBFGS keeps one state for all parameters, of which none can be renewed by itself",
        )
    return held


def require_held(optimizers: Sequence[Optimizer], parameters: Mapping[str, nn.Parameter]) -> None:
    """`RegrowError` unless every parameter that learns is in a group of one of the optimizers."""
    if not optimizers:
        return
    held = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    for name, parameter in parameters.items():
        require(
            id(parameter) in held or not parameter.requires_grad,
            f"the optimizer does not hold '{name}'; give the one that trains this module, or a "
            "list of all of them",
        )


def forget(optimizers: Sequence[Optimizer], parameters: Iterable[nn.Parameter]) -> None:
    """Drops the state of parameters: moments, averages and step counts."""
    for parameter in parameters:
        for one in optimizers:
            one.state.pop(parameter, None)


def adopt(
    optimizers: Sequence[Optimizer], pairs: Iterable[tuple[nn.Parameter, nn.Parameter]]
) -> None:
    """Adds the second of each pair to the group of the first, which hands it its state."""
    for sibling, new in pairs:
        for one in optimizers:
            for group in one.param_groups:
                if any(held is sibling for held in group["params"]):
                    group["params"].append(new)
                    if sibling in one.state:
                        one.state[new] = one.state.pop(sibling)


def masked(state: dict[str, Any], like: torch.Tensor, mask: torch.Tensor) -> None:
    """Sets the moments of some elements to 0: all entries of the parameter's shape."""
    for value in state.values():
        if isinstance(value, torch.Tensor) and value.shape == like.shape:
            value.masked_fill_(mask, 0)
