"""What is drawn: files that are pictures, whatever the number of arms."""

import numpy as np
import pytest

from regrow.report.figure import draw_curves

NAMES = ["nothing", "again", "inject", "inject when dead_units above 0.3 at most 3 times"]


@pytest.mark.parametrize("arms", [4, 7, 8, 27])
def test_learning_curves_are_drawn_for_few_arms_and_for_many(tmp_path, arms):
    names = [*NAMES, *(f"arm {i}" for i in range(arms))][:arms]
    steps, returns = np.arange(5), np.random.default_rng(0).normal(size=(3, 5))
    curves = {"fork": (steps, returns), **dict.fromkeys(names, (steps + 5, returns))}
    path = tmp_path / "curves.png"
    draw_curves(path, curves, fork_at=5, title="a", subtitle="b", random_return=0.1)
    assert path.read_bytes().startswith(b"\x89PNG")
