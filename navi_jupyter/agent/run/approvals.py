"""Whether a tool call may be made: the one place where the permissions of a run are asked, for every backend.

Not responsible for the rules (``tools.permissions``), nor for questions that outlive the process: for these the run
pauses (``runner``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ...errors import NaviError
from ...model.runs import Approval, Interrupt, InterruptKind, InterruptStatus, Permission
from ...model.sessions import OriginKind
from ...ports.agent import Ask, ToolContext
from ...text import approval_words
from ..profiles.definitions import Profile
from ..tools.base import Tool
from ..tools.permissions import ToolPermissions, Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The answer to the question whether a call may be made."""

    approved: bool
    args: dict[str, Any] | None = None  # the arguments that the user put in place of the model's
    message: str = ""  # why it was not approved, for the model


class Allowances:
    """The tools that the user has allowed for the session during this run, and those that it could not ask for.

    Shared by the run's agent and subagents.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.unasked: dict[str, None] = {}
        """Tools that a recall's run needed, and did not get since the user could not be asked; in their order."""
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


class ApprovalGate:
    """Decides about the calls of one agent, and asks the user where it has to."""

    def __init__(
        self,
        permissions: ToolPermissions,
        profile: Profile,
        context: ToolContext,
        allowances: Allowances | None = None,
        subagent: str | None = None,
    ) -> None:
        self._permissions = permissions
        self._profile = profile
        self._context = context
        self._allowances = allowances if allowances is not None else Allowances()
        self._subagent = subagent

    @property
    def in_memory(self) -> bool:
        """Whether a question is awaited in memory. A subagent cannot be suspended, so its questions are."""
        return self._subagent is not None

    async def decide(self, tool: Tool, args: Mapping[str, Any]) -> Verdict:
        """Whether this call may be made now, and why.

        A recall's leave is read anew for each call, so that a revocation counts at once.
        """
        context = await self._current_context()
        try:
            question = None if tool.asks is None else await tool.asks(args, context)
        except NaviError as error:
            return Verdict(permission=Permission.DENY, because=error.message)
        verdict = self._permissions.judge(tool, self._profile, context, question)
        if verdict.unasked:
            self._allowances.unasked[tool.name] = None
        return verdict

    async def objection(self, tool: Tool, args: Mapping[str, Any]) -> str | None:
        """Why a backend that cannot ask the user may not make the call; None when it may."""
        if not self._profile.offers(tool):
            return f"The profile {self._profile.name!r} has no {tool.name}."
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

    async def _current_context(self) -> ToolContext:
        """The run's context, with what was allowed since the run began, and with what its recall may do now."""
        context = self._context
        leave: tuple[str, ...] = ()
        if context.origin.kind is OriginKind.RECALL and context.origin.recall_id is not None:
            leave = await context.recalls.leave_of(context.origin.recall_id)
        session = context.session
        allowed = (*session.allowed_tools, *sorted(self._allowances.names.difference(session.allowed_tools)))
        return replace(context, session=session.but(allowed_tools=allowed), leave=leave)

    async def ask(
        self, tool: Tool, args: Mapping[str, Any], call_id: str | None, question: str | None = None
    ) -> Decision:
        """Ask the user and wait, in memory. The question is withdrawn when the tool is allowed in the meantime."""
        if self._context.ask is None:
            self._note_unasked(tool)
            return Decision(approved=False, message="It needs the user's approval, and this run cannot ask the user.")
        ask = replace(approval_question(tool.name, dict(args), call_id, question), subagent_run_id=self._subagent)
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


def approval_question(tool: str, args: dict[str, Any], call_id: str | None, question: str | None = None) -> Ask:
    """The question whether a call may be made, in the call's own words where it has some."""
    message = question or approval_words(tool)
    return Ask(kind=InterruptKind.APPROVAL, message=message, tool_call_id=call_id, tool=tool, args=args)


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
