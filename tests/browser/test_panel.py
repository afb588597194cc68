"""The panel beside the notebook, in JupyterLab and Notebook: the way to it, and which session it shows."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import AXE, PANEL, Host, answers, asked, run_cell, save, say, shot
from tests.support.needs import needed

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

MODE = f"{PANEL}.content.mode"


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(request.param, tmp_path_factory.mktemp(request.param))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    yield context
    context.close()


def icon(page: Page) -> Locator:
    """What a newcomer sees of Navi: in JupyterLab's bar of icons, in Notebook before the menus."""
    return page.locator("[data-navi=panel-tab]:visible, [data-navi=panel-open]:visible")


def panel_of(page: Page) -> Locator:
    return page.locator("navi-panel")


def chat_in(page: Page) -> Locator:
    """The panel's chat, as soon as one can write there."""
    chat = page.locator("navi-panel navi-chat")
    expect(chat.locator("[data-navi=input]")).to_be_enabled(timeout=30_000)
    return chat


def sessions(host: Host, path: str | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.server.get("navi/api/sessions?limit=100")["sessions"]
    return [each for each in found if each["notebook_path"] == path]


def open_beside(page: Page, name: str) -> None:
    """Another notebook in the same page of JupyterLab, in front."""
    page.evaluate("async path => { await jupyterapp.commands.execute('docmanager:open', {path}); }", f"{name}.ipynb")
    page.wait_for_function(f"path => {PANEL}?.context?.path === path", arg=f"{name}.ipynb")


def come_back(host: Host, page: Page, name: str) -> None:
    """The page again, with the layout as it was."""
    page.goto(f"{host.server.url}{'lab/tree' if host.app == 'lab' else 'notebooks'}/{name}.ipynb")
    page.wait_for_function("() => window.jupyterapp?.shell")


def test_the_first_chat_in_a_fresh_notebook_takes_two_clicks(host: Host, context: BrowserContext) -> None:
    host.write("fresh", "a = 1")
    page = host.open(context, "fresh")
    page.evaluate(
        "() => { window.clicks = 0; addEventListener('click', e => { if (e.isTrusted) window.clicks += 1; }, true); }"
    )
    icon(page).click()
    chat = chat_in(page)
    expect(chat.locator("[data-navi=input]")).to_be_focused()
    assert sessions(host, "fresh.ipynb") == []  # one that is only looked at gets none
    shot(page, f"panel-{host.app}-fresh")
    page.keyboard.type("what time is it")
    page.keyboard.press("Enter")
    answers(chat).first.wait_for(timeout=20_000)
    assert page.evaluate("window.clicks") <= 2
    (session,) = sessions(host, "fresh.ipynb")
    assert chat.get_attribute("session") == session["id"]
    expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("fresh.ipynb")
    shot(page, f"panel-{host.app}-first")


def test_the_panel_and_a_cell_have_the_same_session(host: Host, context: BrowserContext) -> None:
    host.write("same", "import navi_jupyter as navi\nprint(navi.session().id)")
    page = host.open(context, "same")
    icon(page).click()
    chat = chat_in(page)
    assert chat.get_attribute("session") is None
    run_cell(page, 0)
    page.wait_for_function("() => document.querySelector('navi-panel navi-chat')?.session", timeout=20_000)
    text = page.locator(".jp-OutputArea-output").first.inner_text().strip()
    assert chat.get_attribute("session") == text
    asked(chat, "what time is it")
    assert [each["id"] for each in sessions(host, "same.ipynb")] == [text]


def test_the_shortcut_goes_to_the_composer_and_back_to_the_cell(host: Host, context: BrowserContext) -> None:
    host.write("keys", "a = 1", "b = 2")
    page = host.open(context, "keys")
    # The editor of a cell is made when the page has time, and a page that still starts may move the focus: asked again.
    page.wait_for_function(
        f"() => {{ {PANEL}.content.activeCellIndex = 0; {PANEL}.content.mode = 'edit';"
        " return document.activeElement.closest('.jp-InputArea-editor'); }"
    )
    page.keyboard.press("Control+End")
    page.keyboard.press("Alt+Shift+N")
    chat = chat_in(page)
    expect(chat.locator("[data-navi=input]")).to_be_focused()
    page.keyboard.type("what time is it")
    page.keyboard.press("Enter")
    answers(chat).first.wait_for(timeout=20_000)
    page.keyboard.press("Alt+Shift+N")
    page.wait_for_function(f"() => {MODE} === 'edit'")
    page.keyboard.type(" # back")
    assert page.evaluate(f"{PANEL}.content.activeCell.model.sharedModel.getSource()") == "a = 1 # back"
    page.keyboard.press("Escape")
    page.wait_for_function(f"() => {MODE} === 'command'")
    page.keyboard.press("Alt+Shift+N")
    expect(chat.locator("[data-navi=input]")).to_be_focused()
    page.keyboard.press("Alt+Shift+N")
    page.wait_for_function(f"() => {PANEL}.node.contains(document.activeElement)")
    assert page.evaluate(MODE) == "command"
    page.keyboard.press("j")
    assert page.evaluate(f"{PANEL}.content.activeCellIndex") == 1


def test_it_is_there_again_after_a_reload(host: Host, context: BrowserContext) -> None:
    host.write("again", "a = 1")
    page = host.open(context, "again")
    icon(page).click()
    asked(chat_in(page), "what time is it")
    page.wait_for_timeout(1_500)  # JupyterLab saves its layout a second after a change
    come_back(host, page, "again")
    chat = chat_in(page)
    answers(chat).first.wait_for(timeout=20_000)
    expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("again.ipynb")


def test_a_notebook_that_is_renamed_keeps_what_the_panel_shows(host: Host, context: BrowserContext) -> None:
    host.write("old", "a = 1")
    page = host.open(context, "old")
    icon(page).click()
    chat = chat_in(page)
    asked(chat, "what time is it")
    session = chat.get_attribute("session")
    page.evaluate(f"async () => {{ await {PANEL}.context.rename('renamed.ipynb'); }}")
    expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("renamed.ipynb")
    asked(chat, "what time is it")
    assert chat.get_attribute("session") == session
    host.server.wait_for(lambda: [each["id"] for each in sessions(host, "renamed.ipynb")] == [session])


def test_it_follows_the_notebook_in_front_unless_it_is_pinned(host: Host, context: BrowserContext) -> None:
    if host.app != "lab":
        pytest.skip("a page of Notebook has one notebook")
    host.write("one", "a = 1")
    host.write("two", "b = 2")
    page = host.open(context, "one")
    icon(page).click()
    chat = chat_in(page)
    asked(chat, "what time is it")
    first = chat.get_attribute("session")
    chat.locator("[data-navi=input]").fill("a draft for one")
    open_beside(page, "two")
    name = panel_of(page).locator("[data-navi=panel-notebook]")
    expect(name).to_have_text("two.ipynb")
    box = chat.locator("[data-navi=input]")
    expect(box).to_have_value("")
    expect(chat).not_to_have_attribute("session", first or "")
    box.fill("a draft for two")
    open_beside(page, "one")
    expect(name).to_have_text("one.ipynb")
    expect(chat).to_have_attribute("session", first or "")
    expect(box).to_have_value("a draft for one")
    pin = panel_of(page).locator("[data-navi=panel-pin]")
    pin.focus()
    page.keyboard.press("Enter")
    expect(pin).to_have_attribute("aria-pressed", "true")
    open_beside(page, "two")
    page.wait_for_timeout(600)
    expect(name).to_have_text("one.ipynb")
    page.wait_for_timeout(1_500)
    come_back(host, page, "two")
    chat_in(page)
    expect(name).to_have_text("one.ipynb")
    pin.click()
    expect(name).to_have_text("two.ipynb")
    expect(box).to_have_value("a draft for two")
    assert sessions(host, "two.ipynb") == []


def test_it_works_where_no_notebook_is_open(host: Host, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{host.server.url}{'lab?reset&' if host.app == 'lab' else 'tree?'}token={host.server.token}")
    if host.app == "lab":
        page.locator(".jp-LauncherCard[title*='Navi']").first.click()
    else:
        icon(page).click()
    chat = chat_in(page)
    panel_of(page).locator("[data-navi=panel-new]").click()
    chat.locator("[data-navi=empty]").wait_for()
    before = len(sessions(host, None))
    asked(chat, "what time is it")
    assert len(sessions(host, None)) == before + 1
    expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("No notebook")


def test_a_new_session_is_the_notebooks_from_its_first_prompt_on(host: Host, context: BrowserContext) -> None:
    host.write("anew", "a = 1")
    page = host.open(context, "anew")
    icon(page).click()
    chat = chat_in(page)
    asked(chat, "what time is it")
    first = chat.get_attribute("session")
    panel_of(page).locator("[data-navi=panel-new]").click()
    chat.locator("[data-navi=empty]").wait_for()
    assert answers(chat).count() == 0
    assert len(sessions(host, "anew.ipynb")) == 1
    asked(chat, "what time is it")
    second = chat.get_attribute("session")
    assert second not in (None, first)
    found = host.server.request("POST", "navi/api/sessions/find", {"notebook_path": "anew.ipynb"})
    assert found["session"]["id"] == second
    link = panel_of(page).locator("[data-navi=panel-page]")
    assert (link.get_attribute("href") or "").endswith(f"/navi?session={second}")


def test_the_list_of_sessions_leads_to_another_one_and_the_pin_back(host: Host, context: BrowserContext) -> None:
    host.write("listed", "a = 1")
    other = host.server.request("POST", "navi/api/sessions", {"title": "Elsewhere altogether"})["id"]
    page = host.open(context, "listed")
    icon(page).click()
    chat = chat_in(page)
    asked(chat, "what time is it")
    own = chat.get_attribute("session")
    panel_of(page).locator("[data-navi=panel-sessions]").click()
    expect(panel_of(page).locator("[data-navi=sessions-search]")).to_be_focused()
    shot(page, f"panel-{host.app}-sessions")
    panel_of(page).locator(f"[data-session-id={other}] [data-navi=session-open]").click()
    expect(chat).to_have_attribute("session", other)
    expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("No notebook")
    pin = panel_of(page).locator("[data-navi=panel-pin]")
    expect(pin).to_have_attribute("aria-pressed", "true")
    pin.click()
    expect(chat).to_have_attribute("session", own or "")


def test_the_page_shows_the_same_list_and_makes_a_session_with_the_first_prompt(
    host: Host, context: BrowserContext
) -> None:
    if host.app != "lab":
        pytest.skip("it is the same page")
    session = host.server.request("POST", "navi/api/sessions", {"title": "On the page"})["id"]
    page = context.new_page()
    page.goto(f"{host.server.url}navi?token={host.server.token}#{session}")
    chat = page.locator("main navi-chat")
    expect(chat.locator("[data-navi=input]")).to_be_enabled()
    row = page.locator(f"nav [data-session-id={session}]")
    row.locator("[aria-current=true]").wait_for()
    asked(chat, "what time is it")
    shot(page, "page-list")
    page.locator("nav [data-navi=session-new]").click()
    expect(chat).not_to_have_attribute("session", session)
    made = chat.get_attribute("session")
    page.go_back()
    expect(chat).to_have_attribute("session", session)
    assert made
    host.server.request("DELETE", f"navi/api/sessions/{made}")
    page.set_viewport_size({"width": 420, "height": 800})
    shot(page, "page-420")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_the_icon_counts_what_is_unread_until_it_is_seen(host: Host, context: BrowserContext) -> None:
    host.write("unread", "a = 1")
    page = host.open(context, "unread")
    session = host.server.request("POST", "navi/api/sessions", {"notebook_path": "unread.ipynb"})["id"]
    body = {"session_id": session, "message": "stretch", "schedule": {"kind": "once", "in": "1s"}}
    host.server.request("POST", "navi/api/recalls", body)
    host.server.wait_for(lambda: host.server.get("navi/api/attention")["unread"] >= 1)
    waiting = host.server.get("navi/api/attention")
    assert [each["title"] for each in waiting["sessions"] if each["id"] == session]
    expect(icon(page)).to_have_attribute("data-navi-count", str(waiting["unread"]), timeout=25_000)
    shot(page, f"panel-{host.app}-unread")
    icon(page).click()
    chat = chat_in(page)
    expect(chat).to_have_attribute("session", session)
    host.server.wait_for(
        lambda: session not in [each["id"] for each in host.server.get("navi/api/attention")["sessions"]]
    )
    left = host.server.get("navi/api/attention")["unread"]
    if left:
        expect(icon(page)).to_have_attribute("data-navi-count", str(left))
    else:
        expect(icon(page)).not_to_have_attribute("data-navi-count", str(waiting["unread"]))


def test_a_chat_in_a_cell_keeps_the_height_that_it_was_given(host: Host, context: BrowserContext) -> None:
    host.write("height", "import navi_jupyter as navi\nnavi.chat()")
    page = host.open(context, "height")
    run_cell(page, 0)
    chat = page.locator(".navi-output navi-chat")
    expect(chat.locator("[data-navi=input]")).to_be_enabled(timeout=30_000)
    before = chat.bounding_box()
    assert before is not None
    x, y = before["x"] + before["width"] - 4, before["y"] + before["height"] - 4
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 60, steps=3)
    page.mouse.move(x, y + 120, steps=3)
    page.mouse.up()
    height = chat.evaluate("chat => chat.offsetHeight")
    assert height > before["height"] + 60
    run_cell(page, 0)
    page.wait_for_function("() => document.querySelectorAll('.navi-output navi-chat').length === 1")
    page.wait_for_function(
        "height => Math.abs(document.querySelector('.navi-output navi-chat').offsetHeight - height) < 2", arg=height
    )
    save(page)
    come_back(host, page, "height")
    page.wait_for_function(
        "height => Math.abs((document.querySelector('.navi-output navi-chat')?.offsetHeight ?? 0) - height) < 2",
        arg=height,
    )


def test_commands_are_in_the_palette_and_the_menu(host: Host, context: BrowserContext) -> None:
    host.write("menu", "a = 1")
    page = host.open(context, "menu")
    page.locator(".lm-MenuBar-itemLabel", has_text="Navi").click()
    menu = page.locator(".lm-Menu")
    labels = menu.locator(".lm-Menu-itemLabel").all_inner_texts()
    assert [label for label in labels if label] == [
        "Open Chat",
        "Go to the Chat and Back",
        "Explain the Error of the Cell",
        "Insert the Code of the Answer Below the Cell",
        "Show the Recalls of All Sessions",
        "New Session",
        "Stay on This Session",
        "Open Navi's Page",
    ]
    expect(menu.locator("[data-command='navi:focus-composer'] .lm-Menu-itemShortcut")).to_have_text("Alt+Shift+N")
    menu.locator("[data-command='navi:open']").click()
    expect(chat_in(page).locator("[data-navi=input]")).to_be_focused()
    page.keyboard.press("Control+Shift+C" if host.app == "lab" else "Escape")
    if host.app == "lab":
        page.keyboard.press("Alt+Shift+N")  # the palette takes no shortcut from a chat
        page.keyboard.press("Escape")
        page.keyboard.press("Control+Shift+C")
        page.keyboard.type("navi stay")
        page.locator(".lm-CommandPalette-item", has_text="Stay on This Session").click()
        expect(panel_of(page).locator("[data-navi=panel-pin]")).to_have_attribute("aria-pressed", "true")


def test_it_can_be_moved_to_the_left_side_and_is_there_after_a_reload(host: Host, context: BrowserContext) -> None:
    if host.app != "lab":
        pytest.skip("Notebook's panels stay on their side")
    host.write("left", "a = 1")
    page = host.open(context, "left")
    try:
        icon(page).click(button="right")
        page.locator(".lm-Menu [data-command='sidebar:switch']").click()
        page.locator(".jp-SideBar.jp-mod-left [data-navi=panel-tab]").wait_for()
        chat_in(page)
        page.wait_for_timeout(1_500)
        come_back(host, page, "left")
        page.locator(".jp-SideBar.jp-mod-left [data-navi=panel-tab]").wait_for()
        chat_in(page)
    finally:
        page.keyboard.press("Escape")
        icon(page).click(button="right")
        page.locator(".lm-Menu [data-command='sidebar:switch']").click()
        page.locator(".jp-SideBar.jp-mod-right [data-navi=panel-tab]").wait_for()


@pytest.mark.parametrize("width", [420, 1400])
def test_it_is_accessible_and_fits_in_both_themes(host: Host, browser: Browser, width: int) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    context = browser.new_context(viewport={"width": width, "height": 800})
    host.write(f"themes{width}", "a = 1")
    page = host.open(context, f"themes{width}")
    icon(page).click()
    chat = chat_in(page)
    page.add_script_tag(path=str(AXE))
    for state in ("empty", "full"):
        if state == "full":
            asked(chat, "what can you do?")
            asked(chat, "remind me in 10 minutes to stretch")
        for theme, is_light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
            page.evaluate(
                "async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme
            )
            page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{is_light}'")
            page.wait_for_timeout(500)  # the colours fade
            shot(page, f"panel-{host.app}-{width}-{state}-{'light' if is_light == 'true' else 'dark'}")
            result = page.evaluate("async () => await axe.run('navi-panel')")
            assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []
            box = panel_of(page).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width + 1
            assert panel_of(page).evaluate("panel => panel.scrollWidth <= panel.clientWidth")
    context.close()


def test_a_user_changes_the_shortcut(host: Host, context: BrowserContext) -> None:
    if host.app != "lab":
        pytest.skip("the settings are the same file")
    plugin = "@jupyterlab/shortcuts-extension:shortcuts"
    mine = '{"shortcuts": [{"command": "navi:focus-composer", "keys": ["Alt Shift Q"], "selector": "body"}, '
    mine += '{"command": "navi:focus-composer", "keys": ["Alt Shift N"], "selector": "body", "disabled": true}]}'
    host.server.request("PUT", f"lab/api/settings/{plugin}", {"raw": mine})
    try:
        host.write("mine", "a = 1")
        page = host.open(context, "mine")
        page.evaluate(f"() => {{ {PANEL}.content.mode = 'command'; }}")
        page.keyboard.press("Alt+Shift+N")
        page.wait_for_timeout(500)
        assert page.locator("navi-panel").count() == 0
        page.keyboard.press("Alt+Shift+Q")
        expect(chat_in(page).locator("[data-navi=input]")).to_be_focused()
        page.keyboard.press("Alt+Shift+Q")
        page.wait_for_function(f"() => {PANEL}.node.contains(document.activeElement)")
    finally:
        host.server.request("PUT", f"lab/api/settings/{plugin}", {"raw": "{}"})


def test_with_collaboration_it_is_the_same(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    needed(find_spec("jupyter_server_ydoc"), "jupyter-collaboration")
    host = Host("lab", tmp_path_factory.mktemp("together"), collaboration=True)
    try:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        host.write("shared", "a = 1")
        page = host.open(context, "shared")
        icon(page).click()
        chat = chat_in(page)
        say(chat, "what time is it")
        answers(chat).first.wait_for(timeout=20_000)
        (session,) = sessions(host, "shared.ipynb")
        assert chat.get_attribute("session") == session["id"]
        expect(panel_of(page).locator("[data-navi=panel-notebook]")).to_have_text("shared.ipynb")
        context.close()
    finally:
        host.server.stop()
