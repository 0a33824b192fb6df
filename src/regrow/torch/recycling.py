"""`redo`: recycling dormant units (Sokar et al. 2023, arXiv 2302.12902), in place.

    s_i = E|h_i| / mean_k E|h_k|  within a layer;   unit i is dormant if s_i ≤ τ

As `regrow.interventions.redo` does it to agents of this library.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from regrow.errors import RegrowError, require
from regrow.torch import heads as _heads
from regrow.torch.formulas import quiet
from regrow.torch.fresh import Init, redrawn, seeded
from regrow.torch.heads import Segment, is_frozen, unwrapped
from regrow.torch.layers import Connections, Forward, Layer, Norm, Reading, connections
from regrow.torch.optimizers import Optimizers, as_list, masked, require_held
from regrow.torch.surgery import plain_copy
from regrow.torch.tracking import Place

Masks = dict[nn.Parameter, torch.Tensor]
"""For each parameter, which of its elements are new."""


def redo(
    module: nn.Module,
    inputs: Any,
    *,
    tau: float = 0.025,
    at: str | Sequence[str] | None = None,
    forward: Forward | None = None,
    optimizer: Optimizers = None,
    init: Init | None = None,
    seed: int | None = None,
) -> int:
    """Re-initialises dormant hidden units and zeroes their outgoing weights; returns how many.

    ReDo (Sokar et al. 2023, arXiv 2302.12902): a unit is dormant if E|h_i| ≤ τ · mean_k E|h_k|
    within its layer, as the next layer reads it. `tau`: 0.025 is the paper's default, 0.1 its value
    for high replay ratios; 0 selects only dead units. `inputs`: a batch to measure activity on, of
    which a tuple are the positional arguments; `forward`: calls the module on it,
    `forward(module, inputs)`. `at`: recycles units of these heads only, as in `inject`. `init`:
    draws the parameters of a layer anew in place; by default its `reset_parameters`. `seed`: of
    these draws.

    Incoming weights, the bias and the unit's part of normalisation are new. Outgoing weights become
    0, in frozen heads that read the unit, too. `optimizer`: the one that trains the module, or a
    list; the moments of both become 0. PyTorch's Adam has one step count per parameter, which is
    kept: new elements have moments without the correction for their start at 0, so with the usual
    betas their first steps are up to three times the learning rate, as in the published
    implementation. (This library's own agents count steps per element.)

    Raises `RegrowError`, with the module unchanged, where there are no hidden units, where units
    are heard past the next layer (a residual connection, or features that the module returns), and
    for layers whose units cannot be told apart: recurrent and grouped ones, and those that read
    something else than the units.
    """
    require(tau >= 0, f"tau is {tau}; it must be 0 or more")
    root, optimizers = unwrapped(module), as_list(optimizer)
    traced = connections(root, inputs, forward)
    hidden = _chosen(root, traced, at)
    for layer in hidden:
        _require_recyclable(traced, layer)
    changed = [*hidden, *(f for one in hidden for f in traced.followers(one.name) if not f.frozen)]
    touched = {n: p for layer in changed for n, p in _live_of(layer).items()}
    require_held(optimizers, touched)
    units = [quiet(traced.sizes(layer).mean(dim=0), tau) for layer in hidden]
    new = Masks()
    with seeded(seed), torch.no_grad():
        drawn = [
            _drawn(root, layer, init) if mask.any() else {}
            for layer, mask in zip(hidden, units, strict=True)
        ]
        for layer, mask, fresh in zip(hidden, units, drawn, strict=True):
            if fresh:
                _renew(root, layer, mask, fresh, new)
                for follower in traced.followers(layer.name):
                    _silence(layer, follower, mask, new)
    for parameter, mask in new.items():
        parameter.grad = None
        for one in optimizers:
            masked(one.state.get(parameter, {}), parameter, mask)
    return int(sum(int(mask.sum()) for mask in units))


def _chosen(root: nn.Module, traced: Connections, at: str | Sequence[str] | None) -> list[Layer]:
    """The hidden layers, or those of some heads."""
    hidden = traced.hidden
    if at is not None:
        names = _heads.names_in(root, _heads.named(root, at))
        hidden = [layer for layer in hidden if _heads.is_within(layer.name, names)]
    what = type(root).__name__ if at is None else f"the head {at!r}"
    require(bool(hidden), f"{what} has no hidden units; ReDo recycles those that a layer reads")
    return hidden


def _live_of(layer: Layer) -> dict[str, nn.Parameter]:
    """The parameters of a layer, frozen copies within it left out."""
    held = layer.module.named_parameters(prefix=layer.name)
    return {name: parameter for name, parameter in held if not is_frozen(name)}


# Refusals.


def _require_recyclable(traced: Connections, layer: Layer) -> None:
    """`RegrowError` unless the layer's units are read by the next layers only, one by one."""
    _require_plain(layer)
    require(
        layer.name not in traced.heard,
        f"the output hears the units of '{layer.name}' past the next layer (by a residual "
        "connection, or because they are returned): they cannot be recycled",
    )
    for follower in traced.followers(layer.name):
        _require_plain(follower)
        for reading in follower.readings:
            if layer.name in reading.sources:
                _require_told_apart(layer, follower, reading)


def _require_plain(layer: Layer) -> None:
    module, kind = layer.module, type(layer.module).__name__
    where = f"'{layer.name}' ({kind})"
    require(
        isinstance(module, nn.Linear | nn.modules.conv._ConvNd),
        f"{where} is neither linear nor a convolution: units before and in it cannot be recycled; "
        "name the heads with at=",
    )
    require(
        getattr(module, "groups", 1) == 1,
        f"{where} has {getattr(module, 'groups', 1)} groups: units before and in it cannot be "
        "recycled; name the heads with at=",
    )
    _weight(layer.name, module)


def _require_told_apart(layer: Layer, follower: Layer, reading: Reading) -> None:
    own = _places(layer, reading)
    others = sorted(
        {name for place in own for name in place.layers}
        | (set() if reading.places else reading.sources)
    )
    require(
        len(others) <= 1,
        f"'{follower.name}' reads the units of {' and '.join(map(repr, others))} together (a "
        "residual connection, say): they cannot be recycled",
    )
    features = reading.features.shape[reading.axis]
    require(
        bool(own) and all(place.axis == reading.axis for place in own),
        f"'{follower.name}' reads {features} features, of which it is not known how they belong to "
        f"the {layer.units} units of '{layer.name}': they cannot be recycled",
    )


def _places(layer: Layer, reading: Reading) -> list[Place]:
    return [place for place in reading.places if layer.name in place.layers]


def _weight(name: str, module: nn.Module) -> nn.Parameter:
    """The weight of a layer; under spectral normalisation, the one that is normalised."""
    weight: Any = getattr(module, "weight", None)
    if parametrize.is_parametrized(module, "weight"):
        held: Any = module.parametrizations
        kinds = [type(one).__name__ for one in held.weight]
        weight = held.weight.original if kinds == ["_SpectralNorm"] else None
    if not isinstance(weight, nn.Parameter):
        raise RegrowError(
            f"the weight of '{name}' is computed from other parameters: units before and in it "
            "cannot be recycled"
        )
    return weight


# Steps.


def _axes(module: nn.Module) -> tuple[int, int]:
    """The axes of a weight along which are the units, and what they read."""
    return (1, 0) if isinstance(module, nn.modules.conv._ConvTransposeNd) else (0, 1)


def _along(mask: torch.Tensor, axis: int, like: torch.Tensor) -> torch.Tensor:
    """A mask of entries of one axis, for all elements of a tensor."""
    shape = [1] * like.ndim
    shape[axis] = len(mask)
    return mask.to(like.device).reshape(shape).expand_as(like)


def _note(new: Masks, parameter: nn.Parameter, mask: torch.Tensor) -> None:
    new[parameter] = new[parameter] | mask if parameter in new else mask


def _drawn(root: nn.Module, layer: Layer, init: Init | None) -> dict[str, nn.Module]:
    """A layer and what normalises it with new parameters, by name."""
    norms = {norm.name: redrawn(root.get_submodule(norm.name), init) for norm in layer.norms}
    return {layer.name: redrawn(plain_copy(root, Segment(layer.name)), init), **norms}


def _renew(
    root: nn.Module,
    layer: Layer,
    units: torch.Tensor,
    fresh: dict[str, nn.Module],
    new: Masks,
) -> None:
    """Takes over the new incoming weights of units, their biases, and what normalises them."""
    module, other = layer.module, fresh[layer.name]
    weight = _weight(layer.name, module)
    mask = _along(units, _axes(module)[0], weight)
    _take(weight, _weight(layer.name, other), mask, new)
    if isinstance(module.bias, nn.Parameter) and isinstance(other.bias, nn.Parameter):
        _take(module.bias, other.bias, units, new)
    for norm in layer.norms:
        _renew_norm(root.get_submodule(norm.name), norm, units, fresh[norm.name], new)


def _renew_norm(
    module: nn.Module, norm: Norm, units: torch.Tensor, fresh: nn.Module, new: Masks
) -> None:
    """The same for the parameters of units in their normalisation, and its running averages."""
    entries = norm.place.entries(units, norm.shape[norm.place.axis])
    drawn = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
    for name, ours in [*module.named_parameters(), *module.named_buffers()]:
        axis = 0 if ours.ndim == 1 and len(ours) == len(entries) else -1
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):  # they act on the last axes
            axis = norm.place.axis - (len(norm.shape) - ours.ndim)
        if axis >= 0:
            _take(ours, drawn[name], _along(entries, axis, ours), new)


def _take(ours: torch.Tensor, drawn: torch.Tensor, mask: torch.Tensor, new: Masks) -> None:
    ours.copy_(torch.where(mask, drawn, ours))
    if isinstance(ours, nn.Parameter):
        _note(new, ours, mask)


def _silence(layer: Layer, follower: Layer, units: torch.Tensor, new: Masks) -> None:
    """Zeroes the weights by which a layer reads units."""
    weight, axis = _weight(follower.name, follower.module), _axes(follower.module)[1]
    for reading in follower.readings:
        for place in _places(layer, reading):
            mask = _along(place.entries(units, weight.shape[axis]), axis, weight)
            weight.masked_fill_(mask, 0)
            _note(new, weight, mask)
