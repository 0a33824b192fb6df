"""The gradient terms, one file each. `regrow.gradients.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.gradients.l2 import L2 as L2
from regrow.gradients.l2_init import L2Init as L2Init
from regrow.gradients.normalize_and_project import NormalizeAndProject as NormalizeAndProject
from regrow.gradients.parseval import Parseval as Parseval
from regrow.gradients.trac import TRAC as TRAC
from regrow.gradients.upgd import UPGD as UPGD
from regrow.gradients.weight_clipping import WeightClipping as WeightClipping
from regrow.gradients.weight_decay import WeightDecay as WeightDecay
