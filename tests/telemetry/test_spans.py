"""Spans, as a collector of OpenTelemetry gets them from a real server: over HTTP, decoded by the official protobufs."""

from __future__ import annotations

import asyncio
import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from navi_jupyter.ports.tracing import NO_TRACING
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.telemetry import spans
from navi_jupyter.text import read_traceparent
from tests.conftest import Api
from tests.support.mcp_client import url_of
from tests.support.needs import needed
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

OPENAI = "openai-chat:gpt-6-luna"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
COLLECTOR_KEY = "collector-key-1234567890"
PROMPT, ANSWER, FAILED = "word-of-the-user", "word-of-the-model", "word-of-the-provider"


@dataclass
class Spanned:
    """A span, with its attributes as Python values."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    status: int
    attributes: dict[str, Any]
    events: int


@dataclass
class Collector:
    """What came in."""

    spans: list[Spanned] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    bytes: bytes = b""
    keys: set[str] = field(default_factory=set)

    def named(self, start: str) -> list[Spanned]:
        return [span for span in self.spans if span.name.startswith(start)]

    async def wait(self, start: str, count: int = 1) -> list[Spanned]:
        """So many spans of this name."""
        async with asyncio.timeout(30):
            while len(self.named(start)) < count:  # noqa: ASYNC110  the other side is a thread
                await asyncio.sleep(0.05)
        return self.named(start)

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.bytes += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(group.resource.attributes))
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(
                    Spanned(
                        span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                        span.status.code, _values(span.attributes), len(span.events),
                    )
                )  # fmt: skip


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)


@pytest.fixture
def content() -> bool:
    return False


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector's endpoint on loopback, to which the standard variables point."""
    needed(find_spec("opentelemetry") and spans.why_missing() is None, 'the extra "otel"')
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.keys.add(self.headers.get("x-key", ""))
            made.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            assert self.path == "/v1/traces"
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-key={COLLECTOR_KEY}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def navi_config(collector: Collector, content: bool) -> dict[str, Any]:
    return {"otel": True, "otel_content": content}


def of(about: list[Spanned], run: str) -> Spanned:
    return next(span for span in about if span.attributes.get("navi.run.id") == run)


async def test_a_run_its_requests_and_its_calls_are_spans_below_the_one_who_asked(
    api: Api, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = Reply(f"{ANSWER} 1", calls=(Call("current_time", {"about": PROMPT}),), usage=(30, 5))
    first = Reply(f"{ANSWER} 2", usage=(40, 6), hold_first=True)
    async with ScriptedProvider(looked, first, Reply(f"{ANSWER} 3")) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI)
        sent = await api(
            "POST",
            f"sessions/{sid}/commands",
            {"type": "prompt", "text": f"{PROMPT} {KEY}"},
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        run = sent.json["run_id"]
        await provider.request(1)
        # While it is in progress: this one waits, and has its own parent when it runs; a field goes before the header.
        other = f"00-{'a' * 32}-{'b' * 16}-01"
        queued = (await api.prompt(sid, PROMPT, traceparent=other))["run_id"]
        first.release.set()
        await api.until_run_ends(sid, queued)
        runs = await collector.wait("invoke_agent", 2)
        chats, calls = collector.named("chat"), collector.named("execute_tool")

    main = of(runs, run)
    assert (main.name, main.trace, main.parent) == ("invoke_agent assistant", TRACE, PARENT)
    expected = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-6-luna",
        "gen_ai.agent.name": "assistant",
        "gen_ai.conversation.id": sid,
        "gen_ai.usage.input_tokens": 70,
        "gen_ai.usage.output_tokens": 11,
        "navi.origin": "user",
    }
    assert main.attributes.items() >= expected.items()
    assert (of(runs, queued).trace, of(runs, queued).parent) == ("a" * 32, "b" * 16)
    below = [span for span in chats if span.parent == main.id]
    assert [span.name for span in below] == ["chat gpt-6-luna"] * 2
    assert {span.kind for span in below} == {3}  # CLIENT
    assert (
        below[0].attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-6-luna",
            "gen_ai.usage.input_tokens": 30,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.response.finish_reasons": ["tool_call"],
            "server.address": "127.0.0.1",
        }.items()
    )
    [call] = calls
    assert (call.name, call.trace, call.parent) == ("execute_tool current_time", TRACE, main.id)
    assert call.attributes["gen_ai.tool.name"] == "current_time"
    assert call.attributes["gen_ai.tool.call.id"]
    assert collector.resources[0]["service.name"] == "navi-jupyter"
    assert collector.resources[0]["deployment.environment.name"] == "test"
    assert collector.keys == {COLLECTOR_KEY}
    for word in (PROMPT, ANSWER, KEY, COLLECTOR_KEY, "about", "a test"):
        assert word.encode() not in collector.bytes, word


async def test_a_firing_is_the_parent_of_its_run_and_failures_have_a_code_and_no_words(
    api: Api, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Reply(status=401, error={"message": f"{FAILED} {KEY}"})
    async with ScriptedProvider(refused) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI)
        body = {"session_id": sid, "message": PROMPT, "schedule": {"kind": "once", "in": "1d"}}
        recall = (await api.ok("POST", "recalls", body))["id"]
        await api.ok("POST", f"recalls/{recall}/fire")
        [run] = await collector.wait("invoke_agent")
    [firing] = collector.named("fire recall")
    assert firing.parent == ""
    assert firing.attributes["navi.recall.id"] == run.attributes["navi.recall.id"] == recall
    assert firing.attributes["navi.run.id"] == run.attributes["navi.run.id"]
    assert (run.trace, run.parent) == (firing.trace, firing.id)
    assert run.attributes["navi.origin"] == "recall"
    [chat] = collector.named("chat")
    assert chat.parent == run.id
    assert (chat.status, chat.attributes["error.type"]) == (2, "401")
    assert (run.status, run.attributes["error.type"]) == (2, "provider_auth")
    assert not any(span.events for span in collector.spans)
    for word in (PROMPT, FAILED, KEY):
        assert word.encode() not in collector.bytes, word


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_call_by_mcp_is_below_the_program_that_makes_it(
    api: Api, collector: Collector, jp_serverapp: ServerApp, mode: Any
) -> None:
    bearer = {"Authorization": f"Bearer {jp_serverapp.identity_provider.token}"}
    async with (
        create_mcp_http_client(headers=bearer | {"traceparent": f"00-{TRACE}-{PARENT}-01"}) as http,
        Client(streamable_http_client(url_of(jp_serverapp), http_client=http), mode=mode) as client,
    ):
        assert not (await client.call_tool("list_files", {})).is_error
        [run] = await collector.wait("invoke_agent")
    assert (run.trace, run.parent) == (TRACE, PARENT)
    [call] = collector.named("execute_tool")
    assert (call.name, call.parent) == ("execute_tool list_files", run.id)


async def test_a_run_by_ag_ui_is_below_its_client(api: Api, collector: Collector) -> None:
    message = {"id": "m1", "role": "user", "content": "hello"}
    body = {"threadId": "thread-of-a-client", "runId": "r1", "state": {}, "messages": [message]}
    body |= {"tools": [], "context": [], "forwardedProps": {}}
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "Accept": "text/event-stream"}
    assert (await api("POST", "agui", body, headers=header)).status == 200
    [run] = await collector.wait("invoke_agent")
    assert (run.trace, run.parent) == (TRACE, PARENT)


async def test_what_was_not_sent_is_sent_when_the_server_stops(
    api: Api, navi: NaviExtension, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid = await api.session()
    run = (await api.prompt(sid, "hello", traceparent=f"00-{TRACE}-{PARENT}-00"))["run_id"]  # who does not sample
    await api.until_run_ends(sid, run)
    second = (await api.prompt(sid, "hello"))["run_id"]
    await api.until_run_ends(sid, second)
    assert navi.lifecycle is not None
    await navi.lifecycle.stop()
    [one] = collector.named("invoke_agent")
    assert one.attributes["navi.run.id"] == second
    assert one.parent == ""  # a trace of its own, whatever the request before had
    assert one.attributes["gen_ai.provider.name"] == "offline"


@pytest.mark.parametrize("content", [True])
async def test_content_is_there_where_the_administrator_wants_it_and_still_no_key(
    api: Api, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply(ANSWER, calls=(Call("current_time", {}),)), Reply("Done.")) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI)
        run = (await api.prompt(sid, f"{PROMPT} {KEY}"))["run_id"]
        await api.until_run_ends(sid, run)
        await collector.wait("invoke_agent")
    chat = collector.named("chat")[0]
    assert PROMPT in chat.attributes["gen_ai.input.messages"]
    assert ANSWER in chat.attributes["gen_ai.output.messages"]
    assert collector.named("execute_tool")[0].attributes["gen_ai.tool.call.result"]
    assert KEY.encode() not in collector.bytes


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_the_standard_variables_switch_it_off(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*variable)
    assert spans.opened(switched_on=True, content=False, version="1") is NO_TRACING
    assert spans.settings_of()["exporter"] == "none"


@pytest.mark.parametrize("variable", [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])
def test_a_variable_that_cannot_be_followed_switches_it_off_with_a_line_in_the_log(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    assert spans.opened(switched_on=True, content=False, version="1") is NO_TRACING


def test_a_collector_that_is_away_holds_up_neither_a_span_nor_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed(find_spec("opentelemetry") and spans.why_missing() is None, 'the extra "otel"')
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = (
            "import asyncio, time; from navi_jupyter.telemetry.spans import opened\n"
            "made = opened(switched_on=True, content=False, version='1'); began = time.monotonic()\n"
            "for n in range(100):\n"
            "    with made.first_span('x', {'n': n}, parent=None): pass\n"
            "assert time.monotonic() - began < 2; asyncio.run(made.close()); print('closed', time.monotonic() - began)"
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.startswith("closed"), done.stderr
        assert time.monotonic() - began < float(done.stdout.split()[1]) + 10  # of which the start takes most


def test_switched_off_nothing_is_imported_for_it() -> None:
    code = (
        "import sys; from navi_jupyter.telemetry.spans import opened; import navi_jupyter.server.runtime\n"
        "opened(switched_on=False, content=False, version='1')\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("header", "kept"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f" 00-{TRACE}-{PARENT}-01 ", True),
        (f"01-{TRACE}-{PARENT}-01-later", True),
        (f"00-{TRACE}-{PARENT}-01-more", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        *(("", False), (None, False), ("x" * 10_000, False), (f"00-{TRACE}-{PARENT}", False), ("00-\r\n-1-1", False)),
    ],
)
def test_a_header_of_another_form_is_ignored(header: str | None, kept: bool) -> None:
    assert (read_traceparent(header) is not None) is kept


async def test_a_field_of_another_form_is_refused(api: Api) -> None:
    sid = await api.session()
    answer = await api("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "x", "traceparent": "00-1-2-3"})
    assert answer.status == 400
    assert "traceparent" in answer.json["message"]
