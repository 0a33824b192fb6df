"""Module names of version 0.1: importing one still works, with a warning."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from regrow.errors import RegrowWarning

MOVED = {
    "across": ("analysis.across_conditions",),
    "activations": ("networks.activations",),
    "adam": ("learners.adam",),
    "aggregates": ("stats.aggregates",),
    "blocks": ("networks.residual",),
    "cases": ("analysis.conditions",),
    "cells": (
        "diagnosis.jobs",
        "training.probing",
    ),
    "checkpoint": (
        "training.checkpoint",
        "files.atomic",
        "files.folders",
    ),
    "churn": ("learners.churn",),
    "claims": ("analysis.claims",),
    "cli_studies": ("cli.studies",),
    "compute": ("training.flops",),
    "counts": ("registry",),
    "decisions": ("analysis.claim_rules",),
    "defaults": ("training.default_agent",),
    "earlier": ("files.formats",),
    "environment_checks": ("training.environment_checks",),
    "execution.local": ("execution.processes",),
    "export": ("experiments.export",),
    "families": ("registry",),
    "findings": ("diagnosis.findings",),
    "frames": ("experience.frame_replay",),
    "guard": ("execution.guard",),
    "hosted": ("training.host_loop",),
    "initialisers": ("networks.initialisers",),
    "interrupts": ("execution.interrupts",),
    "layers": ("networks.layers",),
    "learner": ("learners.learner",),
    "live": ("training.live",),
    "locks": ("files.leases",),
    "loop": ("training.device_loop",),
    "network": ("networks.network",),
    "normalizing": ("experience.normalization",),
    "numerics": ("training.numerics",),
    "optimizer": ("learners.optimizer",),
    "outcomes": ("diagnosis.outcomes",),
    "pieces": ("training.pacing",),
    "plan": (
        "diagnosis.plan",
        "sources.native",
    ),
    "product": ("networks.matmul",),
    "published": ("analysis.published",),
    "replay": ("experience.replay",),
    "results": (
        "records.query",
        "records.provenance",
        "training.evaluations",
    ),
    "rmsprop": ("learners.rmsprop",),
    "rows": ("records.rows",),
    "rules": ("training.schedule",),
    "run": (
        "training.run",
        "types",
    ),
    "session": ("training.session",),
    "shared": ("experiments.shared_jobs",),
    "sinks": ("records.sinks",),
    "statistics": (
        "stats.intervals",
        "stats.curves",
        "stats.arrays",
    ),
    "streams": ("prng",),
    "study": ("experiments.carry_out",),
    "study_plan": ("records.study_spec",),
    "style": ("networks.architecture",),
    "subject": ("diagnosis.subject",),
    "summary": ("analysis.summary",),
    "train": ("training.train", "training.saved"),
    "triggers": ("training.triggers",),
    "units": ("learners.recycling",),
    "verdict": ("diagnosis.conclusion", "diagnosis.verdict"),
    "watch": ("experiments.watch",),
    "widen": ("learners.widening",),
}
"""The current modules for each former module; all without the prefix `regrow.`."""


class _Finder(MetaPathFinder, Loader):
    """The last finder on `sys.meta_path`, so existing modules take precedence."""

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        known = fullname.removeprefix("regrow.") in MOVED and fullname.startswith("regrow.")
        return ModuleSpec(fullname, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__.removeprefix("regrow.")
        places = [f"regrow.{place}" for place in MOVED[old]]
        warnings.warn(
            f"regrow.{old} is now {' and '.join(places)}; please change the import",
            RegrowWarning,
            stacklevel=2,
        )
        for place in reversed(places):
            held = vars(importlib.import_module(place))
            vars(module).update({k: v for k, v in held.items() if not k.startswith("__")})


def install() -> None:
    """Makes the former names importable."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
