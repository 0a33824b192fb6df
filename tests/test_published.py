"""Tables of published curves: the table of arXiv 2205.07802, and files that are none."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from regrow.analysis.published import returns_at, table
from regrow.errors import RegrowError
from regrow.report.studies import curves_table
from regrow.stats.intervals import interquartile_mean

SAC = Path(__file__).parents[2] / "shared/data/primacy_bias/sac.csv.gz"
HEADER = "replay_ratio,resets,reset_interval,task,seed,env_steps,return"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEADER, *lines)) + "\n")
    return path


def test_the_last_evaluation_by_then_counts(tmp_path):
    path = write(
        tmp_path / "curves.csv",
        "1,0,0,hop,0,10,1.0",
        "1,0,0,hop,0,30,3.0",
        "1,0,0,hop,0,20,2.0",
        "1,0,0,hop,1,20,4.0",
        "1,0,0,run,0,25,6.0",
        "32.0,1,5,run,0,10,9.0",
    )
    assert returns_at(path, 20) == {
        ("1", False): {"hop": {"0": 2.0, "1": 4.0}},
        ("32", True): {"run": {"0": 9.0}},
    }
    line, with_resets = table(path, 30)
    assert (line.replay_ratio, line.resets, line.tasks, line.runs) == ("1", False, 2, 3)
    assert line.pooled.estimate == interquartile_mean([3.0, 4.0, 6.0])
    assert with_resets.resets
    (line, _) = table(path, 30, ["1/0/hop/1"])
    assert line.runs == 2
    assert not line.pooled.missing  # 3 and 6


def test_a_task_of_one_run_leaves_out_the_interval_within_tasks(tmp_path):
    rows = ["1,0,0,hop,0,10,1.0", "1,0,0,hop,1,10,2.0", "1,0,0,run,0,10,5.0", "4,0,0,hop,0,10,7.0"]
    mixed, alone = table(write(tmp_path / "curves.csv", *rows), 10)
    assert (mixed.runs, alone.runs) == (3, 1)
    assert mixed.pooled.low < mixed.pooled.estimate < mixed.pooled.high
    assert mixed.within.missing
    assert mixed.within.estimate == mixed.pooled.estimate == interquartile_mean([1.0, 2.0, 5.0])
    assert alone.pooled.missing
    assert alone.pooled.estimate == 7.0
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(curves_table([mixed, alone], "curves"))
    said = console.export_text()
    assert said.count("no interval") == 3
    assert "No interval: one run of a task, or equal runs, have no spread." in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("task,seed\n1,2\n", "it has no column 'replay_ratio'"),
        (f"{HEADER}\n1,0,0,hop,0,ten,1.0\n", "line 2: invalid literal"),
        (f"{HEADER}\n1,0,0,hop,0,99,1.0\n", "has no evaluation at or before 20 env steps"),
        (f"{HEADER}\n1,0,0\n", "line 2: "),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, content, message):
    path = tmp_path / "curves.csv"
    path.write_text(content)
    with pytest.raises(RegrowError, match=message) as caught:
        table(path, 20)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_none_and_runs_that_are_not_there(tmp_path):
    path = tmp_path / "curves.csv.gz"
    path.write_bytes(b"\x1f\x8bjunk")
    with pytest.raises(RegrowError, match="is no table of curves"):
        table(path, 20)
    path = write(tmp_path / "curves.csv", "1,0,0,hop,0,10,1.0")
    with pytest.raises(RegrowError, match="has no run '1/0/hop/7'"):
        table(path, 20, ["1/0/hop/7"])
    with pytest.raises(RegrowError, match="has no run 'hop'"):
        table(path, 20, ["hop"])


def published() -> Path:
    if not SAC.exists():
        pytest.skip(f"the published learning curves are not at {SAC}")
    return SAC


def test_the_published_table_without_resets():
    lines = {(line.replay_ratio, line.resets): line for line in table(published(), 1_000_000)}
    assert {line.runs for line in lines.values()} == {100}
    np.testing.assert_allclose(lines["1", False].pooled[:3], (501, 389, 609), rtol=0.01)
    # With resets the estimate is met; the table's lower end, 549, by all 100 curves is not.
    with_resets = lines["32", True].pooled
    np.testing.assert_allclose((with_resets.estimate, with_resets.high), (656, 753), rtol=0.01)
    np.testing.assert_allclose(with_resets.low, 541.5, rtol=0.01)


def test_the_published_table_with_resets_without_the_weakest_run():
    lines = table(published(), 1_000_000, ["32/1/acrobot-swingup/5"])
    (line,) = [line for line in lines if (line.replay_ratio, line.resets) == ("32", True)]
    assert line.runs == 99
    np.testing.assert_allclose(line.pooled[:3], (656, 549, 753), rtol=0.01)
