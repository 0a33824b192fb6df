"""The type checker of the tests: beartype, but for functions that are made within functions."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A closure is made anew every time; to check each of them took a tenth of all tests."""
    return function if "<locals>" in function.__qualname__ else beartype(function)
