"""What a probe may use of a module: its parts, parameters, features, losses and updates."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from regrow.errors import RegrowError, require
from regrow.torch.heads import Head, is_within, names_in
from regrow.torch.layers import (
    Connections,
    Forward,
    Layer,
    called,
    connections,
    evaluating,
    is_frozen,
)

Part = Literal["encoder", "head"]
Loss = Callable[[nn.Module], torch.Tensor]
"""The losses of the samples, one each, computed with a module; or the loss of the batch."""
Update = Callable[[nn.Module], object]
"""Makes one update of a module, in place."""
Earlier = nn.Module | Mapping[str, Any] | None
"""An earlier copy of a module, or its state dict."""


@dataclass
class View:
    """The context of a measurement. `heads`: None if the whole module is one."""

    root: nn.Module
    inputs: Any
    heads: Sequence[Head] | None
    forward: Forward | None
    loss: Loss | None
    update: Update | None
    optimizers: Sequence[Optimizer]
    initial: Earlier
    previous: Earlier

    # Parts.

    def is_in(self, part: Part, name: str) -> bool:
        """Whether a parameter or module belongs to a part."""
        inside = self.heads is None or is_within(name, self._in_heads)
        return inside == (part == "head")

    @cached_property
    def _in_heads(self) -> list[str]:
        return names_in(self.root, self.heads or ())

    @cached_property
    def live(self) -> dict[str, nn.Parameter]:
        """The parameters by name, those of frozen copies left out."""
        return {n: p for n, p in self.root.named_parameters() if not is_frozen(n)}

    @cached_property
    def learning(self) -> list[nn.Parameter]:
        """The live parameters that learn."""
        return [p for p in self.live.values() if p.requires_grad]

    def parameters(
        self, part: Part, values: Mapping[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """All live parameters of a part as one vector, possibly empty; or these values of them."""
        held = self.live if values is None else values
        return joined([held[name] for name in self.live if self.is_in(part, name)])

    # Units and features.

    @cached_property
    def traced(self) -> Connections:
        """The layers, and what each read."""
        return self.traced_again()

    def traced_again(self) -> Connections:
        """The same with the values that the module has now."""
        return connections(self.root, self.inputs, self.forward)

    def hidden(self, part: Part) -> list[Layer]:
        """The hidden layers of a part."""
        return [layer for layer in self.traced.hidden if self.is_in(part, layer.name)]

    def sizes(self, part: Part, traced: Connections | None = None) -> list[torch.Tensor]:
        """|h| of every unit on every input (and position), for each hidden layer of a part."""
        traced = traced or self.traced
        return [real(traced.sizes(traced.layers[one.name])) for one in self.hidden(part)]

    def features(self, part: Part) -> torch.Tensor | None:
        """Φ: what the head reads of the encoder, or what the last layers of the head read.

        A row per sample. Features of several layers stand side by side. None if there are none, or
        if they are of different numbers of samples.
        """
        live = self.traced.live
        before = frozenset(one.name for one in live if self.is_in("encoder", one.name))
        readers = [one for one in live if self.is_in("head", one.name)]
        if part == "head":
            before = frozenset(one.name for one in live)
            readers = [one for one in self.traced.ends if one in readers]
        found = dict[Any, list[torch.Tensor]]()
        for reader in readers:
            readings = [one for one in reader.readings if one.sources & before]
            if readings:
                key = tuple((one.sources, one.places, one.features.shape) for one in readings)
                read = torch.cat([one.columns(before) for one in readings])
                if not any(torch.equal(read, other) for other in found.get(key, [])):
                    found.setdefault(key, []).append(read)
        each = [real(one) for several in found.values() for one in several]
        if not each or len({len(one) for one in each}) > 1:
            return None
        return torch.cat(each, dim=1)

    def is_finite(self) -> bool:
        """False for a diverged module, whose units would count as dead and its rank as 0."""
        read = [one.features for layer in self.traced.live for one in layer.readings]
        made = [layer.output for layer in self.traced.ends if layer.output is not None]
        return all(bool(torch.isfinite(one).all()) for one in [*self.live.values(), *read, *made])

    # Outputs, losses, updates.

    @property
    def has_outputs(self) -> bool:
        """Whether the module returns a tensor with a row per sample."""
        return isinstance(self.traced.result, torch.Tensor) and self.traced.result.ndim >= 2

    def outputs(self, root: nn.Module | None = None) -> torch.Tensor:
        """The outputs on the inputs, in eval mode, for gradients; of this module or another."""
        root = self.root if root is None else root
        with evaluating(root):
            return called(root, self.inputs, self.forward)

    def losses(self, root: nn.Module | None = None) -> torch.Tensor:
        """What `loss` returns, in eval mode. Raises `RegrowError` for what is not a loss."""
        assert self.loss is not None, "it was checked that it is given"
        root = self.root if root is None else root
        with evaluating(root):
            found = self.loss(root)
        kind = type(found).__name__
        require(isinstance(found, torch.Tensor), f"loss returned {kind}; it must return a tensor")
        require(
            found.ndim <= 1,
            f"loss returned a tensor of shape {tuple(found.shape)}; it must be one loss per "
            "sample, or a single number",
        )
        require(
            found.requires_grad,
            "the loss does not depend on the module's parameters; compute it with the module that "
            "loss is given",
        )
        return found

    @cached_property
    def has_losses(self) -> bool:
        """Whether there is a loss for every sample."""
        return self.loss is not None and self.losses().ndim == 1

    def gradient(self, of: torch.Tensor, *, keep: bool = False) -> list[torch.Tensor]:
        """The gradient for the live parameters that learn. `keep`: the graph, to use it again."""
        found = torch.autograd.grad(of, self.learning, retain_graph=keep, allow_unused=True)
        require(
            any(one is not None for one in found),
            "the loss does not depend on the module's parameters; compute it with the module that "
            "loss is given",
        )
        return [
            torch.zeros_like(parameter) if one is None else one
            for parameter, one in zip(self.learning, found, strict=True)
        ]

    def updated(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(outputs before, outputs after) one update of a copy, on the first half of the inputs.

        Without `update`, it is one by the optimizer on the losses of the second half.
        """
        count = len(self.traced.result)
        require(count >= 2, f"count is {count}; churn needs at least 2 samples")
        other, optimizers = self.copied()
        versions = [parameter._version for parameter in self.root.parameters()]
        if self.update is not None:
            self.update(other)
        else:
            losses = self.losses(other)
            step(optimizers, losses[len(losses) // 2 :].mean())
        require(
            versions == [parameter._version for parameter in self.root.parameters()],
            "update changed the module that is measured; it must change the copy that it is given",
        )
        half = count // 2
        return self.outputs()[:half].detach(), self.outputs(other)[:half].detach()

    def copied(self) -> tuple[nn.Module, list[Optimizer]]:
        """Copies of the module and of its optimizers, which train the copy.

        Raises `RegrowError` for a module that cannot be copied.
        """
        try:
            return self._deep_copy()
        except (RuntimeError, TypeError):
            self.traced_again()  # what was kept of a call with gradients, of one without can be
        try:
            return self._deep_copy()
        except (RuntimeError, TypeError) as error:
            name, why = type(self.root).__name__, str(error).partition(". ")[0]
            raise RegrowError(f"{name} cannot be copied ({why}); measure a part of it") from error

    def _deep_copy(self) -> tuple[nn.Module, list[Optimizer]]:
        return copy.deepcopy((self.root, list(self.optimizers)))

    # Earlier states.

    def back_then(self, earlier: Earlier) -> dict[str, torch.Tensor] | None:
        """The live parameters and buffers of an earlier state; None if its architecture differs."""
        then, now = (
            {n: v for n, v in state.items() if isinstance(v, torch.Tensor) and not is_frozen(n)}
            for state in (_state_dict(earlier), self.root.state_dict())
        )
        if {n: v.shape for n, v in then.items()} != {n: v.shape for n, v in now.items()}:
            return None
        return {n: v.to(now[n]) for n, v in then.items()}

    @contextlib.contextmanager
    def as_it_was(self, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """The module with these values in place of its own."""
        own = {**dict(self.root.named_buffers()), **self.live}
        kept = {name: own[name].data for name in values if name in own}
        try:
            for name in kept:
                own[name].data = values[name]
            yield
        finally:
            for name, data in kept.items():
                own[name].data = data


def step(optimizers: Sequence[Optimizer], loss: torch.Tensor) -> None:
    """One step of the optimizers along the gradient of a loss."""
    for one in optimizers:
        one.zero_grad()
    loss.backward()
    for one in optimizers:
        one.step()


def joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All elements as one vector, possibly empty."""
    flat = [tensor.detach().flatten() for tensor in tensors]
    return real(torch.cat(flat)) if flat else torch.zeros(0)


def real(tensor: torch.Tensor) -> torch.Tensor:
    """In single precision at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _state_dict(earlier: Earlier) -> Mapping[str, Any]:
    if isinstance(earlier, nn.Module):
        return getattr(earlier, "_orig_mod", earlier).state_dict()
    return earlier or {}
