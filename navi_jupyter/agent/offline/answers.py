"""One run of the offline backend: a request, done through the tools that a model would call, streamed like its answer.

It never claims what no tool confirmed. What is understood: ``intents``; how answers are worded: ``replies``. Their
patterns take a while to compile: ``backend`` imports this module at the first run, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from ...errors import InvalidRequest, InvalidSchedule, NaviError, ToolDenied
from ...events import (
    Event,
    TextMessageContent,
    TextMessageEnd,
    TextMessageStart,
    ToolCallArgs,
    ToolCallEnd,
    ToolCallResult,
    ToolCallStart,
)
from ...model.base import new_id
from ...model.sessions import Failure, needed_approval
from ...ports.agent import ToolContext, Turn, TurnResult, tool_context
from ...text import inert, truncate
from ...timetext.instants import Timed
from ...timetext.notebook_jobs import read_job
from ...timetext.parse import read
from ...timetext.zones import zone_of_place
from ..history_summary import summarize_history
from ..registry import AgentParts
from ..run.approvals import Allowances, ApprovalGate, rejected_call
from ..tools.base import as_text, call_recorded
from ..tools.builtin import builtin_tools
from ..trigger import RecallTrigger, trigger_of
from . import intents, replies
from .intents import Intent, understand

_CHUNK_DELAY = 0.012
_LOOKED_THROUGH = 100  # runs since a recall fired before
_ANSWER_TIME = 0.8  # seconds that a normal answer streams at most, however long it is
_Events = AsyncIterator[Event]
_Call = tuple[str, dict[str, Any]]  # a tool and its arguments
_Plan = tuple[Callable[..., str], Sequence[_Call]]  # the tools to call, and what puts their results in words
_RECALLS: _Call = ("list_recalls", {})
_PLANS: Mapping[str, Callable[[str], _Plan]] = {
    "list": lambda _: (replies.recall_list, [_RECALLS]),
    "history": lambda since: (replies.history, [("session_history", {"since": since[:100]} if since else {})]),
    "summary": lambda _: (replies.summary, [("session_history", {"limit": 200}), _RECALLS]),
    "variables": lambda names: (replies.variables, [("list_variables", {} if names == "*" else {"pattern": names})]),
    "inspect": lambda name: (replies.variable, [("inspect_variable", {"name": name})]),
    "plot": lambda name: (lambda found: replies.plot(name, found), [("inspect_variable", {"name": name})]),
    "help": lambda _: (replies.capabilities, ()),
    "greeting": lambda _: (lambda: replies.GREETING, ()),
    "thanks": lambda _: (lambda: "You are welcome.", ()),
    "unknown": lambda _: (replies.no_language_model, ()),
}
"""What answers an intent, by its kind and text."""
_NO_REQUEST = ("schedule", "maybe schedule", "greeting", "thanks", "unknown", "help")
"""A recall whose message is read as one of these is a reminder: it makes no further recall, and is not answered."""


class OfflineTools:
    """The built-in tools, for one run."""

    def __init__(self, agent_parts: AgentParts, context: ToolContext) -> None:
        self._agent_parts = agent_parts.of(context.configuration)
        self._context = context
        self._allowances = Allowances(allowed=context.session.allowed_tools)

    @property
    def failure(self) -> Failure | None:
        """That a recall's run needed a tool and the user could not be asked; None where there was no such call."""
        unasked = self._allowances.unasked
        return needed_approval(unasked) if unasked else None

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The output of the tool as a model would read it: text, or JSON.

        A call that is not allowed gives an error as JSON, and so does one whose arguments do not fit.
        """
        # In a thread: the first call imports the tools, whose schemas take some 50 ms.
        tool = (await asyncio.to_thread(builtin_tools))[name]
        try:
            profiles = self._agent_parts.profiles
            profile = profiles.get(self._context.session.profile)
        except InvalidRequest as error:  # the user's file of the profile is broken
            return rejected_call(error.message, error.code)
        # This backend cannot pause for an answer: a call that would ask is refused, with how to allow it.
        gate = ApprovalGate(self._agent_parts.permissions, profiles.get, (profile,), self._context, self._allowances)
        objection = await gate.objection(tool, arguments)
        if objection is not None:
            return rejected_call(objection, ToolDenied.code)
        token = tool_context.set(self._context)
        try:
            return as_text(await call_recorded(tool, arguments, self._context))
        finally:
            tool_context.reset(token)


class OfflineRun:
    """One run. Its events go out by :meth:`_text` and :meth:`_tool`; a stop takes effect between any two."""

    def __init__(self, turn: Turn, context: ToolContext, agent_parts: AgentParts) -> None:
        self._tools = OfflineTools(agent_parts, context)
        self._turn = turn
        self._context = context
        self._zone = turn.session.timezone
        self._lead = ""  # what comes before the answer
        self._recalled = False  # whether a recall asks: then nothing is explained about how it is answered

    async def events(self) -> AsyncIterator[Event | TurnResult]:
        """The run, and its result as the last item."""
        trigger = await trigger_of(self._context, self._turn.now)
        if trigger is None:
            self._lead = replies.unreadable_attachments([one.name for one in self._turn.attachments])
        async for event in self._triggered(trigger) if trigger else self._answer(understand(self._turn.prompt)):
            yield event
        yield TurnResult(conversation=b'{"format":"offline/1"}', failure=self._tools.failure)

    def _triggered(self, trigger: RecallTrigger) -> _Events:
        """A recall has fired: do what its message asks, else repeat it; with the time when it was due."""
        recall, prompt, now = trigger.recall, self._turn.prompt, self._turn.now
        message = recall.message if recall and inert(recall.message) in prompt else prompt  # it may be in a fence
        intent = understand(message)
        if intent.kind in _NO_REQUEST:
            return self._remind(message, trigger)
        self._recalled = True
        self._lead = f"{replies.reminder(message, trigger, self._zone, now)}\n\n"
        return self._answer(intent)

    async def _remind(self, message: str, trigger: RecallTrigger) -> _Events:
        """The message itself: it asks for nothing that could be done here."""
        now, zone, since = self._turn.now, self._zone, trigger.since
        lines = [replies.reminder(message, trigger, zone, now), replies.happened(self._turn.prompt)]
        if since is not None:
            with suppress(NaviError):  # a reminder is one without it, too
                found = await summarize_history(
                    self._context.session.id,
                    library=self._context.library,
                    recalls=self._context.recalls,
                    since=since,
                    limit=_LOOKED_THROUGH,
                    leave_out=self._context.run_id,
                )
                lines.append(replies.since_then(found, since, zone, now))
        async for event in self._text("\n\n".join(filter(None, lines))):
            yield event

    async def _answer(self, intent: Intent) -> _Events:
        match intent.kind:
            case "cancel" | "cancel all":
                events = self._cancel(intent)
            case "last error":
                events = self._last_error()
            case "count":
                events = self._count(int(intent.text), intent.every)
            case "schedule" | "maybe schedule":
                events = self._reply(*await self._schedule(intent))
            case "time":
                events = self._reply(*await self._time(intent.text))
            case "summary" if self._recalled:
                events = self._reply(replies.summary_alone, _PLANS["summary"]("")[1])
            case kind:
                events = self._reply(*_PLANS[kind](intent.text))
        async for event in events:
            yield event

    async def _reply(self, reply: Callable[..., str], calls: Sequence[_Call]) -> _Events:
        outcomes: list[dict[str, Any]] = []
        for name, arguments in calls:
            outcomes.append({})
            async for event in self._tool(name, arguments, outcomes[-1]):
                yield event
        async for event in self._text(reply(*outcomes)):
            yield event

    async def _schedule(self, request: Intent) -> _Plan:
        is_sure, timed, refusal = request.kind == "schedule", None, replies.NO_TIME_GIVEN
        try:
            timed = await self._timed(request.text)
        except InvalidSchedule as error:
            refusal = f"I made no reminder. {error.message}"
        if timed is None:
            return (lambda: refusal if is_sure else replies.no_language_model()), ()
        message = intents.message_of(timed.message)
        if read_job(message) is not None:
            return (lambda: replies.notebook_by_cell(timed.phrase, message)), ()
        if not message and not is_sure:
            return (lambda: replies.time_without_message(timed.phrase)), ()
        arguments = {"message": message or "You asked to be reminded.", "when": timed.phrase}
        if message:
            arguments["title"] = truncate(message, 60)
        return (lambda outcome: replies.created(outcome, message)), [("create_recall", arguments)]

    async def _timed(self, text: str) -> Timed | None:
        """The time in a sentence; when there is none, in the sentence with its typos corrected."""
        ready = re.sub(
            r"\b(timer|alarm|reminder) (?:of|for) (?=\d+ ?[a-z]|an? |half )", r"\1 in ", text, flags=re.IGNORECASE
        )
        found = await asyncio.to_thread(read, ready, self._turn.now, self._zone)
        if found is None and (corrected := intents.fix_typos(ready)) != ready:
            found = await asyncio.to_thread(read, corrected, self._turn.now, self._zone)
        return found

    async def _cancel(self, request: Intent) -> _Events:
        planned: dict[str, Any] = {}
        async for event in self._tool(*_RECALLS, planned):
            yield event
        recalls: list[dict[str, Any]] = planned.get("recalls", [])
        is_all = request.kind == "cancel all"
        chosen = recalls if is_all else replies.matching(request.text, recalls)
        if chosen and (len(chosen) == 1 or is_all):
            events = self._reply(replies.cancelled, [("cancel_recall", {"recall_id": one["id"]}) for one in chosen])
        else:
            events = self._text(replies.which_one(request.text, chosen or recalls, several=bool(chosen)))
        async for event in events:
            yield event

    async def _last_error(self) -> _Events:
        """From the kernel, which has the error also before the notebook is saved; else from the notebook's outputs."""
        error: dict[str, Any] = {}
        async for event in self._tool("inspect_variable", {"name": "sys.last_value"}, error):
            yield event
        is_enough = error.get("traceback") or error.get("error") == "tool_denied"
        calls: list[_Call] = [] if is_enough else [("read_notebook", {})]
        async for event in self._reply(lambda *notebook: replies.last_error(error, *notebook), calls):
            yield event

    async def _time(self, place: str) -> _Plan:
        zone = await asyncio.to_thread(zone_of_place, place) if place else None
        if place and zone is None:
            unknown = f"I know no time zone for “{place.strip()}”. Name a city or a zone like `Asia/Tokyo`."
            return (lambda: unknown), ()
        return replies.time_now, [("current_time", {"timezone": zone} if zone else {})]

    async def _count(self, to: int, every: float) -> _Events:
        """One number per chunk, at the given pace: to see streaming, stop and reconnection at work."""
        message_id = new_id("m")
        clock = asyncio.get_running_loop().time
        began = clock()
        yield TextMessageStart(message_id=message_id, role="assistant")
        if self._lead:
            yield TextMessageContent(message_id=message_id, delta=self._lead)
        for number in range(1, to + 1):
            if self._context.stop.stopping:
                break
            space = "\n" if number % 10 == 0 else " "
            yield TextMessageContent(message_id=message_id, delta=f"{number}{space}")
            # By the clock, so that slow steps do not add up; always a real sleep, so that other tasks get their turn.
            await asyncio.sleep(max(0.0, began + number * every - clock()))
        else:
            end = f"\nThat was {to} in {clock() - began:.1f} s."
            yield TextMessageContent(message_id=message_id, delta=end)
        yield TextMessageEnd(message_id=message_id)

    async def _text(self, text: str) -> _Events:
        """The answer in small pieces, word by word, within about a second."""
        message_id = new_id("m")
        words = re.findall(r"\s*\S+", self._lead + text)
        delay = min(_CHUNK_DELAY, _ANSWER_TIME / max(len(words), 1))
        step = max(1, round(0.002 / delay)) if delay < 0.002 else 1
        yield TextMessageStart(message_id=message_id, role="assistant")
        for at in range(0, len(words), step):
            if self._context.stop.stopping:
                break
            yield TextMessageContent(message_id=message_id, delta="".join(words[at : at + step]))
            await asyncio.sleep(delay * step)
        yield TextMessageEnd(message_id=message_id)

    async def _tool(self, name: str, arguments: Mapping[str, Any], outcome: dict[str, Any]) -> _Events:
        """Call a tool as a model would; its result goes into ``outcome``, too: plain text as ``text``."""
        call_id = new_id("t")
        yield ToolCallStart(tool_call_id=call_id, tool_call_name=name)
        yield ToolCallArgs(tool_call_id=call_id, delta=json.dumps(arguments, ensure_ascii=False))
        yield ToolCallEnd(tool_call_id=call_id)
        content = await self._tools.call(name, arguments)
        try:
            outcome.update(json.loads(content))
        except ValueError:
            outcome["text"] = content
        yield ToolCallResult(message_id=new_id("m"), tool_call_id=call_id, content=content)
