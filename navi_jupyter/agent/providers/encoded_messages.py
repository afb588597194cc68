"""Requests to models whose earlier messages were encoded before: a long conversation costs what is new in it.

For each request pydantic-ai and the provider's package walk all messages several times, on the event loop: 0.15 to 0.2
ms a message, so a second for a conversation of some thousand. The messages of turns that are over do not change. So
messages that stand for them (``past_messages``) go through these packages, and in the body of the request the JSON is
put in their place that the same packages made of the turns once: it is taken from the body of a request that is made
for it and never sent. What the provider gets is what it would get without any of this.

So it is with the tools of a request, which OpenAI's package walks, too: one tool stands for all.

A turn of which pydantic-ai changes something before it is sent stays as it is. Where the HTTP client cannot be reached,
or a body is not as it is expected, all messages go the usual way.

Imports pydantic_ai and httpx2: only modules that the runner loads may import this one.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Any
from uuid import uuid4

import httpx2
from pydantic_ai import RunContext, ToolDefinition
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    UserPromptPart,
    repair_messages,
)
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from ...log_setup import get_logger
from .past_messages import PastTurnMessages, expanded, has_past, messages_of, standing_for, token_of, walk

log = get_logger("agent")

_PER_PIECE = 40  # messages that are encoded before other tasks of the loop get their turn: 6 to 10 ms
# A request that is made for its body costs as much as sending some messages: with fewer new ones these are sent as they
# are, and are encoded with those that follow.
_WORTH_IT = 12
_KINDS = 2  # models for which the JSON of a turn is kept
_PIECE = 128 * 1024  # bytes of a request that are given to the connection at once
# Settings that say nothing about how messages are sent.
_WITHOUT_EFFECT = ("timeout", "request_timeout", "max_retries", "max_tokens")
_LISTS = ("messages", "input")  # where the messages are in a body


# --- the bodies of requests

# What goes into the body of this task's requests: JSON by the token that stands in its place. Or the request is only
# made to see its body.
_insertions: ContextVar[_Insertions | None] = ContextVar("navi_insertions", default=None)


@dataclass(slots=True, eq=False)
class _Insertions:
    by_token: Mapping[str, Sequence[bytes]]
    tools: _KnownTools | None = None
    capture: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)
    made: bool = False


# Stands for the tools of a request. Another one in each process: nothing else has its name.
_TOOLS = f"navi_tools_{uuid4().hex}"
_STUB = ToolDefinition(name=_TOOLS, description=_TOOLS)
_MOST_TOOLS = 64  # lists of tools whose JSON is kept


@dataclass(slots=True, eq=False)
class _KnownTools:
    """The JSON of a list of tools, from the first request that had it. OpenAI's package walks it in each, too."""

    definitions: Sequence[ToolDefinition]  # kept, so that none of them can be another with the same id
    encoded: bytes = b""

    def of(self, body: dict[str, Any]) -> bytes | None:
        """What is to stand in the place of the stub; None when it is not there. Empty when all tools are."""
        tools = body.get("tools")
        if not self.encoded:
            if isinstance(tools, list) and len(tools) == len(self.definitions):
                self.encoded = _json(tools)
            return b""
        if not isinstance(tools, list) or len(tools) != 1 or _TOOLS not in json.dumps(tools):
            return None
        body["tools"] = [_TOOLS]
        return self.encoded


_tools: OrderedDict[tuple[object, ...], _KnownTools] = OrderedDict()


def _known_tools(kind: tuple[object, ...], parameters: ModelRequestParameters) -> _KnownTools | None:
    """What is known of the tools of a request; None when more than their definitions may be in what is sent of them."""
    given = parameters.function_tools
    if not given or parameters.output_tools or parameters.native_tools:
        return None
    if any(tool.tool_kind is not None or tool.defer_loading for tool in given):
        return None
    place = (*kind, *map(id, given))
    known = _tools.setdefault(place, _KnownTools(tuple(given)))
    _tools.move_to_end(place)
    while len(_tools) > _MOST_TOOLS:
        _tools.popitem(last=False)
    return known


class _NotInserted(BaseException):
    """A body is not as it is expected: the request was not sent. No package handles it, as the next one."""


class _Captured(BaseException):
    """A request that was made for its body. Nothing is tried again, and nothing was sent."""


async def insert_messages(request: httpx2.Request) -> None:
    """A hook of HTTP clients (``event_hooks``): the body of a request gets the messages that others stand for."""
    wanted = _insertions.get()
    if wanted is None or request.method != "POST" or isinstance(request.stream, _Pieces):  # the last: it was redirected
        return
    body = json.loads(request.content)
    if wanted.capture:
        wanted.body = body
        raise _Captured
    name = next((name for name in _LISTS if isinstance(body.get(name), list)), "")
    tools = b"" if wanted.tools is None else wanted.tools.of(body)
    parts = _inserted(body, name, wanted.by_token, tools) if name and tools is not None else None
    if parts is None:
        raise _NotInserted
    wanted.made = True
    request.stream = _Pieces(parts)
    request.headers["Content-Length"] = str(sum(map(len, parts)))


def has_hook(model: Model) -> bool:
    """Whether the requests of a model go through a client with :func:`insert_messages`. pydantic-ai has no public way
    to the client that a provider closes: of a version without this one, no message is encoded ahead."""
    client = getattr(model.provider, "_own_http_client", None)
    return isinstance(client, httpx2.AsyncClient) and insert_messages in client.event_hooks["request"]


def _inserted(
    body: dict[str, Any], name: str, by_token: Mapping[str, Sequence[bytes]], tools: bytes
) -> list[bytes] | None:
    """The body in parts, those to insert as they are kept; None when a token is not in two items in a row."""
    items = body[name]
    texts = [json.dumps(item) for item in items]
    for token in by_token:
        places = [index for index, text in enumerate(texts) if token in text]
        if len(places) != 2 or places[1] != places[0] + 1:
            return None
        items[places[0] : places[0] + 2] = [token]
        texts[places[0] : places[0] + 2] = [token]
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    parts = [text.encode().replace(f'"{_TOOLS}"'.encode(), tools, 1)]
    for token, inserted in by_token.items():
        before, _, after = parts.pop().partition(f'"{token}"'.encode())
        parts.append(before)
        for index, part in enumerate(inserted):
            parts += (b",", part) if index else (part,)
        parts.append(after)
    return parts


class _Pieces(httpx2.AsyncByteStream):
    """A body in pieces: the connection takes one after the other, and others get their turn in between.

    The request has it for as long as its answer comes, so it holds no copy of the parts.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        piece = bytearray()
        for part in self._parts:
            piece += part
            if len(piece) >= _PIECE:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)


class EncodingModel(WrapperModel):
    """A model whose HTTP client has :func:`insert_messages`. Takes messages that stand for others."""

    def prepare_messages(
        self, messages: list[ModelMessage], model_request_parameters: ModelRequestParameters | None = None
    ) -> list[ModelMessage]:
        """See ``Model.prepare_messages``. With messages that stand for others it is done when these are known."""
        if has_past(messages):
            return messages
        return super().prepare_messages(messages, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """See ``Model.request_stream``."""
        past = has_past(messages)
        sent = messages
        inserted: Mapping[str, Sequence[bytes]] = {}
        tools: _KnownTools | None = None
        if has_hook(self.wrapped):
            encoder = _Encoder(self.wrapped, model_settings)
            tools = _known_tools(encoder.kind, model_request_parameters)
            if past:
                sent, inserted = await encoder.shortened(messages)
        short = model_request_parameters
        if tools is not None and tools.encoded:
            short = replace(model_request_parameters, function_tools=[_STUB])
        async with AsyncExitStack() as stack:

            async def opened(messages: list[ModelMessage], parameters: ModelRequestParameters) -> StreamedResponse:
                if past:
                    messages = repair_messages(self.wrapped.prepare_messages(messages, model_request_parameters))
                return await stack.enter_async_context(
                    self.wrapped.request_stream(messages, model_settings, parameters, run_context)
                )

            wanted = _Insertions(inserted, tools)
            if inserted or tools is not None:
                before = _insertions.set(wanted)
                try:
                    response = await opened(sent, short)
                except _NotInserted:
                    wanted.made = False
                finally:
                    _insertions.reset(before)
                if not wanted.made:
                    log.warning("request_not_shortened", model=self.model_id)
                    await stack.aclose()
            if not wanted.made:
                response = await opened(expanded(messages), model_request_parameters)
            yield response


def takes_past(model: Model) -> bool:
    """Whether a model, or the one that it wraps, takes messages that stand for others."""
    while isinstance(model, WrapperModel) and not isinstance(model, EncodingModel):
        model = model.wrapped
    return isinstance(model, EncodingModel)


class _Encoder:
    """Makes the JSON of turns, by the packages that would make it in a request of these turns."""

    def __init__(self, model: Model, settings: ModelSettings | None) -> None:
        self._model = model
        self._settings = settings
        chosen = sorted((name, str(value)) for name, value in (settings or {}).items() if name not in _WITHOUT_EFFECT)
        self.kind = (type(model), model.model_id, model.base_url, *chosen)

    async def shortened(
        self, messages: Sequence[ModelMessage]
    ) -> tuple[list[ModelMessage], Mapping[str, Sequence[bytes]]]:
        """The messages with what can be inserted hidden, and what is to be inserted by token."""
        # A model's thoughts change how later messages are sent, by whether there are any before them.
        thought = False
        kinds: dict[PastTurnMessages, tuple[object, ...]] = {}
        shown: dict[object, PastTurnMessages] = {}
        for message, past in walk(messages):
            for turn in past:
                thought = thought or bool(turn.thoughts)
                kinds[turn] = (*self.kind, thought)
                shown |= dict.fromkeys(turn.thoughts, turn)
            thought = thought or any(isinstance(part, ThinkingPart) for part in message.parts)
        missing = [turn for turn, kind in kinds.items() if kind not in turn.encoded]
        visible = set(shown.values())  # of each kind of thought the last, for what follows
        if sum(len(turn.messages) for turn in missing) < _WORTH_IT:
            visible |= set(missing)
        else:
            await self._encode(missing, kinds)

        def is_hidden(turn: PastTurnMessages) -> bool:
            return turn not in visible and turn.encoded[kinds[turn]] is not None

        found: list[ModelMessage] = []
        inserted: dict[str, Sequence[bytes]] = {}
        for message, past in walk(messages):
            found += () if past else (message,)
            for hidden, turns in groupby(past, is_hidden):
                run = list(turns)
                if not hidden:
                    found += messages_of(run)
                    continue
                two = standing_for(run)
                found += two
                inserted[token_of(two[0])] = [turn.encoded[kinds[turn]] or b"" for turn in run]
        return found, inserted

    async def _encode(
        self, turns: Sequence[PastTurnMessages], kinds: Mapping[PastTurnMessages, tuple[object, ...]]
    ) -> None:
        for _, alike in groupby(turns, lambda turn: kinds[turn][-1]):
            piece: list[PastTurnMessages] = []
            for turn in alike:
                piece.append(turn)
                if sum(len(one.messages) for one in piece) >= _PER_PIECE:
                    await self._encode_piece(piece, kinds[turn])
                    piece = []
            if piece:
                await self._encode_piece(piece, kinds[piece[0]])

    async def _encode_piece(self, turns: Sequence[PastTurnMessages], kind: tuple[object, ...]) -> None:
        made = await self._items(messages_of(turns), thought=bool(kind[-1]))
        split = None if made is None else _split(made, turns)
        if split is None and len(turns) > 1:
            for turn in turns:
                await self._encode_piece([turn], kind)
            return
        for turn, encoded in zip(turns, split or [None], strict=True):
            while len(turn.encoded) >= _KINDS:
                turn.encoded.pop(next(iter(turn.encoded)))
            turn.encoded[kind] = encoded
        await asyncio.sleep(0)

    async def _items(self, messages: list[ModelMessage], *, thought: bool) -> list[Any] | None:
        """What a body has for these messages; None where they are not sent as they are."""
        prepared = self._model.prepare_messages(repair_messages(messages), ModelRequestParameters())
        if [message.parts for message in prepared] != [message.parts for message in messages]:
            return None
        token = f"navi-past-{uuid4().hex}"
        ahead: list[ThinkingPart | TextPart] = [TextPart(f"{token}-begin")]
        if thought:
            ahead.insert(0, ThinkingPart("…"))
        # Between a prompt and an answer before them and a prompt behind: none is the first message or of the last turn.
        around: list[ModelMessage] = [
            ModelRequest(parts=[UserPromptPart(content=f"{token}-begin")]),
            ModelResponse(parts=ahead),
            *messages,
            ModelRequest(parts=[UserPromptPart(content=f"{token}-end")]),
        ]
        body = await self._body(around)
        items: list[Any] = next((body[name] for name in _LISTS if isinstance(body.get(name), list)), [])
        begins = [index for index, item in enumerate(items) if f"{token}-begin" in json.dumps(item)]
        ends = [index for index, item in enumerate(items) if f"{token}-end" in json.dumps(item)]
        if len(begins) != 2 or len(ends) != 1:
            return None
        return items[begins[-1] + 1 : ends[0]] or None

    async def _body(self, messages: list[ModelMessage]) -> Mapping[str, Any]:
        wanted = _Insertions({}, capture=True)
        before = _insertions.set(wanted)
        try:
            async with self._model.request_stream(messages, self._settings, ModelRequestParameters()):
                pass
        except _Captured:
            pass
        finally:
            _insertions.reset(before)
        return wanted.body


def _split(items: Sequence[Any], turns: Sequence[PastTurnMessages]) -> list[bytes | None] | None:
    """The JSON of each turn, which ends with an answer, an item of its own. None when it cannot be seen where."""
    answers = [index for index, item in enumerate(items) if isinstance(item, dict) and item.get("role") == "assistant"]
    counts = [sum(isinstance(message, ModelResponse) for message in turn.messages) for turn in turns]
    if len(turns) > 1 and (len(answers) != sum(counts) or answers[-1] != len(items) - 1):
        return None
    ends = [answers[last - 1] + 1 for last in accumulate(counts)] if len(turns) > 1 else [len(items)]
    return [_json(items[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _json(items: Sequence[Any]) -> bytes:
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"), allow_nan=False)[1:-1].encode()
