"""Whether this checkout computes the same numbers as another one, bit for bit.

    git worktree add ../before COMMIT
    python tools/same_numbers.py ../before [--out runs/same] [--full]

In both checkouts: the four controls, a study at the scale of smoke, and a trained run; with --full
the controls as docs/controls.md has them, else small ones. Compared are the returns of every arm
and seed, probes, episodes, and every array of the trained run's checkpoint. Exit code 1 where they
differ.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).parents[1]
AGENT = ["--agent", "double_dqn(hidden=16, channels=4, learn_start=40, replay_capacity=400)"]
SIZE = ["--fork-at", "400", "--horizon", "400", "--seeds", "2"]
NOISE = "fit_noise(rounds=2, updates=100, transitions=100)"
SMALL = {
    "plain": ["minatar/breakout", *AGENT, *SIZE],
    "noise": ["minatar/breakout", *AGENT, *SIZE, "--before", NOISE],
    "fixed": ["minatar/breakout", *AGENT, *SIZE, "--before", f"{NOISE[:-1]}, redraw=False)"],
    "primed": ["minatar/space_invaders", *AGENT, *SIZE, "--before", "prime(updates=100)"],
}
FULL = {
    "plain": ["minatar/breakout", "--seeds", "5"],
    "noise": ["minatar/breakout", "--seeds", "5", "--before", "fit_noise"],
    "fixed": ["minatar/breakout", "--seeds", "5", "--before", "fit_noise(redraw=False)"],
    "primed": [
        *("minatar/space_invaders", "--seeds", "5", "--before", "prime", "--fork-at", "5_000")
    ],
}
TRAIN = ["train", "minatar/breakout", "--env-steps", "6_000", "--probe-every", "2_000"]
ARMS = ["--arms", "nothing", "again", "inject", "reset"]
STUDY = ["study", "resets", "--scale", "smoke"]
RENAMED = {"habits": "hooks", "before": "previous_network"}  # fields, since checkpoint format 3


def run(checkout: Path, command: list[str], out: Path) -> None:
    if not out.exists():
        own = {**os.environ, "PYTHONPATH": str(checkout / "src")}
        start = [sys.executable, "-m", "regrow", command[0]]
        if command[0] == "diagnose":
            command = [*command, *ARMS]
            told = subprocess.run([*start, "--help"], env=own, capture_output=True, text=True)
            if "--replicates" in told.stdout:  # before there were any, each arm was run once
                command += ["--replicates", "1", "--fixed"]
        whole = [*start, *command[1:], "--out", str(out)]
        subprocess.run(whole, env=own, check=True, stdout=subprocess.DEVNULL)


def diagnosis(out: Path) -> dict[str, object]:
    held = json.loads((out / "verdict.json").read_text())
    arms = {
        arm: [without(run, "seconds", "replicate") for run in runs]
        for arm, runs in held["arms"].items()
    }
    return {"arms": arms, "probes": held["probes"], "random_return": held["random_return"]}


def study(out: Path) -> dict[str, object]:
    rows = [row for path in (out / "rows").glob("*") for row in pq.read_table(path).to_pylist()]
    names = ("returns_to_fork", "returns", "predicted", "realised", "probes", "flops")
    return {
        f"{row['condition']}/{row['arm']}/{row['seed']}": {name: row[name] for name in names}
        for row in rows
    }


def training(out: Path) -> dict[str, object]:
    with zipfile.ZipFile(out / "run.ckpt") as archive:
        arrays = json.loads(archive.read("manifest.json"))["arrays"]
    renamed = {
        ".".join(RENAMED.get(part, part) for part in name.split(".")): held["sha256"]
        for name, held in arrays.items()
    }
    episodes = pq.read_table(out / "episodes.parquet").to_pydict()
    return {"arrays": renamed, "episodes": episodes}


def without(values: dict[str, object], *names: str) -> dict[str, object]:
    return {key: value for key, value in values.items() if key not in names}


def differences(one: object, two: object, where: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        keys = [*one, *(key for key in two if key not in one)]
        return [d for k in keys for d in differences(one.get(k), two.get(k), f"{where}/{k}")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{where}/{i}")]
    numbers = isinstance(one, float) and isinstance(two, float)
    same = one == two or (numbers and math.isnan(one) and math.isnan(two))
    return [] if same else [f"{where}: {one} and {two}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("other", type=Path, help="the checkout to compare with")
    parser.add_argument("--out", type=Path, default=Path("runs/same"))
    parser.add_argument(
        "--full", action="store_true", help="the controls as the documents have them"
    )
    options = parser.parse_args()
    controls = FULL if options.full else SMALL
    work = {name: (["diagnose", *words], diagnosis) for name, words in controls.items()}
    work |= {"study": (STUDY, study), "train": (TRAIN, training)}
    failed = False
    for name, (command, read) in work.items():
        outs = [options.out / side / name for side in ("there", "here")]
        for checkout, out in zip((options.other, HERE), outs, strict=True):
            run(checkout.resolve(), command, out)
        found = differences(*(read(out) for out in outs))
        failed |= bool(found)
        print(f"{name}: {'the same' if not found else '; '.join(found[:3])}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
