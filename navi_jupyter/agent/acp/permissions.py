"""What an agent program may do by itself: its questions with their options, and what an answer covers.

The program asks by its own rules (``session/request_permission``), and what it does through Navi (files, terminals) is
judged by those of the run: the strictest word counts. Its actions stand for tools of Navi of the same effect, so that
profiles, the ceiling, a session's allowed tools and a recall's leave mean them, too. Not responsible for doing them
(``client``, ``terminals``).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import InvalidRequest, ToolDenied
from ...events import ActivitySnapshot
from ...input.json_input import JsonTooDeep, well_formed, well_formed_value
from ...log_setup import get_logger
from ...model.runs import Approval, AskOption, CallDetail, Effect, Interrupt, InterruptKind, InterruptStatus, Permission
from ...ports.agent import Ask, ToolContext
from ...text import one_line
from ..run.approvals import ApprovalGate
from ..tools.base import Tool, ToolOutput
from ..tools.call_details import CallDescription, argument_parts, change_part, code_part, text_part

if TYPE_CHECKING:
    from acp.schema import PermissionOption, RequestPermissionResponse, ToolCallUpdate

log = get_logger("agent")

SERVER_NAME = "navi"  # what our own MCP server is called in ``session/new``
MAX_OPTIONS = 20
_LONGEST_NAME = 200  # characters of an option, and of a title in a question
_LONGEST_ARGS = 100_000  # characters of a call's input that are kept as its arguments; its parts are shown in any case
_CHANGES = ("edit", "delete", "move")
_VERBS = {
    "read": "read",
    "search": "search",
    "edit": "change a file",
    "delete": "delete",
    "move": "move",
    "execute": "run a command",
    "fetch": "fetch from the network",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentIdentity:
    """The agent program that asks."""

    name: str  # as in the model's name, ``acp:<name>``
    title: str  # for users


def action(agent: AgentIdentity, kind: str | None) -> Tool:
    """What an action of the program counts as for permissions: a tool of the same effect, with the program as source.

    ``kind``: as the program reports it; one that is not known to only read counts as another program's.
    """
    names = {"execute": ("run_code", Effect.RUN), **dict.fromkeys(_CHANGES, ("write_file", Effect.WRITE))}
    names |= dict.fromkeys(("read", "search", "think"), ("read_file", Effect.READ))
    name, effect = names.get(kind or "", ("agent_tool", Effect.OUTSIDE))
    return Tool(
        name=name,
        description="",
        parameters={"type": "object"},
        effect=effect,
        call=_never_called,
        source=f"acp:{agent.name}",
    )


async def _never_called(_: Mapping[str, Any]) -> ToolOutput:
    raise ToolDenied("An agent program does this itself.")


def own_tool(title: str | None, kind: str | None, tools: Sequence[str]) -> str | None:
    """The tool of our own MCP server that a call of the program is, by its title; None for anything else.

    Programs name it as they please. Only a whole title counts: part of one may be a command or a path.
    """
    if kind not in (None, "other") or title is None:
        return None
    for tool in tools:
        if title in (
            f"{SERVER_NAME}_{tool}",  # OpenCode
            f"mcp__{SERVER_NAME}__{tool}",  # Claude Code
            f"{tool} ({SERVER_NAME} MCP Server)",  # Gemini CLI
            f"{SERVER_NAME}__{tool}",  # goose
            f"{SERVER_NAME}.{tool}",  # Codex
            f"{SERVER_NAME}/{tool}",
        ):
            return tool
    return None


@dataclass(slots=True)
class Grants:
    """What the user has allowed the program to do, as far as the program then does it through Navi.

    Always: as long as the program lives, which is how long its own rule lasts.
    """

    always: set[Effect] = field(default_factory=set)
    _changes: list[tuple[str, str | None, str]] = field(default_factory=list)  # path, text before, text after
    _commands: list[str] = field(default_factory=list)

    def allow(self, call: ToolCallUpdate, effect: Effect, *, always: bool) -> None:
        """Note an answer that allows a call."""
        if always:
            self.always.add(effect)
        for part in call.content or ():
            if part.type == "diff":
                self._changes.append((part.path, part.old_text, part.new_text))
        if effect is Effect.RUN:
            self._commands.append(_command_of(call))

    def covers_change(self, path: str, before: str | None, after: str) -> bool:
        """Whether a change of a file is what was shown and allowed; that is then used up. ``before``: None for a new
        file."""
        if Effect.WRITE in self.always:
            return True
        for change in self._changes:
            if change[0] == path and _is_change(change[1], change[2], before, after):
                self._changes.remove(change)
                return True
        return False

    def covers_command(self, line: str) -> bool:
        """Whether a command is what was shown and allowed; that is then used up."""
        if Effect.RUN in self.always:
            return True
        if line in self._commands:
            self._commands.remove(line)
            return True
        return False

    def end_run(self) -> None:
        """What was allowed once is not for the next run."""
        self._changes.clear()
        self._commands.clear()


def _is_change(old: str | None, new: str, before: str | None, after: str) -> bool:
    """Whether replacing ``old`` by ``new``, all of the file or a part of it, makes ``after`` of ``before``."""
    if not old or before is None:
        return not old and not before and new == after
    return after in (before.replace(old, new), before.replace(old, new, 1))


def _command_of(call: ToolCallUpdate) -> str:
    """The command line of a call: its input has it, else the title is it."""
    given = call.raw_input if isinstance(call.raw_input, dict) else {}
    command = given.get("command")
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command or call.title or "")


class AgentPermissions:
    """Answers what one agent program asks in one run."""

    def __init__(
        self,
        agent: AgentIdentity,
        gate: ApprovalGate,
        context: ToolContext,
        grants: Grants,
        call_in_log: Callable[[ToolCallUpdate], str | None],
        own_tools: Callable[[], Sequence[str]],
    ) -> None:
        """``call_in_log``: the id that the call has in the log, where it is opened if it was not yet; ``own_tools``:
        the names of Navi's tools that the program has."""
        self._agent = agent
        self._gate = gate
        self._context = context
        self._grants = grants
        self._call_in_log = call_in_log
        self._own_tools = own_tools

    async def request(self, call: ToolCallUpdate, options: Sequence[PermissionOption]) -> RequestPermissionResponse:
        """The answer to ``session/request_permission``."""
        offered, call = _offered(options), _readable(call)
        if self._context.stop.stopping:
            return _outcome(None)
        if own_tool(call.title, call.kind, self._own_tools()) is not None:
            # Navi asks about it itself, when it is called: with all of what it would do.
            return _outcome(_first(offered, "allow_once", "allow_always"))
        tool = action(self._agent, call.kind)
        args = _arguments(call)
        verdict = await self._gate.decide(tool, args)
        call_id = self._call_in_log(call)
        if verdict.permission is Permission.DENY:
            self._explain(call_id, verdict.because)
            return _outcome(_first(offered, "reject_once", "reject_always"))
        if verdict.permission is Permission.ALLOW and tool.effect is not Effect.READ:
            # By a rule of the profile, or the user's word for the session or the recall: nothing else allows these.
            self._grants.allow(call, tool.effect, always=False)
            return _outcome(_first(offered, "allow_once", "allow_always"))
        settled = await self._gate.answer(await self._question(call, call_id, tool, args, offered))
        return self._answered(call, tool.effect, settled, offered)

    def _answered(
        self, call: ToolCallUpdate, effect: Effect, settled: Interrupt, offered: tuple[AskOption, ...]
    ) -> RequestPermissionResponse:
        if settled.status is InterruptStatus.RESOLVED:
            chosen = settled.option(Approval.model_validate(settled.payload))
        elif self._context.stop.stopping:
            chosen = None
        else:  # declined, or expired
            chosen = _first(offered, "reject_once", "reject_always")
        if chosen is not None and chosen.allows:
            self._grants.allow(call, effect, always=chosen.kind == "allow_always")
        return _outcome(chosen)

    async def _question(
        self,
        call: ToolCallUpdate,
        call_id: str | None,
        tool: Tool,
        args: dict[str, Any],
        offered: tuple[AskOption, ...],
    ) -> Ask:
        title = one_line(well_formed(call.title or ""), _LONGEST_NAME)
        verb = _VERBS.get(call.kind or "", "use a tool")
        return Ask(
            kind=InterruptKind.APPROVAL,
            message=f"{self._agent.title} wants to {verb}{f': {title}' if title else '.'}",
            tool_call_id=call_id,
            tool=tool.name,
            args=args,
            source=tool.source,
            details=tuple(await _details(call)),
            options=offered,
        )

    def _explain(self, call_id: str | None, why: str) -> None:
        """Why a call was refused without asking: the program has no place for it in its answer."""
        log.info("agent_call_refused", agent=self._agent.name, why=why)
        if call_id is not None:
            content = {"toolCallId": call_id, "message": f"Refused: {why}"}
            self._context.emit(
                ActivitySnapshot(
                    message_id=f"progress_{call_id}", activity_type="navi.progress", content=content, replace=True
                )
            )

    async def check(self, kind: str, args: Mapping[str, Any], description: CallDescription, *, covered: bool) -> None:
        """Whether the program may do something through Navi; the user is asked where need be. Raises ToolDenied.

        ``covered``: the user has allowed this already, when the program asked.
        """
        tool = action(self._agent, kind)
        verdict = await self._gate.decide(tool, args)
        if verdict.permission is Permission.DENY:
            raise ToolDenied(verdict.because)
        if verdict.permission is Permission.ASK and not covered:
            whose = text_part("Agent program", self._agent.title)
            shown = CallDescription(details=(whose, *description.details), fingerprint=description.fingerprint)
            decision = await self._gate.ask(tool, args, None, verdict.question, shown)
            if not decision.approved:
                raise ToolDenied(decision.message)
        self._gate.note_call(tool)
        if tool.effect is not Effect.READ:
            await self._context.record_effect(tool.name)


def _readable(call: ToolCallUpdate) -> ToolCallUpdate:
    """The call with all of its texts well-formed. Raises InvalidRequest for one that is nested too deeply."""
    try:
        return type(call).model_validate(well_formed_value(call.model_dump(by_alias=True, exclude_none=True)))
    except JsonTooDeep as error:
        raise InvalidRequest("The call is nested too deeply to be shown.") from error


def _offered(options: Sequence[PermissionOption]) -> tuple[AskOption, ...]:
    """The options that can be shown: each id once, in bounds; the program gets its own ids back."""
    found: dict[str, AskOption] = {}
    for option in options:
        identity = well_formed(option.option_id)
        if identity and len(identity) <= _LONGEST_NAME and identity not in found and len(found) < MAX_OPTIONS:
            name = one_line(well_formed(option.name), _LONGEST_NAME) or option.kind.replace("_", " ")
            found[identity] = AskOption(id=identity, name=name, kind=option.kind)
    return tuple(found.values())


def _first(options: Sequence[AskOption], *kinds: str) -> AskOption | None:
    return next((option for kind in kinds for option in options if option.kind == kind), None)


def _outcome(option: AskOption | None) -> RequestPermissionResponse:
    """None: nothing was chosen, which ends the call (and is what a stopped run answers)."""
    from acp.schema import AllowedOutcome, DeniedOutcome, RequestPermissionResponse  # late: an extra, slow to import

    if option is None:
        return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
    return RequestPermissionResponse(outcome=AllowedOutcome(outcome="selected", option_id=option.id))


def _arguments(call: ToolCallUpdate) -> dict[str, Any]:
    given = call.raw_input if isinstance(call.raw_input, dict) else {}
    known = {str(name): value for name, value in given.items()}
    return known if len(json.dumps(known, default=str)) <= _LONGEST_ARGS else {}


async def _details(call: ToolCallUpdate) -> list[CallDetail]:
    """All that the program says about a call. They are its words, but for the difference, which we make."""
    parts: list[CallDetail] = []
    if call.title and (len(call.title) > _LONGEST_NAME or "\n" in call.title):
        parts.append(code_part("Title", call.title, None))
    shown = {location.path for location in call.locations or ()}
    for part in call.content or ():
        match part.type:
            case "diff":
                shown.discard(part.path)
                parts.append(text_part("Path", part.path))
                parts.append(await change_part("Change of the file", part.old_text or "", part.new_text))
            case "content" if part.content.type == "text":
                parts.append(text_part("What the program says", part.content.text, foreign=True))
            case _:
                pass  # a terminal that is to come, an image
    parts += [text_part("Path", path) for path in sorted(shown)]
    given = call.raw_input
    if isinstance(given, dict):
        command = given.get("command")
        if isinstance(command, str):
            parts.insert(0, code_part("Command", command, "bash"))
        parts += argument_parts(given, ("command",) if isinstance(command, str) else ())
    elif given is not None:
        parts.append(text_part("Input", given, foreign=True))
    return parts
