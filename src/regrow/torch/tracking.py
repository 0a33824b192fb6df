"""Which layers a tensor depends on, and where in it their units are, while a module is called.

Every operation of PyTorch is seen as it is carried out, those on detached tensors too. A tensor
depends on a layer if it was computed from the layer's output with no other layer between. The
units of a layer are followed through what only moves them: reshaping, permuting, joining, and
operations that act on every element or position alike.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Sources = frozenset[str]
Shape = tuple[int, ...]


class Place(NamedTuple):
    """Where the units of layers are in a tensor: along `axis`, from `start` on.

    There are `outer` · `units` · `inner` entries, in this order: a channel of a flattened image has
    `inner` positions. Several layers have one place where their outputs were added.
    """

    layers: Sources
    axis: int
    start: int
    outer: int
    units: int
    inner: int

    @property
    def size(self) -> int:
        """The entries along the axis."""
        return self.outer * self.units * self.inner

    def by_unit(self, tensor: torch.Tensor) -> torch.Tensor:
        """The units of a tensor, of shape (samples and positions, units)."""
        last = tensor.movedim(self.axis, -1)[..., self.start : self.start + self.size]
        split = last.unflatten(-1, (self.outer, self.units, self.inner))
        return split.movedim(-2, -1).reshape(-1, self.units)

    def entries(self, units: torch.Tensor, length: int) -> torch.Tensor:
        """Which entries of an axis of this length belong to the units that a mask selects."""
        found = torch.zeros(length, dtype=torch.bool, device=units.device)
        own = units.repeat_interleave(self.inner).repeat(self.outer)
        found[self.start : self.start + self.size] = own
        return found


class Tracker(TorchDispatchMode):
    """Follows the outputs of layers through the operations that are carried out within it."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[int, Sources] = {}
        self._places: dict[Any, tuple[Place, ...]] = {}
        self._kept: dict[int, Any] = {}  # no address is used twice while it is looked up

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Carries out an operation, and notes what its results depend on."""
        del types
        result = func(*args, **(kwargs or {}))
        read = [one for one in tensors_in((args, kwargs)) if self.sources(one)]
        if read:
            sources = frozenset[str]().union(*map(self.sources, read))
            for out in tensors_in(result):
                self._note(
                    out, sources, self._followed(func.overloadpacket.__name__, args, read, out)
                )
        return result

    def starts(self, output: torch.Tensor, place: Place) -> None:
        """This is the output of a layer, whatever it was computed from."""
        self._sources.pop(_storage(output), None)
        self._note(output, place.layers, (place,))

    def sources(self, tensor: torch.Tensor) -> Sources:
        """The layers that a tensor depends on."""
        return self._sources.get(_storage(tensor), frozenset())

    def places(self, tensor: torch.Tensor) -> tuple[Place, ...]:
        """Where the units of these layers are; nothing where it is not known."""
        return self._places.get(_geometry(tensor), ())

    def _note(self, out: torch.Tensor, sources: Sources, places: Sequence[Place]) -> None:
        at = _storage(out)
        self._kept[at] = out.untyped_storage()
        self._sources[at] = self._sources.get(at, frozenset()) | sources
        self._places[_geometry(out)] = tuple(places)

    def _followed(
        self, name: str, args: Any, read: Sequence[torch.Tensor], out: torch.Tensor
    ) -> list[Place]:
        """The places of a result; several inputs are one if their units coincide."""
        if name == "cat":
            dim = args[1] if len(args) > 1 else 0
            return self._joined(args[0], dim % out.ndim)
        moved = list[list[Place]]()
        for one in read:
            after = [_after(name, args, one, out, place) for place in self.places(one)]
            known = [place for place in after if place is not None]
            if not after or len(known) < len(after):
                return []
            moved.append(known)
        return _merged(moved)

    def _joined(self, joined: Sequence[torch.Tensor], dim: int) -> list[Place]:
        along, across, start = list[Place](), list[list[Place]](), 0
        for one in joined:
            places = self.places(one)
            if self.sources(one) and not places:
                return []
            along += [p._replace(start=p.start + start) for p in places if p.axis == dim]
            across.append([p for p in places if p.axis != dim])
            start += one.shape[dim]
        if any(across):
            return [] if along else _merged(across)
        return along


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors within tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided:
            yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors_in(one)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _geometry(tensor: torch.Tensor) -> Any:
    shape, strides = tuple(tensor.shape), tensor.stride()
    return _storage(tensor), tensor.storage_offset(), shape, strides


def _merged(of_inputs: Sequence[Sequence[Place]]) -> list[Place]:
    """One list of places for several that differ in the layers only; nothing otherwise."""
    found = {len(places) for places in of_inputs}
    if len(found) != 1:
        return []
    merged = list[Place]()
    for same in zip(*of_inputs, strict=True):
        if len({place[1:] for place in same}) > 1:
            return []
        merged.append(same[0]._replace(layers=frozenset[str]().union(*(p.layers for p in same))))
    return merged


_RESHAPING = ("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze")
_MIXING = ("mm", "addmm", "bmm", "baddbmm", "addmv", "mv", "convolution", "linear")


def _after(
    name: str, args: Any, tensor: torch.Tensor, out: torch.Tensor, place: Place
) -> Place | None:
    """The place of the same units after an operation; None where it is not known."""
    shape, new = tuple(tensor.shape), tuple(out.shape)
    if name in _MIXING:
        return None
    if name == "permute":
        return place._replace(axis=[d % len(shape) for d in args[1]].index(place.axis))
    if name in ("transpose", "t"):
        one, other = (d % len(shape) for d in (args[1:] if name == "transpose" else (0, -1)))
        return place._replace(axis={one: other, other: one}.get(place.axis, place.axis))
    if name in _RESHAPING and math.prod(shape) == math.prod(new):
        return _reshaped(place, shape, new)
    return _kept(place, shape, new)


def _kept(place: Place, shape: Shape, new: Shape) -> Place | None:
    """After an operation on every element (that may broadcast), or on the later axes."""
    more = len(new) - len(shape)
    if more >= 0 and all(old in (1, now) for old, now in zip(shape, new[more:], strict=True)):
        axis = place.axis + more
        return place._replace(axis=axis) if new[axis] == shape[place.axis] else None
    upto = place.axis + 1
    return place if new[:upto] == shape[:upto] else None


def _reshaped(place: Place, shape: Shape, new: Shape) -> Place | None:
    after = math.prod(shape[place.axis + 1 :])  # entries that vary faster than this axis
    within = place.inner * after  # entries that vary faster than the units
    whole = place.size == shape[place.axis]
    for axis, length in enumerate(new):
        faster = math.prod(new[axis + 1 :])
        if not faster or within % faster or after * shape[place.axis] < faster:
            continue
        if whole and length % (place.units * (within // faster)) == 0:
            inner = within // faster
            outer = length // (place.units * inner)
            return Place(place.layers, axis, 0, outer, place.units, inner)
        if after % faster == 0 and length == shape[place.axis] * (after // faster):
            times = after // faster
            return place._replace(axis=axis, start=place.start * times, inner=place.inner * times)
    return None
