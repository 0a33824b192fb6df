"""From rows to a verdict. Nothing is made of what the rows name but their arms."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from regrow.diagnosis.conclusion import conclude
from regrow.diagnosis.outcomes import (
    Outcome,
    averaged,
    mean_fields,
    of_one_agent,
    with_replicates,
)
from regrow.diagnosis.plan import Arm, Roles
from regrow.diagnosis.verdict import Verdict
from regrow.errors import RegrowError, UntrustedError
from regrow.records.rows import (
    Measured,
    Row,
)
from regrow.registry import names_in


def as_outcome(row: Row) -> Outcome:
    """A row as the outcome that a verdict is made from."""
    return Outcome(
        arm=row.arm,
        seed=row.seed,
        curve=row.returns,
        predicted=row.predicted,
        realised=row.realised,
        largest_reward=row.largest_reward,
        probes=probes_of(row, "end"),
        events=tuple((event.env_steps, event.intervention) for event in row.events),
        seconds=row.seconds,
        unfinished=int(config_of(row).get("unfinished", 0)),
        stopped=row.stopped,
        replicate=row.replicate,
    )


def probes_of(row: Row, at: str) -> dict[str, float]:
    """A row's probes at "fork", "fresh" or "end", as `learner.probe.part`."""
    return {
        ".".join(filter(None, (probe.learner, probe.probe, probe.part))): probe.value
        for probe in row.probes
        if probe.at == at
    }


def config_of(row: Row) -> Mapping[str, Any]:
    """The plan that made a row, as plain data; nothing where it cannot be read."""
    try:
        config = json.loads(row.config)
    except (ValueError, TypeError):
        return {}  # written by somebody else
    return config if isinstance(config, dict) else {}


def roles_of(row: Row) -> Roles:
    """Which arms the verdict is made from; as they are called by default where no plan says it.

    Raises `RegrowError` for a plan that names what there is not.
    """
    arms = config_of(row).get("arms")
    if not isinstance(arms, list):
        return Roles()
    try:
        with names_in(f"the row of {row.condition}, {row.arm}"):
            return Roles.of([arm for content in arms for arm in _known(content)])
    except (TypeError, ValueError) as error:
        raise RegrowError(f"its configuration cannot be read ({error})") from error


def _known(content: Any) -> list[Arm]:
    """An arm; none if it is of a module that was not imported, and so has none of the roles."""
    try:
        return [Arm.from_config(content)]
    except UntrustedError:
        return []


def judge(rows: Sequence[Row], roles: Roles | None = None) -> Verdict:
    """The verdict on the rows of one condition: every arm with the same seeds.

    `roles`: by default as the plan of the rows has them. Raises `RegrowError` where there is
    nothing to judge.
    """
    first = rows[0]
    config, arms = config_of(first), {row.arm for row in rows}
    roles = roles_of(first) if roles is None else roles
    splits = {arm: split for arm, split in roles.splits.items() if arm in arms}
    # Rows of before this was written down: what could not be copied then.
    restarted = config.get("restarts", first.environment.startswith("gymnasium/"))
    options = {"confidence": config["confidence"]} if "confidence" in config else {}
    if "looks" in config:  # before, the smallest effect was a share of the control's return
        options["smallest_effect"] = config["smallest_effect"]
        given = config.get("returns_range")
        options["returns_range"] = (given[0], given[1]) if given else None
    return conclude(
        [as_outcome(row) for row in rows],
        roles._replace(splits=splits),
        random_return=first.random_return,
        random_error=first.random_error,
        looks=looks_of(rows),
        restarted=bool(restarted),
        remarks=[*_resumed(rows), *((str(c), str(text)) for c, text in config.get("remarks", ()))],
        **options,
    )


def _resumed(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """A remark on runs that went on with a part of their replay."""
    counts = [int(config_of(row).get("resumed_with") or 0) for row in rows]
    odd = [count for count in counts if count]
    if not odd:
        return []
    text = (
        f"{len(odd)} of {len(rows)} runs were stopped and went on with the last {min(odd):,} "
        "transitions of their replay, not as they would have (REGROW_KEEP_TRANSITIONS)"
    )
    return [("resumed_with_part_of_the_replay", text)]


def means_of_replicates(rows: Sequence[Row], roles: Roles) -> list[Row]:
    """One row per arm and seed, the mean of its replicates; of a single agent all rows as they are.

    An arm that is one more replicate of the control is counted there.
    """
    counted = with_replicates(rows, roles.control, roles.replicate)
    return counted if of_one_agent(counted) else averaged(counted, _mean_row)


def _mean_row(rows: Sequence[Row]) -> Row:
    """Replicates as one row: means, also of what a run costs, and the events of the first."""
    values: dict[tuple[str, str, str, str], list[float]] = {}
    for row in rows:
        for probe in row.probes:
            values.setdefault(probe[:4], []).append(probe.value)
    return replace(
        rows[0],
        replicate=0,
        **mean_fields(rows, "returns", "predicted", "realised", "seconds", "flops"),
        largest_reward=max(row.largest_reward for row in rows),
        probes=tuple(Measured(*name, float(np.mean(held))) for name, held in values.items()),
    )


def looks_of(rows: Sequence[Row]) -> tuple[int, ...]:
    """The looks that were planned when the last of the rows were made; () where all count at once.

    A diagnosis that was continued with more seeds has more looks in its later rows.
    """
    found: tuple[int, ...] = ()
    for row in rows:
        config = config_of(row)
        if not config.get("fixed", True) and isinstance(config.get("looks"), list):
            found = max(found, tuple(config["looks"]), key=lambda looks: max(looks, default=0))
    return found
