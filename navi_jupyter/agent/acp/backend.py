"""The backend of models ``acp:<name>``: a turn is one prompt to the agent program of the session.

A stop is ``session/cancel``: the program gets a few seconds to end its turn, and is ended where it does not. A prompt
that is to join the run (mode ``steer``) ends the turn of the program, which goes on with it: the protocol has no queue.
A conversation that the program's own session does not have (another model's turns, a fork, a turn that was taken back,
a session that it cannot load any more) is given to it as text. Not responsible for the programs' lives (``programs``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InvalidRequest, NaviError, RunFailed
from ...events import Custom, Event
from ...log_setup import get_logger
from ...model.sessions import AnswerNotice, Failure, Usage
from ...ports.agent import PastTurn, ToolContext, Turn, TurnResult
from ..profiles.context_providers import NOTEBOOK, is_switched_on
from ..registry import AgentParts
from ..run.backend import EventQueue
from ..run.budgets import Budget, UsageMeter
from .agents import FoundAgent
from .programs import LOGIN_NEEDED, AgentPrograms, SessionProgram
from .prompt import NOTHING_SEEN, Block, SeenRuns, StoredSession, blocks_of, history_text, introduction, stored_session
from .run_tools import ProgramRun, program_run
from .translation import TurnTranslation
from .transport import TurnReports

if TYPE_CHECKING:
    from acp.schema import ToolCallUpdate

    from .program import AgentProgram

log = get_logger("acp")

CANCEL_SECONDS = 4.0  # that a program gets to end its turn: less than `stop_deadline` has, so that it is not abandoned
_LINGER = 6.0  # seconds that a cancelled turn may take, the end of the program included
_AHEAD = 500  # events that a program may be ahead of the log
_STEER_LOOKS = 0.2  # seconds between two looks for prompts that are to join

_NOTICES = {
    "max_tokens": AnswerNotice(
        code="answer_cut",
        message="The answer is cut off: it reached the most that this model writes at once. Ask to go on.",
    ),
    "refusal": AnswerNotice(
        code="answer_filtered", message="The agent refused to go on. Ask in other words, or switch to another model."
    ),
}
_WORK = ("agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan")
_EMPTY = AnswerNotice(
    code="answer_empty", message="The agent ended without an answer. Ask again, or switch to another model."
)
_AS_TEXT = "The agent's own session could not be continued: the conversation was given to it again, as text."
_STEERED = "The agent takes no prompt while it works: it was stopped, and goes on with this one."


class AgentProgramBackend:
    """Answers with agent programs. See ``ports.agent.AgentLoop``."""

    def __init__(self, parts: AgentParts, programs: AgentPrograms) -> None:
        self._parts = parts
        self.programs = programs

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """The turn runs in a task of its own; leaving this generator ends it, and waits for that within bounds."""
        queue = EventQueue(context.emit)
        inside = queue.within(context)
        task = asyncio.create_task(self._turn(turn, inside, queue), name=f"navi-acp-{turn.run_id}")
        task.add_done_callback(lambda _: queue.close())
        try:
            while (event := await queue.get()) is not None:
                yield event
            if task.cancelled() and context.stop.stopping:
                yield TurnResult(conversation=b"")
                return
            yield task.result()
        finally:
            queue.detach()
            if not task.done():
                task.cancel()
                await asyncio.wait({task}, timeout=_LINGER)
            if not task.done():
                log.warning("agent_turn_lingers", run_id=turn.run_id, seconds=_LINGER)
            elif not task.cancelled():
                task.exception()  # retrieved, or asyncio warns of it: the consumer has got it, or has left

    async def _turn(self, turn: Turn, context: ToolContext, queue: EventQueue) -> TurnResult:
        agent = await self._agent(turn.model)
        budget = Budget(turn.limits, context.spending, context)
        await budget.start()
        if (failure := budget.check(Usage())) is not None:
            return TurnResult(conversation=b"", failure=failure)
        try:
            async with self.programs.turn_in(turn.session, agent) as held:
                result = await _ProgramTurn(turn, context, queue, held, self._parts, self.programs.root).result()
        except RunFailed as error:
            if error.run_code == LOGIN_NEEDED:
                self.programs.catalog.note_login(agent.name, error.message)
            raise
        self.programs.catalog.note_login(agent.name, None)
        return result

    async def _agent(self, model: str) -> FoundAgent:
        try:
            agent = await asyncio.to_thread(self.programs.catalog.find, model)
        except InvalidRequest as error:
            raise RunFailed(error.message, run_code="model_unavailable") from error
        if not agent.command:
            raise RunFailed(f"{model} cannot be used here. {agent.why}", run_code="model_unavailable")
        return agent


class _ProgramTurn:
    """One turn of a program."""

    def __init__(
        self, turn: Turn, context: ToolContext, queue: EventQueue, held: SessionProgram, parts: AgentParts, root: Path
    ) -> None:
        self._turn = turn
        self._context = context
        self._queue = queue
        self._held = held
        self._program: AgentProgram = held.program
        self._parts = parts.of(context.configuration)
        self._meter = UsageMeter(turn.run_id, context.emit, Usage())
        self._translation = TurnTranslation(
            agent=held.agent.name,
            run_id=turn.run_id,
            root=root,
            ours=lambda: held.offered,
            terminal_text=self._program.requests.terminal_text,
        )
        self._has_recorded = False
        self._has_reported = False  # whether the program has reported anything of this turn but its offer and its usage
        self._began_anew = False  # whether its session was made for this turn

    async def result(self) -> TurnResult:
        """Do it. Raises RunFailed; a cancellation ends the program's turn first."""
        held, turn = self._held, self._turn
        run = await program_run(turn, self._context, self._parts)
        held.offered = [tool.name for tool in run.offered()]
        # From the beginning: a program lists our tools while its session begins, and most list them never again.
        async with held.tools.working_on(run):
            try:
                answer = await self._attempt(run)
            except RunFailed as error:
                if not self._is_session_broken(error):
                    raise
                log.info("agent_session_broken", agent=held.agent.name, run_id=turn.run_id, reason=error.message)
                answer = await self._attempt(run, anew=True)
        session = self._program.session or ""
        stored = StoredSession(agent=held.agent.name, session=session, owner=turn.session.id, seen=held.seen)
        reason = answer.get("stopReason")
        failure = run.failure or _failure_of(reason, held.agent)
        notice = _NOTICES.get(str(reason)) if failure is None else None
        if notice is None and failure is None and not self._translation.has_text:
            notice = _EMPTY
        return TurnResult(conversation=stored.dump(), usage=self._meter.total, failure=failure, notice=notice)

    def _is_session_broken(self, error: RunFailed) -> bool:
        """Whether the program refuses the prompt in a session that it had, before it has done anything for it.

        Gemini CLI does so after a stop in a call: its own session then has a call without a result, which no model
        takes. So the conversation is given to a new session, once.
        """
        nothing_done = not (self._has_reported or self._began_anew or self._context.stop.stopping)
        return error.run_code == "agent_failed" and self._program.usable and nothing_done

    async def _attempt(self, run: ProgramRun, *, anew: bool = False) -> Mapping[str, Any]:
        """The program's answer, in the session that it has; ``anew``: in a new one."""
        held, turn = self._held, self._turn
        runs = [past.run_id for past in turn.history]
        missing, is_new = await self._session(runs, anew=anew)
        self._began_anew = is_new
        session = self._program.session or ""
        self.offer_changed()
        for problem in await self._program.choose(turn.session.agent_options):
            self._emit(self._translation.note("agent_option_refused", problem))
        self.offer_changed()
        before = await self._before(missing, is_new=is_new)
        async with self._program.requests.working_on(
            session, run.gate, run.context, self._call_in_log, self._terminal_printed
        ):
            self._program.turn = TurnReports(self.report, self.offer_changed)
            held.seen = SeenRuns.of([*runs, turn.run_id])  # from here on its session has this prompt
            try:
                return await self._answer(run, before)
            finally:
                self._program.turn = None
                self._emit(self._translation.close())

    async def _session(self, runs: Sequence[str], *, anew: bool) -> tuple[Sequence[PastTurn], bool]:
        """See to it that the program has a session; the turns that it does not have in it, and whether it is new."""
        held, history = self._held, self._turn.history
        is_new = False
        if self._program.session is None and not anew:
            held.seen = NOTHING_SEEN
            stored = stored_session(self._turn, held.agent.name)
            how = None if stored is None else await self._program.continue_session(stored.session, held.servers())
            if stored is not None and how is not None:
                held.seen = stored.seen
        if anew or self._program.session is None or not held.seen.begins(runs):
            await self._program.begin_session(held.servers())
            held.seen, is_new = NOTHING_SEEN, True
        missing = history[held.seen.count :]
        if is_new and missing:
            self._emit(self._translation.note("conversation_as_text", _AS_TEXT))
        return missing, is_new

    async def _before(self, missing: Sequence[PastTurn], *, is_new: bool) -> list[str]:
        profile = self._parts.profiles.get(self._turn.session.profile)
        has_tools = bool(self._held.servers())
        words = await introduction(self._turn, self._context, profile, is_new=is_new, has_tools=has_tools)
        return [words, await asyncio.to_thread(history_text, missing)]

    async def _answer(self, run: ProgramRun, before: Sequence[str]) -> Mapping[str, Any]:
        """The program's answer to the prompt, and to those that join the run."""
        turn, context = self._turn, self._context
        capabilities = self._program.capabilities.get("promptCapabilities")
        can = capabilities if isinstance(capabilities, dict) else {}
        profile = self._parts.profiles.get(turn.session.profile)
        shown = turn.shown if is_switched_on(NOTEBOOK, profile, context) else None
        blocks = await blocks_of(turn.prompt, turn.attachments, shown, context, self._program.offer, can, before=before)
        while True:
            answer, is_steered = await self._ask(blocks)
            self._count(answer)
            if not is_steered or context.steering is None:
                return answer
            self._emit(self._translation.close())
            prompts = await context.steering.take()
            if not prompts:  # withdrawn meanwhile; what was cut off for it goes on
                blocks = [{"type": "text", "text": "Go on."}]
                continue
            self._emit(self._translation.note("steered_by_cancel", _STEERED))
            blocks = []
            for prompt in prompts:
                run.note_steered(prompt)
                blocks += await blocks_of(
                    prompt.text, prompt.attachments, prompt.shown, context, self._program.offer, can
                )

    async def _ask(self, blocks: Sequence[Block]) -> tuple[Mapping[str, Any], bool]:
        """One prompt of the program: its answer, and whether it was cut off for a prompt that is to join."""
        self._context.require_lease()
        steering, is_cut = self._context.steering, False
        mark = self._program.mark
        with nullcontext() if mark is None else mark.call():
            prompt = asyncio.create_task(self._program.prompt(blocks), name=f"navi-acp-prompt-{self._turn.run_id}")
            try:
                while not prompt.done():
                    await asyncio.wait({prompt}, timeout=_STEER_LOOKS)
                    if steering is not None and steering.waiting and not is_cut and not prompt.done():
                        is_cut = True
                        await self._program.cancel()
            except asyncio.CancelledError:
                await self._end_turn(prompt)
                raise
        answer = prompt.result()
        return answer, is_cut and answer.get("stopReason") == "cancelled"

    async def _end_turn(self, prompt: asyncio.Task[Mapping[str, Any]]) -> None:
        """End the turn of the program, or the program."""
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._program.cancel()
                await asyncio.wait({prompt})
        except TimeoutError:
            message = f"{self._program.offer.title} did not end its turn in time, so the program was ended."
            log.warning("agent_killed", agent=self._held.agent.name, run_id=self._turn.run_id)
            self._program.kill()
            prompt.cancel()
            self._context.report_stop("agent", message)
        if prompt.done() and not prompt.cancelled() and prompt.exception() is None:
            self._count(prompt.result())

    def _count(self, answer: Mapping[str, Any]) -> None:
        """The usage that the program reports with an answer."""
        input_tokens, output_tokens = _tokens(answer)
        cost = self._translation.cost
        spent = None if cost is None or cost < self._held.cost else cost - self._held.cost
        self._held.cost = cost if cost is not None else self._held.cost
        if input_tokens or output_tokens or spent:
            self._meter.add(Usage(input_tokens=input_tokens, output_tokens=output_tokens, requests=1, cost=spent))

    # --- what the program reports

    async def report(self, update: Mapping[str, Any]) -> None:
        """See ``transport.TurnReports``."""
        self._has_reported = self._has_reported or update.get("sessionUpdate") in _WORK
        self._emit(self._translation.apply(update))
        if self._translation.has_effects and not self._has_recorded:
            self._has_recorded = True
            try:
                await self._context.record_effect(f"acp:{self._held.agent.name}")
            except NaviError as error:  # the run is another server's by now: its end is on the way
                log.warning("agent_effect_not_recorded", run_id=self._turn.run_id, error=error.message)
        await self._queue.room(_AHEAD)

    def offer_changed(self) -> None:
        """See ``transport.TurnReports``."""
        offer = self._program.offer.value()
        if offer != self._held.shown:
            self._held.shown = offer
            self._context.emit(Custom(name="navi.agent_options", value=offer.wire()))

    def _call_in_log(self, call: ToolCallUpdate) -> str | None:
        events, call_id = self._translation.ask(call.model_dump(mode="json", by_alias=True, exclude_none=True))
        self._emit(events)
        return call_id

    def _terminal_printed(self, terminal: str) -> None:
        self._emit(self._translation.terminal_changed(terminal))

    def _emit(self, events: Sequence[Event]) -> None:
        for event in events:
            self._context.emit(event)


def _failure_of(reason: object, agent: FoundAgent) -> Failure | None:
    match reason:
        case "end_turn" | "max_tokens" | "refusal":
            return None
        case "max_turn_requests":
            message = f"{agent.title} reached the most requests to its model that it makes in a turn. Ask to go on."
            return Failure(code="max_iterations", message=message)
        case "cancelled":
            message = f"{agent.title} ended its turn by itself, as if it had been cancelled. Ask to go on."
            return Failure(code="agent_failed", message=message)
        case _:
            return Failure(
                code="agent_protocol", message=f"{agent.title} ended its turn without a reason that is known."
            )


def _tokens(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Input and output: of the field ``usage``, or where Gemini CLI has them."""
    usage = answer.get("usage")
    if isinstance(usage, dict):
        cached = sum(_count_of(usage.get(name)) for name in ("cachedReadTokens", "cachedWriteTokens"))
        return _count_of(usage.get("inputTokens")) + cached, _count_of(usage.get("outputTokens"))
    more = answer.get("_meta")
    quota = more.get("quota") if isinstance(more, dict) else None
    counts = quota.get("token_count") if isinstance(quota, dict) else None
    if not isinstance(counts, dict):
        return 0, 0
    return _count_of(counts.get("input_tokens")), _count_of(counts.get("output_tokens"))


def _count_of(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40 else 0
