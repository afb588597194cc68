"""The agent at work as people see it: they ask, watch, say yes or no, change what it wants to do, stop it.

The model is scripted, behind a real provider protocol; servers, kernels, notebooks and the MCP server are real.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, WebSocketRoute, expect

from tests.browser.hosts import AXE, PANEL, Host, answers, chat_of, run_cell, say, shot
from tests.e2e import analysis
from tests.kernel.test_control import provider_of
from tests.support.needs import needed
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

MODEL = "openai-chat:gpt-6.1-sol"
EVERYTHING = Path(__file__).parents[1] / "agent" / "mcp" / "everything.py"
PATIENCE = 40_000
"""Milliseconds that anything may take on a loaded machine."""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mP8z8BQz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
"""A picture of 10 by 10 red pixels."""
CHAT = 'import navi_jupyter as navi\nnavi.chat(profile="analyst")'

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


def environment(provider: ScriptedProvider) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}


@pytest.fixture(scope="module")
def host(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """JupyterLab with real-time collaboration, and an MCP server."""
    needed(find_spec("jupyter_server_ydoc"), "jupyter-collaboration")
    home = tmp_path_factory.mktemp("shared")
    config = home / "config" / "navi" / "mcp.json"
    config.parent.mkdir(parents=True)
    servers = {"everything": {"command": sys.executable, "args": [str(EVERYTHING)]}}
    config.write_text(json.dumps({"mcpServers": servers}))
    host = Host("lab", home, env=environment(provider), collaboration=True)
    yield host
    host.server.stop()


@pytest.fixture(scope="module")
def alone(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """JupyterLab without real-time collaboration."""
    host = Host("lab", tmp_path_factory.mktemp("alone"), env=environment(provider))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


# --- what a person does ----------------------------------------------------------------------------------------------


def part(chat: Locator, name: str, more: str = "") -> Locator:
    return chat.locator(f"[data-navi={name}]{more}")


def question(chat: Locator, tool: str = "") -> Locator:
    """The card of the open question, once it is there and all is drawn."""
    card = part(chat, "ask", "[data-status=open]")
    if tool:
        part(chat, "tool", f"[data-tool-name={tool}]").last.wait_for(state="attached")
    card.first.wait_for()
    return card.first


def press(card: Locator, name: str) -> None:
    part(card, name).click()


def settled(chat: Locator, count: int) -> Locator:
    """So many questions are settled; the last of them."""
    cards = part(chat, "ask", ":is([data-status=resolved],[data-status=cancelled],[data-status=expired])")
    expect(cards).to_have_count(count, timeout=PATIENCE)
    return cards.last


def idle(chat: Locator) -> None:
    """No run is active."""
    part(chat, "stop").wait_for(state="detached", timeout=PATIENCE)


def last_answer(chat: Locator) -> str:
    idle(chat)
    return answers(chat).last.locator(".navi-markdown").inner_text()


def write_notebook(host: Host, name: str) -> None:
    """The notebook of the analysis with a chat as its first cell, and the data beside it."""
    analysis.write_files(host.server.root)
    notebook = nbformat.read(host.server.root / "sensors.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(CHAT, id="chat"))
    nbformat.write(notebook, host.server.root / f"{name}.ipynb")


def sources(page: Page) -> dict[str, str]:
    """The cells of the notebook as the page has them."""
    cells = f"{PANEL}.content.widgets.map(({{model}}) => [model.id, model.sharedModel.getSource()])"
    found: dict[str, str] = page.evaluate(f"() => Object.fromEntries({cells})")
    return found


def output_of(page: Page, cell: str) -> Locator:
    """What is below a cell on the page."""
    ids: list[str] = page.evaluate(f"() => {PANEL}.content.widgets.map(({{model}}) => model.id)")
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    return panel.locator(".jp-Cell").nth(ids.index(cell)).locator(".jp-Cell-outputArea")


def badged(page: Page) -> Locator:
    return page.locator(".lm-TabBar-tab.navi-asks")


def test_an_analysis_in_a_shared_notebook_under_a_persons_control(
    host: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    *steps, end = analysis.script()
    play(*steps, Reply(calls=(Call("delete_cell", {"cell": "title"}, id="c11"),)), end)
    write_notebook(host, "shared")
    page = host.open(context, "shared")
    run_cell(page, 0)
    chat = chat_of(page)
    say(chat, "what is odd in sensors.csv?")

    card = question(chat, "run_cell")
    expect(badged(page)).to_have_count(1)
    shot(page, "lab-1-asks")
    assert "load" in card.inner_text()
    press(card, "ask-approve")
    settled(chat, 1)

    card = question(chat, "run_code")
    expect(output_of(page, "load")).to_contain_text("40")
    assert "plt.plot(df.temperature)" in card.inner_text()
    part(card, "ask-always").check()
    shot(page, "lab-2-always")
    press(card, "ask-approve")

    card = question(chat, "edit_cell")  # the second piece of code was not asked about
    assert part(chat, "tool", "[data-tool-name=run_code][data-status=done]").count() == 2
    shot(page, "lab-3-plot")
    plot = part(chat, "outputs").locator(".navi-output-image img").first
    plot.scroll_into_view_if_needed()
    expect(plot).to_have_js_property("complete", True)
    assert plot.evaluate("image => image.naturalWidth") > 100
    shot(page, "lab-4-plot")
    press(card, "ask-edit")
    field = card.locator("[data-field=source]")
    field.fill(analysis.FIXED.replace("< 60", "< 50"))
    shot(page, "lab-5-edits")
    press(card, "ask-approve")
    expect(settled(chat, 3)).to_contain_text("with changes")

    press(question(chat, "run_cell"), "ask-approve")
    card = question(chat, "delete_cell")
    assert sources(page)["mean"] == analysis.FIXED.replace("< 60", "< 50")
    expect(output_of(page, "mean")).to_contain_text("22.")
    part(card, "ask-reason").fill("the title stays")
    shot(page, "lab-6-denies")
    press(card, "ask-deny")
    expect(settled(chat, 5)).to_contain_text("the title stays")
    assert f"Row {analysis.ODD_ROW} is the odd one" in last_answer(chat)
    expect(badged(page)).to_have_count(0)
    shot(page, "lab-7-end")

    body = provider.requests[-1].body
    assert "the title stays" in analysis.told(body, "c11")
    assert "< 50" in analysis.told(body, "c9"), "the model is told what was approved"
    assert "title" in sources(page)
    # The server saves what is shared by itself.
    host.server.wait_for(lambda: "22." in (host.server.root / "shared.ipynb").read_text(), within=PATIENCE / 1000)


# --- on the server's own page ----------------------------------------------------------------------------------------


@pytest.fixture
def visit(host: Host, context: BrowserContext) -> Callable[..., Locator]:
    """``visit(session_id)``: its chat on a page of its own."""

    def go(session_id: str) -> Locator:
        page = context.new_page()
        page.goto(f"{host.server.url}navi?token={host.server.token}#{session_id}")
        return chat_of(page)

    return go


def begin(host: Host, **fields: Any) -> str:
    """A new session's id."""
    return str(host.server.request("POST", "navi/api/sessions", fields)["id"])


def code(text: str, *, id: str = "call_1") -> Reply:  # noqa: A002
    """The model wants to run it."""
    return Reply(calls=(Call("run_code", {"code": text}, id=id),))


def test_a_question_outlives_a_reload_and_is_answered_in_another_tab(
    host: Host, visit: Callable[..., Locator], provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(code("print(6 * 7)"), Reply("It is 42."))
    session = begin(host, title="Two tabs", notebook_path="tabs.ipynb")
    first = visit(session)
    say(first, "compute it")
    asked = question(first, "run_code").get_attribute("data-interrupt-id")
    first.page.reload()
    chat_of(first.page)
    card = question(first, "run_code")
    assert card.get_attribute("data-interrupt-id") == asked
    assert "print(6 * 7)" in card.inner_text()
    second = visit(session)
    press(question(second, "run_code"), "ask-approve")
    for chat in (first, second):
        settled(chat, 1)
        assert last_answer(chat) == "It is 42."
        expect(part(chat, "outputs")).to_have_text("42")
    assert "42" in analysis.told(provider.requests[-1].body, "call_1")
    shot(first.page, "page-1-two-tabs")
    first.page.reload()
    chat_of(first.page)
    expect(part(first, "outputs")).to_have_text("42")


def test_a_server_killed_while_it_waits_asks_again_and_goes_on(
    host: Host, visit: Callable[..., Locator], play: Callable[..., None]
) -> None:
    play(code("print('alive')"), Reply("It lives."))
    chat = visit(begin(host, title="Killed", notebook_path="killed.ipynb"))
    say(chat, "are you there?")
    asked = question(chat, "run_code").get_attribute("data-interrupt-id")
    host.server.kill9()
    part(chat, "status", "[data-state=reconnecting]").wait_for(state="attached")
    shot(chat.page, "page-2-killed")
    host.start()
    part(chat, "status", "[data-state=open]").wait_for(state="attached", timeout=60_000)
    card = question(chat)
    assert card.get_attribute("data-interrupt-id") == asked
    press(card, "ask-approve")
    settled(chat, 1)
    assert last_answer(chat) == "It lives."
    expect(part(chat, "outputs")).to_have_text("alive")


def test_stop_reaches_the_kernel_in_two_seconds_and_says_so(
    host: Host, visit: Callable[..., Locator], play: Callable[..., None]
) -> None:
    play(
        code("print('begun', flush=True)\nwhile True: pass"),
        Reply("It goes on."),
        code("print('well')"),
        Reply("Good."),
    )
    chat = visit(begin(host, title="Stopped", notebook_path="stop.ipynb"))
    say(chat, "loop")
    card = question(chat, "run_code")
    part(card, "ask-always").check()
    press(card, "ask-approve")
    expect(part(chat, "outputs")).to_have_text("begun", timeout=PATIENCE)
    shot(chat.page, "page-3-loops")
    pressed = time.monotonic()
    part(chat, "stop").click()
    end = part(chat, "run-end", "[data-code=cancelled]")
    end.wait_for()
    assert time.monotonic() - pressed < 2
    expect(part(end, "reached")).to_contain_text("interrupted")
    shot(chat.page, "page-4-stopped")


def test_a_steered_prompt_is_read_at_the_next_step_and_a_queued_one_can_be_changed(
    host: Host, visit: Callable[..., Locator], provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(code("print('step')"), Reply("As you say."), Reply("Second."))
    chat = visit(begin(host, title="Steered", notebook_path="steer.ipynb"))
    gate = host.server.root / "gate"
    provider.script[0].calls[0].args["code"] = (
        f"import pathlib, time\nprint('begun', flush=True)\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)"
    )
    say(chat, "work")
    press(question(chat, "run_code"), "ask-approve")
    expect(part(chat, "outputs")).to_have_text("begun", timeout=PATIENCE)

    say(chat, "and thn this")
    waiting = part(chat, "message", "[data-status=queued]")
    waiting.wait_for()
    part(waiting, "queue-edit").click()
    part(waiting, "queue-input").fill("and then this")
    part(waiting, "queue-input").press("Enter")
    expect(waiting.locator(".navi-text")).to_have_text("and then this")

    part(chat, "mode").click()
    shot(chat.page, "page-5-modes")
    part(chat, "mode-item", "[data-mode=steer]").click()
    say(chat, "use metres")
    expect(waiting).to_have_count(2)
    shot(chat.page, "page-6-queue")
    gate.touch()
    said = answers(chat).locator(".navi-markdown")
    expect(said).to_have_text(["As you say.", "Second."], timeout=PATIENCE)
    users = part(chat, "message", "[data-role=user]").locator(".navi-text")
    assert users.all_inner_texts() == ["work", "use metres", "and then this"]
    steered, queued = (json.dumps(request.body) for request in provider.requests[1:])
    assert "use metres" in steered
    assert "then this" not in steered
    assert "and then this" in queued
    shot(chat.page, "page-7-steered")


def test_a_pasted_picture_reaches_the_model(
    host: Host, visit: Callable[..., Locator], provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply("It is red."))
    chat = visit(begin(host, title="Pictures"))
    part(chat, "input").evaluate(
        """(input, data) => {
            const bytes = Uint8Array.from(atob(data), char => char.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "image.png", {type: "image/png"}));
            input.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}));
        }""",
        DOT,
    )
    part(chat, "attachment", "[data-status=ready]").wait_for()
    part(chat, "file-input").set_input_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"metres"})
    expect(part(chat, "attachment", "[data-status=ready]")).to_have_count(2)
    shot(chat.page, "page-8-tray")
    say(chat, "which colour?")
    assert last_answer(chat) == "It is red."
    content = provider.requests[0].body["messages"][-1]["content"]
    (picture,) = [one["image_url"]["url"] for one in content if one["type"] == "image_url"]
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")) == base64.b64decode(DOT)
    assert "metres" in json.dumps(content)
    shown = part(chat, "attached").locator("img")
    expect(shown).to_have_js_property("naturalWidth", 10)
    shot(chat.page, "page-9-attached")
    chat.page.reload()
    chat_of(chat.page)
    expect(part(chat, "attached").locator("img")).to_have_js_property("naturalWidth", 10)


def test_workers_are_shown_inside_of_the_call_that_hired_them(
    host: Host, visit: Callable[..., Locator], play: Callable[..., None]
) -> None:
    write_notebook(host, "workers")
    hire = tuple(Call("delegate", {"task": f"Look at {what}."}, id=what) for what in ("sensors.csv", "the notebook"))
    play(
        Reply("Two at once.", calls=hire),
        Reply(when="Look at sensors.csv.", calls=(Call("read_file", {"path": "sensors.csv", "lines": 3}, id="look"),)),
        Reply("40 rows.", when="id,temperature"),
        Reply(when="Look at the notebook.", calls=(Call("run_code", {"code": "print('inside')"}, id="inside"),)),
        Reply("It has a typo.", when="done)\\ninside"),
        Reply("Both are done."),
    )
    chat = visit(begin(host, title="Workers", notebook_path="workers.ipynb"))
    say(chat, "look at both")
    card = question(chat)
    workers = part(chat, "worker")
    expect(part(workers, "ask")).to_have_count(1)
    expect(card).to_contain_text("asked by")
    shot(chat.page, "page-10-worker-asks")
    press(card, "ask-approve")
    expect(part(chat, "worker", "[data-status=done]")).to_have_count(2, timeout=PATIENCE)
    assert last_answer(chat) == "Both are done."
    shot(chat.page, "page-11-workers")
    for worker in workers.all():
        worker.locator("summary").first.click()
    expect(part(workers, "tool", "[data-tool-name=read_file]")).to_have_count(1)
    expect(part(workers, "message")).to_have_count(2)
    shot(chat.page, "page-12-workers-open")


def test_a_question_of_an_mcp_server_is_a_form(
    host: Host, visit: Callable[..., Locator], provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply(calls=(Call("everything__delete", {"path": "old.csv"}, id="gone"),)), Reply("It is gone."))
    chat = visit(begin(host, title="MCP"))
    say(chat, "tidy up")
    press(question(chat, "everything__delete"), "ask-approve")
    card = part(chat, "ask", "[data-kind=question][data-status=open]")
    expect(card).to_contain_text("Delete old.csv?", timeout=PATIENCE)
    shot(chat.page, "page-13-form")
    card.locator("[data-field=sure]").check()
    press(card, "ask-answer")
    assert last_answer(chat) == "It is gone."
    assert "deleted old.csv" in analysis.told(provider.requests[-1].body, "gone")
    shot(chat.page, "page-14-formed")


def test_what_asks_is_accessible_in_both_themes(host: Host, browser: Browser, play: Callable[..., None]) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    play(
        Reply("I found **one** thing.", calls=(Call("edit_cell", {"cell": "mean", "source": "1", "expected": "0"}),)),
        Reply("Done."),
    )
    session = begin(host, title="Themes", notebook_path="sensors.ipynb")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 1000, "height": 800}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"{host.server.url}navi?token={host.server.token}#{session}")
        chat = chat_of(page)
        if scheme == "light":
            say(chat, "change it")
        question(chat, "edit_cell")
        part(chat, "settings-toggle").click()
        expect(part(chat, "mcp-server")).to_have_count(1)
        shot(page, f"page-15-{scheme}")
        page.add_script_tag(path=str(AXE))
        result = page.evaluate("async () => await axe.run('navi-chat')")
        assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []
        context.close()


# --- a notebook that is open without collaboration -------------------------------------------------------------------


def type_into(page: Page, cell: str, source: str) -> None:
    """What a person does to a cell; not saved."""
    find = f"{PANEL}.content.widgets.find(({{model}}) => model.id === cell)"
    page.evaluate(f"([cell, source]) => {{ {find}.model.sharedModel.setSource(source); }}", [cell, source])


def edits(source: str, *, expected: str | None = None) -> Reply:
    """The model wants to change the cell with the mean."""
    args = {"cell": "mean", "source": source} | ({"expected": expected} if expected else {})
    call_id = re.sub(r"\W+", "-", f"edit {source}")[:40]  # one of other signs is given another id
    return Reply(calls=(Call("edit_cell", args, id=call_id),))


def on_disk(host: Host, name: str) -> dict[str, str]:
    notebook = nbformat.read(host.server.root / f"{name}.ipynb", as_version=4)
    return {cell.id: cell.source for cell in notebook.cells}


def test_without_collaboration_an_open_notebook_shows_the_agents_changes_and_keeps_what_is_not_saved(
    alone: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    is_cut_off = False

    def pass_on(to_page: WebSocketRoute) -> None:
        to_server = to_page.connect_to_server()
        to_page.on_message(lambda message: None if is_cut_off else to_server.send(message))
        to_server.on_message(lambda message: None if is_cut_off else to_page.send(message))

    context.route_web_socket("**/notebooks/ws*", pass_on)
    write_notebook(alone, "alone")
    page = alone.open(context, "alone")
    run_cell(page, 0)
    chat = chat_of(page)
    saves = "() => { jupyterapp.commands.execute('docmanager:save'); }"  # not awaited: JupyterLab may ask
    settles = f"() => !{PANEL}.context.model.dirty"
    dialog = page.locator(".jp-Dialog")

    more = Call("insert_cell", {"source": "len(clean)", "after": "mean"}, id="more")
    play(edits(analysis.FIXED), Reply(calls=(Call("run_cell", {"cell": "load"}, id="x"), more)), Reply("Fixed."))
    type_into(page, "title", "# My sensors")
    say(chat, "fix it")
    for tool in ("edit_cell", "run_cell", "insert_cell"):
        press(question(chat, tool), "ask-approve")
    assert last_answer(chat) == "Fixed."
    expect(output_of(page, "load")).to_contain_text("40", timeout=PATIENCE)
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 5")
    shown = sources(page)
    assert list(shown.values())[1:] == ["# My sensors", shown["load"], analysis.FIXED, "len(clean)"]
    shot(page, "alone-1-merged")
    page.evaluate("async () => { await jupyterapp.commands.execute('docmanager:save'); }")
    page.wait_for_function(settles)
    assert dialog.count() == 0
    assert on_disk(alone, "alone") == shown

    # A page that does not answer: the server changes the file, and JupyterLab asks when it is saved.
    is_cut_off = True
    play(edits("agent = 1"), Reply("Again."))
    type_into(page, "mean", "person = 1")
    say(chat, "and now both")
    press(question(chat, "edit_cell"), "ask-approve")
    assert last_answer(chat) == "Again."
    page.evaluate(saves)
    dialog.wait_for()  # JupyterLab asks
    shot(page, "alone-2-both")
    assert sources(page)["mean"] == "person = 1"
    assert on_disk(alone, "alone")["mean"] == "agent = 1"
    dialog.get_by_role("button", name="Overwrite").click()
    page.wait_for_function(settles)
    assert on_disk(alone, "alone")["mean"] == "person = 1"

    play(edits("agent = 2", expected="agent = 1"), Reply("Then not."))
    say(chat, "once more")
    press(question(chat, "edit_cell"), "ask-approve")
    assert last_answer(chat) == "Then not."
    assert "error" in analysis.told(provider.requests[-1].body, "edit-agent-2")
    expect(part(chat, "tool", "[data-tool-name=edit_cell][data-status=failed]")).to_have_count(1)
    assert on_disk(alone, "alone")["mean"] == "person = 1"
    shot(page, "alone-3-conflict")
