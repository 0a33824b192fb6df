"""What tests ask of refusals."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from regrow.errors import RegrowError


@contextmanager
def refused_in_a_line(message: str) -> Iterator[None]:
    """What stands within is refused with `message` in it, in one line that fits a terminal."""
    with pytest.raises(RegrowError) as caught:
        yield
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
