"""What a kernel says, taken off the wire without ever holding the event loop for a 50 MB print.

Small messages are decoded where they arrive. Large ones go to a thread; a very large stream is not decoded at all: its
two ends are cut out of the raw JSON. Not responsible for what messages mean.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SMALL = 64 * 1024
"""Bytes of content up to which a message is decoded on the loop: well under a millisecond."""
CUT = 512 * 1024
"""Bytes of content from which a stream is cut instead of decoded."""
END = 192 * 1024
"""Bytes that are kept of each end."""
REFUSED = 32 * 1024 * 1024
"""Bytes of content from which anything else is replaced by a note."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(rb'"name"\s*:\s*"(stdout|stderr)"')
_TEXT = re.compile(rb'"text"\s*:\s*"')
_CLOSING = re.compile(rb'"\s*(?:,\s*"name"\s*:\s*"\w+"\s*)?\}\s*$')


@dataclass(frozen=True, kw_only=True, slots=True)
class IopubMessage:
    """A message of a kernel."""

    kind: str
    """Its ``msg_type``."""
    sender: str
    """Which process said it: a kernel that was restarted has another one."""
    parent_id: str
    """The request that it is about; empty for none."""
    parent_kind: str
    content: Mapping[str, Any]
    left_out: int = 0
    """Characters (about) that were cut out of the middle of a stream's text, after ``content["text"]``."""
    ending: str = ""
    """What came after them."""


def of_message(message: Mapping[str, Any]) -> IopubMessage:
    """A message that is decoded already."""
    header, parent = message["header"], message.get("parent_header") or {}
    return IopubMessage(
        kind=str(header["msg_type"]),
        sender=str(header.get("session", "")),
        parent_id=str(parent.get("msg_id", "")),
        parent_kind=str(parent.get("msg_type", "")),
        content=message.get("content") or {},
    )


async def of_frames(frames: Sequence[bytes], session: Any) -> IopubMessage | None:
    """A message as ZMQ brought it. ``session``: jupyter_client's, which knows the key. None: torn or forged."""
    try:
        _, parts = session.feed_identities(list(frames))
        if len(parts) < 5:
            return None
        if len(parts[4]) <= SMALL:
            return of_message(session.deserialize(parts))
        return await asyncio.to_thread(_large, parts, session)
    except (ValueError, TypeError, KeyError):
        return None


def _large(parts: Sequence[bytes], session: Any) -> IopubMessage:
    size = len(parts[4])
    header = json.loads(parts[1])
    kind = header["msg_type"]
    if size < (CUT if kind == "stream" else REFUSED):
        return of_message(session.deserialize(list(parts)))
    if session.auth is not None and parts[0] != session.sign(list(parts[1:5])):
        raise ValueError("not signed by this kernel")
    parent = json.loads(parts[2])
    said = {
        "kind": kind,
        "sender": str(header.get("session", "")),
        "parent_id": str(parent.get("msg_id", "")),
        "parent_kind": str(parent.get("msg_type", "")),
    }
    if kind == "stream":
        name, text, left_out, ending = cut_stream(parts[4])
        return IopubMessage(**said, content={"name": name, "text": text}, left_out=left_out, ending=ending)
    return IopubMessage(**said, content=_note(kind, size))


def _note(kind: str, size: int) -> dict[str, Any]:
    text = f"(an output of {size / 1e6:.0f} MB was left out)"
    if kind == "error":
        return {"ename": "Error", "evalue": text, "traceback": []}
    return {"data": {"text/plain": text}, "metadata": {}}


def cut_stream(raw: bytes, end: int = END) -> tuple[str, str, int, str]:
    """``{"name","text"}`` as JSON: the name, the beginning, about how many characters are left out, the ending."""
    name = _NAME.search(raw[:200]) or _NAME.search(raw[-200:])
    start, closing = _TEXT.search(raw[:400]), _CLOSING.search(raw[-200:])
    if start is None or closing is None:
        return "stdout", "", len(raw), ""
    first, last = start.end(), max(0, len(raw) - 200) + closing.start()
    head, tail = raw[first : first + end], raw[max(first + end, last - end) : last]
    left_out = max(0, last - first - len(head) - len(tail))
    return name[1].decode() if name else "stdout", _beginning(head), left_out, _ending(tail)


def _beginning(raw: bytes) -> str:
    """The text of the beginning of a JSON string that was cut anywhere: in a character, in an escape."""
    for dropped in range(16):  # a surrogate pair of escapes is twelve bytes
        try:
            text: str = json.loads(b'"' + raw[: len(raw) - dropped] + b'"', strict=False)
        except ValueError:  # JSON or UTF-8
            continue
        return well_formed(text[:-1] if _SURROGATE.match(text[-1:]) else text)
    return ""


def _ending(raw: bytes) -> str:
    """The text of the end of a JSON string that was cut anywhere."""
    for dropped in range(16):
        try:
            text: str = json.loads(b'"' + raw[dropped:] + b'"', strict=False)
        except ValueError:
            continue
        return well_formed(text[1:] if _SURROGATE.match(text) else text)
    return ""


def well_formed(text: str) -> str:
    """``text`` without halves of surrogate pairs, which no encoder takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
