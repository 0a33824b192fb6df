"""Adam after an injection: regrow's own networks beside it, and the state of the optimizer."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_agents import KEY, ChainEquinox, ChainNNX, inputs_of, loss, same, weights_of
from refusals import refused_in_a_line

import regrow.nnx
from regrow.interventions.inject import Inject
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import mlp
from regrow.nnx import equinox, linen
from regrow.nnx.base import leaves_of
from regrow.nnx.optimizer import Grouped, migrate

# Against regrow's own networks, in which every layer has an optimizer state of its own.


def chain_linen(variables: dict, x: jax.Array) -> jax.Array:
    layers = list(variables["params"].values())
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"][None]
        x = nn.relu(x) if i < len(layers) - 1 else x
    return x


def params_linen(weights: list) -> dict:
    return {f"Dense_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(weights)}


def by_regrow(x: jax.Array) -> tuple[list, list, list, list]:
    """(weights, fresh weights of two injections, steps in between, the outputs after each)."""
    network = mlp(5, (8, 6), 3, key=KEY)
    rate = Optimizer(learning_rate=1e-2, epsilon=1e-8)
    learner, fresh, outs = Learner.create(network, rate, target=False), [], []
    for steps in (3, 2, 2):
        if outs:
            learner = Inject().change(learner, jax.random.fold_in(KEY, steps + len(outs)))
            fresh.append(weights_of(learner.network.layers))
        for _ in range(steps):
            _, gradient = learner.gradient(lambda network: loss(network(x)))
            learner = learner.descend(gradient)
            outs.append(learner.network(x))
    return weights_of(network.layers), fresh, [3, 2, 2], outs


def giving(value: Any) -> Any:
    return lambda _: value


def by_nnx(x: jax.Array, weights: list, fresh: list, steps: list) -> list:
    net, outs = ChainNNX(weights), []
    optimizer = nnx.Optimizer(net, optax.adam(1e-2), wrt=nnx.Param)
    for i, count in enumerate(steps):
        if i:
            init = giving(ChainNNX(fresh[i - 1]))
            options = {"optimizer": optimizer, "init": init}
            regrow.nnx.inject(net, "net.layers.2", rngs=nnx.Rngs(0), **options)
        for _ in range(count):
            optimizer.update(net, nnx.grad(lambda net: loss(net(x)))(net))
            outs.append(net(x))
    return outs


def by_linen(x: jax.Array, weights: list, fresh: list, steps: list) -> list:
    apply, params, frozen, optimizer = chain_linen, params_linen(weights), (), optax.adam(1e-2)
    apply, state, outs = linen.Injected(apply), optimizer.init(params), []

    def out(params: Any, frozen: Any) -> Any:
        return apply({"params": params, "frozen": frozen}, x)

    for i, count in enumerate(steps):
        if i:
            options = {"frozen": frozen, "optimizer": optimizer, "opt_state": state}
            init = giving({"params": params_linen(fresh[i - 1])})
            new = linen.inject(apply, params, ["Dense_1", "Dense_2"], key=KEY, init=init, **options)
            apply, params, frozen, optimizer, state = new
        for _ in range(count):
            gradient = jax.grad(lambda params, frozen: loss(out(params, frozen)))(params, frozen)
            update, state = optimizer.update(gradient, state)
            params = optax.apply_updates(params, update)
            outs.append(out(params, frozen))
    return outs


def by_equinox(x: jax.Array, weights: list, fresh: list, steps: list) -> list:
    net, optimizer, outs = ChainEquinox(weights), optax.adam(1e-2), []
    state = optimizer.init(eqx.filter(net, eqx.is_inexact_array))
    for i, count in enumerate(steps):
        if i:
            options = {"optimizer": optimizer, "opt_state": state}
            init = giving(ChainEquinox(fresh[i - 1]))
            new = equinox.inject(net, lambda net: net.net.layers[2], key=KEY, init=init, **options)
            net, _, optimizer, state = new
        for _ in range(count):
            learned, frozen = eqx.partition(net, equinox.trainable(net))
            whole = jax.grad(lambda learned, frozen: loss(eqx.combine(learned, frozen)(x)))
            update, state = optimizer.update(whole(learned, frozen), state, learned)
            net = eqx.combine(eqx.apply_updates(learned, update), frozen)
            outs.append(net(x))
    return outs


def test_adam_steps_are_those_of_regrows_own_networks():
    x = inputs_of("mlp")
    weights, fresh, steps, right = by_regrow(x)
    for run in (by_nnx, by_linen, by_equinox):
        for out, expected in zip(run(x, weights, fresh, steps), right, strict=True):
            np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-5, err_msg=run.__name__)


# The optimizer's state.


def params(**values: float) -> dict:
    return {name: {"w": jnp.full(3, value)} for name, value in values.items()}


def test_a_group_has_its_own_adam_count_but_the_clip_and_the_schedule_of_all():
    adam = optax.scale_by_adam(b1=0.9, b2=0.99, eps=0.0)
    rate = optax.piecewise_constant_schedule(1.0, {2: 0.1, 3: 0.5})
    chain = optax.chain(optax.clip_by_global_norm(1.0), adam, optax.scale_by_schedule(rate))
    old, new = params(encoder=1.0, head=2.0), params(encoder=1.0, head=5.0)
    gradients = [params(encoder=0.3 + i, head=2.0 - 3 * i) for i in range(4)]
    state = chain.init(old)
    for gradient in gradients[:2]:
        _, state = chain.update(gradient, state, old)
    grouped, state = migrate(chain, state, old, new, [("head", "w")])
    assert isinstance(grouped, Grouped)
    updates = []
    for gradient in gradients[2:]:
        update, state = jax.jit(grouped.update)(gradient, state, new)
        updates.append(update)
    # The same in NumPy: clipped gradients, moments of the encoder over 4 steps, of the head over 2.
    flat = np.array([[g["encoder"]["w"][0], g["head"]["w"][0]] for g in gradients], float)
    flat /= np.maximum(np.sqrt(3 * (flat**2).sum(1, keepdims=True)), 1)
    for name, column, first in (("encoder", 0, 0), ("head", 1, 2)):
        mean = square = 0.0
        for step in range(first, 4):
            mean = 0.9 * mean + 0.1 * flat[step, column]
            square = 0.99 * square + 0.01 * flat[step, column] ** 2
            count = step - first + 1
            right = mean / (1 - 0.9**count) / np.sqrt(square / (1 - 0.99**count))
            if step >= 2:
                right *= {2: 0.1, 3: 0.05}[step]
                found = updates[step - 2][name]["w"]
                np.testing.assert_allclose(found, np.full(3, right), rtol=1e-5)


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1, momentum=0.9), optax.rmsprop(0.1)])
def test_an_optimizer_without_a_count_stays_as_it_is(optimizer):
    old, new = params(encoder=1.0, head=2.0), params(encoder=1.0, head=5.0)
    _, state = optimizer.update(params(encoder=3.0, head=4.0), optimizer.init(old), old)
    same_optimizer, moved = migrate(optimizer, state, old, new, [("head", "w")])
    assert same_optimizer is optimizer
    first, before, after = (leaves_of(tree) for tree in (optimizer.init(new), state, moved))
    assert same(after, {p: first[p] if "head" in p else leaf for p, leaf in before.items()})


WRAPPED = {
    "adamw": optax.adamw(0.1, weight_decay=0.1),
    "nadam": optax.nadam(0.1),
    "amsgrad": optax.amsgrad(0.1),
    "lion": optax.lion(0.1),
    "adafactor": optax.adafactor(0.1),
    "masked": optax.masked(optax.adam(0.1), lambda params: jax.tree.map(lambda _: True, params)),
    "rates": optax.multi_transform(
        {"slow": optax.adam(0.1), "fast": optax.sgd(0.5)},
        lambda params: {name: "fast" if name == "other" else "slow" for name in params},
    ),
    "hyperparameters": optax.inject_hyperparams(optax.adam)(learning_rate=0.1),
    "finite": optax.apply_if_finite(optax.adam(0.1), 3),
}


@pytest.mark.parametrize("optimizer", WRAPPED.values(), ids=WRAPPED.keys())
def test_old_parameters_go_on_and_new_ones_begin(optimizer):
    old, new = params(encoder=1.0, head=2.0, other=3.0), params(encoder=1.0, head=5.0, other=3.0)
    gradients = [params(encoder=0.3 + i, head=2.0 - 3 * i, other=1.0) for i in range(5)]
    state = optimizer.init(old)
    for gradient in gradients[:2]:
        _, state = optimizer.update(gradient, state, old)
    grouped, moved = migrate(optimizer, state, old, new, [("head", "w")])
    first = optimizer.init(new)
    for gradient in gradients[2:]:
        update, moved = grouped.update(gradient, moved, new)
        on, state = optimizer.update(gradient, state, new)
        begun, first = optimizer.update(gradient, first, new)
        right = {**on, "head": begun["head"]}
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), update, right)


def test_groups_without_parameters_are_dropped_and_moments_are_stored_once():
    adam, old = optax.adam(0.1), params(encoder=1.0, head=2.0)
    optimizer, state = adam, adam.init(old)
    for _ in range(3):
        optimizer, state = migrate(optimizer, state, old, old, [("head", "w")])
        assert len(optimizer.groups) == 2
        assert len(jax.tree.leaves(state)) == 2 * 2 + 2
        expected, found = (jax.tree.structure(one) for one in (optimizer.init(old), state))
        assert expected == found
    everything = [("head", "w"), ("encoder", "w")]
    assert migrate(optimizer, state, old, old, everything)[0] is adam


def test_an_optimizer_state_that_cannot_be_moved_is_refused():
    old, new = params(encoder=1.0, head=2.0), params(encoder=1.0, live=2.0)
    flat = optax.flatten(optax.adam(0.1))
    with refused_in_a_line("the optimizer's state '0.mu' holds all parameters in one array"):
        migrate(flat, flat.init(old), old, old, [("head", "w")])
    masked = optax.masked(optax.adam(0.1), {"encoder": True, "head": False})
    with refused_in_a_line("masks and labels must be functions of the parameters"):
        migrate(masked, masked.init(old), old, new, [("live", "w")])
    with refused_in_a_line("the optimizer's state lacks '0.mu.head.w'"):
        migrate(optax.adam(0.1), optax.adam(0.1).init(new), old, old, [])
