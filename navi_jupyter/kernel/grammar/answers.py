"""Answers that are typed: the prompts that ask a question, and what was typed for them as the answer of the question.

Not responsible for input prompts (``questions``), nor for how a question looks (``display.render``).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...input.json_input import load_json
from ...text import approval_words
from ...visible_text import marked_line
from ..display.question_text import MOST_SHOWN, hidden_words, question_message
from ..display.run_view import QuestionPart
from ..errors import UsageError


@dataclass(frozen=True)
class UserAnswer:
    """What was typed, as the command ``answer`` has it."""

    status: Literal["resolved", "cancelled"]
    payload: Any = None
    option: str | None = None  # the id of the option that is chosen, of a question that offers some

    def command(self, interrupt_id: str) -> dict[str, Any]:
        """The command, without its id."""
        given = {"payload": self.payload, "option": self.option}
        fields = {"type": "answer", "interrupt_id": interrupt_id, "status": self.status}
        return {**fields, **{name: value for name, value in given.items() if value is not None}}


Interview = Generator[str, str, UserAnswer]  # yields prompts, is sent what was typed, returns the decision

_YES, _NO, _ALWAYS = ("y", "yes"), ("n", "no"), ("a", "always")


def interview(question: QuestionPart, *, shown: int | None = MOST_SHOWN) -> Interview:
    """The prompts that ask ``question``; what cannot be read is asked again.

    ``shown``: how many characters of what the call would do stand above them; None: all.
    """
    if question.kind == "approval":
        return _choice(question, shown) if question.options else _approval(question, shown)
    return _values(question)


def _approval(question: QuestionPart, shown: int | None) -> Interview:
    about_the_tool = question.message == approval_words(question.tool)
    prompt, again = f"{marked_line(question.message)} [y]es / [n]o: ", ""
    if about_the_tool:
        prompt = f"Allow {marked_line(question.tool or '')}? [y]es / [n]o / [a]lways: "
    if hidden := hidden_words(question.details, shown):
        prompt = f"{hidden} {prompt}"
    while True:
        word, _, rest = (yield again + prompt).strip().partition(" ")
        word, reason = word.rstrip(",:;.").lower(), rest.strip()
        if word in _YES and not reason:
            return UserAnswer("resolved", {"approved": True})
        if word in _ALWAYS and not reason and about_the_tool:
            return UserAnswer("resolved", {"approved": True, "always": "session"})
        if word in _NO:
            return UserAnswer("resolved", {"approved": False, **({"message": reason} if reason else {})})
        again = f"Type y{', n or a' if about_the_tool else ' or n'}; a reason may follow n. "


def _choice(question: QuestionPart, shown: int | None) -> Interview:
    """Of a question that offers options: one by its number, or the first that allows or not."""
    names = [f"[{number}] {marked_line(option['name'])}" for number, option in enumerate(question.options, start=1)]
    prompt, again = f"{marked_line(question.message)} {' / '.join(names)}: ", ""
    if hidden := hidden_words(question.details, shown):
        prompt = f"{hidden} {prompt}"
    while True:
        word, _, rest = (yield again + prompt).strip().partition(" ")
        word, reason = word.rstrip(",:;.").lower(), rest.strip()
        if not reason and (option := chosen_option(question.options, word)) is not None:
            return UserAnswer("resolved", option=option["id"])
        if word in _YES and not reason:
            return UserAnswer("resolved", {"approved": True})
        if word in _NO:
            return UserAnswer("resolved", {"approved": False, **({"message": reason} if reason else {})})
        again = "Type the number of one of them, y or n; a reason may follow n. "


def chosen_option(options: Sequence[Mapping[str, Any]], word: str) -> Mapping[str, Any] | None:
    """The option that a word names: by its number, its id or its name."""
    if word.isascii() and word.isdigit() and 0 < int(word[:4]) <= len(options):
        return options[int(word[:4]) - 1]
    return next((option for option in options if word.lower() in (option["id"].lower(), option["name"].lower())), None)


def named_option(options: Sequence[Mapping[str, Any]], word: str) -> str:
    """The id of the option that a word names. Raises UsageError."""
    if not options:
        raise UsageError("This is a call to allow or not: %navi approve, %navi deny.")
    found = chosen_option(options, word)
    if found is None:
        names = ", ".join(f"{number} {marked_line(option['name'])}" for number, option in enumerate(options, start=1))
        raise UsageError(f"It offers: {names}. Name one by its number.")
    return str(found["id"])


def _values(question: QuestionPart) -> Interview:
    schema = question.schema or {}
    asks = question_message(question.message, question.source)
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict):
        typed = yield from _required(f"{asks} (or: decline) ")
        return UserAnswer("cancelled") if _declines(typed) else UserAnswer("resolved", payload_from(schema, typed))
    if not properties:
        typed = yield from _required(f"{asks} [y]es / [n]o: ", (*_YES, *_NO))
        return UserAnswer("resolved", {}) if typed.lower() in _YES else UserAnswer("cancelled")
    required = schema.get("required") or ()
    values: dict[str, Any] = {}
    before = f"{asks} (or: decline) "
    for name, about in properties.items():
        about = about if isinstance(about, dict) else {}
        again = ""
        while name not in values:
            typed = (yield before + again + _field_prompt(name, about, required=name in required)).strip()
            before = ""
            if _declines(typed):
                return UserAnswer("cancelled")
            if not typed and name not in required:
                break
            try:
                values[name] = _value(about, typed)
            except ValueError as wrong:
                again = f"{wrong} "
    return UserAnswer("resolved", values)


def _required(prompt: str, words: tuple[str, ...] = ()) -> Generator[str, str, str]:
    while True:
        typed = (yield prompt).strip()
        if typed and (not words or typed.lower() in words):
            return typed


def _declines(typed: str) -> bool:
    return typed.lower() == "decline"


def _field_prompt(name: str, about: Mapping[str, Any], *, required: bool) -> str:
    hints = [str(about["description"])] if about.get("description") else []
    if isinstance(about.get("enum"), list):
        hints.append(" / ".join(map(str, about["enum"])))
    elif _kind(about) in ("number", "integer"):
        hints.append(f"a {_kind(about)}" if _kind(about) == "number" else "an integer")
    elif _kind(about) == "boolean":
        hints.append("yes / no")
    if not required:
        hints.append("Enter: none")
    return marked_line(str(about.get("title") or name) + (f" ({'; '.join(hints)})" if hints else "")) + ": "


def _kind(about: Mapping[str, Any]) -> str:
    """The type of a field; ``anyOf: [X, null]`` is how Python says that X may be left out."""
    options = [each for each in about.get("anyOf") or () if isinstance(each, dict) and each.get("type") != "null"]
    return str(about.get("type") or (options[0].get("type") if len(options) == 1 else ""))


def _value(about: Mapping[str, Any], typed: str) -> Any:
    """What was typed as a value of the field. Raises ValueError with what is wrong."""
    choices = about.get("enum")
    if isinstance(choices, list):
        found = [choice for choice in choices if str(choice).lower() == typed.lower()]
        if not found:
            raise ValueError(f"One of {', '.join(map(str, choices))}.")
        return found[0]
    kind = _kind(about)
    if kind == "string":
        return typed
    if kind == "boolean":
        if typed.lower() not in (*_YES, *_NO, "true", "false"):
            raise ValueError("Type yes or no.")
        return typed.lower() in (*_YES, "true")
    try:
        value = load_json(typed)
    except ValueError:
        value = None if kind in ("number", "integer", "array", "object") else typed
    fits = {"number": (int, float), "integer": (int,), "array": (list,), "object": (dict,)}.get(kind)
    if fits is not None and (not isinstance(value, fits) or isinstance(value, bool)):
        raise ValueError({"number": "Type a number.", "integer": "Type an integer."}.get(kind, "Write it as JSON."))
    return value


def payload_from(schema: Mapping[str, Any], text: str) -> Any:
    """The payload of an answer that was typed: JSON, or the value of the schema's only field. Raises UsageError."""
    try:
        value = load_json(text)
    except ValueError:
        value = text
    names = list(schema.get("properties") or {})
    if schema.get("type") == "object" and not isinstance(value, dict):
        if len(names) != 1:
            raise UsageError(f"The answer has these fields: {', '.join(names)}. Write it as JSON.")
        return {names[0]: text if schema["properties"][names[0]].get("type") == "string" else value}
    return value
