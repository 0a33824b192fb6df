"""Injection into Flax Linen: what a head of names means, and refusals."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from nnx_agents import ADAM, KEY, InLinen, inputs_of, same
from refusals import refused_in_a_line

from regrow.nnx import linen

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
