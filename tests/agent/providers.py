"""A model provider on a local port that speaks OpenAI's chat completions and Anthropic's messages, as scripted.

The real protocols over real HTTP, so that the real SDKs and pydantic-ai are under test. Each request takes the next
:class:`Reply` of the script (the last one again when none is left) and is kept with its body, headers and whether its
connection was closed by the client. Use it from any test::

    async with ScriptedProvider(Reply("Hello ", "there.")) as provider:
        provider.point(monkeypatch)  # OPENAI_BASE_URL, ANTHROPIC_BASE_URL and keys
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

KEY = "sk-test-0123456789abcdefSECRET"


@dataclass
class Call:
    """A tool call that the model makes."""

    name: str
    args: dict[str, Any]
    id: str = "call_1"


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
    ) -> None:
        self.text = text
        self.calls = calls
        self.reasoning = reasoning
        self.status = status
        self.error = error
        self.headers = headers or {}
        self.cut = cut
        """Close the connection in mid-stream, after the text."""
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
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """The client went away before the answer was complete."""


class ScriptedProvider:
    """The server. ``url`` has no path."""

    def __init__(self, *script: Reply) -> None:
        self.script = list(script) or [Reply("Hello.")]
        self.requests: list[Request] = []
        self._arrived = asyncio.Condition()
        self._server: HTTPServer | None = None
        self.url = ""

    async def __aenter__(self) -> Self:
        app = Application(
            [
                (r"/v1/(chat/completions)", _OpenAI, {"provider": self}),
                (r"/v1/(messages)", _Anthropic, {"provider": self}),
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

    async def request(self, index: int = 0) -> Request:
        """The request number ``index``, once it has arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) > index)
        return self.requests[index]

    async def take(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[Request, Reply]:
        """Note a request; its reply."""
        request = Request(path, body, headers)
        reply = self.script[min(len(self.requests), len(self.script) - 1)]
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        return request, reply


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
        if reply.status != 200:
            self.set_status(reply.status)
            await self.finish(json.dumps(self.error_body(reply)))
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
        for frame in self.opening(reply):
            self.write(frame)
            await self.flush()
            self._request.began.set()
            await asyncio.sleep(reply.delay)
        if reply.hold_end and not await self._released(reply):
            return
        if reply.cut:
            self.request.connection.stream.close()  # type: ignore[union-attr]
            return
        if reply.malformed:
            self.write(self.garbage())
            await self.flush()
        for frame in self.closing(reply):
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
        for index, call in enumerate(reply.calls):
            head = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            yield self._chunk({"tool_calls": [head]})
            args = json.dumps(call.args)
            for piece in (args[: len(args) // 2], args[len(args) // 2 :]):
                yield self._chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})

    def closing(self, reply: Reply) -> Iterator[str]:
        yield self._chunk({}, "tool_calls" if reply.calls else "stop")
        usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
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
                "stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1},
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
            args = json.dumps(call.args)
            for piece in (args[: len(args) // 2], args[len(args) // 2 :]):
                yield self._frame(
                    "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece}
                )
            yield self._frame("content_block_stop", index=index)
            index += 1

    def closing(self, reply: Reply) -> Iterator[str]:
        reason = "tool_use" if reply.calls else "end_turn"
        yield self._frame(
            "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 7}
        )
        yield self._frame("message_stop")

    def garbage(self) -> str:
        return 'event: content_block_delta\ndata: {"type": "content_block_de\n\n'

    def error_body(self, reply: Reply) -> dict[str, Any]:
        return {"type": "error", **super().error_body(reply)}

    def refuses(self, body: dict[str, Any]) -> str | None:
        open_calls: set[str] = set()
        for message in body["messages"]:
            content = message["content"]
            blocks = content if isinstance(content, list) else []
            if message["role"] == "user":
                open_calls -= {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
            if open_calls:
                return "`tool_use` ids were found without `tool_result` blocks immediately after"
            open_calls |= {block["id"] for block in blocks if block["type"] == "tool_use"}
        return "`tool_use` ids were found without `tool_result` blocks" if open_calls else None
