"""FLOPs against what the shapes of layers say."""

import jax
import jax.numpy as jnp
import pytest

from regrow.agents import PPO, SAC, DoubleDQN
from regrow.environments import MatchingReward, Reach
from regrow.training.flops import _flops, cost, flops
from regrow.training.run import abstract_state
from regrow.types import Event

AGENT = DoubleDQN(hidden=256, learn_start=400)
ENVIRONMENT = MatchingReward()
LAYERS = ((1, 256), (256, 256), (256, 2))
FORWARD = sum(2 * inputs * outputs for inputs, outputs in LAYERS)


def after(*interventions: str) -> tuple[Event, ...]:
    return tuple(Event(1_000, text) for text in interventions)


def test_acting_is_one_forward_pass():
    act, _ = cost(AGENT, abstract_state(AGENT, ENVIRONMENT, ()))
    assert act == pytest.approx(FORWARD, rel=0.02)


def test_an_update_is_three_forward_passes_and_a_gradient():
    _, update = cost(AGENT, abstract_state(AGENT, ENVIRONMENT, ()))
    gradient = 2 * FORWARD - 2 * 256  # weights, and inputs but for the first layer's
    products = 32 * (3 * FORWARD + gradient)
    parameters = sum((inputs + 1) * outputs for inputs, outputs in LAYERS)
    assert products < update < products + 20 * parameters  # Adam's part, and activations


def test_env_steps_add_up_and_nothing_is_learnt_before_the_start():
    act, update = cost(AGENT, abstract_state(AGENT, ENVIRONMENT, ()))
    assert flops(AGENT, ENVIRONMENT, (), 0, 400) == 400 * act
    whole = flops(AGENT, ENVIRONMENT, (), 0, 2_000)
    assert whole == 2_000 * act + 400 * update  # one update every four env steps
    halves = flops(AGENT, ENVIRONMENT, (), 0, 1_000) + flops(AGENT, ENVIRONMENT, (), 1_000, 2_000)
    assert halves == pytest.approx(whole)


def test_networks_count_as_large_as_they_are_at_each_step():
    plain = flops(AGENT, ENVIRONMENT, after("nothing"), 1_000, 2_000)
    injected = flops(AGENT, ENVIRONMENT, after("inject(split=1)"), 1_000, 2_000)
    # A head of 256·256 + 256·2 becomes three; the frozen two have no gradient of their weights.
    assert 2 < injected / plain < 3
    twice = flops(
        AGENT, ENVIRONMENT, (*after("nothing"), Event(1_500, "inject(split=1)")), 1_000, 2_000
    )
    assert twice == pytest.approx((plain + injected) / 2)
    assert flops(AGENT, ENVIRONMENT, after("widen"), 1_000, 2_000) > 3 * plain
    assert flops(AGENT, ENVIRONMENT, after("reset"), 1_000, 2_000) == plain


def test_a_loop_counts_as_often_as_it_turns():
    def powers(x):
        def outer(x, _):
            return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=5)[0], None

        return jax.lax.scan(outer, x, None, length=7)[0]

    shape = jax.ShapeDtypeStruct((32, 32), jnp.float32)
    assert _flops(jax.make_jaxpr(powers)(shape)) == pytest.approx(35 * 2 * 32**3, rel=0.01)


def test_other_agents():
    ppo = [PPO(epochs=n, minibatches=4, num_envs=4, batch_size=64) for n in (2, 4)]
    two, four = (cost(agent, abstract_state(agent, ENVIRONMENT, ())).update for agent in ppo)
    assert four / two == pytest.approx(2, rel=0.1)
    sac = SAC(replay_capacity=100, hidden=128)
    forward = 2 * (128 * 128 + 128 * 4 + 4 * 128)
    # Seven forward passes of a batch of 256, and the gradients of three networks, one through two.
    update = cost(sac, abstract_state(sac, Reach(), ())).update
    assert 10 < update / (256 * forward) < 18
