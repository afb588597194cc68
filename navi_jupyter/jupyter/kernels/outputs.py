"""The outputs of one execution, as a notebook would hold them, within bounds whatever the code prints.

Follows what nbclient does with ``clear_output`` and ``update_display_data``. A kernel's output is
bounded here (``Bounds``), but for messages too large to decode (``transport.DecodeLimits``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...input.json_input import well_formed
from ...output_text import is_image, merge_streams
from ...ports.jupyter import OnOutput, Output
from .transport import IopubMessage


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """What one execution may leave."""

    head: int = 256 * 1024  # characters of text that are passed on as they come
    tail: int = 128 * 1024  # characters that are kept of what comes after, the last ones
    rich: int = 24 * 1024 * 1024  # bytes (as JSON) of displays and results
    count: int = 1000  # displays and results
    latest: bool = False  # where there is no room, the oldest displays give way to new ones; else new ones are left out


class Outputs:
    """See the module. Takes the kernel's messages in order."""

    def __init__(self, on_output: OnOutput | None = None, bounds: Bounds | None = None) -> None:
        self._on_output = on_output
        self._bounds = bounds or Bounds()
        self._all: list[dict[str, Any]] = []
        self._displays: dict[str, list[int]] = {}  # where the outputs with a display id are
        self._clear_next = False
        self._text = 0
        self._rich = 0
        self._displayed = 0
        self._dropped = 0  # displays and results that were one too many
        self.images_dropped = 0  # those among the displays that gave way to later ones
        self._tail: deque[tuple[str, str]] = deque()
        self._tail_size = 0
        self._left_out = 0

    def take(self, message: IopubMessage) -> None:
        """A message of IOPub; those that are no outputs are ignored."""
        kind, content = message.kind, message.content
        if kind == "stream":
            self._on_stream(message)
        elif kind in ("display_data", "execute_result"):
            self._on_display(kind, content)
        elif kind == "error":
            self._clear_if_due()
            if self._bounds.latest:
                self._make_room(0)
            if self._room_for_one():
                self._add({"output_type": "error", **error_of(content)})
        elif kind == "update_display_data":
            self._on_update(content)
        elif kind == "clear_output":
            self._clear_next = True
            if not content.get("wait"):
                self._clear_if_due()

    def finish(self) -> None:
        """Nothing comes any more: pass on the end, which was held back, and notes about what was left out."""
        if self._left_out:
            self._add(_stream("stdout", f"\n… {self._left_out:,} characters left out …\n"))
        for name, text in self._tail:
            self._add(_stream(name, text))
        self._tail.clear()
        if self._dropped:
            which = "earlier" if self._bounds.latest else "more"
            self._add(_stream("stderr", f"\n… {self._dropped:,} {which} displays were left out …\n"))
        self._left_out = self._dropped = 0

    def all(self) -> tuple[Output, ...]:
        """As nbformat 4 has them: adjacent pieces of a stream are one, and nothing is transient."""
        return tuple(merge_streams(self._all))

    def _on_stream(self, message: IopubMessage) -> None:
        self._clear_if_due()
        name = "stderr" if message.content.get("name") == "stderr" else "stdout"
        self._add_text(name, well_formed(str(message.content.get("text", ""))))
        if message.left_out:
            self._left_out += self._tail_size + message.left_out
            self._tail.clear()
            self._tail_size = 0
            self._text = self._bounds.head  # the rest goes to the tail: it must stay in order
        if message.ending:
            self._add_text(name, message.ending)

    def _add_text(self, name: str, text: str) -> None:
        room = self._bounds.head - self._text
        now, later = text[: max(0, room)], text[max(0, room) :]
        if now:
            self._text += len(now)
            self._add(_stream(name, now))
        if later:
            self._add_to_tail(name, later)

    def _add_to_tail(self, name: str, text: str) -> None:
        """Keep the last characters; they are passed on when nothing comes any more (``finish``)."""
        bound = self._bounds.tail
        if len(text) > bound:
            self._left_out += len(text) - bound
            text = text[-bound:]
        # In pieces: joining them at each print would take quadratic time.
        self._tail.append((name, text))
        self._tail_size += len(text)
        while self._tail_size > bound:
            first_name, first = self._tail.popleft()
            excess = min(self._tail_size - bound, len(first))
            self._left_out += excess
            self._tail_size -= excess
            if excess < len(first):
                self._tail.appendleft((first_name, first[excess:]))

    def _on_display(self, kind: str, content: Mapping[str, Any]) -> None:
        self._clear_if_due()
        given = content.get("data") or {}
        if self._bounds.latest:
            self._make_room(_weight(given))
        if not self._room_for_one():
            return
        data = self._bounded(given)
        output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": dict(content.get("metadata") or {})}
        if kind == "execute_result":
            output["execution_count"] = content.get("execution_count")
        display_id = (content.get("transient") or {}).get("display_id")
        if display_id is not None:
            self._displays.setdefault(str(display_id), []).append(len(self._all))
        self._add(output)

    def _make_room(self, weight: int) -> None:
        """Drop the oldest displays until one of that weight fits, as far as that is possible at all."""
        bounds = self._bounds
        while self._displayed >= bounds.count or (self._rich and self._rich + weight > bounds.rich):
            oldest = next((i for i, output in enumerate(self._all) if "data" in output), None)
            if oldest is None:
                return
            gone = self._all.pop(oldest)["data"]
            self._rich = max(0, self._rich - _weight(gone))
            self._displayed -= 1
            self._dropped += 1
            self.images_dropped += is_image(gone)
            # Later displays have moved up by one.
            places = ((name, [i - (i > oldest) for i in at if i != oldest]) for name, at in self._displays.items())
            self._displays = {name: at for name, at in places if at}

    def _room_for_one(self) -> bool:
        self._displayed += 1
        self._dropped += self._displayed > self._bounds.count
        return self._displayed <= self._bounds.count

    def _on_update(self, content: Mapping[str, Any]) -> None:
        display_id = str((content.get("transient") or {}).get("display_id"))
        # As in a front end, an update changes every display of that id, and none is added for an unknown one.
        for index in self._displays.get(display_id, ()):
            self._rich -= _weight(self._all[index]["data"])
            data = self._bounded(content.get("data") or {})
            changed = {"data": data, "metadata": dict(content.get("metadata") or {})}
            self._all[index].update(changed)
            self._notify({"output_type": "update_display_data", "index": index, **changed})

    def _bounded(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The bundle without the types that there is no room for; plain text has room first, HTML last."""
        kept: dict[str, Any] = {}
        left_out: list[str] = []
        for kind in sorted(data, key=lambda one: (one != "text/plain", one.startswith("text/html"))):
            value = data[kind]
            if isinstance(value, list) and all(isinstance(line, str) for line in value):  # else it is JSON
                value = "".join(value)
            if isinstance(value, str):
                value = well_formed(value)
            weight = _weight({kind: value})
            if self._rich + weight > self._bounds.rich:
                left_out.append(f"{kind}, {weight / 1e6:.1f} MB")
                continue
            self._rich += weight
            kept[kind] = value
        if left_out:
            kept["text/plain"] = f"{kept.get('text/plain', '')}\n(left out: {'; '.join(left_out)})".strip()
        return kept

    def _clear_if_due(self) -> None:
        """Do the clearing that waited for the next output, so that the old ones do not flicker away."""
        if not self._clear_next:
            return
        self._clear_next = False
        self._all.clear()
        self._displays.clear()
        self._tail.clear()
        self._text = self._rich = self._displayed = self._dropped = self._tail_size = self._left_out = 0
        self.images_dropped = 0
        self._notify({"output_type": "clear_output"})

    def _add(self, output: dict[str, Any]) -> None:
        self._all.append(output)
        self._notify(output)

    def _notify(self, output: Output) -> None:
        if self._on_output is not None:
            self._on_output(output)


def error_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """``{"ename","evalue","traceback"}`` of an ``error`` message or a failed reply, within bounds."""
    return {
        "ename": well_formed(str(content.get("ename", "")))[:500],
        "evalue": well_formed(str(content.get("evalue", "")))[:20_000],
        "traceback": [well_formed(str(line))[:20_000] for line in _bounded_frames(content.get("traceback") or ())],
    }


def _bounded_frames(frames: Sequence[object]) -> Sequence[object]:
    """At most 200 frames of a traceback (of an endless recursion, say), more of its end: that names the line."""
    if len(frames) <= 200:
        return frames
    return [*frames[:50], f"… {len(frames) - 199:,} frames left out …", *frames[-149:]]


def _stream(name: str, text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def _weight(data: Mapping[str, Any]) -> int:
    """About how many bytes it is as JSON."""
    return sum(len(value) if isinstance(value, str) else len(str(value)) for value in data.values())
