"""What regrow's numbers are made of, whatever JAX was told: float32 and int32.

A program of one's own may have switched JAX to double precision (`JAX_ENABLE_X64`), or to refuse
mixed types (`JAX_NUMPY_DTYPE_PROMOTION=strict`, which Optax does not bear). A Run comes out the
same in every bit, and what was saved under one setting is gone on with under another.
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
    """How JAX is set at this point of the program."""
    return getattr(jax.config, name)


def in_float32(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, carried out under the settings that regrow is written for."""

    @functools.wraps(function)
    def carried_out(*arguments: P.args, **named: P.kwargs) -> T:
        _require_device(setting("jax_platforms"), setting("jax_default_device"))
        _warn_of_slowness(setting("jax_disable_jit"))
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
            return function(*arguments, **named)

    return carried_out


def nan_is_an_answer(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, carried out without JAX_DEBUG_NANS: it says NaN for "nothing there"."""

    @functools.wraps(function)
    def carried_out(*arguments: P.args, **named: P.kwargs) -> T:
        with jax.debug_nans(False):
            return function(*arguments, **named)

    return carried_out


@functools.lru_cache
def _require_device(platforms: str | None, device: object) -> None:
    """Raises `RegrowError` where JAX does not find what it was told to work on."""
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
    """Says once that nothing is compiled; workers leave it to their parent."""
    if disabled and multiprocessing.parent_process() is None:
        warnings.warn(
            "JAX_DISABLE_JIT is set: nothing is compiled, and an env step may take a second",
            RegrowWarning,
            stacklevel=3,
        )
