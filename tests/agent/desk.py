"""A recall desk and a library in memory: real implementations of the ports; and a bench to run loops on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from navi_jupyter.errors import RecallNotFound, RecallOver
from navi_jupyter.events import Event
from navi_jupyter.model import (
    USER,
    Firing,
    Origin,
    OriginKind,
    Recall,
    RecallCreate,
    RecallStatus,
    Run,
    RunStatus,
    Session,
    new_id,
    now,
)
from navi_jupyter.ports import (
    AgentLoop,
    Limits,
    Message,
    PastTurn,
    StopSignal,
    ToolContext,
    Turn,
    TurnResult,
)
from navi_jupyter.recalls.schedule import next_after, resolve

ZONE = "Europe/Berlin"


class MemoryDesk:
    """``ports.RecallDesk`` without a disk."""

    def __init__(self) -> None:
        self.recalls: dict[str, Recall] = {}
        self.ledger: dict[str, list[Firing]] = {}

    async def create(self, request: RecallCreate, *, owner: str, zone: str, by_agent: bool = False) -> Recall:
        at = now()
        schedule = resolve(request.schedule, now=at, zone=zone)
        recall = Recall(
            id=new_id("r"),
            session_id=request.session_id,
            title=request.title or request.message[:60],
            message=request.message,
            schedule=schedule,
            policy=request.policy,
            status=RecallStatus.PENDING,
            next_at=next_after(schedule, at),
            created_at=at,
            origin=OriginKind.SYSTEM if by_agent else OriginKind.USER,
        )
        self.recalls[recall.id] = recall
        return recall

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


class MemoryLibrary:
    """``ports.Library`` over lists."""

    def __init__(self) -> None:
        self.said: list[Message] = []
        self.done: list[Run] = []

    async def messages(self, session_id: str) -> Sequence[Message]:
        return self.said

    async def runs(self, session_id: str, *, limit: int = 50) -> Sequence[Run]:
        return list(reversed(self.done))[:limit]

    def add(
        self,
        prompt: str,
        answer: str,
        *,
        at: datetime,
        origin: Origin = USER,
        status: RunStatus = RunStatus.COMPLETED,
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


class Bench:
    """One session of one user, to run loops on."""

    def __init__(self, loop: AgentLoop) -> None:
        self.loop = loop
        self.desk = MemoryDesk()
        self.library = MemoryLibrary()
        self.stop = StopSignal()
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
    ) -> tuple[Turn, ToolContext]:
        """What the orchestrator would hand over."""
        turn = Turn(
            session=self.session,
            run_id=run_id,
            model=model,
            prompt=prompt,
            history=history,
            limits=limits or Limits(timeout=20),
            origin=origin,
            now=now().astimezone(ZoneInfo(ZONE)),
        )
        context = ToolContext(
            user_id="ada",
            role="owner",
            session=self.session,
            run_id=run_id,
            origin=origin,
            stop=self.stop,
            recalls=self.desk,
            library=self.library,
        )
        return turn, context

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


class Outcome:
    """What a turn yielded."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.result: TurnResult | None = None

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

        check_bodies(self.events, whole=whole)
        if whole:
            assert self.result is not None, "a turn ends with a TurnResult"

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
