"""Injection into Equinox: where heads begin, and refusals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from nnx_agents import ADAM, KEY, ChainEquinox, InEquinox, inputs_of, same, weights_of
from refusals import refused_in_a_line

from regrow.networks.network import mlp
from regrow.nnx import equinox
from regrow.nnx.base import leaves_of

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
