"""regrow: has an agent's network stopped being able to learn? And its ability back."""

from regrow import agents as agents
from regrow import environments as environments
from regrow import gradients as gradients
from regrow import interventions as interventions
from regrow import probes as probes
from regrow.defaults import default_agent as default_agent
from regrow.diagnose import diagnose as diagnose
from regrow.environment_checks import EnvironmentReport as EnvironmentReport
from regrow.environment_checks import check_environment as check_environment
from regrow.errors import RegrowError as RegrowError
from regrow.evaluate import evaluate as evaluate
from regrow.families import make as make
from regrow.learner import Learner as Learner
from regrow.network import Network as Network
from regrow.optimizer import Optimizer as Optimizer
from regrow.plan import Arm as Arm
from regrow.plan import Diagnosis as Diagnosis
from regrow.run import Run as Run
from regrow.subject import Subject as Subject
from regrow.verdict import Verdict as Verdict
