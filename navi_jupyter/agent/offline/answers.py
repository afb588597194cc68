"""One run of the offline backend: a wish, done through the tools that a model would call, streamed like its answer.

It never claims what no tool confirmed. What is understood: ``intents``; how things are put: ``replies``. Their patterns
take a while to compile: :mod:`.offline` imports this module at the first run, in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from ...errors import InvalidSchedule
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
from ...ports.agent import ToolContext, Turn, TurnResult
from ...timetext.parse import Timed, read_in_thread
from ...timetext.zones import zone_of_place
from ..trigger import RecallTrigger, trigger_of
from . import intents, replies
from .backend import OfflineTools
from .intents import Intent, understand

_CHUNK_DELAY = 0.012
_ANSWER_TIME = 1.0
"""Seconds that a normal answer streams at most, however long it is."""


class Answer:
    """One run: bodies go out by :meth:`_say` and :meth:`_tool`; both let a stop through between any two."""

    def __init__(self, turn: Turn, context: ToolContext, tools: OfflineTools) -> None:
        self._tools = tools
        self._turn = turn
        self._context = context
        self._zone = turn.session.timezone

    async def events(self) -> AsyncIterator[Event | TurnResult]:
        wake = await trigger_of(self._context, self._turn.now)
        unseen = replies.can_not_see([one.name for one in self._turn.attachments])
        bodies = self._woken(wake) if wake else self._answer(understand(self._turn.prompt), unseen)
        async for body in bodies:
            yield body
        yield TurnResult(conversation=b'{"format":"offline/1"}')

    # --- the wishes --------------------------------------------------------------------------------------------------

    def _answer(self, intent: Intent, lead: str = "") -> AsyncIterator[Event]:
        match intent:
            case intents.Schedule():
                return self._schedule(intent, lead)
            case intents.ListRecalls():
                return self._list(lead)
            case intents.CancelRecall():
                return self._cancel(intent, lead)
            case intents.History(since=since):
                return self._history(since, lead)
            case intents.Summary():
                return self._summary(lead)
            case intents.Time(place=place):
                return self._time(place, lead)
            case intents.Count():
                return self._count(intent, lead)
            case intents.Help():
                return self._say(lead + replies.capabilities())
            case intents.Greeting():
                return self._say(lead + replies.greeting())
            case intents.Thanks():
                return self._say(lead + "You are welcome.")
            case intents.Unknown():
                return self._say(lead + replies.no_language_model())

    async def _woken(self, wake: RecallTrigger) -> AsyncIterator[Event]:
        """A recall has fired: do what its message asks, else say it; and say when it was due."""
        prompt = self._turn.prompt
        message = wake.recall.message if wake.recall and wake.recall.message in prompt else prompt
        intent = understand(message)
        if isinstance(intent, intents.Schedule | intents.Greeting | intents.Thanks | intents.Unknown | intents.Help):
            async for body in self._remind(message, wake):
                yield body
            return
        lead = replies.woken_to_do(message, wake, self._zone, self._turn.now)
        async for body in self._answer(intent, lead):
            yield body

    async def _remind(self, message: str, wake: RecallTrigger) -> AsyncIterator[Event]:
        text = replies.reminder(message, wake, self._zone, self._turn.now)
        if not re.match(r"(?:check|look|see|follow|come back|get back|monitor|watch)\b", message, re.IGNORECASE):
            async for body in self._say(text):
                yield body
            return
        # Asked to look at something: what it can look at is the session.
        outcome: dict[str, Any] = {}
        since = wake.recall.created_at.isoformat() if wake.recall else None
        async for body in self._tool("session_history", {"since": since} if since else {}, outcome):
            yield body
        async for body in self._say(text + "\n\n" + replies.looked(outcome)):
            yield body

    async def _schedule(self, wish: intents.Schedule, lead: str) -> AsyncIterator[Event]:
        try:
            timed = await self._timed(wish.text)
        except InvalidSchedule as error:
            text = replies.bad_time(error.message) if wish.sure else replies.no_language_model()
            async for body in self._say(lead + text):
                yield body
            return
        if timed is None:
            text = replies.no_time_given() if wish.sure else replies.no_language_model()
            async for body in self._say(lead + text):
                yield body
            return
        message = intents.message_of(timed.message)
        if not message and not wish.sure:
            async for body in self._say(lead + replies.time_without_wish(timed.phrase)):
                yield body
            return
        outcome: dict[str, Any] = {}
        arguments = {"message": message or "You asked to be reminded.", "when": timed.phrase}
        if message:
            arguments["title"] = message if len(message) <= 60 else message[:59].rstrip() + "…"
        async for body in self._tool("create_recall", arguments, outcome):
            yield body
        async for body in self._say(lead + replies.created(outcome, message)):
            yield body

    async def _timed(self, text: str) -> Timed | None:
        """The time in a sentence; when there is none, in the sentence with its typos set right."""
        ready = re.sub(
            r"\b(timer|alarm|reminder) (?:of|for) (?=\d+ ?[a-z]|an? |half )", r"\1 in ", text, flags=re.IGNORECASE
        )
        found = await read_in_thread(ready, self._turn.now, self._zone)
        if found is None and (fixed := intents.fix_typos(ready)) != ready:
            found = await read_in_thread(fixed, self._turn.now, self._zone)
        return found

    async def _list(self, lead: str) -> AsyncIterator[Event]:
        outcome: dict[str, Any] = {}
        async for body in self._tool("list_recalls", {}, outcome):
            yield body
        async for body in self._say(lead + replies.recall_list(outcome)):
            yield body

    async def _cancel(self, wish: intents.CancelRecall, lead: str) -> AsyncIterator[Event]:
        outcome: dict[str, Any] = {}
        async for body in self._tool("list_recalls", {}, outcome):
            yield body
        recalls: list[dict[str, Any]] = outcome.get("recalls", [])
        chosen = recalls if wish.all else replies.matching(wish.what, recalls)
        if not chosen or (len(chosen) > 1 and not wish.all):
            async for body in self._say(lead + replies.which_one(wish.what, chosen or recalls, bool(chosen))):
                yield body
            return
        done: list[dict[str, Any]] = []
        for recall in chosen:
            result: dict[str, Any] = {}
            async for body in self._tool("cancel_recall", {"recall_id": recall["id"]}, result):
                yield body
            done.append(result)
        async for body in self._say(lead + replies.cancelled(done)):
            yield body

    async def _history(self, since: str | None, lead: str) -> AsyncIterator[Event]:
        outcome: dict[str, Any] = {}
        async for body in self._tool("session_history", {} if since is None else {"since": since[:100]}, outcome):
            yield body
        async for body in self._say(lead + replies.history(outcome)):
            yield body

    async def _summary(self, lead: str) -> AsyncIterator[Event]:
        past: dict[str, Any] = {}
        planned: dict[str, Any] = {}
        async for body in self._tool("session_history", {"limit": 200}, past):
            yield body
        async for body in self._tool("list_recalls", {}, planned):
            yield body
        async for body in self._say(lead + replies.summary(past, planned)):
            yield body

    async def _time(self, place: str | None, lead: str) -> AsyncIterator[Event]:
        zone = await asyncio.to_thread(zone_of_place, place) if place else None
        if place and zone is None:
            async for body in self._say(lead + replies.unknown_place(place)):
                yield body
            return
        outcome: dict[str, Any] = {}
        async for body in self._tool("current_time", {"timezone": zone} if zone else {}, outcome):
            yield body
        async for body in self._say(lead + replies.time_now(outcome)):
            yield body

    async def _count(self, wish: intents.Count, lead: str) -> AsyncIterator[Event]:
        """One number per chunk, at the asked pace: to see streaming, stop and reconnection at work."""
        message_id = new_id("m")
        clock = asyncio.get_running_loop().time
        began = clock()
        yield TextMessageStart(message_id=message_id, role="assistant")
        if lead:
            yield TextMessageContent(message_id=message_id, delta=lead)
        for number in range(1, wish.to + 1):
            if self._context.stop.stopping:
                break
            space = "\n" if number % 10 == 0 else " "
            yield TextMessageContent(message_id=message_id, delta=f"{number}{space}")
            # By the clock, so that slow steps do not add up; always a real sleep, so that others get their turn.
            await asyncio.sleep(max(0.0, began + number * wish.every - clock()))
        else:
            end = f"\nThat was {wish.to} in {clock() - began:.1f} s."
            yield TextMessageContent(message_id=message_id, delta=end)
        yield TextMessageEnd(message_id=message_id)

    # --- how it goes out ---------------------------------------------------------------------------------------------

    async def _say(self, text: str) -> AsyncIterator[Event]:
        """An answer in small pieces, word by word, within about a second."""
        message_id = new_id("m")
        words = re.findall(r"\s*\S+", text)
        delay = min(_CHUNK_DELAY, _ANSWER_TIME / max(len(words), 1))
        step = max(1, round(0.002 / delay)) if delay < 0.002 else 1
        yield TextMessageStart(message_id=message_id, role="assistant")
        for at in range(0, len(words), step):
            if self._context.stop.stopping:
                break
            yield TextMessageContent(message_id=message_id, delta="".join(words[at : at + step]))
            await asyncio.sleep(delay * step)
        yield TextMessageEnd(message_id=message_id)

    async def _tool(self, name: str, arguments: dict[str, Any], outcome: dict[str, Any]) -> AsyncIterator[Event]:
        """Call a tool as a model would; its result goes into ``outcome``, too."""
        call_id = new_id("t")
        yield ToolCallStart(tool_call_id=call_id, tool_call_name=name)
        yield ToolCallArgs(tool_call_id=call_id, delta=json.dumps(arguments, ensure_ascii=False))
        yield ToolCallEnd(tool_call_id=call_id)
        content = await self._tools.call(name, arguments)
        outcome.update(json.loads(content))
        yield ToolCallResult(message_id=new_id("m"), tool_call_id=call_id, content=content)
