"""A browser. Kept apart from ``tests/``: these tests need what ``npm ci`` brings, and Playwright its own process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode does not

from views import PLAYGROUND, Chat, Control

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium: that of ``NAVI_CHROMIUM``, else of PATH, else Playwright's own."""
    path = os.environ.get("NAVI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = subprocess.Popen(["node", str(PLAYGROUND / "server.mjs")], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().strip()
    server.terminate()
    server.wait()


@pytest.fixture
def control(address: str) -> Iterator[Control]:
    def tell(path: str) -> None:
        urllib.request.urlopen(urllib.request.Request(f"{address}control/{path}", method="POST")).close()

    yield tell
    tell("mood?is=ok")


@pytest.fixture
def open_chat(browser: Browser, address: str) -> Iterator[Callable[..., Chat]]:
    contexts = []

    def open_(*sessions: str, query: str = "", **options: Any) -> Chat:
        contexts.append(browser.new_context(**{"viewport": {"width": 900, "height": 1000}, **options}))
        return Chat(contexts[-1].new_page(), address, *sessions, query=query)

    yield open_
    for context in contexts:
        context.close()
