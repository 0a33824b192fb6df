"""Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555).

    out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

Predictions and the number of trainable parameters are unchanged. So an agent that learns better
afterwards lacked plasticity and nothing else.

New parameters start with a fresh optimizer state and all others keep theirs. This is what happens
in PyTorch when θ'₁ is added to an existing optimizer (as in timoklein/plasticity-injection-torch).
In the paper's ablations an optimizer reset hurts (Fig. 9). The paper's code is not public; we
interpret it as a reset of the whole optimizer ("reset_all"). "keep" hands the optimizer state of
the old head to the new one. That state comes from other gradients: after a head whose gradients had
vanished, Adam's first steps are about three times the learning rate, an intervention in itself.
"""

from dataclasses import dataclass
from typing import Literal

from regrow.errors import require
from regrow.interventions.base import LearnerIntervention
from regrow.learners.learner import Learner
from regrow.networks.network import Network, Rebuilt
from regrow.types import Key


@dataclass(frozen=True)
class Inject(LearnerIntervention):
    """Freezes the head and adds a newly initialised pair: new plasticity, same output.

    `split`: the layer at which the head begins; None keeps the network's split, and leaves a
    network that is all encoder unchanged. `optimizer`: "reset" gives the new head a fresh optimizer
    state, "reset_all" gives one to all layers, and "keep" hands the old head's state to the new
    one. The paper's ablations: `subtract=False` omits the third term; `freeze=False` keeps training
    the old head with its optimizer state.
    """

    split: int | None = None
    subtract: bool = True
    freeze: bool = True
    optimizer: Literal["keep", "reset", "reset_all"] = "reset"

    def __post_init__(self) -> None:
        require(
            self.split is None or self.split >= 0,
            f"inject: split is {self.split}; it must be 0 or more",
        )

    @property
    def keeps_output(self) -> bool:
        """Whether the third term is included."""
        return self.subtract

    @property
    def keeps_optimizer_tree(self) -> bool:
        """Whether the old head is frozen."""
        return self.freeze

    def change(self, learner: Learner, key: Key) -> Learner:
        """The Learner with the same new head injected into its network and its target."""
        if self.split is None and not learner.network.head:
            return learner
        network, origins = self._injected(learner.network, key)
        target = None if learner.target is None else self._injected(learner.target, key).network
        kept = "keep" if self.optimizer == "keep" else "reset"
        injected = learner.with_network(network, target, origins=origins, fresh=kept)
        return injected.with_fresh_statistics() if self.optimizer == "reset_all" else injected

    def _injected(self, network: Network, key: Key) -> Rebuilt:
        return network.inject_with_origins(
            key, split=self.split, subtract=self.subtract, freeze=self.freeze
        )
