"""A module with an injected head: its class gains a forward that adds frozen copies.

    out(x) = old(φ) + (live(φ) − copy(φ))

The module stays the object that it was, and so do its live parameters: who holds a reference to
them (an optimizer, a list of critics, a target that is averaged by position) need not be told. Its
class becomes a subclass, as `torch.nn.utils.parametrize` does it, and the frozen copies are a child
named `injected`. After n injections there are n pairs, and each but the last is complete:

    out = old₁ + (old₂ − copy₁) + … + (live − copyₙ)
"""

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from regrow.errors import RegrowError, require


class Pair(nn.Module):
    """What one injection adds to a module: the old head, and the copy that is subtracted.

    `copy` is None where the third term is left out.
    """

    def __init__(self, old: nn.Module, copy: nn.Module | None):
        super().__init__()
        self.old = old
        self.copy = copy


class Stream:
    """What the modules of a chain hand on within one call: live and frozen outputs."""

    def __init__(self) -> None:
        self.live: Any = None
        self.frozen: list[tuple[Any, Any]] = []

    def __reduce__(self) -> Any:
        return Stream, ()


class Injected(nn.Module):
    """The class of a module that holds an injected head, or a part of one."""

    base: type[nn.Module]
    injected: nn.ModuleList
    plan: dict[str, Any]
    """`start` in a Sequential; `first` and `last` in the chain; `link`, which names the chain;
    `history`, one entry per injection. Plain data: it travels in the state dict."""
    place: tuple[int | None, bool, bool]
    """(`start`, `first`, `last`) of the plan."""
    stream: Stream

    def forward(self, *given: Any, **named: Any) -> Any:
        """The output of the live layers, with what the frozen ones add at the end of the head."""
        # Few and plain accesses: what is compiled checks each of them at every call.
        start, first, last = self.place
        if start is not None:
            steps = [step for _, step in self._own()]
            given, named = (_through(steps[:start], given[0]),), {}
            live = _through(steps[start:], given[0])
        else:
            live = super().forward(*given, **named)
        pairs = cast("Sequence[Pair]", self.injected)
        frozen = [(given, given)] * len(pairs) if first else self._handed_on(given)
        outputs = list[tuple[Any, Any]]()
        for pair, (for_old, for_copy) in zip(pairs, frozen, strict=True):
            taken = None if pair.copy is None else pair.copy(*for_copy, **named)
            outputs.append((pair.old(*for_old, **named), taken))
        if last:
            return _summed(live, outputs)
        self.stream.live = live
        self.stream.frozen = [((old,), (taken,)) for old, taken in outputs]
        return live

    def _handed_on(self, given: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """What the frozen parts of the module before have given, one pair for each injection."""
        if len(given) != 1 or given[0] is not self.stream.live:
            raise RegrowError(
                f"the head '{self.plan['link']}': something is computed between two of its "
                "modules; name a single module for each head, or one that holds both"
            )
        return self.stream.frozen

    def _own(self) -> list[tuple[str, nn.Module]]:
        """The children that were there before."""
        children = self._modules.items()
        return [
            (name, child) for name, child in children if child is not None and name != "injected"
        ]

    def get_extra_state(self) -> dict[str, Any]:
        """What must be known to build the same module again (`regrow.torch.load_state_dict`)."""
        return {**copy.deepcopy(self.plan), "regrow": 1}

    def set_extra_state(self, state: Any) -> None:
        """Takes the history of a module that was injected alike."""
        theirs = len(state["history"])
        require(
            theirs == len(self.injected) and state["start"] == self.plan["start"],
            f"the state dict is of a head with {theirs} injections, this one has "
            f"{len(self.injected)}; load it by regrow.torch.load_state_dict",
        )
        self.plan["history"] = copy.deepcopy(state["history"])

    def __reduce_ex__(self, protocol: Any) -> Any:
        del protocol
        return _blank, (self.base,), self.__dict__


class InjectedSequential(Injected):
    """The same of an `nn.Sequential`: what is injected is not one of its steps."""

    def __len__(self) -> int:
        return len(self._own())

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([child for _, child in self._own()])

    def __getitem__(self, index: Any) -> Any:
        children = self._own()
        if isinstance(index, slice):
            return nn.Sequential(OrderedDict(children[index]))
        return children[index][1]


def _through(modules: Sequence[nn.Module], x: Any) -> Any:
    for module in modules:
        x = module(x)
    return x


def _summed(live: Any, frozen: Sequence[tuple[Any, Any]]) -> torch.Tensor:
    """old + (live − copy), which is exactly `old` where live and copy are equal."""
    heads = [*(old for old, _ in frozen), live]
    for head in heads:
        if not isinstance(head, torch.Tensor):
            raise RegrowError(
                f"the head returns a {type(head).__name__}; only one that returns a tensor can be "
                "injected"
            )
    out = heads[0]
    for (_, taken), head in zip(frozen, heads[1:], strict=True):
        out = out + (head if taken is None else head - taken)
    return out


@functools.cache
def injected_class(base: type[nn.Module]) -> type[Injected]:
    """The subclass that modules of a class become."""
    kind = InjectedSequential if issubclass(base, nn.Sequential) else Injected
    return cast("type[Injected]", type(f"Injected{base.__name__}", (kind, base), {"base": base}))


def _blank(base: type[nn.Module]) -> Injected:
    """An empty module, whose attributes are set by whoever copies or reads one."""
    kind = injected_class(base)
    return kind.__new__(kind)


def graft(module: nn.Module, pair: Pair, plan: dict[str, Any], stream: Stream) -> None:
    """Adds a pair to a module, and an entry of `plan["history"]` to its history."""
    if isinstance(module, Injected):
        module.injected.append(pair)
        module.plan["history"] += plan["history"]
        return
    module.__class__ = injected_class(type(module))
    assert isinstance(module, Injected), "so it is now"
    module.plan, module.stream = plan, stream
    module.place = plan["start"], plan["first"], plan["last"]
    module.injected = nn.ModuleList([pair])


def ungraft(module: nn.Module) -> None:
    """Drops all pairs of a module, and makes it what it was; its live parameters stay."""
    if isinstance(module, Injected):
        for name in ("plan", "place", "stream"):
            del module.__dict__[name]
        del module.injected
        object.__setattr__(module, "__class__", module.base)
