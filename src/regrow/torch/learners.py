"""A network that an agent of PyTorch trains: what interventions and probes act on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import Optimizer

from regrow.errors import require
from regrow.torch.heads import find


@dataclass(frozen=True)
class TorchLearner:
    """A module with its optimizer and its targets.

    `at`: its heads, as `regrow.torch.inject` takes them. `optimizer`: the one that trains it.
    `layers`: for each head the names of all layers from the input on ("mu, log_std" for several
    ends), where it is a chain of layers; a split then counts them. `fresh`: makes a new module of
    the same architecture, from which new values come; by default every layer draws its own.
    """

    name: str
    module: nn.Module
    at: tuple[str, ...]
    optimizer: Optimizer
    targets: tuple[nn.Module, ...] = ()
    layers: tuple[tuple[str, ...], ...] = ()
    fresh: Callable[[], nn.Module] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        find(self.module, self.at)

    @property
    def splits(self) -> int:
        """At how many layers an injection can begin; 1 where the layers are not known."""
        return min((len(chain) for chain in self.layers), default=1)

    def split_at(self, split: int | None) -> tuple[str, ...]:
        """The heads that begin at layer `split`, counted from 0; the usual ones for None.

        Raises `RegrowError` where there is no such layer.
        """
        if split is None:
            return self.at
        require(
            bool(self.layers),
            f"the layers of '{self.name}' are not known, only its head {', '.join(self.at)}; "
            "leave split out",
        )
        require(
            split < self.splits,
            f"split is {split}; '{self.name}' has {self.splits} layers, so it must be 0 to "
            f"{self.splits - 1}",
        )
        return tuple(head for chain in self.layers for head in joined(self.module, chain[split:]))

    @property
    def last(self) -> tuple[str, ...]:
        """The last layers of its heads."""
        return self.split_at(self.splits - 1)

    def made(self) -> nn.Module | None:
        """A new module, or None where every layer draws its own values."""
        return None if self.fresh is None else self.fresh()


def joined(module: nn.Module, names: Sequence[str]) -> list[str]:
    """The heads that consist of these layers: a chain of the Sequentials that hold them."""
    links = list[str]()
    modules, within = dict(module.named_modules()), ""
    for name in names:
        parent = name.rpartition(".")[0]
        in_sequential = isinstance(modules.get(parent), nn.Sequential)
        if not (in_sequential and parent == within):
            links.append(name)
        within = parent if in_sequential else ""
    if len(links) == 1:
        return [end.strip() for end in links[0].split(",")]
    return [" > ".join(links)]
