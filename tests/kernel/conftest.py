"""One real server for the kernel tests of a module, and kernels on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

PREPARE = "%load_ext navi_jupyter\nimport navi_jupyter as navi"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A running server with Navi, shared by the tests of a module."""
    with JupyterServer(tmp_path_factory.mktemp("server")).start() as running:
        yield running


@pytest.fixture
def open_kernel(server: JupyterServer) -> Iterator[Callable[..., NotebookKernel]]:
    """Start kernels on the shared server; they are shut down after the test."""
    opened: list[NotebookKernel] = []

    def start(path: str | None = "", **options: str) -> NotebookKernel:
        """``path`` "": a notebook of its own; None: a kernel without a notebook."""
        opened.append(NotebookKernel(server, f"n{next(_numbers)}.ipynb" if path == "" else path, **options))
        return opened[-1]

    yield start
    for kernel in opened:
        kernel.close()


@pytest.fixture(scope="module")
def shared_kernel(server: JupyterServer) -> Iterator[NotebookKernel]:
    """As ``kernel``, one for all tests of a module that leave nothing behind."""
    shared = NotebookKernel(server, "shared.ipynb")
    shared.ok(PREPARE)
    yield shared
    shared.close()


@pytest.fixture
def kernel(open_kernel: Callable[..., NotebookKernel]) -> NotebookKernel:
    """The kernel of a fresh notebook, with the extension loaded and the package imported as ``navi``."""
    fresh = open_kernel()
    fresh.ok(PREPARE)
    return fresh
