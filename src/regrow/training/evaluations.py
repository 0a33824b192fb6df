"""The table of evaluations in a run's folder."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from regrow.errors import RegrowError
from regrow.files.leases import waited_for
from regrow.files.places import Place
from regrow.records.rows import write_table
from regrow.training.evaluate import Episode
from regrow.training.run import Run


def write_evaluation(folder: Place, run: Run, seed: int, played: Sequence[Episode]) -> Place:
    """Adds episodes to `evaluations.parquet`, replacing those with the same env step and seed.

    Columns: env_steps, seed, episode, return, length. Raises `RegrowError` if the file is damaged.
    """
    path, this = folder / "evaluations.parquet", {"env_steps": run.env_steps, "seed": seed}
    with waited_for(
        folder / ".evaluations.lock"
    ):  # without a lock, one of two simultaneous writers would lose its episodes
        rows = [row for row in read_evaluations(folder) if {**row, **this} != row]
        for number, episode in enumerate(played):
            measured = {"return": episode.env_return, "length": episode.length}
            rows.append({**this, "episode": number, **measured})
        write_table(path, pa.Table.from_pylist(rows, _EVALUATIONS))
    return path


def read_evaluations(folder: Place) -> list[dict[str, Any]]:
    """The rows of `evaluations.parquet`, [] if it is absent; `RegrowError` if it is damaged."""
    path = folder / "evaluations.parquet"
    if not path.exists():
        return []
    try:
        with path.open("rb") as file:
            table = pq.read_table(file).select(_EVALUATIONS.names)
        return table.cast(_EVALUATIONS).to_pylist()
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise RegrowError(f"{path} is damaged ({error}); restore or delete it") from error


_EVALUATIONS = pa.schema(
    {
        "env_steps": pa.int64(),
        "seed": pa.int64(),
        "episode": pa.int64(),
        "return": pa.float64(),
        "length": pa.int64(),
    }
)
