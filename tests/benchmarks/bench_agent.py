"""Many sessions at once on a real Jupyter server, each answered by a model that streams; and what kernels feel of it.

    python tests/benchmarks/bench_agent.py [--sessions 50] [--rate 50] [--minutes 1] [--fresh] [--bare] [--quick]

Four kinds of process: the server; a provider that speaks OpenAI's protocol at ``rate`` tokens a second to each session;
a kernel of that server with somebody who executes in it, over the server's WebSocket and over ZMQ; and this one, with
one WebSocket to each session, which prompts again as soon as a run has ended.

Reports, of the load: tokens and envelopes delivered per second, the time of a token from the provider to the follower;
of the server: how late its event loop wakes a sleeper (every 5 ms; also in CPU time of the loop's thread, which other
programs on a busy machine do not spoil), CPU and memory by the minute; of the kernel: a round trip before and during.

``--fresh`` has each answer come in a new session: memory that grows then is lost. Without it, conversations grow by
1,500 tokens every half a minute, and with them what a run has in memory of the turns before it.

``--bare`` has somebody else consume the same streams instead of the server: what of it is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import Figures, arguments, in_ms, percentile, spread
from tests.benchmarks.probe import Program, Trips, Watch, watched
from tests.support.providers import KEY
from tests.support.server import JupyterServer

MODEL = "openai-chat:gpt-6-luna"
RUN = 30.0
"""Seconds that an answer takes."""
STAMPED = 10
"""Every which token carries the time at which it was written."""
STEADY = 4
"""Minutes after which memory is to be flat: sessions that were busy leave it after one, caches fill."""
_STAMP = re.compile(r"@(\d+)#")


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


# --- this process: followers, and what is reported


class Sessions:
    """The sessions, one follower each. Counts and looks at stamps, and parses nothing: it is not what is measured."""

    def __init__(self, server: JupyterServer, count: int, *, fresh: bool = False) -> None:
        """``fresh``: a new one for each answer."""
        self._fresh = fresh
        self.ended = 0
        self.failed: list[str] = []
        self._server = server
        self.ids = [self._new() for _ in range(count)]
        self._tasks: list[asyncio.Task[None]] = []
        self.reset()

    def reset(self) -> None:
        """Begin to count anew."""
        self.since = time.monotonic()
        self.tokens = self.envelopes = self.frames = 0
        self.latencies: list[float] = []

    def _new(self) -> str:
        made: str = self._server.request("POST", "navi/api/sessions", {"model": MODEL})["id"]
        return made

    def start(self) -> None:
        """Prompt all, and again whenever a run ends."""
        self._tasks = [asyncio.create_task(self._follow(sid)) for sid in self.ids]

    async def stop(self) -> None:
        """Hang up."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.failed += [f"a follower ended: {error!r}" for error in ends if isinstance(error, Exception)]

    async def _follow(self, sid: str) -> None:
        while await self._answered(sid):
            sid = await asyncio.to_thread(self._new)

    async def _answered(self, sid: str) -> bool:
        """Prompt and follow, until another session is to be prompted (True) or the server hangs up."""
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
                if self._fresh:
                    socket.close()
                    return True
                await socket.write_message(json.dumps({"type": "prompt", "text": "go"}))
        self.failed.append(f"the server closed the socket of {sid}: {socket.close_code} {socket.close_reason}")
        return False

    def report(self) -> str:
        """What came since the last reset."""
        seconds = time.monotonic() - self.since
        return (
            f"{self.tokens / seconds:,.0f} tokens/s, {self.envelopes / seconds:,.0f} envelopes/s in"
            f" {self.frames / seconds:,.0f} frames/s; token to follower {spread(self.latencies)}; {self.ended} runs"
        )


async def measure(watch: Watch, sessions: Sessions, minutes: float, pairs: int) -> Figures:
    """The load, by the minute."""
    await watch.lag()
    before = await watch.round_trips(pairs)
    quiet = await watch.lag()
    print(f"quiet: loop lag {spread(quiet['late'])}; {described(before)}; {watch.memory():.0f} MB", flush=True)
    sessions.start()
    await asyncio.sleep(5)  # all are being answered: imports and connections are behind us
    await watch.lag()
    late: list[float] = []
    cpu: list[float] = []
    during: Trips = {"zmq": [], "server": []}
    weights, latencies, tokens = [watch.memory()], list[float](), 0
    used, since = watch.busy(), time.monotonic()
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
        latencies += sessions.latencies
        tokens += sessions.tokens
        weights.append(watch.memory())
        print(
            f"minute {minute}: {sessions.report()}; loop lag {spread(seen['late'])}, of CPU {spread(seen['cpu'])};"
            f" server {100 * (watch.busy() - busy) / (time.monotonic() - began):.0f} % CPU, {weights[-1]:.0f} MB",
            flush=True,
        )
    used, took = watch.busy() - used, time.monotonic() - since
    await sessions.stop()
    print(f"loop lag in all: {spread(late)}, of CPU {spread(cpu)}")
    print(f"kernel before: {described(before)}\nkernel during: {described(during)}\n{slowed(before, during)}")
    print(f"memory: {' '.join(f'{weight:.0f}' for weight in weights)} MB; {sessions.ended} runs ended")
    if sessions.failed:
        print(f"{len(sessions.failed)} failed; the first: {sessions.failed[0]}")
    load = f"{len(sessions.ids)} sessions"
    figures = Figures()
    figures.add(f"{load}: CPU of the server, %", 100 * used / took)
    figures.add(f"{load}: CPU of the server for a token, us", 1e6 * used / max(tokens, 1))
    for name, value in in_ms(f"{load}: token to follower", latencies).items():
        figures.add(name, value)
    figures.add(f"{load}: longest lag of the loop, ms", 1e3 * max(late))
    figures.add(f"{load}: longest turn of the loop in CPU, ms", 1e3 * max(cpu))
    figures.add(f"{load}: memory in the end, MB", weights[-1])
    figures.add(f"{load}: runs and followers that failed, number", len(sessions.failed))
    if len(weights) > STEADY + 1:
        figures.add(f"{load}: memory grows after {STEADY} minutes, MB a minute", slope(weights[STEADY:]))
    return figures


def slope(values: Sequence[float]) -> float:
    """By how much they grow with each step (least squares)."""
    return statistics.linear_regression(range(len(values)), values).slope


def described(trips: Trips) -> str:
    """The round trips of a kernel."""
    return "; ".join(f"round trip over {way} {spread(times)}" for way, times in trips.items())


def slowed(before: Trips, during: Trips) -> str:
    """By how much the median has grown."""
    return "; ".join(
        f"{way}: {100 * (percentile(during[way], 0.5) / percentile(before[way], 0.5) - 1):+.0f} %" for way in before
    )


async def main() -> None:
    """Run all of it."""
    parser = arguments(__doc__)
    parser.add_argument("--sessions", type=int, help="50; in the short form 20")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--minutes", type=float, help="1; in the short form a third")
    parser.add_argument("--pairs", type=int, default=200, help="round trips of the kernel before the load")
    parser.add_argument("--fresh", action="store_true", help="a new session for each answer")
    parser.add_argument("--bare", action="store_true", help="somebody else reads the streams: what is the machine's")
    for name in ("--provide", "--consume"):
        parser.add_argument(name, nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.sessions = options.sessions or (20 if options.quick else 50)
    options.minutes = options.minutes or (1 / 3 if options.quick else 1.0)
    if options.provide is not None:
        await provide(options.rate)
    elif options.consume is not None:
        await consume(options.consume[0], options.sessions)
    else:
        await whole(options)


async def whole(options: argparse.Namespace) -> None:
    """Start all processes, measure, end them."""
    rate, count = f"--rate={options.rate}", f"--sessions={options.sessions}"
    with tempfile.TemporaryDirectory() as folder, Program(__file__, rate, "--provide") as provider:
        address = await asyncio.to_thread(provider.line)
        env = {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": KEY}
        slots = f"--NaviExtension.max_concurrent_runs={options.sessions + 14}"
        many = "--NaviExtension.max_sessions_per_user=1000000"  # --fresh makes a thousand in ten minutes
        with watched(Path(folder) / "home", env, slots, many) as (server, watch):
            await watch.round_trips(50)  # warm
            consumer = Program(__file__, count, "--consume", address) if options.bare else contextlib.nullcontext()
            sessions = Sessions(server, 0 if options.bare else options.sessions, fresh=options.fresh)
            with consumer:
                (await measure(watch, sessions, options.minutes, options.pairs)).write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
