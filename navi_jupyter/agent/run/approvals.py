"""Whether a tool call may be made, at the moment when it is to be made.

Not responsible for the rules (``permissions``), nor for how a durable question is put: that is the loop's pause.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from ...model.runs import Approval, Interrupt, InterruptKind, InterruptStatus, Permission
from ...ports.agent import Ask, ToolContext
from ..profiles.definitions import Profile
from ..registry import Permissions
from ..tools.base import Tool


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """What became of a question about a call."""

    approved: bool
    args: dict[str, Any] | None = None
    """Call it with these instead."""
    message: str = ""
    """For the model, when it was not approved: why."""
    by_user: bool = True


class Allowances:
    """The tools that the user has allowed for the rest of the session while this run went on. Shared with workers."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, name: str) -> None:
        """From now on nobody needs to be asked about this tool; who waits for an answer about it goes on."""
        self.names.add(name)
        self._changed.set()
        self._changed = asyncio.Event()

    async def granted(self, name: str) -> None:
        """Return once the tool is allowed."""
        while name not in self.names:
            await self._changed.wait()


class ApprovalGate:
    """One agent's way to a ruling."""

    def __init__(
        self,
        permissions: Permissions,
        profile: Profile,
        context: ToolContext,
        allowances: Allowances,
        worker: str | None,
    ) -> None:
        self._permissions = permissions
        self._profile = profile
        self._context = context
        self._allowances = allowances
        self._worker = worker

    @property
    def in_memory(self) -> bool:
        """Whether a question is put and waited for right here: a worker's stack can not be put away and taken up."""
        return self._worker is not None

    def decide(self, tool: Tool) -> Permission:
        """Whether the tool may be called now."""
        return self._permissions.decide(tool, self._profile, self._present())

    def explain(self, tool: Tool) -> str:
        """Why :meth:`decide` says so."""
        return self._permissions.explain(tool, self._profile, self._present())

    def _present(self) -> ToolContext:
        """The context with what was allowed since the run began."""
        session = self._context.session
        allowed = (*session.allowed_tools, *sorted(self._allowances.names.difference(session.allowed_tools)))
        return replace(self._context, session=session.but(allowed_tools=allowed))

    async def ask(self, tool: Tool, args: Mapping[str, Any], call_id: str | None) -> Ruling:
        """Put the question and wait, in memory. When the tool gets allowed meanwhile, the question is withdrawn."""
        if self._context.ask is None:
            return Ruling(approved=False, message="It needs the user's approval, and nobody can be asked here.")
        ask = replace(question(tool.name, dict(args), call_id), subagent_run_id=self._worker)
        asking = asyncio.ensure_future(self._context.ask(ask))
        granted = asyncio.ensure_future(self._allowances.granted(tool.name))
        try:
            await asyncio.wait({asking, granted}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and self.decide(tool) is Permission.ALLOW:
                return Ruling(approved=True)
            ruling = self.heard(await asking)
        finally:
            for one in (asking, granted):
                one.cancel()
            await asyncio.wait({asking, granted})
        return ruling

    def heard(self, interrupt: Interrupt) -> Ruling:
        """What an answer says; an allowance in it holds from now on."""
        found = ruling_of(interrupt)
        if found.approved and interrupt.tool and _approval(interrupt).always == "session":
            self._allowances.add(interrupt.tool)
        return found


def question(tool: str, args: dict[str, Any], call_id: str | None) -> Ask:
    """The question whether a call may be made."""
    return Ask(
        kind=InterruptKind.APPROVAL, message=f"Navi wants to use {tool}.", tool_call_id=call_id, tool=tool, args=args
    )


def not_made(message: str, code: str = "not_approved") -> str:
    """The result of a call that was not made: an error like every other of a tool's, so that views can tell, too."""
    return json.dumps({"error": code, "message": message}, ensure_ascii=False)


def ruling_of(interrupt: Interrupt) -> Ruling:
    """What the answer to an approval says; for a model to read where it says no."""
    match interrupt.status:
        case InterruptStatus.RESOLVED:
            approval = _approval(interrupt)
            if approval.approved:
                return Ruling(approved=True, args=approval.args)
            said = f" They say: {approval.message}" if approval.message else ""
            return Ruling(approved=False, message=f"The user did not allow this call.{said}")
        case InterruptStatus.EXPIRED:
            return Ruling(
                approved=False, by_user=False, message="Nobody answered whether this may be called, so it was not."
            )
        case _:
            return Ruling(approved=False, message="The user declined this call without a word.")


def _approval(interrupt: Interrupt) -> Approval:
    """The payload; a missing one approves as it is, one that can not be read does not."""
    if interrupt.payload is None:
        return Approval(approved=True)
    try:
        return Approval.model_validate(interrupt.payload)
    except ValidationError:
        return Approval(approved=False, message="(Their answer could not be read.)")
