"""What is drawn: files that are pictures, whatever there is to draw."""

import math

import numpy as np
import pytest

from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.outcomes import Outcome
from regrow.errors import RegrowError
from regrow.report.figure import draw_curves, draw_learning
from regrow.report.looks import draw_looks, known, looks_picture
from regrow.training.saved import Episodes, Trained

NAMES = ["nothing", "inject", "reset", "inject when dead_units above 0.3 at most 3 times"]


@pytest.mark.parametrize("arms", [4, 7, 8, 27])
def test_learning_curves_are_drawn_for_few_arms_and_for_many(tmp_path, arms):
    names = [*NAMES, *(f"arm {i}" for i in range(arms))][:arms]
    steps, returns = np.arange(5), np.random.default_rng(0).normal(size=(3, 5))
    curves = {"fork": (steps, returns), **dict.fromkeys(names, (steps + 5, returns))}
    path = tmp_path / "curves.png"
    draw_curves(path, curves, fork_at=5, title="a", subtitle="b", random_return=0.1)
    assert path.read_bytes().startswith(b"\x89PNG")


def episodes(seed: int, count: int) -> Episodes:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 60, size=count)
    return Episodes(lengths.cumsum(), generator.normal(size=count), lengths)


def trained(seed: int, *, environment="a", what="b", count=50) -> Trained:
    return Trained(environment, what, seed, episodes(seed, count))


# It begins after another seed of the same has ended.
LATE = Trained("a", "b", 2, Episodes(*(np.array([x]) for x in (9_000, 1.0, 10))))


def test_the_recent_return_is_the_mean_of_what_ended_within_the_window():
    those = episodes(0, 30)
    at = np.arange(int(those.env_steps[-1]) + 50)
    expected = []
    for now in at:
        ended = those.returns[those.env_steps <= now]
        within = those.returns[(those.env_steps <= now) & (those.env_steps > now - 25)]
        expected.append(within.mean() if within.size else ended[-1] if ended.size else math.nan)
    np.testing.assert_allclose(those.recent_at(at, 25), expected, atol=1e-12)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_runs_are_drawn_by_environment_and_agent(tmp_path, suffix):
    path = tmp_path / f"curves.{suffix}"
    several = [trained(0), trained(1, count=10), trained(0, what=r"$\frac{$"), LATE]
    draw_learning(path, [*several, *(trained(0, environment=name) for name in "xyz")])
    assert path.stat().st_size > 1_000


@pytest.mark.parametrize(
    ("runs", "name", "message"),
    [
        ([trained(0)], "curves.txt", r"curves.txt; it must end in .png or .svg or .pdf"),
        ([trained(0), trained(0)], "curves.png", "b on a, seed 0, is given twice"),
        ([trained(0, count=0)], "curves.png", "b on a, seed 0, has finished no episode yet"),
    ],
)
def test_what_cannot_be_drawn_is_refused(tmp_path, runs, name, message):
    with pytest.raises(RegrowError, match=message):
        draw_learning(tmp_path / name, runs)
    assert not list(tmp_path.iterdir())


# Looks.


def looked(effect: float, seeds: int = 12, looks=(4, 6, 8, 10, 12, 14)):
    generator = np.random.default_rng(1)
    runs = []
    for seed in range(seeds):
        for arm, level in (("nothing", 5.0), ("inject", 5.0 + effect)):
            curve = tuple((level + generator.normal(size=20)).tolist())
            runs.append(Outcome(arm, seed, curve, (1.0,), 1.0, 1.0))
    return conclude(runs, random_return=0.0, looks=looks)


@pytest.mark.parametrize("suffix", ["png", "svg"])
@pytest.mark.parametrize("effect", [0.5, 500.0])
def test_the_looks_are_drawn_with_their_boundaries(tmp_path, effect, suffix):
    verdict, path = looked(effect), tmp_path / f"looks.{suffix}"
    draw_looks(path, verdict, title="a")
    assert path.stat().st_size > 1_000
    assert [look.n for look in known(verdict)] == [4, 6, 8, 10, 12]
    picture = looks_picture(verdict)
    upper, lower, held = (
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in picture.iter("polyline")
    )
    assert [x for x, _ in upper] == [x for x, _ in lower] == [x for x, _ in held]
    middle = [(a + b) / 2 for (_, a), (_, b) in zip(upper, lower, strict=True)]
    assert max(middle) - min(middle) <= 0.1  # as of rounding
    for (_, top), (_, bottom), (_, at), look in zip(
        upper, lower, held, known(verdict), strict=True
    ):
        assert (at < top) == (look.statistic > look.critical)  # higher up is further above
        assert (at > bottom) == (look.statistic < -look.critical)
    height = float(picture.find("svg").get("height"))
    assert all(0 <= y <= height for line in (upper, lower, held) for _, y in line)


def test_where_no_look_has_a_statistic_none_is_drawn(tmp_path):
    """Where no arm is above the random policy, or there was no look yet."""
    alike = [Outcome(arm, s, (5.0,) * 20, (1.0,), 1.0, 1.0) for arm in ("nothing", "inject")
             for s in (0, 1, 2, 3)]  # fmt: skip
    for verdict in (conclude(alike, random_return=0.0), looked(1.0, seeds=3)):
        assert known(verdict) == []
        draw_looks(tmp_path / "looks.png", verdict, title="a")
        assert looks_picture(verdict) is None
    assert not list(tmp_path.iterdir())
