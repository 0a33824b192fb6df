"""The replay that keeps every frame once, beside the plain one."""

import functools
import time
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from trees import bit_equal

from regrow.agents import PPO, DoubleDQN
from regrow.environments import Atari
from regrow.errors import RegrowError
from regrow.experience import replay as module
from regrow.experience.frame_replay import FrameReplay
from regrow.experience.replay import Replay
from regrow.training.run import abstract_state
from regrow.types import Continuous, Discrete, Transition

BYTES = np.dtype(np.uint8)
TWO = Discrete(2)
SIDES = (3, 2)


class Film:
    """An environment that stacks frames, on which episodes end as they are told to.

    `filling`: what an episode's first stack has beside its first frame: "blank" places that come
    last, as Atari's, "blank_first", or "repeated" frames.
    """

    def __init__(self, stacked: int, channels: int, filling: str, dtype: np.dtype, seed: int):
        self.stacked, self.filling, self.dtype = stacked, filling, dtype
        self.draw = np.random.default_rng(seed)
        self.frame_shape = (*SIDES, channels)
        self.begin()

    def frame(self) -> np.ndarray:
        """A new one, or one of two that come often: some frames are the same by chance."""
        kind = self.draw.integers(6)
        drawn = self.draw.integers(-100, 100, self.frame_shape)
        return (kind * np.ones_like(drawn) if kind < 2 else drawn).astype(self.dtype)

    def begin(self) -> None:
        self.frames = [self.frame()]

    def stack(self) -> np.ndarray:
        held = self.frames[-self.stacked :]
        missing = self.stacked - len(held)
        blank = np.zeros_like(held[0])
        match self.filling:
            case "blank":
                held = [*held, *[blank] * missing]
            case "blank_first":
                held = [*[blank] * missing, *held]
            case "repeated":
                held = [*[held[0]] * missing, *held]
        return np.concatenate(held, axis=-1)

    def step(self, number: int, ends: bool) -> Transition:
        before = self.stack()
        self.frames.append(self.frame())
        after = self.stack()
        if ends:
            self.begin()
        x = np.float32(number)
        return Transition(before, np.int32(number), x, np.float32(not ends), after, np.bool_(False))


def shape(stacked: int, channels: int) -> tuple[int, ...]:
    return (*SIDES, stacked * channels)


def together(transitions: list[Transition]) -> Transition:
    return jax.tree.map(lambda *parts: np.stack(parts), *transitions)


add = jax.jit(lambda replay, transition: replay.add(transition))
sampled = jax.jit(lambda replay, key: replay.sample(key, 64))
oldest_first = jax.jit(lambda replay, count: replay.first(count), static_argnums=1)


def same(replay: FrameReplay, expected: list[Transition]) -> bool:
    """Whether it holds these transitions, bit for bit, oldest first."""
    count = int(replay.size)
    held = jax.tree.map(lambda x: np.asarray(x)[:count], oldest_first(replay, replay.capacity))
    return count <= len(expected) and bit_equal(held, together(expected[-count:]))


KINDS = [
    # stacked, channels, filling, dtype, environments, capacity
    (4, 1, "blank", BYTES, 1, 40),
    (3, 3, "repeated", BYTES, 1, 9),
    (2, 2, "blank_first", np.dtype(np.float32), 3, 70),
    (4, 1, "blank", BYTES, 3, 12),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[2]}-{kind[4]}-{kind[5]}")
@given(
    lengths=st.lists(st.integers(1, 9) | st.integers(30, 60), min_size=1, max_size=30),
    seed=st.integers(0, 2**16),
)
def test_it_holds_what_the_plain_one_would(kind, lengths, seed):
    """Episodes of many lengths, one step included; some begin without an end, as after a fork."""
    stacked, channels, filling, dtype, envs, capacity = kind
    films = [Film(stacked, channels, filling, dtype, seed + n) for n in range(envs)]
    replay = FrameReplay.empty(
        capacity, shape(stacked, channels), dtype, TWO, stacked=stacked, num_envs=envs
    )
    draw, all_of_them = np.random.default_rng(seed), []
    left = [lengths[n % len(lengths)] for n in range(envs)]
    for i in range(120):
        steps = []
        for n, film in enumerate(films):
            if draw.random() < 0.02:
                film.begin()
            left[n] -= 1
            steps.append(film.step(i * envs + n, left[n] == 0))
            if left[n] == 0:
                left[n] = lengths[int(draw.integers(len(lengths)))]
        all_of_them += steps
        replay = add(replay, steps[0] if envs == 1 else together(steps))
        if i in (3, 15, 60, 119):
            assert same(replay, all_of_them)
            assert int(replay.size) >= min(len(all_of_them), capacity // (2 * stacked))
    drawn = sampled(replay, jax.random.key(seed))
    assert int(drawn.action.min()) >= len(all_of_them) - int(replay.size)
    assert bit_equal(drawn, together([all_of_them[i] for i in drawn.action.tolist()]))


def filled(capacity: int, length: int, count: int) -> tuple[FrameReplay, list[Transition]]:
    """After `count` transitions of episodes of one length, in which every frame is another."""
    film = Film(4, 1, "blank", BYTES, seed=0)
    film.frame = lambda: film.draw.integers(1, 255, film.frame_shape).astype(BYTES)
    film.begin()
    replay = FrameReplay.empty(capacity, shape(4, 1), BYTES, TWO, stacked=4)
    done = [film.step(i, i % length == length - 1) for i in range(count)]
    for one in done:
        replay = add(replay, one)
    return replay, done


@pytest.mark.parametrize(("length", "held"), [(128, 640), (32, 590), (4, 330)])
def test_it_is_full_unless_episodes_are_short(length, held):
    """A step takes a frame and the first stack of an episode four: 660 are room for no more."""
    replay, done = filled(640, length, 1_500)
    assert int(replay.written) == 1_500 + 4 * -(-1_500 // length)
    assert same(replay, done)
    size = int(replay.size)
    assert size == pytest.approx(held, abs=4)
    took = [5 if number % length == 0 else 1 for number in range(1_500)]
    assert sum(took[1_500 - size + 1 :]) <= 660  # since the oldest that is held
    assert size == 640 or sum(took[1_500 - size :]) > 660


def test_sampling_is_uniform_over_what_is_held():
    """χ² below its 0.9999 quantile, in a buffer that gave some up and wrapped around."""
    replay, _ = filled(640, 4, 1_500)
    size = int(replay.size)
    seen = Counter(np.asarray(replay.sample(jax.random.key(1), 20_000).action).tolist())
    assert sorted(seen) == list(range(1_500 - size, 1_500))
    assert stats.chisquare(list(seen.values())).pvalue > 1e-4


def test_a_frame_that_is_shared_for_ever_is_written_anew():
    """One place of the stack never changes: its frame would be written over while it is seen."""
    replay = FrameReplay.empty(10, (1, 1, 2), BYTES, TWO, stacked=2)
    done = []
    for i in range(200):
        before, after = (np.array([[[7, n]]], np.uint8) for n in (i, i + 1))
        done.append(
            Transition(before, np.int32(i), np.float32(i), np.float32(1.0), after, np.bool_(False))
        )
        replay = add(replay, done[-1])
        assert same(replay, done)
    assert int(replay.size) == 10


def test_vectors_of_actions_are_kept():
    replay = FrameReplay.empty(5, (1, 1, 2), BYTES, Continuous(3), stacked=2)
    image, action = np.zeros((1, 1, 2), np.uint8), np.array([0.5, -1.0, 0.25], np.float32)
    done = Transition(image, action, np.float32(1.0), np.float32(1.0), image, np.bool_(True))
    assert same(add(replay, done), [done])


def test_adding_takes_as_long_in_a_large_buffer_as_in_a_small_one():
    """A copy of the large one, 66 MB, would take over 100 times as long as a frame."""

    @functools.partial(jax.jit, donate_argnums=0)
    def add_many(replay: FrameReplay) -> FrameReplay:
        def one(i: jax.Array, replay: FrameReplay) -> FrameReplay:
            film = (i + jnp.arange(5)).astype(jnp.uint8)
            image = jnp.broadcast_to(film, (10, 10, 5))
            x = jnp.ones(())
            return replay.add(Transition(image[..., :4], i, x, x, image[..., 1:], x > 1))

        return jax.lax.fori_loop(0, 200, one, replay)

    def seconds(capacity: int) -> float:
        replay = FrameReplay.empty(capacity, (10, 10, 4), BYTES, TWO, stacked=4)
        replay = add_many(replay)
        where, times = replay.frames.unsafe_buffer_pointer(), []
        for _ in range(3):
            began = time.perf_counter()
            replay = jax.block_until_ready(add_many(replay))
            times.append(time.perf_counter() - began)
        assert replay.frames.unsafe_buffer_pointer() == where
        return min(times)

    assert seconds(640_000) < 20 * seconds(640)


def test_what_does_not_fit_is_refused_with_its_size_before_it_is_tried(monkeypatch):
    def empty(capacity: int) -> FrameReplay:
        return FrameReplay.empty(capacity, (84, 84, 4), BYTES, Discrete(6), stacked=4)

    monkeypatch.setattr(module, "_free_memory", lambda: 3 * 2**30)
    with pytest.raises(RegrowError, match=r"takes 6\.8 GiB and 3\.0 GiB are free;") as caught:
        empty(1_000_000)
    most = int(str(caught.value).rsplit(" ", 1)[1].replace(",", ""))
    jax.eval_shape(lambda: empty(most))
    with pytest.raises(RegrowError, match=f"can be at most {most:,}"):
        empty(most + 1)


def test_the_size_that_is_checked_is_the_size_that_is_taken(monkeypatch):
    def empty() -> FrameReplay:
        return FrameReplay.empty(3_200, (84, 84, 4), BYTES, Discrete(6), stacked=4, num_envs=2)

    replay = empty()
    stacks = replay.stack.nbytes + replay.stack_numbers.nbytes  # however many transitions there are
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(replay)) - stacks
    monkeypatch.setattr(module, "_free_memory", lambda: held)
    empty()
    monkeypatch.setattr(module, "_free_memory", lambda: held - 1_000)
    with pytest.raises(RegrowError, match="at most 3,199"):
        empty()


def test_no_room_is_refused():
    with pytest.raises(RegrowError, match="replay_capacity is 0; it must be at least 1"):
        FrameReplay.empty(0, (1, 1, 2), BYTES, TWO, stacked=2)


def test_the_paper_s_million_takes_under_7_gib_of_a_run(monkeypatch):
    monkeypatch.setattr(module, "_free_memory", lambda: None)
    state = abstract_state(DoubleDQN(**DoubleDQN.atari_paper), Atari("pong"), [])
    assert isinstance(state.replay, FrameReplay)
    leaves = jax.tree.leaves(state.replay)
    assert 6.7 < sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) / 2**30 < 6.9
    on_policy = abstract_state(PPO(), Atari("pong"), [])
    assert isinstance(on_policy.replay, Replay)
