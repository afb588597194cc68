"""The outputs of code in a lent kernel: taken where ipykernel publishes them, bounded, kept until the server has them.

Not responsible for executing the code (``execution``) or for sending frames (``loan``).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...navi_cells import LENT_ERROR
from ..client.io_thread import io_thread
from ..shell import current_request

Content = Mapping[str, Any]

_OUTPUTS = ("stream", "display_data", "update_display_data", "execute_result", "error", "clear_output")
_DRAIN = 0.25  # seconds to wait at most for what a subprocess has written and ipykernel has not read yet
_HEAD = 256 * 1024  # characters of text that are sent as they come
_TAIL = 128 * 1024  # characters that are kept of what comes after, the last ones, and sent at the end
_PIECE = 64 * 1024  # characters up to which pieces of a stream that wait are sent as one
_DISPLAYS = 1000
_LARGEST = 6 * 1024 * 1024  # characters of one display: a frame is JSON of at most ten MiB
_RICH = 24 * 1024 * 1024  # characters of all displays
_FRAMES = 200  # lines of a traceback, and
_LINE = 20_000  # characters of each


class PublishedOutputs:
    """What the kernel publishes in the name of the running cell, while this is open; ``hidden`` keeps it from view.

    Every version of ipykernel sends streams, displays, results and tracebacks by the same method of its session.
    """

    def __init__(self, kernel: Any, take: Callable[[str, Content], None], *, hidden: bool) -> None:
        self._shell = kernel.shell
        self._session = kernel.session
        self._publisher = getattr(kernel.iopub_socket, "io_thread", None)  # ipykernel's thread for IOPub
        self._take = take
        self._hidden = hidden
        self._cell = _id_of(current_request())
        self._process = os.getpid()
        self._send: Any = None
        self._sending = threading.local()
        self._redirected = contextlib.ExitStack()

    def __enter__(self) -> None:
        _flush()
        self._send = self._session.send
        self._session.send = self._on_send
        self._redirected.callback(delattr, self._session, "send")
        if self._publisher is not None:
            publish = self._publisher.send_multipart
            self._publisher.send_multipart = lambda *args, **more: self._on_multipart(publish, *args, **more)
            self._redirected.callback(delattr, self._publisher, "send_multipart")
        self._read_captures()

    def __exit__(self, *_: object) -> None:
        with self._redirected:
            _drain_pipes()
            _flush()

    def _read_captures(self) -> None:
        """What a cell captures (``%%capture``, ``redirect_stdout``) never gets to the session: it is taken before."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not hasattr(stream, "pub_thread"):
                copied = _CopiedStream(stream, name, self._take, hidden=self._hidden)
                setattr(sys, name, copied)
                self._redirected.callback(_put_back, name, copied, stream)
        captured = getattr(self._shell.display_pub, "outputs", None)
        if isinstance(captured, list) and not hasattr(self._shell.display_pub, "pub_socket"):
            before = len(captured)
            self._redirected.callback(self._read_displays, captured, before)

    def _read_displays(self, captured: list[Any], before: int) -> None:
        for output in captured[before:]:
            kind = "update_display_data" if output.get("update") else "display_data"
            fields = {name: output.get(name) or {} for name in ("data", "metadata", "transient")}
            self._take(kind, json.loads(json.dumps(fields, default=_as_text)))
        if self._hidden:
            del captured[before:]

    def _on_multipart(self, publish: Callable[..., Any], message: Any, *rest: Any, **more: Any) -> Any:
        # What is not on its way through the session's own send comes from a process that was forked off.
        if os.getpid() == self._process and not getattr(self._sending, "now", False):
            with contextlib.suppress(Exception):  # of a message in another form
                _, parts = self._session.feed_identities(list(message))
                found = self._session.deserialize(parts)
                if found["msg_type"] in _OUTPUTS and _id_of(found["parent_header"]) == self._cell:
                    self._take(found["msg_type"], found["content"])
                    if self._hidden:
                        return None
        return publish(message, *rest, **more)

    def _on_send(
        self, stream: Any, message: Any, content: Any = None, parent: Any = None, *rest: Any, **more: Any
    ) -> Any:
        # A forked child has this session, too, and no thread that would read; the run's own paintings are not outputs.
        if os.getpid() == self._process and not io_thread().current:
            kind = message if isinstance(message, str) else message.get("msg_type")
            about = parent if isinstance(message, str) else message.get("parent_header")
            if kind in _OUTPUTS and _id_of(about) == self._cell:
                self._take(str(kind), content if isinstance(message, str) else message["content"])
                if self._hidden:
                    return message
                if kind == "error" and isinstance(message, str):
                    # Of the code, and not of the cell in whose name it is sent: recalls on the cell do not mean it.
                    more["metadata"] = {**(more.get("metadata") or {}), LENT_ERROR: True}
        self._sending.now = True
        try:
            return self._send(stream, message, content, parent, *rest, **more)
        finally:
            self._sending.now = False


class _CopiedStream:
    """A stream that the user's cell has put in the place of stdout or stderr; what is written is taken as well."""

    def __init__(self, stream: Any, name: str, take: Callable[[str, Content], None], *, hidden: bool) -> None:
        self._stream, self._name, self._take, self._hidden = stream, name, take, hidden

    def write(self, text: str) -> Any:
        """As the stream does."""
        self._take("stream", {"name": self._name, "text": text})
        return len(text) if self._hidden else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As the stream does."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _put_back(name: str, copied: object, stream: object) -> None:
    if getattr(sys, name) is copied:  # else the code has put another one there, and keeps it
        setattr(sys, name, stream)


def _as_text(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _id_of(message: Any) -> str:
    """The id of a message, or of one whose header is given."""
    given = message or {}
    return str((given.get("header") or given).get("msg_id") or "")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # of whatever the user has put there
            stream.flush()


def _drain_pipes() -> None:
    """Wait until ipykernel has read what subprocesses and C code have written to the process's own streams."""
    pipes = [fd for fd in (getattr(stream, "_fid", None) for stream in (sys.stdout, sys.stderr)) if isinstance(fd, int)]
    if not pipes or os.name != "posix":
        return
    deadline, quiet = time.monotonic() + _DRAIN, 0
    while quiet < 2 and time.monotonic() < deadline:  # twice: what was read is written to the stream a moment later
        quiet = 0 if select.select(pipes, (), (), 0)[0] else quiet + 1
        time.sleep(0.001)


class LentResults:
    """The results of one execution, bounded, until the server has confirmed them. Filled on any thread."""

    def __init__(self, execution_id: str, wake: Callable[[], None]) -> None:
        self.id = execution_id
        self.ended = False
        self.held = False  # the end is not sent yet
        self._wake = wake
        self._lock = threading.RLock()  # a signal's handler may run code that prints
        self._frames: list[dict[str, Any]] = []
        self._sent = 0  # the number of the last frame that was sent
        self._count = 0
        self._clear_next = False
        self._reset()

    def _reset(self) -> None:
        self._text = self._displayed = self._rich = self._left_out = self._tail_size = 0
        self._tail: deque[tuple[str, str]] = deque()

    def begin(self) -> None:
        """The execution has begun."""
        self._add({"type": "begun"})

    def output(self, kind: str, content: Content) -> None:
        """An output, as a message of IOPub has it."""
        with self._lock:
            if kind == "clear_output":
                self._clear_next = True
                if not content.get("wait"):
                    self._clear()
                return
            if self._clear_next and kind != "update_display_data":
                self._clear()
            if kind == "stream":
                self._on_stream(str(content.get("name")), str(content.get("text", "")))
            elif kind == "update_display_data":
                self._on_update(content)
            elif kind == "error":
                self._add_output(kind, _short_traceback(content))
            else:
                self._on_display(kind, content)

    def end(self, reply: Content) -> None:
        """The execution is over; the content of its ``execute_reply``."""
        with self._lock:
            if self._left_out:
                self._add_output("stream", {"name": "stdout", "text": ""}, left_out=self._left_out)
            for name, text in self._tail:
                self._add_stream(name, text)
            if self._displayed > _DISPLAYS:
                text = f"\n… {self._displayed - _DISPLAYS:,} more displays were left out …\n"
                self._add_stream("stderr", text)
            self._reset()
            self._add({"type": "ended", "reply": _short_traceback(reply)})
            self.ended = True

    def unsent(self) -> list[dict[str, Any]]:
        """The frames that are to be sent next, in order; they count as sent."""
        with self._lock:
            frames = [frame for frame in self._frames if frame["n"] > self._sent]
            if self.held and frames and frames[-1]["type"] == "ended":
                frames.pop()
            self._sent = frames[-1]["n"] if frames else self._sent
            return frames

    def send_again(self) -> None:
        """The connection was lost: nothing counts as sent."""
        with self._lock:
            self._sent = 0

    def _add(self, frame: dict[str, Any]) -> None:
        with self._lock:
            self._count += 1
            # ``n`` counts the frames of an execution, so that one which comes twice is known.
            self._frames.append({**frame, "id": self.id, "n": self._count})
        self._wake()

    def _add_output(self, kind: str, content: Content, *, left_out: int = 0) -> None:
        self._add({"type": "output", "kind": kind, "content": content, **({"left_out": left_out} if left_out else {})})

    def _clear(self) -> None:
        """What was there is gone, here too: only what comes after the last clearing is kept and sent."""
        self._clear_next = False
        self._frames = [frame for frame in self._frames if frame["type"] == "begun"]
        self._reset()
        self._add_output("clear_output", {"wait": False})

    def _on_stream(self, name: str, text: str) -> None:
        room = max(0, _HEAD - self._text)
        now, later = text[:room], text[room:]
        if now:
            self._text += len(now)
            self._add_stream(name, now)
        if not later:
            return
        if len(later) > _TAIL:
            self._left_out += len(later) - _TAIL
            later = later[-_TAIL:]
        self._tail.append((name, later))
        self._tail_size += len(later)
        while self._tail_size > _TAIL:
            first_name, first = self._tail.popleft()
            excess = min(self._tail_size - _TAIL, len(first))
            self._left_out += excess
            self._tail_size -= excess
            if excess < len(first):
                self._tail.appendleft((first_name, first[excess:]))

    def _add_stream(self, name: str, text: str) -> None:
        last = self._frames[-1] if self._frames else {}
        if last.get("kind") == "stream" and last["n"] > self._sent and "left_out" not in last:
            there = last["content"]
            if there["name"] == name and len(there["text"]) + len(text) <= _PIECE:
                last["content"] = {"name": name, "text": there["text"] + text}
                return
        self._add_output("stream", {"name": name, "text": text})

    def _on_display(self, kind: str, content: Content) -> None:
        self._displayed += 1
        if self._displayed <= _DISPLAYS:
            self._add_output(kind, self._bounded(content))

    def _on_update(self, content: Content) -> None:
        # Only the last of many updates of a display counts (of a progress bar, say).
        self._frames = [
            frame
            for frame in self._frames
            if frame.get("kind") != "update_display_data" or _display_id(frame["content"]) != _display_id(content)
        ]
        self._add_output("update_display_data", self._bounded(content, counted=False))

    def _bounded(self, content: Content, *, counted: bool = True) -> dict[str, Any]:
        """The display without the types that there is no room for, the largest ones first."""
        data = dict(content.get("data") or {})
        sizes = {kind: len(value) if isinstance(value, str) else len(str(value)) for kind, value in data.items()}
        room = min(_LARGEST, _RICH - self._rich)
        left_out = []
        for kind in sorted(sizes, key=lambda one: (one == "text/plain", -sizes[one])):
            if sum(sizes[one] for one in data) <= room:
                break
            del data[kind]
            left_out.append(f"{kind}, {sizes[kind] / 1e6:.1f} MB")
        if counted:
            self._rich += sum(sizes[kind] for kind in data)
        if left_out:
            data["text/plain"] = f"{data.get('text/plain', '')}\n(left out: {'; '.join(left_out)})".strip()
        return {**content, "data": data}


def _display_id(content: Content) -> object:
    return (content.get("transient") or {}).get("display_id")


def _short_traceback(content: Content) -> Content:
    lines = [str(line)[:_LINE] for line in content.get("traceback") or ()]
    if len(lines) > _FRAMES:
        left_out = len(lines) - _FRAMES
        lines = [*lines[: _FRAMES // 4], f"… {left_out:,} frames left out …", *lines[-(_FRAMES * 3 // 4) :]]
    return {**content, "traceback": lines} if "traceback" in content else content
