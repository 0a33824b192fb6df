"""How many env steps to run between two checks for a stop request."""

import time

from regrow.training.device_loop import STEPS_PER_CHUNK

FIRST = 64  # rounds: an instant for most agents, seconds for the slowest
SECONDS = 1.0  # the duration of a chunk to aim for, within a factor of two


class ChunkPacer:
    """Chooses chunk sizes: whole rounds that take about a second, at most one device chunk.

    An update of a large agent takes as long as a thousand updates of a small one. So with a fixed
    chunk size, Ctrl-C could take minutes, or saves would be too frequent.
    """

    def __init__(self, env_steps_per_round: int):
        self.per_round = env_steps_per_round
        self.most = max(STEPS_PER_CHUNK // env_steps_per_round, 1)
        self.rounds = min(FIRST, self.most)
        self._began: float | None = None

    def next(self) -> int:
        """Env steps of the next chunk, adapted to the time since the last call."""
        now = time.monotonic()
        if self._began is not None:
            seconds = now - self._began
            if seconds < SECONDS / 2:
                self.rounds = min(2 * self.rounds, self.most)
            elif seconds > SECONDS * 2:
                self.rounds = max(self.rounds // 2, 1)
        self._began = now
        return self.rounds * self.per_round
