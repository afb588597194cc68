"""Questions of a run in the cell that waits for it: asked at an input prompt where no page shows buttons.

A page that draws the question's output reports it to the server, which is asked here a moment later. Not responsible
for how a question looks (``display.render``) or for what a waiting cell does besides (``ask``).
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from typing import Any, TextIO

from .client.client import Client
from .client.io_thread import io_thread
from .display.run_view import QuestionPart, RunView
from .errors import KernelError, Refused
from .grammar.answers import Interview, UserAnswer, interview
from .main_thread import MainThreadQueue
from .shell import claim_as, current_kernel, current_request, current_shell, waiting_claim

BUTTONS_WITHIN = 0.5  # seconds in which a page has reported that it shows buttons; then the cell asks at a prompt
_READ_EVERY = 1.0  # seconds between two looks whether a page shows buttons after all
_TICK = 0.05  # seconds between two looks at what ends a prompt
_LINE = 0.02  # seconds to wait for what is typed, each time


class KernelInput:
    """The front end's input box, which can be given up: ipykernel's own ``input()`` ends with a line or by Ctrl-C only.

    Here and below, ``begin`` shows a prompt, and what was typed for an earlier one counts no more; ``poll`` has the
    line once there is one, and raises EOFError where none can come any more. By the cell's thread only.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def begin(self, prompt: str) -> None:
        """Send the request under the running cell."""
        import zmq  # late: a kernel has it, a program may not

        sys.stdout.flush()
        sys.stderr.flush()
        with suppress(zmq.Again):
            while True:  # a reply to a request that was given up
                self._kernel.stdin_socket.recv_multipart(zmq.NOBLOCK)
        self._kernel.session.send(
            self._kernel.stdin_socket,
            "input_request",
            {"prompt": prompt, "password": False},
            self._kernel.get_parent("shell"),
            ident=self._kernel._parent_ident["shell"],  # noqa: SLF001 - ipykernel has no other name for whom it asks
        )

    def poll(self, timeout: float) -> str | None:
        """Wait for the reply."""
        if not self._kernel.stdin_socket.poll(int(timeout * 1000)):
            return None
        _, reply = self._kernel.session.recv(self._kernel.stdin_socket)
        if reply is None:
            return None
        line = str((reply.get("content") or {}).get("value", ""))
        if line == "\x04":
            raise EOFError
        return line


class TerminalInput:
    """The terminal of an IPython that is no kernel, or of a command of the shell."""

    def __init__(self, shown_on: TextIO | None = None) -> None:
        """``shown_on``: where prompts are written; the default is what cells print to."""
        self._shown_on = shown_on

    def begin(self, prompt: str) -> None:
        """Print it. What was typed before it was shown was meant for something else, and answers nothing."""
        with suppress(ImportError, OSError, ValueError):  # no terminal, or Windows
            import termios  # late: a kernel needs it not, and Windows has it not

            termios.tcflush(sys.stdin, termios.TCIFLUSH)
        shown_on = self._shown_on or sys.stdout
        shown_on.write(prompt)
        shown_on.flush()

    def poll(self, timeout: float) -> str | None:
        """Wait for a line; where a terminal cannot be polled (Windows), until there is one."""
        import select  # late: a kernel needs it not

        with suppress(ValueError, OSError):
            if not select.select([sys.stdin], [], [], timeout)[0]:
                return None
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line


LineInput = KernelInput | TerminalInput


def line_input() -> LineInput | None:
    """The input of the running cell; None where its front end takes none, and off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None
    kernel = current_kernel()
    if kernel is not None:
        allowed = (current_request().get("content") or {}).get("allow_stdin")
        return KernelInput(kernel) if allowed and getattr(kernel, "stdin_socket", None) is not None else None
    return TerminalInput() if current_shell() is not None and sys.stdin is not None and sys.stdin.isatty() else None


class PromptedQuestions:
    """Asks for the open questions of a waiting cell at its input prompt, one at a time, the oldest first.

    Lives on the io thread; only the reading of lines is done by the cell's thread, through its queue.
    """

    def __init__(
        self, client: Client, session_id: str, view: RunView, queue: MainThreadQueue, lines: LineInput | None
    ) -> None:
        """``lines``: None where the front end takes no input, so that nothing is asked."""
        self._client, self._session_id, self._view = client, session_id, view
        self._queue, self._lines = queue, lines
        self._claim = waiting_claim()
        self._changed = asyncio.Event()
        self._settled: set[str] = set()  # answered here, drawn on a page, or given up by the end of input
        self._given_up = threading.Event()
        self._note = ""  # why the server did not take what was typed
        self.interrupted = False  # ctrl-C was pressed at the prompt

    def start(self) -> None:
        """Begin to ask what is asked from now on."""
        self._work = io_thread().submit(self._run())

    def close(self) -> None:
        """Ask no more: the cell is over."""
        self._given_up.set()
        self._work.cancel()

    def notify(self) -> None:
        """The view has changed. On the io thread."""
        self._changed.set()

    async def _run(self) -> None:
        """Ask what is open, until cancelled."""
        claim_as(self._claim)
        lines = self._lines
        if lines is None:
            return
        try:
            while not self.interrupted:
                question = next((each for each in self._view.questions if each.id not in self._settled), None)
                if question is None:
                    await self._changed.wait()
                    self._changed.clear()
                elif await self._has_buttons(question):
                    self._settled.add(question.id)
                else:
                    await self._ask(question, lines)
        finally:
            self._given_up.set()

    async def _has_buttons(self, question: QuestionPart) -> bool:
        """Whether it need not be asked at a prompt; waits for a page to report."""
        until = time.monotonic() + BUTTONS_WITHIN
        while question.status == "open":
            if await self._is_drawn(question):
                return True
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.1)
        return True

    async def _is_drawn(self, question: QuestionPart) -> bool:
        with suppress(KernelError):  # where the server does not answer, no page can
            path = f"sessions/{self._session_id}/interrupts/{question.id}"
            found = await self._client.request("GET", path)
            return bool(found["drawn"]) or found["status"] != "open"
        return False

    async def _ask(self, question: QuestionPart, lines: LineInput) -> None:
        self._given_up.clear()
        watch = asyncio.ensure_future(self._watch(question))
        read = self._reading if self._queue.awaits else self._read
        reading = self._queue.post(lambda: read(question, lines))
        try:
            decision: UserAnswer | None = await asyncio.wrap_future(reading)
        except EOFError:
            self._settled.add(question.id)
            return
        finally:
            self._given_up.set()
            watch.cancel()
        if decision is None:
            return
        self._settled.add(question.id)
        try:
            await self._client.command(self._session_id, decision.command(question.id))
        except KernelError as problem:
            # Refused for any other reason: it was answered elsewhere, or is not there any more.
            if not isinstance(problem, Refused) or problem.server_code in ("invalid_request", "kernel_token_scope"):
                self._settled.discard(question.id)
                self._note = f"{problem.message} "

    async def _watch(self, question: QuestionPart) -> None:
        """End the prompt when it is answered elsewhere, or a page shows buttons after all."""
        while question.status == "open":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _READ_EVERY)
                self._changed.clear()
                continue
            if await self._is_drawn(question):
                break
        self._given_up.set()

    @property
    def _ends(self) -> bool:
        return self._given_up.is_set() or self._queue.has_work

    def _read(self, question: QuestionPart, lines: LineInput) -> UserAnswer | None:
        """The decision; None when the prompt was given up. By the cell's thread."""
        talk, prompt = self._begun(question)
        try:
            while True:
                lines.begin(prompt)
                while (line := lines.poll(_LINE)) is None:
                    if self._ends:
                        return None
                try:
                    prompt = talk.send(line)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
        except KeyboardInterrupt:
            self.interrupted = True
            return None

    async def _reading(self, question: QuestionPart, lines: LineInput) -> UserAnswer | None:
        """The same for a cell that awaits: the kernel's loop goes on."""
        talk, prompt = self._begun(question)
        while True:
            lines.begin(prompt)
            while (line := lines.poll(0)) is None:
                if self._ends:
                    return None
                await asyncio.sleep(_TICK)
            try:
                prompt = talk.send(line)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]

    def _begun(self, question: QuestionPart) -> tuple[Interview, str]:
        talk, note = interview(question), self._note
        self._note = ""
        return talk, note + next(talk)
