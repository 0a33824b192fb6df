"""An environment of one's own in JAX: a cart is to be brought to rest in the middle of a track.

In the folder of this file:

    regrow check jax/own_jax_environment:track
    regrow train jax/own_jax_environment:track --agent sac --env-steps 20_000
    regrow diagnose jax/own_jax_environment:track --agent sac --fork-at 20_000 --horizon 20_000

What was trained is resumed, evaluated and diagnosed under that name, in worker processes too: they
import this module. From Python it is `own_jax_environment.track`, wherever an environment is asked
for. One of gymnax or of Brax is made so:

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
    """Where the cart is, how fast it goes, and how long the episode has lasted."""

    position: jax.Array
    velocity: jax.Array
    env_steps: jax.Array


def reset(key):
    """(state, observation): at rest, somewhere on the track."""
    position = jax.random.uniform(key, minval=-1.0, maxval=1.0)
    state = State(position, jnp.array(0.0), jnp.array(0))
    return state, observed(state)


def step(state, action, key):
    """(state, observation, reward, terminated, truncated); `action` is a push from −2 to 1."""
    del key  # nothing is left to chance
    velocity = state.velocity + SECONDS * action[0]
    position = state.position + SECONDS * velocity
    after = State(position, velocity, state.env_steps + 1)
    reward = 1.0 - jnp.abs(position) - 0.1 * jnp.abs(velocity)
    off_the_track = jnp.abs(position) > 2.0
    return after, observed(after), reward, off_the_track, after.env_steps >= LONGEST


def observed(state):
    """What the agent sees."""
    return jnp.stack([state.position, state.velocity])


track = JAX(reset, step, observation_shape=(2,), actions=Continuous(1), low=-2.0, high=1.0)
