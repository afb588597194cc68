"""A cell that waits for Navi, as people see it: its questions with buttons, its code, and what ends the waiting.

The model is scripted, behind a real provider protocol; servers, kernels and pages are real.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import AXE, PANEL, Host, chat_of, kernel_is, run_cell, shot
from tests.browser.test_agent import EVERYTHING, PATIENCE, environment
from tests.kernel.test_control import provider_of
from tests.support.needs import needed
from tests.support.providers import Call, Reply, ScriptedProvider

PREPARE = "%load_ext navi_jupyter\nimport navi_jupyter as navi"
DOORS = {
    "line": "%navi do it",
    "cell": "%%navi\ndo it",
    "function": "reply = navi.ask('do it')",
    "awaited": "reply = await navi.ask_async('do it')",
}

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as provider:
        yield provider


@pytest.fixture
def play(provider: ScriptedProvider) -> Callable[..., None]:
    """``play(Reply(…), …)``: what the model answers from now on, request by request."""

    def begin(*script: Reply) -> None:
        provider.requests.clear()
        provider._turn = 0
        provider.script = list(script)

    return begin


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(
    request: pytest.FixtureRequest, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    home = tmp_path_factory.mktemp(request.param)
    config = home / "config" / "navi" / "mcp.json"
    config.parent.mkdir(parents=True)
    servers = {"everything": {"command": sys.executable, "args": [str(EVERYTHING)]}}
    config.write_text(json.dumps({"mcpServers": servers}))
    host = Host(request.param, home, env=environment(provider))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1100, "height": 800})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


def opened(host: Host, context: BrowserContext, name: str, *cells: str) -> Page:
    """A page with a notebook; its first cell has loaded Navi."""
    host.write(name, PREPARE, *cells)
    page = host.open(context, name)
    run_cell(page, 0)
    done(page, 0)
    return page


def done(page: Page, index: int) -> None:
    """The cell ran and is over."""
    cell = f"{PANEL}.content.widgets[{index}].model"
    page.wait_for_function(f"() => {cell}.executionCount !== null", timeout=PATIENCE)
    kernel_is(page, "idle")


def output(page: Page, index: int) -> Locator:
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    return panel.locator(".jp-Cell").nth(index).locator(".jp-Cell-outputArea")


def card(page: Page, index: int, status: str = "open") -> Locator:
    return output(page, index).locator(f"navi-question [data-navi=ask][data-status={status}]")


def writes(name: str) -> Call:
    return Call("write_file", {"path": name, "content": "a,b\n1,2"}, id=f"c-{name}")


@pytest.mark.parametrize("door", DOORS)
def test_a_question_is_answered_by_a_button_below_the_cell_that_waits(
    host: Host, context: BrowserContext, play: Callable[..., None], door: str
) -> None:
    play(Reply("I write the table. ", calls=(writes(f"{door}.csv"),)), Reply("It is written."))
    page = opened(host, context, door, DOORS[door])
    run_cell(page, 1)
    question = card(page, 1)
    question.wait_for()
    expect(question).to_contain_text(f"{door}.csv")
    buttons = question.locator(".navi-ask-actions button")
    assert [text.strip() for text in buttons.all_inner_texts()] == ["Approve", "Always", "Deny", "Edit"]
    shot(page, f"{host.app}-{door}-asks")
    if host.app == "lab":  # Notebook has no tabs
        expect(page.locator(".lm-TabBar-tab.navi-asks")).to_have_count(1)
    assert page.locator(".jp-Stdin").count() == 0
    question.locator("[data-navi=ask-approve]").click()
    expect(output(page, 1)).to_contain_text("It is written.")
    done(page, 1)
    expect(output(page, 1)).to_contain_text(re.compile("Allowed (by|in) "))
    assert output(page, 1).locator("navi-question").count() == 0
    expect(page.locator(".navi-asks")).to_have_count(0)
    assert (host.server.root / f"{door}.csv").exists()
    shot(page, f"{host.app}-{door}-answered")


def test_always_denial_and_a_form_below_the_cell(
    host: Host, context: BrowserContext, play: Callable[..., None], provider: ScriptedProvider
) -> None:
    page = opened(host, context, "kinds", *["%navi do it"] * 3)
    play(Reply(calls=(writes("no.csv"),)), Reply("Then not."))
    run_cell(page, 1)
    card(page, 1).locator("[data-navi=ask-reason]").fill("not here")
    card(page, 1).locator("[data-navi=ask-deny]").click()
    expect(output(page, 1)).to_contain_text("Then not.")
    assert "not here" in str(provider.requests[-1].body)
    assert not (host.server.root / "no.csv").exists()

    play(Reply(calls=(writes("one.csv"), writes("two.csv"))), Reply("Both are there."))
    run_cell(page, 2)
    expect(card(page, 2)).to_have_count(2)
    shot(page, f"{host.app}-two-questions")
    card(page, 2).first.locator("[data-navi=ask-always]").click()
    expect(output(page, 2)).to_contain_text("Both are there.")

    play(Reply(calls=(Call("everything__delete", {"path": "old.csv"}),)), Reply("Gone."))
    run_cell(page, 3)
    card(page, 3).locator("[data-navi=ask-approve]").click()
    form = output(page, 3).locator("navi-question [data-kind=question]")
    expect(form).to_contain_text("Delete old.csv?")
    form.locator("[data-field=sure]").check()
    shot(page, f"{host.app}-form")
    form.locator("[data-navi=ask-answer]").click()
    expect(output(page, 3)).to_contain_text("Gone.")
    assert "deleted old.csv" in str(provider.requests[-1].body)


def test_after_an_interrupt_the_buttons_stay_and_the_next_cell_goes_on_with_the_run(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("later.csv"),)), Reply("And so it ends."))
    page = opened(host, context, "interrupt", "%navi do it", "%navi approve")
    run_cell(page, 1)
    card(page, 1).wait_for()
    page.evaluate("() => { jupyterapp.commands.execute('notebook:interrupt-kernel'); return null; }")
    done(page, 1)
    expect(output(page, 1)).to_contain_text("%navi approve")
    expect(card(page, 1)).to_have_count(1)
    run_cell(page, 2)
    expect(output(page, 2)).to_contain_text("And so it ends.")
    expect(output(page, 1)).to_contain_text(re.compile("Allowed (by|in) "))
    expect(output(page, 1)).to_contain_text("it goes on in another cell")
    expect(card(page, 1)).to_have_count(0)
    shot(page, f"{host.app}-approved-below")


def test_where_a_page_cannot_report_its_buttons_no_box_for_input_stays_beside_them(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply(calls=(writes("box.csv"),)), Reply("Done."))
    page = opened(host, context, "box", "%navi do it")
    page.route("**/interrupts/*/drawn", lambda route: route.abort())
    run_cell(page, 1)
    card(page, 1).wait_for()
    page.locator(".jp-Stdin").wait_for()
    page.locator(".jp-Stdin").wait_for(state="detached")
    card(page, 1).locator("[data-navi=ask-approve]").click()
    expect(output(page, 1)).to_contain_text("Done.")
    done(page, 1)


def runs(code: str, number: int = 1) -> Call:
    return Call("run_code", {"code": code}, id=f"k-{number}")


PLOT = "import matplotlib.pyplot as plt\nprint('drawing', n)\nplt.plot(range(n))\nplt.show()\nn + 1"


@pytest.mark.parametrize("door", DOORS)
def test_the_agent_sees_the_variables_and_runs_code_in_the_cell_that_waits(
    host: Host, context: BrowserContext, play: Callable[..., None], provider: ScriptedProvider, door: str
) -> None:
    needed(find_spec("matplotlib") is not None, "matplotlib")
    play(
        Reply("I look. ", calls=(Call("list_variables", {}, id="k-0"),)),
        Reply("Now the plot. ", calls=(runs(PLOT),)),
        Reply("And a mistake. ", calls=(runs("1 / 0", 2),)),
        Reply("All seen."),
    )
    page = opened(host, context, f"code-{door}", "n = 41", DOORS[door], "seen = n")
    run_cell(page, 1)
    done(page, 1)
    run_cell(page, 2)
    card(page, 2).locator("[data-navi=ask-always]").click()
    expect(output(page, 2)).to_contain_text("All seen.")
    done(page, 2)
    text = output(page, 2).inner_text()
    words = ["I look.", "Now the plot.", "drawing 41", "42", "And a mistake.", "ZeroDivisionError", "All seen."]
    places = [text.index(word) for word in words]
    assert places == sorted(places), text
    assert output(page, 2).locator("img").count() == 1
    answered = [str(request.body["messages"]) for request in provider.requests]
    assert "41" in answered[1]
    assert "drawing 41" in answered[2]
    assert "ZeroDivisionError" in answered[3]
    shot(page, f"{host.app}-code-{door}")


CHAT = "navi.chat()"
# The word that it prints is not in it: the question shows the code.
SLOW = "import time\nstep = 0\nprint('be' + 'gun', flush=True)\nfor step in range(600):\n    time.sleep(0.1)"


def allowed(page: Page, index: int) -> None:
    card(page, index).locator("[data-navi=ask-approve]").click()
    expect(output(page, index)).to_contain_text("begun")


def test_a_stop_in_the_chat_ends_the_code_and_the_cell_that_waits(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply("I begin. ", calls=(runs(SLOW),)), Reply("unwanted"))
    page = opened(host, context, "stop", CHAT, "%navi do it", "print('step', step)")
    run_cell(page, 1)
    chat = chat_of(page)
    run_cell(page, 2)
    allowed(page, 2)
    chat.locator("[data-navi=stop]").click()
    done(page, 2)
    expect(output(page, 2)).to_contain_text("stopped")
    assert "I begin." in output(page, 2).inner_text()
    run_cell(page, 3)
    done(page, 3)
    expect(output(page, 3)).to_contain_text("step")
    shot(page, f"{host.app}-stopped")


@pytest.mark.parametrize("door", ["line", "awaited"])
def test_the_interrupt_button_ends_the_code_the_run_and_the_cell(
    host: Host, context: BrowserContext, play: Callable[..., None], door: str
) -> None:
    play(Reply("I begin. ", calls=(runs(SLOW),)), Reply("unwanted"))
    page = opened(host, context, f"ctrl-c-{door}", DOORS[door], "print('step', step)")
    run_cell(page, 1)
    allowed(page, 1)
    page.evaluate("() => { jupyterapp.commands.execute('notebook:interrupt-kernel'); return null; }")
    done(page, 1)
    run_cell(page, 2)
    done(page, 2)
    expect(output(page, 2)).to_contain_text("step")
    session = host.server.get("navi/api/sessions")["sessions"][0]["id"]
    host.server.wait_for(lambda: host.server.get(f"navi/api/sessions/{session}")["run"] is None)
    (run, *_) = host.server.get(f"navi/api/sessions/{session}/runs")["runs"]
    assert run["status"] == "stopped"
    assert "unwanted" not in output(page, 1).inner_text()


def test_a_restart_of_the_kernel_in_which_a_cell_waits_ends_its_code(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply("I begin. ", calls=(runs(SLOW),)), Reply("It was restarted."))
    page = opened(host, context, "restart", "%navi do it", PREPARE)
    run_cell(page, 1)
    allowed(page, 1)
    page.evaluate(f"async () => {{ await {PANEL}.sessionContext.restartKernel(); }}")
    session = host.server.get("navi/api/sessions")["sessions"][0]["id"]
    host.server.wait_for(lambda: host.server.get(f"navi/api/sessions/{session}")["run"] is None)
    # Jupyter interrupts a kernel before it ends it: for the run that is Ctrl-C in its code.
    (run, *_) = host.server.get(f"navi/api/sessions/{session}/runs")["runs"]
    assert run["status"] in ("stopped", "completed")
    kernel_is(page, "idle")
    run_cell(page, 2)
    done(page, 2)


def test_a_question_below_a_cell_is_accessible_in_both_themes(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    play(Reply(calls=(writes("axe.csv"),)), Reply("Done."))
    page = opened(host, context, "themes", "%navi do it")
    run_cell(page, 1)
    card(page, 1).wait_for()
    page.add_script_tag(path=str(AXE))
    for theme, is_light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        page.evaluate("async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme)
        page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{is_light}'")
        page.wait_for_timeout(500)  # the colours fade
        shot(page, f"{host.app}-question-{'light' if is_light == 'true' else 'dark'}")
        result = page.evaluate("async () => await axe.run('navi-question')")
        assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []
    card(page, 1).locator("[data-navi=ask-approve]").click()
    expect(output(page, 1)).to_contain_text("Done.")
