"""The server-sent events of a provider as whole events of bounded size, their JSON with well-formed text.

Works on bytes, before any package reads them: some (Google's) refuse the whole event for half a surrogate pair, and no
package joins the halves of a pair that come in two events.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

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
