"""Injection into agents of Flax NNX, Flax Linen and Equinox: the four properties, and refusals."""

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from refusals import refused_in_a_line

import regrow.nnx
from regrow.interventions.inject import Inject
from regrow.learners.learner import Learner
from regrow.learners.optimizer import Optimizer
from regrow.networks.network import mlp
from regrow.nnx import equinox, linen
from regrow.nnx.base import leaves_of
from regrow.nnx.optimizer import Grouped, migrate

KEY = jax.random.key(3)
ADAM = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=0.1))
KINDS = ("mlp", "cnn", "twins")


def inputs_of(kind: str) -> jax.Array:
    shape = (7, 6, 6, 2) if kind == "cnn" else (7, 5)
    return jax.random.normal(jax.random.key(11), shape)


class InNNX:
    """A small agent in Flax NNX, with what the tests ask of every library."""

    class Net(nnx.Module):
        def __init__(self, kind: str, rngs: nnx.Rngs):
            if kind == "cnn":
                self.encoder = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
            else:
                self.encoder = nnx.Linear(5, 8, rngs=rngs)
            wide = 36 if kind == "cnn" else 8
            self.heads = nnx.List(
                nnx.Sequential(
                    nnx.Linear(wide, 6, rngs=rngs), nnx.relu, nnx.Linear(6, 3, rngs=rngs)
                )
                for _ in range(2 if kind == "twins" else 1)
            )

        def __call__(self, x: jax.Array) -> Any:
            x = nnx.relu(self.encoder(x))
            outs = [head(x.reshape(x.shape[0], -1)) for head in self.heads]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.at = [f"heads.{i}" for i in range(2 if kind == "twins" else 1)]
        self.build = lambda rngs: self.Net(kind, rngs)
        self.net, self.x = self.build(nnx.Rngs(0)), inputs_of(kind)
        self.optimizer = nnx.Optimizer(self.net, ADAM, wrt=nnx.Param)

    def out(self) -> Any:
        return self.net(self.x), nnx.jit(lambda net, x: net(x))(self.net, self.x)

    def gradient(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.grad(lambda net: loss(net(self.x)))(self.net)))

    def step(self) -> None:
        gradient = nnx.grad(lambda net: loss(net(self.x)))(self.net)
        self.optimizer.update(self.net, gradient)

    def inject(self, seed: int) -> None:
        regrow.nnx.inject(
            self.net, self.at, rngs=nnx.Rngs(seed), optimizer=self.optimizer, init=self.build
        )

    def learned(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.state(self.net, nnx.Param)))

    def frozen(self) -> dict:
        return leaves_of(nnx.as_pure(nnx.state(self.net, regrow.nnx.Frozen)))

    def moments(self) -> dict:
        return leaves_of(nnx.as_pure(self.optimizer.opt_state))


class InLinen:
    """The same in Flax Linen."""

    class Net(nn.Module):
        kind: str

        @nn.compact
        def __call__(self, x: jax.Array) -> Any:
            if self.kind == "cnn":
                x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="encoder")(x))
            else:
                x = nn.relu(nn.Dense(8, name="encoder")(x))
            x = x.reshape(x.shape[0], -1)
            outs = [
                nn.Dense(3)(nn.relu(nn.Dense(6)(x)))
                for _ in range(2 if self.kind == "twins" else 1)
            ]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.x, net = inputs_of(kind), self.Net(kind)
        self.at = [f"Dense_{i}" for i in range(4 if kind == "twins" else 2)]
        self.init = lambda key: net.init(key, self.x)
        self.apply: Any = net.apply
        self.params, self.kept, self.optimizer = self.init(jax.random.key(0))["params"], (), ADAM
        self.opt_state = ADAM.init(self.params)

    def _out(self, params: Any, frozen: Any) -> Any:
        variables = {"params": params} | ({"frozen": frozen} if frozen else {})
        return self.apply(variables, self.x)

    def out(self) -> Any:
        args = self.params, self.kept
        return self._out(*args), jax.jit(self._out)(*args)

    def _gradient(self) -> Any:
        return jax.grad(lambda params: loss(self._out(params, self.kept)))(self.params)

    def gradient(self) -> dict:
        return leaves_of(self._gradient())

    def step(self) -> None:
        update, self.opt_state = self.optimizer.update(
            self._gradient(), self.opt_state, self.params
        )
        self.params = optax.apply_updates(self.params, update)

    def inject(self, seed: int) -> None:
        new = linen.inject(
            self.apply,
            self.params,
            self.at,
            key=jax.random.key(seed),
            init=self.init,
            frozen=self.kept,
            optimizer=self.optimizer,
            opt_state=self.opt_state,
        )
        self.apply, self.params, self.kept, self.optimizer, self.opt_state = new

    def learned(self) -> dict:
        return leaves_of(self.params)

    def frozen(self) -> dict:
        return leaves_of(self.kept)

    def moments(self) -> dict:
        return leaves_of(self.opt_state)


class InEquinox:
    """The same in Equinox."""

    class Net(eqx.Module):
        encoder: Any
        heads: list

        def __init__(self, kind: str, key: jax.Array):
            keys = jax.random.split(key, 5)
            if kind == "cnn":
                self.encoder = eqx.nn.Conv2d(6, 4, 3, stride=2, padding=1, key=keys[0])
            else:
                self.encoder = eqx.nn.Linear(5, 8, key=keys[0])
            wide = 12 if kind == "cnn" else 8
            self.heads = [
                eqx.nn.Sequential(
                    [
                        eqx.nn.Linear(wide, 6, key=keys[2 * i + 1]),
                        eqx.nn.Lambda(jax.nn.relu),
                        eqx.nn.Linear(6, 3, key=keys[2 * i + 2]),
                    ]
                )
                for i in range(2 if kind == "twins" else 1)
            ]

        def __call__(self, x: jax.Array) -> Any:
            x = jax.nn.relu(self.encoder(x)).reshape(-1)
            outs = [head(x) for head in self.heads]
            return tuple(outs) if len(outs) > 1 else outs[0]

    def __init__(self, kind: str):
        self.build = lambda key: self.Net(kind, key)
        self.net, self.x, self.optimizer = self.build(jax.random.key(0)), inputs_of(kind), ADAM
        self.trainable = equinox.trainable(self.net)
        self.opt_state = ADAM.init(eqx.filter(self.net, eqx.is_array))

    def _out(self, net: Any) -> Any:
        return jax.vmap(net)(self.x)

    def out(self) -> Any:
        return self._out(self.net), eqx.filter_jit(self._out)(self.net)

    def _gradient(self) -> Any:
        # Equinox's own way differentiates all floating arrays.
        gradient = eqx.filter_grad(lambda net: loss(self._out(net)))(self.net)
        learned, frozen = eqx.partition(gradient, self.trainable)
        assert all(not leaf.any() for leaf in jax.tree.leaves(frozen))
        return learned

    def gradient(self) -> dict:
        return leaves_of(self._gradient())

    def step(self) -> None:
        learned, frozen = eqx.partition(self.net, self.trainable)
        update, self.opt_state = self.optimizer.update(self._gradient(), self.opt_state, learned)
        self.net = eqx.combine(eqx.apply_updates(learned, update), frozen)

    def inject(self, seed: int) -> None:
        new = equinox.inject(
            self.net,
            lambda net: net.heads,
            key=jax.random.key(seed),
            init=self.build,
            optimizer=self.optimizer,
            opt_state=self.opt_state,
        )
        self.net, self.trainable, self.optimizer, self.opt_state = new

    def learned(self) -> dict:
        return leaves_of(eqx.filter(self.net, self.trainable))

    def frozen(self) -> dict:
        others = jax.tree.map(lambda learns: not learns, self.trainable)
        return leaves_of(eqx.filter(eqx.filter(self.net, others), eqx.is_array))

    def moments(self) -> dict:
        return leaves_of(self.opt_state)


LIBRARIES = (InNNX, InLinen, InEquinox)


def loss(out: Any) -> jax.Array:
    return sum(((leaf - 1) ** 2).sum() for leaf in jax.tree.leaves(out))


def same(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def size(leaves: dict) -> int:
    return sum(leaf.size for leaf in leaves.values())


def of_encoder(leaves: dict) -> dict:
    """Leaves of the encoder, by the end of their path; an optimizer's state also has moments."""
    return {path[-4:]: leaf for path, leaf in leaves.items() if "encoder" in path}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_four_properties_of_one_injection_and_of_another(library, kind):
    agent = library(kind)
    for times in (1, 2):
        agent.step()
        out, gradient, learned = agent.out(), agent.gradient(), agent.learned()
        moments = of_encoder(agent.moments())
        agent.inject(times)
        assert same(agent.out(), out)
        assert size(agent.learned()) == size(learned)
        now, then = of_encoder(agent.gradient()), of_encoder(gradient)
        assert same(now, then) or kind == "twins"  # of several heads gradients are summed in turn
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6), now, then)
        assert moments
        assert same(of_encoder(agent.moments()), moments)
        learned, frozen = agent.learned(), agent.frozen()
        # One old head and one copy of a new one for every injection.
        head = size(learned) - size({p: v for p, v in learned.items() if "encoder" in p})
        assert size(frozen) == 2 * times * head
        agent.step()
        assert same(agent.frozen(), frozen)
        assert all((leaf != learned[path]).any() for path, leaf in agent.learned().items())
        assert not same(agent.out(), out)


@pytest.mark.parametrize("library", LIBRARIES)
def test_all_arrays_have_memory_of_their_own(library):
    """Otherwise a step that donates its arguments fails."""
    agent = library("mlp")
    agent.step()
    agent.inject(0)
    agent.inject(1)
    leaves = [*agent.learned().values(), *agent.frozen().values(), *agent.moments().values()]
    places = [leaf.unsafe_buffer_pointer() for leaf in leaves]
    assert len(places) == len(set(places))


# Against regrow's own networks, in which every layer has an optimizer state of its own.


class ChainNNX(nnx.Module):
    """The weights of a chain of dense layers; the head begins at the second."""

    def __init__(self, weights: list):
        layers: list[Any] = []
        for weight, bias in weights:
            layer = nnx.Linear(*weight.shape, rngs=nnx.Rngs(0))
            layer.kernel[...], layer.bias[...] = weight, bias
            layers += [nnx.relu] * bool(layers) + [layer]
        self.net = nnx.Sequential(*layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.net(x)


class ChainEquinox(eqx.Module):
    net: eqx.nn.Sequential

    def __init__(self, weights: list):
        layers: list[Any] = []
        for weight, bias in weights:
            layer = eqx.nn.Linear(*weight.shape, key=KEY)
            layer = eqx.tree_at(lambda one: (one.weight, one.bias), layer, (weight.T, bias))
            layers += [eqx.nn.Lambda(jax.nn.relu)] * bool(layers) + [layer]
        self.net = eqx.nn.Sequential(layers)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jax.vmap(self.net)(x)


def chain_linen(variables: dict, x: jax.Array) -> jax.Array:
    layers = list(variables["params"].values())
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"][None]
        x = nn.relu(x) if i < len(layers) - 1 else x
    return x


def params_linen(weights: list) -> dict:
    return {f"Dense_{i}": {"kernel": w, "bias": b} for i, (w, b) in enumerate(weights)}


def weights_of(layers: Any) -> list:
    return [(layer.weight, layer.bias) for layer in layers]


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


# Flax NNX: in place, targets, resets, where heads begin.


def nnx_state(module: nnx.Module) -> dict:
    return leaves_of(nnx.as_pure(nnx.state(module)))


def test_targets_get_the_same_new_head_and_keep_their_own_outputs():
    agent, target = InNNX("twins"), InNNX("twins")
    agent.step()
    x, out, theirs = agent.x, agent.net(agent.x), target.net(agent.x)
    regrow.nnx.inject(agent.net, ["heads.0", "heads.1"], rngs=nnx.Rngs(1), targets=[target.net])
    assert same(agent.net(x), out)
    assert same(target.net(x), theirs)
    ours, theirs = nnx_state(agent.net), nnx_state(target.net)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        is_new = "live" in path or "copy" in path
        assert is_new == same(leaf, theirs[path]) or path[-1] == "bias"
        assert leaf.unsafe_buffer_pointer() != theirs[path].unsafe_buffer_pointer()


def test_a_reset_drops_injections_and_makes_targets_copies():
    agent, target = InNNX("mlp"), InNNX("mlp")
    first = nnx_state(agent.net)
    agent.step()
    regrow.nnx.inject(
        agent.net, "heads.0", rngs=nnx.Rngs(1), optimizer=agent.optimizer, targets=[target.net]
    )
    agent.step()
    learned, moments = nnx_state(agent.net), of_encoder(agent.moments())
    regrow.nnx.reset(
        agent.net, "heads.0", rngs=nnx.Rngs(2), optimizer=agent.optimizer, targets=[target.net]
    )
    now = nnx_state(agent.net)
    assert now.keys() == first.keys()
    assert same(of_encoder(now), of_encoder(learned))
    assert same(of_encoder(agent.moments()), moments)
    heads = [leaf for path, leaf in agent.moments().items() if "heads" in path]
    assert not any(leaf.any() for leaf in heads)
    assert same(nnx_state(target.net), now)
    agent.step()
    assert not same(nnx_state(target.net), nnx_state(agent.net))


@pytest.mark.parametrize("second", ["net.layers.0", "net.layers.2", "net.layers.2.live.layers.2"])
def test_a_second_injection_may_begin_elsewhere(second):
    x, weights = inputs_of("mlp"), weights_of(mlp(5, (8, 6), 3, key=KEY).layers)
    net = ChainNNX(weights)
    optimizer = nnx.Optimizer(net, optax.adam(1e-2), wrt=nnx.Param)

    def learned() -> int:
        return size(leaves_of(nnx.as_pure(nnx.state(net, nnx.Param))))

    before = learned()
    for at in ("net.layers.2", second):
        optimizer.update(net, nnx.grad(lambda net: loss(net(x)))(net))
        out = net(x)
        regrow.nnx.inject(net, at, rngs=nnx.Rngs(1), optimizer=optimizer)
        assert same(net(x), out)
        assert learned() == before
    optimizer.update(net, nnx.grad(lambda net: loss(net(x)))(net))
    regrow.nnx.reset(net, "net.layers.0", rngs=nnx.Rngs(2), optimizer=optimizer)
    assert nnx_state(net).keys() == nnx_state(ChainNNX(weights)).keys()


def test_layers_are_built_again_with_the_initialisers_of_flax():
    rngs = nnx.Rngs(0)
    layers = [
        nnx.Conv(3, 8, (3, 3), use_bias=False, rngs=rngs),
        nnx.LayerNorm(8, rngs=rngs),
        nnx.LinearGeneral(8, (4, 5), rngs=rngs),
        nnx.ConvTranspose(5, 6, (2, 2), rngs=rngs),
    ]
    net = nnx.Dict(head=nnx.Sequential(*layers), encoder=nnx.Linear(3, 3, rngs=rngs))
    before = leaves_of(nnx.as_pure(nnx.state(net.head)))
    # As after training.
    nnx.update(net, jax.tree.map(lambda leaf: leaf + 9.0, nnx.state(net)))
    regrow.nnx.inject(net, "head", rngs=nnx.Rngs(5))
    after = leaves_of(nnx.as_pure(nnx.state(net.head.live)))
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        np.testing.assert_allclose(after[path].std(), leaf.std(), rtol=0.5)
        assert (after[path] != leaf).any() == (path[-1] == "kernel")


def test_a_step_may_donate_what_was_injected():
    agent, target = InNNX("mlp"), InNNX("mlp")
    for seed in range(2):
        options = {"optimizer": agent.optimizer, "targets": [target.net]}
        regrow.nnx.inject(agent.net, "heads.0", rngs=nnx.Rngs(seed), **options)

    @nnx.jit(donate_argnums=(0, 1, 2))
    def step(net: Any, optimizer: Any, target: Any) -> None:
        optimizer.update(net, nnx.grad(lambda net: loss(net(agent.x) + target(agent.x)))(net))

    step(agent.net, agent.optimizer, target.net)
    assert np.isfinite(agent.net(agent.x)).all()


def test_heads_within_lists_dicts_and_ensembles():
    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.parts = nnx.data([{"a": nnx.Linear(5, 4, rngs=rngs)}])
            many = nnx.split_rngs(splits=2)(
                nnx.vmap(lambda rngs: nnx.Dict(q=nnx.Linear(4, 3, rngs=rngs)))
            )
            self.many = many(rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = self.parts[0]["a"](x)
            return nnx.vmap(lambda one, x: one.q(x), in_axes=(0, None))(self.many, x)

    net, x = Net(nnx.Rngs(0)), inputs_of("mlp")
    out = net(x)
    with refused_in_a_line("a new 'many.q' has 'bias' of float32[3]; it must be of float32[2, 3]"):
        regrow.nnx.inject(net, "many.q", rngs=nnx.Rngs(1))
    regrow.nnx.inject(net, ["many.q", "parts.0.a"], rngs=nnx.Rngs(1), init=Net)
    assert same(net(x), out)
    assert isinstance(net.parts[0]["a"], regrow.nnx.Injected)


def test_only_what_stands_in_the_layers_of_a_sequential_has_a_rest():
    class Two(nnx.Sequential):
        """A chain with a list of other heads beside it."""

        def __init__(self, rngs: nnx.Rngs):
            super().__init__(nnx.Linear(5, 4, rngs=rngs))
            self.extra = nnx.List(nnx.Linear(4, 3, rngs=rngs) for _ in range(2))

        def __call__(self, x: jax.Array) -> Any:
            return [head(super(Two, self).__call__(x)) for head in self.extra]

    net, x = Two(nnx.Rngs(0)), inputs_of("mlp")
    out = net(x)
    regrow.nnx.inject(net, "extra.0", rngs=nnx.Rngs(1))
    assert same(net(x), out)
    kinds = [type(node).__name__ for node in (*net.extra, *net.layers)]
    assert kinds == ["Injected", "Linear", "Linear"]


class Odd(nnx.Module):
    """What is refused."""

    def __init__(self, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(5, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)
        self.dropped = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
        self.normalised = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs))
        self.attending = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.counting = nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), Counter())
        self.own = Scale()
        self.one = nnx.Linear(4, 3, rngs=rngs)
        self.other = nnx.Sequential(self.one)
        self.grouped = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.fixed = nnx.data((nnx.Linear(4, 3, rngs=rngs),))
        self.whole = Numbers(rngs)


@functools.cache
def odd() -> Odd:
    return Odd(nnx.Rngs(0))


class Counter(nnx.Module):
    def __init__(self):
        self.count = nnx.Variable(jnp.zeros(()))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class Scale(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...]


class Numbers(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.logits = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.argmax(self.logits(x), -1)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ("haed", "no submodule of the module 'haed'; did you mean 'head'?"),
        ("dropped.layers.7", "the module 'dropped.layers.7'; did you mean 'dropped.layers."),
        ("head.kernel", "'head.kernel' is a Param; a head must be a module that can be called"),
        ("dropped.layers", "'dropped.layers' is a List; a head must be a module"),
        ([], "at is empty"),
        (["head", "head"], "'head' is within the head 'head'"),
        (["counting", "counting.layers.0"], "'counting.layers.1.count' is a Variable"),
        ("dropped", "'dropped.layers.1' is a Dropout, which differs between training and"),
        ("dropped.layers.0", "'dropped.layers.1' is a Dropout"),
        ("normalised", "'normalised.layers.1' is a BatchNorm"),
        ("attending", "'attending' is a MultiHeadAttention"),
        ("own", "'own.scale' cannot be re-initialised"),
        ("grouped", "'grouped.bias' cannot be re-initialised"),
        ("one", "'one' and 'other.layers.0' are shared"),
        ("fixed.0", "'fixed.0' is in a tuple, which cannot be changed; use an nnx.List"),
        ("dropped.layers.1", "'dropped.layers.1' is a Dropout"),
    ],
)
def test_what_cannot_be_a_head_in_nnx_is_refused_and_nothing_is_changed(at, message):
    net = odd()  # of all cases, as none changes it
    before = nnx.split(net)
    with refused_in_a_line(message):
        regrow.nnx.inject(net, at, rngs=nnx.Rngs(1))
    after = nnx.split(net)
    assert before[0] == after[0]
    assert same(before[1], after[1])


def test_what_does_not_fit_is_refused_in_nnx_and_nothing_is_changed():
    agent, other = InNNX("mlp"), InNNX("twins")
    net, rngs, before = agent.net, nnx.Rngs(1), nnx.split(agent.net)
    inject, inner = regrow.nnx.inject, "heads.0.layers.2"
    with refused_in_a_line("the optimizer's state also has '1.0.mu.heads.1.layers.0.bias'"):
        inject(net, "heads.0", rngs=rngs, optimizer=other.optimizer)
    every = nnx.Optimizer(net, ADAM, wrt=nnx.PathContains("heads"))
    with refused_in_a_line("which takes frozen heads too; give wrt=nnx.Param"):
        inject(net, inner, rngs=rngs, optimizer=every)
    flat = nnx.Optimizer(net, optax.flatten(optax.adam(1e-2)), wrt=nnx.Param)
    with refused_in_a_line("holds all parameters in one array"):
        inject(net, inner, rngs=rngs, optimizer=flat)
    with refused_in_a_line(
        "'targets[0].heads.0' is also that of the module; a target must be a copy"
    ):
        inject(net, "heads.0", rngs=rngs, targets=[net])
    with refused_in_a_line("no submodule of targets[1] 'heads.0'"):
        inject(net, "heads.0", rngs=rngs, targets=[InNNX("mlp").net, nnx.Linear(2, 2, rngs=rngs)])
    with refused_in_a_line("'targets[0].heads.0' has 'layers.0.kernel' of float32[36, 6]; it must"):
        inject(net, "heads.0", rngs=rngs, targets=[InNNX("cnn").net])
    with refused_in_a_line("targets[0] also has 'heads.1.layers.0.bias'"):
        regrow.nnx.reset(net, "heads.0", rngs=rngs, targets=[other.net])
    with refused_in_a_line(
        "the 'heads.0' of init's module has 'layers.0.kernel' of float32[36, 6]"
    ):
        inject(net, "heads.0", rngs=rngs, init=InNNX("cnn").build)
    after = nnx.split(net)
    assert before[0] == after[0]
    assert same(before[1], after[1])
    inject(net := Odd(rngs), "whole", rngs=rngs)
    with refused_in_a_line(
        "the output of an injected head is int32; it must be of floating arrays"
    ):
        net.whole(jnp.ones((2, 4)))


# Flax Linen: what a head of names means.


def test_linen_pairs_keep_what_a_wider_injection_freezes():
    """Names may differ between injections; what they have in common is frozen once more."""
    for first, second in (
        (["Dense_1"], ["Dense_0", "Dense_1"]),
        (["Dense_0", "Dense_1"], "Dense_1"),
    ):
        agent = InLinen("mlp")
        for i, at in enumerate((first, second)):
            agent.at = at
            agent.step()
            out = agent._out(agent.params, agent.kept)
            agent.inject(i)
            assert same(agent._out(agent.params, agent.kept), out)


class Stateful(nn.Module):
    """Batch statistics in the encoder and dropout in the head."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(6)(x)))
        return nn.Dense(3)(x)


def test_linen_encoders_may_have_state_and_heads_dropout():
    net, x = Stateful(), inputs_of("mlp")

    def init(key: jax.Array) -> Any:
        return net.init({"params": key, "dropout": key}, x)

    variables = init(KEY)
    options = {"mutable": ["batch_stats"], "rngs": {"dropout": KEY}}
    out, changed = net.apply(variables, x, **options)
    key = jax.random.key(1)
    new = linen.inject(net.apply, variables["params"], ["Dense_1", "Dense_2"], key=key, init=init)
    assert (new.optimizer, new.opt_state) == (None, None)
    after = {**variables, "params": new.params, "frozen": new.frozen}
    out_after, changed_after = new.apply(after, x, **options)
    assert same(out_after, out)
    assert same(changed_after, changed)
    with refused_in_a_line("'BatchNorm_0.mean' is in batch_stats; a head may have parameters only"):
        linen.inject(net.apply, variables["params"], ["BatchNorm_0"], key=KEY, init=init)


def test_what_does_not_fit_is_refused_in_linen():
    agent, other = InLinen("mlp"), InLinen("twins")
    options: dict = {"key": KEY, "init": agent.init}
    with refused_in_a_line("no parameters 'Dense_11'; did you mean 'Dense_1'?"):
        linen.inject(agent.apply, agent.params, "Dense_11", **options)
    with refused_in_a_line("at is empty"):
        linen.inject(agent.apply, agent.params, [], **options)
    with refused_in_a_line("give both optimizer and opt_state, or neither"):
        linen.inject(agent.apply, agent.params, "Dense_1", optimizer=ADAM, **options)
    with refused_in_a_line("the params of init also has 'Dense_2.bias'"):
        linen.inject(agent.apply, agent.params, "Dense_1", key=KEY, init=other.init)
    with refused_in_a_line("the optimizer's state also has '1.0.mu.Dense_2.bias'"):
        state = {"optimizer": ADAM, "opt_state": other.opt_state}
        linen.inject(agent.apply, agent.params, "Dense_1", **state, **options)

    def chosen(variables: Any, x: jax.Array) -> jax.Array:
        return jnp.argmax(agent.apply(variables, x), -1)

    new = linen.inject(chosen, agent.params, "Dense_1", **options)
    with refused_in_a_line("the output of an injected head is int32"):
        new.apply({"params": new.params, "frozen": new.frozen}, agent.x)


# Equinox.


@pytest.mark.parametrize("second", [0, 2, (2, 2)])
def test_a_second_injection_may_begin_elsewhere_in_equinox(second):
    x = inputs_of("mlp")
    net = ChainEquinox(weights_of(mlp(5, (8, 6), 3, key=KEY).layers))

    def deep(net: Any) -> Any:
        return net.net.layers[2].live.layers[2]

    def flat(net: Any) -> Any:
        return net.net.layers[second]

    count = len(leaves_of(eqx.filter(net, eqx.is_array)))
    where = deep if second == (2, 2) else flat
    for one in (lambda net: net.net.layers[2], where):
        out = net(x)
        net, trainable, _, _ = equinox.inject(net, one, key=KEY)
        assert same(net(x), out)
        assert len(leaves_of(eqx.filter(net, trainable))) == count
    # The same key gives the same new head.
    new = [equinox.inject(net, where, key=KEY) for _ in range(2)]
    assert eqx.tree_equal(*new)


def test_a_whole_module_may_be_the_head_in_equinox():
    agent = InEquinox("mlp")
    new = equinox.inject(
        agent.net, lambda net: net, key=KEY, optimizer=ADAM, opt_state=agent.opt_state
    )
    assert same(jax.vmap(new.module)(agent.x), jax.vmap(agent.net)(agent.x))
    assert new.optimizer is ADAM  # of one group, as all is fresh


def test_layers_are_built_again_as_equinox_builds_them():
    layers = [
        eqx.nn.Conv2d(3, 8, 3, use_bias=False, key=KEY),
        eqx.nn.GroupNorm(2, 8),
        eqx.nn.Lambda(lambda x: x.reshape(-1)),
        eqx.nn.MLP(8 * 4 * 4, 3, 16, 1, key=KEY),
        eqx.nn.LayerNorm(3),
    ]
    net = eqx.nn.Sequential([eqx.nn.Identity(), eqx.nn.Sequential(layers)])
    new = equinox.inject(net, lambda net: net[1], key=jax.random.key(9)).module
    before, after = (leaves_of(eqx.filter(n, eqx.is_array)) for n in (net[1], new[1].live))
    assert before.keys() == after.keys()
    for path, leaf in before.items():
        assert same(after[path], leaf) == (leaf.std() == 0)
        if leaf.size > 100:
            np.testing.assert_allclose(after[path].std(), leaf.std(), rtol=0.2)
    x = jnp.ones((3, 6, 6))
    assert same(new(x), net(x))


class OddEquinox(eqx.Module):
    """What is refused."""

    head: eqx.nn.Linear
    plain: eqx.nn.Sequential
    dropped: eqx.nn.Sequential
    normalised: eqx.nn.BatchNorm
    shared: eqx.nn.Shared
    twice: Any
    own: Any
    pool: Any

    def __init__(self):
        linear = eqx.nn.Linear(4, 4, key=KEY)
        self.head = eqx.nn.Linear(4, 3, key=KEY)
        self.plain = eqx.nn.Sequential([eqx.nn.Linear(4, 4, key=k) for k in [KEY] * 3])
        self.dropped = eqx.nn.Sequential([linear, eqx.nn.Dropout(0.5)])
        self.normalised = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.shared = eqx.nn.Shared(
            [linear, eqx.nn.Linear(4, 4, key=KEY)], lambda p: p[1].weight, lambda p: p[0].weight
        )
        self.twice = [self.head]
        self.own = eqx.nn.PReLU()
        self.pool = eqx.nn.AvgPool1d(2)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (lambda m: m.haed, "where does not fit the module (AttributeError: "),
        (lambda m: m.dropped[5], "where does not fit the module (IndexError: "),
        (lambda m: m.own.negative_slope, "where gives a ArrayImpl; it must give a submodule"),
        (lambda m: (), "where gives no submodule"),
        (lambda m: m.dropped[:1], "where gives a Sequential that is no part of the module"),
        (lambda m: (m.plain, m.plain[0]), "and none within another"),
        (lambda m: (m.plain[2], m.plain[0]), "'plain.layers.0' and another head overlap"),
        (lambda m: (m.plain[0], m.plain[2]), "'plain.layers.2' and another head overlap"),
        (lambda m: m.head, "where gives a Linear that is 'head' and 'twice.0' of the module"),
        (lambda m: m.dropped[0], "'dropped.layers.1' is a Dropout; a head must not share"),
        (lambda m: m.normalised, "'normalised' is a BatchNorm; a head must not"),
        (lambda m: m.shared.pytree[1], "'shared.pytree.1' is in an eqx.nn.Shared"),
        (lambda m: m.own, "'own.negative_slope' cannot be re-initialised"),
        (lambda m: m.pool, "'pool' has no parameters; name a submodule that learns"),
    ],
)
def test_what_cannot_be_a_head_in_equinox_is_refused(where, message):
    with refused_in_a_line(message):
        equinox.inject(OddEquinox(), where, key=KEY)


def test_what_does_not_fit_is_refused_in_equinox():
    agent, other = InEquinox("mlp"), InEquinox("twins")

    def where(net: Any) -> Any:
        return net.heads[0]

    with refused_in_a_line("give both optimizer and opt_state, or neither"):
        equinox.inject(agent.net, where, key=KEY, optimizer=ADAM)
    with refused_in_a_line("the optimizer's state also has '1.0.mu.heads.1.layers.0.bias'"):
        state = {"optimizer": ADAM, "opt_state": other.opt_state}
        equinox.inject(agent.net, where, key=KEY, **state)
    with refused_in_a_line("where does not fit init's module"):
        equinox.inject(other.net, lambda net: net.heads[1], key=KEY, init=agent.build)
    with refused_in_a_line("of init's module has 'layers.0.weight' of float32[6, 12]; it must be"):
        equinox.inject(agent.net, where, key=KEY, init=InEquinox("cnn").build)
    many = eqx.filter_vmap(agent.build)(jax.random.split(KEY, 2))
    with refused_in_a_line("of float32[6]; it must be of float32[2, 6]"):
        equinox.inject(many, where, key=KEY)
    build = eqx.filter_vmap(agent.build)
    new = equinox.inject(many, where, key=KEY, init=lambda key: build(jax.random.split(key, 2)))
    call = eqx.filter_vmap(lambda net, x: jax.vmap(net)(x), in_axes=(eqx.if_array(0), None))
    assert same(call(new.module, agent.x), call(many, agent.x))


# The package and its page.


def test_without_flax_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "flax", None)
    place = regrow.nnx.__file__
    spec = importlib.util.spec_from_file_location("regrow_nnx_without_flax", place)
    assert spec is not None
    assert spec.loader is not None
    with refused_in_a_line("regrow.nnx needs flax: pip install 'regrow[flax]'"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


def test_the_code_of_the_page_works():
    page = (Path(__file__).parents[1] / "docs" / "nnx.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(block, names)
