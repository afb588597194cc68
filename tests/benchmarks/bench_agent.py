"""Many sessions at once on a real Jupyter server, each answered by a model that streams; and what kernels feel of it.

    python tests/benchmarks/bench_agent.py [--sessions 50] [--rate 50] [--minutes 1] [--bare]

Four kinds of process: the server; a provider that speaks OpenAI's protocol at ``rate`` tokens a second to each session;
a kernel of that server with somebody who executes in it, over the server's WebSocket and over ZMQ; and this one, with
one WebSocket to each session, which prompts again as soon as a run has ended.

Reports, of the load: tokens and envelopes delivered per second, the time of a token from the provider to the follower;
of the server: how late its event loop wakes a sleeper (every 5 ms; also in CPU time of the loop's thread, which other
programs on a busy machine do not spoil), CPU and memory by the minute; of the kernel: a round trip before and during.

``--bare`` has somebody else consume the same streams instead of the server: what of it is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.providers import KEY
from tests.support.server import ROOT, JupyterServer

MODEL = "openai-chat:gpt-6-luna"
RUN = 30.0
"""Seconds that an answer takes."""
STAMPED = 10
"""Every which token carries the time at which it was written."""
_STAMP = re.compile(r"@(\d+)#")
PROBE = '''
"""A server extension: how late the loop wakes a sleeper, and what is in memory."""
import asyncio, gc, json, time, tracemalloc
from tornado.web import RequestHandler

class Probe:
    def __init__(self):
        self.late, self.cpu = [], []

    async def watch(self):
        while True:
            before, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.005)
            self.late.append(time.perf_counter() - before - 0.005)
            self.cpu.append(time.thread_time() - cpu)

class Seen(RequestHandler):
    def get(self):
        probe = self.application.settings["probe"]
        seen = {"late": probe.late, "cpu": probe.cpu}
        probe.late, probe.cpu = [], []
        if self.get_argument("collect", ""):
            gc.collect()
        self.write(json.dumps(seen))

class Heap(RequestHandler):
    """What has grown since the last time, by the place that allocated it."""
    def get(self):
        before, self.application.settings["heap"] = self.application.settings.get("heap"), None
        gc.collect()
        if not tracemalloc.is_tracing():
            tracemalloc.start(12)
        snapshot = self.application.settings["heap"] = tracemalloc.take_snapshot()
        grown = snapshot.compare_to(before, "traceback")[:25] if before else []
        lines = [[one.size_diff, one.count_diff, one.traceback.format()] for one in grown if one.size_diff > 0]
        self.write(json.dumps(lines))

def _load_jupyter_server_extension(app):
    probe = app.web_app.settings["probe"] = Probe()
    base = app.base_url
    app.web_app.add_handlers(".*", [(base + "probe", Seen), (base + "heap", Heap)])
    app.io_loop.add_callback(lambda: setattr(probe, "task", asyncio.ensure_future(probe.watch())))
'''


# --- the provider's process


class Answer(asyncio.Protocol):
    """OpenAI's chat completions, streamed, by hand: what streams must not need the processor that is measured."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._asked = b""
        self._left = 0
        """Tokens to come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See ``asyncio.Protocol``."""
        self._pace.answers.discard(self)

    def data_received(self, data: bytes) -> None:
        """A request, in pieces. Its first token is due with all others of its lane."""
        self._asked += data
        head, blank, body = self._asked.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if not blank or length is None or len(body) < int(length[1]):
            return
        self._asked = b""
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            + _chunked(_said({"role": "assistant", "content": ""}))
        )
        self._left = self._pace.tokens
        self._pace.answers.add(self)

    def next(self) -> None:
        """The next token, or the end."""
        number, self._left = self._left, self._left - 1
        if number > 0:
            text = f"@{time.monotonic_ns()}# " if number % STAMPED == 0 else f"word{number % 100} "
            self._transport.write(_chunked(_said({"content": text})))
            return
        self._pace.answers.discard(self)
        usage = {"prompt_tokens": 100, "completion_tokens": self._pace.tokens, "total_tokens": 100 + self._pace.tokens}
        last = json.dumps({**_CHUNK, "choices": [], "usage": usage})
        self._transport.write(_chunked(_said({}, "stop") + f"data: {last}\n\ndata: [DONE]\n\n") + b"0\r\n\r\n")


_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1795000000, "model": "scripted"}


def _said(delta: dict[str, str], finish: str | None = None) -> str:
    return f"data: {json.dumps({**_CHUNK, 'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n"


def _chunked(text: str) -> bytes:
    body = text.encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


class Pace:
    """Gives every open answer its next token at a steady rate, a fifth of them at a time."""

    LANES = 5

    def __init__(self, rate: float) -> None:
        self.tokens = int(rate * RUN)
        self.answers: set[Answer] = set()
        self._rate = rate

    async def keep(self) -> None:
        """Work until cancelled. What is late is made up for."""
        began, turn = time.monotonic(), 0
        while True:
            for answer in [one for one in self.answers if hash(one) // 16 % self.LANES == turn % self.LANES]:
                answer.next()
            turn += 1
            await asyncio.sleep(began + turn / (self._rate * self.LANES) - time.monotonic())


async def provide(rate: float) -> None:
    """Print the address; work until the input is closed."""
    pace = Pace(rate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answer(pace), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    keeper = asyncio.create_task(pace.keep())
    await loop.run_in_executor(None, sys.stdin.read)
    keeper.cancel()


async def consume(url: str, sessions: int) -> None:
    """The same streams, read by nobody in particular (``--bare``)."""

    async def one() -> None:
        while True:
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps({"messages": [{"role": "user", "content": "go"}], "stream": True})
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write((head + body).encode())
            while b"[DONE]" not in await reader.read(65536):
                pass
            writer.close()

    await asyncio.gather(*(one() for _ in range(sessions)))


# --- the kernel's user, in a process of its own


class Pinger:
    """Executes ``1+1`` in a kernel and waits for the reply and for ``idle``, over ZMQ and over the server."""

    def __init__(self, connection_file: str, socket: WebSocketClientConnection) -> None:
        from jupyter_client.asynchronous.client import AsyncKernelClient

        self._zmq = AsyncKernelClient(connection_file=connection_file)
        self._zmq.load_connection_file()
        self._zmq.start_channels()
        self._socket = socket
        self._session = uuid.uuid4().hex

    async def over_zmq(self) -> float:
        """Seconds of one round trip."""
        began = time.perf_counter()
        asked = self._zmq.execute("1+1")
        await self._zmq.get_shell_msg(timeout=60)
        while True:
            message = await self._zmq.get_iopub_msg(timeout=60)
            status = message["content"].get("execution_state")
            if message["parent_header"].get("msg_id") == asked and status == "idle":
                return time.perf_counter() - began

    async def over_server(self) -> float:
        """Seconds of one round trip."""
        ident = uuid.uuid4().hex
        header = {"msg_id": ident, "username": "u", "session": self._session, "msg_type": "execute_request"}
        content = {"code": "1+1", "silent": False, "store_history": False, "user_expressions": {}}
        message = {
            "channel": "shell", "header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {},
            "content": content, "buffers": [],
        }  # fmt: skip
        began = time.perf_counter()
        await self._socket.write_message(json.dumps(message))
        seen: set[str] = set()
        while seen != {"reply", "idle"}:
            answer = json.loads(str(await self._socket.read_message()))
            if answer["parent_header"].get("msg_id") != ident:
                continue
            if answer["msg_type"] == "execute_reply":
                seen.add("reply")
            elif answer["content"].get("execution_state") == "idle":
                seen.add("idle")
        return time.perf_counter() - began


async def ping(url: str, token: str, kernel_id: str, connection_file: str) -> None:
    """For each line of input, that many pairs of round trips, with a pause after each: a line of JSON."""
    address = f"{url.replace('http', 'ws', 1)}api/kernels/{kernel_id}/channels"
    socket = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"token {token}"}))
    pinger = Pinger(connection_file, socket)
    while line := await asyncio.to_thread(sys.stdin.readline):
        times: dict[str, list[float]] = {"zmq": [], "server": []}
        for _ in range(int(line)):
            times["zmq"].append(await pinger.over_zmq())
            times["server"].append(await pinger.over_server())
            await asyncio.sleep(0.02)
        print(json.dumps(times), flush=True)


# --- this process: followers, and what is told


class Sessions:
    """The sessions, one follower each. Counts and looks at stamps; parses nothing: it is not what is measured."""

    def __init__(self, server: JupyterServer, count: int) -> None:
        self.ids = [server.request("POST", "navi/api/sessions", {"model": MODEL})["id"] for _ in range(count)]
        self.ended = 0
        self.failed: list[str] = []
        self._server = server
        self._tasks: list[asyncio.Task[None]] = []
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.since = time.monotonic()
        self.tokens = self.envelopes = self.frames = 0
        self.latencies: list[float] = []

    def start(self) -> None:
        """Prompt all, and again whenever a run ends."""
        self._tasks = [asyncio.create_task(self._follow(sid)) for sid in self.ids]

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, sid: str) -> None:
        url = f"{self._server.url.replace('http', 'ws', 1)}navi/api/sessions/{sid}/ws?after=0"
        socket = await websocket_connect(HTTPRequest(url, headers={"Authorization": f"token {self._server.token}"}))
        await socket.write_message(json.dumps({"type": "prompt", "text": "go"}))
        while (frame := await socket.read_message()) is not None:
            at = time.monotonic_ns()
            text = str(frame)
            self.frames += 1
            self.envelopes += text.count('"seq":')
            stamps = _STAMP.findall(text)
            self.tokens += STAMPED * len(stamps)
            self.latencies += [(at - int(stamp)) / 1e9 for stamp in stamps]
            if '"RUN_ERROR"' in text or '"rejected"' in text:
                self.failed.append(text[-500:])
            if '"RUN_FINISHED"' in text or '"RUN_ERROR"' in text:
                self.ended += 1
                await socket.write_message(json.dumps({"type": "prompt", "text": "go"}))

    def report(self) -> str:
        """What came since the last reset."""
        seconds = time.monotonic() - self.since
        return (
            f"{self.tokens / seconds:,.0f} tokens/s, {self.envelopes / seconds:,.0f} envelopes/s in"
            f" {self.frames / seconds:,.0f} frames/s; token to follower {spread(self.latencies)}; {self.ended} runs"
        )


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and maximum, in ms."""
    values = sorted(seconds) or [0.0]
    p50, p99, top = values[len(values) // 2], values[int(len(values) * 0.99)], values[-1]
    return f"p50 {p50 * 1e3:.1f} p99 {p99 * 1e3:.1f} max {top * 1e3:.0f} ms"


class Program:
    """This file in another process, talked to by lines."""

    def __init__(self, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def line(self, given: str = "") -> str:
        """Its next line, after it was given one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if given:
            self._process.stdin.write(given + "\n")
            self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Watch:
    """Asks the server about itself and the kernel's user about his patience."""

    def __init__(self, server: JupyterServer, pinger: Program) -> None:
        self._server = server
        self._pinger = pinger
        self._process = psutil.Process(server.pid)

    async def round_trips(self, pairs: int) -> dict[str, list[float]]:
        """Of the kernel."""
        answer = await asyncio.to_thread(self._pinger.line, str(pairs))
        return dict(json.loads(answer))

    async def lag(self) -> dict[str, list[float]]:
        """Of the server's loop, since it was last asked."""
        return dict(json.loads(await asyncio.to_thread(self._server.download, "probe")))

    def memory(self) -> float:
        """MB of the server's process."""
        return float(self._process.memory_info().rss) / 2**20

    def busy(self) -> float:
        """Processor seconds so far."""
        times = self._process.cpu_times()
        return float(times.user + times.system)


async def measure(watch: Watch, sessions: Sessions, minutes: float, pairs: int) -> None:
    """The load, by the minute."""
    await watch.lag()
    before = await watch.round_trips(pairs)
    quiet = await watch.lag()
    print(f"quiet: loop lag {spread(quiet['late'])}; {told(before)}; {watch.memory():.0f} MB", flush=True)
    sessions.start()
    await asyncio.sleep(5)  # all are being answered: imports and connections are behind us
    await watch.lag()
    late: list[float] = []
    cpu: list[float] = []
    during: dict[str, list[float]] = {"zmq": [], "server": []}
    weights = [watch.memory()]
    print(f"begun: {weights[0]:.0f} MB", flush=True)
    for minute in range(1, max(1, round(minutes)) + 1):
        sessions.reset()
        until, busy, began = time.monotonic() + 60 * min(1.0, minutes), watch.busy(), time.monotonic()
        while time.monotonic() < until:
            for way, times in (await watch.round_trips(25)).items():
                during[way] += times
        seen = await watch.lag()
        late += seen["late"]
        cpu += seen["cpu"]
        weights.append(watch.memory())
        print(
            f"minute {minute}: {sessions.report()}; loop lag {spread(seen['late'])}, of CPU {spread(seen['cpu'])};"
            f" server {100 * (watch.busy() - busy) / (time.monotonic() - began):.0f} % CPU, {weights[-1]:.0f} MB",
            flush=True,
        )
    await sessions.stop()
    print(f"loop lag in all: {spread(late)}, of CPU {spread(cpu)}")
    print(f"kernel before: {told(before)}\nkernel during: {told(during)}\n{slowed(before, during)}")
    print(f"memory: {' '.join(f'{weight:.0f}' for weight in weights)} MB; {sessions.ended} runs ended")
    if sessions.failed:
        print(f"{len(sessions.failed)} failed; the first: {sessions.failed[0]}")


def told(trips: dict[str, list[float]]) -> str:
    """The round trips of a kernel."""
    return "; ".join(f"round trip over {way} {spread(times)}" for way, times in trips.items())


def slowed(before: dict[str, list[float]], during: dict[str, list[float]]) -> str:
    """By how much the median has grown."""

    def middle(times: Sequence[float]) -> float:
        return sorted(times)[len(times) // 2]

    return "; ".join(f"{way}: {100 * (middle(during[way]) / middle(before[way]) - 1):+.0f} %" for way in before)


async def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=200, help="round trips of the kernel before the load")
    parser.add_argument("--bare", action="store_true", help="somebody else reads the streams: what is the machine's")
    for name in ("--provide", "--consume", "--ping"):
        parser.add_argument(name, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.provide is not None:
        await provide(options.rate)
    elif options.consume is not None:
        await consume(options.consume[0], options.sessions)
    elif options.ping is not None:
        await ping(*options.ping)
    else:
        await whole(options)


async def whole(options: argparse.Namespace) -> None:
    """Start all processes, measure, end them."""
    rate, count = f"--rate={options.rate}", f"--sessions={options.sessions}"
    with tempfile.TemporaryDirectory() as folder, Program(rate, "--provide") as provider:
        address = await asyncio.to_thread(provider.line)
        home = Path(folder) / "home"
        home.mkdir()
        (Path(folder) / "navi_bench_probe.py").write_text(PROBE)
        env = {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": KEY, "PYTHONPATH": f"{folder}:{ROOT}"}
        server = JupyterServer(home, env=env)
        extensions = "--ServerApp.jpserver_extensions={'navi_jupyter': True, 'navi_bench_probe': True}"
        with server.start(args=(extensions, f"--NaviExtension.max_concurrent_runs={options.sessions + 14}")):
            kernel = server.request("POST", "api/kernels", {"name": "python3"})["id"]
            connection = str(home / "runtime" / f"kernel-{kernel}.json")
            with Program("--ping", server.url, server.token, kernel, connection) as pinger:
                watch = Watch(server, pinger)
                await watch.round_trips(50)  # warm
                if options.bare:
                    with Program(count, "--consume", address):
                        await measure(watch, Sessions(server, 0), options.minutes, options.pairs)
                else:
                    await measure(watch, Sessions(server, options.sessions), options.minutes, options.pairs)


if __name__ == "__main__":
    asyncio.run(main())
