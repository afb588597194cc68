"""A recall desk and a library in memory: real implementations of the ports; and a bench to run loops on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from navi_jupyter.agent.registry import AgentParts, default_parts
from navi_jupyter.agent.tools.base import Tool
from navi_jupyter.clock import now
from navi_jupyter.errors import AttachmentNotFound, InvalidRequest, RecallNotFound, RecallOver, RunFailed
from navi_jupyter.events import Event
from navi_jupyter.model.attachments import Attachment
from navi_jupyter.model.base import new_id
from navi_jupyter.model.recalls import Firing, FiringStatus, Recall, RecallCreate, RecallPatch, RecallStatus
from navi_jupyter.model.runs import Interrupt, InterruptStatus
from navi_jupyter.model.sessions import USER, Origin, OriginKind, Run, RunStatus, Session
from navi_jupyter.ports.agent import (
    AgentLoop,
    Ask,
    AskUser,
    Message,
    PastTurn,
    SteeredPrompt,
    ToolContext,
    Turn,
    TurnResult,
    Unrun,
)
from navi_jupyter.ports.stop import StopSignal
from navi_jupyter.ports.user_configuration import NOTHING_CONFIGURED
from navi_jupyter.scheduling.schedules import next_after, resolve
from navi_jupyter.settings import Limits

ZONE = "Europe/Berlin"


class MemoryDesk:
    """``ports.RecallAccess`` without a disk."""

    def __init__(self) -> None:
        self.recalls: dict[str, Recall] = {}
        self.ledger: dict[str, list[Firing]] = {}

    async def create(
        self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False, code: bool = False
    ) -> Recall:
        at = now()
        schedule = resolve(request.schedule, now=at, zone=zone)
        recall = Recall(
            id=new_id("r"),
            session_id=request.session_id,
            title=request.title or request.message[:60],
            message=request.message,
            schedule=schedule,
            policy=request.policy,
            allow=request.allow,
            status=RecallStatus.PENDING,
            next_at=next_after(schedule, at),
            created_at=at,
            origin=OriginKind.SYSTEM if by_agent else OriginKind.USER,
        )
        self.recalls[recall.id] = recall
        return recall

    async def check_leave(
        self, allow: Sequence[str], *, session_id: str, owner: str, profiles: Sequence[str] = ()
    ) -> None:
        if unknown := [name for name in allow if name.startswith("no_")]:
            raise InvalidRequest(f"There is no tool or effect {unknown[0]!r}.", field="allow")

    async def recall_of(self, recall_id: str) -> Recall | None:
        return self.recalls.get(recall_id)

    async def patch(
        self, recall_id: str, patch: RecallPatch, *, owner: str, zone: str | None = None, by_agent: bool = False
    ) -> Recall:
        given = {name: getattr(patch, name) for name in patch.model_fields_set - {"schedule"}}
        if patch.schedule is not None:
            given["schedule"] = resolve(patch.schedule, now=now(), zone=zone or ZONE)
        return self._become(recall_id, **given)

    async def pause(self, recall_id: str, *, owner: str) -> Recall:
        return self._become(recall_id, status=RecallStatus.PAUSED)

    async def resume(self, recall_id: str, *, owner: str) -> Recall:
        return self._become(recall_id, status=RecallStatus.PENDING)

    def _become(self, recall_id: str, **changes: Any) -> Recall:
        self.recalls[recall_id] = self.recalls[recall_id].model_copy(update=changes)
        return self.recalls[recall_id]

    async def in_session(self, session_id: str) -> Sequence[Recall]:
        mine = [one for one in self.recalls.values() if one.session_id == session_id]
        return sorted(mine, key=lambda one: (one.status.final, one.next_at or one.created_at))

    async def cancel(self, recall_id: str, *, owner: str) -> Recall:
        recall = self.recalls.get(recall_id)
        if recall is None:
            raise RecallNotFound(f"no recall {recall_id}")
        if recall.status.final:
            raise RecallOver("it is over")
        changed = recall.model_copy(update={"status": RecallStatus.CANCELLED, "next_at": None})
        self.recalls[recall_id] = changed
        return changed

    async def firings(self, recall_id: str, *, owner: str, limit: int = 50) -> Sequence[Firing]:
        if recall_id not in self.recalls:
            raise RecallNotFound(f"no recall {recall_id}")
        return self.ledger.get(recall_id, [])[:limit]

    async def unrun(self, session_id: str, *, since: datetime | None, limit: int = 100) -> Sequence[Unrun]:
        without = (FiringStatus.SKIPPED, FiringStatus.MISSED, FiringStatus.COALESCED, FiringStatus.EXPIRED)
        rows = [
            Unrun(firing=firing, title=recall.title)
            for recall in await self.in_session(session_id)
            for firing in self.ledger.get(recall.id, [])
            if firing.status in without and (since is None or firing.slot >= since)
        ]
        return sorted(rows, key=lambda row: row.firing.slot)[-limit:]


class MemoryLibrary:
    """``ports.SessionHistory`` over lists."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.done: list[Run] = []
        self.now: Session | None = None
        """The session as it is now, where it was changed since the run began."""

    async def session(self, session_id: str) -> Session | None:
        return self.now

    async def messages(self, session_id: str) -> Sequence[Message]:
        return self.said

    async def runs(self, session_id: str, *, limit: int = 50) -> Sequence[Run]:
        return list(reversed(self.done))[:limit]

    def add(
        self, prompt: str, answer: str, *, at: datetime, origin: Origin = USER, status: RunStatus = RunStatus.COMPLETED
    ) -> None:
        """A turn that is over."""
        run_id = new_id("u")
        for role, text in (("user", prompt), ("assistant", answer)):
            self.said.append(
                Message(id=new_id("m"), role=role, content=text, run_id=run_id, origin=origin, at=at.isoformat())
            )
        self.done.append(
            Run(
                id=run_id,
                session_id="s_1",
                command_id=new_id("c"),
                status=status,
                origin=origin,
                model="offline",
                created_at=at,
                started_at=at,
                ended_at=at,
            )
        )


class Toolbox:
    """``ToolSource`` over some tools."""

    def __init__(self, *tools: Tool) -> None:
        self._tools = tools

    async def tools(self, context: ToolContext) -> Sequence[Tool]:
        return self._tools


def agent_parts(*tools: Tool) -> AgentParts:
    """The usual, with these tools besides."""
    return default_parts(packages=False, sources=(Toolbox(*tools),))


class MemoryAttachments:
    """``ports.Attachments`` without a disk."""

    def __init__(self) -> None:
        self._contents: dict[str, tuple[Attachment, bytes]] = {}

    async def add(
        self, content: bytes, *, name: str | None, media_type: str | None, owner: str, session_id: str | None = None
    ) -> Attachment:
        one = Attachment(
            id=new_id("a"), owner=owner, name=name or "file", media_type=media_type or "application/octet-stream",
            size=len(content), sha256="", created_at=now(),
        )  # fmt: skip
        self._contents[one.id] = (one, content)
        return one

    async def find(self, attachment_id: str, *, owner: str) -> Attachment:
        return self._contents[attachment_id][0]

    async def read(self, attachment_id: str, *, owner: str) -> bytes:
        if attachment_id not in self._contents:
            raise AttachmentNotFound("it is gone")
        return self._contents[attachment_id][1]


class MemorySteering:
    """``ports.Steering`` over a list."""

    def __init__(self) -> None:
        self.prompts: list[SteeredPrompt] = []

    @property
    def waiting(self) -> bool:
        return bool(self.prompts)

    async def take(self) -> Sequence[SteeredPrompt]:
        taken, self.prompts = self.prompts, []
        return taken

    def say(self, text: str, *attachments: Attachment, origin: Origin = USER) -> None:
        self.prompts.append(SteeredPrompt(command_id=new_id("c"), text=text, origin=origin, attachments=attachments))


def answered(
    ask: Ask, payload: object = None, status: InterruptStatus = InterruptStatus.RESOLVED, run_id: str = "u_now"
) -> Interrupt:
    """What becomes of a question."""
    return Interrupt(
        id=new_id("i"), session_id="s_1", run_id=run_id, kind=ask.kind, message=ask.message,
        tool_call_id=ask.tool_call_id, tool=ask.tool, args=ask.args, details=ask.details,
        fingerprint=ask.fingerprint, subagent_run_id=ask.subagent_run_id, options=ask.options,
        created_at=now(), status=status, payload=payload,
    )  # fmt: skip


class Bench:
    """One session of one user, to run loops on."""

    def __init__(self, loop: AgentLoop) -> None:
        self.loop = loop
        self.straight: list[Event] = []
        """What came past the loop's own iterator, through ``ToolContext.emit``."""
        self.steering = MemorySteering()
        self.attachments = MemoryAttachments()
        self.asked: list[Ask] = []
        self.ask: AskUser | None = None
        self.desk = MemoryDesk()
        self.library = MemoryLibrary()
        self.stop = StopSignal()
        self.configuration = NOTHING_CONFIGURED
        self.session = Session(
            id="s_1",
            owner="ada",
            title="t",
            profile="assistant",
            model="offline",
            timezone=ZONE,
            created_at=now(),
            updated_at=now(),
        )

    def turn(
        self,
        prompt: str,
        *,
        model: str = "offline",
        history: tuple[PastTurn, ...] = (),
        origin: Origin = USER,
        limits: Limits | None = None,
        run_id: str = "u_now",
        attachments: tuple[Attachment, ...] = (),
        resumed: bytes | None = None,
        answers: tuple[Interrupt, ...] = (),
    ) -> tuple[Turn, ToolContext]:
        """What the orchestrator would hand over."""
        turn = Turn(
            session=self.session,
            run_id=run_id,
            model=model,
            prompt=prompt,
            history=history,
            limits=limits or Limits(run_timeout=20),
            origin=origin,
            now=now().astimezone(ZoneInfo(ZONE)),
            attachments=attachments,
            resumed=resumed,
            answers=answers,
        )
        context = ToolContext(
            user_id="ada",
            session=self.session,
            run_id=run_id,
            origin=origin,
            stop=self.stop,
            configuration=self.configuration,
            recalls=self.desk,
            library=self.library,
            emit=self.straight.append,
            ask=self.ask,
            steering=self.steering,
            attachments=self.attachments,
        )
        return turn, context

    async def resume(self, paused: Outcome, *answers: Interrupt, **how: object) -> Outcome:
        """The run goes on with these answers, checked against AG-UI as one stream."""
        assert paused.result is not None
        outcome = Outcome(before=paused)
        async for item in self.events("-", resumed=paused.result.conversation, answers=answers, **how):
            outcome.add(item)
        outcome.check(whole=True)
        return outcome

    def events(self, prompt: str, **how: object) -> AsyncIterator[Event | TurnResult]:
        """The loop's own iterator."""
        turn, context = self.turn(prompt, **how)  # type: ignore[arg-type]
        return self.loop.run(turn, context)

    async def run(self, prompt: str, **how: object) -> Outcome:
        """A whole turn, checked against AG-UI."""
        outcome = Outcome()
        try:
            async for item in self.events(prompt, **how):
                outcome.add(item)
        except BaseException:
            outcome.check(whole=False)
            raise
        outcome.check(whole=True)
        return outcome

    async def run_to_failure(self, prompt: str, **how: object) -> str:
        """A turn that fails; its code."""
        try:
            outcome = Outcome()
            async for item in self.events(prompt, **how):
                outcome.add(item)
        except RunFailed as error:
            return error.run_code
        assert outcome.result is not None
        assert outcome.result.failure is not None
        return outcome.result.failure.code


class Outcome:
    """What a turn yielded."""

    def __init__(self, before: Outcome | None = None) -> None:
        self.events: list[Event] = []
        self.result: TurnResult | None = None
        self.before = before
        """The same run up to its pause."""

    def add(self, item: Event | TurnResult) -> None:
        assert self.result is None, "nothing may follow the TurnResult"
        if isinstance(item, TurnResult):
            self.result = item
        else:
            self.events.append(item)

    async def take(self, events: AsyncIterator[Event | TurnResult]) -> None:
        """All that an iterator still has."""
        async for item in events:
            self.add(item)

    def check(self, *, whole: bool) -> None:
        """Every body is AG-UI's; START before content, END after; all closed when the turn is whole."""
        from .agui import check_bodies

        earlier = self.before.events if self.before is not None else []
        waiting = {str(ask.tool_call_id) for ask in self.result.asks} if self.result is not None else set()
        check_bodies([*earlier, *self.events], whole=whole, waiting=waiting)
        if whole:
            assert self.result is not None, "a turn ends with a TurnResult"

    @property
    def asks(self) -> tuple[Ask, ...]:
        assert self.result is not None
        return self.result.asks

    def custom(self, name: str) -> list[dict[str, Any]]:
        """The values of our own events of this name."""
        return [event.value for event in self._of("CUSTOM") if event.name == name]  # type: ignore[attr-defined]

    def _of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.type == kind]

    @property
    def text(self) -> str:
        return "".join(event.delta for event in self._of("TEXT_MESSAGE_CONTENT"))  # type: ignore[attr-defined]

    @property
    def reasoning(self) -> str:
        return "".join(event.delta for event in self._of("REASONING_MESSAGE_CONTENT"))  # type: ignore[attr-defined]

    @property
    def tools(self) -> list[str]:
        return [event.tool_call_name for event in self._of("TOOL_CALL_START")]  # type: ignore[attr-defined]

    @property
    def args(self) -> str:
        return "".join(event.delta for event in self._of("TOOL_CALL_ARGS"))  # type: ignore[attr-defined]

    @property
    def results(self) -> list[str]:
        return [event.content for event in self._of("TOOL_CALL_RESULT")]  # type: ignore[attr-defined]
