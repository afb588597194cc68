"""A server and a model that does what a prompt says, shared by the tests of programs of a module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.obedient import Obedient
from tests.support.server import JupyterServer


@pytest.fixture(scope="module")
def model() -> Iterator[Obedient]:
    """The model of the server."""
    with Obedient() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Obedient) -> Iterator[JupyterServer]:
    """A running server with a prefix, as JupyterHub gives its servers one."""
    with JupyterServer(tmp_path_factory.mktemp("server"), env=model.env) as running:
        yield running.start(base_url="/user/ada/")


@pytest.fixture(autouse=True)
def _no_session_named() -> None:
    os.environ.pop("NAVI_SESSION", None)
