from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.receiver import Receiver, receiving
from tests.support.warm_sender import WARM


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A real HTTP server on loopback."""
    with receiving() as found:
        yield found


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """The one that is kept for many messages ends with the tests."""
    yield
    WARM.end()
