"""A model provider on a local port, as scripted: OpenAI's chat completions and responses, Anthropic's, Google's API.

The real protocols over real HTTP, so that the real SDKs and pydantic-ai are under test. Each request takes the next
:class:`Reply` of the script (the last one again when none is left) and is kept with its body, headers and whether its
connection was closed by the client. Use it from any test::

    async with ScriptedProvider(Reply("Hello ", "there.")) as provider:
        provider.point(monkeypatch)  # OPENAI_BASE_URL, ANTHROPIC_BASE_URL, … and keys
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

TITLE = "Write a title for a conversation"
KEY = "sk-test-0123456789abcdefSECRET"


@dataclass
class Call:
    """A tool call that the model makes."""

    name: str
    args: dict[str, Any]
    id: str = "call_1"
    raw: str = ""
    """The text of the arguments, in place of ``args``: need not be JSON."""

    @property
    def text(self) -> str:
        """The arguments as the model writes them."""
        return self.raw or json.dumps(self.args)


class Reply:
    """One scripted answer."""

    def __init__(
        self,
        *text: str,
        calls: tuple[Call, ...] = (),
        reasoning: str = "",
        status: int = 200,
        error: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        cut: bool = False,
        malformed: bool = False,
        hold_first: bool = False,
        hold_end: bool = False,
        delay: float = 0.0,
        when: str = "",
        cut_first: bool = False,
        usage: tuple[int, int] = (11, 7),
        filtered: bool = False,
        full: bool = False,
        raw_event: str = "",
        refusal: str = "",
        gives_up: dict[str, Any] | None = None,
        pieces: Sequence[bytes] = (),
    ) -> None:
        self.text = text
        self.filtered = filtered
        """The provider's filter ends the answer."""
        self.raw_event = raw_event
        """The data of an event, sent as it is after the text."""
        self.full = full
        """The answer ends because it has reached the most that the model writes at once."""
        self.refusal = refusal
        """OpenAI's own field for the model's refusal."""
        self.when = when
        """The answer to the first request whose body has this text, whatever its place in the script."""
        self.calls = calls
        self.reasoning = reasoning
        self.status = status
        self.error = error
        self.headers = headers or {}
        self.cut = cut
        """Close the connection in mid-stream, after the text."""
        self.cut_first = cut_first
        """Close the connection before the first byte of an answer."""
        self.gives_up = gives_up
        """An error that comes in the stream, after the text."""
        self.pieces = pieces
        """The whole answer as it is sent, with ``delay`` after each; with ``cut`` the connection breaks then."""
        self.usage = usage
        """Input and output tokens that the provider counts."""
        self.malformed = malformed
        """Send a chunk that is no JSON after the text."""
        self.hold_first = hold_first
        """Send not a byte before ``release`` is set."""
        self.hold_end = hold_end
        """Send the text, then nothing before ``release`` is set."""
        self.delay = delay
        """Seconds between chunks."""
        self.release = asyncio.Event()


@dataclass
class Request:
    """One request as the provider saw it."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    began: asyncio.Event = field(default_factory=asyncio.Event)
    """The first bytes are out."""
    sent: asyncio.Event = field(default_factory=asyncio.Event)
    """The whole answer is out."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """An error is out."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """The client went away before the answer was complete."""


class ScriptedProvider:
    """The server. ``url`` has no path."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script) or [Reply("Hello.")]
        self.requests: list[Request] = []
        self._given: list[Reply] = []
        self._turn = 0
        self.models: tuple[str, ...] | None = ("qwen3:8b", "llama4")
        """What ``GET models`` lists; None: it is not there."""
        self.listed: list[dict[str, str]] = []
        """The headers of each request for them."""
        self.title: Reply | None = None
        """The answer to requests for a session's title, which are no part of the script; None: they are refused."""
        self.title_requests: list[Request] = []
        self.asides: tuple[str, ...] = ()
        """Texts in requests that other programs make beside the conversation (their own titles): treated as those."""
        self._arrived = asyncio.Condition()
        self._server: HTTPServer | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = Application(
            [
                (r"/v1/(chat/completions)", _OpenAI, {"provider": self}),
                (r"/v1/(messages)", _Anthropic, {"provider": self}),
                (r"/v1/(responses)", _Responses, {"provider": self}),
                (r"/v1beta/(models/[^:/]+:streamGenerateContent)", _Google, {"provider": self}),
                (r"/v1/models", _Models, {"provider": self}),
            ]
        )
        sockets = bind_sockets(0, "127.0.0.1")
        self._server = HTTPServer(app)
        self._server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for reply in self.script:
            reply.release.set()
        assert self._server is not None
        self._server.stop()
        await self._server.close_all_connections()

    def point(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Send both SDKs here."""
        monkeypatch.setenv("OPENAI_BASE_URL", f"{self.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", self.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", self.url)
        monkeypatch.setenv("GOOGLE_API_KEY", KEY)
        monkeypatch.setenv("OLLAMA_BASE_URL", f"{self.url}/v1")
        monkeypatch.setenv("NAVI_ENDPOINT_LAB_URL", f"{self.url}/v1")
        monkeypatch.setenv("NAVI_ENDPOINT_LAB_KEY", KEY)

    async def request(self, index: int = 0) -> Request:
        """The request number ``index``, once it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > index)
        return self.requests[index]

    async def title_request(self) -> Request:
        """The first request for a title, once it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: bool(self.title_requests))
        return self.title_requests[0]

    async def take(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[Request, Reply]:
        """Note a request; its reply."""
        request = Request(path, body, headers)
        text = json.dumps(body)
        if TITLE in text or any(aside in text for aside in self.asides):
            async with self._arrived:
                self.title_requests.append(request)
                self._arrived.notify_all()
            return request, self.title or Reply(status=404)
        reply = self._meant(body) or self._in_turn()
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        return request, reply

    def restart(self, *script: Reply) -> None:
        """Begin another script, for another test."""
        self.script, self._turn = list(script), 0
        self._given.clear()
        self.requests.clear()

    def _meant(self, body: dict[str, Any]) -> Reply | None:
        text = json.dumps(body)
        found = next((one for one in self.script if one.when and one.when in text and one not in self._given), None)
        if found is not None:
            self._given.append(found)
        return found

    def _in_turn(self) -> Reply:
        script = [one for one in self.script if not one.when]
        self._turn += 1
        return script[min(self._turn, len(script)) - 1]


class _Protocol(RequestHandler):
    def initialize(self, provider: ScriptedProvider) -> None:
        self._provider = provider
        self._request: Request | None = None

    def on_connection_close(self) -> None:
        if self._request is not None:
            self._request.closed.set()

    async def post(self, path: str) -> None:
        body = json.loads(self.request.body)
        self._request, reply = await self._provider.take(path, body, dict(self.request.headers))
        for name, value in reply.headers.items():
            self.set_header(name, value)
        if reply.cut_first:
            self.request.connection.stream.close()  # type: ignore[union-attr]
            return
        if reply.status != 200:
            self.set_status(reply.status)
            await self.finish(json.dumps(self.error_body(reply)))
            self._request.answered.set()
            return
        if problem := self.refuses(body):
            self.set_status(400)
            await self.finish(
                json.dumps(self.error_body(Reply(error={"message": problem, "type": "invalid_request_error"})))
            )
            return
        self.set_header("Content-Type", "text/event-stream")
        try:
            await self._stream(reply)
        except StreamClosedError:
            self._request.closed.set()

    async def _stream(self, reply: Reply) -> None:
        assert self._request is not None
        if reply.hold_first and not await self._released(reply):
            return
        for frame in reply.pieces or self.opening(reply):
            self.write(frame)
            await self.flush()
            self._request.began.set()
            await asyncio.sleep(reply.delay)
        if reply.hold_end and not await self._released(reply):
            return
        if reply.cut:
            self.request.connection.stream.close()  # type: ignore[union-attr]
            return
        if reply.gives_up is not None:
            self.write(self.sorry(reply.gives_up))
            await self.finish()
            return
        if reply.raw_event:
            self.write(f"data: {reply.raw_event}\n\n")
        if reply.malformed:
            self.write(self.garbage())
            await self.flush()
        for frame in () if reply.pieces else self.closing(reply):
            self.write(frame)
        await self.flush()
        await self.finish()
        self._request.sent.set()

    async def _released(self, reply: Reply) -> bool:
        """Wait for the test, or for the client to leave; whether it is still there."""
        assert self._request is not None
        waits = {asyncio.ensure_future(reply.release.wait()), asyncio.ensure_future(self._request.closed.wait())}
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in pending:
            one.cancel()
        return not self._request.closed.is_set()

    def opening(self, reply: Reply) -> Iterator[str]:
        raise NotImplementedError

    def closing(self, reply: Reply) -> Iterator[str]:
        raise NotImplementedError

    def garbage(self) -> str:
        raise NotImplementedError

    def sorry(self, error: dict[str, Any]) -> str:
        """An error in the stream."""
        return f"data: {json.dumps({'error': error})}\n\n"

    def error_body(self, reply: Reply) -> dict[str, Any]:
        return {"error": reply.error or {"message": "scripted", "type": "server_error"}}

    def refuses(self, body: dict[str, Any]) -> str | None:
        """Why the real provider would refuse this conversation: what matters here is that every call has its result."""
        raise NotImplementedError


class _OpenAI(_Protocol):
    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> str:
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1795000000,
            "model": "scripted",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }
        return f"data: {json.dumps(chunk)}\n\n"

    def opening(self, reply: Reply) -> Iterator[str]:
        yield self._chunk({"role": "assistant", "content": ""})
        for piece in reply.reasoning.split("|") if reply.reasoning else ():
            yield self._chunk({"reasoning_content": piece})
        for piece in reply.text:
            yield self._chunk({"content": piece})
        if reply.refusal:
            yield self._chunk({"refusal": reply.refusal})
        for index, call in enumerate(reply.calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            yield self._chunk({"tool_calls": [head]})
            args = call.text
            for piece in (args[: len(args) // 2], args[len(args) // 2 :]):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def closing(self, reply: Reply) -> Iterator[str]:
        usual = "tool_calls" if reply.calls else "stop"
        yield self._chunk({}, "length" if reply.full else "content_filter" if reply.filtered else usual)
        asked, said = reply.usage
        usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
        last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795000000, "model": "scripted"}
        yield f"data: {json.dumps({**last, 'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    def garbage(self) -> str:
        return 'data: {"id": "chatcmpl-1", "choices": [{"delta": {"cont\n\n'

    def refuses(self, body: dict[str, Any]) -> str | None:
        open_calls: set[str] = set()
        for message in body["messages"]:
            if message["role"] == "tool":
                if message["tool_call_id"] not in open_calls:
                    return "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'"
                open_calls.discard(message["tool_call_id"])
            elif open_calls:
                return f"tool_call_ids did not have response messages: {', '.join(open_calls)}"
            for call in message.get("tool_calls") or ():
                json.loads(call["function"]["arguments"])
                if not 0 < len(call["id"]) <= 64 or call["id"] in open_calls:
                    return "tool_calls[].id: a text of 1 to 64 characters that no other call has"
                open_calls.add(call["id"])
        return f"tool_call_ids did not have response messages: {', '.join(open_calls)}" if open_calls else None


class _Anthropic(_Protocol):
    def _frame(self, kind: str, **body: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n"

    def opening(self, reply: Reply) -> Iterator[str]:
        yield self._frame(
            "message_start",
            message={
                "id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": [],
                "stop_reason": None, "stop_sequence": None,
                "usage": {"input_tokens": reply.usage[0], "output_tokens": 1},
            },
        )  # fmt: skip
        index = 0
        if reply.reasoning:
            yield self._frame(
                "content_block_start", index=index, content_block={"type": "thinking", "thinking": "", "signature": ""}
            )
            for piece in reply.reasoning.split("|"):
                yield self._frame(
                    "content_block_delta", index=index, delta={"type": "thinking_delta", "thinking": piece}
                )
            yield self._frame(
                "content_block_delta", index=index, delta={"type": "signature_delta", "signature": "c2ln"}
            )
            yield self._frame("content_block_stop", index=index)
            index += 1
        if reply.text:
            yield self._frame("content_block_start", index=index, content_block={"type": "text", "text": ""})
            for piece in reply.text:
                yield self._frame("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
            if not (reply.cut or reply.malformed or reply.hold_end):
                yield self._frame("content_block_stop", index=index)
            index += 1
        for call in reply.calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            yield self._frame("content_block_start", index=index, content_block=block)
            args = call.text
            for piece in (args[: len(args) // 2], args[len(args) // 2 :]):
                yield self._frame(
                    "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece}
                )
            yield self._frame("content_block_stop", index=index)
            index += 1

    def closing(self, reply: Reply) -> Iterator[str]:
        usual = "tool_use" if reply.calls else "end_turn"
        reason = "max_tokens" if reply.full else "refusal" if reply.filtered else usual
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield self._frame("message_delta", delta=delta, usage={"output_tokens": reply.usage[1]})
        yield self._frame("message_stop")

    def sorry(self, error: dict[str, Any]) -> str:
        return self._frame("error", error=error)

    def garbage(self) -> str:
        return 'event: content_block_delta\ndata: {"type": "content_block_de\n\n'

    def error_body(self, reply: Reply) -> dict[str, Any]:
        return {"type": "error", **super().error_body(reply)}

    def refuses(self, body: dict[str, Any]) -> str | None:
        open_calls: set[str] = set()
        known: set[str] = set()
        for message in body["messages"]:
            content = message["content"]
            blocks = content if isinstance(content, list) else []
            if message["role"] == "user":
                open_calls -= {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if open_calls:
                return "`tool_use` ids were found without `tool_result` blocks immediately after"
            for block in blocks:
                if block["type"] == "tool_use":
                    if block["id"] in known:
                        return "`tool_use` ids must be unique"
                    if not re.fullmatch(r"[A-Za-z0-9_-]+", block["id"]):
                        return "tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                    known.add(block["id"])
                    open_calls.add(block["id"])
        return "`tool_use` ids were found without `tool_result` blocks" if open_calls else None


class _Responses(_Protocol):
    """OpenAI's responses."""

    def prepare(self) -> None:
        self._number = -1

    def _frame(self, kind: str, **body: Any) -> str:
        self._number += 1
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': self._number, **body})}\n\n"

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        return {
            "id": "resp_1", "object": "response", "created_at": 1795000000, "model": "scripted", "status": status,
            "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more,
        }  # fmt: skip

    def opening(self, reply: Reply) -> Iterator[str]:
        yield self._frame("response.created", response=self._response("in_progress"))
        index = 0
        if reply.reasoning:
            item: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
            where = {"item_id": "rs_1", "output_index": index, "summary_index": 0}
            yield self._frame("response.output_item.added", output_index=index, item=item)
            part = {"type": "summary_text", "text": ""}
            yield self._frame("response.reasoning_summary_part.added", **where, part=part)
            for piece in reply.reasoning.split("|"):
                yield self._frame("response.reasoning_summary_text.delta", **where, delta=piece)
            whole = [{"type": "summary_text", "text": reply.reasoning.replace("|", "")}]
            yield self._frame("response.output_item.done", output_index=index, item={**item, "summary": whole})
            index += 1
        if reply.text:
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
            where = {"item_id": "msg_1", "output_index": index, "content_index": 0}
            yield self._frame("response.output_item.added", output_index=index, item=item)
            part = {"type": "output_text", "text": "", "annotations": []}
            yield self._frame("response.content_part.added", **where, part=part)
            for piece in reply.text:
                yield self._frame("response.output_text.delta", **where, delta=piece, logprobs=[])
            index += 1
        for number, call in enumerate(reply.calls):
            ident = f"fc_{number}"
            item = {
                "id": ident, "type": "function_call", "call_id": call.id, "name": call.name, "arguments": "",
                "status": "in_progress",
            }  # fmt: skip
            yield self._frame("response.output_item.added", output_index=index, item=item)
            args = call.text
            for piece in (args[: len(args) // 2], args[len(args) // 2 :]):
                yield self._frame(
                    "response.function_call_arguments.delta", item_id=ident, output_index=index, delta=piece
                )
            yield self._frame(
                "response.function_call_arguments.done",
                item_id=ident, output_index=index, arguments=args, name=call.name,
            )  # fmt: skip
            done = {**item, "arguments": args, "status": "completed"}
            yield self._frame("response.output_item.done", output_index=index, item=done)
            index += 1

    def closing(self, reply: Reply) -> Iterator[str]:
        asked, said = reply.usage
        usage = {
            "input_tokens": asked, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": said,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": asked + said,
        }  # fmt: skip
        if reply.full or reply.filtered:
            why = {"incomplete_details": {"reason": "max_output_tokens" if reply.full else "content_filter"}}
            yield self._frame("response.incomplete", response=self._response("incomplete", usage=usage, **why))
            return
        yield self._frame("response.completed", response=self._response("completed", usage=usage))

    def sorry(self, error: dict[str, Any]) -> str:
        return self._frame("error", **{"param": None, **error})

    def garbage(self) -> str:
        return 'event: response.output_text.delta\ndata: {"type": "response.output_te\n\n'

    def refuses(self, body: dict[str, Any]) -> str | None:
        items = [item for item in body["input"] if isinstance(item, dict)]
        called = {item["call_id"] for item in items if item.get("type") == "function_call"}
        answered = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
        if missing := called - answered:
            return f"No tool output found for function call {', '.join(missing)}."
        return f"No tool call found for output {', '.join(answered - called)}." if answered - called else None


class _Google(_Protocol):
    """Google's generateContent, streamed as server-sent events."""

    def _chunk(self, *parts: dict[str, Any], **more: Any) -> str:
        candidate = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
        finish = more.pop("finish", None)
        candidate |= {"finishReason": finish} if finish else {}
        chunk = {"candidates": [candidate], "modelVersion": "scripted", "responseId": "resp-1", **more}
        return f"data: {json.dumps(chunk)}\n\n"

    def opening(self, reply: Reply) -> Iterator[str]:
        for piece in reply.reasoning.split("|") if reply.reasoning else ():
            yield self._chunk({"text": piece, "thought": True})
        for piece in reply.text:
            yield self._chunk({"text": piece})
        for call in reply.calls:
            yield self._chunk({"functionCall": {"name": call.name, "args": call.args, "id": call.id}})
        if not (reply.reasoning or reply.text or reply.calls):
            yield self._chunk({"text": ""})

    def closing(self, reply: Reply) -> Iterator[str]:
        asked, said = reply.usage
        usage = {"promptTokenCount": asked, "candidatesTokenCount": said, "totalTokenCount": asked + said}
        finish = "MAX_TOKENS" if reply.full else "SAFETY" if reply.filtered else "STOP"
        yield self._chunk({"text": ""}, finish=finish, usageMetadata=usage)

    def garbage(self) -> str:
        return 'data: {"candidates": [{"content": {"parts": [{"te\n\n'

    def error_body(self, reply: Reply) -> dict[str, Any]:
        error = dict(reply.error or {"message": "scripted"})
        statuses = {
            400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
            429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
        }  # fmt: skip
        return {"error": {"code": reply.status, "status": statuses.get(reply.status, "UNKNOWN"), **error}}

    def refuses(self, body: dict[str, Any]) -> str | None:
        waiting = 0
        for content in body["contents"]:
            answers = sum("functionResponse" in part for part in content["parts"])
            if answers != waiting:
                return (
                    "Please ensure that the number of function response parts is equal to the number of function "
                    "call parts of the function call turn."
                )
            waiting = sum("functionCall" in part for part in content["parts"])
        return "A function call turn comes immediately before a function response turn." if waiting else None


class _Models(RequestHandler):
    """What OpenAI-compatible servers say they have."""

    def initialize(self, provider: ScriptedProvider) -> None:
        self._provider = provider

    def get(self) -> None:
        self._provider.listed.append(dict(self.request.headers))
        if self._provider.models is None:
            self.set_status(404)
            return
        data = [{"id": name, "object": "model"} for name in self._provider.models]
        self.write({"object": "list", "data": data})


Serve = Callable[..., AbstractAsyncContextManager[ScriptedProvider]]
"""Enters a provider with a script of replies, to which all models of this process are pointed."""
