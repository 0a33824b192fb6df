"""Every file of a run damaged in many ways, and the run gone on with: an error, or the same."""

import collections
import random
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from found import StopHereError, jobs_of
from test_kills import compared
from trees import bit_equal

from regrow import errors
from regrow.agents import DoubleDQN
from regrow.diagnosis.diagnose import diagnose
from regrow.diagnosis.plan import Arm, Plan
from regrow.environments import ActionReward, MatchingReward
from regrow.errors import RegrowError, RegrowWarning
from regrow.files import leases
from regrow.sources.native import Diagnosis
from regrow.training.checkpoint import load
from regrow.training.schedule import Rule
from regrow.training.train import train
from regrow.types import silent

AGENT = DoubleDQN(hidden=16, learn_start=40, replay_capacity=400)
ARMS = tuple(map(Arm.parse, ("nothing", "inject", "reset")))
PLAN = Diagnosis(
    AGENT, ActionReward(), ARMS, seeds=2, fork_at=1_200, horizon=1_200, replicates=1, fixed=False
)
RULES = ("shrink_perturb every 200", "redo when returns above 0.1 checked every 80")


class Damage(NamedTuple):
    """What stands in a file of a folder instead; `how` it came to that."""

    file: str
    how: str
    content: bytes


def damages(folder: Path, swaps: dict[str, list[Path]], flips: int) -> Iterator[Damage]:
    """Each file cut short, emptied, with one bit turned, or as one of `swaps`."""
    draw = random.Random(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        file, whole = str(path.relative_to(folder)), path.read_bytes()
        yield Damage(file, "emptied", b"")
        for share in (0.1, 0.5, 0.9):
            yield Damage(file, f"cut at {share}", whole[: int(len(whole) * share)])
        yield Damage(file, "the last byte is gone", whole[:-1])
        count = 2 if ".lease-" in file else flips
        ends = [draw.randrange(min(400, len(whole))) for _ in range(count // 4)]
        ends += [len(whole) - 1 - draw.randrange(min(900, len(whole))) for _ in range(count // 2)]
        ends += [draw.randrange(len(whole)) for _ in range(count - len(ends))]
        for at in ends:
            bit = draw.randrange(8)
            turned = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            yield Damage(file, f"bit {bit} of byte {at}", turned)
        for other in swaps.get(file, ()):
            yield Damage(file, f"as {other.parent.parent.name}/{other.name}", other.read_bytes())


def outcome(
    damage: Damage, whole: Path, folder: Path, go_on: Callable[[Path], Any], expected: Any
) -> str:
    """What came of a damage; fails if that is not one of what may come of it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    path = folder / damage.file
    path.write_bytes(damage.content)
    before = contents(folder)
    errors._said.clear()
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = go_on(folder)
    except RegrowError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
        if "holds another run" in said and path.name == "config.json":
            assert contents(folder) == before
            return "said: another run"
        assert path.name in said, said
        if "delete it" in said:
            path.unlink()
            found, ends = go_on(folder), "said, deleted: equal"
        else:
            assert contents(folder) == before, "something else has changed"
            path.write_bytes((whole / damage.file).read_bytes())
            found, ends = go_on(folder), "said, restored: equal"
    else:
        named = [str(one.message) for one in told if issubclass(one.category, RegrowWarning)]
        assert all(path.name in text or "lease" in path.name for text in named), named
        ends = "warned: equal" if named else "silent: equal"
    odd = [name for name in expected if not same(found[name], expected[name])]
    assert not odd, f"other {', '.join(odd)}; {ends}"
    return ends


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the leases."""
    held = (path for path in folder.rglob("*") if path.is_file() and ".lease-" not in path.name)
    return {str(path.relative_to(folder)): path.read_bytes() for path in held}


def same(one: Any, other: Any) -> bool:
    """Whether results are equal, NaN included."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return bit_equal(one, other) if hasattr(one, "agent") else repr(one) == repr(other)


def all_outcomes(cases, whole, folder, go_on, expected) -> collections.Counter[str]:
    """How all cases ended; fails with those that ended otherwise than they may."""
    ends, wrong = collections.Counter[str](), []
    for damage in cases:
        try:
            ends[outcome(damage, whole, folder, go_on, expected)] += 1
        except Exception as error:
            text = str(error).partition("\n")[0]
            wrong.append(f"{damage.file}, {damage.how}: {type(error).__name__}: {text}"[:400])
    assert not wrong, "\n".join([f"{len(wrong)} of {len(wrong) + ends.total()}", *wrong[:40]])
    return ends


# A training run.


def trained(folder: Path, until: int, seed: int = 0, rules=RULES, **how) -> None:
    parsed = [Rule.parse(text) for text in rules]
    options = {"seed": seed, "rules": parsed, "report": silent, "probe_every": 120, **how}
    train(AGENT, ActionReward(), folder, env_steps=until, **options)


def gone_on_with(folder: Path) -> dict[str, Any]:
    """`train --resume` to the end: all tables, the Run's state, the row."""
    trained(folder, 600, resume=True)
    found: dict[str, Any] = {"rows": compared(folder), "state": load(folder / "run.ckpt").state}
    for name in ("episodes", "checks", "probes"):
        found[name] = pq.read_table(folder / f"{name}.parquet").to_pydict()
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick):
    """(a run that was saved at 240 and at 480 env steps, the cases, what it comes to)."""
    top = tmp_path_factory.mktemp("runs")
    others = {"run": {}, "seed1": {"seed": 1}, "rules": {"rules": ("redo every 200", RULES[1])}}
    for name, how in others.items():
        trained(top / name, 240, **how)
        trained(top / name, 480, resume=True, **how)
    swaps = collections.defaultdict(list)
    for name in contents(top / "run"):
        sources = [top / other / name for other in ("seed1", "rules")]
        twin = name.replace(".previous.", ".") if ".previous." in name else ""
        sources += [top / "run" / (twin or ".previous.".join(name.rsplit(".", 1)))]
        swaps[name] = [path for path in sources if path.is_file()]
    (row,) = (top / "run" / "rows").iterdir()
    swaps[f"rows/{row.name}"] = [*(top / "seed1" / "rows").iterdir()]
    shutil.copytree(top / "run", top / "straight")
    return top / "run", swaps, gone_on_with(top / "straight")


# A diagnosis.


def stopped(plan: Plan, folder: Path, at: str, times: int) -> None:
    """A diagnosis that was stopped in the job `at` after each of its first chunks."""
    for time in range(times):
        taken = 0

        def report(phase, steps, time=time):
            nonlocal taken
            taken += steps if phase == at else 0
            if taken >= 256 * (time + 1):
                raise StopHereError

        with pytest.raises(StopHereError):
            diagnose(plan, folder, report=report)


def diagnosed(folder: Path) -> dict[str, Any]:
    """The same diagnosis again: its rows and its verdict."""
    verdict = diagnose(PLAN, folder)
    assert not list(folder.rglob("*.part-*"))
    return {"rows": compared(folder), "verdict": verdict}


@pytest.fixture(scope="module")
def diagnoses(tmp_path_factory, quick):
    """({name: (a stopped diagnosis, what its files are swapped with)}, what they come to)."""
    top = tmp_path_factory.mktemp("diagnoses")
    other = Diagnosis(AGENT, MatchingReward(), ARMS, seeds=2, fork_at=1_200, horizon=800)
    stopped(PLAN, top / "fork", "seed 1 to the fork", 2)
    stopped(PLAN, top / "arm", "seed 1, reset", 2)
    stopped(other, top / "other", "seed 1, reset", 2)
    expected = diagnosed(Path(shutil.copytree(top / "arm", top / "straight")))
    parts = list(jobs_of(top / "fork").glob("*.part-*"))
    assert len(parts) == 4
    found = {}

    def kind(path: Path) -> str:
        return "" if path.parent.parent == top else path.parent.name

    for name in ("arm", "fork"):
        swaps = collections.defaultdict(list)
        files = [path for path in (top / name).rglob("*") if path.is_file()]
        for path in files:
            alike = [p for p in (*files, *(top / "other").rglob("*")) if p.suffix == path.suffix]
            alike = [p for p in alike if kind(p) == kind(path) and p != path]
            alike = sorted(p for p in alike if p.is_file() and ".lease-" not in p.name)
            swaps[str(path.relative_to(top / name))] = random.Random(0).sample(
                alike, min(5, len(alike))
            )
        found[name] = top / name, swaps
    fork = str((jobs_of(top / "arm") / "seed1-fork.ckpt").relative_to(top / "arm"))
    found["arm"][1][fork] += [path for path in parts if path.suffix == ".ckpt"]
    return found, expected


@pytest.fixture(scope="module")
def quick():
    """Leases that nobody can read end soon; the environment is known to be sound."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "EXPIRES", 1.0)
        patch.setattr("os.fsync", lambda _: None)
        patch.setattr(leases, "LOOK_EVERY", 0.03)
        patch.setattr("regrow.training.train.check_before_training", lambda _: None)
        yield


def some(cases: Iterable[Damage], count: int) -> list[Damage]:
    """About so many of the cases, from all over."""
    held = list(cases)
    return [held[int(at)] for at in np.linspace(0, len(held) - 1, count)]


@pytest.mark.always
def test_a_damaged_run_is_named_or_goes_on_to_the_same(run, tmp_path):
    whole, swaps, expected = run
    cases = some(damages(whole, swaps, flips=4), 25)
    assert all_outcomes(cases, whole, tmp_path / "run", gone_on_with, expected).total() == 25


def test_a_damaged_diagnosis_is_named_or_goes_on_to_the_same(diagnoses, tmp_path):
    found, expected = diagnoses
    whole, swaps = found["arm"]
    cases = some(damages(whole, swaps, flips=4), 20)
    assert all_outcomes(cases, whole, tmp_path / "arm", diagnosed, expected).total() == 20


@pytest.mark.slow
def test_every_damage_of_a_run(run, tmp_path, capsys):
    whole, swaps, expected = run
    ends = all_outcomes(damages(whole, swaps, 40), whole, tmp_path / "x", gone_on_with, expected)
    with capsys.disabled():
        print(f"\n{ends.total()} damages of a run: {dict(ends)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arm", "fork"])
def test_every_damage_of_a_diagnosis(diagnoses, tmp_path, capsys, name):
    found, expected = diagnoses
    whole, swaps = found[name]
    cases: Iterable[Damage] = damages(whole, swaps, flips=8)
    if name == "fork":  # its rest takes longer: the files that the other has as well are left out
        cases = [damage for damage in cases if ".part-" in damage.file]
    cases = some(cases, 250 if name == "arm" else 40)
    ends = all_outcomes(cases, whole, tmp_path / name, diagnosed, expected)
    with capsys.disabled():
        print(f"\n{ends.total()} damages of a diagnosis stopped in its {name}: {dict(ends)}")
