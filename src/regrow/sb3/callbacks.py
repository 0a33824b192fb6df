"""Callbacks that carry out interventions while a model learns."""

from collections.abc import Sequence

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback

from regrow.errors import require
from regrow.interventions.base import Intervention
from regrow.registry import describe
from regrow.torch.interventions import carry_out, require_supported
from regrow.torch.randomness import Randomness, own_randomness, seed_from
from regrow.torch.sb3.agent import Sb3Agent
from regrow.torch.sb3.algorithms import learners_of
from regrow.torch.sb3.experience import is_on_policy
from regrow.torch.sb3.measuring import measured
from regrow.training.schedule import Rule
from regrow.training.triggers import RETURNS, Seen, When
from regrow.types import Event


class Do(BaseCallback):
    """Carries out interventions by rules, as `regrow train --do` takes them.

    `rules`: `"inject at 500_000"`, `"reset every 200_000 at most 3 times"`, `"inject when
    dead_units above 0.3"`, `"inject when returns plateau"`. Env steps are the model's
    `num_timesteps`; a rule acts before the first rollout that begins at or after its env step.
    `seed`: of the new parameters. `history`: what was done so far. Raises `RegrowError` for what is
    no rule, and when learning begins for an intervention that cannot be carried out on the model.
    """

    def __init__(self, *rules: str, seed: int = 0, verbose: int = 0):
        super().__init__(verbose)
        require(bool(rules), "give a rule, e.g. 'inject at 500_000'")
        self.rules = [Rule.parse(rule) for rule in rules]
        self.seed = seed
        self.history: list[Event] = []
        self._seen: list[list[Seen]] = [[] for _ in rules]
        self._fired: list[list[int]] = [[] for _ in rules]
        self._reached = -1
        self._measured: dict[int, float] = {}  # by rule, at the end of an on-policy rollout

    def _on_training_start(self) -> None:
        require_supported([rule.intervention for rule in self.rules], learners_of(self.model))
        self._reached = self.num_timesteps

    def _on_rollout_start(self) -> None:
        now = self.num_timesteps
        for number, rule in enumerate(self.rules):
            due = rule.trigger.next(self._reached + 1)
            if due is not None and due <= now and not rule.trigger.spent(self._fired[number]):
                self._check(number, rule, due)
        self._reached = now

    def _on_rollout_end(self) -> None:
        """Probes need what was collected, of which an on-policy model keeps nothing afterwards."""
        if not is_on_policy(self.model):
            return
        for number, rule in enumerate(self.rules):
            due = rule.trigger.next(self._reached + 1)
            watched = rule.trigger.watches not in ("", RETURNS)
            spent = rule.trigger.spent(self._fired[number])
            if watched and not spent and due is not None and due <= self.num_timesteps:
                self._measured[number] = self._watched(rule)

    def _on_step(self) -> bool:
        return True

    def _check(self, number: int, rule: Rule, due: int) -> None:
        if is_on_policy(self.model) and rule.trigger.watches not in ("", RETURNS):
            value = self._measured.pop(number, float("nan"))
        else:
            value = self._watched(rule)
        self._seen[number].append(Seen(due, value))
        if rule.trigger.fires(self._seen[number], self._fired[number]):
            self._fired[number].append(due)
            self._carry_out(rule.intervention)

    def _carry_out(self, intervention: Intervention) -> None:
        seed = seed_from(self.seed, len(self.history))
        with own_randomness(Randomness.of(seed)):
            carry_out(intervention, Sb3Agent(self.model), seed)
        event = Event(self.num_timesteps, describe(intervention))
        self.history.append(event)
        self.logger.record("regrow/interventions", len(self.history))
        if self.verbose:
            print(f"regrow: {event.intervention} at {event.env_steps} env steps")

    def _watched(self, rule: Rule) -> float:
        """The value that a rule looks at; of several networks, the one closest to firing."""
        watches = rule.trigger.watches
        if watches == "":
            return float("nan")
        if watches == RETURNS:
            earned = [info["r"] for info in self.model.ep_info_buffer or ()]
            return float(np.mean(earned)) if earned else float("nan")
        with own_randomness(Randomness.of(self.seed)):
            values = [*measured(self.model, [watches]).values()]
        known = [value for value in values if not np.isnan(value)]
        above = isinstance(rule.trigger, When) and rule.trigger.above is not None
        return float("nan") if not known else max(known) if above else min(known)


class Inject(Do):
    """Injects plasticity while a model learns: at an env step, every so many, or when it is due.

    `at`, `every`: env steps. `when`: a condition, such as `"dead_units above 0.3"`, `"trainability
    below 0.5 for 3 checks"` or `"returns plateau"`, looked at every `checked_every` env steps.
    `at_most`: how often. `split`: the layer at which the head begins; by default after the
    convolutions, or after the first layer. Raises `RegrowError` unless exactly one of the first
    three is given.
    """

    def __init__(
        self,
        at: int | Sequence[int] | None = None,
        *,
        every: int | None = None,
        when: str | None = None,
        at_most: int | None = None,
        checked_every: int | None = None,
        split: int | None = None,
        seed: int = 0,
        verbose: int = 0,
    ):
        given = [name for name in (at, every, when) if name is not None]
        require(len(given) == 1, "Inject: give one of at=, every= and when=")
        what = "inject" if split is None else f"inject(split={split})"
        most = "" if at_most is None else f" at most {at_most} times"
        if at is not None:
            steps = [at] if isinstance(at, int) else list(at)
            rules = [f"{what} at {step}" for step in steps]
        elif every is not None:
            rules = [f"{what} every {every}{most}"]
        else:
            looks = "" if checked_every is None else f" checked every {checked_every}"
            rules = [f"{what} when {when}{most}{looks}"]
        super().__init__(*rules, seed=seed, verbose=verbose)
