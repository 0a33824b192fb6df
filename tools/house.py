"""Figures of the house: how much there is to read, and how it stands together.

    python tools/house.py

Functions are counted with their docstrings. The files of a DQN step are those of this package in
which a function runs while Double DQN takes one round on MinAtar Breakout (act, step, add, sample,
update), as JAX traces it; what is behind an import of JAX, Optax or Equinox is not counted.
"""

import ast
import statistics
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src" / "regrow", ROOT / "tests"
sys.path[:0] = [str(TESTS)]


def lines_of(folder: Path) -> int:
    return sum(len(path.read_text("utf-8").splitlines()) for path in folder.rglob("*.py"))


def functions() -> list[int]:
    """The lengths of all functions and methods."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sorted(
        (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, kinds)
    )


def files_of_a_step() -> list[Path]:
    """Those in which something runs during one round of training."""
    import jax

    import regrow
    from regrow.training import device_loop

    agent = regrow.agents.DoubleDQN(learn_start=4, replay_capacity=100)
    run, _ = regrow.Run.start(agent, regrow.environments.Breakout(), seed=0).advance(8)
    jax.clear_caches()
    seen = set[str]()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            seen.add(frame.f_code.co_filename)

    state = run.state
    sys.setprofile(note)
    try:
        jax.make_jaxpr(
            lambda state, rounds: device_loop._chunk.__wrapped__(
                state, rounds, agent, run.environment, True
            )
        )(state, jax.numpy.array(1))
    finally:
        sys.setprofile(None)
    return sorted(Path(name) for name in seen if name.startswith(str(SOURCE)))


def main() -> None:
    warnings.simplefilter("ignore")
    import test_floors

    lengths, files = functions(), files_of_a_step()
    read = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    sources = list(SOURCE.rglob("*.py"))
    print(f"files / lines                 {len(sources)} / {lines_of(SOURCE):,}")
    middle, high = statistics.median(lengths), lengths[int(0.9 * len(lengths))]
    print(f"function median / p90 / most  {middle:g} / {high} / {lengths[-1]}")
    print(f"floors                        {len(test_floors.FLOORS)}")
    print(f"test lines per source line    {lines_of(TESTS) / lines_of(SOURCE):.2f}")
    print(f"files of one DQN step         {len(files)} ({read:,} lines)")
    for path in files:
        print(f"    {path.relative_to(SOURCE)}")


if __name__ == "__main__":
    main()
