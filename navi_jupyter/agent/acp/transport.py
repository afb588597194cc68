"""JSON-RPC messages as lines through the pipes of an agent program: the ``Transport`` that the SDK's connection takes.

Our own, because a line here is bounded in size and read in linear time, foreign JSON is read within bounds, and what
the program reports of its session is taken in order and with back-pressure: its output is read no faster than its
reports are used. What has the shape of no message never reaches the SDK. Source: JSON-RPC 2.0, and the protocol's
transport over stdio (one message a line).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...input.json_input import load_json
from ...log_setup import get_logger
from ..mcp.guarded_process import CHUNK, Trace

log = get_logger("acp")

MAX_MESSAGE = 16 * 1024 * 1024  # bytes of one message: images are the largest that is sent
MAX_STRAY = 1000  # lines that are no messages (a program that prints to its own stdout), after which it is given up
UPDATE = "session/update"


class ProtocolBroken(Exception):
    """The program does not speak the protocol. Its message says how, in a sentence."""


@dataclass(frozen=True, slots=True)
class TurnReports:
    """What takes the reports of the turn in progress."""

    take: Callable[[Mapping[str, Any]], Awaitable[None]]
    """Takes an update. Returns when there is room for another; raises ProtocolBroken for what is too much."""
    offer_changed: Callable[[], None]  # called when the offer of the program has changed


class LineTransport:
    def __init__(
        self,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        trace: Trace,
        *,
        on_update: Callable[[Any], Awaitable[None]],
        answered: Callable[[], Awaitable[None]],
    ) -> None:
        """``on_update`` is awaited with the parameters of each ``session/update``, before the next message is read;
        ``answered`` before each request: it returns when there are few enough that wait for an answer."""
        self._stdin = stdin
        self._stdout = stdout
        self._trace = trace
        self._on_update = on_update
        self._answered = answered
        self._sending = asyncio.Lock()
        self._parts: list[bytes] = []  # of the line that is not complete
        self._lines: deque[bytes] = deque()  # complete ones
        self._stray = 0
        self.broken: str | None = None  # why the program was given up
        self.ended = asyncio.Event()  # set once nothing more is read from it

    async def send(self, message: dict[str, Any]) -> None:
        """Write a message. Raises ConnectionError when the program has ended."""
        line = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
        async with self._sending:
            self._stdin.write(line + b"\n")
            await self._stdin.drain()

    async def receive(self) -> dict[str, Any] | None:
        """The next request or response; None at the end, and for a program that does not speak the protocol."""
        try:
            while (line := await self._line()) is not None:
                message = self._read(line)
                if message is None:
                    continue
                if message.get("method") == UPDATE:
                    await self._on_update(message.get("params"))
                    continue
                if "method" in message:
                    await self._answered()
                return message
        except ProtocolBroken as error:
            self.broken = str(error)
            log.warning("agent_given_up", reason=self.broken)
        except OSError:
            pass  # the pipe has gone with the program
        self.ended.set()
        return None

    async def close(self) -> None:
        """Nothing: the owner of the process closes its pipes."""

    def _read(self, line: bytes) -> dict[str, Any] | None:
        """A message of the right shape; None for what is none, which programs print to their stdout by mistake."""
        try:
            message = load_json(line)
        except ValueError:
            message = None
        if isinstance(message, dict) and _is_message(message):
            return message
        self._stray += 1
        self._trace.add(line[:500])
        if self._stray > MAX_STRAY:
            raise ProtocolBroken(f"It has printed more than {MAX_STRAY} lines that are no messages of the protocol.")
        return None

    async def _line(self) -> bytes | None:
        while not self._lines:
            await asyncio.sleep(0)  # what is buffered is read without waiting: a flood must not hold up the loop
            chunk = await self._stdout.read(CHUNK)
            if not chunk:
                return None
            *complete, rest = chunk.split(b"\n")
            for part in complete:
                if line := b"".join([*self._parts, part]).strip():
                    self._lines.append(line)
                self._parts = []
            self._parts.append(rest)
            if sum(map(len, self._parts)) > MAX_MESSAGE:
                raise ProtocolBroken(f"It has sent a message of more than {MAX_MESSAGE // 2**20} MB.")
        return self._lines.popleft()


def _is_message(message: dict[str, Any]) -> bool:
    """Whether the SDK's connection can take it: it trusts the types of ids, methods and errors."""
    if not isinstance(message.get("id"), str | int | None):
        return False
    if "method" in message:
        return isinstance(message["method"], str)
    error = message.get("error")
    return "id" in message and (error is None or (isinstance(error, dict) and isinstance(error.get("code"), int)))
