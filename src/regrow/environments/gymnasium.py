"""Any Gymnasium environment, by its id.

`observations/` defines what agents see of its observations, `actions/` what it is given for their
actions. A time limit is a truncation, as the environment reports it. There is no general way to
copy such an environment, so a fork or a loaded run starts a new episode.

Everything that an environment returns is checked before it is used.
"""

import importlib
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regrow.environments.actions.base import Actions, actions
from regrow.environments.base import HostEnvironment, HostStep, Simulator, needed
from regrow.environments.observations.base import Reader, reader, shown
from regrow.errors import (
    FaultyEnvironmentError,
    RegrowError,
    UntrustedError,
    in_a_line,
    require,
    warn_once,
)
from regrow.registry import Written, describe, named_module, read_back, written
from regrow.types import ActionSpace


@dataclass(frozen=True)
class Gymnasium(HostEnvironment):
    """A Gymnasium environment, as in gymnasium/CartPole-v1; needs gymnasium.

    `env_id`: its registered id, or module:id if a module registers it. `kwargs`: further arguments
    of `gymnasium.make`, made of numbers, strings, lists, tuples and dicts. In text they are fields:
    gymnasium/CartPole-v1(max_episode_steps=200).
    """

    named_by: ClassVar[str] = "env_id"
    others_in: ClassVar[str] = "kwargs"

    env_id: str = "CartPole-v1"
    kwargs: Mapping[str, Any] | Written = ()

    def __post_init__(self) -> None:
        name = f"gymnasium/{self.env_id}"
        object.__setattr__(self, "kwargs", written(self.kwargs, name))
        for given in ("id", "env_id"):
            require(
                given not in dict(self._written),
                f"{name}: {given} is given twice, in the name and in brackets",
            )

    @property
    def _written(self) -> Written:
        assert isinstance(self.kwargs, tuple), "so made after __init__"
        return self.kwargs

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of a vector, or of an image: height, width, channels."""
        return _spaces(self).observations.shape

    @property
    def observation_dtype(self) -> np.dtype[Any]:
        """float32 for vectors; uint8, bool or float32 for images."""
        return _spaces(self).observations.dtype

    @property
    def action_space(self) -> ActionSpace:
        """Integers from 0, or vectors whose −1 and 1 are the bounds of the environment."""
        return _spaces(self).actions.space

    @property
    def snapshot_size(self) -> int:
        """0: these environments cannot be copied."""
        return 0

    def simulator(self) -> Simulator:
        """A new simulation.

        Raises `RegrowError` if gymnasium or something that the environment needs is missing, if
        there is no such id, if it cannot be made, and for observations or actions of an unsupported
        kind.
        """
        return _Single(self)


def plain(environment: Gymnasium) -> Any:
    """The environment of Gymnasium itself, as it is stepped there; errors are those of making one.

    Raises `RegrowError` as `Gymnasium.simulator` does.
    """
    made, told = _made(environment)
    _tell(describe(environment), told)
    return made


class _Spaces(NamedTuple):
    """How observations and actions of an environment are converted."""

    observations: Reader
    actions: Actions


class _Single(Simulator):
    """A single environment."""

    def __init__(self, environment: Gymnasium):
        self._environment, told = _made(environment)
        try:
            _tell(describe(environment), told)
            self.spaces = _spaces_of(self._environment, describe(environment))
        except BaseException:
            with _closing_told(environment):
                self._environment.close()
            raise

    def reset(self, seed: int) -> NDArray[Any]:
        """Starts an episode from `seed`; returns its first observation."""
        came = self._environment.reset(seed=seed)
        if not (isinstance(came, tuple) and len(came) == 2 and isinstance(came[1], Mapping)):
            raise FaultyEnvironmentError(
                f"reset() returned {_values(came)}; it must return an observation and a dict of "
                "further information"
            )
        return self.spaces.observations.read(came[0])

    def step(self, action: NDArray[Any]) -> HostStep:
        """One env step."""
        try:
            came = self._environment.step(self.spaces.actions.given(action))
        except (TypeError, ValueError) as error:
            # The TimeLimit wrapper unpacks what the environment returned.
            if " unpack" not in str(error):
                raise
            raise FaultyEnvironmentError(f"step() raised {in_a_line(error)}; {_FIVE}") from error
        if not (isinstance(came, tuple) and len(came) == 5 and isinstance(came[4], Mapping)):
            raise FaultyEnvironmentError(f"step() returned {_values(came)}; {_FIVE}")
        observation, reward, terminated, truncated, _ = came
        terminated = _flag(terminated, "terminated")
        # Both can be set; the episode then terminates.
        truncated = _flag(truncated, "truncated") and not terminated
        return HostStep(
            self.spaces.observations.read(observation), _reward(reward), terminated, truncated
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """Advice about images."""
        return self.spaces.observations.remarks

    @property
    def declared(self) -> tuple[str, str]:
        """Its spaces, as Gymnasium prints them."""
        one = self._environment
        return shown(one.observation_space), shown(one.action_space)

    @property
    def sure_to_end(self) -> bool:
        """Whether Gymnasium applies a time limit."""
        gymnasium, layer = importlib.import_module("gymnasium"), self._environment
        while isinstance(layer, gymnasium.Wrapper):
            if isinstance(layer, gymnasium.wrappers.TimeLimit):
                return True
            layer = layer.env
        return False

    def close(self) -> None:
        """Closes the environment."""
        self._environment.close()

    def snapshot(self) -> NDArray[np.uint8]:
        """Empty: it cannot be copied."""
        return np.zeros(0, np.uint8)

    def restore(self, snapshot: NDArray[np.uint8]) -> None:
        """Raises `RegrowError`: it cannot be copied."""
        del snapshot
        raise RegrowError("an environment of Gymnasium cannot be copied")


_FIVE = (
    "it must return five values: observation, reward, terminated, truncated, and a dict of further "
    "information"
)


def _values(came: Any) -> str:
    """What was returned, for messages."""
    if not isinstance(came, tuple):
        return "None" if came is None else f"a {type(came).__name__}"
    kinds = [type(value).__name__ for value in came]
    return f"{len(came)} values ({', '.join(kinds)})" if len(came) < 8 else f"{len(came)} values"


def _flag(value: Any, name: str) -> bool:
    """Whether an episode ended; an array of one boolean is accepted."""
    if type(value) is bool:
        return value
    array = _array(value)
    if array is None or array.dtype.kind != "b" or array.size != 1:
        raise FaultyEnvironmentError(f"{name} is {_short(value)}; it must be True or False")
    return bool(array.item())


def _reward(value: Any) -> float:
    """A reward as a float; an array of one number is accepted."""
    if type(value) is float:
        return value
    array = _array(value)
    if array is None or array.dtype.kind not in "biuf" or array.size != 1:
        raise FaultyEnvironmentError(f"the reward is {_short(value)}; it must be a number")
    return float(array.item())


def _array(value: Any) -> NDArray[Any] | None:
    try:
        return np.asarray(value)
    except (ValueError, TypeError):
        return None


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


# Spaces, cached for as long as the registration of an id does not change.

_known: dict[Gymnasium, tuple[Any, _Spaces]] = {}


def _spaces(environment: Gymnasium) -> _Spaces:
    """The spaces of an environment, which is made once to read them."""
    registered = _registered(environment)
    if environment not in _known or _known[environment][0] is not registered:
        single = _Single(environment)
        with _closing_told(environment):
            single.close()
        _known[environment] = (registered, single.spaces)
    return _known[environment][1]


def _spaces_of(made: Any, name: str) -> _Spaces:
    """How spaces are converted; raises `RegrowError` for an unsupported kind of space."""
    from gymnasium import Space

    for what in ("observation_space", "action_space"):
        space = getattr(made, what, None)
        require(
            isinstance(space, Space),
            f"{name}: its {what} is {_short(space)}; it must be a space of gymnasium.spaces",
        )
    return _Spaces(reader(made.observation_space, name), actions(made.action_space, name))


@contextmanager
def _closing_told(environment: Gymnasium) -> Iterator[None]:
    """Turns an error of `close` into a warning: whatever was needed is known by then."""
    try:
        yield
    except Exception as error:
        warn_once(f"{describe(environment)}: close() raised {in_a_line(error)}")


# Lookup by id.


def _registered(environment: Gymnasium) -> Any:
    """The registration of an id, after its module was imported.

    Raises `RegrowError` if gymnasium, the module or the id is missing.
    """
    env_id = environment.env_id
    gymnasium = needed("gymnasium", "gymnasium", f"gymnasium/{env_id}")
    module, colon, name = env_id.rpartition(":")
    if colon and name not in gymnasium.registry:
        try:
            named_module(module)
        except UntrustedError:
            raise
        except Exception as error:
            raise RegrowError(
                f"gymnasium/{env_id}: the module {module!r} cannot be imported: {in_a_line(error)}"
            ) from error
    found = gymnasium.registry.get(name)
    # The result must not depend on whether `ale_py` was imported before.
    if not colon and (
        name.startswith("ALE/") or "ale_py" in str(getattr(found, "entry_point", ""))
    ):
        raise _atari(name)
    if found is not None:
        return found
    latest = _latest(name, gymnasium.registry)
    if latest is None:
        raise _unknown(env_id, name, module, gymnasium.registry)
    return gymnasium.registry[latest]


def _latest(name: str, registry: Iterable[str]) -> str | None:
    """The id of the latest version of an unversioned name, as Gymnasium resolves it."""
    versions = {
        int(m[1]): i for i in registry if (m := re.fullmatch(rf"{re.escape(name)}-v(\d+)", i))
    }
    return versions[max(versions)] if versions else None


def _unknown(env_id: str, name: str, module: str, registry: Iterable[str]) -> RegrowError:
    if _game(name):
        return _atari(name)
    if module:
        return RegrowError(f"the module {module!r} registers no id {name!r} with Gymnasium")
    near = get_close_matches(name, sorted(registry), n=1, cutoff=0.7)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return RegrowError(
        f"no id of gymnasium '{env_id}'; {hint}What a module of yours registers is "
        f"gymnasium/module:{name}"
    )


_ATARI = re.compile(
    r"(ALE/)?(?P<game>[A-Z]\w*?)(-?ram)?(NoFrameskip|Deterministic)?(?P<version>-v\d+)?"
)


def _game(name: str) -> str:
    """The game in an Atari id, as in PongNoFrameskip-v4; "" for any other id."""
    match = _ATARI.fullmatch(name)
    if match is None:
        return ""
    game = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", match["game"]).lower()
    if match[1] or match[4]:
        return game
    try:
        roms = importlib.import_module("ale_py.roms")
        return game if game in roms.get_all_rom_ids() else ""
    except Exception:  # without the package the games are unknown
        return ""


def _atari(name: str) -> RegrowError:
    game = _game(name) or "pong"
    return RegrowError(
        f"gymnasium/{name} is a game of Atari; as DQN sees it, and copied exactly, it is "
        f"atari/{game}, or as Gymnasium has it gymnasium/ale_py:{name}"
    )


def _made(environment: Gymnasium) -> tuple[Any, Sequence[warnings.WarningMessage]]:
    """(the environment, the warnings raised while it was made)."""
    _registered(environment)
    gymnasium = importlib.import_module("gymnasium")
    name = describe(environment)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            options = {"disable_env_checker": True, **read_back(environment._written)}
            made = gymnasium.make(environment.env_id, **options)
        except (gymnasium.error.Error, ImportError) as error:
            raise RegrowError(f"{name} cannot be made: {' '.join(str(error).split())}") from error
        except (Exception, SystemExit) as error:
            raise RegrowError(f"{name} cannot be made: {in_a_line(error)}") from error
    return made, told


def _tell(name: str, told: Sequence[warnings.WarningMessage]) -> None:
    """Repeats Gymnasium's warnings in one line, others as they are; skips those for developers."""
    for warning in told:
        words = re.sub(r"\x1b\[\d+m", "", " ".join(str(warning.message).split()))
        if words.startswith("WARN: "):
            warn_once(f"{name}: {words.removeprefix('WARN: ')}")
        elif not issubclass(warning.category, DeprecationWarning | ResourceWarning):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
