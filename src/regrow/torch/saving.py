"""State dicts of modules whose head was injected: what was done travels with them."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from regrow.errors import require
from regrow.torch.heads import Segment, unwrapped
from regrow.torch.injected import Injected, Pair, Stream, graft, ungraft
from regrow.torch.surgery import plain_copy

_EXTRA = "_extra_state"


def load_state_dict(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Loads a state dict into a module, after the injections that it holds.

    The module may be newly made, or injected already. An optimizer needs nothing: its parameters
    are those that it had. Raises `RegrowError` for what is injected at another place.
    """
    root = unwrapped(module)
    repeat(root, state)
    root.load_state_dict(dict(state))


def repeat(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Gives a module the frozen pairs that a state dict holds; their values are not loaded yet."""
    plans = plans_in(state)
    streams: dict[str, Stream] = {}
    for name, child in list(module.named_modules()):
        if isinstance(child, Injected) and name not in plans:
            ungraft(child)
    names = dict(module.named_modules())
    for name, plan in plans.items():
        require(
            name in names,
            f"the state dict has an injected head in '{name}', and the module no such part",
        )
        held = names[name]
        if isinstance(held, Injected) and len(held.injected) > len(plan["history"]):
            ungraft(held)
        segment = Segment(name, plan["start"])
        done = len(held.injected) if isinstance(held, Injected) else 0
        for event in plan["history"][done:]:
            old = plain_copy(module, segment)
            taken = copy.deepcopy(old) if event["subtract"] else None
            pair = Pair(old, taken).requires_grad_(not event["freeze"])
            if pair.copy is not None:
                pair.copy.requires_grad_(False)
            own = {key: value for key, value in plan.items() if key != "regrow"}
            stream = streams.setdefault(plan["link"], Stream())
            graft(held, pair, {**own, "history": [event]}, stream)


def plans_in(state: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was injected where, of a state dict: by the name of the module."""
    return {
        key.removesuffix(_EXTRA).rstrip("."): value
        for key, value in state.items()
        if key.endswith(_EXTRA) and isinstance(value, dict) and value.get("regrow") == 1
    }
