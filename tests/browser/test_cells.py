"""The chat and the cells around it, in JupyterLab and Notebook.

Code of an answer goes into a cell, an error is asked about, a prompt has what the page shows, a run's edits are undone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import AXE, PANEL, Host, answers, asked, run_cell, save, say, shot
from tests.kernel.test_control import provider_of
from tests.support.needs import needed
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

PATIENCE = 40_000
"""Milliseconds that anything may take on a loaded machine."""
CHAT = "import navi_jupyter as navi\nnavi.chat()"
FAILS = "def mean(values):\n    return sum(values) / len(values)\n\nmean([])"

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


@pytest.fixture(scope="module", params=["lab", "shared", "notebook"])
def host(
    request: pytest.FixtureRequest, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    """JupyterLab without and with real-time collaboration, and Notebook 7."""
    if request.param == "shared":
        needed(find_spec("jupyter_server_ydoc"), "jupyter-collaboration")
    environment = {
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": KEY,
        "NAVI_DEFAULT_MODEL": "openai-chat:gpt-6.1-sol",
    }
    app = "notebook" if request.param == "notebook" else "lab"
    home = tmp_path_factory.mktemp(request.param)
    host = Host(app, home, env=environment, collaboration=request.param == "shared")
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=5_000)


# --- what a person does and sees -------------------------------------------------------------------------------------


class Hand:
    """Counts what a person presses."""

    def __init__(self) -> None:
        self.presses = 0

    def click(self, place: Locator) -> None:
        place.click()
        self.presses += 1


def cells(page: Page) -> list[tuple[str, str]]:
    """The kind and the source of each cell on the page."""
    script = f"() => {PANEL}.content.widgets.map(({{model}}) => [model.type, model.sharedModel.getSource()])"
    return [(kind, source) for kind, source in page.evaluate(script)]


def sources(page: Page) -> list[str]:
    return [source for _, source in cells(page)]


def cell(page: Page, index: int) -> Locator:
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell").nth(index)


def active(page: Page) -> int:
    index: int = page.evaluate(f"() => {PANEL}.content.activeCellIndex")
    return index


def go(page: Page, index: int) -> None:
    """Clicks into a cell."""
    cell(page, index).locator(".cm-content").click()
    page.wait_for_function(f"index => {PANEL}.content.activeCellIndex === index", arg=index)


def type_at_end(page: Page, index: int, text: str) -> None:
    go(page, index)
    page.keyboard.press("Control+End")
    page.keyboard.type(text)


def undo(page: Page) -> None:
    """The notebook's own undo of what was done to its cells: z in command mode."""
    page.evaluate(f"() => {{ {PANEL}.content.mode = 'command'; {PANEL}.content.activate(); }}")
    page.keyboard.press("z")


def block(chat: Locator, text: str) -> Locator:
    """The frame of a code block of an answer."""
    return chat.locator(".navi-code-frame").filter(has_text=text).last


def within(block: Locator, name: str) -> Locator:
    return block.locator(f"[data-navi={name}]")


def told(provider: ScriptedProvider) -> str:
    """All that the last request has told the model."""
    return json.dumps(provider.requests[-1].body, ensure_ascii=False)


def chat_in(page: Page) -> Locator:
    """The chat in an output of the notebook: a panel beside it may have another one."""
    chat = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) navi-chat")
    chat.locator("[data-navi=status][data-state=open]").wait_for(state="attached")
    return chat


def opened(host: Host, context: BrowserContext, name: str, *more: str) -> tuple[Page, Locator]:
    """A notebook with a chat in its first cell, and two cells of work."""
    host.write(name, CHAT, "x = 1", "y = 2", *more)
    page = host.open(context, name)
    run_cell(page, 0)
    return page, chat_in(page)


# --- code of an answer -----------------------------------------------------------------------------------------------

ANSWER = """Here:

```python
total = 6 * 7
print(total)
```

and a heading:

```markdown
## Totals
```

and

```bash
pip install polars
```

or

```json
{"a": 1}
```
"""


def test_code_of_an_answer_goes_into_a_cell_by_one_click_and_the_notebooks_undo_takes_it_back(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply(ANSWER))
    page, chat = opened(host, context, "insert")
    go(page, 1)
    asked(chat, "how much?", within=PATIENCE)
    code = block(chat, "total = 6")
    shot(page, f"{host.app}-cells-1-answer")

    hand = Hand()
    hand.click(within(code, "insert-below"))
    assert hand.presses == 1
    expect(cell(page, 2)).to_be_visible()
    assert sources(page) == [CHAT, "x = 1", "total = 6 * 7\nprint(total)", "y = 2"]
    assert active(page) == 2
    assert page.evaluate("() => document.activeElement.closest('navi-chat') !== null"), "the focus stays in the chat"
    undo(page)
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 3")
    assert sources(page) == [CHAT, "x = 1", "y = 2"]

    go(page, 1)
    within(code, "run-code").click()
    expect(cell(page, 2).locator(".jp-OutputArea-output")).to_have_text("42")
    assert sources(page)[2] == "total = 6 * 7\nprint(total)"
    shot(page, f"{host.app}-cells-2-ran")

    go(page, 3)
    within(block(chat, "## Totals"), "insert-below").click()
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 5")
    assert cells(page)[4] == ("markdown", "## Totals")
    assert within(block(chat, "## Totals"), "run-code").count() == 0
    assert within(block(chat, '{"a": 1}'), "run-code").count() == 0

    go(page, 1)
    within(block(chat, "polars"), "replace-cell").click()
    page.wait_for_function(f"() => {PANEL}.content.widgets[1].model.sharedModel.getSource() === '%pip install polars'")
    assert len(sources(page)) == 5
    page.evaluate(f"() => {{ {PANEL}.content.mode = 'edit'; }}")
    page.keyboard.press("Control+z")
    page.wait_for_function(f"() => {PANEL}.content.widgets[1].model.sharedModel.getSource() === 'x = 1'")


def test_code_of_an_answer_goes_into_a_cell_by_keyboard_alone(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply("```python\nprint(6 * 7)\n```"))
    page, chat = opened(host, context, "keyboard")
    go(page, 2)
    asked(chat, "how much?", within=PATIENCE)
    button = within(block(chat, "6 * 7"), "run-code")
    button.focus()
    page.keyboard.press("Enter")
    expect(cell(page, 3).locator(".jp-OutputArea-output")).to_have_text("42")
    expect(button).to_be_focused()
    assert sources(page) == [CHAT, "x = 1", "y = 2", "print(6 * 7)"]


# --- what goes along with a prompt -----------------------------------------------------------------------------------


def test_a_prompt_has_the_cells_as_they_are_on_the_page_and_says_so_before_it_is_sent(
    host: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply("Seen."))
    page, chat = opened(host, context, "unsaved")
    type_at_end(page, 1, "\nnot_saved = 'on the page only'")
    page.keyboard.press("Shift+Home")
    chip = chat.locator("[data-navi=context-toggle]")
    expect(chip).to_contain_text("unsaved.ipynb · In [ ] · selection")
    shot(page, f"{host.app}-cells-3-chip")
    asked(chat, "what is new?", within=PATIENCE)
    assert "not_saved = 'on the page only'" in told(provider)

    type_at_end(page, 1, "\nsecret = 12345")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "false")
    shot(page, f"{host.app}-cells-4-off")
    asked(chat, "and without?", within=PATIENCE)
    assert "secret = 12345" not in told(provider)
    expect(chip).to_have_attribute("aria-pressed", "true")
    asked(chat, "and with?", within=PATIENCE)
    assert "secret = 12345" in told(provider)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_is_asked_about_by_one_click_and_its_traceback_reaches_the_model(
    host: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply("The list is empty."))
    page, chat = opened(host, context, "fails", FAILS, "1 / 0")
    run_cell(page, 3)
    bar = cell(page, 3).locator("[data-navi=error-actions]")
    expect(bar.locator("button")).to_have_text(["Explain", "Fix"])
    run_cell(page, 4)
    expect(cell(page, 4).locator("[data-navi=error-actions]")).to_be_visible()
    shot(page, f"{host.app}-cells-5-error")

    hand = Hand()
    hand.click(bar.locator("[data-navi=explain]"))
    expect(answers(chat).last).to_contain_text("The list is empty.", timeout=PATIENCE)
    assert hand.presses == 1
    said = chat.locator("[data-navi=message][data-role=user]").last
    expect(said).to_contain_text("Explain the error of In [2].")
    for text in ("ZeroDivisionError", "return sum(values) / len(values)", "mean([])"):
        assert text in told(provider), text
    shot(page, f"{host.app}-cells-6-explained")

    # The line belongs to the error: it goes with it.
    page.evaluate(f"() => {{ {PANEL}.content.widgets[3].model.sharedModel.setSource('3'); }}")
    run_cell(page, 3)
    expect(bar).to_have_count(0)
    expect(cell(page, 4).locator("[data-navi=error-actions]")).to_have_count(1)


def test_an_error_that_was_there_when_the_notebook_was_opened_is_asked_about_by_keyboard(
    host: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply("Fixed."))
    page, chat = opened(host, context, "opened", FAILS)
    run_cell(page, 3)
    expect(cell(page, 3).locator("[data-navi=error-actions]")).to_be_visible()
    save(page)
    host.go(page, "opened")
    bar = cell(page, 3).locator("[data-navi=error-actions]")
    bar.wait_for()
    chat_in(page)
    bar.locator("[data-navi=fix]").focus()
    page.keyboard.press("Enter")
    expect(answers(chat).last).to_contain_text("Fixed.", timeout=PATIENCE)
    assert "ZeroDivisionError" in told(provider)
    assert "Fix the error of In [2]" in told(provider)


def test_in_a_notebook_without_a_chat_one_click_on_an_error_opens_the_panel_and_its_code_goes_into_the_cell(
    host: Host, context: BrowserContext, provider: ScriptedProvider, play: Callable[..., None]
) -> None:
    play(Reply("Do not divide by nothing:\n\n```python\nmean([1, 2])\n```"))
    host.write("panel", "x = 1", FAILS)
    page = host.open(context, "panel")
    go(page, 1)
    run_cell(page, 1)
    hand = Hand()
    hand.click(cell(page, 1).locator("[data-navi=fix]"))
    chat = page.locator("navi-panel navi-chat")
    expect(answers(chat)).to_have_count(1)
    assert hand.presses == 1
    expect(chat.locator("[data-navi=message][data-role=user]")).to_contain_text("Fix the error of In [1]")
    assert "ZeroDivisionError" in told(provider)
    assert page.evaluate(f"() => {PANEL}.content.activeCellIndex") == 1
    expect(chat.locator("[data-navi=context-toggle]")).to_contain_text("panel.ipynb · In [1] · its error")
    shot(page, f"{host.app}-cells-9-panel")
    hand.click(within(block(chat, "mean([1, 2])"), "replace-cell"))
    page.wait_for_function(f"() => {PANEL}.content.widgets[1].model.sharedModel.getSource() === 'mean([1, 2])'")
    assert hand.presses == 2


def test_what_is_added_to_cells_is_accessible_in_both_themes(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    play(Reply(ANSWER))
    page, chat = opened(host, context, "themes", FAILS)
    run_cell(page, 3)
    cell(page, 3).locator("[data-navi=error-actions]").wait_for()
    go(page, 1)
    asked(chat, "how much?", within=PATIENCE)
    page.add_script_tag(path=str(AXE))
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.evaluate("theme => { jupyterapp.commands.execute('apputils:change-theme', {theme}); return null; }", theme)
        wanted = "true" if theme.endswith("Light") else "false"
        page.wait_for_function("is => document.body.dataset.jpThemeLight === is", arg=wanted)
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        shot(page, f"{host.app}-cells-7-{wanted}")
        found: list[dict[str, Any]] = page.evaluate(
            "async () => (await axe.run({include: ['navi-chat', '.navi-error-actions']})).violations"
        )
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    page.set_viewport_size({"width": 420, "height": 900})
    page.evaluate("() => { jupyterapp.shell.collapseLeft?.(); }")
    code = block(chat, "total = 6")
    code.scroll_into_view_if_needed()
    frame = code.bounding_box()
    assert frame is not None
    for button in code.locator("button").all():
        box = button.bounding_box()
        assert box is not None
        assert frame["x"] <= box["x"] < box["x"] + box["width"] <= frame["x"] + frame["width"]
    shot(page, f"{host.app}-cells-8-narrow")


# --- what a run has changed ------------------------------------------------------------------------------------------


EDITS = ["edit_cell", "insert_cell", "delete_cell", "run_cell"]


def edit(cell_id: str, source: str) -> Call:
    return Call("edit_cell", {"cell": cell_id, "source": source}, id=f"edit {source}")


def approved(chat: Locator, *tools: str) -> None:
    """The user says yes to the questions about calls of these tools, as they come."""
    for tool in tools:
        asking = chat.locator("[data-navi=ask][data-status=open]").first
        asking.wait_for()
        chat.locator(f"[data-navi=tool][data-tool-name={tool}]").last.wait_for(state="attached")
        this = chat.locator(f"[data-interrupt-id={asking.get_attribute('data-interrupt-id')}]")
        this.locator("[data-navi=ask-approve]").click()
        expect(this).to_have_attribute("data-status", "resolved", timeout=PATIENCE)


def ends(chat: Locator, text: str) -> None:
    chat.locator("[data-navi=stop]").wait_for(state="detached", timeout=PATIENCE)
    expect(answers(chat).last).to_contain_text(text, timeout=PATIENCE)


def lines(page: Page) -> Locator:
    """What the notebook shows of the changes of a run."""
    return page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) navi-cell-edit")


def on_disk(host: Host, name: str) -> list[str]:
    text = (host.server.root / f"{name}.ipynb").read_text()  # empty while it is being written
    return [cell.source for cell in nbformat.reads(text, as_version=4).cells] if text else []


def test_what_a_run_changed_is_kept_or_undone_in_the_notebook_also_after_a_reload(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    new = Call("insert_cell", {"source": "z = 3", "after": "c1"}, id="new")
    gone = Call("delete_cell", {"cell": "c2"}, id="gone")
    play(Reply(calls=(edit("c1", "x = 10"),)), Reply(calls=(new,)), Reply(calls=(gone,)), Reply("Done."))
    page, chat = opened(host, context, "edits")
    say(chat, "change it")
    card = chat.locator("[data-navi=ask][data-status=open]").first
    expect(card.locator("[data-navi=ask-cell]")).to_have_text("In [ ]")
    shot(page, f"{host.app}-edits-1-asks")
    approved(chat, "edit_cell", "insert_cell", "delete_cell")
    ends(chat, "Done.")

    expect(lines(page)).to_have_count(3)
    assert sources(page) == [CHAT, "x = 10", "z = 3"]
    changed = page.locator("navi-cell-edit[data-kind=edited]")
    expect(changed).to_contain_text("Navi changed this cell")
    expect(changed.locator(".navi-diff-removed")).to_contain_text("x = 1")
    expect(page.locator("navi-cell-edit[data-kind=deleted] .navi-diff-removed")).to_contain_text("y = 2")
    lines(page).last.scroll_into_view_if_needed()
    shot(page, f"{host.app}-edits-2-changed")
    if AXE.exists():
        page.add_script_tag(path=str(AXE))
        found = page.evaluate("async () => (await axe.run({include: ['navi-cell-edit']})).violations")
        assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []

    page.locator("navi-cell-edit[data-kind=inserted] [data-navi=edit-keep]").click()
    expect(lines(page)).to_have_count(2)
    save(page)
    host.go(page, "edits")
    expect(lines(page)).to_have_count(2, timeout=PATIENCE)

    hand = Hand()
    hand.click(lines(page).first.locator("[data-navi=edit-undo-all]"))
    expect(lines(page)).to_have_count(0)
    assert hand.presses == 1
    assert sources(page) == [CHAT, "x = 1", "z = 3", "y = 2"]
    host.server.wait_for(lambda: on_disk(host, "edits") == [CHAT, "x = 1", "z = 3", "y = 2"], within=PATIENCE / 1000)
    assert page.locator(".jp-Dialog").count() == 0
    shot(page, f"{host.app}-edits-3-undone")


def test_a_change_that_the_user_has_worked_on_is_undone_by_its_own_button_and_ends_with_the_next_run(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    play(Reply(calls=(edit("c1", "x = 10"),)), Reply(calls=(edit("c2", "y = 20"),)), Reply("Done."), Reply("Next."))
    page, chat = opened(host, context, "worked")
    say(chat, "change it")
    approved(chat, "edit_cell", "edit_cell")
    ends(chat, "Done.")
    expect(lines(page)).to_have_count(2)
    type_at_end(page, 1, "0")
    expect(lines(page).first).to_contain_text("changed since")
    expect(lines(page).first.locator(".navi-diff-added")).to_contain_text("x = 100")
    lines(page).first.locator("[data-navi=edit-undo]").focus()
    page.keyboard.press("Enter")
    expect(lines(page)).to_have_count(1)
    assert sources(page) == [CHAT, "x = 1", "y = 20"]
    say(chat, "and now?")
    expect(lines(page)).to_have_count(0)
    ends(chat, "Next.")
    assert sources(page) == [CHAT, "x = 1", "y = 20"]


def test_the_page_has_what_a_run_without_any_chat_changes_and_keeps_its_place_and_what_is_not_saved(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    """As of a recall at night: no chat is open in the page, in no output and in no panel."""
    more = [f"filler_{n} = {n}\n" * 8 for n in range(20)]
    host.write("night", "x = 1", "y = 2", *more)
    page = host.open(context, "night")
    session = host.server.request("POST", "navi/api/sessions", {"notebook_path": "night.ipynb", "allowed_tools": EDITS})

    def run(*script: Reply) -> str:
        play(*script, Reply("Done."))
        sent = {"type": "prompt", "text": "go"}
        run_id: str = host.server.request("POST", f"navi/api/sessions/{session['id']}/commands", sent)["run_id"]
        return run_id

    go(page, 10)
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowRight")
    place = "() => document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-WindowedPanel-outer').scrollTop"
    before = page.evaluate(place)
    assert before > 0

    def has(sources: dict[int, str], **options: Any) -> None:
        page.wait_for_function(
            f"wanted => Object.entries(wanted).every(([n, source]) => {PANEL}.content.widgets[n]"
            "?.model.sharedModel.getSource() === source)",
            arg={str(index): source for index, source in sources.items()},
            **options,
        )

    run(Reply(calls=(edit("c0", "x = 10"), edit("c10", more[8].replace("filler_8 = 8", "filler_8 = 80")))))
    has({0: "x = 10", 10: more[8].replace("filler_8 = 8", "filler_8 = 80")})
    expect(lines(page)).to_have_count(2)
    assert active(page) == 10
    assert page.evaluate(f"() => {PANEL}.content.activeCell.editor.getCursorPosition()") == {"line": 0, "column": 1}
    assert abs(page.evaluate(place) - before) < 250, "the line above a cell takes some place"
    # With real-time collaboration the page is told a moment later that the server has saved.
    page.wait_for_function(f"() => !{PANEL}.context.model.dirty")
    shot(page, f"{host.app}-night-1-changed")

    # What is not saved: the page makes the change in what it shows.
    type_at_end(page, 10, "mine = True")
    run(Reply(calls=(edit("c1", "y = 20"),)))
    has({1: "y = 20"})
    assert sources(page)[10].endswith("mine = True")
    host.server.wait_for(lambda: on_disk(host, "night")[1:2] == ["y = 20"], within=PATIENCE / 1000)
    assert on_disk(host, "night")[10].endswith("mine = True")
    expect(lines(page)).to_have_count(1)

    # A server that was killed: the page is told what it has missed.
    host.server.kill9()
    host.start()
    run(Reply(calls=(edit("c1", "y = 30"),)))
    has({1: "y = 30"}, timeout=60_000)
    assert page.locator(".jp-Dialog").filter(has_text="disk").count() == 0, "JupyterLab says that it had no server"


def test_an_edit_meets_what_is_not_saved_in_the_page_and_loses_nothing_of_it(
    host: Host, context: BrowserContext, play: Callable[..., None]
) -> None:
    end = Call("insert_cell", {"source": "z = 3"}, id="end")
    play(Reply(calls=(edit("c2", "y = 20"),)), Reply(calls=(end,)), Reply("Done."))
    page, chat = opened(host, context, "meets")
    type_at_end(page, 1, "\nnot_saved = True")
    say(chat, "change it")
    approved(chat, "edit_cell", "insert_cell")
    ends(chat, "Done.")
    after = [CHAT, "x = 1\nnot_saved = True", "y = 20", "z = 3"]
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 4")
    assert sources(page) == after
    host.server.wait_for(lambda: on_disk(host, "meets") == after, within=PATIENCE / 1000)
    save(page)
    assert page.locator(".jp-Dialog").count() == 0
