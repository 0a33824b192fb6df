"""regrow: has an agent's network stopped being able to learn? And its ability back.

Names are imported when they are first used: `import regrow.torch` needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

from regrow.errors import RegrowError as RegrowError
from regrow.moved import install as _install

if TYPE_CHECKING:  # what an editor and a type checker see
    from regrow import agents as agents
    from regrow import environments as environments
    from regrow import gradients as gradients
    from regrow import interventions as interventions
    from regrow import probes as probes
    from regrow.diagnosis.diagnose import diagnose as diagnose
    from regrow.diagnosis.plan import Arm as Arm
    from regrow.diagnosis.plan import Plan as Plan
    from regrow.diagnosis.subject import Source as Source
    from regrow.diagnosis.subject import Subject as Subject
    from regrow.diagnosis.verdict import Verdict as Verdict
    from regrow.learners.learner import Learner as Learner
    from regrow.learners.optimizer import Optimizer as Optimizer
    from regrow.networks.network import Network as Network
    from regrow.registry import make as make
    from regrow.sources.native import Diagnosis as Diagnosis
    from regrow.sources.native import Native as Native
    from regrow.training.default_agent import default_agent as default_agent
    from regrow.training.environment_checks import EnvironmentReport as EnvironmentReport
    from regrow.training.environment_checks import check_environment as check_environment
    from regrow.training.evaluate import evaluate as evaluate
    from regrow.training.run import Run as Run

_WHERE = {
    "Arm": "diagnosis.plan",
    "Diagnosis": "sources.native",
    "EnvironmentReport": "training.environment_checks",
    "Learner": "learners.learner",
    "Native": "sources.native",
    "Network": "networks.network",
    "Optimizer": "learners.optimizer",
    "Plan": "diagnosis.plan",
    "Run": "training.run",
    "Source": "diagnosis.subject",
    "Subject": "diagnosis.subject",
    "Verdict": "diagnosis.verdict",
    "check_environment": "training.environment_checks",
    "default_agent": "training.default_agent",
    "diagnose": "diagnosis.diagnose",
    "evaluate": "training.evaluate",
    "make": "registry",
}
_FAMILIES = ("agents", "environments", "gradients", "interventions", "probes")

_install()


def __getattr__(name: str) -> Any:
    if name in _FAMILIES:
        return importlib.import_module(f"regrow.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(f"regrow.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'regrow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FAMILIES, *_WHERE})
