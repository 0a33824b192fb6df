"""The studies, one file each. `regrow.studies.base` is their contract.

`tests/test_families.py` fails if one is missing here.
"""

from regrow.studies.ablations import Ablations as Ablations
from regrow.studies.generality import Generality as Generality
from regrow.studies.growing import Growing as Growing
from regrow.studies.keep_learning import KeepLearning as KeepLearning
from regrow.studies.pace import Pace as Pace
from regrow.studies.prevention import Prevention as Prevention
from regrow.studies.primacy_bias import PrimacyBias as PrimacyBias
from regrow.studies.proxies import Proxies as Proxies
from regrow.studies.resets import Resets as Resets
