"""The server-sent events of a provider as whole events of bounded size, their JSON with well-formed text.

Works on bytes, before any package reads them: some (Google's) refuse the whole event for half a surrogate pair, and no
package joins the halves of a pair that come in two events.

Also the events that carry a piece of text (:class:`TextEvent`), and which of them can be one event. An event that is
not understood is none of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_EVENT = 4 * 2**20
"""Bytes of one event. Providers send a few; the largest, which end an answer and repeat it whole, hold what a model can
write at once, some 500 KB. One without an end would fill the memory."""

EVENT_END = b"\n\n"

_HIGH, _LOW = rb"\\u[dD][89abAB][0-9a-fA-F]{2}", rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
# Escapes count after an even number of backslashes only. A pair is found first, and left as it is.
_ESCAPE = re.compile(
    rb"(?<!\\)((?:\\\\)*)(?:(" + _HIGH + _LOW + rb")|(" + _HIGH + rb'(?="))|(?:' + _HIGH + rb"|" + _LOW + rb"|\\u0000))"
)
_FIRST_LOW = re.compile(rb'(?<=")' + _LOW)
_REPLACEMENT = rb"\ufffd"


class EventTooLarge(ValueError):
    """An event that is larger than its reader allows, or has no end."""


class WellFormedEvents:
    """One stream: bytes in as they come, whole events out."""

    def __init__(self, limit: int = MAX_EVENT) -> None:
        self._limit = limit
        self._begun = b""  # the beginning of an event
        # A whole event with the first half of a pair at the end of a text, and where that is: the next one decides.
        self._held: tuple[bytes, int, int] | None = None

    def add(self, data: bytes) -> bytes:
        """The events that are complete. Raises EventTooLarge."""
        data = self._begun + data
        ending = b""
        if b"\r" in data:  # the other line ends of the format; the last may be the first half of one
            ending = b"\r" if data.endswith(b"\r") else b""
            data = data[: len(data) - len(ending)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(EVENT_END) + len(EVENT_END) if EVENT_END in data else 0
        self._begun = data[end:] + ending
        if len(self._begun) > self._limit:
            raise EventTooLarge(f"an event is larger than {self._limit // 2**20} MB")
        events = data[:end]
        if self._held is None and _SUSPECT.search(events) is None:
            return events
        return b"".join(self._repaired(events))

    def rest(self) -> bytes:
        """What is left when nothing more comes."""
        begun, self._begun = self._begun.replace(b"\r", b"\n"), b""
        if not begun:
            return self._settle()
        events = b"".join(self._repaired(begun + EVENT_END)) + self._settle()
        return events.removesuffix(EVENT_END)

    def _repaired(self, events: bytes) -> Iterator[bytes]:
        for event in events.split(EVENT_END)[:-1]:
            if self._held is not None and (low := _FIRST_LOW.search(event)) is not None:
                held, start, end = self._held
                event = event[: low.start()] + held[start:end] + event[low.start() :]
                self._held = held[:start] + held[end:], start, start
            yield self._settle()
            yield self._with_replacements(event)

    def _with_replacements(self, event: bytes) -> bytes:
        """The event, or nothing where it is held back."""
        open_at: list[tuple[int, int]] = []
        shift = 0

        def replaced(found: re.Match[bytes]) -> bytes:
            nonlocal shift
            if found[2]:
                return found[0]
            if found[3]:
                start = found.start(3) + shift
                open_at.append((start, start + len(found[3])))
                return found[0]
            out = found[1] + _REPLACEMENT
            shift += len(out) - len(found[0])
            return out

        event = _ESCAPE.sub(replaced, event)
        if not open_at:
            return event + EVENT_END
        # All but the last are of other texts of this event, which nothing continues.
        for start, end in open_at[:-1]:
            event = event[:start] + _REPLACEMENT + event[end:]
        self._held = (event, *open_at[-1])
        return b""

    def _settle(self) -> bytes:
        """The event that is held back, now that it is known what follows."""
        if self._held is None:
            return b""
        event, start, end = self._held
        self._held = None
        return event[:start] + (_REPLACEMENT if end > start else b"") + event[end:] + EVENT_END


# Fields of an event that differ from one to the next and mean nothing for the text.
_VARYING = ("sequence_number", "obfuscation", "created")
_TAG = re.compile(r"<[^<>]*>")
_MISSES = 8  # events in a row that differ in more bytes than the piece: then no more are expected to be alike


class TextEvent:
    """One event with a piece of text in it (``body`` without it), and the pieces of those that were joined to it."""

    def __init__(self, raw: bytes, head: bytes, body: dict[str, Any], path: tuple[str | int, ...]) -> None:
        self._raw = raw
        self._head = head
        self.body = body
        self._path = path
        self._pieces: list[str] = [_get(body, path)]
        _put(body, path, "")
        self._fixed = {name: value for name, value in body.items() if name not in _VARYING}
        # The bytes before and after the piece, where they are known: most providers repeat them with each event.
        self._frame: tuple[bytes, bytes] | None = None
        self._misses = 0
        self._model: tuple[bytes, str] | None = (raw, self._pieces[0])  # an event to find them in

    @classmethod
    def read(cls, raw: bytes) -> TextEvent | None:
        """The event, if it carries a piece of text; else None."""
        at = 0 if raw.startswith(b"data: ") else raw.find(b"\ndata: ") + 1
        head, data = raw[: at + 6], raw[at + 6 :]
        if not head.endswith(b"data: ") or b"\n" in data or (at and head.count(b"\n") != 1):
            return None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return None
        path = _text_path(body) if isinstance(body, dict) else None
        # pydantic-ai knows a tag that begins or ends thinking by being a piece of its own.
        return None if path is None or _TAG.fullmatch(_get(body, path)) else cls(raw, head, body, path)

    @property
    def text(self) -> str:
        """All pieces."""
        return "".join(self._pieces)

    def piece(self, raw: bytes) -> str | None:
        """The piece of another event, if all else in it is the same."""
        piece = self._framed(raw)
        if piece is None:
            other = TextEvent.read(raw)
            if other is None or not self._alike(other):
                return None
            self.body, piece = other.body, other.text
            self._misses += 1
            self._frame, self._model = None, (raw, piece) if self._misses < _MISSES else None
        else:
            self._misses = 0
        return piece

    def take(self, pieces: Sequence[str]) -> None:
        """Join these to it."""
        self._pieces += pieces

    def empty(self) -> None:
        """Begin anew, without a piece: what is joined from now on differs from it in its text only."""
        self._raw = b""
        self._pieces = []

    def written(self) -> bytes:
        """As it goes on to the reader."""
        if self._raw and len(self._pieces) == 1:
            return self._raw + EVENT_END
        _put(self.body, self._path, self.text)
        written = self._head + json.dumps(self.body).encode() + EVENT_END
        _put(self.body, self._path, "")
        return written

    def _alike(self, other: TextEvent) -> bool:
        return (self._head, self._path) == (other._head, other._path) and self._fixed == other._fixed

    def _framed(self, raw: bytes) -> str | None:
        """The piece of an event with the very same bytes around it; None where that is not certain."""
        if self._frame is None and self._model is not None:
            self._frame, self._model = _frame(*self._model, self._head, self.body, self._path), None
        if self._frame is None:
            return None
        before, after = self._frame
        if len(raw) < len(before) + len(after) or not raw.startswith(before) or not raw.endswith(after):
            return None
        literal = raw[len(before) : len(raw) - len(after)]
        try:
            if b'"' in literal or b"\\" in literal or not (piece := literal.decode()).isprintable():
                piece = json.loads(b'"%b"' % literal)
        except ValueError:
            return None
        return None if _TAG.fullmatch(piece) else piece


def joined(events: Sequence[bytes]) -> Iterator[TextEvent | bytes]:
    """Events, where those in a row that differ in their text only have become one."""
    group: TextEvent | None = None
    for raw in events:
        if group is not None and (piece := group.piece(raw)) is not None:
            group.take((piece,))
            continue
        if group is not None:
            yield group
        group = TextEvent.read(raw)
        if group is None:
            yield raw + EVENT_END
    if group is not None:
        yield group


def _frame(
    raw: bytes, piece: str, head: bytes, body: dict[str, Any], path: Sequence[str | int]
) -> tuple[bytes, bytes] | None:
    """What is before and after the characters of the piece; None where it cannot be found for certain."""
    literal = json.dumps(piece, ensure_ascii=False).encode("utf-8", "replace")
    before, found, after = raw.partition(literal)
    if not piece or not found or literal in after:
        return None
    before, after = before + b'"', b'"' + after
    other = json.loads(before.removeprefix(head) + after)
    return (before, after) if _get(other, path) == "" and other == body else None


def _text_path(body: dict[str, Any]) -> tuple[str | int, ...] | None:
    """Where the piece of text is, in the formats of OpenAI (both protocols) and Anthropic."""
    match body:
        case {"choices": [{"delta": {"content": str(), **more}, "finish_reason": None}]} if not _has_more(more):
            return ("choices", 0, "delta", "content")
        case {"choices": [{"delta": {"reasoning_content": str(), **more}, "finish_reason": None}]} if not _has_more(
            more
        ):
            return ("choices", 0, "delta", "reasoning_content")
        case {"type": "content_block_delta", "delta": {"type": "text_delta", "text": str()}}:
            return ("delta", "text")
        case {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": str()}}:
            return ("delta", "thinking")
        case {"type": "response.output_text.delta" | "response.reasoning_summary_text.delta", "delta": str()}:
            return None if body.get("logprobs") else ("delta",)
        case _:
            return None


def _has_more(more: Mapping[Any, Any]) -> bool:
    """Whether a delta has anything besides its text."""
    return any(value for name, value in more.items() if name != "role")


def _get(body: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        body = body[step]
    return body


def _put(body: Any, path: Sequence[str | int], text: str) -> None:
    _get(body, path[:-1])[path[-1]] = text
