"""The probes, one file each. `regrow.probes.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.probes.approximate_rank import ApproximateRank as ApproximateRank
from regrow.probes.curvature import Curvature as Curvature
from regrow.probes.dead_by_firing import DeadByFiring as DeadByFiring
from regrow.probes.dead_overlap import DeadOverlap as DeadOverlap
from regrow.probes.dead_units import DeadUnits as DeadUnits
from regrow.probes.distance_from_init import DistanceFromInit as DistanceFromInit
from regrow.probes.dormant_units import DormantUnits as DormantUnits
from regrow.probes.effective_rank import EffectiveRank as EffectiveRank
from regrow.probes.feature_norm import FeatureNorm as FeatureNorm
from regrow.probes.feature_rank import FeatureRank as FeatureRank
from regrow.probes.gradient_cosine import GradientCosine as GradientCosine
from regrow.probes.gradient_dormancy import GradientDormancy as GradientDormancy
from regrow.probes.gradient_norm import GradientNorm as GradientNorm
from regrow.probes.ntk_rank import NtkRank as NtkRank
from regrow.probes.policy_churn import PolicyChurn as PolicyChurn
from regrow.probes.srank import Srank as Srank
from regrow.probes.stable_rank import StableRank as StableRank
from regrow.probes.trainability import Trainability as Trainability
from regrow.probes.value_churn import ValueChurn as ValueChurn
from regrow.probes.weight_change import WeightChange as WeightChange
from regrow.probes.weight_magnitude import WeightMagnitude as WeightMagnitude
from regrow.probes.weight_norm import WeightNorm as WeightNorm
