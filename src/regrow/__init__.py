"""regrow: has an agent's network stopped being able to learn? And its ability back."""

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
from regrow.errors import RegrowError as RegrowError
from regrow.learners.learner import Learner as Learner
from regrow.learners.optimizer import Optimizer as Optimizer
from regrow.moved import install as _install
from regrow.networks.network import Network as Network
from regrow.registry import make as make
from regrow.sources.native import Diagnosis as Diagnosis
from regrow.sources.native import Native as Native
from regrow.training.default_agent import default_agent as default_agent
from regrow.training.environment_checks import EnvironmentReport as EnvironmentReport
from regrow.training.environment_checks import check_environment as check_environment
from regrow.training.evaluate import evaluate as evaluate
from regrow.training.run import Run as Run

_install()
