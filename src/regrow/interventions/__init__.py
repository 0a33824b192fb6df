"""The interventions, one file each. `regrow.interventions.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.interventions.continual_backprop import ContinualBackprop as ContinualBackprop
from regrow.interventions.dash import Dash as Dash
from regrow.interventions.deaden import Deaden as Deaden
from regrow.interventions.fire import Fire as Fire
from regrow.interventions.fit_noise import FitNoise as FitNoise
from regrow.interventions.hare_tortoise import HareTortoise as HareTortoise
from regrow.interventions.inject import Inject as Inject
from regrow.interventions.nothing import Nothing as Nothing
from regrow.interventions.prime import Prime as Prime
from regrow.interventions.redo import Redo as Redo
from regrow.interventions.regrama import Regrama as Regrama
from regrow.interventions.reset import Reset as Reset
from regrow.interventions.reset_optimizer import ResetOptimizer as ResetOptimizer
from regrow.interventions.self_normalized_reset import SelfNormalizedReset as SelfNormalizedReset
from regrow.interventions.shrink_perturb import ShrinkPerturb as ShrinkPerturb
from regrow.interventions.widen import Widen as Widen
