"""Plasticity injection (Nikishin et al. 2023, arXiv 2305.15555).

    out = h_θ(φ) + h_θ'₁(φ) − h_θ'₂(φ),     θ'₁ = θ'₂ fresh,  only φ and θ'₁ learn

Predictions and the number of trainable parameters stay as they were, so an agent that learns better
afterwards was short of plasticity and of nothing else.

New parameters begin with fresh optimizer statistics and all others keep theirs, as where θ'₁ is
given to a running optimizer of PyTorch (so in timoklein/plasticity-injection-torch). In the paper's
ablations a reset of the optimizer hurts (Fig. 9); its code is not public, and we take "the
optimizer" for all of it ("reset_all"). "keep" hands the statistics of the old head to the new one.
They are of other gradients: after a head that had gone silent Adam's first steps are about three
times the learning rate, which is an intervention of its own.
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
    """Freezes the head and adds a fresh pair: new plasticity, the same output.

    `split`: where the head begins; None keeps the network's own (and leaves one as it is that is
    all encoder). `optimizer`: which statistics begin anew, those of the new head alone ("reset"),
    of all layers ("reset_all"), or none, the new head taking over the old one's ("keep"). The
    paper's ablations: `subtract=False` leaves the third term out, `freeze=False` lets the old head
    go on learning, with its statistics.
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
        """Whether the third term is there."""
        return self.subtract

    @property
    def keeps_optimizer_tree(self) -> bool:
        """Whether the old head froze."""
        return self.freeze

    def change(self, learner: Learner, key: Key) -> Learner:
        """The network and its target injected with the same fresh head."""
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
