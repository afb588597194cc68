"""The chat where users meet it: in JupyterLab, in Notebook, and in front ends that reach only the kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.hosts import AXE, KERNEL, Host, answers, asked, chat_of, items, kernel_is, run_cell, save, say
from tests.support.needs import needed

SLEEP = "import time; time.sleep(6)"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


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


def test_it_streams_while_a_cell_sleeps_and_shift_enter_runs_no_cell(host: Host, context: BrowserContext) -> None:
    host.write("busy", "import navi_jupyter as navi\nnavi.chat()", SLEEP)
    page = host.open(context, "busy")
    run_cell(page, 0)
    chat = chat_of(page)
    run_cell(page, 1)
    kernel_is(page, "busy")
    box = chat.locator("[data-navi=input]")
    box.press_sequentially("count to 5")
    box.press("Shift+Enter")
    assert box.input_value() == "count to 5\n"
    box.press("Enter")
    answers(chat).first.wait_for(timeout=5_000)
    assert page.evaluate(f"{KERNEL}.status") == "busy"


def test_it_stops(host: Host, context: BrowserContext) -> None:
    host.write("stop", "import navi_jupyter as navi\nnavi.chat()")
    page = host.open(context, "stop")
    run_cell(page, 0)
    chat = chat_of(page)
    say(chat, "count to 200 slowly")
    chat.locator("[data-navi=message][data-role=assistant]").wait_for()
    chat.locator("[data-navi=stop]").click()
    chat.locator("[data-navi=run-end][data-code=cancelled]").wait_for(timeout=2_000)
    asked(chat, "what time is it")


def test_it_comes_back_after_a_reload_with_the_kernel_busy_and_with_none(host: Host, context: BrowserContext) -> None:
    host.write("reload", "import navi_jupyter as navi\nnavi.chat()", SLEEP)
    page = host.open(context, "reload")
    run_cell(page, 0)
    asked(chat_of(page), "what time is it")
    kernel_is(page, "idle")
    run_cell(page, 1)
    kernel_is(page, "busy")
    save(page)
    host.go(page, "reload")
    chat = chat_of(page)
    answers(chat).first.wait_for()
    asked(chat, "what time is it")
    save(page)
    for session in host.server.get("api/sessions"):
        host.server.request("DELETE", f"api/sessions/{session['id']}")
    host.go(page, "reload")
    chat = chat_of(page)
    answers(chat).nth(1).wait_for()
    asked(chat, "what time is it")
    assert answers(chat).count() == 3
    assert page.get_by_text("Error displaying widget").count() == 0


def test_a_recall_fires_live_in_two_notebooks_that_stay_identical(host: Host, context: BrowserContext) -> None:
    host.write("first", "import navi_jupyter as navi\nnavi.chat()")
    one = host.open(context, "first")
    run_cell(one, 0)
    here = chat_of(one)
    asked(here, "what time is it")
    session = here.get_attribute("session")
    host.write("second", f"import navi_jupyter as navi\nnavi.chat(session={session!r})")
    two = host.open(context, "second")
    run_cell(two, 0)
    there = chat_of(two)
    say(there, "remind me in 3 seconds to stretch")
    for chat in (here, there):
        chat.locator("[data-navi=message][data-role=user][data-origin=recall]").wait_for(timeout=20_000)
        chat.locator("[data-navi=stop]").wait_for(state="detached")
        answers(chat).nth(2).wait_for()
    assert items(here) == items(there)


def test_offline_and_a_killed_server_lose_nothing(host: Host, context: BrowserContext) -> None:
    host.write("killed", "import navi_jupyter as navi\nnavi.chat()")
    page = host.open(context, "killed")
    run_cell(page, 0)
    chat = chat_of(page)
    asked(chat, "what time is it")
    save(page)
    context.set_offline(True)
    chat.locator("[data-navi=status][data-state=offline]").wait_for(state="attached", timeout=10_000)
    say(chat, "list recalls")
    context.set_offline(False)
    answers(chat).nth(1).wait_for(timeout=10_000)
    host.server.kill9()
    chat.locator("[data-navi=status][data-state=reconnecting]").wait_for(state="attached", timeout=10_000)
    say(chat, "what can you do?")
    host.start()
    answers(chat).nth(2).wait_for(timeout=60_000)
    users = chat.locator("[data-navi=message][data-role=user]")
    assert [text.strip() for text in users.locator(".navi-text").all_inner_texts()] == [
        "what time is it",
        "list recalls",
        "what can you do?",
    ]


def test_it_is_accessible_in_both_themes(host: Host, context: BrowserContext) -> None:
    host.write("themes", "import navi_jupyter as navi\nnavi.chat()")
    page = host.open(context, "themes")
    run_cell(page, 0)
    chat = chat_of(page)
    asked(chat, "what can you do?")
    asked(chat, "remind me in 10 minutes to stretch")
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    page.add_script_tag(path=str(AXE))
    for theme, is_light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        page.evaluate("async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme)
        page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{is_light}'")
        page.wait_for_timeout(500)  # the colours fade
        result = page.evaluate("async () => await axe.run('navi-chat')")
        assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []


# --- where the lab extension is not: the widget ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """JupyterLab with our extension disabled, so that the widget is what renders."""
    home = tmp_path_factory.mktemp("bare")
    (home / "config" / "labconfig").mkdir(parents=True)
    disabled = {"disabledExtensions": {"navi-jupyter": True}}
    (home / "config" / "labconfig" / "page_config.json").write_text(json.dumps(disabled))
    host = Host("lab", home)
    yield host
    host.server.stop()


def no_config(page: Page) -> None:
    page.evaluate("() => document.getElementById('jupyter-config-data').remove()")


def refused_sockets(page: Page) -> None:
    page.route_web_socket("**/navi/api/**", lambda socket: socket.close(code=1011))


def mute_sockets(page: Page) -> None:
    page.route_web_socket("**/navi/api/**", lambda socket: None)


@pytest.mark.parametrize(
    ("obstacle", "way"),
    [
        (None, "Connected"),
        *((each, "Connected through the kernel") for each in (no_config, refused_sockets, mute_sockets)),
    ],
)
def test_the_widget_finds_a_way(
    bare: Host, context: BrowserContext, obstacle: Callable[[Page], None] | None, way: str
) -> None:
    name = obstacle.__name__ if obstacle else "straight"
    bare.write(name, "import navi_jupyter as navi\nnavi.chat()")
    page = bare.open(context, name)
    if obstacle:
        obstacle(page)
    run_cell(page, 0)
    chat = chat_of(page)
    assert chat.locator("[data-navi=status]").get_attribute("title") == way
    assert page.locator(".navi-output").count() == 0
    say(chat, "remind me in 2 seconds to stretch")
    chat.locator("[data-navi=message][data-role=user][data-origin=recall]").wait_for(timeout=20_000)
    chat.locator("[data-navi=recalls-toggle]").click()
    chat.locator("[data-navi=recall]").wait_for(state="attached")
