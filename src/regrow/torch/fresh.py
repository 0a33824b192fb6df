"""New parameters for the layers of a module."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import parametrize

from regrow.errors import RegrowError

Init = Callable[[nn.Module], object]
"""Draws the parameters of a module anew, in place."""


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Random numbers of PyTorch from a seed of their own; with None, those that come next."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def redrawn(module: nn.Module, init: Init | None = None) -> nn.Module:
    """A copy of a module with new parameters, drawn on the CPU; `init` as in `inject`.

    By default every layer draws its own, by `reset_parameters`, as when it was made. Raises
    `RegrowError` for a layer that has parameters and no `reset_parameters`.
    """
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    fresh = copy.deepcopy(module).cpu()
    with torch.no_grad():
        if init is not None:
            init(fresh)
        else:
            for name, layer in fresh.named_modules():
                if ".parametrizations." not in f".{name}.":
                    _redraw(name, layer)
    return fresh.to(device)


def _redraw(name: str, layer: nn.Module) -> None:
    if parametrize.is_parametrized(layer):
        _redraw_parametrized(name, layer)
        return
    if not any(True for _ in layer.parameters(recurse=False)):
        return
    draw = getattr(layer, "reset_parameters", None)
    if not callable(draw):
        raise RegrowError(
            f"'{name}' ({type(layer).__name__}) has parameters and no reset_parameters(); give "
            "init=, a function that draws those of a module anew in place"
        )
    draw()


def _redraw_parametrized(name: str, layer: nn.Module) -> None:
    """The layer draws its plain tensors, and each parametrization takes up what was drawn."""
    assert isinstance(layer.parametrizations, nn.ModuleDict), "so it is when parametrized"
    tensors = list(layer.parametrizations)
    plain = _without_parametrizations(layer, tensors)
    _redraw(name, plain)
    for tensor, drawn in plain.named_parameters(recurse=False):
        try:
            if tensor in tensors:
                setattr(layer, tensor, drawn.detach())
            else:
                getattr(layer, tensor).copy_(drawn)
        except RuntimeError as error:
            raise RegrowError(
                f"'{name}.{tensor}' has a parametrization that cannot be set (it has no "
                "right_inverse); give init="
            ) from error


def _without_parametrizations(layer: nn.Module, tensors: list[str]) -> nn.Module:
    """A plain layer with the same values.

    `remove_parametrizations` would change the class, which copies of the layer share.
    """
    plain = object.__new__(parametrize.type_before_parametrizations(layer))
    held = {n: v for n, v in vars(layer).items() if n not in ("_modules", "_parameters")}
    vars(plain).update(copy.deepcopy(held))
    vars(plain)["_modules"] = {
        name: copy.deepcopy(child)
        for name, child in layer._modules.items()
        if name != "parametrizations"
    }
    vars(plain)["_parameters"] = {n: copy.deepcopy(p) for n, p in layer._parameters.items()}
    for tensor in tensors:
        plain.register_parameter(tensor, nn.Parameter(getattr(layer, tensor).detach().clone()))
    return plain
