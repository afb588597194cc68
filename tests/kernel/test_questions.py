"""What is typed at the prompt of a question: read, asked again, made an answer; and what ends a prompt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from navi_jupyter.kernel.client.io_thread import io_thread
from navi_jupyter.kernel.display.run_view import QuestionPart, RunView
from navi_jupyter.kernel.grammar.answers import UserAnswer, interview
from navi_jupyter.kernel.main_thread import MainThreadQueue
from navi_jupyter.kernel.questions import PromptedQuestions

APPROVED = UserAnswer("resolved", {"approved": True})
ALWAYS = UserAnswer("resolved", {"approved": True, "always": "session"})
DENIED = UserAnswer("resolved", {"approved": False})


def approval() -> QuestionPart:
    return QuestionPart("i_1", "approval", "Navi wants to use run_code.", "run_code", {"code": "x = 1"})


def value(**schema: Any) -> QuestionPart:
    return QuestionPart("i_1", "question", "Which one?", None, {}, schema or None)


def typed(question: QuestionPart, *lines: str) -> tuple[UserAnswer | None, list[str]]:
    """The decision (None: still asking) and the prompts that were shown."""
    talk = interview(question)
    prompts = [next(talk)]
    for line in lines:
        try:
            prompts.append(talk.send(line))
        except StopIteration as end:
            return end.value, prompts
    return None, prompts


@pytest.mark.parametrize(
    ("line", "decision"),
    [
        ("y", APPROVED),
        (" Yes ", APPROVED),
        ("a", ALWAYS),
        ("ALWAYS", ALWAYS),
        ("n", DENIED),
        ("no", DENIED),
        ("n too slow", UserAnswer("resolved", {"approved": False, "message": "too slow"})),
        ("no, it drops rows", UserAnswer("resolved", {"approved": False, "message": "it drops rows"})),
    ],
)
def test_an_approval_is_typed(line: str, decision: UserAnswer) -> None:
    found, prompts = typed(approval(), line)
    assert found == decision
    assert prompts == ["Allow run_code? [y]es / [n]o / [a]lways: "]


def test_what_a_call_asks_in_its_own_words_is_asked_so_and_has_no_always() -> None:
    question = replace(approval(), tool="create_recall", message="May this recall run code without asking?")
    found, prompts = typed(question, "a", "y")
    asked = "May this recall run code without asking? [y]es / [n]o: "
    assert (found, prompts) == (APPROVED, [asked, f"Type y or n; a reason may follow n. {asked}"])


def test_of_a_question_with_options_one_is_named_by_its_number_and_yes_and_no_are_understood() -> None:
    names = ("Allow", "Always allow \x1b[31m", "Reject")
    kinds = ("allow_once", "allow_always", "reject_once")
    options = [
        {"id": f"o{n}", "name": name, "kind": kind} for n, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    question = replace(approval(), message="Edit a.py?", options=options)
    assert typed(question, "2")[0] == UserAnswer("resolved", option="o1")
    assert typed(question, "reject")[0] == UserAnswer("resolved", option="o2")
    assert typed(question, "y")[0] == APPROVED
    assert typed(question, "n, too much")[0] == UserAnswer("resolved", {"approved": False, "message": "too much"})
    found, prompts = typed(question, "4", "0", "x")
    assert found is None
    assert prompts[0].startswith("Edit a.py? [1] Allow / [2] Always allow ")
    assert "\x1b" not in prompts[0]
    assert all(prompt.startswith("Type the number") for prompt in prompts[1:])


@pytest.mark.parametrize("line", ["", "maybe", "yes but only once", "x = 1", "always the same", "yesterday"])
def test_what_is_no_clear_answer_allows_nothing_and_is_asked_again(line: str) -> None:
    found, prompts = typed(approval(), line)
    assert found is None
    assert prompts[-1].startswith("Type y, n or a")
    assert typed(approval(), line, "y")[0] == APPROVED


def test_fields_are_asked_one_by_one_and_take_values_of_their_type() -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "title": "Your name"},
            "count": {"type": "integer"},
            "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
            "kind": {"enum": ["mean", "Median"]},
            "sure": {"type": "boolean"},
            "tags": {"type": "array"},
        },
        "required": ["name", "count", "kind", "sure"],
    }
    lines = ("007", "many", "1.5", "12", "a lot", "0.5", "mode", "median", "perhaps", "y", "[1]")
    found, prompts = typed(value(**schema), *lines)
    values = {"name": "007", "count": 12, "share": 0.5, "kind": "Median", "sure": True, "tags": [1]}
    assert found == UserAnswer("resolved", values)
    assert prompts[0] == "Which one? (or: decline) Your name: "
    assert "integer" in prompts[2]
    assert "mean / Median" in prompts[-4]
    assert typed(value(**schema), "a", "1", "", "mean", "no", "")[0] == UserAnswer(
        "resolved", {"name": "a", "count": 1, "kind": "mean", "sure": False}
    )


def test_a_question_is_declined_and_a_confirmation_is_yes_or_no() -> None:
    one = {"type": "object", "properties": {"column": {"type": "string"}}, "required": ["column"]}
    assert typed(value(**one), "Decline")[0] == UserAnswer("cancelled")
    empty = {"type": "object", "properties": {}}
    assert typed(value(**empty), "hm", "y")[0] == UserAnswer("resolved", {})
    assert typed(value(**empty), "n")[0] == UserAnswer("cancelled")
    assert typed(value(), "", "price")[0] == UserAnswer("resolved", "price")
    assert typed(value(), "[1, 2]")[0] == UserAnswer("resolved", [1, 2])


class Typist:
    """A front end's input; nothing is typed before ``line`` is set."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.shown = threading.Event()
        self.line: str | None = None

    def begin(self, prompt: str) -> None:
        self.prompts.append(prompt)
        self.shown.set()

    def poll(self, timeout: float) -> str | None:
        time.sleep(timeout)
        line, self.line = self.line, None
        return line


class Server:
    """What a server answers about the question."""

    def __init__(self) -> None:
        self.drawn = False
        self.looks_since_drawn = 0
        self.commands: list[dict[str, Any]] = []

    async def request(self, *_: Any) -> dict[str, Any]:
        self.looks_since_drawn += self.drawn
        return {"drawn": self.drawn, "status": "open"}

    async def command(self, _: str, command: dict[str, Any]) -> dict[str, Any]:
        self.commands.append(command)
        return {}


def work_off(queue: MainThreadQueue, done: Callable[[], object]) -> None:
    """Do the cell's work until then."""
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline
        if not queue.run_next():
            queue.wait(0.05)


def when_asked(typist: Typist, then: Callable[[], object]) -> threading.Thread:
    """Does ``then`` once the next prompt is shown: as long as it is, the cell's thread reads."""
    typist.shown.clear()

    def wait() -> None:
        if typist.shown.wait(20):
            then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.fixture
def cell() -> Iterator[tuple[PromptedQuestions, RunView, MainThreadQueue, Typist, Server]]:
    """A cell that waits for a run with an open question."""
    view, queue, typist, server = RunView("r_1"), MainThreadQueue(), Typist(), Server()
    view.parts.append(approval())
    asking = PromptedQuestions(server, "s_1", view, queue, typist)  # type: ignore[arg-type]
    asking.start()
    yield asking, view, queue, typist, server
    asking.close()


Cell = tuple[PromptedQuestions, RunView, MainThreadQueue, Typist, Server]


def test_a_prompt_stands_back_for_other_work_of_the_cell_and_comes_again(cell: Cell) -> None:
    _, _, queue, typist, server = cell
    done: list[str] = []
    poster = when_asked(typist, lambda: queue.post(lambda: done.append("code")))
    work_off(queue, lambda: done)
    poster.join()
    person = when_asked(typist, lambda: setattr(typist, "line", "y"))
    work_off(queue, lambda: server.commands)
    person.join()
    assert len(typist.prompts) == 2
    assert server.commands[0]["payload"] == {"approved": True}


def test_a_prompt_ends_when_a_page_shows_buttons_after_all(cell: Cell) -> None:
    asking, view, queue, typist, server = cell
    page = when_asked(typist, lambda: setattr(server, "drawn", True))
    assert not server.commands
    work_off(queue, lambda: server.looks_since_drawn > 1)
    page.join()
    server.drawn = False
    second = QuestionPart("i_2", "approval", "Navi wants to use write_file.", "write_file", {})
    person = when_asked(typist, lambda: setattr(typist, "line", "n"))
    view.parts.append(second)
    io_thread().loop.call_soon_threadsafe(asking.notify)
    work_off(queue, lambda: server.commands)
    person.join()
    assert [prompt.split("?")[0] for prompt in typist.prompts] == ["Allow run_code", "Allow write_file"]
    assert server.commands[0]["interrupt_id"] == "i_2"
