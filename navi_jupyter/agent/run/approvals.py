"""Whether a tool call may be made: the one place where the permissions of a run are asked, for every backend.

Not responsible for the rules (``tools.permissions``), nor for questions that outlive the process: for these the run
pauses (``runner``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ...errors import NaviError, ToolUnavailable
from ...model.runs import Approval, Interrupt, InterruptKind, InterruptStatus, Permission
from ...model.sessions import OriginKind, Session
from ...ports.agent import Ask, ToolContext
from ...text import approval_words
from ..profiles.definitions import Profile
from ..tools.base import BUILTIN, Tool, matches
from ..tools.call_details import CallDescription
from ..tools.permissions import Chain, ToolPermissions, Verdict, silent_profile

NO_DESCRIPTION = CallDescription()


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The answer to the question whether a call may be made."""

    approved: bool
    args: dict[str, Any] | None = None  # the arguments that the user put in place of the model's
    message: str = ""  # why it was not approved, for the model


class Allowances:
    """What the agents of one run share of its permissions: its session's word, and what the run has met so far.

    It keeps the stricter of what held when the run began and of what holds now, over pauses, too: who changes the
    session's profile or its allowed tools meanwhile can take something from this run, and give the next one something.
    """

    def __init__(self, profiles: Iterable[Profile] = (), allowed: Sequence[str] = ()) -> None:
        """``profiles``: those that the session has had since the run began; ``allowed``: the tools that were allowed in
        it then, by name or pattern."""
        self.profiles = {profile.name: profile for profile in profiles}
        self.allowed = tuple(allowed)
        self.names: set[str] = set()  # tools that the user has allowed for the session during this run
        self.unasked: dict[str, None] = {}
        """Tools that a recall's run needed, and did not get since the user could not be asked; in their order."""
        self.joined = False
        """Whether a prompt of another origin has joined the run: what a recall may do without asking is not meant for
        what the user wishes besides."""
        self.foreign = False  # whether the conversation has foreign text in it (``ToolContext.foreign``)
        self._changed = asyncio.Event()

    def add(self, name: str) -> None:
        """Allow a tool. Everything that waits for an answer about it goes on."""
        self.names.add(name)
        self._changed.set()
        self._changed = asyncio.Event()

    async def granted(self, name: str) -> None:
        """Return once the tool is allowed."""
        while name not in self.names:
            await self._changed.wait()

    def bounding(self, chain: Chain) -> Chain:
        """All that bounds an agent of this chain: also the profiles that the session has had since the run began."""
        names = {profile.name for profile in chain}
        return (*(profile for profile in self.profiles.values() if profile.name not in names), *chain)

    def allows(self, tool: Tool, session: Session | None) -> bool:
        """Whether the user has allowed the tool for the session; ``session`` is what it is now, if that is known."""
        given = tool.name in self.names or any(matches(pattern, tool) for pattern in self.allowed)
        return given and (session is None or any(matches(pattern, tool) for pattern in session.allowed_tools))


class ApprovalGate:
    """Decides about the calls of one agent, and asks the user where it has to."""

    def __init__(
        self,
        permissions: ToolPermissions,
        profile_of: Callable[[str], Profile],
        chain: Chain,
        context: ToolContext,
        allowances: Allowances | None = None,
        subagent: str | None = None,
    ) -> None:
        """``profile_of`` raises InvalidRequest for a profile that cannot be used; ``chain`` bounds the agent."""
        self._permissions = permissions
        self._profile_of = profile_of
        self._chain = tuple(chain)
        self._context = context
        session = context.session
        self._allowances = allowances or Allowances(self._chain[:1], session.allowed_tools)
        self._subagent = subagent

    @property
    def in_memory(self) -> bool:
        """Whether a question is awaited in memory. A subagent cannot be suspended, so its questions are."""
        return self._subagent is not None

    async def decide(self, tool: Tool, args: Mapping[str, Any]) -> Verdict:
        """Whether this call may be made now, and why.

        The session and a recall's leave are read anew for each call, so that what is taken away counts at once.
        """
        try:
            session = await self._context.library.session(self._context.session.id)
            chain = self._bounds(session)
            context = await self._current_context(tool, session)
            question = None if tool.asks is None else await tool.asks(args, context)
        except NaviError as error:
            return Verdict(permission=Permission.DENY, because=error.message)
        verdict = self._permissions.judge(tool, chain, context, question)
        if verdict.unasked:
            self._allowances.unasked[tool.name] = None
        return verdict

    def _bounds(self, session: Session | None) -> Chain:
        """The agent's chain, and the profiles that the session has had besides since the run began."""
        profiles = self._allowances.profiles
        if session is not None and session.profile not in profiles:
            profiles[session.profile] = self._profile_of(session.profile)
        return self._allowances.bounding(self._chain)

    def note_call(self, tool: Tool) -> None:
        """A call is made: the agent reads its result."""
        if not (tool.own and tool.source == BUILTIN):
            self._allowances.foreign = True

    async def objection(self, tool: Tool, args: Mapping[str, Any]) -> str | None:
        """Why a backend that cannot ask the user may not make the call; None when it may."""
        verdict = await self.decide(tool, args)
        match verdict.permission:
            case Permission.ALLOW:
                return None
            case Permission.ASK:
                self._note_unasked(tool)
                return f"{tool.name} needs your approval, and this backend cannot ask for it: allow it in the session."
            case Permission.DENY:
                return verdict.because

    def _note_unasked(self, tool: Tool) -> None:
        """A call needed the user, who cannot be asked. Where they wrote the prompt, they read it in the answer."""
        if self._context.origin.kind is OriginKind.RECALL:
            self._allowances.unasked[tool.name] = None

    async def _current_context(self, tool: Tool, session: Session | None) -> ToolContext:
        """The run's context with what is allowed for this tool now: for the session, and to the recall that started it.

        ``session``: what it is now, if that is known.
        """
        context, allowances = self._context, self._allowances
        leave: tuple[str, ...] = ()
        by_recall = context.origin.kind is OriginKind.RECALL and not allowances.joined
        if by_recall and context.origin.recall_id is not None:
            recall = await context.recalls.recall_of(context.origin.recall_id)
            leave = () if recall is None else recall.allow
        allowed = (tool.name,) if allowances.allows(tool, session) else ()
        session_now = context.session.but(allowed_tools=allowed)
        return replace(context, session=session_now, leave=leave, foreign=allowances.foreign)

    async def may_wait(self, tool: Tool) -> bool:
        """Whether the run may wait for the user's answer to a question of this tool.

        A recall's run is headless: it may only with the recall's leave for this very tool, or when the user has joined.
        """
        context = await self._current_context(tool, None)
        headless = context.origin.kind is OriginKind.RECALL and not self._allowances.joined
        return not headless or tool.name in context.leave

    async def answer(self, ask: Ask) -> Interrupt:
        """The settled question, awaited in memory: for an agent that cannot be suspended."""
        if self._context.ask is None:
            raise ToolUnavailable("This run cannot ask the user.")
        return await self._context.ask(replace(ask, subagent_run_id=self._subagent))

    async def ask(
        self,
        tool: Tool,
        args: Mapping[str, Any],
        call_id: str | None,
        question: str | None = None,
        description: CallDescription = NO_DESCRIPTION,
    ) -> Decision:
        """Ask the user and wait, in memory. The question is withdrawn when the tool is allowed in the meantime."""
        if self._context.ask is None:
            self._note_unasked(tool)
            return Decision(approved=False, message="It needs the user's approval, and this run cannot ask the user.")
        ask = replace(
            approval_question(tool.name, dict(args), call_id, question, source=tool.source, description=description),
            subagent_run_id=self._subagent,
        )
        asking = asyncio.ensure_future(self._context.ask(ask))
        granted = asyncio.ensure_future(self._allowances.granted(tool.name))
        try:
            # Several subagents may ask about one tool at once: "allow for the session" answers all of them.
            await asyncio.wait({asking, granted}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and (await self.decide(tool, args)).permission is Permission.ALLOW:
                return Decision(approved=True)
            return self.take_answer(await asking)
        finally:
            for one in (asking, granted):
                one.cancel()
            # Awaited, so that the withdrawal of the question is in the log before the call goes on.
            await asyncio.wait({asking, granted})

    def take_answer(self, interrupt: Interrupt) -> Decision:
        """The decision in an answer. "Allow for the session" in it holds for the calls that follow."""
        decision = decision_of(interrupt)
        always = decision.approved and _approval_of(interrupt).always == "session"
        if always and interrupt.tool and interrupt.about_the_tool:
            self._allowances.add(interrupt.tool)
        return decision


def bound(context: ToolContext, chain: Chain) -> ToolContext:
    """The context of an agent that these profiles bound: with their names, and with questions where all of them ask."""
    names = tuple(dict.fromkeys(profile.name for profile in chain))
    if context.origin.kind is OriginKind.RECALL and silent_profile(chain) is not None:
        # The user is not there, and a profile does not wait for them: an MCP server or a subagent must not either.
        return replace(context, profiles=names, ask=None)
    return replace(context, profiles=names)


def approval_question(
    tool: str,
    args: dict[str, Any],
    call_id: str | None,
    question: str | None = None,
    *,
    source: str | None = None,
    description: CallDescription = NO_DESCRIPTION,
) -> Ask:
    """The question whether a call may be made, in the call's own words where it has some, with what it would do."""
    return Ask(
        kind=InterruptKind.APPROVAL,
        message=question or approval_words(tool),
        tool_call_id=call_id,
        tool=tool,
        args=args,
        source=source,
        details=description.details,
        fingerprint=description.fingerprint,
    )


def rejected_call(message: str, code: str = "not_approved") -> str:
    """The result of a call that was not made, in the form of every tool error, so that views recognize it."""
    return json.dumps({"error": code, "message": message}, ensure_ascii=False)


def decision_of(interrupt: Interrupt) -> Decision:
    """The decision in the final status of a question."""
    match interrupt.status:
        case InterruptStatus.RESOLVED:
            approval = _approval_of(interrupt)
            if approval.approved:
                return Decision(approved=True, args=approval.args)
            reason = f" They say: {approval.message}" if approval.message else ""
            return Decision(approved=False, message=f"The user did not allow this call.{reason}")
        case InterruptStatus.EXPIRED:
            return Decision(
                approved=False, message="The question whether to allow this call expired without an answer."
            )
        case _:
            return Decision(approved=False, message="The user declined this call without giving a reason.")


def _approval_of(interrupt: Interrupt) -> Approval:
    """The payload as an approval. A missing payload approves the call as it is; an invalid one does not approve."""
    if interrupt.payload is None:
        return Approval(approved=True)
    try:
        return Approval.model_validate(interrupt.payload)
    except ValidationError:
        return Approval(approved=False, message="(Their answer could not be read.)")
