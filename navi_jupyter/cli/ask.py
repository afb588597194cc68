"""``navi ask``: a prompt from the shell, its answer as it comes, its questions at the terminal.

The answer goes to standard output, all else (calls, questions, notes) to standard error. Ctrl-C stops the run; a second
one leaves at once. Not responsible for how a run is printed (``run_printer``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..clock import parse_duration
from ..kernel.attachments import KernelAttachment
from ..kernel.client.client import new_command_id
from ..kernel.display.question_text import details_plain, question_message
from ..kernel.display.run_view import QuestionPart
from ..kernel.errors import Refused, UsageError
from ..kernel.grammar.answers import UserAnswer, interview
from ..kernel.programs.aio import AsyncSession
from ..kernel.programs.run import FollowedRun
from ..kernel.programs.server import NaviServer
from ..kernel.questions import TerminalInput
from ..text import printable
from .arguments import FAILED, INTERRUPTED, NEEDS_ANSWER, TERMINATED, TIMED_OUT
from .run_printer import RunPrinter
from .server_command import print_json

T = TypeVar("T")

_LONGEST_INPUT = 50_000_000  # bytes of standard input; the server's own limit is lower, and says so
_STOPPED_WITHIN = 12.0  # seconds: more than the server's ``stop_deadline`` of ten
_TICK = 0.05  # seconds between two looks at the terminal
_REFUSAL = "navi ask --approve never: nothing is allowed here."


def ask(server: NaviServer, given: argparse.Namespace) -> int:
    """Ask; the exit status. Raises UsageError, Refused, Unreachable."""
    text, files = _prompt(given)
    limit = None if given.timeout is None else _seconds(given.timeout)
    session_id = _session(server, given)
    prompt = {"model": given.model, "mode": given.mode, "files": files, "command_id": new_command_id()}
    asked = _Asked(AsyncSession(server.service, session_id), server.url, given, limit)
    return asyncio.run(asked.run(text, prompt))


def _prompt(given: argparse.Namespace) -> tuple[str, list[Any]]:
    """The text of the prompt, and what goes along with it."""
    files: list[Any] = list(given.file)
    words = [word for word in given.words if word != "-"]
    if len(words) == len(given.words):
        if not words:
            raise UsageError("There is nothing to ask: write it behind `navi ask`, or - for standard input.")
        return " ".join(words), files
    content = sys.stdin.buffer.read(_LONGEST_INPUT + 1)
    if len(content) > _LONGEST_INPUT:
        raise UsageError(f"Standard input is longer than {_LONGEST_INPUT:,} bytes.")
    if not words:
        return content.decode(errors="replace"), files
    # Beside a prompt it is data: as a file it is marked as such for the model.
    return " ".join(words), [*files, KernelAttachment(name="stdin.txt", content=content, media_type="text/plain")]


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except ValueError as wrong:
        raise UsageError(f"--timeout: {wrong}") from None


def _session(server: NaviServer, given: argparse.Namespace) -> str:
    """The id of the session that is meant."""
    fields = {"title": given.title, "profile": given.profile, "allowed_tools": given.allow or None}
    named = given.session or given.last or given.notebook
    if named and any(fields.values()):
        raise UsageError("--title, --profile and --allow are of a new session: change another one in its chat.")
    if given.session:
        return server.session(given.session).id
    if given.last:
        return last_session(server)
    if given.notebook:
        body = {"notebook_path": _below_root(server, given.notebook), "create": True}
        return str(server.request("POST", "sessions/find", body)["session"]["id"])
    if os.environ.get("NAVI_SESSION") and not given.new and not any(fields.values()):
        return server.session().id
    return server.new_session(**fields).id


def last_session(server: NaviServer) -> str:
    """The id of the session that was used last. Raises UsageError where there is none."""
    for session in server.sessions(most=1):
        return str(session["id"])
    raise UsageError("There is no session yet.")


def _below_root(server: NaviServer, path: str) -> str:
    """A notebook's path as the server names it: a file of this machine below the server's root, or as it is given."""
    root = server.connection.root_dir
    if root is not None and (Path(path).is_absolute() or Path(path).exists()):
        with suppress(ValueError):
            return Path(path).resolve().relative_to(Path(root).resolve()).as_posix()
    return path


class _Asked:
    """One prompt, from its sending to the end of its run."""

    def __init__(self, session: AsyncSession, page: str, given: argparse.Namespace, limit: float | None) -> None:
        self._session, self._given = session, given
        self._page = f"{page}navi?session={session.id}"
        self._until = None if limit is None else time.monotonic() + limit
        self._printer = None if given.json else RunPrinter(sys.stdout, sys.stderr)
        at_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty() and not given.json
        self._lines = TerminalInput(sys.stderr) if at_terminal and given.approve == "ask" else None
        self._changed = asyncio.Event()
        self._answered: set[str] = set()  # questions, before the event that says so
        self._given_up: set[str] = set()  # questions that are left to others, by the end of input
        self._queued = False  # the prompt waits for another run, and it was looked for which
        self._signal = INTERRUPTED

    async def run(self, text: str, prompt: dict[str, Any]) -> int:
        """The exit status."""
        with suppress(NotImplementedError):  # Windows
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate, asyncio.current_task())
        sending = asyncio.ensure_future(self._session.send(text, **prompt))
        try:
            run = await asyncio.shield(sending)
        except asyncio.CancelledError:
            # It may be durable already: a prompt must not run on when its command has ended.
            run = await asyncio.wait_for(sending, _STOPPED_WITHIN)
            await run.stop()
            return self._signal
        accepted = {"session_id": run.session_id, "run_id": run.run_id, "seq": run.cursor}
        if self._given.json:
            print_json({"accepted": accepted})
        if self._given.background:
            if self._printer is not None:
                print(f"session {run.session_id}, run {run.run_id}")
            return 0
        async with run:
            status = await self._follow(run)
            self._report(run, status)
            return status

    def _terminate(self, main: asyncio.Task[Any] | None) -> None:
        self._signal = TERMINATED
        if main is not None:
            main.cancel()

    async def _follow(self, run: FollowedRun) -> int:
        """Print and answer until the run is over, stopped, or left waiting; the exit status."""
        reading = asyncio.ensure_future(self._read(run))
        try:
            while not reading.done():
                status = await self._settle(run, reading)
                if status is None and run.view.status == "queued" and not self._queued:
                    self._queued = True
                    status = await self._wait_in_queue(run)
                if status is not None:
                    return status
                await _first(reading, self._changed.wait(), timeout=self._left())
                self._changed.clear()
                if self._left() == 0.0 and not reading.done():
                    await self._stop(run, reading)
                    return TIMED_OUT
            reading.result()
        except asyncio.CancelledError:
            waits_for_others = self._given.approve == "wait" and bool(run.questions)
            if not waits_for_others:  # a question can still be answered, in any chat
                await self._stop(run, reading)
            return self._signal
        finally:
            reading.cancel()
        return 0 if run.view.status == "completed" else FAILED

    async def _wait_in_queue(self, run: FollowedRun) -> int | None:
        """A prompt that has to wait; the exit status where it would wait for an answer, which may never come."""
        before = (await self._session.state())["run"]
        if before is None or before["status"] != "waiting" or self._given.approve == "wait":
            if self._printer is not None:
                self._printer.note("(waiting for the session's other run …)")
            return None
        await run.stop()
        if self._printer is not None:
            self._printer.note(
                f"navi: a run of this session waits for an answer; the prompt was withdrawn. Answer it in a chat "
                f"({self._page}), or ask with --mode interrupt."
            )
        return NEEDS_ANSWER

    def _left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    async def _read(self, run: FollowedRun) -> None:
        async for envelope in run:
            if self._printer is None:
                print_json(envelope)
            else:
                self._printer.show(run.view)
            self._changed.set()

    async def _stop(self, run: FollowedRun, reading: asyncio.Future[None]) -> None:
        if self._printer is not None:
            self._printer.note("(stopping …)")
        await run.stop()
        await asyncio.wait((reading,), timeout=_STOPPED_WITHIN)

    async def _settle(self, run: FollowedRun, reading: asyncio.Future[None]) -> int | None:
        """Answer the open questions; the exit status where one is left to others, and this is not to wait for them."""
        open_ones = [question for question in run.questions if question.id not in self._answered]
        for question in open_ones:
            if self._given.approve == "never":
                refusal = UserAnswer("resolved", {"approved": False, "message": _REFUSAL})
                await self._answer(run, question, refusal if question.kind == "approval" else UserAnswer("cancelled"))
            elif self._lines is not None and question.id not in self._given_up:
                await self._ask_here(run, question, self._lines, reading)
        if self._given.approve != "ask":
            return None
        left = [each for each in open_ones if self._lines is None or each.id in self._given_up]
        return NEEDS_ANSWER if left else None

    async def _ask_here(
        self, run: FollowedRun, question: QuestionPart, lines: TerminalInput, reading: asyncio.Future[None]
    ) -> None:
        self._describe(question)
        talk = interview(question, shown=None)
        prompt = next(talk)
        try:
            while True:
                lines.begin(printable(prompt))
                while (line := lines.poll(0)) is None:
                    await asyncio.sleep(_TICK)
                    if question.status != "open" or reading.done() or self._left() == 0.0:
                        sys.stderr.write("\n")  # it was answered elsewhere, which the printer shows
                        return
                prompt = talk.send(line)
        except StopIteration as decided:
            await self._answer(run, question, decided.value)
        except EOFError:
            sys.stderr.write("\n")
            self._given_up.add(question.id)

    async def _answer(self, run: FollowedRun, question: QuestionPart, decision: UserAnswer) -> None:
        self._answered.add(question.id)
        try:
            await run.answer(question.id, decision)
        except Refused as refused:
            # Refused for any other reason: it was answered elsewhere.
            if refused.server_code in ("invalid_request", "kernel_token_scope"):
                raise

    def _describe(self, question: QuestionPart) -> None:
        if self._printer is not None:
            details = details_plain(question.details, None)
            self._printer.note(
                question_message(question.message, question.source) + (f"\n{details}" if details else "")
            )

    def _report(self, run: FollowedRun, status: int) -> None:
        view = run.view
        if self._printer is None:
            error = None if view.error is None else {"code": view.error[0], "message": view.error[1]}
            result = {
                "session_id": run.session_id,
                "run_id": run.run_id,
                "seq": run.cursor,
                "status": "waiting" if status == NEEDS_ANSWER else view.status,
                "text": view.text,
                "error": error,
                "usage": view.usage,
                "questions": [{"id": each.id, "kind": each.kind, "message": each.message} for each in run.questions],
                "exit": status,
            }
            print_json({"result": result})
            return
        self._printer.end_line()
        if view.error is not None:
            self._printer.note(f"navi: the run failed ({view.error[0]}): {view.error[1]}")
        elif status == NEEDS_ANSWER and run.questions:
            for question in run.questions:
                if self._lines is None:
                    self._describe(question)
            self._printer.note(f"navi: the run waits for an answer, which any chat of its session takes: {self._page}")
        elif status == TIMED_OUT:
            self._printer.note("navi: the time is over; the run was stopped.")


async def _first(reading: asyncio.Future[None], other: Awaitable[Any], *, timeout: float | None) -> None:
    """Wait for one of both, or until the time is over."""
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait((reading, waiting), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
