"""Whole numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused_in_a_line

from regrow.cli import entry as cli
from regrow.registry import MOST, make, whole
from regrow.training.schedule import Rule


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1000000", 1_000_000),
        ("1_000_000", 1_000_000),
        ("1e6", 1_000_000),
        ("1E+6", 1_000_000),
        ("2.5e5", 250_000),
        ("1000.0", 1000),
        ("10e-1", 1),
        ("1M", 1_000_000),
        ("1.5M", 1_500_000),
        ("200k", 200_000),
        ("2K", 2_000),
        (" 7 ", 7),
        ("2147483647", MOST - 1),
    ],
)
def test_what_is_a_whole_number(text, number):
    assert whole(text) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "'many' is not a whole number; write 1000000, 1_000_000, 1e6 or 1M"),
        ("", "'' is not a whole number"),
        ("1.5", "'1.5' is not a whole number"),
        ("1e-3", "'1e-3' is not a whole number"),
        ("1.2345k", "'1.2345k' is not a whole number"),
        ("1,000,000", "'1,000,000' is not a whole number"),
        ("1m", "'1m' is not a whole number"),
        ("1.2.3", "'1.2.3' is not a whole number"),
        ("nan", "'nan' is not a whole number"),
        ("inf", "'inf' is not a whole number"),
        ("0x10", "'0x10' is not a whole number"),
        (".", "'.' is not a whole number"),
        ("-5", "-5 is out of range; it must be from 0 to 2^31 − 1"),
        ("2147483648", "2147483648 is out of range"),
        ("3000M", "3000M is out of range"),
        ("1e999", "1e999 is out of range"),
        ("1e999999999999999999999999", "'1e999999999999999999999999' is not a whole number"),
    ],
)
def test_what_is_none(text, message):
    with refused_in_a_line(message):
        whole(text)


@given(st.integers(0, MOST - 1))
def test_every_way_to_write_a_number_is_the_number(number):
    for text in (str(number), f"{number:_}", f"{number}.0", f"{number}e0", f"{number * 10}e-1"):
        assert whole(text) == number
    if number * 1000 < MOST:
        assert whole(f"{number}k") == number * 1000


def test_rules_and_fields_take_them_too():
    assert Rule.parse("inject at 1e6") == Rule.parse("inject at 1_000_000")
    assert Rule.parse("reset every 200k at most 3 times") == Rule.parse(
        "reset every 200_000 at most 3 times"
    )
    when = "inject when dead_units above 0.3 checked every {}"
    assert Rule.parse(when.format("20k")) == Rule.parse(when.format("20_000"))
    assert make("agents", "double_dqn(replay_capacity=1e6)").replay_capacity == 1_000_000
    with refused_in_a_line("replay_capacity is 1.5; it must be: int"):
        make("agents", "double_dqn(replay_capacity=1.5)")


def test_the_command_line_takes_them(tmp_path):
    agent = "double_dqn(hidden=16, learn_start=40, replay_capacity=400)"
    command = ["train", "toy/action_reward", "--agent", agent, "--probe-every", "0"]
    assert cli.run([*command, "--env-steps", "4e1", "--out", str(tmp_path / "run")]) is None
    said = cli.run([*command, "--env-steps", "0.04k", "--out", str(tmp_path / "run")])
    assert "holds a run already" in str(said)
