"""Questions to the user as text and HTML: what a call would do, whole and marked, and the list of what is open.

The server describes a call when it asks (``details`` of the question). Not responsible for asking (``questions``).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...handles import Named
from ...text import plural
from ...visible_text import marked, marked_line, pieces
from .listing import Listing
from .markdown import inert
from .time_text import moment

MOST_SHOWN = 40_000  # characters of a question in a cell or a terminal; the rest is counted, with how to see it
_MOST_LISTED = 3_000  # the same in `%navi approvals`
_SEE_ALL = "%navi approvals --all shows all"

Detail = Mapping[str, Any]


def details_of(question: Mapping[str, Any]) -> list[Detail]:
    """What the call would do: as the server describes it; by its arguments where it does not."""
    described = question.get("details")
    if described:
        return list(described)
    args = {name: value for name, value in (question.get("args") or {}).items() if value is not None}
    return [{"label": name, "text": _value_text(value)} for name, value in args.items()]


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def question_message(message: str, source: str | None) -> str:
    """The words of a question on one line. Those of another program are labelled as such."""
    words = marked_line(message)
    kind, _, name = (source or "").partition(":")
    return f"The MCP server {marked_line(name)} asks, in its own words: {words}" if kind == "mcp" else words


_ONLY_USER = "local"  # what a server that has but one user calls them


def settled_words(
    *,
    kind: str,
    status: str,
    approved: bool | None,
    by: str | None,
    when: str,
    payload: object = None,
    options: Sequence[Mapping[str, Any]] = (),
) -> str:
    """How a question was settled, by whom, and when: ``Allowed by you, 9:12``. The chat says the same."""
    if status == "expired":
        return "Expired without an answer"
    if status == "cancelled" and not (by and kind == "question"):
        return "Not answered"
    fields: Mapping[str, Any] = payload if isinstance(payload, dict) else {}
    if status == "cancelled":
        word = "Declined"
    elif kind == "question":
        word = "Answered"
    elif approved is False:
        word = "Denied"
    elif fields.get("always") == "session":
        word = "Allowed for this session"
    else:
        word = "Allowed with changes" if isinstance(fields.get("args"), dict) else "Allowed"
    chosen = next((option["name"] for option in options if option["id"] == fields.get("option")), None)
    if chosen is not None:
        word += f" ({marked_line(chosen)})"
    who = "" if not by else " in a cell" if by.startswith("kernel:") else f" by {answerer(by)}"
    return f"{word}{who}" + (f", {when}" if when else "")


def answerer(name: str) -> str:
    """Who answered, as a reader of the conversation names them."""
    return "you" if name == _ONLY_USER else marked_line(name)


def details_plain(details: Sequence[Detail], limit: int | None = MOST_SHOWN) -> str:
    """The parts of a description; a long one behind a rule, so that nothing in it passes for something else."""
    return "\n".join(_plain_part(detail, text) for detail, text in _within(details, limit)) + _note(details, limit)


def details_html(details: Sequence[Detail], limit: int | None = MOST_SHOWN) -> str:
    """The same as HTML: everything escaped, marks as elements of their own."""
    parts = [_html_part(detail, text) for detail, text in _within(details, limit)]
    note = _note(details, limit).strip()
    return "".join(parts) + (f"<p><strong>{inert(note)}</strong></p>" if note else "")


def hidden_words(details: Sequence[Detail], limit: int | None = MOST_SHOWN) -> str:
    """What of it is not shown, as a sentence; empty where it is all there."""
    left = sum(len(str(detail["text"])) - len(text) for detail, text in _within(details, limit))
    omitted = sum(int(detail.get("omitted") or 0) for detail in details)
    words = [f"Not all of it is shown: {plural(left, 'character')} more; {_SEE_ALL}."] if left else []
    if omitted:
        words.append(f"{plural(omitted, 'character')} of the call are not kept for showing.")
    return " ".join(words)


def _within(details: Sequence[Detail], limit: int | None) -> Iterable[tuple[Detail, str]]:
    """Each part with as much of its text as there is room for. What was added last is what counts: the code."""
    left = limit
    for detail in details:
        text = str(detail["text"])
        shown = text if left is None else text[:left]
        yield detail, shown
        left = None if left is None else left - len(shown)


def _note(details: Sequence[Detail], limit: int | None) -> str:
    words = hidden_words(details, limit)
    return f"\n[{words}]" if words else ""


def _label(detail: Detail) -> str:
    return marked_line(str(detail["label"])) + (" (its own words, not Navi's)" if detail.get("foreign") else "")


def _plain_part(detail: Detail, text: str) -> str:
    if _is_short(detail, text):
        return f"{_label(detail)}: {marked_line(text)}"
    lines = marked(text).split("\n")
    return f"{_label(detail)}:\n" + "\n".join(f"  | {line}" for line in lines)


def _html_part(detail: Detail, text: str) -> str:
    if _is_short(detail, text):
        return f"<div>{inert(_label(detail))}: <code>{_marked_html(text)}</code></div>"
    style = "white-space:pre-wrap;overflow-wrap:anywhere"
    return f'<div>{inert(_label(detail))}:</div><pre style="{style}">{_marked_html(text)}</pre>'


def _is_short(detail: Detail, text: str) -> bool:
    return detail.get("kind", "text") == "text" and len(text) <= 160 and "\n" not in text


def _marked_html(text: str) -> str:
    return "".join(f"<mark>{inert(piece.text)}</mark>" if piece.mark else inert(piece.text) for piece in pieces(text))


class QuestionListing(Listing[dict[str, Any]]):
    """The open questions, each with what it is about; ``whole`` shows all of it however long it is."""

    def __init__(self, questions: Iterable[dict[str, Any]], *, whole: bool = False) -> None:
        super().__init__(
            questions,
            ("asks", "tool", "expires"),
            lambda item: [
                question_message(item["message"], item.get("source")),
                marked_line(item.get("tool") or ""),
                moment(item.get("expires_at")),
            ],
            empty="No question is open.",
            kind="question",
            named=lambda item: Named(item["id"], item["message"]),
        )
        self._limit = None if whole else _MOST_LISTED

    def _repr_html_(self) -> str:
        return super()._repr_html_() + "".join(
            f"<div><strong>{number}</strong> {inert(question_message(item['message'], item.get('source')))}</div>"
            f"{details_html(details, self._limit)}"
            for number, item, details in self._described()
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        super()._repr_pretty_(printer, cycle)
        for number, item, details in self._described():
            words = question_message(item["message"], item.get("source"))
            printer.text(f"\n\n{number}  {words}\n{details_plain(details, self._limit)}")

    def _described(self) -> list[tuple[int, dict[str, Any], list[Detail]]]:
        described = [(number, item, details_of(item)) for number, item in enumerate(self, start=1)]
        return [one for one in described if one[2]]
