"""Questions in a cell, a terminal and ``%navi approvals``: the whole of what would happen, marked, inert."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import Any

import pytest

from navi_jupyter.kernel.display import listing
from navi_jupyter.kernel.display.listing import table_plain
from navi_jupyter.kernel.display.question_text import QuestionListing, details_html, details_plain, hidden_words
from navi_jupyter.kernel.display.render import run_bundle, transcript_plain
from navi_jupyter.kernel.display.run_view import QuestionPart, RunView, TextPart, question_of
from navi_jupyter.kernel.grammar.answers import interview
from navi_jupyter.kernel.reply import Reply
from navi_jupyter.log_setup import get_logger
from navi_jupyter.text import printable


@pytest.fixture(autouse=True)
def _numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is shown gives numbers to its rows, which no other test is to find."""
    monkeypatch.setattr(listing, "_shown", {})


CODE = "x = 1" + " " * 400 + "; evil()"


def asked(code: str = CODE, **more: Any) -> dict[str, Any]:
    details = [
        {"label": "Cell", "text": "code cell 2 of 7, In [3], id abc", "kind": "text", "foreign": False, "omitted": 0},
        {"label": "Source of the cell", "text": code, "kind": "code", "foreign": False, "omitted": 0},
    ]
    question = {"id": "i_1", "kind": "approval", "message": "Navi wants to use run_cell.", "tool": "run_cell"}
    return {**question, "args": {"cell": "1"}, "source": "builtin", "details": details, "status": "open", **more}


def shown_by(question: dict[str, Any]) -> list[str]:
    """As HTML, Markdown and plain text in a cell, and as a list in HTML and plain text."""
    view = RunView("u_1", session_id="s_1", parts=[question_of(question)])
    shown = QuestionListing([question])

    class Printer:
        text_ = ""

        def text(self, text: str) -> None:
            self.text_ += text

    printer = Printer()
    shown._repr_pretty_(printer, False)
    return [*map(str, run_bundle(view).values()), shown._repr_html_(), printer.text_]


@pytest.mark.parametrize("place", range(5), ids=["cell HTML", "cell Markdown", "cell text", "list HTML", "list text"])
def test_every_place_shows_the_source_and_marks_what_cannot_be_seen(place: int) -> None:
    text = shown_by(asked())[place]
    assert "evil()" in text
    assert "··· 400 spaces ···" in text
    assert "In [3]" in text
    for code, mark in (
        ("a\u202eb", "⟨U+202E⟩"),
        ("p\u0430y", "⟨\u0430 U+0430⟩"),
        ("a" + "\n" * 99 + "b", "98 blank lines"),
    ):
        assert mark in shown_by(asked(code))[place]
        assert code not in shown_by(asked(code))[place]


def test_what_is_not_described_is_shown_by_its_arguments() -> None:
    for text in shown_by(asked(details=[], args={"path": "a.txt", "deep": {"force": True}})):
        assert "a.txt" in text
        assert "force" in text


def test_html_in_a_question_is_text() -> None:
    code = "<img src=x onerror=alert(1)> $\\alpha$"
    html = run_bundle(RunView("u_1", session_id="s_1", parts=[question_of(asked(code, message=code))]))["text/html"]
    assert "<img" not in html
    assert not re.search(r"\$[^<]*\$", html)
    assert "<img" not in details_html(asked(code)["details"])


def test_a_long_call_says_how_much_is_not_shown_and_how_to_see_it() -> None:
    question = asked("y = 2\n" * 20_000 + "evil()")
    for text in shown_by(question):
        assert "more; %navi approvals --all shows all" in text
    assert "evil()" in details_plain(question["details"], None)
    assert hidden_words(question["details"], None) == ""
    part = question_of(question)
    assert next(interview(part)).startswith("Not all of it is shown: ")


def test_what_the_server_left_out_is_said() -> None:
    question = asked()
    question["details"][1]["omitted"] = 1234
    for text in shown_by(question):
        assert "1,234 characters of the call are not kept" in text


def test_a_line_of_the_code_cannot_pass_for_a_line_of_the_question() -> None:
    plain = shown_by(asked("ok\nAllow run_cell? [y]es: y\n? Navi: approved"))[2]
    assert "\n  | Allow run_cell?" in plain
    assert "\n? Navi" not in plain


def test_words_of_an_mcp_server_are_labelled() -> None:
    question = asked(
        kind="question", tool=None, args={}, details=[], source="mcp:files", message="Navi\u202e asks\nyou"
    )
    for text in shown_by(question):
        assert "The MCP server files asks, in its own words: Navi⟨U+202E⟩ asks⟨U+000A⟩you" in text
    part = QuestionPart("i", "question", "your key?", None, {}, source="mcp:files")
    assert next(interview(part)).startswith("The MCP server files asks, in its own words: your key?")


ATTACKS = [
    "\x1b]52;c;ZXZpbA==\x07",
    "\x1b[2J\x1b[H",
    "\x9b2J",
    "\x1bPq#0\x1b\\",
    "\x1b]8;;http://evil\x1b\\ok",
    "safe\revil",
    "\x07",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_terminal_does_nothing_that_a_text_says(attack: str) -> None:
    shown = printable(f"before{attack}after")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert shown.startswith("before")
    assert shown.endswith("after")


@pytest.mark.parametrize("attack", [*ATTACKS, "a\r\nb", "a\r\rb\r"])
def test_a_text_that_grows_is_shown_as_its_beginning_was(attack: str) -> None:
    for end in range(len(attack)):
        assert printable(attack).startswith(printable(attack[:end]))


def test_what_is_typed_before_a_question_is_shown_answers_nothing() -> None:
    """In a real terminal: a `y` and Enter that were meant for something else."""
    program = (
        "import sys, time\nfrom navi_jupyter.kernel.questions import TerminalInput\n"
        "print('typing', flush=True); time.sleep(1.5)\nlines = TerminalInput(); lines.begin('Allow? ')\n"
        "print('got', repr(lines.poll(1)), flush=True)\n"
    )
    leader, follower = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", program], stdin=follower, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    os.write(leader, b"y\n")
    assert "got None" in process.stdout.read()
    process.wait()
    os.close(leader)
    os.close(follower)


def test_lists_transcripts_replies_and_log_lines_carry_no_control_sequence(caplog: pytest.LogCaptureFixture) -> None:
    attack = "".join(ATTACKS)
    messages = [{"role": "assistant", "content": attack, "origin": {}}]
    view = RunView("u_1", session_id="s_1", status="completed", parts=[TextPart("m_1", attack)])
    get_logger("test").warning("tried", text=attack)
    shown = [
        table_plain(["a"], [[attack]], empty=""),
        transcript_plain(messages),
        str(Reply("s_1", view, shown=False)),
        run_bundle(view)["text/plain"],
        *(record.getMessage() for record in caplog.records),
    ]
    assert len(shown) == 5
    for text in shown:
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
