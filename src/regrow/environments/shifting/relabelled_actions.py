"""Relabelled actions: a new permutation of the actions every `period` env steps.

The game and its observations stay the same. So what the encoder has learned stays valid, and what
the head has learned does not: the counterpart of permuted observations, for outputs.
"""

from dataclasses import dataclass

from jaxtyping import Array, Int, Shaped

from regrow.environments.shifting.base import Reordered


@dataclass(frozen=True)
class RelabelledActions(Reordered):
    """Permutes the actions of a game, in a new way after every `period` env steps.

    Action a does what order[a] does in the game. No episode ends at a change. A sticky step of
    MinAtar repeats the last action of the game itself, whatever its label is by then. Transitions
    from before a change stay in the replay, with labels that are no longer valid.

    See `Reordered` for the options.
    """

    @property
    def count(self) -> int:
        """How many actions there are."""
        return self.num_actions

    @property
    def noun(self) -> str:
        """Actions."""
        return "actions"

    def meant(self, action: Int[Array, ""], order: Int[Array, " count"]) -> Int[Array, ""]:
        """The game's action that this one stands for."""
        return order[action]

    def shown(
        self, observation: Shaped[Array, "*obs"], order: Int[Array, " count"]
    ) -> Shaped[Array, "*obs"]:
        """The game's observation, unchanged."""
        del order
        return observation
