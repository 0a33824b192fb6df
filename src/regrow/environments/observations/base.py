"""Checks observations against their Gymnasium space and converts them for agents.

Agents see vectors of float32, and images (height, width, channels) of uint8, bool or float32:

    Box, one axis                     a vector, float32
    Box, two axes, of uint8           a grey image (height, width, 1)
    Box, three axes                   an image; channels-first becomes channels-last
    Box, no axis or other ones        a vector, in row-major order
    Discrete, MultiDiscrete           concatenated one-hot vectors
    MultiBinary                       a vector of 0 and 1
    Dict, Tuple                       all parts as one vector, in the order of the space; uint8
                                      images in it divided by 255; a single image stays an image

This is what Stable-Baselines3 feeds its networks (`preprocess_obs`, `CombinedExtractor`), except
that it gives each image in a Dict its own CNN.

Observations are checked before they are cast: a float cast to uint8 would be truncated to 0 or 1.
"""

import abc
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.errors import FaultyEnvironmentError, RegrowError, require, warn_once

FEW = 32
"""Up to this many numbers, comparing them with their bounds is faster in Python than in NumPy."""

LEAST_SIDE = 3
"""The smallest side of an image: the kernel size of the smallest convolution.

Anything smaller is a vector.
"""


class Reader(abc.ABC):
    """Converts the observations of a space for agents: `shape`, `dtype`, and `read`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    remarks: tuple[str, ...] = ()
    """Advice for the author of the space: a sentence each, without its name."""

    @abc.abstractmethod
    def read(self, raw: Any) -> NDArray[Any]:
        """A copy of an observation, as agents see it.

        Raises `FaultyEnvironmentError` if it does not match the space.
        """


def reader(space: Any, name: str) -> Reader:
    """The reader of observations of a Gymnasium space; `name`: of the environment.

    Raises `RegrowError` for a space that agents cannot use.
    """
    parts = _parts(space, name, "")
    require(bool(parts), f"{name} observes {shown(space)}, which has no parts")
    if len(parts) == 1 and isinstance(parts[0], _Box):
        axes = _image_axes(parts[0], f"{name} observes {shown(space)}")
        return _Image(space, parts[0], axes) if axes else _Vector(space, parts)
    return _Vector(space, parts)


class _Image(Reader):
    """An image, channels last."""

    def __init__(self, space: Any, part: "_Box", axes: tuple[int, ...]):
        self._space, self._part, self._axes = space, part, axes
        self.shape = (*(part.shape[axis] for axis in axes), 1)[:3]  # grey: one channel
        kept = part.dtype == np.uint8 or part.dtype == np.bool_
        self.dtype = part.dtype if kept else np.dtype(np.float32)
        self.remarks = part.remarks_on_image()

    def read(self, raw: Any) -> NDArray[Any]:
        image = self._part.checked(_within(self._space, raw, self._part.path))
        # A copy, because an environment may reuse the memory of its observation.
        return np.array(image.transpose(self._axes), self.dtype, order="C").reshape(self.shape)


class _Vector(Reader):
    """All parts, concatenated into one vector."""

    dtype = np.dtype(np.float32)

    def __init__(self, space: Any, parts: "list[_Part]"):
        self._space, self._parts = space, parts
        self._lone = parts[0] if len(parts) == 1 and not parts[0].path else None
        self.shape = (sum(part.size for part in parts),)
        self.remarks = tuple(remark for part in parts for remark in part.remarks_on_vector())

    def read(self, raw: Any) -> NDArray[np.float32]:
        if self._lone is not None:
            return self._lone.flat(self._lone.checked(raw))
        flat = [
            part.flat(part.checked(_within(self._space, raw, part.path))) for part in self._parts
        ]
        return np.concatenate(flat)


# Parts: single arrays or numbers of an observation.

Path = tuple[Any, ...]


class _Part(abc.ABC):
    """A part of an observation; `path`: the keys that lead to it, empty for the whole."""

    path: Path
    size: int

    @abc.abstractmethod
    def checked(self, raw: Any) -> NDArray[Any]:
        """The part as an array with the shape and dtype of its space; raises if it differs."""

    @abc.abstractmethod
    def flat(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """The part as a flat float32 copy, for a vector."""

    def remarks_on_vector(self) -> tuple[str, ...]:
        """Advice about it as a part of a vector."""
        return ()


class _Box(_Part):
    """Numbers within bounds."""

    def __init__(self, space: Any, name: str, path: Path):
        self.path, self._name = path, name
        self.shape, self.dtype = tuple(space.shape), np.dtype(space.dtype)
        self.size = int(np.prod(self.shape))
        require(self.size > 0, f"{name} observes {shown(space)}{at(path)}, which has no numbers")
        self._low, self._high = np.asarray(space.low), np.asarray(space.high)
        least, most = _ends_of(self.dtype)
        # Bounds that are the whole range of the dtype, as of uint8 images, need no check.
        self._bounded = bool((self._low > least).any() or (self._high < most).any())
        ends = (self._low, self._high) if self.size <= FEW else ()
        self._ends = list(zip(*(end.ravel().tolist() for end in ends), strict=True))
        self.bytes_of_image = self.dtype == np.uint8 and len(self.shape) in (2, 3)

    def checked(self, raw: Any) -> NDArray[Any]:
        array = raw if type(raw) is np.ndarray else _array_of(raw)
        cast = array.dtype != self.dtype
        if array.shape != self.shape or (
            cast and not np.can_cast(array.dtype, self.dtype, "same_kind")
        ):
            raise wrong(self.path, _kind(array, raw), f"{self.dtype}{list(self.shape)}")
        if cast:
            with np.errstate(over="ignore"):  # overflow is reported as infinite
                array = array.astype(self.dtype)
        if self._bounded and not self._within_bounds(array):
            self._beyond(array)
        return array

    def _within_bounds(self, array: NDArray[Any]) -> bool:
        """Whether all numbers are within bounds; False if one is NaN."""
        if self.size > FEW:
            return bool(((array >= self._low) & (array <= self._high)).all())
        numbers = array.ravel().tolist()
        return all(low <= x <= high for x, (low, high) in zip(numbers, self._ends, strict=True))

    def flat(self, array: NDArray[Any]) -> NDArray[np.float32]:
        flat = np.array(array, np.float32).reshape(-1)
        return flat / np.float32(255) if self.bytes_of_image else flat

    def _beyond(self, array: NDArray[Any]) -> None:
        """Reports a number out of bounds: an error for integers, a warning for floats."""
        odd = ((array < self._low) | (array > self._high)) & np.isfinite(array)
        if not odd.any():
            return  # not finite, which is an error of its own
        index = tuple(int(i) for i in np.argwhere(odd)[0])
        says = f"{self._low[index]} to {self._high[index]}"
        what = f"{array[index]}{f' at {list(index)}' if index else ''}"
        if self.dtype.kind != "f":
            raise wrong(self.path, what, says)
        self._bounded = False
        warn_once(
            f"{self._name}: the observation{at(self.path)} is {what}; its space says {says}, and "
            "agents see it as it is",
            about=f"{self._name} is out of bounds{at(self.path)}",
        )

    def remarks_on_image(self) -> tuple[str, ...]:
        """Advice about it as an image; only uint8 images are divided by 255."""
        bounds = f"from {_number(self._low.min())} to {_number(self._high.max())}"
        if self.dtype == np.uint8 and (self._low.any() or (self._high != 255).any()):
            return (
                f"its image has bytes {bounds}, and agents divide bytes by 255; spread them over 0 "
                "to 255, or make it floats",
            )
        high = np.abs(np.array([self._low, self._high], np.float64)).max()
        if self.dtype.kind in "fiu" and self.dtype != np.uint8 and 2 < high <= 1e9:
            return (
                f"its image has {self.dtype} {bounds}, and agents divide nothing but bytes by 255; "
                "scale it to 0 to 1, or make it uint8",
            )
        return ()

    def remarks_on_vector(self) -> tuple[str, ...]:
        if self.bytes_of_image and self.size > 1_000:
            return (
                f"its image{at(self.path)} is seen as {self.size:,} numbers of one vector, without "
                "a convolution; a wrapper that leaves the other parts out keeps it an image",
            )
        return ()


class _OneHot(_Part):
    """An integer, or several of them, as concatenated one-hot vectors."""

    def __init__(self, counts: NDArray[Any], start: NDArray[Any], path: Path):
        self.path, self._counts, self._start = path, np.asarray(counts), np.asarray(start)
        self._offsets = np.cumsum(self._counts.reshape(-1)) - self._counts.reshape(-1)
        self.size = int(self._counts.sum())

    def checked(self, raw: Any) -> NDArray[Any]:
        array = _array_of(raw)
        if array.shape != self._counts.shape or array.dtype.kind not in "iub":
            shape = list(self._counts.shape)
            says = f"whole numbers{shape}" if shape else "a whole number"
            raise wrong(self.path, _kind(array, raw), says)
        chosen = np.asarray(array.astype(np.int64) - self._start)
        odd = (chosen < 0) | (chosen >= self._counts)
        if odd.any():
            index = tuple(int(i) for i in np.argwhere(odd)[0])
            start, count = int(self._start[index]), int(self._counts[index])
            what = f"{array[index]}{f' at {list(index)}' if index else ''}"
            raise wrong(self.path, what, f"{start} to {start + count - 1}")
        return chosen

    def flat(self, array: NDArray[Any]) -> NDArray[np.float32]:
        hot = np.zeros(self.size, np.float32)
        hot[self._offsets + array.reshape(-1)] = 1.0
        return hot


class _Binary(_Part):
    """Zeros and ones."""

    def __init__(self, shape: tuple[int, ...], path: Path):
        self.path, self._shape, self.size = path, tuple(shape), int(np.prod(shape))

    def checked(self, raw: Any) -> NDArray[Any]:
        array = _array_of(raw)
        if array.shape != self._shape or array.dtype.kind not in "iub":
            raise wrong(self.path, _kind(array, raw), f"zeros and ones{list(self._shape)}")
        odd = (array != 0) & (array != 1)
        if odd.any():
            index = tuple(int(i) for i in np.argwhere(odd)[0])
            raise wrong(self.path, f"{array[index]} at {list(index)}", "0 to 1")
        return array

    def flat(self, array: NDArray[Any]) -> NDArray[np.float32]:
        return np.array(array, np.float32).reshape(-1)


def _parts(space: Any, name: str, path: Path | str) -> list[_Part]:
    """The parts of a space, in its order; Gymnasium sorts a dict by key."""
    from gymnasium import spaces

    path = tuple(path)
    if isinstance(space, spaces.Box):
        return [_Box(space, name, path)]
    if isinstance(space, spaces.Discrete):
        return [_OneHot(np.array(int(space.n)), np.array(int(space.start)), path)]
    if isinstance(space, spaces.MultiDiscrete):
        return [_OneHot(space.nvec, space.start, path)]
    if isinstance(space, spaces.MultiBinary):
        return [_Binary(space.shape, path)]
    if isinstance(space, spaces.Dict | spaces.Tuple):
        inner = space.spaces
        pairs = inner.items() if isinstance(inner, Mapping) else enumerate(inner)
        return [part for key, one in pairs for part in _parts(one, name, (*path, key))]
    raise RegrowError(
        f"{name} observes a {_kind_of(space)}{at(path)}, which agents cannot take; leave it out, "
        "or make numbers of it, in a gymnasium.ObservationWrapper, and register what it wraps "
        "under an id of your own: gymnasium/module:Mine-v0"
    )


def _within(space: Any, raw: Any, path: Path) -> Any:
    """The part of an observation at a path; raises if there is none."""
    for depth, key in enumerate(path):
        where, inner = path[:depth], space.spaces
        if isinstance(inner, Mapping):
            if not isinstance(raw, Mapping):
                raise wrong(where, _kind(_array_of(raw), raw), "a dict")
            if raw.keys() != inner.keys():
                keys, right = (", ".join(map(str, held)) for held in (raw, inner))
                raise wrong(where, f"a dict of {keys}", f"one of {right}")
        elif not isinstance(raw, tuple | list) or len(raw) != len(inner):
            count = f" of {len(raw)}" if isinstance(raw, tuple | list) else ""
            raise wrong(where, f"a {type(raw).__name__}{count}", f"a tuple of {len(inner)}")
        raw, space = raw[key], inner[key]
    return raw


# Images.


def _image_axes(box: _Box, what: str) -> tuple[int, ...] | None:
    """The axes of height, width and channels, or None for a vector.

    The channels are the first of three axes if it is smaller than both others, and else the last:
    (7, 7, 20) has channels last. Raises `RegrowError` if the middle axis is smaller than the first
    and not larger than the last, and for more axes than an image has.
    """
    shape = box.shape
    if len(shape) == 2 and box.bytes_of_image and min(shape) >= LEAST_SIDE:
        return (0, 1)
    require(
        len(shape) < 4,
        f"{what}, with {len(shape)} axes; an image has three (height, width, channels), so join "
        "the frames of a stack as channels in a gymnasium.ObservationWrapper, or flatten it",
    )
    if len(shape) != 3:
        return None
    first, middle, last = shape
    axes = (1, 2, 0) if first < min(middle, last) else (0, 1, 2)
    if min(shape[axes[0]], shape[axes[1]]) < LEAST_SIDE:
        return None
    require(
        not (middle < first and middle <= last),
        f"{what}, whose middle axis is the smallest; an image is (height, width, channels) or, "
        "with channels first, (channels, height, width)",
    )
    return axes


# Messages.


def shown(space: Any) -> str:
    """A space in one line of limited length."""
    line = " ".join(str(space).split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def at(path: Path) -> str:
    """The location of a part for messages, as in " at ['goal'][0]"; "" for the whole."""
    return f" at {''.join(f'[{key!r}]' for key in path)}" if path else ""


def wrong(path: Path, what: str, says: str) -> FaultyEnvironmentError:
    """The error for an observation that does not match its space."""
    return FaultyEnvironmentError(f"the observation{at(path)} is {what}; its space says {says}")


def _array_of(raw: Any) -> NDArray[Any]:
    try:
        return np.asarray(raw)
    except (ValueError, TypeError):
        return np.array(None)


def _kind(array: NDArray[Any], raw: Any) -> str:
    """The dtype and shape of a value, or its type if it is not an array of numbers."""
    if array.dtype.kind not in "biufc":
        return f"a {type(raw).__name__}" if raw is not None else "None"
    return f"{array.dtype}{list(array.shape)}"


def _kind_of(space: Any) -> str:
    """The class of a space; for a user's own class, with that of Gymnasium it derives from."""
    names = [one.__name__ for one in type(space).__mro__ if one.__module__.startswith("gymnasium.")]
    own = type(space).__name__
    return own if not names or names[0] in (own, "Space") else f"{own} ({names[0]})"


def _number(value: Any) -> str:
    return f"{float(value):g}"


def _ends_of(dtype: np.dtype[Any]) -> tuple[float | int, float | int]:
    """The smallest and largest value of a dtype, which as bounds exclude nothing."""
    if dtype.kind == "f":
        return -np.inf, np.inf
    if dtype.kind == "b":
        return 0, 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max
