"""The newest part of a replay, in the arrays of a saved Run.

A checkpoint of a large agent is nearly all replay. With its newest transitions alone it is small,
and a run can go on from it, though not as it would have: older transitions are drawn no more.
"""

from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]


def only_recent(arrays: Mapping[str, np.ndarray], count: int) -> tuple[Arrays, int]:
    """(arrays with the newest `count` transitions of the replay, how many of how many are kept).

    The shapes stay, and the rest is zeros, which compress to nothing. The second is 0 where all are
    kept.
    """
    held = dict(arrays)
    for prefix in ("replay.", "replay.inner."):
        if f"{prefix}position" in held:
            return _of_replay(held, prefix, count)
        if f"{prefix}oldest" in held:
            return _of_frames(held, prefix, count)
    return held, 0


def _of_replay(held: Arrays, prefix: str, count: int) -> tuple[Arrays, int]:
    """Of a `Replay`: its rows move to the front, as if nothing else had been added."""
    size, position = (int(held[f"{prefix}{name}"]) for name in ("size", "position"))
    if size <= count:
        return held, 0
    capacity = len(held[f"{prefix}storage.reward"])
    rows = (position - count + np.arange(count)) % capacity
    for name in [name for name in held if name.startswith(f"{prefix}storage.")]:
        cut = np.zeros_like(held[name])
        cut[:count] = held[name][rows]
        held[name] = cut
    for name, value in (("size", count), ("position", count % capacity)):
        held[f"{prefix}{name}"] = np.array(value, held[f"{prefix}{name}"].dtype)
    return held, count


def _of_frames(held: Arrays, prefix: str, count: int) -> tuple[Arrays, int]:
    """Of a `FrameReplay`: what is older counts as overwritten."""
    added, oldest = (int(held[f"{prefix}{name}"]) for name in ("added", "oldest"))
    if added - oldest <= count:
        return held, 0
    slots = (added - count + np.arange(count)) % len(held[f"{prefix}reward"])
    frames = held[f"{prefix}numbers"][slots].ravel() % len(held[f"{prefix}frames"])
    kept = dict.fromkeys(("numbers", "action", "reward", "discount", "truncated"), slots)
    for name, rows in {**kept, "written_then": slots, "frames": np.unique(frames)}.items():
        cut = np.zeros_like(held[f"{prefix}{name}"])
        cut[rows] = held[f"{prefix}{name}"][rows]
        held[f"{prefix}{name}"] = cut
    held[f"{prefix}oldest"] = np.array(added - count, held[f"{prefix}oldest"].dtype)
    return held, count
