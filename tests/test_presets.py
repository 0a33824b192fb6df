"""docs/presets.md: what it says of presets and defaults is what the code has."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrow.registry import describe, make, members, presets
from regrow.studies.base import DOUBLE_DQN, SAC, Setting
from regrow.studies.primacy_bias import PRIMED
from regrow.studies.resets import DRQ
from regrow.training.run import Run
from regrow.types import Discrete

PAGE = Path(__file__).parents[1] / "docs/presets.md"
COLUMNS = ["field", "ours", "theirs", "where", "same?"]
SETTINGS = {
    'DOUBLE_DQN["paper"]': DOUBLE_DQN["paper"],
    'SAC["paper"]': SAC["paper"],
    'PRIMED["paper"]': PRIMED["paper"][0],
    'DRQ["paper"]': DRQ["paper"],
}


class Row(NamedTuple):
    """A line of a table of fields."""

    fields: tuple[str, ...]
    ours: str
    theirs: str
    where: str
    same: str


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def rows(section: str) -> list[Row]:
    """The table of fields of a section; tables with other columns are passed over."""
    lines, found, inside = section.splitlines(), [], False
    for line in lines:
        if not line.startswith("|"):
            inside = False
        elif cells(line) == COLUMNS:
            inside = True
        elif inside and not set(line) <= set("|- "):
            field, *rest = cells(line)
            found.append(Row(tuple(re.findall(r"`(\w+)`", field)), *rest))
    return found


def sections() -> dict[str, list[Row]]:
    """By what stands in backticks in the heading."""
    parts = re.split(r"^##+ (.*)$", PAGE.read_text(), flags=re.MULTILINE)
    titles = (re.match("`(.*?)`", title) for title in parts[1::2])
    return {title[1]: rows(text) for title, text in zip(titles, parts[2::2], strict=True) if title}


SECTIONS = sections()
MEMBERS = [title for title in SECTIONS if title not in SETTINGS]
FAMILIES = ("agents", "environments", "gradients", "interventions", "probes", "studies")


def family_of(title: str) -> str:
    (family,) = (f for f in FAMILIES if title.partition(":")[0] in members(f))
    return family


def value(cell: str) -> Any:
    return ast.literal_eval(cell.removeprefix("`").removesuffix("`"))


def complaints(member: Any, row: Row) -> list[str]:
    """What a row says of a member that is not so."""
    defaults = {field.name: field.default for field in dataclasses.fields(member)}
    told = []
    for field in row.fields:
        held = getattr(member, field)
        ours = defaults[field] if row.ours == "default" else value(row.ours)
        if (held, type(held)) != (ours, type(ours)):
            told.append(f"{field} is {held!r}, the page has {ours!r}")
    judged = row.same == "same" or row.same.startswith(("same value", "differs"))
    if row.theirs and judged:
        equal = value(row.theirs) == value(row.ours)
        if equal != row.same.startswith("same"):
            told.append(f"{row.fields}: {row.ours}, {row.theirs} and '{row.same}'")
    return told


@pytest.mark.parametrize("title", MEMBERS)
def test_the_page_has_the_values_of_the_code(title):
    member = make(family_of(title), title)
    assert not [told for row in SECTIONS[title] for told in complaints(member, row)]


def test_a_page_that_is_wrong_is_seen():
    agent = make("agents", "double_dqn:young_tian_2019")
    right = Row(("momentum",), "`0.0`", "`0.0`", "", "same")
    assert not complaints(agent, right)
    for wrong in (
        right._replace(ours="`0.95`"),
        right._replace(theirs="`0.95`"),
        right._replace(same="differs"),
        Row(("momentum", "optimizer"), "default", "", "", "same"),
    ):
        assert complaints(agent, wrong)


@pytest.mark.parametrize("title", MEMBERS)
def test_every_field_stands_there_once(title):
    """All of a member's; or, of a preset that is laid over others, those that it holds."""
    name, _, preset = title.partition(":")
    member = members(family_of(title))[name]
    named = [field for row in SECTIONS[title] for field in row.fields]
    assert len(named) == len(set(named))
    whole = {field.name for field in dataclasses.fields(member)}
    assert set(named) in ([whole, set(presets(member)[preset])] if preset else [whole])


def test_every_preset_and_every_agent_stands_there():
    wanted = set(members("agents"))
    for family in FAMILIES:
        for name, member in members(family).items():
            held = {f"{name}:{preset}" for preset in presets(member)}
            wanted |= held | {name} if held else set()
    assert set(MEMBERS) == wanted


@pytest.mark.parametrize("title", SETTINGS)
def test_the_page_has_the_settings_of_studies(title):
    setting: Setting = SETTINGS[title]
    for row in SECTIONS[title]:
        (field,) = row.fields
        held = getattr(setting, field)
        if field in ("agent", "environment"):
            assert held == make(f"{field}s", row.ours.strip("`"))
            continue
        assert held == value(row.ours)
        if row.theirs and row.same.startswith(("same", "differs")):
            assert (value(row.theirs) == held) == row.same.startswith("same")


def test_young_and_tian_begin_to_learn_with_5_002_transitions():
    """Their loop counts frames from 0 and learns at t > 5,000, after adding the transition of t."""
    agent = make("agents", "double_dqn:young_tian_2019(hidden=4, replay_capacity=6_000)")
    theirs = next(t for t in range(10_000) if t > 5_000) + 1
    toy = make("environments", "toy/matching_reward")
    run, _ = Run.start(agent, toy, seed=0).advance(theirs - 1)
    assert int(run.state.updates) == 0
    run, _ = run.advance(1)
    assert int(run.state.updates) == 1


def test_young_and_tian_step_as_pytorch_does():
    """torch.optim.RMSprop(lr=2.5e-4, alpha=0.95, centered=True, eps=0.01), in NumPy."""
    agent = make("agents", "double_dqn:young_tian_2019")
    made = agent.init((10, 10, 4), np.dtype(bool), Discrete(3), jax.random.key(0)).q
    rng = np.random.default_rng(0)
    live, _ = eqx.partition(made.network, made.network.trainable())
    way = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(live)]
    average, square_average = ([np.zeros_like(x) for x in way] for _ in range(2))
    for _ in range(30):
        # Most steady, so that a momentum, which PyTorch's default is not, would be seen.
        drawn = [0.05 + 0.02 * rng.normal(size=x.shape) for x in way]
        for i, g in enumerate(drawn):
            square_average[i] = 0.95 * square_average[i] + 0.05 * g * g
            average[i] = average[i] + 0.05 * (g - average[i])
            way[i] = way[i] - 2.5e-4 * g / (np.sqrt(square_average[i] - average[i] ** 2) + 0.01)
        gradient = jax.tree.unflatten(
            jax.tree.structure(live), [jnp.asarray(g, jnp.float32) for g in drawn]
        )
        made = made.descend(gradient)
    stepped, _ = eqx.partition(made.network, made.network.trainable())
    for leaf, expected in zip(jax.tree.leaves(stepped), way, strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=0, atol=2e-7)


def test_the_transitions_that_drq_has_drawn():
    """docs/level.md: ours by env step 20,000, the published ones by 5,000 and 20,000."""

    def drawn(name: str, env_steps: int) -> int:
        agent = make("agents", name)
        rounds = (env_steps - agent.first_learning_round) // agent.env_steps_per_round
        return rounds * agent.updates_per_round * agent.batch_size

    assert drawn("drq:laptop", 20_000) == pytest.approx(1.2e6, rel=0.02)
    assert drawn("drq", 5_000) == pytest.approx(2.0e6, rel=0.03)
    assert drawn("drq", 20_000) == pytest.approx(9.7e6, rel=0.01)


def test_what_the_preset_was_is_read_as_it_was():
    """Of rows and checkpoints that were written with momentum."""
    text = (
        "double_dqn(learn_start=5000, replay_ratio=1.0, initialiser='torch', double=False, "
        "optimizer='rmsprop', learning_rate=0.00025, epsilon=0.01, momentum=0.95, "
        "target_period=1000, exploration_end=0.1, exploration_begin=5000, exploration_steps=100000)"
    )
    before = make("agents", text)
    assert describe(before) == text
    now = make("agents", "double_dqn:young_tian_2019")
    assert before == dataclasses.replace(now, momentum=0.95, learn_start=5_000)
