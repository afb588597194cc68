"""What is typed at the prompt of a question: read, asked again, made an answer. Pure."""

from __future__ import annotations

from typing import Any

import pytest

from navi_jupyter.kernel.display.run_view import QuestionPart
from navi_jupyter.kernel.questions import UserAnswer, interview

APPROVED = UserAnswer("resolved", {"approved": True})
ALWAYS = UserAnswer("resolved", {"approved": True, "always": "session"})
DENIED = UserAnswer("resolved", {"approved": False})


def approval() -> QuestionPart:
    return QuestionPart("i_1", "approval", "Run this code?", "run_code", {"code": "x = 1"})


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
