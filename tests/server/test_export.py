"""A session as a file: nothing in it acts where the file is converted or opened, and nothing swallows what follows."""

from __future__ import annotations

import html
from datetime import UTC, datetime
from typing import Any, cast

import nbconvert
import nbformat
import pytest

from navi_jupyter.kernel.display.plans import plan_entries
from navi_jupyter.model.sessions import Origin, Session
from navi_jupyter.server.export import as_markdown, as_notebook
from navi_jupyter.server.wire.sessions import MessageInfo, ToolCallInfo

from ..kernel.test_markdown import HARMFUL, OPEN, dangers, to_html

AT = datetime(2026, 12, 1, tzinfo=UTC)


def session(title: str = "t", model: str = "openai:gpt") -> Session:
    return Session(id="s_1", owner="ada", title=title, profile="default", model=model, created_at=AT, updated_at=AT)


def message(content: str, *, role: str = "assistant", calls: tuple[ToolCallInfo, ...] = ()) -> MessageInfo:
    return MessageInfo.model_validate(
        {
            **dict.fromkeys(("run_id", "tool_call_id", "subagent_run_id", "usage")),
            "id": "m_1",
            "role": role,
            "content": content,
            "at": "2026-12-01T00:00:00Z",
            "reasoning": "",
            "origin": Origin(kind="user"),
            "tool_calls": calls,
            "queued": False,
            "partial": False,
            "attachments": (),
        }
    )


def converted(one: Session, messages: list[MessageInfo]) -> str:
    """The page that ``nbconvert --to html`` makes of the notebook."""
    notebook = nbformat.from_dict(as_notebook(one, messages))  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)  # type: ignore[no-untyped-call]
    exporter = nbconvert.HTMLExporter()  # type: ignore[no-untyped-call]
    page, _ = cast("tuple[str, Any]", exporter.from_notebook_node(notebook))
    return page


@pytest.fixture(scope="module")
def harmless() -> list[str]:
    """What a page of nbconvert has by itself: its own scripts and styles."""
    return dangers(converted(session(), [message("a")]))


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_notebook_of_a_session_converted_to_html_runs_and_loads_nothing(role: str, harmless: list[str]) -> None:
    calls = tuple(ToolCallInfo(id="c", name="run_code", args=text, result=text) for text in HARMFUL)
    messages = [message(text, role=role, calls=calls[number : number + 1]) for number, text in enumerate(HARMFUL)]
    assert dangers(converted(session(), messages)) == harmless


@pytest.mark.parametrize("text", HARMFUL)
def test_no_message_of_it_is_live_alone(text: str) -> None:
    source = as_notebook(session(), [message(text)])["cells"][1]["source"]
    assert dangers(nbconvert.filters.markdown2html(source)) == []


@pytest.mark.parametrize(
    "title", ["<img src=x onerror=alert(1)>", "a\n\n<script>alert(1)</script>", "$<svg/onload=a()>$"]
)
def test_a_title_is_a_line_of_text(title: str, harmless: list[str]) -> None:
    assert dangers(converted(session(title), [])) == harmless
    assert as_markdown(session(title), []).count("\n# ") == 0


@pytest.mark.parametrize("text", OPEN)
def test_what_a_stop_left_open_swallows_nothing_that_follows(text: str) -> None:
    call = ToolCallInfo(id="c", name="run_code", args="{}", result="```\nx")
    exported = as_markdown(session(), [message(text, calls=(call,)), message("next", role="user")])
    page = html.unescape(to_html(exported) or "")
    assert page.count("<h2>") == 2
    assert "<h2>You · Tue 1 Dec 2026 00:00</h2>" in page
    assert "run_code({})" in page


def test_code_and_links_are_exported_as_they_are() -> None:
    text = "See `x < y` and [a](https://example.org):\n\n```html\n<b>x</b>\n```"
    assert text in as_markdown(session(), [message(text)])


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("$148 to $19", "<span>&#36;</span>148 to <span>&#36;</span>19"),
        (r"\$148 to \$19", "<span>&#36;</span>148 to <span>&#36;</span>19"),
        ("`$x$`, $x$ and $5", "`$x$`, $x$ and <span>&#36;</span>5"),
        (r"\(e\) and \[x = 1\]", "$e$ and $$x = 1$$"),
        ("$$\nx\n= 1\n$$", "$$x\n= 1$$"),
        ("```\n$PATH:$HOME\n```\n$PATH:$HOME", "```\n$PATH:$HOME\n```\n<span>&#36;</span>PATH:<span>&#36;</span>HOME"),
        (r"a \\ b and \` $5", r"a \\ b and \` <span>&#36;</span>5"),
    ],
)
def test_dollars_of_an_exported_notebook_are_no_formulas_to_its_front_end(text: str, source: str) -> None:
    assert as_notebook(session(), [message(text)])["cells"][1]["source"].split("\n\n", 1)[1] == source
    assert "$148" in as_markdown(session("costs $148"), [message("$148 to $19")])


def test_the_plan_of_a_run_stands_before_its_first_answer_as_a_list_with_states() -> None:
    steps = [{"content": "Read <b>", "status": "completed"}, {"content": "Fix", "status": "x"}]
    plan = plan_entries({"entries": steps})
    spoken = [message("do it", role="user"), message("First."), message("Second.")]
    spoken = [one.model_copy(update={"id": f"m_{number}", "run_id": "r_1"}) for number, one in enumerate(spoken)]
    exported = as_markdown(session(), spoken, plans={"r_1": plan})
    assert exported.count("Plan:") == 1
    places = [exported.index(text) for text in ("do it", "- [x] Read", "- [ ] Fix", "First.", "Second.")]
    assert places == sorted(places)
    assert "<b>" not in exported
