"""The random numbers of a process: those of Python, NumPy and PyTorch."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch


class Randomness(NamedTuple):
    """The states of all global generators."""

    python: Any
    numpy: Any
    pytorch: torch.Tensor
    cuda: list[torch.Tensor]

    @staticmethod
    def now() -> "Randomness":
        """Those of this process."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return Randomness(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)

    @staticmethod
    def of(seed: int) -> "Randomness":
        """Those that this seed gives."""
        with own_randomness(None):
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            return Randomness.now()

    def set(self) -> None:
        """Makes them those of this process."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.pytorch)
        if self.cuda and len(self.cuda) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self.cuda)


@contextmanager
def own_randomness(randomness: Randomness | None) -> Iterator[None]:
    """Random numbers of one's own meanwhile; afterwards the process has those of before."""
    before = Randomness.now()
    try:
        if randomness is not None:
            randomness.set()
        yield
    finally:
        before.set()


def seed_from(*parts: Any) -> int:
    """A seed that depends on all of these."""
    words = [int(part) if isinstance(part, int) else abs(hash_of(part)) for part in parts]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def hash_of(text: Any) -> int:
    """A number for a text, the same in every process."""
    return zlib.crc32(repr(text).encode())
