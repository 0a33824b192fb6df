"""How much of a run is done at a time, between two looks at whether to stop."""

import time

from regrow.training.device_loop import STEPS_PER_CHUNK

FIRST = 64  # rounds: a moment for most agents, and seconds for the slowest
SECONDS = 1.0  # that a piece shall take, within a factor of two


class ChunkPacer:
    """ChunkPacer of a run in whole rounds, each of about a second; at most a chunk of the device.

    An update of a large agent takes as long as a thousand of a small one: so many env steps at a
    time would keep whoever presses Ctrl-C waiting for minutes, or save too often.
    """

    def __init__(self, env_steps_per_round: int):
        self.per_round = env_steps_per_round
        self.most = max(STEPS_PER_CHUNK // env_steps_per_round, 1)
        self.rounds = min(FIRST, self.most)
        self._began: float | None = None

    def next(self) -> int:
        """Env steps of the next piece, judged by how long it is since this was asked last."""
        now = time.monotonic()
        if self._began is not None:
            seconds = now - self._began
            if seconds < SECONDS / 2:
                self.rounds = min(2 * self.rounds, self.most)
            elif seconds > SECONDS * 2:
                self.rounds = max(self.rounds // 2, 1)
        self._began = now
        return self.rounds * self.per_round
