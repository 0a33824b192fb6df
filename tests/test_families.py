"""Members are found by walking; what names them is read, checked and printed back."""

import importlib
import subprocess
import sys

import pytest
from refusals import refused_in_a_line

import regrow
from regrow.agents import DoubleDQN
from regrow.environments import Breakout
from regrow.errors import RegrowError
from regrow.registry import describe, make, members, name_of, summary

FAMILIES = ("agents", "environments", "gradients", "interventions", "probes")


def test_the_games_are_there():
    games = {name for name in members("environments") if name.startswith("minatar/")}
    assert games == {
        f"minatar/{game}"
        for game in ("asterix", "breakout", "freeway", "seaquest", "space_invaders")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_is_made_by_its_name_and_has_a_line_about_it(family):
    for name, cls in members(family).items():
        assert summary(cls).endswith(".")
        assert getattr(getattr(regrow, family), cls.__name__) is cls
        if hasattr(cls, "named"):  # what it stands for is somebody's own
            continue
        member = make(family, name)
        assert type(member) is cls
        assert name_of(member) == name
        named_by = getattr(cls, "named_by", None)
        text = name + (f"/{getattr(member, named_by)}" if named_by else "")
        assert describe(member) == text
        assert make(family, text) == member
        assert hash(member) == hash(make(family, name))


def test_fields_are_read_and_printed_back():
    member = make("agents", "double_dqn(learning_rate=1, layer_norm=True, optimizer='rmsprop')")
    assert (member.learning_rate, member.layer_norm) == (1.0, True)
    text = describe(member)
    assert text == "double_dqn(layer_norm=True, optimizer='rmsprop', learning_rate=1.0)"
    assert make("agents", text) == member
    assert describe(Breakout(sticky_actions=0.0)) == "minatar/breakout(sticky_actions=0.0)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("minatar/brekout", "no environment 'minatar/brekout'; did you mean 'minatar/breakout'?"),
        ("zzz", "no environment 'zzz'; there are: atari, control, "),
        ("", "'' is not a name with fields"),
        ("minatar/breakout(", "is not a name with fields"),
        ("minatar/breakout(0.1)", "give fields by name"),
        ("minatar/breakout(sticky_actions=)", "cannot be read"),
        ("minatar/breakout(sticky_actions=print(1))", "a field takes a number, a word in quotes"),
        ("minatar/breakout(sticky_actions='a')", "sticky_actions is 'a'; it must be: float"),
        ("minatar/breakout(**{})", "cannot be read"),
        ("minatar/breakout(sticky_actions=0.0)(sticky_actions=0.5)", "cannot be read"),
        ("minatar/breakout(sticky_actions=0.0, sticky_actions=0.5)", "actions is given twice"),
        (
            "control/walker-walk(task='walker-run')",
            "'control/walker-walk(task='walker-run')': task is given twice, in the name and in",
        ),
        ("minatar/breakout(sticky_actions=1e999)", "it must be a finite number"),
        ("minatar/breakout(sticky=0.1)", "did you mean 'sticky_actions'"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(text, message):
    with refused_in_a_line(message):
        make("environments", text)


def test_settings_that_a_class_holds_by_name_come_after_a_colon():
    published = make("agents", "double_dqn:young_tian_2019(learning_rate=1e-3)")
    expected = {**DoubleDQN.young_tian_2019, "learning_rate": 1e-3}
    assert published == DoubleDQN(**expected)
    assert make("agents", describe(published)) == published
    with pytest.raises(RegrowError, match="no preset of double_dqn 'young'; did you mean 'young_"):
        make("agents", "double_dqn:young")


@pytest.mark.parametrize("family", [*FAMILIES, "studies"])
def test_a_package_names_all_of_its_members_and_no_other(family):
    """Editors and type checkers read those lines; who adds a member adds one."""
    package = importlib.import_module(f"regrow.{family}")
    found = {cls.__name__: cls for cls in members(family).values()}
    named = {name: held for name, held in vars(package).items() if isinstance(held, type)}
    assert named == found, f"src/regrow/{family}/__init__.py"


def test_a_name_that_no_family_exports_is_an_attribute_error():
    name = "Nonsense"
    with pytest.raises(AttributeError, match=r"regrow\.probes.*Nonsense"):
        getattr(regrow.probes, name)
    assert "Srank" in dir(regrow.probes)


@pytest.mark.always
def test_the_library_imports_without_what_the_command_line_needs():
    blocked = ("rich", "matplotlib", "pandas", "duckdb", "torch", "gymnasium", "minatar")
    blocked += ("dm_control", "mujoco", "ale_py", "PIL")
    program = (
        "import sys\n"
        f"for name in {blocked!r}: sys.modules[name] = None\n"
        "import regrow\n"
        "regrow.Diagnosis(regrow.agents.DoubleDQN(), regrow.environments.Breakout())\n"
        "for name in ('control/walker-run', 'atari/pong', 'gymnasium/CartPole-v1'):\n"
        "    regrow.registry.make('environments', name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
