"""Interventions of regrow carried out on an agent of PyTorch, in place.

An intervention is named and configured as for this library's own agents (`inject(split=1)`), and
does the same to PyTorch modules. Which there are: `SUPPORTED`.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

from regrow.errors import RegrowError, require, unknown
from regrow.interventions.base import Intervention, SelectiveIntervention
from regrow.interventions.deaden import Deaden
from regrow.interventions.fit_noise import FitNoise
from regrow.interventions.inject import Inject
from regrow.interventions.nothing import Nothing
from regrow.interventions.prime import Prime
from regrow.interventions.redo import Redo
from regrow.interventions.reset import Reset
from regrow.interventions.reset_optimizer import ResetOptimizer
from regrow.interventions.shrink_perturb import ShrinkPerturb
from regrow.registry import describe, name_of
from regrow.torch.learners import TorchLearner
from regrow.torch.randomness import seed_from
from regrow.torch.recycling import redo
from regrow.torch.stressors import deaden, require_deadenable
from regrow.torch.surgery import inject, reset, reset_optimizer, shrink_perturb

SUPPORTED = (Nothing, Inject, Reset, ShrinkPerturb, Redo, ResetOptimizer, FitNoise, Prime, Deaden)


@runtime_checkable
class TorchAgent(Protocol):
    """What an intervention needs of an agent."""

    def learners(self) -> Sequence[TorchLearner]:
        """The networks that it trains."""
        ...

    def inputs(self, name: str, count: int) -> Any:
        """The inputs of a learner's module for some transitions, as its positional arguments."""
        ...

    def renew_scalars(self, *, value: bool, moments: bool) -> None:
        """Gives learned numbers outside the networks their first value, fresh moments, or both."""
        ...

    def fit_noise(self, what: FitNoise) -> None:
        """Trains on random rewards."""
        ...

    def prime(self, what: Prime) -> None:
        """Trains on the oldest transitions."""
        ...


def require_supported(
    interventions: Iterable[Intervention], learners: Sequence[TorchLearner]
) -> None:
    """`RegrowError` where an intervention cannot be carried out on these learners."""
    for intervention in interventions:
        require(
            isinstance(intervention, SUPPORTED),
            f"{name_of(intervention)} acts on agents of this library only; on agents of PyTorch "
            f"there are: {', '.join(sorted(name_of(kind) for kind in SUPPORTED))}",
        )
        chosen = _chosen(intervention, learners)
        for learner in chosen:
            if isinstance(intervention, Inject):
                learner.split_at(intervention.split)
            if isinstance(intervention, Reset) and intervention.where == "last":
                _ = learner.last
            if isinstance(intervention, Deaden):
                require_deadenable(intervention, learner)


def carry_out(intervention: Intervention, agent: TorchAgent, seed: int) -> None:
    """Changes an agent in place; all random numbers come from `seed`."""
    learners = agent.learners()
    require_supported([intervention], learners)
    match intervention:
        case FitNoise():
            agent.fit_noise(intervention)
        case Prime():
            agent.prime(intervention)
        case Redo():
            _redo(intervention, agent, seed)
        case _:
            for learner in _chosen(intervention, learners):
                _change(intervention, learner, seed_from(seed, learner.name))
            _turn_scalars(intervention, agent)


def _chosen(intervention: Intervention, learners: Sequence[TorchLearner]) -> list[TorchLearner]:
    named = intervention.only.split() if isinstance(intervention, SelectiveIntervention) else []
    names = [learner.name for learner in learners]
    for name in named:
        if name not in names:
            raise unknown("learner", name, names)
    return [learner for learner in learners if learner.name in named or not named]


def _change(intervention: Intervention, learner: TorchLearner, seed: int) -> None:
    module: nn.Module = learner.module
    how: dict[str, Any] = {"optimizer": learner.optimizer, "seed": seed}
    match intervention:
        case Inject():
            inject(
                module,
                learner.split_at(intervention.split),
                targets=learner.targets,
                init=learner.made(),
                subtract=intervention.subtract,
                freeze=intervention.freeze,
                moments=intervention.optimizer,
                **how,
            )
        case Reset():
            at = {"head": learner.at, "last": None, "everything": None}[intervention.where]
            at = learner.last if intervention.where == "last" else at
            reset(
                module,
                at,
                targets=learner.targets,
                init=learner.made(),
                moments=intervention.optimizer,
                **how,
            )
        case ShrinkPerturb():
            require(
                intervention.where != "encoder",
                "shrink_perturb: on agents of PyTorch where is 'head' or 'everything'",
            )
            shrink_perturb(
                module,
                learner.at if intervention.where == "head" else None,
                shrink=intervention.shrink,
                perturb=intervention.perturb,
                noise=intervention.noise,
                targets=learner.targets,
                target=intervention.target,
                init=learner.made(),
                moments=intervention.optimizer,
                **how,
            )
        case Deaden():
            deaden(intervention, learner, seed)
        case ResetOptimizer():
            at = learner.at if intervention.where == "head" else None
            reset_optimizer(learner.optimizer, module, at)
        case _:
            pass  # nothing: the control


def _turn_scalars(intervention: Intervention, agent: TorchAgent) -> None:
    """Resets of the head or of everything renew learned scalars, too."""
    if isinstance(intervention, SelectiveIntervention) and intervention.only:
        return
    match intervention:
        case Reset(where="head" | "everything"):
            agent.renew_scalars(value=True, moments=intervention.optimizer == "reset")
        case ResetOptimizer(where="everything"):
            agent.renew_scalars(value=False, moments=True)
        case _:
            pass


def _redo(intervention: Redo, agent: TorchAgent, seed: int) -> None:
    for learner in _chosen(intervention, agent.learners()):
        try:
            redo(
                learner.module,
                agent.inputs(learner.name, intervention.transitions),
                tau=intervention.tau,
                optimizer=learner.optimizer,
                seed=seed_from(seed, learner.name),
            )
        except RegrowError as error:
            raise RegrowError(f"{describe(intervention)} on '{learner.name}': {error}") from error
