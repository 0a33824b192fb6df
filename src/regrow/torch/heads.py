"""Where a head begins in a PyTorch module, and what a head may not hold.

A head is named by the module where it begins:

    "network.4"                      of an `nn.Sequential`, from there to its end
    "q_net"                          any other module, by itself
    "features.linear > q_net"        modules that feed each other, nothing in between
    "latent_pi.2 > mu, log_std"      the last may be several, each fed by the one before
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from regrow.errors import RegrowError, require, unknown


def is_frozen(name: str) -> bool:
    """Whether a parameter or module is a part of a frozen copy."""
    return "injected" in name.split(".")


class Segment(NamedTuple):
    """A module of a head; of an `nn.Sequential` what comes from `start` on."""

    name: str
    start: int | None = None

    def __str__(self) -> str:
        return self.name if self.start is None else f"{self.name}[{self.start}:]"


@dataclass(frozen=True)
class Head:
    """A head of a module: `chain`, each module fed by the one before, then `ends`."""

    text: str
    chain: tuple[Segment, ...]
    ends: tuple[Segment, ...]

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of them, in the order in which they are called."""
        return (*self.chain, *self.ends)

    def parameters(self, root: nn.Module) -> dict[str, nn.Parameter]:
        """The live parameters by name, frozen copies of earlier injections left out."""
        return {
            name: parameter
            for segment in self.segments
            for prefix, part in parts(root, segment)
            for name, parameter in _named(prefix, part)
        }


def _named(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    for name, parameter in module.named_parameters(prefix=prefix):
        if not is_frozen(name):
            yield name, parameter


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that was compiled; `RegrowError` for what must be wrapped afterwards."""
    require(
        isinstance(module, nn.Module),
        f"expected a torch.nn.Module, received {type(module).__name__}",
    )
    module = getattr(module, "_orig_mod", module)
    wrappers = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")
    kind = type(module).__name__
    require(
        kind not in wrappers,
        f"the module is wrapped in {kind}, which keeps its own list of parameters; change "
        "`module.module` and wrap it again",
    )
    require(
        not isinstance(module, torch.jit.ScriptModule),
        "the module was compiled by torch.jit, which cannot be changed; change it before",
    )
    return module


def named(root: nn.Module, at: str | Sequence[str]) -> list[Head]:
    """The heads that `at` names, whatever they hold. Raises `RegrowError` for unknown names."""
    texts = [at] if isinstance(at, str) else list(at)
    require(bool(texts), "at names no head")
    return [_read(root, text) for text in texts]


def names_in(root: nn.Module, heads: Sequence[Head]) -> list[str]:
    """The names of the modules that heads consist of."""
    segments = [segment for head in heads for segment in head.segments]
    return [name for segment in segments for name, _ in parts(root, segment)]


def is_within(name: str, modules: Sequence[str]) -> bool:
    """Whether a parameter or module is one of these modules, or a part of one."""
    return any(name == one or not one or name.startswith(f"{one}.") for one in modules)


def find(root: nn.Module, at: str | Sequence[str]) -> list[Head]:
    """The heads that `at` names, one text or several.

    Raises `RegrowError` for a name that is not there (with one that is near), modules that overlap,
    and heads that cannot be copied: see `_require_plain`.
    """
    heads = named(root, at)
    texts = [head.text for head in heads]
    seen: set[str] = set()
    for head in heads:
        for name in head.parameters(root):
            require(name not in seen, f"'{name}' belongs to two of the heads {texts}")
            seen.add(name)
    for head in heads:
        _require_plain(root, head)
    return heads


def _read(root: nn.Module, text: str) -> Head:
    links = [link.strip() for link in text.split(">")]
    *chain, last = links
    ends = [end.strip() for end in last.split(",")]
    if len(ends) == 1:  # what comes after it in nested Sequentials belongs to it
        found = [s for link in links for s in _segments(root, link)]
        return Head(text, tuple(found[:-1]), (found[-1],))
    require(bool(chain), f"'{text}': several ends need a module before them, as in 'a > b, c'")
    before = [s for link in chain for s in _segments(root, link)]
    return Head(text, tuple(before), tuple(s for end in ends for s in _segments(root, end)))


def _segments(root: nn.Module, name: str) -> list[Segment]:
    """A module, or of an `nn.Sequential` the rest of it, and of those around it."""
    names = dict(root.named_modules())
    if name not in names:
        raise unknown("module", name, [n for n in names if n and not is_frozen(n)])
    found, parent = list[Segment](), names.get(name.rpartition(".")[0])
    if not isinstance(parent, nn.Sequential) or not name:
        return [Segment(name)]
    start = 0
    while isinstance(parent, nn.Sequential):
        name, _, child = name.rpartition(".")
        here = list(parent._modules).index(child) + start
        length = sum(key != "injected" for key in parent._modules)
        if here < length:
            found.append(Segment(name, here))
        if not name:
            break
        parent, start = names[name.rpartition(".")[0]], 1  # of those around it: what comes after
    return found


def parts(root: nn.Module, segment: Segment) -> list[tuple[str, nn.Module]]:
    """(name, module) of what a segment consists of: a module, or children of a Sequential."""
    module = root.get_submodule(segment.name)
    if segment.start is None:
        return [(segment.name, module)]
    children = [(n, m) for n, m in module._modules.items() if n != "injected" and m is not None]
    prefix = f"{segment.name}." if segment.name else ""
    return [(f"{prefix}{name}", child) for name, child in children[segment.start :]]


# What would not be the same in three copies.

_BY_MODE = {
    nn.modules.batchnorm._NormBase: "normalises by batch statistics",
    nn.modules.dropout._DropoutNd: "drops units at random",
    nn.RReLU: "draws its slopes at random",
    nn.RNNBase: "returns a state beside its output",
    nn.RNNCellBase: "keeps a state between calls",
    nn.MultiheadAttention: "returns weights beside its output",
}
"""Modules that give another output when they are called again, or more than one tensor."""


def _require_plain(root: nn.Module, head: Head) -> None:
    """`RegrowError` for a head that cannot be copied so that the output stays the same."""
    for name, parameter in head.parameters(root).items():
        require(
            not isinstance(parameter, nn.parameter.UninitializedParameter),
            f"'{name}' has no shape yet; call the module once first",
        )
    for segment in head.segments:
        _require_own_forward(root, segment.name)
        for prefix, part in parts(root, segment):
            for name, module in part.named_modules(prefix=prefix):
                if not is_frozen(name):
                    _require_plain_module(name, module)
    live = head.parameters(root)
    require(
        any(p.requires_grad for p in live.values()),
        f"the head '{head.text}' has no parameter that learns",
    )
    _require_unshared(root, head, live)


def _require_plain_module(name: str, module: nn.Module) -> None:
    for kind, why in _BY_MODE.items():
        idle = isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0
        tracks = getattr(module, "track_running_stats", True)
        if isinstance(module, kind) and not idle and tracks:
            raise RegrowError(
                f"'{name}' ({type(module).__name__}) {why}: the three terms of an injected head "
                "would not cancel; begin the head after it"
            )
    hooked = module._forward_hooks or module._forward_pre_hooks
    require(
        not hooked,
        f"'{name}' has forward hooks, which copies of it would run as well; remove them first "
        "(`weight_norm` and `spectral_norm` of torch.nn.utils use them, those of "
        "torch.nn.utils.parametrizations do not)",
    )
    for tensor, chain in _parametrizations(module).items():
        for one in chain:
            require(
                type(one).__name__ != "_SpectralNorm",
                f"'{name}.{tensor}' has spectral normalisation, which changes at every call; begin "
                "the head after it",
            )


def _parametrizations(module: nn.Module) -> dict[str, list[nn.Module]]:
    """By tensor, the parametrizations of a layer, in order."""
    if not parametrize.is_parametrized(module):
        return {}
    assert isinstance(module.parametrizations, nn.ModuleDict), "so it is when parametrized"
    return {tensor: list(chain.children()) for tensor, chain in module.parametrizations.items()}


def _require_own_forward(root: nn.Module, name: str) -> None:
    """`RegrowError` where an instance has a `forward` of its own: it would call what was before."""
    path = name.split(".") if name else []
    for depth in range(len(path) + 1):
        inner = ".".join(path[:depth])
        require(
            "forward" not in vars(root.get_submodule(inner)),
            f"the forward of '{inner or type(root).__name__}' was replaced on the instance, as "
            "torch.cuda.make_graphed_callables does; a CUDA graph replays what it captured: change "
            "the module first and capture it afterwards",
        )


def _require_unshared(root: nn.Module, head: Head, live: dict[str, nn.Parameter]) -> None:
    """`RegrowError` for a parameter of the head that another module holds as well.

    One module under several names is the same head under all of them.
    """
    owners: dict[int, dict[int, str]] = {}
    for prefix, module in root.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(prefix, recurse=False):
            owners.setdefault(id(parameter), {}).setdefault(id(module), name)
    for name, parameter in live.items():
        others = [one for one in owners[id(parameter)].values() if one != name]
        require(
            len(owners[id(parameter)]) == 1,
            f"'{name}' of the head '{head.text}' is also '{''.join(others[:1])}': a parameter that "
            "is shared cannot be replaced on one side",
        )


# Proposals.


class Proposal(NamedTuple):
    """Where the head could begin, for `at`, or the heads, and why there."""

    at: str | list[str]
    why: str


def find_head(module: nn.Module) -> Proposal:
    """Proposes `at` for a module: where its head begins, and why.

    After the last convolution or recurrent layer; without any, after the first layer. These are the
    splits of Nikishin et al. 2023 (arXiv 2305.15555) on images, and of regrow's own networks.
    Layers are taken in the order in which the module holds them, and joined to chains by their
    sizes; `inject` with `inputs` checks the result. Raises `RegrowError` for a module without
    linear layers after its encoder.
    """
    root = unwrapped(module)
    layers = [
        (name, layer)
        for name, layer in root.named_modules()
        if not is_frozen(name) and isinstance(layer, _LAYERS)
    ]
    require(bool(layers), f"{type(root).__name__} has no layers; name the head with at=")
    encoders = [i for i, (_, layer) in enumerate(layers) if not isinstance(layer, nn.Linear)]
    begin = encoders[-1] + 1 if encoders else min(1, len(layers) - 1)
    require(
        begin < len(layers),
        f"no linear layer comes after '{layers[-1][0]}'; name the head with at=",
    )
    why = "it is the only layer"
    if begin:
        last = layers[begin - 1][0]
        why = f"'{last}' is the last layer of the encoder"
        why += "" if encoders else ", which is the first layer where nothing is convolved"
    heads = _chains(root, [name for name, _ in layers[begin:]])
    find(root, heads)
    return Proposal(heads[0] if len(heads) == 1 else heads, why)


_LAYERS = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.Embedding,
    nn.MultiheadAttention,
)


class _Link(NamedTuple):
    """A part of a chain, with the sizes of what it reads and of what it gives."""

    name: str
    reads: int
    gives: int


def _chains(root: nn.Module, names: Sequence[str]) -> list[str]:
    """Heads that hold these linear layers: a layer follows the first chain that its size fits."""
    chains, covered = list[list[_Link]](), set[str]()
    for name in names:
        if name in covered:
            continue
        outermost = _outermost(root, name, names)
        inside = [
            layer
            for segment in _segments(root, outermost)
            for prefix, part in parts(root, segment)
            for inner, layer in part.named_modules(prefix=prefix)
            if isinstance(layer, nn.Linear) and not covered.add(inner)
        ]
        link = _Link(outermost, inside[0].in_features, inside[-1].out_features)
        before = [chain for chain in chains if chain[-1].gives == link.reads]
        beside = [chain for chain in chains if len(chain) > 1 and chain[-2].gives == link.reads]
        if before:
            before[0].append(link)
        elif beside:  # another end
            end = beside[0][-1]
            beside[0][-1] = end._replace(name=f"{end.name}, {link.name}", gives=0)
        else:
            chains.append([link])
    return [" > ".join(link.name for link in chain) for chain in chains]


def _outermost(root: nn.Module, name: str, names: Sequence[str]) -> str:
    """The largest Sequential around a layer that holds layers of the head only."""
    modules, best = dict(root.named_modules()), name
    while "." in best:
        parent = best.rpartition(".")[0]
        inside = [
            n for n, m in modules[parent].named_modules(prefix=parent) if isinstance(m, _LAYERS)
        ]
        if not isinstance(modules[parent], nn.Sequential) or not set(inside) <= set(names):
            break
        best = parent
    return best
