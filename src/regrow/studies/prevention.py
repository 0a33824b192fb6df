"""Prevention: methods in the network or the optimizer from the start."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from regrow.studies.base import DOUBLE_DQN, FITTED_NOISE, Condition, Figure, Scale, Study

TERMS: Mapping[str, Mapping[str, Any]] = {
    "L2-init": {"gradient": "l2_init"},
    "weight decay": {"gradient": "weight_decay"},
    "weight clipping": {"gradient": "weight_clipping"},
}
# The Atari network lacks the first three options; terms of the gradient work with it.
MEANS: Mapping[str, Mapping[str, Any]] = {
    "layer norm": {"layer_norm": True},
    "CReLU": {"activation": "crelu"},
    "spectral norm": {"spectral_norm": True},
    **TERMS,
}
NAMES: Mapping[Scale, tuple[str, ...]] = {
    "smoke": ("layer norm", "CReLU", "L2-init"),
    "laptop": tuple(MEANS),
    "paper": tuple(TERMS),
}


@dataclass(frozen=True)
class Prevention(Study):
    """Layer norm, CReLU, gradient terms: does injection still gain anything?"""

    question: ClassVar[str] = (
        "What keeps plasticity from the start, so that injection has nothing left to gain?"
    )
    claims: ClassVar[tuple[int, ...]] = (12,)
    figure: ClassVar[Figure] = "gains"

    def conditions(self, scale: Scale) -> tuple[Condition, ...]:
        """The agent as it is, and with each method alone."""
        setting = DOUBLE_DQN[scale].but(
            arms=("nothing", "again", "inject"), before=FITTED_NOISE[scale]
        )
        if scale == "laptop":
            setting = setting.but(seeds=3)
        return setting.condition("none"), *(
            setting.condition(name, agent=MEANS[name]) for name in NAMES[scale]
        )
