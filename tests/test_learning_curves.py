"""Learning curves and realised values, by hand and against the sums that they stand for."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.errors import RegrowError
from regrow.stats.curves import (
    area_under_curve,
    awaits_running,
    final_return,
    learning_curve,
    realised_values,
)

NAN = math.nan


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Learning curves.


def episodes(*lengths: int, running: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One reward per step, so an episode's return is its length; the last one may not end."""
    lengths = (*lengths, running)
    returns = np.concatenate([np.arange(1, n + 1) for n in lengths])
    ended = np.zeros(len(returns), bool)
    ended[np.cumsum(lengths[:-1], dtype=int) - 1] = True
    return returns, ended


def test_a_bin_is_the_mean_of_the_episodes_that_end_in_it():
    np.testing.assert_array_equal(learning_curve(*episodes(2, 2, 4, 1, 3), bins=3), [2, 4, 2])


def test_a_bin_within_one_episode_has_what_that_episode_returns_in_the_end():
    returns, ended = episodes(1, 3, 9, 3)  # bins of 4: the long one fills the second
    for sign in (1, -1):
        curve = learning_curve(sign * returns, ended, bins=4)
        np.testing.assert_array_equal(curve, sign * np.array([2, 9, 9, 6]))
    paid_at_the_end = np.where(ended, returns, 0)
    np.testing.assert_array_equal(learning_curve(paid_at_the_end, ended, bins=4), [2, 9, 9, 6])


def test_an_episode_that_runs_at_the_end_counts_with_what_it_returns_where_it_fills_a_bin():
    for sign in (1, -1):
        returns, ended = episodes(2, 2, running=8)
        curve = learning_curve(sign * returns, ended, bins=3, running=[sign * 20.0])
        np.testing.assert_array_equal(curve, sign * np.array([2, 20, 20]))
        returns, ended = episodes(2, 3, running=3)
        curve = learning_curve(sign * returns, ended, bins=2, running=[sign * 20.0])
        np.testing.assert_array_equal(curve, sign * np.array([2, 3]))
        returns, ended = episodes(running=4)
        curve = learning_curve(sign * returns, ended, bins=2, running=[sign * 9.0])
        np.testing.assert_array_equal(curve, [sign * 9] * 2)


def test_where_nothing_is_known_a_bin_takes_the_one_before_it_never_what_was_collected():
    returns, ended = episodes(2, 2, running=8)
    np.testing.assert_array_equal(learning_curve(-returns, ended, bins=3), [-2, -2, -2])
    returns, ended = episodes(running=4)
    np.testing.assert_array_equal(learning_curve(returns, ended, bins=2, before=5.0), [5, 5])
    assert np.isnan(learning_curve(returns, ended, bins=2)).all()


def test_environments_side_by_side_count_alike_where_no_episode_ends():
    """One collects 1 at every step, the other 3; neither ends, and which is first says nothing."""
    one, other = np.arange(1, 5), 3 * np.arange(1, 5)
    for order in ((one, other), (other, one)):
        log, ended = np.stack(order, axis=1).ravel(), np.zeros(8, bool)
        last = [10.0 if pair is one else 30.0 for pair in order]
        curve = learning_curve(log, ended, bins=2, num_envs=2, running=last)
        np.testing.assert_array_equal(curve, [20, 20])
    half = learning_curve(log, ended, bins=2, num_envs=2, running=[NAN, 10.0])
    np.testing.assert_array_equal(half, [10, 10])


def test_an_episode_that_was_broken_off_is_not_known():
    """Six steps, then new episodes: what ends at the eighth says nothing of the first ones."""
    returns, ended = np.array([1.0, 2, 3, 4, 5, 6, 1, 2]), np.arange(8) == 7
    np.testing.assert_array_equal(learning_curve(returns, ended, bins=4), [2, 2, 2, 2])
    curve = learning_curve(returns, ended, bins=4, before=9.0, restarts=[6])
    np.testing.assert_array_equal(curve, [9, 9, 9, 2])


@pytest.mark.parametrize("num_envs", [1, 3, 8])
@given(
    lengths=st.lists(st.integers(1, 60), min_size=2, max_size=2, unique=True),
    bins=st.integers(1, 20),
    sign=st.sampled_from([-1, 1]),
)
def test_longer_episodes_are_never_scored_against_the_sign_of_their_rewards(
    num_envs, lengths, bins, sign
):
    """Every step pays `sign`: an arm of longer episodes earns more of it, and the curve says so."""

    def area(length: int) -> float:
        t = np.arange(40)
        log = np.repeat(sign * (t % length + 1.0), num_envs)
        ended = np.repeat(t % length == length - 1, num_envs)
        running = np.full(num_envs, sign * float(length))
        curve = learning_curve(log, ended, bins=bins, num_envs=num_envs, running=running)
        return area_under_curve(curve)

    short, long = sorted(lengths)
    assert area(short) == sign * short
    assert area(long) == sign * long


@given(st.data())
def test_running_episodes_are_asked_for_exactly_where_they_change_the_curve(data):
    num_envs, bins = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    ended = np.array(data.draw(st.lists(st.booleans(), min_size=12, max_size=12)))
    returns = rng().normal(size=12)
    one, other = (
        learning_curve(returns, ended, bins=bins, num_envs=num_envs, running=np.full(num_envs, r))
        for r in (100.0, 200.0)
    )
    assert awaits_running(ended, bins=bins, num_envs=num_envs) == bool((one != other).any())


def test_bins_share_the_steps_as_evenly_as_they_can():
    returns, ended = np.arange(10.0), np.ones(10, bool)
    np.testing.assert_array_equal(learning_curve(returns, ended, bins=3), [1.5, 5, 8])
    np.testing.assert_array_equal(learning_curve(returns, ended, bins=10), returns)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 9), st.integers(1, 8))
def test_a_curve_is_finite_and_within_what_was_earned(lengths, running, bins):
    returns, ended = episodes(*lengths, running=running)
    last = [float(running + 5)]
    curve = learning_curve(returns, ended, bins=min(bins, len(returns)), running=last)
    assert np.all((curve >= 1) & (curve <= max(returns.max(), last[0])))


def test_area_is_over_time_and_final_is_the_last_quarter():
    # Early episodes are short: per episode the mean is 1.9, over time it is 5.5.
    curve = learning_curve(*episodes(*[1] * 10, 10), bins=2)
    assert area_under_curve(curve) == 5.5
    assert final_return(np.arange(8.0)) == 6.5
    assert final_return(np.arange(10.0)) == 8
    assert final_return(np.arange(30.0), 0.1) == 28
    assert final_return([1, 2, 4], 0.01) == 4


# Realised values.


def test_nothing_follows_a_termination():
    no, yes = [False] * 3, [False, False, True]
    np.testing.assert_allclose(realised_values([1, 2, 4], yes, no, 0.5), [3, 4, 4])
    np.testing.assert_allclose(realised_values([1, 2, 4], yes, yes, 0.5), [3, 4, 4])
    np.testing.assert_allclose(realised_values([1, 2, 4], yes, no, 1.0), [7, 6, 4])


def test_steps_whose_return_is_cut_off_are_nan_unless_the_rest_weighs_little():
    reward, no = np.ones(7), np.zeros(7, bool)
    # 0.5 ** 5 = 0.031 is below 0.05, 0.5 ** 4 is not: five rewards must have been seen.
    expected = [1.984375, 1.96875, 1.9375, NAN, NAN, NAN, NAN]
    np.testing.assert_allclose(realised_values(reward, no, no, 0.5), expected)
    truncated = np.arange(7) == 5
    np.testing.assert_allclose(
        realised_values(reward, no, truncated, 0.5), [1.96875, 1.9375, *[NAN] * 5]
    )
    assert np.isnan(realised_values(reward, no, no, 1.0)).all()
    np.testing.assert_array_equal(realised_values(reward, no, no, 0.0), reward)
    assert not np.isnan(realised_values(reward, no, no, 0.5, unseen=1.0)).any()


@given(st.lists(st.sampled_from("rrrrtc"), min_size=1, max_size=40), st.floats(0, 1))
def test_realised_values_are_the_sums_they_stand_for(kinds, discount):
    reward = rng(len(kinds)).normal(size=len(kinds))
    terminated, truncated = (np.array([k == kind for k in kinds]) for kind in "tc")
    expected = []
    for t in range(len(kinds)):
        end = next((i for i in range(t, len(kinds)) if kinds[i] in "tc"), len(kinds) - 1)
        powers = [1.0]
        for _ in range(t, end + 1):
            powers.append(powers[-1] * discount)
        seen = kinds[end] == "t" or powers[-1] < 0.05
        total = sum(p * r for p, r in zip(powers, reward[t : end + 1], strict=False))
        expected.append(total if seen else NAN)
    got = realised_values(reward, terminated, truncated, discount)
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_realised_values_of_a_long_log_take_little_time():
    reward, ends = rng().normal(size=60_000), rng(1).random(60_000) < 0.01
    start = time.perf_counter()
    realised_values(reward, ends, ~ends & False, 0.99)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_curve([], [], bins=1), "episode_return must not be empty"),
        (lambda: learning_curve([1.0, 2], [True], bins=1), r"shape \(2,\), got \(1,\)"),
        (lambda: learning_curve([1.0], [1.0], bins=1), "dtype bool, got float64"),
        (lambda: learning_curve([1.0, NAN], [True, True], bins=1), "episode_return must be finite"),
        (lambda: learning_curve([1.0, 2], [True, True], bins=3), "for 2 env steps, got 3"),
        (lambda: learning_curve([1.0], [True], bins=1, before=math.inf), "before .* got inf"),
        (lambda: learning_curve([1.0], [True], bins=1, num_envs=0), "num_envs is 0"),
        (lambda: learning_curve([1.0], [True], bins=1, running=[1, 2]), r"\(1,\), got \(2,\)"),
        (lambda: area_under_curve([NAN, 1]), "curve must be finite"),
        (lambda: final_return([1.0], 0.0), r"\(0, 1\], got 0.0"),
        (lambda: realised_values([1], [True], [False, True], 0.9), r"truncated .* got \(2,\)"),
        (lambda: realised_values([1], [True], [False], 1.1), r"discount .* got 1.1"),
    ],
)
def test_errors_say_what_was_received(call, message):
    with pytest.raises(RegrowError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
