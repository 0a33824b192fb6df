"""A training loop of one's own as a Subject: a single-file script needs about ten changed lines.

    def make_subject(seed):
        env, q, target, optimizer, buffer, obs = …                      # as the script has it
        return regrow.torch.LoopSubject(locals(), train, learners, discount=0.99)

    def train(env, q, target, optimizer, buffer, obs, step=0):          # the loop, and its state
        while True:
            …
            step += 1
            yield Steps(reward, terminated, truncated, value)           # the last line of the loop

    def learners(state):
        return [TorchLearner("q", state.q, ("network.4",), state.optimizer, (state.target,))]

What `train` takes is the state of the loop. A fork copies what these variables hold at a `yield`,
and calls `train` with the copies. So the loop must be able to go on from them: nothing else that
matters is in a local variable.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from regrow.errors import NotFiniteError, RegrowError, require, unknown
from regrow.interventions.base import Intervention
from regrow.interventions.fit_noise import FitNoise
from regrow.interventions.prime import Prime
from regrow.registry import describe, name_of
from regrow.torch.interventions import carry_out
from regrow.torch.learners import TorchLearner
from regrow.torch.measuring import Values, measured, values_of
from regrow.torch.randomness import Randomness, own_randomness, seed_from
from regrow.torch.snapshots import dumped, loaded
from regrow.types import Event, Log


class Steps(NamedTuple):
    """What env steps report: numbers for one, arrays (steps,) or (steps, num_envs) for more.

    `value`: what the agent predicted the return to be; without it values that have diverged are
    not seen.
    """

    reward: Any
    terminated: Any
    truncated: Any
    value: Any = 0.0


@dataclass(frozen=True)
class LoopSubject:
    """A training loop as a Subject.

    `state`: everything that the loop keeps. From a dict `train` gets what it takes, by name, and
    what it assigns to these variables is kept; other functions get them as attributes. Any other
    object is handed over as it is. `train`: a function of the state that yields `Steps`.
    `learners`: a function of it, the networks that it trains. `round`: env steps between
    two yields, of all environments together. `inputs`: a function of (state, name of a learner,
    count) that gives the inputs of its module for some transitions, for probes and ReDo.
    `environment`: a function of the state that gives its environment (Gymnasium's interface), of
    which the random policy is played on a copy; a vector environment is not needed.
    `stress`: a function of (state, intervention) for `fit_noise` and `prime`.
    """

    state: Any
    train: Callable[..., Iterator[Steps]]
    learners: Callable[[Any], Sequence[TorchLearner]]
    discount: float = 0.99
    num_envs: int = 1
    round: int = 1
    inputs: Callable[[Any, str, int], Any] | None = None
    environment: Callable[[Any], Any] | None = None
    stress: Callable[[Any, Intervention], None] | None = None
    env_steps: int = 0
    history: tuple[Event, ...] = ()
    randomness: Randomness = field(default_factory=lambda: Randomness.of(0), repr=False)
    running: NDArray[np.float64] | None = None
    first: Values = field(default_factory=dict, repr=False)
    _by_name: bool = False
    _held: dict[str, Any] = field(default_factory=lambda: {"used_up": False}, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.state, dict):
            object.__setattr__(self, "state", _taken(self.train, self.state))
            object.__setattr__(self, "_by_name", True)
        require(
            self.round >= 1 and self.round % self.num_envs == 0,
            f"round is {self.round}; it must be a multiple of num_envs, {self.num_envs}",
        )
        if self.running is None:
            object.__setattr__(self, "running", np.zeros(self.num_envs))
        if not self.first:
            object.__setattr__(self, "first", values_of(self.networks()))

    @property
    def restarts(self) -> tuple[int, ...]:
        """None: its environment is part of its state, which is copied whole."""
        return ()

    @property
    def used_up(self) -> bool:
        """Whether `advance` was called on it: its state went on."""
        return self._held["used_up"]

    def networks(self) -> Sequence[TorchLearner]:
        """The networks that it trains now."""
        return self.learners(self.state)

    def fork(self, replicate: int = 0) -> "LoopSubject":
        """A copy that shares nothing; replicates but 0 draw other random numbers from here on."""
        subject = LoopSubject.read(self.write())
        if not replicate:
            return subject
        seed = seed_from(self.randomness.pytorch.numpy().tobytes(), self.env_steps, replicate)
        return replace(subject, randomness=Randomness.of(seed))

    def intervene(self, intervention: Intervention) -> "LoopSubject":
        """A copy on which an intervention was carried out."""
        subject = LoopSubject.read(self.write())
        seed = seed_from(self.randomness.pytorch.numpy().tobytes(), "intervene", len(self.history))
        with own_randomness(Randomness.of(seed)):
            carry_out(intervention, _LoopAgent(subject), seed)
        event = Event(self.env_steps, describe(intervention))
        return replace(subject, history=(*subject.history, event))

    def advance(self, env_steps: int) -> "tuple[LoopSubject, Log]":
        """(the Subject so many env steps later, what every env step reported).

        Raises `NotFiniteError` where a parameter is no longer finite, and `RegrowError` where the
        loop ends or yields another number of env steps. This one is used up.
        """
        self._alive()
        self._held["used_up"] = True
        rows = list[Steps]()
        with own_randomness(self.randomness):
            going = self.train(**vars(self.state)) if self._by_name else self.train(self.state)
            for _ in range(env_steps // self.round):
                try:
                    rows.append(_as_arrays(next(going), self.num_envs))
                except StopIteration:
                    raise RegrowError(
                        f"the loop ended after {sum(len(row.reward) for row in rows)} env steps; "
                        "it must go on for as long as it is asked to: `while True:`"
                    ) from None
            randomness = Randomness.now()
        steps = Steps(*(np.concatenate(each) for each in zip(*rows, strict=True)))
        took = steps.reward.size
        require(took == env_steps, f"env_steps is {env_steps}; the loop reported {took} instead")
        log, running = _log_of(steps, self.running)
        after = replace(
            self,
            state=self._state_in(going),
            randomness=randomness,
            running=running,
            env_steps=self.env_steps + env_steps,
            _held={"used_up": False},
        )
        after._require_finite()
        return after, log

    def _state_in(self, going: Iterator[Steps]) -> Any:
        """The state that the loop has come to."""
        if not self._by_name:
            return self.state
        if not inspect.isgenerator(going):
            raise RegrowError("train must be a generator: it has no `yield`")
        variables = going.gi_frame.f_locals
        for name in vars(self.state):
            require(name in variables, f"the loop deleted its variable '{name}', which it takes")
        return SimpleNamespace(**{name: variables[name] for name in vars(self.state)})

    def play_out(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Not known: only the loop itself can act. NaN, and no episode that ended."""
        return np.full(self.num_envs, np.nan), np.zeros(self.num_envs, bool)

    def learned_rewards(self, log: Log) -> NDArray[np.float32]:
        """The rewards of a log, as they are."""
        return np.asarray(log.reward, np.float32)

    def losses(self) -> dict[str, float]:
        """Not known."""
        return {}

    def measure(
        self,
        probes: Sequence[str] = (),
        *,
        fresh: bool = False,
        since: "LoopSubject | None" = None,
    ) -> dict[str, float]:
        """Probes of every network, where `inputs` is given (`regrow.torch.measure`)."""
        if self.inputs is None:
            return {}
        read = self.inputs
        copied = LoopSubject.read(self.write())  # drawing a batch may change the state
        with own_randomness(Randomness.of(seed_from("probe", self.env_steps))):
            learners = copied.networks()
            given = {one.name: read(copied.state, one.name, 512) for one in learners}
            earlier = None if since is None else values_of(since.networks())
            return measured(learners, given, probes, fresh=fresh, first=self.first, since=earlier)

    def played_at_random(self, env_steps: int) -> NDArray[np.float64]:
        """The returns of episodes of random actions, on a copy of the environment.

        NaN where no environment is given.
        """
        if self.environment is None:
            return np.array([np.nan])
        copied = LoopSubject.read(self.write())
        env = self.environment(copied.state)
        earned, total = list[float](), 0.0
        env.reset(seed=0)
        env.action_space.seed(0)
        for step in range(2 * env_steps):
            if step >= env_steps and earned:
                break
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total += float(reward)
            if terminated or truncated:
                earned.append(total)
                total = 0.0
                env.reset()
        return np.array(earned or [total])

    def write(self) -> bytes:
        """The Subject as bytes; `RegrowError` where its state cannot be copied."""
        return dumped(replace(self._alive(), _held={"used_up": False}))

    @staticmethod
    def read(content: bytes) -> "LoopSubject":
        """The Subject that was written."""
        subject = loaded(content)
        require(isinstance(subject, LoopSubject), "the snapshot holds no training loop")
        return subject

    def _require_finite(self) -> None:
        for learner in self.networks():
            for name, parameter in learner.module.named_parameters():
                if not torch.isfinite(parameter).all():
                    raise NotFiniteError(
                        f"the parameter '{name}' of '{learner.name}' is no longer finite after "
                        f"{self.env_steps} env steps"
                    )

    def _alive(self) -> "LoopSubject":
        require(
            not self.used_up,
            "this Subject was advanced before; use the one that `advance` returned, or `fork()` "
            "before advancing",
        )
        return self


class _LoopAgent:
    """A loop's state as what interventions change."""

    def __init__(self, subject: LoopSubject):
        self.subject = subject

    def learners(self) -> Sequence[TorchLearner]:
        """The networks that it trains."""
        return self.subject.networks()

    def inputs(self, name: str, count: int) -> Any:
        """What a learner's module reads of some transitions."""
        if self.subject.inputs is None:
            raise RegrowError("it needs inputs: give LoopSubject inputs=, a function")
        return self.subject.inputs(self.subject.state, name, count)

    def renew_scalars(self, *, value: bool, moments: bool) -> None:
        """A loop has none that are known."""

    def fit_noise(self, what: FitNoise) -> None:
        """By the loop's own function."""
        self._stress(what)

    def prime(self, what: Prime) -> None:
        """By the loop's own function."""
        self._stress(what)

    def _stress(self, what: Intervention) -> None:
        if self.subject.stress is None:
            raise RegrowError(
                f"{name_of(what)} trains on what only the loop knows: give LoopSubject stress=, a "
                "function of the state and the intervention"
            )
        self.subject.stress(self.subject.state, what)


def _taken(train: Callable[..., Any], variables: dict[str, Any]) -> SimpleNamespace:
    """Of some variables, those that the loop takes."""
    state = SimpleNamespace()
    for name, parameter in inspect.signature(train).parameters.items():
        if name in variables:
            setattr(state, name, variables[name])
        elif parameter.default is not parameter.empty:
            setattr(state, name, parameter.default)
        else:
            raise unknown("variable for the loop's argument", name, variables)
    return state


def _as_arrays(steps: Any, num_envs: int) -> Steps:
    """(steps, num_envs) each; the value NaN where there is none."""
    if not (isinstance(steps, tuple) and len(steps) in (3, 4)):
        raise RegrowError(
            f"the loop yielded a {type(steps).__name__}; it must yield "
            "Steps(reward, terminated, truncated, value)"
        )
    arrays = [np.asarray(_on_cpu(one)).reshape(-1, num_envs) for one in steps]
    if len(arrays) == 3 or arrays[3].size != arrays[0].size:
        arrays[3:] = [np.zeros(arrays[0].shape)]
    return Steps(*arrays)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value


def _log_of(steps: Steps, running: Any) -> tuple[Log, NDArray[np.float64]]:
    """(the log, what the running episodes have returned); parallel environments take turns."""
    totals, returns = running.copy(), np.zeros(steps.reward.shape)
    terminated = steps.terminated.astype(bool)
    truncated = steps.truncated.astype(bool) & ~terminated
    for i, rewards in enumerate(steps.reward):
        totals = totals + rewards
        returns[i] = totals
        totals = np.where(terminated[i] | truncated[i], 0.0, totals)
    log = Log(
        steps.reward.reshape(-1).astype(np.float32),
        terminated.reshape(-1),
        truncated.reshape(-1),
        returns.reshape(-1).astype(np.float32),
        steps.value.reshape(-1).astype(np.float32),
    )
    return log, totals
