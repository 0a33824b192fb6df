"""Validation of arrays before anything is computed from them."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.errors import RegrowError, require

Floats = NDArray[np.float64]
ROUNDING = 1e-9
"""Relative to the largest value: a smaller spread is only how sums of equal values are rounded."""


def numbers(name: str, values: ArrayLike, *, dims: int | None = None) -> Floats:
    """The values as float64; `RegrowError` if empty, non-finite, or not of `dims` axes."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(values).split())[:60]
        message = f"{name} must be numbers in a rectangular array, got {shown}"
        raise RegrowError(message) from error
    received = f"got shape {array.shape}"
    require(array.size > 0, f"{name} must not be empty, {received}")
    require(dims in (None, array.ndim), f"{name} must have {dims} axis, {received}")
    bad = ~np.isfinite(array)
    if bad.any():
        count, first = np.count_nonzero(bad), array[bad][0]
        raise RegrowError(f"{name} must be finite, got {count} of {array.size} not so ({first})")
    return array


def flags(shape: tuple[int, ...], **given: ArrayLike) -> list[NDArray[np.bool_]]:
    """The flags as boolean arrays; `RegrowError` if one is not boolean or not of this shape."""
    arrays = {name: np.asarray(values) for name, values in given.items()}
    for name, array in arrays.items():
        require(array.dtype == np.bool_, f"{name} must be of dtype bool, got {array.dtype}")
        require(array.shape == shape, f"{name} must have shape {shape}, got {array.shape}")
    return list(arrays.values())
