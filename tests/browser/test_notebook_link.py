"""The link between a notebook and its session, in pages that have the notebook open: no page ever sees a conflict."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.hosts import KERNEL, PANEL, Host, chat_of, kernel_is, run_cell, save
from tests.support.needs import needed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

WHICH = "import navi_jupyter as navi\nprint(navi.session().id)"


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(request.param, tmp_path_factory.mktemp(request.param))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield context
    context.close()


def id_in(host: Host, name: str) -> str | None:
    """The id that the notebook's file carries."""
    content = json.loads((host.server.root / f"{name}.ipynb").read_text())
    found: str | None = content["metadata"].get("navi", {}).get("session_id")
    return found


def asks_nothing(page: Page) -> None:
    assert page.locator(".jp-Dialog").count() == 0, page.locator(".jp-Dialog").first.inner_text()


def which(page: Page, cell: int = 0) -> str:
    """What a cell that prints the session's id shows."""
    run_cell(page, cell)
    page.wait_for_function(
        f"cell => /s_[0-9a-f]{{24}}/.test({PANEL}.content.widgets[cell].outputArea.node.textContent)", arg=cell
    )
    kernel_is(page, "idle")
    text = page.evaluate(f"cell => {PANEL}.content.widgets[cell].outputArea.node.textContent", cell)
    return str(text).strip()


def type_into(page: Page, source: str) -> None:
    page.evaluate(f"source => {{ {PANEL}.content.model.sharedModel.cells[1].setSource(source); return null; }}", source)


def test_a_page_saves_the_id_that_it_does_not_know_and_sees_no_conflict(host: Host, context: BrowserContext) -> None:
    host.write("saved", WHICH, "a = 1")
    page = host.open(context, "saved")
    session = which(page)
    assert id_in(host, "saved") is None
    for number in range(3):
        type_into(page, f"a = {number}")
        save(page)
        asks_nothing(page)
        assert id_in(host, "saved") == session
    state = host.server.get(f"navi/api/sessions/{session}")
    assert (state["notebook_link"], state["notebook_path"]) == ("linked", "saved.ipynb")
    host.go(page, "saved")
    page.wait_for_function(f"() => window.jupyterapp && {KERNEL.replace('.', '?.')}?.status === 'idle'", timeout=60_000)
    type_into(page, "a = 10")
    save(page)
    asks_nothing(page)
    assert id_in(host, "saved") == session


def test_a_notebook_that_is_renamed_in_its_page_keeps_its_session(host: Host, context: BrowserContext) -> None:
    host.write("before", WHICH, "a = 1")
    page = host.open(context, "before")
    session = which(page)
    page.evaluate(f"async () => {{ await {PANEL}.context.rename('after.ipynb'); }}")
    page.wait_for_function(f"() => {PANEL}.sessionContext.session.path.endsWith('after.ipynb')")
    assert which(page) == session
    type_into(page, "a = 2")
    save(page)
    asks_nothing(page)
    assert id_in(host, "after") == session
    host.write("before", WHICH, "b = 1")
    other = host.open(context, "before")
    assert which(other) != session
    assert host.server.get(f"navi/api/sessions/{session}")["notebook_path"] == "after.ipynb"


def test_a_duplicate_of_a_notebook_starts_its_own_session(host: Host, context: BrowserContext) -> None:
    host.write("original", WHICH, "a = 1")
    page = host.open(context, "original")
    session = which(page)
    save(page)
    made: dict[str, Any] = host.server.request("POST", "api/contents", {"copy_from": "original.ipynb"})
    name = made["path"].removesuffix(".ipynb")
    assert id_in(host, name) is None
    copy = host.open(context, name)
    assert which(copy) != session
    save(copy)
    asks_nothing(copy)
    assert id_in(host, name) not in (None, session)
    assert which(page) == session


def test_a_chat_has_the_page_carry_the_id(host: Host, context: BrowserContext) -> None:
    host.write("chat", "import navi_jupyter as navi\nnavi.chat()", "a = 1")
    page = host.open(context, "chat")
    run_cell(page, 0)
    session = chat_of(page).get_attribute("session")
    page.wait_for_function(
        f"id => {PANEL}.context.model.sharedModel.getMetadata('navi')?.session_id === id", arg=session
    )
    save(page)
    asks_nothing(page)
    assert id_in(host, "chat") == session


def test_a_page_that_shows_a_chat_before_it_has_a_kernel_sees_no_conflict(host: Host, context: BrowserContext) -> None:
    host.write("opened", "import navi_jupyter as navi\nnavi.chat()", "a = 1")
    page = host.open(context, "opened")
    run_cell(page, 0)
    session = chat_of(page).get_attribute("session")
    carries = f"id => {PANEL.replace('.', '?.')}?.context?.model.sharedModel.getMetadata('navi')?.session_id === id"
    page.wait_for_function(carries, arg=session)
    kernel_is(page, "idle")
    save(page)
    page.close()
    for row in host.server.get("api/sessions"):
        host.server.request("DELETE", f"api/sessions/{row['id']}")
    place = host.server.root / "opened.ipynb"
    content = json.loads(place.read_text())
    del content["metadata"]["navi"]
    place.write_text(json.dumps(content))  # an older version was put back
    page = host.open(context, "opened")
    page.wait_for_function(carries, arg=session)
    assert id_in(host, "opened") is None
    type_into(page, "a = 2")
    save(page)
    asks_nothing(page)
    assert id_in(host, "opened") == session


def test_a_page_that_saves_its_notebook_under_another_name_goes_on_with_a_copy(
    host: Host, context: BrowserContext
) -> None:
    if host.app != "lab":
        pytest.skip("tried in JupyterLab only")
    host.write("first", "import navi_jupyter as navi\nnavi.chat()", WHICH)
    page = host.open(context, "first")
    run_cell(page, 0)
    session = chat_of(page).get_attribute("session")
    page.wait_for_function(
        f"id => {PANEL}.context.model.sharedModel.getMetadata('navi')?.session_id === id", arg=session
    )
    save(page)
    page.evaluate("() => { jupyterapp.commands.execute('docmanager:save-as'); return null; }")
    dialog = page.locator(".jp-Dialog")
    dialog.locator("input").fill("second.ipynb")
    dialog.locator(".jp-mod-accept").click()
    page.wait_for_function(f"() => {PANEL}?.context?.path === 'second.ipynb'")
    page.wait_for_function(f"() => {KERNEL.replace('.', '?.')}?.status === 'idle'")
    own = which(page, 1)
    assert own != session
    save(page)
    asks_nothing(page)
    assert (id_in(host, "first"), id_in(host, "second")) == (session, own)


def test_with_collaboration_the_id_is_in_the_shared_document_at_once(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needed(find_spec("jupyter_server_ydoc"), "jupyter-collaboration")
    host = Host("lab", tmp_path_factory.mktemp("together"), collaboration=True)
    try:
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        host.write("shared", WHICH, "a = 1")
        page = host.open(context, "shared")
        session = which(page)
        page.wait_for_function(
            f"id => {PANEL}.context.model.sharedModel.getMetadata('navi')?.session_id === id", arg=session
        )
        state = host.server.get(f"navi/api/sessions/{session}")
        assert state["notebook_link"] == "linked"
        host.server.wait_for(lambda: id_in(host, "shared") == session)
        asks_nothing(page)
        context.close()
    finally:
        host.server.stop()
