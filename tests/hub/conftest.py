"""One JupyterHub for the tests of a module: eight seconds to start, and a user's server six."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hub import Hub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")).start() as started:
        yield started
