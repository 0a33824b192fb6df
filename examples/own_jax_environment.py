"""Your own environment in JAX: bring a cart to rest in the middle of a track.

Run these in the folder of this file:

    regrow check jax/own_jax_environment:track
    regrow train jax/own_jax_environment:track --agent sac --env-steps 20_000
    regrow diagnose jax/own_jax_environment:track --agent sac --fork-at 20_000 --horizon 20_000

A trained run is resumed, evaluated and diagnosed under the name `jax/own_jax_environment:track`.
Worker processes import this module. In Python pass `own_jax_environment.track` as the environment.
An environment of gymnax or Brax is wrapped like this:

    cartpole = JAX.from_gymnax(*gymnax.make("CartPole-v1"))
    ant = JAX.from_brax(brax.envs.get_environment("ant"), episode_length=1_000)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from regrow.environments import JAX
from regrow.types import Continuous

SECONDS = 0.05  # per env step
LONGEST = 200  # env steps


class State(NamedTuple):
    """The cart's position and velocity, and the length of the episode so far."""

    position: jax.Array
    velocity: jax.Array
    env_steps: jax.Array


def reset(key):
    """Starts at rest at a random position; returns (state, observation)."""
    position = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    state = State(position, jnp.array(0.0), jnp.array(0))
    return state, observed(state)


def step(state, action, key):
    """(state, observation, reward, terminated, truncated); `action` is a push from −2 to 1."""
    del key  # the dynamics are deterministic
    velocity = state.velocity + SECONDS * action[0]
    position = state.position + SECONDS * velocity
    after = State(position, velocity, state.env_steps + 1)
    reward = 1.0 - jnp.abs(position) - 0.1 * jnp.abs(velocity)
    off_the_track = jnp.abs(position) > 2.0
    return after, observed(after), reward, off_the_track, after.env_steps >= LONGEST


def observed(state):
    """The observation: position and velocity."""
    return jnp.stack([state.position, state.velocity])


track = JAX(reset, step, observation_shape=(2,), actions=Continuous(1), low=-2.0, high=1.0)
