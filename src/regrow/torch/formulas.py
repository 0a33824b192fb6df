"""The probes of PyTorch modules: what `regrow.probes` measures of agents of this library.

Every function has the formula, the source and the NaN rules of the probe of its name there. It
returns a number, NaN if there is nothing to measure.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from regrow.errors import require
from regrow.torch.layers import Layer, evaluating
from regrow.torch.tracking import tensors_in
from regrow.torch.view import Part, View, joined, real, step

Number = float | torch.Tensor
NOTHING_THERE = float("nan")


# Units.


def quiet(score: torch.Tensor, tau: float) -> torch.Tensor:
    """s_i ≤ τ · mean_k s_k within a layer; True for every unit if all scores are 0."""
    return score <= tau * score.mean()


def _share(flags: Sequence[torch.Tensor]) -> Number:
    """The share of flagged units, pooled over layers; NaN if there are no units."""
    return real(torch.cat(list(flags))).mean() if flags else NOTHING_THERE


def dead_units(view: View, part: Part, threshold: float) -> Number:
    """Share of hidden units that fire on no more than `threshold` of the inputs."""
    return _share([real(units > 0).mean(dim=0) <= threshold for units in view.sizes(part)])


def dead_by_firing(view: View, part: Part, tau: float) -> Number:
    """Share of hidden units that fire on less than `tau` of the inputs (arXiv 2306.13812)."""
    return _share([(units > 0).sum(dim=0) < tau * len(units) for units in view.sizes(part)])


def dormant_units(view: View, part: Part, tau: float) -> Number:
    """Share of hidden units with E|h_i| ≤ τ · mean_k E|h_k| (arXiv 2302.12902)."""
    return _share([quiet(units.mean(dim=0), tau) for units in view.sizes(part)])


def dead_overlap(view: View, part: Part, tau: float) -> Number:
    """|D_prev ∩ D_now| / |D_prev|, D the τ-dormant units, both on the current inputs."""
    earlier = view.back_then(view.previous)
    if earlier is None or not view.hidden(part):
        return NOTHING_THERE
    with view.as_it_was(earlier):
        before = view.sizes(part, view.traced_again())
    then, now = (
        torch.cat([quiet(units.mean(dim=0), tau) for units in sizes])
        for sizes in (before, view.sizes(part))
    )
    return (then & now).sum() / then.sum()  # 0 / 0 is NaN


def gradient_dormancy(view: View, part: Part, tau: float) -> Number:
    """Share of hidden units with E|∂L/∂z_i| ≤ τ · mean_k E|∂L/∂z_k| (arXiv 2505.24061)."""
    hidden = view.hidden(part)
    scores = _sensitivity(view, hidden)
    if not all(bool(torch.isfinite(score).all()) for score in scores):
        return NOTHING_THERE
    return _share([quiet(score, tau) for score in scores])


def _sensitivity(view: View, layers: Sequence[Layer]) -> list[torch.Tensor]:
    """E|∂ℓ/∂z_i| for every unit of layers, with ℓ the loss of one sample, z the pre-activation.

    The gradient of the sum of the losses for the z of one sample is that of its own loss.
    """
    pulls: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in layers}

    def watch(layer: Layer, module: nn.Module, given: Any, made: Any) -> None:
        del module, given
        for tensor in itertools.islice(tensors_in(made), 1):
            if tensor.requires_grad:
                # It has the gradient for what was made, even if that is changed in place.
                tensor.register_hook(pulls[layer.name].append)

    with contextlib.ExitStack() as stack:
        stack.enter_context(_all_learning(view.live.values()))
        for layer in layers:
            handle = layer.before.register_forward_hook(functools.partial(watch, layer))
            stack.callback(handle.remove)
        losses = view.losses()
        torch.autograd.grad(losses.sum(), list(view.live.values()), allow_unused=True)
    return [_mean_pull(layer, pulls[layer.name], losses) for layer in layers]


def _mean_pull(layer: Layer, pulls: Sequence[torch.Tensor], losses: torch.Tensor) -> torch.Tensor:
    """E|∂ℓ/∂z_i|; the gradients of several calls are summed."""
    for pull in pulls:
        require(
            len(pull) == len(losses) and pull.shape == pulls[0].shape,
            f"'{layer.name}' was called on {len(pull)} rows for {len(losses)} losses; "
            "gradient_dormancy needs a loss that calls the module on one row per sample",
        )
    if not pulls:
        return torch.zeros(layer.units, device=losses.device)
    total = torch.stack([pull.detach() for pull in pulls]).sum(dim=0)
    return real(layer.place.by_unit(total).abs()).mean(dim=0)


@contextlib.contextmanager
def _all_learning(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    kept = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in kept:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, learns in kept:
            parameter.requires_grad_(learns)


# Features.


def _singular_values(view: View, part: Part) -> torch.Tensor | None:
    features = view.features(part)
    return None if features is None else torch.linalg.svdvals(features)


def _least(sizes: torch.Tensor, delta: float) -> Number:
    """The least k such that the k largest sizes sum to at least 1 − δ of the total; 0 for zeros."""
    if not sizes[0] > 0:
        return 0.0
    reached = sizes.cumsum(dim=0) >= (1 - delta) * sizes.sum()
    return float(reached.int().argmax()) + 1


def _relative(sigma: torch.Tensor) -> torch.Tensor:
    return sigma / torch.where(sigma[0] > 0, sigma[0], 1.0)


def srank(view: View, part: Part, delta: float) -> Number:
    """The least k with Σ_{i≤k} σ_i ≥ (1 − δ) Σ σ_i, σ of the features (arXiv 2010.14498)."""
    sigma = _singular_values(view, part)
    return NOTHING_THERE if sigma is None else _least(sigma, delta)


def approximate_rank(view: View, part: Part, delta: float) -> Number:
    """`srank` with σ² (arXiv 1909.12255); features are not centred."""
    sigma = _singular_values(view, part)
    return NOTHING_THERE if sigma is None else _least(_relative(sigma).square(), delta)


def stable_rank(view: View, part: Part) -> Number:
    """‖Φ‖_F² / ‖Φ‖₂² = Σ σ_i² / σ_1² of the features; 0 if all are 0."""
    sigma = _singular_values(view, part)
    return NOTHING_THERE if sigma is None else _relative(sigma).square().sum()


def effective_rank(view: View, part: Part) -> Number:
    """exp(−Σ p_i log p_i), p_i = σ_i / Σ σ (Roy & Vetterli 2007); 0 if all features are 0."""
    sigma = _singular_values(view, part)
    if sigma is None:
        return NOTHING_THERE
    total = sigma.sum()
    return torch.special.entr(sigma / total).sum().exp() if total > 0 else 0.0


def feature_rank(view: View, part: Part, epsilon: float) -> Number:
    """#{i: σ_i(Φ/√n) > ε}, n the number of inputs (arXiv 2204.09560)."""
    features = view.features(part)
    if features is None:
        return NOTHING_THERE
    return (torch.linalg.svdvals(features) / len(features) ** 0.5 > epsilon).sum()


def feature_norm(view: View, part: Part) -> Number:
    """mean_x ‖φ(x)‖₂, φ the encoder's output or the head's last features."""
    features = view.features(part)
    return NOTHING_THERE if features is None else features.norm(dim=1).mean()


# Parameters.


def weight_norm(view: View, part: Part) -> Number:
    """‖θ‖₂ over all live parameters of the part, biases included."""
    weights = view.parameters(part)
    return weights.norm() if len(weights) else NOTHING_THERE


def weight_magnitude(view: View, part: Part) -> Number:
    """Mean |θ| over all live parameters of the part, biases included (arXiv 2306.13812)."""
    return view.parameters(part).abs().mean()  # of none it is NaN


def weight_change(view: View, part: Part) -> Number:
    """√(Σ (θ − θ_prev)² / N) over the N live parameters of the part."""
    earlier = view.back_then(view.previous)
    if earlier is None:
        return NOTHING_THERE
    return (view.parameters(part) - view.parameters(part, earlier)).square().mean().sqrt()


def distance_from_init(view: View, part: Part) -> Number:
    """‖θ − θ_0‖₂ over all live parameters of the part, θ_0 their initial values."""
    earlier, weights = view.back_then(view.initial), view.parameters(part)
    if earlier is None or not len(weights):
        return NOTHING_THERE
    return (weights - view.parameters(part, earlier)).norm()


# Gradients.


def gradient_norm(view: View, part: Part) -> Number:
    """‖∇‖₂ of the loss on the batch over the part's live parameters, before clipping."""
    of = dict(zip(map(id, view.learning), view.gradient(view.losses().mean()), strict=True))
    inside = [parameter for name, parameter in view.live.items() if view.is_in(part, name)]
    if not inside:
        return NOTHING_THERE
    return joined([of[id(one)] for one in inside if id(one) in of]).norm()


def gradient_cosine(view: View, samples: int) -> Number:
    """Mean cosine between the gradients of pairs of samples (arXiv 2303.01486).

    Of the first `samples`; NaN if fewer than two have a nonzero gradient.
    """
    losses = view.losses()[:samples]
    gradients = torch.stack([joined(view.gradient(one, keep=True)) for one in losses])
    # Normalised twice: the square of a gradient may overflow or underflow.
    scale = gradients.abs().amax(dim=1, keepdim=True)
    gradients = gradients / torch.where(scale > 0, scale, 1.0)
    norms = gradients.norm(dim=1, keepdim=True)
    units = gradients / torch.where(norms > 0, norms, 1.0)
    cosines = units @ units.T
    pull = int((norms > 0).sum())
    return (cosines.sum() - cosines.trace()) / (pull * (pull - 1)) if pull > 1 else NOTHING_THERE


def ntk_rank(view: View, samples: int, threshold: float) -> Number:
    """Number of eigenvalues of J Jᵀ above `threshold` × the largest (arXiv 2506.00592).

    Row i of J is the gradient of the largest output on input i; 0 if all gradients are 0.
    """
    largest = view.outputs().flatten(1).amax(dim=1)[:samples]
    jacobian = torch.stack([joined(view.gradient(one, keep=True)) for one in largest])
    largest_entry = jacobian.abs().max()
    if not torch.isfinite(largest_entry):
        return NOTHING_THERE
    if not largest_entry > 0:
        return 0.0
    jacobian = jacobian / largest_entry
    eigenvalues = torch.linalg.eigvalsh(jacobian @ jacobian.T)
    return (eigenvalues > threshold * eigenvalues[-1]).sum()


def curvature(view: View, iterations: int) -> Number:
    """Largest eigenvalue of the Hessian of the loss on the batch, by power iteration."""
    weights = view.learning
    slopes = torch.autograd.grad(
        view.losses().mean(), weights, create_graph=True, allow_unused=True
    )
    pairs = [(w, g) for w, g in zip(weights, slopes, strict=True) if g is not None]
    gradient = torch.cat([g.flatten() for _, g in pairs])

    def bend(v: torch.Tensor) -> torch.Tensor:
        if not gradient.requires_grad:
            return torch.zeros_like(v)  # the loss is linear
        own = [w for w, _ in pairs]
        bent = torch.autograd.grad(gradient, own, v, retain_graph=True, materialize_grads=True)
        return torch.cat([one.flatten() for one in bent])

    def iterated(v: torch.Tensor, shift: float) -> tuple[torch.Tensor, float]:
        for _ in range(iterations):
            v = _unit(bend(v) + shift * v)
        return v, float(v @ bend(v))

    start = _unit(torch.randn(gradient.shape, dtype=gradient.dtype).to(gradient.device))
    v, value = iterated(start, 0.0)
    # Restart: v has converged to the negative direction and could not leave it.
    return iterated(start if value < 0 else v, max(-value, 0.0))[1]


def _unit(v: torch.Tensor) -> torch.Tensor:
    norm = v.norm()
    return v / torch.where(norm > 0, norm, 1.0)


# Updates.


def policy_churn(view: View) -> Number:
    """Share of inputs whose greedy action changes after one update on others (2506.00592)."""
    before, after = view.updated()
    if before.ndim != 2 or before.shape[-1] == 1 or not torch.isfinite(after).all():
        return NOTHING_THERE
    return real(after.argmax(dim=-1) != before.argmax(dim=-1)).mean()


def value_churn(view: View) -> Number:
    """E (Q'(s, a) − Q(s, a))² over inputs and outputs, Q' after one update (arXiv 2506.00592)."""
    before, after = view.updated()
    return (after - before).square().mean()


def trainability(view: View, updates: int) -> Number:
    """1 − MSE_after / MSE_before of a copy that fits its outputs plus N(0, 1) (2204.09560)."""
    outputs = view.outputs().detach()
    noise = torch.randn(outputs.shape, dtype=outputs.dtype).to(outputs.device)
    other, optimizers = view.copied()
    for one in optimizers:
        one.state.clear()

    def loss() -> torch.Tensor:
        return (view.outputs(other) - outputs - noise).square().mean()

    with evaluating(other):
        before = loss().detach()
        for _ in range(updates):
            step(optimizers, loss())
        return 1 - loss().detach() / before
