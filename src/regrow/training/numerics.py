"""Fixed numerics: regrow computes in float32 and int32, however JAX is configured.

A user's program may have enabled double precision (`JAX_ENABLE_X64`) or strict type promotion
(`JAX_NUMPY_DTYPE_PROMOTION=strict`, which Optax does not support). A Run is bit for bit the same
under all of these settings, and a checkpoint saved under one can be resumed under another.
"""

import functools
import multiprocessing
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax

from regrow.errors import RegrowError, RegrowWarning

P = ParamSpec("P")
T = TypeVar("T")


def setting(name: str) -> Any:
    """The current value of a JAX config option."""
    return getattr(jax.config, name)


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: runs `function` under the JAX settings that regrow is written for."""

    @functools.wraps(function)
    def carried_out(*arguments: P.args, **named: P.kwargs) -> T:
        _require_device(setting("jax_platforms"), setting("jax_default_device"))
        _warn_of_slowness(setting("jax_disable_jit"))
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            return function(*arguments, **named)

    return carried_out


def nan_is_an_answer(function: Callable[P, T]) -> Callable[P, T]:
    """Decorator: runs `function` without JAX_DEBUG_NANS, as NaN is a valid result ("no value")."""

    @functools.wraps(function)
    def carried_out(*arguments: P.args, **named: P.kwargs) -> T:
        with jax.debug_nans(False):
            return function(*arguments, **named)

    return carried_out


@functools.lru_cache
def _require_device(platforms: str | None, device: object) -> None:
    """Raises `RegrowError` if JAX does not find the configured device."""
    try:
        jax.devices(device if isinstance(device, str) else None)
    except (RuntimeError, AssertionError) as error:
        asked = device if isinstance(device, str) else platforms
        why = str(error).partition("(set JAX_PLATFORMS")[0].strip()
        raise RegrowError(
            f"JAX finds no '{asked}' to work on{why and f' ({why})'}; set JAX_PLATFORMS (or "
            "JAX_DEFAULT_DEVICE) to one that is there, or to nothing"
        ) from error


@functools.lru_cache
def _warn_of_slowness(disabled: bool) -> None:
    """Warns once that nothing is compiled; worker processes leave the warning to their parent."""
    if disabled and multiprocessing.parent_process() is None:
        warnings.warn(
            "JAX_DISABLE_JIT is set: nothing is compiled, and an env step may take a second",
            RegrowWarning,
            stacklevel=3,
        )
