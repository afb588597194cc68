"""JSON-RPC as lines over this process's stdin and stdout, within bounds: for the commands that other programs start.

stdin is read and stdout written by a thread each: they may be pipes, files or a terminal, on every system, and a reader
that does not read never stops the event loop. What else this process prints goes to stderr, also what a library or a
child prints. Not responsible for what the messages mean.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import sys
import threading
from contextlib import suppress
from typing import Any

from ..input.json_input import load_json

MAX_MESSAGE = 32 * 2**20
"""Bytes of one message: room for a file of 20 MiB (``max_attachment_bytes``) as base64. A longer one is refused."""

MOST_REQUESTS = 64  # that are being answered at the same time; more are refused at once
_BACKLOG = 4 * 2**20  # bytes that wait to be written, from which on `send` waits
_CHUNK = 64 * 1024
_LARGE = 256 * 1024  # bytes from which on a message is parsed in a thread
_FLUSH = 2.0  # seconds for what is still to be written when this process ends

PARSE_ERROR, INVALID_REQUEST = -32700, -32600  # JSON-RPC 2.0, section 5.1
TOO_MANY = -32000  # of the range that JSON-RPC leaves to implementations

Message = dict[str, Any]


class StdioLines:
    """The messages of the program that has started this one. ``receive`` returns None once it has closed its end.

    A line that is no message is answered with its JSON-RPC error here, so ``receive`` returns messages only.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._input, self._output = _take_stdio()
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)
        self._unwritten: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._backlog = 0  # bytes in it
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._broken = False  # the other side does not read any more
        self._answering = 0  # requests that have no answer yet
        threading.Thread(target=self._read, name="navi-stdin", daemon=True).start()
        self._writer = threading.Thread(target=self._write, name="navi-stdout", daemon=True)
        self._writer.start()

    async def receive(self) -> Message | None:
        """The next message; None when no more will come."""
        while (line := await self._lines.get()) is not None:
            if not line.strip():
                continue
            if len(line) > MAX_MESSAGE:
                await self._refuse(INVALID_REQUEST, f"The message is larger than {MAX_MESSAGE} bytes, and was dropped.")
                continue
            try:
                message = load_json(line) if len(line) < _LARGE else await asyncio.to_thread(load_json, line)
            except ValueError as problem:
                await self._refuse(PARSE_ERROR, f"The line is not JSON: {problem}.")
                continue
            if (mistake := _mistake(message)) is not None:
                await self._refuse(INVALID_REQUEST, mistake)
                continue
            if "method" in message and "id" in message:
                if self._answering >= MOST_REQUESTS:
                    words = f"{MOST_REQUESTS} requests are being answered: wait for one of them."
                    await self.send(error_message(message["id"], TOO_MANY, words), counts=False)
                    continue
                self._answering += 1
            return dict(message)
        return None

    async def send(self, message: Message, *, counts: bool = True) -> None:
        """Write a message, after those before it. Waits while the other side does not read. ``counts``: a message with
        a result or an error answers a request. Raises ConnectionError once the other side has closed its end."""
        if self._broken:
            raise ConnectionError("stdout is closed")
        if counts and "method" not in message:
            self._answering -= 1
        # Put at once, before anything is awaited: messages leave in the order in which they were sent.
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self._put(text.encode("utf-8", "replace") + b"\n")
        await self._has_room.wait()

    def give_up_request(self) -> None:
        """A request will get no answer: the other side has cancelled it."""
        self._answering -= 1

    async def close(self) -> None:
        """Write what is left, within two seconds."""
        self._unwritten.put(None)
        await asyncio.to_thread(self._writer.join, _FLUSH)

    async def _refuse(self, code: int, words: str) -> None:
        await self.send(error_message(None, code, words), counts=False)

    def _put(self, line: bytes) -> None:
        self._backlog += len(line)
        if self._backlog > _BACKLOG:
            self._has_room.clear()
        self._unwritten.put(line)

    def _written(self, count: int) -> None:
        self._backlog -= count
        if self._backlog <= _BACKLOG:
            self._has_room.set()

    def _give_up(self) -> None:
        """The other side does not read any more: that is the end of the input, too."""
        self._broken = True
        self._has_room.set()
        while not self._lines.empty():
            self._lines.get_nowait()
        self._lines.put_nowait(None)

    # --- the threads -------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        with suppress(RuntimeError, OSError):  # the loop is closed: this process ends
            self._read_lines()
            self._hand_over(None)

    def _read_lines(self) -> None:
        parts: list[bytes] = []
        size = 0  # of the line so far; what is beyond the limit is counted, and not kept
        while chunk := os.read(self._input, _CHUNK):
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                size += len(end)
                # A line that is too long is handed over as so many zeros as make it too long.
                self._hand_over(b"".join([*parts, end]) if size <= MAX_MESSAGE else bytes(MAX_MESSAGE + 1))
                parts, size = [], 0
            size += len(rest)
            if size <= MAX_MESSAGE:
                parts.append(rest)
            else:
                parts.clear()
        if size:  # a last line without its end
            self._hand_over(b"".join(parts) if size <= MAX_MESSAGE else bytes(MAX_MESSAGE + 1))

    def _hand_over(self, line: bytes | None) -> None:
        """Waits while two lines wait already: the other side is held up, and memory does not grow."""
        asyncio.run_coroutine_threadsafe(self._lines.put(line), self._loop).result()

    def _write(self) -> None:
        with suppress(RuntimeError):
            while (line := self._unwritten.get()) is not None:
                view = memoryview(line)
                try:
                    while view:
                        view = view[os.write(self._output, view) :]
                except OSError:
                    self._loop.call_soon_threadsafe(self._give_up)
                    return
                self._loop.call_soon_threadsafe(self._written, len(line))


def error_message(request_id: str | int | None, code: int, words: str, data: object = None) -> Message:
    """A JSON-RPC error; without an id where the request's is not known."""
    error = {"code": code, "message": words} | ({"data": data} if data is not None else {})
    return {"jsonrpc": "2.0", "id": request_id, "error": error}


def _mistake(message: object) -> str | None:
    """What is wrong with the shape of a message."""
    if isinstance(message, list):
        return "A batch of messages is not taken: send each on a line of its own."
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return 'A message is an object with "jsonrpc": "2.0".'
    request_id, method = message.get("id"), message.get("method")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | None):
        return "The id of a message is a text or a whole number."
    if "method" in message and not isinstance(method, str):
        return "The method of a message is a text."
    if "method" not in message and not ("id" in message and ("result" in message or "error" in message)):
        return "A message has a method, or the id of a request with its result or error."
    return None


def _take_stdio() -> tuple[int, int]:
    """stdin and stdout for the protocol alone: whatever else writes to stdout from now on writes to stderr."""
    sys.stdout.flush()
    taken = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - os.devnull is a name, not a path everywhere
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return taken
