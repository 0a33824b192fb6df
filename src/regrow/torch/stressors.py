"""`deaden`: units of one hidden layer that never fire again, in place."""

from typing import Any

import torch
from torch import nn

from regrow.errors import require
from regrow.interventions.deaden import FAR_BELOW, Deaden
from regrow.torch.fresh import seeded
from regrow.torch.learners import TorchLearner
from regrow.torch.surgery import as_modules, copy_into

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def require_deadenable(what: Deaden, learner: TorchLearner) -> None:
    """`RegrowError` where the layers are not known, the layer is not hidden, or no ReLU follows."""
    _ = [_layer(what, learner, chain) for chain in _chains(learner)]


def deaden(what: Deaden, learner: TorchLearner, seed: int) -> None:
    """Sets biases of the layer far below zero, in every head; targets become copies.

    As `regrow.interventions.deaden` does it to agents of this library.
    """
    layers = {id(one): one for c in _chains(learner) for one in [_layer(what, learner, c)]}
    with seeded(seed), torch.no_grad():
        for layer in layers.values():
            units = layer.bias.shape[0]
            dead = torch.randperm(units)[: max(round(what.share * units), 1)]
            layer.bias[dead.to(layer.bias.device)] = FAR_BELOW
    for target in as_modules(learner.targets):
        copy_into(target, learner.module)


def _chains(learner: TorchLearner) -> tuple[tuple[str, ...], ...]:
    require(bool(learner.layers), f"deaden: the layers of '{learner.name}' are not known")
    return learner.layers


def _layer(what: Deaden, learner: TorchLearner, chain: tuple[str, ...]) -> Any:
    """The layer of a chain whose units are to die."""
    hidden = len(chain) - 1
    require(
        what.layer < hidden,
        f"deaden: layer is {what.layer}; the hidden layers of '{learner.name}' are 0 to "
        f"{hidden - 1}",
    )
    name = chain[what.layer]
    above, _, last = name.rpartition(".")
    layer: Any = learner.module.get_submodule(name)
    holder = learner.module.get_submodule(above)
    require(
        isinstance(layer, _KINDS) and layer.bias is not None,
        f"deaden: '{name}' is a {type(layer).__name__}; it must be a linear or convolutional layer "
        "with a bias",
    )
    within = dict(holder.named_children()) if isinstance(holder, nn.Sequential) else {}
    after = [*within][[*within].index(last) + 1 :] if last in within else []
    kind = type(within[after[0]]).__name__ if after else "no module of a Sequential"
    require(
        kind == "ReLU",
        f"deaden: what follows '{name}' is {kind}; it must be ReLU, silent far below zero",
    )
    return layer
