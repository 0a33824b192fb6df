"""Injection into Flax NNX, Flax Linen and Equinox: the four properties, and NNX's own."""

import functools
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from nnx_agents import (
    ADAM,
    KEY,
    KINDS,
    LIBRARIES,
    ChainNNX,
    InEquinox,
    InLinen,
    InNNX,
    inputs_of,
    loss,
    of_encoder,
    same,
    size,
    weights_of,
)
from refusals import refused_in_a_line

import regrow.nnx
from regrow.networks.network import mlp
from regrow.nnx.base import leaves_of

# Kinds that differ little from others run under `make test-all`.
ALIKE = {(InNNX, "cnn"), (InEquinox, "cnn"), (InLinen, "twins")}


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        pytest.param(library, kind, marks=pytest.mark.slow if (library, kind) in ALIKE else ())
        for kind in KINDS
        for library in LIBRARIES
    ],
)
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
