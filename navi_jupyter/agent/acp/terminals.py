"""Commands that an agent program runs through Navi (``terminal/*``): processes under the guard, with bounded output.

They end with the run, with its stop, with the program, and with this server, also when it is killed. Not responsible
for whether a command may run (``permissions``).
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import LimitReached, NotFound
from ...log_setup import get_logger
from ...model.base import new_id
from ..mcp import process_guard

log = get_logger("agent")

MAX_TERMINALS = 16  # of one program, those that have ended and were not released included
MAX_KEPT = 1_000_000  # bytes of output of one terminal that are kept, its end
_CHUNK = 64 * 1024
_GRACE = process_guard.TERM_GRACE + process_guard.LAST_GRACE + 1.0  # seconds in which the guard ends what it runs
# The guard watches the other end of its input, which must therefore stay open: the command itself gets none.
_WITHOUT_INPUT = 'exec "$@" </dev/null'

REPORT_EVERY = 0.3  # seconds between two reports that a terminal has printed something

OnOutput = Callable[[str], None]
"""Called with the id of a terminal that has printed something. Must not raise or block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TerminalOutput:
    """What a terminal shows."""

    text: str
    truncated: bool  # whether its beginning is left out
    exit_code: int | None = None  # set when it has ended by itself
    signal: str | None = None  # set when a signal has ended it


class AgentTerminals:
    """The terminals of one agent program."""

    def __init__(self, environment: Mapping[str, str], on_output: OnOutput) -> None:
        """``environment``: of the program itself, which its commands get, too."""
        self._environment = dict(environment)
        self._on_output = on_output
        self._terminals: dict[str, _Terminal] = {}
        self._starting = 0
        self._released: dict[str, str] = {}  # what the last ones have printed: a call shows it for longer

    async def create(self, command: Sequence[str], cwd: str, env: Mapping[str, str], limit: int | None) -> str:
        """Start a command; the terminal's id. Raises LimitReached, NotFound (no such program), OSError."""
        if len(self._terminals) + self._starting >= MAX_TERMINALS:
            raise LimitReached(f"There are {MAX_TERMINALS} terminals: release one first.")
        if shutil.which(command[0], path=({**self._environment, **env}).get("PATH")) is None:
            raise NotFound(f"There is no program {command[0][:200]!r}.", field="command")
        self._starting += 1
        try:
            terminal_id = new_id("term")
            kept = MAX_KEPT if limit is None else min(limit, MAX_KEPT)
            terminal = _Terminal(kept, lambda: self._on_output(terminal_id))
            self._terminals[terminal_id] = terminal
            try:
                await terminal.start(command, cwd, {**self._environment, **env})
            except BaseException:
                del self._terminals[terminal_id]
                raise
        finally:
            self._starting -= 1
        return terminal_id

    def output(self, terminal_id: str) -> TerminalOutput:
        """What it shows now. Raises NotFound."""
        return self._find(terminal_id).output()

    async def wait(self, terminal_id: str) -> TerminalOutput:
        """What it shows once its command has ended. Raises NotFound."""
        terminal = self._find(terminal_id)
        await terminal.ended.wait()
        return terminal.output()

    async def kill(self, terminal_id: str) -> None:
        """End the command with all of its processes; what it has shown can still be read. Raises NotFound."""
        await self._find(terminal_id).end()

    async def release(self, terminal_id: str) -> None:
        """End the command and forget the terminal. Raises NotFound."""
        terminal = self._find(terminal_id)
        await terminal.end()
        self._terminals.pop(terminal_id, None)
        self._released[terminal_id] = terminal.output().text
        while len(self._released) > MAX_TERMINALS:
            del self._released[next(iter(self._released))]

    def text(self, terminal_id: str) -> str | None:
        """What a terminal has printed, also one that was released; None for one that is not known."""
        terminal = self._terminals.get(terminal_id)
        return self._released.get(terminal_id) if terminal is None else terminal.output().text

    async def end_all(self) -> None:
        """End all commands and forget their terminals."""
        # Forgotten only then: a second call, after the first was cancelled, has to wait for them, too.
        await asyncio.gather(*(terminal.end() for terminal in self._terminals.values()), return_exceptions=True)
        self._terminals.clear()
        self._released.clear()

    def _find(self, terminal_id: str) -> _Terminal:
        terminal = self._terminals.get(terminal_id)
        if terminal is None:
            raise NotFound(f"There is no terminal {terminal_id[:100]!r}.", field="terminalId")
        return terminal


class _Terminal:
    """One command."""

    def __init__(self, limit: int, on_output: Callable[[], None]) -> None:
        self.ended = asyncio.Event()
        self._limit = limit
        self._on_output = on_output
        self._report: asyncio.TimerHandle | None = None
        self._kept = b""
        self._truncated = False
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self, command: Sequence[str], cwd: str, env: Mapping[str, str]) -> None:
        """Start the command under the guard. Raises OSError."""
        script = str(Path(process_guard.__file__))
        guard = (sys.executable, "-I", "-S", script, str(os.getpid()))
        spawn = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *guard, "/bin/sh", "-c", _WITHOUT_INPUT, "sh", *command,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=dict(env), cwd=cwd, start_new_session=True,
            )
        )  # fmt: skip
        try:
            self._process = await asyncio.shield(spawn)
        except asyncio.CancelledError:
            # A process that is about to be there is ended by the closing of its input.
            spawn.add_done_callback(_abandon)
            raise
        self._reading = asyncio.create_task(self._read(self._process), name="navi-agent-terminal")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        stdout = process.stdout
        try:
            while stdout is not None and (chunk := await stdout.read(_CHUNK)):
                self._keep(chunk)
                if self._report is None:
                    self._report = asyncio.get_running_loop().call_later(REPORT_EVERY, self._printed)
            await process.wait()
        finally:
            self.ended.set()
            if self._report is not None:
                self._report.cancel()
                self._on_output()

    def _printed(self) -> None:
        self._report = None
        self._on_output()

    def _keep(self, chunk: bytes) -> None:
        kept = self._kept + chunk
        if len(kept) > self._limit:
            self._truncated = True
            kept = kept[len(kept) - self._limit :]
            # It begins with a whole character.
            start = next((at for at, byte in enumerate(kept[:4]) if byte & 0xC0 != 0x80), 0)
            kept = kept[start:]
        self._kept = kept

    def output(self) -> TerminalOutput:
        """What it shows now."""
        text = self._kept.decode("utf-8", "replace")
        code = None if self._process is None or not self.ended.is_set() else self._process.returncode
        if code is None:
            return TerminalOutput(text=text, truncated=self._truncated)
        number = -code if code < 0 else code - 128 if code > 128 else 0
        with suppress(ValueError):
            # The guard ends with 128 and the number of the signal that has ended its program.
            name = signal.Signals(number).name if number else None
            if name is not None:
                return TerminalOutput(text=text, truncated=self._truncated, signal=name)
        return TerminalOutput(text=text, truncated=self._truncated, exit_code=abs(code))

    async def end(self) -> None:
        """End the command with all of its processes. Returns when they are gone, or could not be ended.

        It goes on also when the caller is cancelled: nothing else would end them.
        """
        if self._process is None or self._reading is None:
            return
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(self._process, self._reading), name="navi-agent-terminal-end")
        await asyncio.shield(self._ending)

    async def _end(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()  # the guard, which kills what it runs
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(reading), _GRACE)
        if process.returncode is None:
            log.warning("agent_terminal_lingers", pid=process.pid)
            with suppress(ProcessLookupError):
                process.kill()
        if process.stdin is not None:
            process.stdin.close()
        if not reading.done():
            reading.cancel()
        await asyncio.wait({reading})


def _abandon(spawn: asyncio.Task[asyncio.subprocess.Process]) -> None:
    if not spawn.cancelled() and spawn.exception() is None and (stdin := spawn.result().stdin) is not None:
        stdin.close()


def command_line(command: str, args: Sequence[str]) -> tuple[list[str], str]:
    """The program with its arguments, and the same as a line for the user.

    Without arguments the command is what a shell reads, unless it is the name of a program as a whole.
    """
    if args or shutil.which(command) is not None:
        return [command, *args], shlex.join([command, *args])
    return ["/bin/sh", "-c", command], command
