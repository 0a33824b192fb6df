"""How the layers of a module are connected, read in one call on example inputs.

A layer is a module with weights of its own: linear, convolution, embedding, recurrent, or any
other that holds a matrix. Normalisation and activations belong to the layer before. Layer j follows
layer i if what j reads depends on i's output with no other layer between. A layer that no other
follows is an output. The units of a hidden layer are what its first follower reads: of a
convolution the channels, at every position, also after flattening.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from regrow.errors import require
from regrow.torch.heads import is_frozen
from regrow.torch.tracking import Place, Sources, Tracker, tensors_in

Forward = Callable[[nn.Module, Any], Any]
"""Calls a module on inputs and returns its outputs."""

LAYERS = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.Bilinear,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)
_NO_LAYERS = (*NORMS, nn.PReLU)


class Reading(NamedTuple):
    """What a layer read in one call. `axis`: its channels, or features; `places`: of the units."""

    features: torch.Tensor
    sources: Sources
    axis: int
    places: tuple[Place, ...]

    def columns(self, layers: Sources) -> torch.Tensor:
        """The features that come from these layers, a row per sample; all, if it is not known."""
        read = self.features.movedim(self.axis, -1)
        own = [p for p in self.places if p.layers & layers]
        if own and all(p.axis == self.axis for p in self.places):
            read = torch.cat([read[..., p.start : p.start + p.size] for p in own], dim=-1)
        return read.flatten(1)


class Norm(NamedTuple):
    """Normalisation, or a learned activation: where the units are in what it acts on."""

    name: str
    place: Place
    shape: tuple[int, ...]


@dataclass
class Layer:
    """A layer as it was called. `before`: whose output is the pre-activation of its units.

    `norms`: the modules with parameters between it and its followers.
    """

    name: str
    module: nn.Module
    before: nn.Module
    place: Place
    """Of the units in the output of `before`."""
    readings: list[Reading] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    output: torch.Tensor | None = None

    @property
    def frozen(self) -> bool:
        """Whether it is a part of a frozen copy."""
        return is_frozen(self.name)

    @property
    def units(self) -> int:
        """The number of its units."""
        return self.place.units


@dataclass(frozen=True)
class Connections:
    """The layers of a module in the order of their first calls.

    `heard`: the layers that the module's output depends on with no other between. `result`: what
    the module returned.
    """

    layers: dict[str, Layer]
    heard: Sources
    result: Any

    @property
    def live(self) -> list[Layer]:
        """The layers that are not frozen copies."""
        return [layer for layer in self.layers.values() if not layer.frozen]

    @property
    def hidden(self) -> list[Layer]:
        """The live layers that another live layer follows."""
        return [one for one in self.live if any(not f.frozen for f in self.followers(one.name))]

    @property
    def ends(self) -> list[Layer]:
        """The live layers that no live layer follows."""
        hidden = {layer.name for layer in self.hidden}
        return [layer for layer in self.live if layer.name not in hidden]

    def followers(self, name: str) -> list[Layer]:
        """The layers that read a layer's units, frozen copies included."""
        return [
            layer
            for layer in self.layers.values()
            if any(name in reading.sources for reading in layer.readings)
        ]

    def sizes(self, layer: Layer) -> torch.Tensor:
        """|h| of every unit as its first live follower reads it: (samples and positions, units).

        A unit that is read in two features has the sum of both. Where the follower reads something
        else than the units (a part of them, say), the features that it reads take their place.
        """
        first = next(one for one in self.followers(layer.name) if not one.frozen)
        found = list[torch.Tensor]()
        for reading in first.readings:
            if layer.name not in reading.sources:
                continue
            size = reading.features.abs()
            own = [place for place in reading.places if layer.name in place.layers]
            each = [place.by_unit(size) for place in own]
            if each and all(one.shape == each[0].shape for one in each):
                found.append(torch.stack(each).sum(dim=0))
            else:
                found.append(size.movedim(reading.axis, -1).reshape(-1, size.shape[reading.axis]))
        return torch.cat(found)


def connections(root: nn.Module, inputs: Any, forward: Forward | None = None) -> Connections:
    """Calls a module on inputs, in eval mode and without gradients, and reads its connections.

    Raises `RegrowError` for a module that calls no layer.
    """
    tracker = Tracker()
    watch = _Watch(tracker)
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluating(root))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for handle in watch.installed(root):
            stack.callback(handle.remove)
        with tracker:
            result = called(root, inputs, forward)
    require(bool(watch.found), f"{type(root).__name__} called no layer on the inputs")
    heard = frozenset[str]().union(*map(tracker.sources, tensors_in(result)))
    return Connections(watch.found, heard, result)


def called(root: nn.Module, inputs: Any, forward: Forward | None) -> Any:
    """What a module returns for inputs; a tuple of inputs are its positional arguments."""
    if forward is not None:
        return forward(root, inputs)
    return root(*inputs) if isinstance(inputs, tuple) else root(inputs)


@contextlib.contextmanager
def evaluating(root: nn.Module) -> Iterator[None]:
    """A module in eval mode, and all of its parts afterwards in the mode that they had."""
    modes = [(module, module.training) for module in root.modules()]
    root.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


# Hooks.


def weighted(root: nn.Module) -> dict[str, nn.Module]:
    """The layers of a module by name, those of frozen copies included."""
    found = dict[str, nn.Module]()
    for name, module in root.named_modules():
        if _is_layer(module) and not any(above in found for above in _above(name)):
            found[name] = module
    return found


def _above(name: str) -> Iterator[str]:
    """The modules that a module is a part of; a frozen copy is no part of what holds it."""
    path = name.split(".") if name else []
    for i in reversed(range(len(path))):
        if path[i] == "injected":
            return
        yield ".".join(path[:i])


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, LAYERS):
        return True
    own = any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
    inner = any(True for child in module.children() for _ in child.parameters())
    return own and not inner and not isinstance(module, _NO_LAYERS)


@dataclass
class _Watch:
    """Hooks that read what the layers of a module read and give."""

    tracker: Tracker
    found: dict[str, Layer] = field(default_factory=dict)
    untouched: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The pre-activation of a layer as it was made: see `_state_of`."""

    def installed(self, root: nn.Module) -> Iterator[Any]:
        layers = weighted(root)
        for name, module in root.named_modules():
            if name in layers:
                reads, gives = (functools.partial(one, name) for one in (self.reads, self.gives))
                yield module.register_forward_pre_hook(reads, prepend=True, with_kwargs=True)
                yield module.register_forward_hook(gives)
            elif _holds_parameters(module):
                yield module.register_forward_hook(functools.partial(self.between, name))

    def reads(self, name: str, module: nn.Module, given: Any, named: dict[str, Any]) -> None:
        if name not in self.found:
            nowhere = Place(frozenset({name}), -1, 0, 1, 0, 1)
            self.found[name] = Layer(name, module, module, nowhere)
        tensors = list(tensors_in((given, named)))
        for first in tensors[:1]:
            sources = frozenset[str]().union(*map(self.tracker.sources, tensors))
            places, axis = self.tracker.places(first), _features_axis(module, first)
            if not places and len(sources) == 1 and sources == self.tracker.sources(first):
                places = _guessed(self.found[next(iter(sources))], first, axis)
            reading = Reading(first.detach().clone(), sources, axis, tuple(places))
            self.found[name].readings.append(reading)

    def gives(self, name: str, module: nn.Module, given: Any, result: Any) -> None:
        del given
        layer = self.found[name]
        for tensor in reversed(list(tensors_in(result))):
            axis = _units_axis(module, tensor)
            layer.place = Place(frozenset({name}), axis, 0, 1, tensor.shape[axis], 1)
            self.tracker.starts(tensor, layer.place)
            layer.before, layer.output = module, tensor.detach()
            self.untouched[name] = _state_of(tensor)

    def between(self, name: str, module: nn.Module, given: Any, result: Any) -> None:
        for tensor in list(tensors_in(given))[:1]:
            for source in self.tracker.sources(tensor):
                layer, after = self.found[source], self.tracker.places(result)
                for place in self.tracker.places(tensor):
                    norm = Norm(name, place, tuple(tensor.shape))
                    if source in place.layers and norm not in layer.norms:
                        layer.norms.append(norm)
                as_made = self.untouched.get(source) == _state_of(tensor)
                if as_made and isinstance(module, NORMS) and after:
                    layer.before, layer.place = module, after[0]
                    self.untouched[source] = _state_of(result)


def _holds_parameters(module: nn.Module) -> bool:
    """Whether it is a leaf with parameters: normalisation, or a learned activation."""
    own = any(True for _ in module.parameters(recurse=False))
    return own and not any(True for _ in module.children())


def _state_of(tensor: torch.Tensor) -> tuple[int, int]:
    """Its memory, and how often that was written to."""
    return tensor.untyped_storage()._cdata, tensor._version


def _features_axis(module: nn.Module, tensor: torch.Tensor) -> int:
    """The axis of what a layer reads that its weight sums over."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return tensor.ndim - 1 - len(module.kernel_size)
    return max(tensor.ndim - 1, 0)


def _units_axis(module: nn.Module, tensor: torch.Tensor) -> int:
    if isinstance(module, nn.modules.conv._ConvNd):
        return tensor.ndim - 1 - len(module.kernel_size)
    return 1 if tensor.ndim >= 4 and not isinstance(module, LAYERS) else tensor.ndim - 1


def _guessed(source: Layer, tensor: torch.Tensor, axis: int) -> tuple[Place, ...]:
    """Units that could not be followed are the features, if there are as many."""
    if tensor.ndim < 2 or tensor.shape[axis] != source.units:
        return ()
    return (Place(frozenset({source.name}), axis, 0, 1, source.units, 1),)
