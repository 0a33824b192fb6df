"""The toy environments do what their known values rest on."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from regrow.environments.base import DeviceEnvironment
from regrow.environments.toy.action_reward import ActionReward
from regrow.environments.toy.constant_reward import ConstantReward
from regrow.environments.toy.delayed_reward import DelayedReward
from regrow.environments.toy.matching_reward import MatchingReward
from regrow.environments.toy.observation_reward import ObservationReward
from regrow.environments.toy.reach import Reach
from regrow.environments.toy.time_limit_reward import TimeLimitReward
from regrow.errors import RegrowError
from regrow.registry import make, members
from regrow.types import Continuous, Discrete

TOYS = [cls() for cls in members("environments").values() if ".toy." in cls.__module__]


def episode(
    env: DeviceEnvironment, actions: list[int], key: int = 0
) -> tuple[list[Any], list[Any]]:
    """(observations, [(reward, terminated, truncated)]) of one episode, with its end."""
    state, observation = env.reset(jax.random.key(key))
    observations, steps = [observation.tolist()], []
    for action in actions:
        state, step = jax.jit(env.step)(state, jnp.int32(action), jax.random.key(key))
        observations.append(step.observation.tolist())
        steps.append((float(step.reward), bool(step.terminated), bool(step.truncated)))
    return observations, steps


@pytest.mark.parametrize("env", TOYS, ids=lambda env: type(env).__name__)
def test_what_is_declared_is_what_is_given(env: DeviceEnvironment) -> None:
    state, observation = env.reset(jax.random.key(0))
    vector = isinstance(env.action_space, Continuous)
    action = jnp.zeros(env.action_space.size) if vector else jnp.int32(0)
    after, step = env.step(state, action, jax.random.key(1))
    assert env.action_space == (Continuous(2) if vector else Discrete(2))
    for seen in (observation, step.observation):
        assert seen.shape == env.observation_shape
        assert seen.dtype == env.observation_dtype
    assert (step.reward.dtype, step.terminated.dtype) == (jnp.float32, jnp.bool_)
    assert step.truncated.dtype == jnp.bool_
    assert jax.tree.structure(state) == jax.tree.structure(after)
    keys = jax.random.split(jax.random.key(0), 4)
    states, _ = jax.vmap(env.reset)(keys)
    jax.vmap(env.step)(states, jnp.broadcast_to(action, (4, *action.shape)), keys)


def test_constant_reward() -> None:
    assert episode(ConstantReward(), [0]) == ([[1.0], [1.0]], [(1.0, True, False)])


def test_observation_reward() -> None:
    seen = set()
    for key in range(10):
        observations, steps = episode(ObservationReward(), [key % 2], key)
        assert steps == [(observations[0][0], True, False)]
        seen.add(steps[0][0])
    assert seen == {-1.0, 1.0}


def test_action_reward() -> None:
    assert episode(ActionReward(), [0])[1] == [(0.0, True, False)]
    assert episode(ActionReward(), [1])[1] == [(1.0, True, False)]


def test_matching_reward() -> None:
    for key in range(10):
        for action in (0, 1):
            observations, steps = episode(MatchingReward(), [action], key)
            assert steps == [(float(observations[0][0] == 2 * action - 1), True, False)]


def test_delayed_reward() -> None:
    observations, steps = episode(DelayedReward(), [0, 1])
    assert steps == [(0.0, False, False), (1.0, True, False)]
    assert observations[0] != observations[1]


def test_time_limit_reward() -> None:
    observations, steps = episode(TimeLimitReward(time_limit=3), [0, 1, 0])
    assert steps == [(1.0, False, False), (1.0, False, False), (1.0, False, True)]
    assert all(seen == observations[0] for seen in observations)
    with pytest.raises(RegrowError, match="received 0"):
        TimeLimitReward(time_limit=0)


def test_reach() -> None:
    env = Reach(size=3)
    state, shown = env.reset(jax.random.key(1))
    for off in (0.0, 0.1, -0.4):
        _, step = env.step(state, -shown / 2 + off, jax.random.key(2))
        assert float(step.reward) == pytest.approx(-3 * off**2, abs=1e-6)
        assert (bool(step.terminated), bool(step.truncated)) == (True, False)
    with pytest.raises(RegrowError, match="size is 0"):
        Reach(size=0)


def test_what_numbers_actions_refuses_vectors() -> None:
    with pytest.raises(RegrowError, match="Reach has no numbered actions"):
        make("environments", "shifting/relabelled_actions(game='toy/reach')")
    permuted = make("environments", "shifting/permuted_observations(game='toy/reach')")
    assert permuted.action_space == Continuous(2)
    state, _ = permuted.reset(jax.random.key(0))
    permuted.step(state, jnp.zeros(2), jax.random.key(1))
