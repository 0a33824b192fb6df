"""The nine studies, and how studies are carried out, looked at and handed on."""

import dataclasses
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest
from found import StopHereError

from regrow.agents import DoubleDQN
from regrow.analysis.conditions import cases
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.plan import Arm, Plan
from regrow.diagnosis.recording import digest_of
from regrow.environments import ActionReward
from regrow.errors import RegrowError
from regrow.execution.tasks import in_order
from regrow.experiments.carry_out import begin
from regrow.experiments.shared_jobs import parts_in, parts_of, shared
from regrow.records.rows import SCHEMA, Row, file_of, read_rows, table_of, write_row
from regrow.registry import members
from regrow.sources.native import Diagnosis, Native
from regrow.studies.base import SCALES, Condition, Figure, Setting, Study, study_name

STUDIES = members("studies")
AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
SETTING = Setting(
    AGENT, ActionReward(), arms=("nothing", "inject"), seeds=2, fork_at=200, horizon=200
)


@dataclass(frozen=True)
class Tiny(Study):
    """One condition of two arms and two seeds."""

    question: ClassVar[str] = "Does it run?"
    claims: ClassVar[tuple[int, ...]] = (6,)
    figure: ClassVar[Figure] = "curves"
    setting: Setting = SETTING

    def conditions(self, scale):
        return (self.setting.condition("plain", axis="hidden", level=16.0),)


@dataclass(frozen=True)
class TinyToo(Tiny):
    """Another study that asks for the same, and for more."""

    def conditions(self, scale):
        more = ("nothing", "inject", "reset")
        return (self.setting.condition("under another name", arms=more),)


def carry_out(out: Path, *studies: Study, report=lambda phase, steps: None) -> list[Row]:
    work = begin(studies, "smoke", out)
    in_order(work.tasks, report)
    return read_rows(out).rows


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    carry_out(out, Tiny())
    return out


def lasting(rows: list[Row]) -> list[Row]:
    """Rows without when they were made and how long it took."""
    same = {"seconds": 0.0, "seconds_to_fork": 0.0, "written": datetime(2026, 1, 1, tzinfo=UTC)}
    return sorted((dataclasses.replace(row, **same) for row in rows), key=lambda row: row.key)


def as_text(rows: list[Row]) -> str:
    """Rows as text, in which NaN equals NaN."""
    return str(lasting(rows))


# The nine.


# Those that make environments of every suite.
LARGE = {("generality", "paper"), ("resets", "paper")}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        pytest.param(name, scale, marks=pytest.mark.slow if (name, scale) in LARGE else ())
        for name in STUDIES
        for scale in SCALES
    ],
)
def test_a_study_can_be_made_at_every_scale(name, scale):
    study = STUDIES[name]()
    assert study.name == name.replace("_", "-")
    assert study.question.endswith("?")
    assert study.claims
    assert set(study.claims) <= set(range(1, 13))
    parts = parts_of([study], scale)
    assert parts
    for part in parts:
        assert {"nothing", "again"} <= {arm.name for arm in part.plan.arms}
        assert part.plan.source.config()["agent"]
    if scale == "smoke":
        assert sum(group.plan.env_steps() for group in shared(parts, Path())) < 20_000


def test_every_claim_but_the_one_that_tests_hold_is_decided_by_a_study():
    decided = {claim for study in STUDIES.values() for claim in study.claims}
    assert decided == set(range(1, 13)) - {5}  # 5: what an injection keeps


def test_what_studies_share_is_shared():
    parts = parts_of([study() for study in STUDIES.values()], "laptop")
    groups = shared(parts, Path())
    assert len(groups) < len(parts) - 5
    (plain,) = [g for g in groups if "minatar/breakout" in {part.label for part in g.parts}]
    assert {part.study for part in plain.parts} == {"generality", "growing", "proxies"}
    assert plain.plan.seeds == 5  # growing's; the others ask for the first three
    cells = {cell.name for cell in plain.jobs()}
    assert {"seed4-widen", "seed2-reset"} <= cells
    assert "seed3-reset" not in cells


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_every_arm_can_be_carried_out(scale):
    for group in shared(parts_of([study() for study in STUDIES.values()], scale), Path()):
        plan = group.plan
        for arm in plan.arms:
            plan.source.check((*plan.before, arm.does))


def test_an_arm_is_what_its_name_says():
    arms = (Arm.parse("nothing"), Arm("inject", Arm.parse("inject(split=0)").intervention))
    with pytest.raises(RegrowError, match="the arm 'inject' does something else"):
        Condition("odd", Diagnosis(AGENT, ActionReward(), arms))


def test_two_conditions_of_a_study_have_two_labels():
    @dataclass(frozen=True)
    class Twice(Tiny):
        """The same twice."""

        def conditions(self, scale):
            return super().conditions(scale) * 2

    with pytest.raises(RegrowError, match="twice has two conditions 'plain'"):
        parts_of([Twice()], "smoke")
    assert study_name(TinyToo) == "tiny-too"


def test_a_digest_is_of_what_numbers_hang_on():
    plan = Tiny().conditions("smoke")[0].plan
    assert digest_of(plan) == digest_of(dataclasses.replace(plan, seeds=9, smallest_effect=0.1))
    for change in (
        {"source": Native(dataclasses.replace(AGENT, hidden=17), ActionReward())},
        {"source": Native(AGENT, members("environments")["toy/matching_reward"]())},
        {"before": (Arm.parse("reset").intervention,)},
        {"fork_at": 204},
        {"horizon": 204},
    ):
        assert digest_of(plan) != digest_of(dataclasses.replace(plan, **change)), change


# Carried out.


def test_a_row_holds_what_the_diagnosis_finds(done, tmp_path):
    rows = read_rows(done).rows
    assert [row.key[3:] for row in lasting(rows)] == [
        ("inject", 0, 0),
        ("inject", 1, 0),
        ("nothing", 0, 0),
        ("nothing", 1, 0),
    ]
    (condition,) = Tiny().conditions("smoke")
    verdict = diagnose(condition.plan, tmp_path / "diagnosis")
    (case,), problems = cases(rows)
    assert not problems
    assert case.verdict == verdict
    row = next(row for row in rows if row.arm == "inject")
    assert Plan.from_config(json.loads(row.config)) == condition.plan
    assert "DoubleDQN(discount=0.99" in json.loads(row.config)["parts"]["agent"]
    assert (row.axis, row.level, row.study, row.scale) == ("hidden", 16.0, "tiny", "smoke")
    assert row.env_steps[-1] == 400
    assert row.env_steps_to_fork[-1] == 200
    assert row.events[0] == (200, "inject")
    assert {probe.at for probe in row.probes} == {"fork", "fresh", "end"}
    control = next(row for row in rows if row.arm == "nothing")
    assert row.flops > control.flops > 0
    assert row.flops_to_fork == control.flops_to_fork
    assert row.seconds > 0 < row.seconds_to_fork


def test_a_file_can_be_read_without_regrow(done):
    files = sorted((done / "rows").glob("tiny--*.parquet"))
    assert len(files) == 4
    table = pq.read_table(files[0])
    assert table.schema.names == SCHEMA.names == [f.name for f in dataclasses.fields(Row)]
    assert table.num_rows == 1


@pytest.mark.parametrize("stop_after", [1, 5, 11])
def test_stopped_anywhere_it_goes_on_to_the_same_rows(done, tmp_path, stop_after):
    reports = iter(range(1, 1_000))

    def report(phase, steps):
        if next(reports) == stop_after:
            raise StopHereError

    with pytest.raises(StopHereError):
        carry_out(tmp_path / "out", Tiny(), report=report)
    rows = carry_out(tmp_path / "out", Tiny())
    assert as_text(rows) == as_text(read_rows(done).rows)
    assert not list((tmp_path / "out").rglob("*.part.*"))
    assert not list((tmp_path / "out").rglob("*.progress.json"))


def test_what_is_there_is_not_made_again(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    assert begin([Tiny()], "smoke", out) == ([], 0)
    # Rows are enough: the work may be thrown away.
    shutil.rmtree(out / "work")
    assert begin([Tiny()], "smoke", out) == ([], 0)


def test_only_what_is_missing_is_made(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    seen = []
    more = SETTING.but(arms=("nothing", "inject", "reset"))
    rows = carry_out(out, Tiny(more), report=lambda phase, steps: seen.append((phase, steps)))
    assert {phase for phase, steps in seen if steps and "reset" not in phase} <= {
        "seed0-fork",
        "seed1-fork",
    }
    assert len(rows) == 6
    plans = {str(json.loads(row.config)["arms"]) for row in rows}
    assert len(plans) == 1  # also of the rows that were there
    old = {row.key: row.returns for row in read_rows(done).rows}
    assert all(row.returns == old[row.key] for row in rows if row.arm != "reset")


def test_studies_share_what_they_both_ask_for(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    assert begin([Tiny()], "smoke", out).tasks == []
    work = begin([Tiny(), TinyToo()], "smoke", out)
    seen = []
    in_order(work.tasks, lambda phase, steps: seen.append(phase))
    assert any("reset" in phase for phase in seen)
    assert not any(phase in ("seed 0, nothing", "seed 1, inject") for phase in seen)
    rows = read_rows(out).rows
    assert len(rows) == 4 + 6
    by_study = {row.key: row.returns for row in rows}
    assert (
        by_study["tiny", "smoke", "plain", "inject", 0, 0]
        == (by_study["tiny-too", "smoke", "under another name", "inject", 0, 0])
    )


def test_a_changed_study_leaves_its_old_rows_out_and_redoes_them(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    changed = Tiny(SETTING.but(horizon=240))
    work = begin([changed], "smoke", out)
    rows, problems = read_rows(out)
    assert not rows
    assert "4 rows in" in problems[0]
    assert "are of an earlier definition of their study" in problems[0]
    in_order(work.tasks[:3], lambda phase, steps: None)
    assert [row.horizon for row in read_rows(out).rows] == [240]
    # And back: the cells of the first definition are still there.
    seen = []
    rows = carry_out(out, Tiny(), report=lambda phase, steps: seen.append(phase))
    assert as_text(rows) == as_text(read_rows(done).rows)
    assert all(phase.startswith("seed") and " " not in phase for phase in seen)


def test_the_plan_is_written_before_the_work(done):
    plan = json.loads((done / "plans" / "tiny--smoke.json").read_text())
    assert (plan["question"], plan["claims"], plan["figure"]) == ("Does it run?", [6], "curves")
    parts, problems = parts_in(done)
    assert not problems
    assert parts == parts_of([Tiny()], "smoke")


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RegrowError, match="is not empty and holds no studies"):
        begin([Tiny()], "smoke", tmp_path)
    with pytest.raises(RegrowError, match="is a file"):
        begin([Tiny()], "smoke", tmp_path / "thesis.tex")


# Read again, whatever happened to the folder.


def test_what_cannot_be_read_is_told_and_the_rest_is_there(done, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    broken, empty, foreign, other, *_ = sorted((out / "rows").glob("*.parquet"))
    broken.write_bytes(broken.read_bytes()[:1000])
    empty.write_bytes(b"")
    pq.write_table(pq.read_table(foreign).drop_columns(["format"]), foreign)
    (out / "plans" / "odd--smoke.json").write_text("[]")
    rows, problems = read_rows(out)
    assert len(rows) == 1
    assert len(problems) == 4
    for path, problem in zip((broken, empty, foreign), problems, strict=False):
        assert str(path) in problem
        assert "\n" not in problem
    table = pq.read_table(other)
    later = table.set_column(table.schema.get_field_index("format"), "format", [[99]])
    pq.write_table(later, other)
    rows, problems = read_rows(out)
    assert not rows
    assert any(
        "has rows of format 99; this version reads 1 to 3" in problem for problem in problems
    )
    assert any("there are no rows in" in problem for problem in problems)


def test_a_folder_without_rows_and_one_that_is_not_there(tmp_path):
    rows, (problem,) = read_rows(tmp_path)
    assert not rows
    assert "there are no rows in" in problem
    with pytest.raises(RegrowError, match="there is no folder"):
        read_rows(tmp_path / "nowhere")


def test_of_two_rows_the_later_one_counts_and_joined_files_are_read(done, tmp_path):
    rows = lasting(read_rows(done).rows)
    (tmp_path / "rows").mkdir()
    pq.write_table(table_of(rows), tmp_path / "rows" / "joined.parquet")
    assert as_text(read_rows(tmp_path).rows) == as_text(rows)
    later = dataclasses.replace(rows[0], realised=7.0, written=datetime(2026, 2, 1, tzinfo=UTC))
    write_row(tmp_path, later)
    found = {row.key: row.realised for row in read_rows(tmp_path).rows}
    assert len(found) == 4
    assert found[later.key] == 7.0
    assert file_of(tmp_path, later.key).is_file()
