"""The wire of a kernel: where it listens, and its messages, decoded without holding the event loop for a 50 MB print.

Small messages are decoded at once. A very large stream is not decoded at all: its two ends are cut out of the raw JSON.
Not responsible for what messages mean, or for reading IOPub (``iopub``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from queue import Empty
from typing import Any

from jupyter_client.session import DELIM
from jupyter_client.session import Session as JupyterSession
from jupyter_core.utils import ensure_async
from tornado.web import HTTPError

from ...input.json_input import load_json, well_formed
from ...log_setup import get_logger
from ...navi_cells import AGENT_USER, LENT_ERROR
from ...ports.jupyter import KernelStatus

log = get_logger("kernels")

BUSY_PATIENCE = 3.0
"""Seconds to wait for the answer of a busy kernel: old ones serve the control channel only between cells."""
SMALL = 64 * 1024  # bytes of content up to which a message is decoded on the loop: well under a millisecond
END = 192 * 1024  # bytes that are kept of each end of a stream that is cut
_ANSWER_WITHIN = 2.0
_POLL = 0.02  # seconds between polls of a gateway's channel, which offers nothing to wait for without spinning the loop

_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(rb'"name"\s*:\s*"(stdout|stderr)"')
_TEXT = re.compile(rb'"text"\s*:\s*"')
_CLOSING = re.compile(rb'"\s*(?:,\s*"name"\s*:\s*"\w+"\s*)?\}\s*$')


def process_of(manager: Any) -> object:
    """Identifies a kernel's process; None for a kernel behind a gateway, which does not show it."""
    return getattr(getattr(manager, "provisioner", None), "pid", None)


def ports_of(manager: Any) -> object:
    """The ports where it listens; None for a kernel behind a gateway."""
    if getattr(manager, "provisioner", None) is None and not getattr(manager, "shell_port", 0):
        return None
    return tuple(getattr(manager, "ports", ()))


def state_of(manager: Any) -> str:
    """As Jupyter has it, which listens to the kernel too: ``starting idle busy dead …``."""
    return str(getattr(manager, "execution_state", None) or "starting")


_STATUS: Mapping[str, KernelStatus] = {
    "starting": "starting",
    "restarting": "starting",
    "autorestarting": "starting",
    "idle": "idle",
    "busy": "busy",
    "dead": "dead",
    "terminating": "dead",
}


def status_of(manager: Any) -> KernelStatus:
    """The same in our words."""
    return _STATUS.get(state_of(manager), "idle")


def language_of(manager: Any) -> str | None:
    """By the kernel's specification; a gateway's is not at hand."""
    return getattr(getattr(manager, "_kernel_spec", None), "language", None)


async def is_alive(manager: Any) -> bool:
    """Whether the kernel's process is there, as far as Jupyter knows."""
    try:
        return bool(await ensure_async(manager.is_alive()))
    except (RuntimeError, OSError, HTTPError) as error:  # of a provisioner or a gateway
        log.warning("kernel_not_reachable", kernel_id=getattr(manager, "kernel_id", None), error=str(error))
        return False


async def address_answers(file: Path) -> bool | None:
    """Whether a process listens at the address in a connection file; None when there is no such file."""
    try:
        address = json.loads(await asyncio.to_thread(file.read_text))
        host, port = str(address["ip"]), int(address["shell_port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            if address.get("transport") == "ipc":
                _, writer = await asyncio.open_unix_connection(f"{host}-{port}")
            else:
                _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def agent_session(theirs: Any) -> JupyterSession:
    """A session with the manager's key and an id of its own: the id is our address, and two with one lose messages."""
    return JupyterSession(
        config=theirs.config, key=theirs.key, signature_scheme=theirs.signature_scheme, username=AGENT_USER
    )


def connect_to_gateway(client: Any) -> None:
    """Start a gateway client's channels. For a thread: it blocks until the gateway has answered."""
    asyncio.run(ensure_async(client.start_channels(stdin=False, hb=False)))


@dataclass(frozen=True, slots=True)
class Parent:
    """The request that a message is about; empty fields for none."""

    id: str = ""
    kind: str = ""
    username: str = ""
    session: str = ""

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Parent:
        """From a decoded ``parent_header``."""
        return cls(*(str(header.get(name, "")) for name in ("msg_id", "msg_type", "username", "session")))


@dataclass(frozen=True, kw_only=True, slots=True)
class IopubMessage:
    """A message of a kernel, decoded."""

    kind: str  # its `msg_type`
    sender: str  # the kernel process that sent it: a kernel that was restarted has another one
    parent: Parent
    content: Mapping[str, Any]
    left_out: int = 0  # characters (about) that were cut out of the middle of a stream's text, after `content["text"]`
    ending: str = ""  # what came after them
    lent: bool = False  # an error of code that an agent executes in a cell which waits: the cell itself goes on


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeLimits:
    """Up to what size contents are decoded. Decoding JSON holds all threads of Python, the loop's too."""

    cut: int = 512 * 1024  # bytes of content from which a stream is cut instead
    end: int = END
    largest: int = 32 * 2**20  # bytes of content from which anything else is replaced by a note


@dataclass(frozen=True, slots=True)
class RawMessage:
    """A message whose signature was checked and whose content is still JSON."""

    kind: str
    sender: str
    parent: Parent
    content: bytes
    lent: bool = False

    def decode(self, limits: DecodeLimits) -> IopubMessage:
        """Raises ValueError when the content is no JSON."""
        left_out, ending = 0, ""
        decoded: Mapping[str, Any]
        if self.kind == "stream" and len(self.content) > limits.cut:
            name, text, left_out, ending = cut_stream(self.content, limits.end)
            decoded = {"name": name, "text": text}
        elif len(self.content) > limits.largest:
            note = f"(an output of {len(self.content) / 1e6:.0f} MB was left out)"
            # For whatever it is: a display, an error, an input.
            decoded = {"data": {"text/plain": note}, "ename": "Error", "evalue": note, "traceback": [], "code": note}
        else:
            decoded = load_json(self.content)
        return IopubMessage(
            kind=self.kind,
            sender=self.sender,
            parent=self.parent,
            content=decoded,
            left_out=left_out,
            ending=ending,
            lent=self.lent,
        )


class MessageParser:
    """Takes apart what ZMQ brought. ``session``: jupyter_client's, which has the kernel's key. For one thread."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._parent: tuple[bytes, Parent] = (b"", Parent())

    def parse(self, frames: Sequence[bytes], about: Sequence[bytes] = ()) -> RawMessage | None:
        """None for a message that is incomplete, forged, or about another kind of request than ``about``."""
        try:
            at = frames.index(DELIM)
            signature, header, parent, metadata, content = frames[at + 1 : at + 6]
            if about and not any(kind in parent for kind in about):
                return None  # comms of widgets come by the thousand: not worth their signature
            parts = [header, parent, metadata, content]
            if self._session.auth is not None and not compare_digest(signature, self._session.sign(parts)):
                return None
            if parent != self._parent[0]:  # a cell's messages come one after the other, with the same parent
                self._parent = parent, Parent.of(load_json(parent))
            decoded = load_json(header)
            kind = str(decoded["msg_type"])
            # Only errors say something about their cell; nothing else is worth the decoding of its metadata.
            lent = kind == "error" and bool(load_json(metadata).get(LENT_ERROR))
            return RawMessage(kind, str(decoded.get("session", "")), self._parent[1], content, lent)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


async def next_message(channel: Any, parser: MessageParser) -> IopubMessage | None:
    """The next message of a client's channel. None: torn or forged."""
    socket = getattr(channel, "socket", None)
    if socket is None:
        return await _next_of_gateway(channel)
    raw = parser.parse(await socket.recv_multipart())
    if raw is None:
        return None
    try:
        if len(raw.content) <= SMALL:
            return raw.decode(DecodeLimits())
        return await asyncio.to_thread(raw.decode, DecodeLimits())
    except ValueError:
        return None


async def _next_of_gateway(channel: Any) -> IopubMessage:
    while True:
        try:
            message = await channel.get_msg(timeout=0)
        except Empty:
            await asyncio.sleep(_POLL)
            continue
        header = message["header"]
        return IopubMessage(
            kind=str(header["msg_type"]),
            sender=str(header.get("session", "")),
            parent=Parent.of(message.get("parent_header") or {}),
            content=message.get("content") or {},
        )


def cut_stream(raw: bytes, end: int = END) -> tuple[str, str, int, str]:
    """``{"name","text"}`` as JSON: the name, the beginning, about how many characters are left out, the ending."""
    name = _NAME.search(raw[:200]) or _NAME.search(raw[-200:])
    start, closing = _TEXT.search(raw[:400]), _CLOSING.search(raw[-200:])
    if start is None or closing is None:
        return "stdout", "", len(raw), ""
    first, last = start.end(), max(0, len(raw) - 200) + closing.start()
    head, tail = raw[first : first + end], raw[max(first + end, last - end) : last]
    left_out = max(0, last - first - len(head) - len(tail))
    return name[1].decode() if name else "stdout", _decoded(head, start=True), left_out, _decoded(tail, start=False)


def _decoded(raw: bytes, *, start: bool) -> str:
    """The text of the start (or end) of a JSON string that was cut anywhere: in a character, in an escape."""
    for dropped in range(16):  # a surrogate pair of escapes is twelve bytes
        piece = raw[: len(raw) - dropped] if start else raw[dropped:]
        try:
            text: str = json.loads(b'"' + piece + b'"', strict=False)
        except ValueError:  # JSON or UTF-8
            continue
        if _SURROGATE.match(text[-1:] if start else text):
            text = text[:-1] if start else text[1:]
        return well_formed(text)
    return ""
