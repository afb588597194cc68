"""One run of the offline backend: a request, done through the tools that a model would call, streamed like its answer.

It never claims what no tool confirmed. What is understood: ``intents``; how answers are worded: ``replies``. Their
patterns take a while to compile: ``backend`` imports this module at the first run, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from ...errors import InvalidRequest, InvalidSchedule, ToolDenied
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
from ...ports.agent import ToolContext, Turn, TurnResult, tool_context
from ...text import truncate
from ...timetext.dates import zone_of_place
from ...timetext.parse import Timed, read_in_thread
from ..registry import AgentParts
from ..run.approvals import ApprovalGate, rejected_call
from ..tools.base import as_text, call_recorded
from ..tools.builtin import builtin_tools
from ..trigger import RecallTrigger, trigger_of
from . import intents, kernel_state, replies
from .intents import Intent, understand

_CHUNK_DELAY = 0.012
_ANSWER_TIME = 0.8
"""Seconds that a normal answer streams at most, however long it is."""
_Events = AsyncIterator[Event]
_FIXED: Mapping[type[Intent], Callable[[], str]] = {
    intents.Help: replies.capabilities,
    intents.Greeting: replies.greeting,
    intents.Thanks: lambda: "You are welcome.",
    intents.Unknown: replies.no_language_model,
}
"""Answers that need no tool."""


class OfflineTools:
    """The built-in tools, for one run."""

    def __init__(self, agent_parts: AgentParts, context: ToolContext) -> None:
        self._agent_parts = agent_parts
        self._context = context

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """The output of the tool as a model would read it: text, or JSON.

        A call that is not allowed gives an error as JSON, and so does one whose arguments do not fit.
        """
        # In a thread: the first call imports the tools, whose schemas take some 50 ms.
        tool = (await asyncio.to_thread(builtin_tools))[name]
        try:
            profile = self._agent_parts.profiles.get(self._context.session.profile)
        except InvalidRequest as error:  # the user's file of the profile is broken
            return rejected_call(error.message, error.code)
        # This backend cannot pause for an answer: a call that would ask is refused, with how to allow it.
        objection = ApprovalGate(self._agent_parts.permissions, profile, self._context).objection(tool)
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
        self._lead = ""
        """What comes before the answer."""

    async def events(self) -> AsyncIterator[Event | TurnResult]:
        """The run, and its result as the last item."""
        trigger = await trigger_of(self._context, self._turn.now)
        self._lead = replies.unreadable_attachments([one.name for one in self._turn.attachments])
        async for event in self._triggered(trigger) if trigger else self._answer(understand(self._turn.prompt)):
            yield event
        yield TurnResult(conversation=b'{"format":"offline/1"}')

    def _answer(self, intent: Intent) -> _Events:
        match intent:
            case intents.Schedule():
                return self._schedule(intent)
            case intents.ListRecalls():
                return self._reply(replies.recall_list, ("list_recalls", {}))
            case intents.CancelRecall():
                return self._cancel(intent)
            case intents.History(since=since):
                arguments = {} if since is None else {"since": since[:100]}
                return self._reply(replies.history, ("session_history", arguments))
            case intents.Summary():
                return self._reply(replies.summary, ("session_history", {"limit": 200}), ("list_recalls", {}))
            case intents.Variables(pattern=pattern):
                arguments = {} if pattern == "*" else {"pattern": pattern}
                return self._reply(kernel_state.variables, ("list_variables", arguments))
            case intents.Inspect(name=name):
                return self._reply(kernel_state.variable, ("inspect_variable", {"name": name}))
            case intents.LastError():
                return self._last_error()
            case intents.Time(place=place):
                return self._time(place)
            case intents.Count():
                return self._count(intent)
            case _:
                return self._text(_FIXED[type(intent)]())

    async def _reply(self, reply: Callable[..., str], *calls: tuple[str, dict[str, Any]]) -> _Events:
        """Call tools, and put their results in words."""
        outcomes: list[dict[str, Any]] = []
        for name, arguments in calls:
            outcomes.append({})
            async for event in self._tool(name, arguments, outcomes[-1]):
                yield event
        async for event in self._text(reply(*outcomes)):
            yield event

    async def _triggered(self, trigger: RecallTrigger) -> _Events:
        """A recall has fired: do what its message asks, else repeat it; with the time when it was due."""
        recall, prompt, now = trigger.recall, self._turn.prompt, self._turn.now
        message = recall.message if recall and recall.message in prompt else prompt
        intent = understand(message)
        is_request = not isinstance(
            intent, intents.Schedule | intents.Greeting | intents.Thanks | intents.Unknown | intents.Help
        )
        if is_request:
            self._lead = replies.requested_by_recall(message, trigger, self._zone, now)
            events = self._answer(intent)
        else:
            events = self._remind(message, trigger)
        async for event in events:
            yield event

    async def _remind(self, message: str, trigger: RecallTrigger) -> _Events:
        text = replies.reminder(message, trigger, self._zone, self._turn.now)
        if not re.match(r"(?:check|look|see|follow|come back|get back|monitor|watch)\b", message, re.IGNORECASE):
            events = self._text(text)
        else:
            # Asked to look at something: what it can look at is the session.
            since = {"since": trigger.recall.created_at.isoformat()} if trigger.recall else {}
            events = self._reply(
                lambda outcome: f"{text}\n\n{replies.session_since(outcome)}", ("session_history", since)
            )
        async for event in events:
            yield event

    async def _schedule(self, request: intents.Schedule) -> _Events:
        refusal = replies.no_time_given()
        timed = None
        try:
            timed = await self._timed(request.text)
        except InvalidSchedule as error:
            refusal = replies.bad_time(error.message)
        message = intents.message_of(timed.message) if timed else ""
        if timed is None:
            events = self._text(refusal if request.sure else replies.no_language_model())
        elif not message and not request.sure:
            events = self._text(replies.time_without_message(timed.phrase))
        else:
            arguments = {"message": message or "You asked to be reminded.", "when": timed.phrase}
            if message:
                arguments["title"] = truncate(message, 60)
            events = self._reply(lambda outcome: replies.created(outcome, message), ("create_recall", arguments))
        async for event in events:
            yield event

    async def _timed(self, text: str) -> Timed | None:
        """The time in a sentence; when there is none, in the sentence with its typos corrected."""
        ready = re.sub(
            r"\b(timer|alarm|reminder) (?:of|for) (?=\d+ ?[a-z]|an? |half )", r"\1 in ", text, flags=re.IGNORECASE
        )
        found = await read_in_thread(ready, self._turn.now, self._zone)
        if found is None and (corrected := intents.fix_typos(ready)) != ready:
            found = await read_in_thread(corrected, self._turn.now, self._zone)
        return found

    async def _cancel(self, request: intents.CancelRecall) -> _Events:
        planned: dict[str, Any] = {}
        async for event in self._tool("list_recalls", {}, planned):
            yield event
        recalls: list[dict[str, Any]] = planned.get("recalls", [])
        chosen = recalls if request.all else replies.matching(request.what, recalls)
        if chosen and (len(chosen) == 1 or request.all):
            calls = [("cancel_recall", {"recall_id": recall["id"]}) for recall in chosen]
            events = self._reply(replies.cancelled, *calls)
        else:
            events = self._text(replies.which_one(request.what, chosen or recalls, several=bool(chosen)))
        async for event in events:
            yield event

    async def _last_error(self) -> _Events:
        """From the kernel, which has the error also before the notebook is saved; else from the notebook's outputs."""
        error: dict[str, Any] = {}
        async for event in self._tool("inspect_variable", {"name": "sys.last_value"}, error):
            yield event
        is_enough = error.get("traceback") or error.get("error") == "tool_denied"
        calls: tuple[tuple[str, dict[str, Any]], ...] = () if is_enough else (("read_notebook", {}),)
        async for event in self._reply(lambda *notebook: kernel_state.last_error(error, *notebook), *calls):
            yield event

    async def _time(self, place: str | None) -> _Events:
        zone = await asyncio.to_thread(zone_of_place, place) if place else None
        if place and zone is None:
            events = self._text(replies.unknown_place(place))
        else:
            events = self._reply(replies.time_now, ("current_time", {"timezone": zone} if zone else {}))
        async for event in events:
            yield event

    async def _count(self, request: intents.Count) -> _Events:
        """One number per chunk, at the given pace: to see streaming, stop and reconnection at work."""
        message_id = new_id("m")
        clock = asyncio.get_running_loop().time
        began = clock()
        yield TextMessageStart(message_id=message_id, role="assistant")
        if self._lead:
            yield TextMessageContent(message_id=message_id, delta=self._lead)
        for number in range(1, request.to + 1):
            if self._context.stop.stopping:
                break
            space = "\n" if number % 10 == 0 else " "
            yield TextMessageContent(message_id=message_id, delta=f"{number}{space}")
            # By the clock, so that slow steps do not add up; always a real sleep, so that other tasks get their turn.
            await asyncio.sleep(max(0.0, began + number * request.every - clock()))
        else:
            end = f"\nThat was {request.to} in {clock() - began:.1f} s."
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
