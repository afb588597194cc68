"""Servers with JupyterLab or Notebook, and how tests handle pages of them. Not a test."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import BrowserContext, Locator, Page

from tests.support.server import JupyterServer

AXE = Path(__file__).parents[2] / "js" / "node_modules" / "axe-core" / "axe.min.js"
App = Literal["lab", "notebook"]
PANEL = "jupyterapp.shell.currentWidget"
KERNEL = f"{PANEL}.sessionContext.session.kernel"
EXPOSE = {"lab": "--LabApp.expose_app_in_browser=True", "notebook": "--JupyterNotebookApp.expose_app_in_browser=True"}
KNOWS_FILE = (
    f"async () => {{ const {{context}} = {PANEL}; const options = {{content: false, hash: true}};"
    " const {hash} = await jupyterapp.serviceManager.contents.get(context.path, options);"
    " return !context.model.dirty && hash === context.contentsModel.hash; }"
)
"""Whether the page has nothing unsaved, and knows the file as it is now."""
SETTINGS = "lab-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"


SHOTS = os.environ.get("NAVI_TEST_SHOTS")
"""A folder for pictures of each step, to look at."""


class Host:
    """A real server with JupyterLab or Notebook, and pages of it."""

    def __init__(
        self, app: App, home: Path, *, env: Mapping[str, str] | None = None, collaboration: bool = False
    ) -> None:
        self.app = app
        self.server = JupyterServer(home, env=env, collaboration=collaboration)
        settings = home / SETTINGS
        settings.parent.mkdir(parents=True)
        settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
        self.start()

    def start(self) -> None:
        self.server.start(self.app, args=[EXPOSE[self.app]])

    def write(self, name: str, *sources: str) -> None:
        cells = [
            {
                "cell_type": "code",
                "id": f"c{number}",
                "metadata": {},
                "source": source,
                "outputs": [],
                "execution_count": None,
            }
            for number, source in enumerate(sources)
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
        self.server.request("PUT", f"api/contents/{name}.ipynb", {"type": "notebook", "content": content})

    def go(self, page: Page, name: str) -> None:
        path = f"lab/tree/{name}.ipynb?reset&" if self.app == "lab" else f"notebooks/{name}.ipynb?"
        page.goto(f"{self.server.url}{path}token={self.server.token}")

    def open(self, context: BrowserContext, name: str) -> Page:
        """A page with a notebook whose kernel is ready."""
        page = context.new_page()
        self.go(page, name)
        page.wait_for_function(
            f"() => window.jupyterapp && {KERNEL.replace('.', '?.')}?.status === 'idle'", timeout=60_000
        )
        return page


def run_cell(page: Page, index: int) -> None:
    page.evaluate(
        f"index => {{ const {{content}} = {PANEL}; content.activeCellIndex = index; content.deselectAll();"
        " jupyterapp.commands.execute('notebook:run-cell'); return null; }",
        index,
    )


def kernel_is(page: Page, status: str) -> None:
    page.wait_for_function(f"() => {KERNEL}.status === '{status}'", timeout=30_000)


def save(page: Page) -> None:
    """Save as a user does. Fails where JupyterLab asks something: the save would not end before that is answered.

    With real-time collaboration the server saves, too, a second after the last change, and the page learns only after
    that which content the file has now. JupyterLab asks ("File Changed") about a save in between, also without Navi. So
    this waits until the server has nothing left to save and the page knows the file.
    """
    if page.evaluate(f"() => {PANEL}.context.model.collaborative"):
        page.wait_for_function(KNOWS_FILE, polling=100)
    page.evaluate(
        f"() => {{ window.saved = null; {PANEL}.context.save().then("
        "() => { window.saved = 'saved'; }, error => { window.saved = `${error}`; }); }"
    )
    page.wait_for_function("() => window.saved !== null || document.querySelector('.jp-Dialog') !== null")
    saved = page.evaluate("() => window.saved")
    assert saved == "saved", (saved, page.locator(".jp-Dialog").all_inner_texts())


def chat_of(page: Page) -> Locator:
    chat = page.locator("navi-chat")
    chat.locator("[data-navi=status][data-state=open]").wait_for(state="attached", timeout=40_000)
    return chat


def say(chat: Locator, text: str) -> None:
    chat.locator("[data-navi=input]").fill(text)
    chat.locator("[data-navi=input]").press("Enter")


def answers(chat: Locator) -> Locator:
    return chat.locator("[data-navi=message][data-role=assistant][data-status=done]")


def asked(chat: Locator, text: str, *, within: float = 20_000) -> None:
    """Say it and wait for the answer to be complete."""
    before = answers(chat).count()
    say(chat, text)
    answers(chat).nth(before).wait_for(timeout=within)


def items(chat: Locator) -> Any:
    """What is drawn, but for the times that only a view that was there has seen."""
    found = json.loads(chat.evaluate("chat => JSON.stringify(chat.state.items)"))
    return [{name: one for name, one in item.items() if name not in ("ts", "startedAt", "endedAt")} for item in found]


def shot(page: Page, name: str) -> None:
    """A picture of a page, where somebody wants to see them."""
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(SHOTS, f"{name}.png"))
