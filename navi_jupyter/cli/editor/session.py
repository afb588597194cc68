"""A Navi session that is open in an editor: its log followed, its turns, its questions.

One follower for each open session, from its opening until it is closed: so the editor also shows what recalls and other
views start. A turn (`session/prompt`) waits until the follower has shown the end of its run. When the editor goes, the
run goes on. Not responsible for what an event looks like (``updates``).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from acp import Client as Editor
from acp import schema

from ...kernel.client.client import Query, new_command_id
from ...kernel.display.run_view import attachment_of
from ...kernel.errors import KernelError, Refused, ServerNotFound, Unreachable
from ..server_link import ServerLink, is_lost
from .folders import folder_here
from .options import failure, settings_updates
from .prompts import Block, PromptReader
from .questions import EditorQuestions
from .updates import Envelope, ShownCall, UpdateBuilder, merged, notice

StopReason = Literal["end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"]

_SILENT = 2.0  # seconds without a server until the editor shows that
_LOST = 120.0  # seconds without a server until the turns fail
_STOPPED_WITHIN = 13.0  # seconds from a stop to the end of its turn: more than the server's ``stop_deadline`` of ten
_KEPT_ENDS = 64  # runs whose ends are remembered, for an acceptance that comes later than the end
_MOST_IMAGES = 4  # of one tool call
_CELL_TOOLS = ("edit_cell", "insert_cell", "delete_cell")
_NOTICED: dict[str, StopReason] = {"answer_cut": "max_tokens", "answer_filtered": "refusal"}


@dataclass(frozen=True)
class TurnEnding:
    """How a turn ended: a reason, or an error with the run's code."""

    reason: StopReason = "end_turn"
    error: str | None = None
    code: str | None = None
    usage: schema.Usage | None = None


@dataclass(eq=False)
class EditorTurn:
    """A `session/prompt` that has no answer yet."""

    command_id: str
    run_id: str | None = None  # once the prompt is accepted
    is_cancelled: bool = False
    end: asyncio.Future[TurnEnding] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class EditorSession:
    """One session of one editor."""

    def __init__(self, editor: Editor, link: ServerLink, session_id: str, cwd: str, *, has_forms: bool) -> None:
        self.id = session_id
        self.cwd = cwd
        self._editor = editor
        self._link = link
        self._has_forms = has_forms
        self._root: Path | None = None  # the server's folder, where it is on this machine
        self.builder = UpdateBuilder(None, set())
        self._questions = EditorQuestions(editor, link, session_id, self.builder, has_forms=has_forms)
        self._turns: list[EditorTurn] = []
        self._ends: dict[str, TurnEnding] = {}
        self._notices: dict[str, str] = {}  # the code of what is the matter with an answer, by run
        self._seen: set[str] = set()  # messages that a snapshot has shown
        self._edits: dict[tuple[str, str], str | None] = {}  # cells as the last change left them
        self._cursor: int | None = None
        self._shows_snapshot = True
        self._opened = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no turn is in progress."""
        return not self._turns

    async def open(self, *, after: int | None, replay: bool = False) -> None:
        """Follow the log from ``after``; without it, from its snapshot, which is shown if ``replay`` says so.

        Returns once what is there has been shown. Raises KernelError.
        """
        await self._stop_following()
        self._root = await asyncio.to_thread(folder_here, (await self._link.connection()).root_dir)
        own = set() if replay else self.builder.own
        self.builder = UpdateBuilder(str(self._root) if self._root else None, own)
        self._questions = EditorQuestions(self._editor, self._link, self.id, self.builder, has_forms=self._has_forms)
        state = await self._link.request("GET", f"sessions/{self.id}")
        self.builder.notebook = state.get("notebook_path")
        self._cursor, self._shows_snapshot = after, replay
        self._seen.clear()
        self._opened.clear()
        follower = self._follower = asyncio.create_task(self._follow(), name=f"navi-editor {self.id}")
        if after is None:
            waiting = asyncio.ensure_future(self._opened.wait())
            await asyncio.wait((waiting, follower), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def close(self) -> None:
        """Stop following. Runs go on; turns end as cancelled."""
        await self._stop_following()
        self._end_all(TurnEnding("cancelled"))

    async def prompt(self, blocks: Sequence[Block]) -> schema.PromptResponse:
        """One turn, to its end. Raises RequestError, KernelError."""
        if self._follower is None or self._follower.done():  # the server was lost
            await self.open(after=self._cursor)
        turn = EditorTurn(new_command_id())
        self._turns.append(turn)
        try:
            await self._submit(turn, blocks)
            ending = await turn.end
        finally:
            self._turns.remove(turn)
        if ending.error is not None:
            raise failure(ending.error, ending.code)
        return schema.PromptResponse(stop_reason=ending.reason, usage=ending.usage)

    async def cancel(self) -> None:
        """Stop the turns of this editor; those of other views go on. They end with their runs, or at a deadline."""
        turns = [turn for turn in self._turns if not turn.is_cancelled]
        for turn in turns:
            turn.is_cancelled = True
        for turn in turns:
            if turn.run_id is not None:
                await self._stop(turn)

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _submit(self, turn: EditorTurn, blocks: Sequence[Block]) -> None:
        waiting = next(iter(self._questions.unanswered.values()), None)
        if waiting is not None and (words := _only_text(blocks)):
            accepted = await self._questions.answer(waiting, words)
            self.builder.own.add(str(accepted["command_id"]))
            turn.run_id = str(waiting["run_id"])
        else:
            self.builder.own.add(turn.command_id)
            client = await self._link.client()
            given = await PromptReader(client, self._root).read(blocks)
            accepted = await client.command(self.id, {"type": "prompt", "command_id": turn.command_id, **given})
            turn.run_id = str(accepted["run_id"])
        if turn.run_id in self._ends:
            self._end(turn, self._ends[turn.run_id])
        elif turn.is_cancelled:
            await self._stop(turn)

    async def _stop(self, turn: EditorTurn) -> None:
        """Withdraw a prompt that waits in the queue, else stop its run; the end of the turn comes by the log."""
        asyncio.get_running_loop().call_later(_STOPPED_WITHIN, self._end, turn, TurnEnding("cancelled"))
        client = await self._link.client()
        try:
            await client.command(self.id, {"type": "unqueue", "target": turn.command_id})
        except Refused:  # it does not wait: it has begun
            with suppress(KernelError):  # it has ended in the meantime, or the deadline ends the turn
                await client.command(self.id, {"type": "stop", "run_id": turn.run_id})
        except KernelError:
            pass

    def _end(self, turn: EditorTurn, ending: TurnEnding) -> None:
        if not turn.end.done():
            turn.end.set_result(ending)

    def _end_run(self, run_id: str, ending: TurnEnding) -> None:
        self._ends[run_id] = ending
        while len(self._ends) > _KEPT_ENDS:
            del self._ends[next(iter(self._ends))]
        for turn in self._turns:
            if turn.run_id == run_id:
                # The editor has asked for the end: however the run ended, that is what it waits for.
                self._end(turn, TurnEnding("cancelled", usage=ending.usage) if turn.is_cancelled else ending)

    def _end_all(self, ending: TurnEnding) -> None:
        for turn in self._turns:
            self._end(turn, TurnEnding("cancelled") if turn.is_cancelled else ending)

    # --- the log -----------------------------------------------------------------------------------------------------

    async def _stop_following(self) -> None:
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            await asyncio.wait((follower,))
        await self._questions.close()

    async def _follow(self) -> None:
        """Show what happens, across restarts of the server, until the session or the server is gone for good."""
        lost_since: float | None = None
        while True:
            try:
                client = await self._link.client()
                async with aclosing(client.follow(self.id, self._cursor, patience=_SILENT)) as pages:
                    async for page in pages:
                        lost_since = None
                        await self._show(page)
                        self._cursor = page[-1]["seq"]
                        self._opened.set()
            except (Unreachable, Refused, ServerNotFound) as problem:
                if not (is_lost(problem) or isinstance(problem, ServerNotFound)):
                    self._end_all(TurnEnding(error=problem.message, code=_code(problem)))
                    return
                now = time.monotonic()
                if lost_since is None:
                    lost_since = now
                    await self._editor.session_update(self.id, notice(f"{problem.message} Waiting for it."))
                if now - lost_since > _LOST:
                    self._end_all(TurnEnding(error=problem.message, code=_code(problem)))
                    return
                if not await self._link.look_again():
                    await asyncio.sleep(_SILENT / 2)
            except ConnectionError:  # the editor is gone
                return

    async def _show(self, page: Sequence[Envelope]) -> None:
        updates: list[Any] = []
        for envelope in page:
            event = envelope["event"]
            if event.get("type") == "MESSAGES_SNAPSHOT":
                updates += await self._snapshot(event)
                continue
            is_old = envelope.get("snapshot") and not self._shows_snapshot and event.get("type", "").startswith("TEXT_")
            built = self.builder.apply(envelope)
            updates += [] if is_old else built
            if event.get("type") == "TOOL_CALL_RESULT":
                updates += await self._changes(event["toolCallId"])
            if event.get("type") == "CUSTOM" or event.get("type", "").startswith("RUN_"):
                # What was shown until here comes first, then the question about it, or the end of the turn.
                await self._send(updates)
                updates = []
                await self._note(envelope)
        await self._send([*updates, *self.builder.changed()])
        if page[0].get("snapshot"):
            self._shows_snapshot = True  # one that comes later is of what was missed
            await self._check_turns()

    async def _send(self, updates: Sequence[Any]) -> None:
        for update in merged(updates):
            await self._editor.session_update(self.id, update)

    async def _note(self, envelope: Envelope) -> None:
        """Events by which turns and questions go on, and settings change."""
        event, run_id = envelope["event"], envelope.get("run_id")
        value = event.get("value") or {}
        match event.get("type"), event.get("name"):
            case "RUN_FINISHED", _ if (event.get("outcome") or {}).get("type") != "interrupt":
                cancelled = (event.get("outcome") or {}).get("type") == "cancelled"
                reason = "cancelled" if cancelled else _NOTICED.get(self._notices.pop(str(run_id), ""), "end_turn")
                self._end_run(str(run_id), TurnEnding(reason, usage=_usage(event.get("usage"))))
            case "RUN_ERROR", _:
                if event.get("code") == "max_iterations":  # a reason to stop, whose words have no other place
                    await self._editor.session_update(self.id, notice(str(event.get("message"))))
                self._end_run(str(run_id), failed(str(event.get("code")), str(event.get("message"))))
            case _, "navi.notice":
                self._notices[str(value.get("run_id"))] = str(value.get("code"))
            case _, "navi.queue":
                self._queued(value)
            case _, "navi.interrupt":
                await self._question(str(value.get("action")), value.get("interrupt") or {})
            case _, "navi.session":
                await self._changed(value)
            case _, "navi.agent_options" if not envelope.get("snapshot"):
                await self._send(await settings_updates(self._link, self.id))

    def _queued(self, value: dict[str, Any]) -> None:
        for turn in self._turns:
            if turn.command_id != value.get("command_id"):
                continue
            if value.get("action") in ("cancelled", "rejected"):
                self._end(turn, TurnEnding("cancelled"))
            elif value.get("action") in ("steered", "collected", "restarted") and value.get("run_id"):
                turn.run_id = str(value["run_id"])

    async def _question(self, action: str, question: dict[str, Any]) -> None:
        if action != "opened":
            await self._questions.settle(question)
            return
        self._questions.open(question)
        run_id = str(question["run_id"])
        if run_id in self._questions.unanswered:
            # The editor has to take the next prompt, which answers: so this turn ends here.
            for turn in self._turns:
                if turn.run_id == run_id:
                    self._end(turn, TurnEnding())

    async def _changed(self, value: dict[str, Any]) -> None:
        changed, session = value.get("changed") or (), value.get("session") or {}
        if "notebook_path" in changed:
            self.builder.notebook = session.get("notebook_path")
        if "title" in changed:
            info = schema.SessionInfoUpdate(session_update="session_info_update", title=session.get("title"))
            await self._editor.session_update(self.id, info)
        if {"profile", "model", "agent_options"} & set(changed):
            await self._send(await settings_updates(self._link, self.id))

    async def _snapshot(self, event: dict[str, Any]) -> list[Any]:
        """The conversation so far: at the opening of a session all of it, later what was missed."""
        messages, earlier = list(event.get("messages") or ()), event.get("earlier")
        while earlier and self._shows_snapshot and not any(message["id"] in self._seen for message in messages):
            query: Query = {"before": str(earlier), "limit": 1000}
            page = await self._link.request("GET", f"sessions/{self.id}/transcript", query=query)
            messages, earlier = [*page["messages"], *messages], page.get("earlier")
        new = [message for message in messages if message["id"] not in self._seen]
        self._seen.update(message["id"] for message in messages)
        updates = list(self.builder.replay(new))
        self.builder.calls.clear()
        return updates if self._shows_snapshot else []

    async def _check_turns(self) -> None:
        """After a snapshot, which does not say how runs ended: turns whose runs are over end as their records say."""
        for turn in list(self._turns):
            if turn.run_id is None:
                continue
            run = await self._link.request("GET", f"sessions/{self.id}/runs/{turn.run_id}")
            error = run.get("error") or {}
            if run["status"] in ("completed", "stopped"):
                reason = "cancelled" if run["status"] == "stopped" else "end_turn"
                self._end_run(turn.run_id, TurnEnding(reason))  # type: ignore[arg-type]
            elif run["status"] in ("failed", "timed_out", "interrupted"):
                code, words = str(error.get("code", run["status"])), str(error.get("message", "The run failed."))
                self._end_run(turn.run_id, failed(code, words))

    # --- what tool calls have changed --------------------------------------------------------------------------------

    async def _changes(self, call_id: str) -> list[Any]:
        """One more update of a call that has an image among its outputs, or has changed cells."""
        call = self.builder.calls.get(call_id)
        if call is None:
            return []
        with suppress(KernelError):  # it is shown without them
            images = await self._images(call)
            cells = await self._cells(call) if call.name in _CELL_TOOLS else []
            if images or cells:
                call.changes = [*cells, *([] if cells else call.changes), *images]
                return [self.builder.progress(call)]
        return []

    async def _images(self, call: ShownCall) -> list[Any]:
        references = [
            ref for one in call.outputs for ref in map(attachment_of, (one.get("data") or {}).values()) if ref
        ]
        client = await self._link.client()
        blocks = []
        for reference in references[-_MOST_IMAGES:]:
            media_type, content = await client.image(reference)
            block = schema.ImageContentBlock(
                type="image", data=base64.b64encode(content).decode(), mime_type=media_type
            )
            blocks.append(schema.ContentToolCallContent(type="content", content=block))
        return blocks

    async def _cells(self, call: ShownCall) -> list[Any]:
        """The cells that a call has changed: as they were before the run, and as they are now."""
        found = await self._link.request("GET", f"runs/{call.run_id}/edits")
        changes = []
        for edit in found["edits"]:
            key = (edit["path"], edit["cell"])
            if edit["omitted"] or self._edits.get(key, edit["before"]) == edit["after"]:
                continue
            self._edits[key] = edit["after"]
            path, after = self.builder.path(edit["path"]), edit["after"] or ""
            changes.append(
                schema.FileEditToolCallContent(type="diff", path=path, old_text=edit["before"], new_text=after)
            )
        return changes


def failed(code: str, message: str) -> TurnEnding:
    """The end of a turn whose run failed."""
    return TurnEnding("max_turn_requests") if code == "max_iterations" else TurnEnding(error=message, code=code)


def _code(problem: Exception) -> str:
    return str(problem.server_code if isinstance(problem, Refused) else getattr(problem, "code", "error"))


def _only_text(blocks: Sequence[Block]) -> str:
    """The words of a prompt that has nothing else; empty where it has."""
    texts = [block.text for block in blocks if isinstance(block, schema.TextContentBlock)]
    return "".join(texts).strip() if len(texts) == len(blocks) else ""


def _usage(entries: Any) -> schema.Usage | None:
    if not isinstance(entries, list) or not entries:
        return None
    read = sum(int(entry.get("inputTokens") or 0) for entry in entries)
    written = sum(int(entry.get("outputTokens") or 0) for entry in entries)
    return schema.Usage(total_tokens=read + written, input_tokens=read, output_tokens=written)
