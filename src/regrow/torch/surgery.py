"""Interventions on PyTorch modules, in place: inject, reset, shrink and perturb, fresh optimizers.

They do what the interventions of the same names do to agents of this library
(`regrow.interventions`), with the same defaults.
"""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from regrow.errors import RegrowError, require
from regrow.torch import heads as _heads
from regrow.torch.fresh import Init, redrawn, seeded
from regrow.torch.heads import Head, Segment, is_frozen, parts, unwrapped
from regrow.torch.injected import Injected, Pair, Stream, graft, ungraft
from regrow.torch.optimizers import Optimizers, adopt, as_list, forget, require_held

At = str | Sequence[str]
Targets = nn.Module | Sequence[nn.Module]


@dataclass(frozen=True)
class Handle:
    """A module whose head was injected. `at`: the heads, as they were named."""

    module: nn.Module
    at: tuple[str, ...]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The injections of these heads, in order: plain data, which the state dict holds, too."""
        found = list[dict[str, Any]]()
        for head in _heads.find(self.module, self.at):
            first = self.module.get_submodule(head.segments[0].name)
            assert isinstance(first, Injected), "it was injected"
            found += first.plan["history"]
        return found


def inject(
    module: nn.Module,
    at: At,
    *,
    optimizer: Optimizers = None,
    targets: Targets = (),
    init: Init | nn.Module | None = None,
    seed: int | None = None,
    subtract: bool = True,
    freeze: bool = True,
    moments: Literal["reset", "keep", "reset_all"] = "reset",
    inputs: Any = None,
) -> Handle:
    """Freezes a module's head and adds a newly initialised pair: new plasticity, same output.

    Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555), in place:

        out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

    `at`: where the head begins, as in `regrow.torch.heads`; several heads (twin critics, say) as a
    list. The live parameters stay the objects that they were, with new values. `optimizer`: the one
    that trains the module, or a list; the state of the head is dropped ("reset"), of all parameters
    ("reset_all"), or kept ("keep"). `targets`: target networks, which get the same θ' beside their
    own head. `init`: draws the parameters of a module anew in place, or is a newly made module of
    the same architecture, whose values are taken; by default `reset_parameters` of every layer.
    `seed`: of these draws. `subtract=False` omits the third term, `freeze=False` lets the old head
    learn on: the paper's ablations. `inputs`: example inputs of the module; that the output does
    not change is then checked on a copy first.

    Raises `RegrowError`, with the module unchanged, where the head cannot be injected: an unknown
    name, parameters that are shared, layers whose output depends on the mode or on chance, an
    optimizer that does not hold the head, targets of another shape.
    """
    root, optimizers = unwrapped(module), as_list(optimizer)
    found = _heads.find(root, at)
    live = _live(root, found)
    _require_no_capture()
    require_held(optimizers, live)
    if inputs is not None:
        _try(root, at, inputs, init=init, seed=seed, subtract=subtract)
    others = [_target(one, root, at) for one in as_modules(targets)]
    for one, heads in [(root, found), *others]:
        _require_same_place(one, heads)
    segments = [segment for head in found for segment in head.segments]
    with seeded(seed):
        drawn = {segment: _drawn(root, segment, init) for segment in segments}
    event = {"seed": seed, "subtract": subtract, "freeze": freeze}
    for target, theirs in others:
        _graft_all(target, theirs, drawn, event)
    if moments == "reset_all":
        forget(optimizers, root.parameters())
    olds = _graft_all(root, found, drawn, event)
    if not freeze:
        for _, old in olds:
            old.requires_grad_(True)
        adopt(optimizers, olds)
    if moments == "reset":
        forget(optimizers, live.values())
    _drop_gradients(live.values())
    return Handle(root, tuple(head.text for head in found))


def reset(
    module: nn.Module,
    at: At | None,
    *,
    optimizer: Optimizers = None,
    targets: Targets = (),
    init: Init | nn.Module | None = None,
    seed: int | None = None,
    moments: Literal["reset", "keep"] = "reset",
) -> None:
    """Re-initialises a head, or with `at=None` the module; targets become copies of the module.

    Resets (Nikishin et al. 2022, arXiv 2205.07802). Frozen heads of earlier injections are dropped,
    because they would preserve the old predictions. Arguments and errors are those of `inject`.
    """
    root, optimizers = unwrapped(module), as_list(optimizer)
    found = _heads_at(root, at)
    live = _live(root, found)
    require_held(optimizers, live)
    others = as_modules(targets)
    for one in [root, *others]:
        for name in _injected_within(one, found):
            ungraft(one.get_submodule(name))
    with seeded(seed):
        for head in found:
            for segment in head.segments:
                _take(root, segment, _drawn(root, segment, init))
    if moments == "reset":
        forget(optimizers, live.values())
    _drop_gradients(live.values())
    for target in others:
        copy_into(target, root)


def shrink_perturb(
    module: nn.Module,
    at: At | None = None,
    *,
    shrink: float = 0.5,
    perturb: float = 0.5,
    noise: Literal["fresh", "normal"] = "fresh",
    optimizer: Optimizers = None,
    targets: Targets = (),
    target: Literal["own", "copy"] = "own",
    init: Init | nn.Module | None = None,
    seed: int | None = None,
    moments: Literal["keep", "reset"] = "keep",
) -> None:
    """θ ← S·θ + P·θ', θ' newly initialised ("fresh") or N(0, 1) ("normal"), for live parameters.

    Shrink and perturb (Ash & Adams 2020, arXiv 1910.08475), and its interpolating form (BBF,
    2305.19452), whose S and P are the defaults. `at`: the heads to change, None for everything.
    `target`: whether targets are treated alike with noise of their own, or become copies.
    Raises `RegrowError` as `inject` does, and for S outside [0, 1] or P below 0.
    """
    require(0 <= shrink <= 1, f"shrink is {shrink}; it must be between 0 and 1")
    require(perturb >= 0, f"perturb is {perturb}; it must be 0 or more")
    root, optimizers = unwrapped(module), as_list(optimizer)
    found = _heads_at(root, at)
    live, others = _live(root, found), as_modules(targets)
    require_held(optimizers, live)
    with seeded(seed), torch.no_grad():
        for one in [root, *(others if target == "own" else [])]:
            for head in found:
                for segment in head.segments:
                    fresh = None if noise == "normal" else _drawn(one, segment, init)
                    _mix(one, segment, fresh, shrink, perturb)
    if target == "copy":
        for other in others:
            copy_into(other, root)
    if moments == "reset":
        forget(optimizers, live.values())
    _drop_gradients(live.values())


def reset_optimizer(
    optimizer: Optimizers, module: nn.Module | None = None, at: At | None = None
) -> None:
    """Drops the optimizer's state, step counts included; parameters are kept.

    `module` and `at`: only that of a module, or of its heads. Raises `RegrowError` where the
    optimizer does not hold them.
    """
    optimizers = as_list(optimizer)
    require(bool(optimizers), "no optimizer is given")
    if module is None:
        for one in optimizers:
            one.state.clear()
        return
    root = unwrapped(module)
    found = _heads_at(root, at)
    live = _live(root, found)
    require_held(optimizers, live)
    forget(optimizers, live.values())


def as_modules(targets: Targets) -> list[nn.Module]:
    """Target networks as a list, each without its wrapper."""
    held = [targets] if isinstance(targets, nn.Module) else list(targets)
    return [unwrapped(one) for one in held]


def copy_into(target: nn.Module, source: nn.Module) -> None:
    """Makes the values of a target those of its network, frozen parts included."""
    with torch.no_grad():
        for (name, theirs), ours in zip(
            target.named_parameters(), source.parameters(), strict=True
        ):
            require(
                theirs.shape == ours.shape,
                f"'{name}' of the target has shape {tuple(theirs.shape)}, that of the module "
                f"{tuple(ours.shape)}",
            )
            theirs.copy_(ours)
        for theirs, ours in zip(target.buffers(), source.buffers(), strict=True):
            theirs.copy_(ours)


# Steps.


def _heads_at(root: nn.Module, at: At | None) -> list[Head]:
    """The heads that are named, or the whole module as one."""
    return [Head("", (), (Segment(""),))] if at is None else _heads.find(root, at)


def _live(root: nn.Module, heads: Iterable[Head]) -> dict[str, nn.Parameter]:
    return {n: p for head in heads for n, p in head.parameters(root).items()}


def _require_no_capture() -> None:
    require(
        not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()),
        "a CUDA graph is being captured, which would replay the old head; inject before capturing",
    )


def _target(target: nn.Module, root: nn.Module, at: At) -> tuple[nn.Module, list[Head]]:
    """(a target, its heads); `RegrowError` unless they are those of the module."""
    found = _heads.find(target, at)
    ours, theirs = _live(root, _heads.find(root, at)), _live(target, found)
    shapes = [{n: tuple(p.shape) for n, p in live.items()} for live in (ours, theirs)]
    require(
        shapes[0] == shapes[1],
        f"the head of the target holds {shapes[1]}, that of the module {shapes[0]}",
    )
    return target, found


def plain_copy(root: nn.Module, segment: Segment) -> nn.Module:
    """A copy of the live layers of a segment, by itself."""
    modules = [module for _, module in parts(root, segment)]
    if segment.start is None:
        (module,) = modules
        held = module.injected if isinstance(module, Injected) else None
        if isinstance(module, Injected):
            del module.injected  # not to copy all of them
        try:
            alone = copy.deepcopy(module)
        finally:
            if held is not None:
                module.injected = held
        if isinstance(alone, Injected):
            alone.injected = nn.ModuleList()
            ungraft(alone)
        return alone
    return nn.Sequential(*copy.deepcopy(modules))


def _drawn(root: nn.Module, segment: Segment, init: Init | nn.Module | None) -> nn.Module:
    """The layers of a segment with new parameters."""
    if isinstance(init, nn.Module):
        return plain_copy(unwrapped(init), segment)
    return redrawn(plain_copy(root, segment), init)


def _graft_all(
    root: nn.Module,
    heads: Sequence[Head],
    drawn: dict[Segment, nn.Module],
    event: dict[str, Any],
) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Adds the frozen pairs and makes the live layers new: (live, old) parameters."""
    olds = list[tuple[nn.Parameter, nn.Parameter]]()
    for head in heads:
        stream = Stream()
        for segment in head.segments:
            module, fresh = root.get_submodule(segment.name), drawn[segment]
            old = plain_copy(root, segment)
            taken = copy.deepcopy(fresh) if event["subtract"] else None
            pair = Pair(old, taken).requires_grad_(False)
            live = [p for _, part in parts(root, segment) for p in _own_parameters(part)]
            olds += zip(live, old.parameters(), strict=True)
            start, first, last = _place(head, segment)
            plan = {"start": start, "first": first, "last": last}
            plan |= {"link": head.text, "history": [dict(event)]}
            graft(module, pair, plan, stream)
            _take(root, segment, fresh)
    return olds


def _require_same_place(root: nn.Module, heads: Iterable[Head]) -> None:
    """`RegrowError` where a module was injected before, as another part of a head."""
    for head in heads:
        for segment in head.segments:
            module = root.get_submodule(segment.name)
            if isinstance(module, Injected):
                require(
                    module.place == _place(head, segment),
                    f"'{segment.name}' was injected before as a part of the head "
                    f"'{module.plan['link']}', and cannot be as a part of '{head.text}'; inject at "
                    "the same place again",
                )
            else:
                require(
                    not hasattr(module, "injected"),
                    f"'{segment.name}' ({type(module).__name__}) has an attribute 'injected' of "
                    "its own; rename it first",
                )


def _place(head: Head, segment: Segment) -> tuple[int | None, bool, bool]:
    """Where a segment starts, whether it is the first of its head, and a last one."""
    return segment.start, segment == head.segments[0], segment in head.ends


def _own_parameters(part: nn.Module) -> list[nn.Parameter]:
    held = part.named_parameters()
    return [parameter for name, parameter in held if not is_frozen(name)]


def _take(root: nn.Module, segment: Segment, fresh: nn.Module) -> None:
    """Writes new values into the live parameters and buffers of a segment."""
    torch.clear_autocast_cache()  # which may hold the old ones
    modules = [part for _, part in parts(root, segment)]
    live = [p for part in modules for p in _own_parameters(part)]
    # A parametrization may keep a part of the value in a buffer.
    held = [b for part in modules for name, b in part.named_buffers() if not is_frozen(name)]
    with torch.no_grad():
        for parameter, new in zip(live, _own_parameters(fresh), strict=True):
            parameter.copy_(new)
        for buffer, new in zip(held, fresh.buffers(), strict=True):
            buffer.copy_(new)


def _mix(
    root: nn.Module, segment: Segment, fresh: nn.Module | None, shrink: float, perturb: float
) -> None:
    live = [p for _, part in parts(root, segment) for p in _own_parameters(part)]
    noise = [_normal(p) for p in live] if fresh is None else _own_parameters(fresh)
    for parameter, new in zip(live, noise, strict=True):
        parameter.mul_(shrink).add_(perturb * new)


def _normal(like: torch.Tensor) -> torch.Tensor:
    return torch.randn(like.shape, dtype=like.dtype).to(like.device)


def _injected_within(root: nn.Module, heads: Iterable[Head]) -> list[str]:
    """Modules of the heads that were injected."""
    names = [segment.name for head in heads for segment in head.segments]
    return [
        name
        for name, module in root.named_modules()
        if isinstance(module, Injected)
        and any(name == one or not one or name.startswith(f"{one}.") for one in names)
    ]


def _drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def _try(root: nn.Module, at: At, inputs: Any, **how: Any) -> None:
    """`RegrowError` where an injection changes the output of a copy, in either mode."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    # A copy each: in train mode a call may change what a module keeps, such as running means.
    trial, before = copy.deepcopy(root), _outputs(copy.deepcopy(root), given)
    inject(trial, at, **how)
    for ours, theirs in zip(before, _outputs(trial, given), strict=True):
        if how["subtract"] and not torch.equal(ours, theirs):
            raise RegrowError(
                f"an injection at {at!r} changes the output by up to "
                f"{(ours - theirs).abs().max().item():.2g}; the head does something by itself that "
                "its copies do not do alike, or is not called as a whole"
            )


def _outputs(module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    """The tensors that a module returns, in eval and in train mode."""
    found, mode = list[torch.Tensor](), module.training
    for training in (False, True):
        module.train(training)
        with torch.no_grad():
            came = module(*inputs)
        found += [one for one in _flat(came) if isinstance(one, torch.Tensor)]
    module.train(mode)
    return found


def _flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [inner for one in value for inner in _flat(one)]
    if isinstance(value, dict):
        return [inner for one in value.values() for inner in _flat(one)]
    return [value]
