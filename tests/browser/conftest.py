"""A browser for the tests of this folder; they run in a process of their own (Playwright wants the event loop)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.needs import chromium

ARGUMENTS = [  # a container gives no sandbox; Chromium must not call home
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(autouse=True)
def jp_asyncio_loop() -> None:
    """Not pytest-jupyter's: Playwright's loop is running in this thread."""


@pytest.fixture(autouse=True)
def jp_server_cleanup() -> None:
    """Not pytest-jupyter's: the servers here are processes of their own."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
