"""ChunkPacer of a run are as long as may be between two looks at whether to stop."""

import pytest

from regrow.training import pacing as pieces
from regrow.training.device_loop import STEPS_PER_CHUNK
from regrow.training.pacing import FIRST, ChunkPacer


@pytest.mark.parametrize(
    ("per_round", "seconds_a_round", "settled"),
    [(4, 1e-4, STEPS_PER_CHUNK), (1, 0.07, 16), (1, 5.0, 1), (2_048, 3.0, 2_048), (3, 0.0, 1_998)],
)
def test_they_take_about_a_second_in_whole_rounds(monkeypatch, per_round, seconds_a_round, settled):
    clock = [0.0]
    monkeypatch.setattr(pieces.time, "monotonic", lambda: clock[0])
    made, found = ChunkPacer(per_round), []
    for _ in range(20):
        found.append(made.next())
        clock[0] += seconds_a_round * found[-1] / per_round
    assert found[0] <= FIRST * per_round
    assert all(length % per_round == 0 for length in found)
    assert found[-5:] == [settled] * 5


def test_a_pause_is_made_up_for(monkeypatch):
    clock = iter([0.0, 100.0, *range(101, 140)])
    monkeypatch.setattr(pieces.time, "monotonic", lambda: next(clock) / 10)
    made = ChunkPacer(1)
    lengths = [made.next() for _ in range(12)]
    assert lengths[1] < lengths[0] < lengths[-1]
