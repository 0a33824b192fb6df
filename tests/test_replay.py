"""The ring buffer, and that adding to it copies nothing."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.errors import RegrowError
from regrow.experience import replay as module
from regrow.experience.replay import Replay
from regrow.types import Continuous, Discrete, Transition

FLOAT = np.dtype(np.float32)
TWO = Discrete(2)


def numbered(i: int | jax.Array) -> Transition:
    x = jnp.asarray(i, jnp.float32)
    return Transition(x[None], jnp.asarray(i, jnp.int32), x, x, x[None] + 0.5, x % 3 == 1)


def filled(capacity: int, count: int) -> Replay:
    replay = Replay.empty(capacity, (1,), FLOAT, TWO)
    return jax.lax.fori_loop(0, count, lambda i, r: r.add(numbered(i)), replay)


@given(st.integers(1, 6), st.integers(0, 15))
def test_it_holds_the_last_ones_oldest_first(capacity, count):
    replay = filled(capacity, count)
    held = min(count, capacity)
    assert int(replay.size) == held
    expected = list(range(count - held, count))
    assert replay.first(held).action.tolist() == expected
    if held:
        again = replay.first(held + 1).action.tolist()
        assert again == [*expected, expected[0]]


def test_a_transition_comes_back_whole():
    batch = filled(8, 20).sample(jax.random.key(0), 64)
    np.testing.assert_array_equal(batch.obs_tm1[:, 0], batch.action)
    np.testing.assert_array_equal(batch.obs_t[:, 0], batch.reward + 0.5)


def test_sampling_is_uniform_over_what_is_held():
    """χ² over 10 rows, 20,000 draws: below 33.7, the 0.9999 quantile for 9 degrees of freedom."""
    for count in (10, 23):
        drawn = filled(16, count).sample(jax.random.key(1), 20_000).action
        values, seen = np.unique(np.asarray(drawn), return_counts=True)
        held = min(count, 16)
        assert values.tolist() == list(range(count - held, count))
        expected = 20_000 / held
        assert ((seen - expected) ** 2 / expected).sum() < 33.7 + 2 * (held - 10)


def test_adding_takes_as_long_in_a_large_buffer_as_in_a_small_one():
    """A copy of the large one, 400 MB, would take over 100 times as long as a row."""

    @functools.partial(jax.jit, donate_argnums=0)
    def add_many(replay: Replay) -> Replay:
        return jax.lax.fori_loop(0, 2_000, lambda i, r: r.add(numbered_image(i)), replay)

    def numbered_image(i: jax.Array) -> Transition:
        image = jnp.full((10, 10, 4), i % 2 == 0)
        return Transition(image, i.astype(jnp.int32), jnp.ones(()), jnp.ones(()), image, i < 0)

    def seconds(capacity: int) -> float:
        replay = add_many(Replay.empty(capacity, (10, 10, 4), np.dtype(bool), TWO))
        times = []
        for _ in range(3):
            began = time.perf_counter()
            replay = jax.block_until_ready(add_many(replay))
            times.append(time.perf_counter() - began)
        return min(times)

    assert seconds(500_000) < 20 * seconds(500)


def test_a_donated_buffer_stays_where_it_is():
    replay = filled(1000, 5)
    where = replay.storage.obs_t.unsafe_buffer_pointer()
    added = jax.jit(lambda r: r.add(numbered(1)), donate_argnums=0)(replay)
    assert added.storage.obs_t.unsafe_buffer_pointer() == where


def test_no_room_is_refused():
    with pytest.raises(RegrowError, match="replay_capacity is 0; it must be at least 1"):
        Replay.empty(0, (1,), FLOAT, TWO)


def test_what_does_not_fit_is_refused_with_its_size_before_it_is_tried(monkeypatch):
    each = 2 * 84 * 84 * 4 + 13
    monkeypatch.setattr(module, "_free_memory", lambda: 3 * 2**30)
    message = (
        r"a replay of 1,000,000 transitions takes 52\.6 GiB and 3\.0 GiB are free; "
        rf"replay_capacity can be at most {3 * 2**30 // each:,}"
    )
    with pytest.raises(RegrowError, match=message):
        Replay.empty(1_000_000, (84, 84, 4), np.dtype(np.uint8), TWO)
    for actions, bytes_each in ((TWO, 4 * 2 + 13), (Continuous(5), 4 * 2 + 4 * 7 + 1)):
        monkeypatch.setattr(module, "_free_memory", lambda b=bytes_each: 10 * b)
        replay = Replay.empty(10, (1,), FLOAT, actions)
        assert sum(leaf.nbytes for leaf in jax.tree.leaves(replay.storage)) == 10 * bytes_each
        with pytest.raises(RegrowError, match="replay_capacity can be at most 10"):
            Replay.empty(11, (1,), FLOAT, actions)
    monkeypatch.setattr(module, "_free_memory", lambda: None)
    assert Replay.empty(11, (1,), FLOAT, TWO).capacity == 11


def test_the_memory_that_is_free_is_known_here():
    free = module._free_memory()
    assert free is not None
    assert 2**20 < free < 2**50
