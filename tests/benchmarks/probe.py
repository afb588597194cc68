"""A look into a Jupyter server that is measured: its loop, its processor and memory, and the round trips of a kernel.

The server gets this module as an extension: it answers ``probe`` (how late its loop is) and ``heap`` (what has grown).
A process of its own (this file as a program) executes ``1+1`` in a kernel of that server, over the server's WebSocket
and over ZMQ.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import subprocess
import sys
import time
import tracemalloc
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psutil
from tornado.httpclient import HTTPRequest
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClientConnection, websocket_connect

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import ROOT, LoopLag
from tests.support.server import JupyterServer

Trips = dict[str, list[float]]
"""Seconds of each round trip, by way: ``zmq``, ``server``."""
_EXTENSION = "tests.benchmarks.probe"


# --- in the server


class Lag(RequestHandler):
    """How late the loop was since it was last asked."""

    def get(self) -> None:
        lag: LoopLag = self.application.settings["lag"]
        self.write(json.dumps({"late": lag.late, "cpu": lag.cpu}))
        if self.get_argument("collect", ""):
            gc.collect()
        lag.reset()


class Heap(RequestHandler):
    """What has grown since it was last asked, by the place that allocated it."""

    def get(self) -> None:
        before, self.application.settings["heap"] = self.application.settings.get("heap"), None
        gc.collect()
        if not tracemalloc.is_tracing():
            tracemalloc.start(12)
        snapshot = self.application.settings["heap"] = tracemalloc.take_snapshot()
        grown = snapshot.compare_to(before, "traceback")[:25] if before else []
        lines = [[one.size_diff, one.count_diff, one.traceback.format()] for one in grown if one.size_diff > 0]
        self.write(json.dumps(lines))


def _load_jupyter_server_extension(app: Any) -> None:
    lag = app.web_app.settings["lag"] = LoopLag(0.005)
    app.web_app.add_handlers(".*", [(f"{app.base_url}probe", Lag), (f"{app.base_url}heap", Heap)])

    def begin() -> None:
        lag.reset()
        app.web_app.settings["lag_task"] = asyncio.ensure_future(lag.watch())

    app.io_loop.add_callback(begin)


# --- the process beside it


class Pinger:
    """Executes ``1+1`` in a kernel and waits for the reply and for ``idle``, over ZMQ and over the server."""

    def __init__(self, connection_file: str, connection: WebSocketClientConnection) -> None:
        from jupyter_client.asynchronous.client import AsyncKernelClient  # not in the server

        self._zmq = AsyncKernelClient(connection_file=connection_file)
        self._zmq.load_connection_file()
        self._zmq.start_channels()
        self._socket = connection
        self._session = uuid.uuid4().hex

    def _acknowledge(self) -> None:
        """At once: the server sends several small messages, and the second waits for the first to be acknowledged
        (Nagle), which Linux puts off by 40 ms. Both servers do that alike, and more than what is measured."""
        if hasattr(socket, "TCP_QUICKACK") and self._socket.protocol is not None:
            stream: Any = self._socket.protocol.stream  # type: ignore[attr-defined]
            stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

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
            self._acknowledge()
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
    connection = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"token {token}"}))
    pinger = Pinger(connection_file, connection)
    while line := await asyncio.to_thread(sys.stdin.readline):
        times: Trips = {"zmq": [], "server": []}
        for _ in range(int(line)):
            times["zmq"].append(await pinger.over_zmq())
            times["server"].append(await pinger.over_server())
            await asyncio.sleep(0.02)
        print(json.dumps(times), flush=True)


# --- in the benchmark


class Program:
    """A script in a process of its own that is given lines and answers each with one."""

    def __init__(self, script: str, *args: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    """Asks the server about itself, and for round trips of its kernel."""

    def __init__(self, server: JupyterServer, pinger: Program) -> None:
        self._server = server
        self._pinger = pinger
        self._process = psutil.Process(server.pid)

    async def round_trips(self, pairs: int) -> Trips:
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


@contextlib.contextmanager
def watched(home: Path, env: Mapping[str, str], *args: str, navi: bool = True) -> Iterator[tuple[JupyterServer, Watch]]:
    """A server of its own below ``home`` with the probe, a kernel and the process that executes in it."""
    home.mkdir()
    server = JupyterServer(home, env={"PYTHONPATH": str(ROOT), **env})
    extensions = f"--ServerApp.jpserver_extensions={{'navi_jupyter': {navi}, '{_EXTENSION}': True}}"
    server.start(args=(extensions, *args), wait=navi)
    try:
        if not navi:
            server.wait_for(lambda: answers(server), within=60)
        kernel = server.request("POST", "api/kernels", {"name": "python3"})["id"]
        connection = str(home / "runtime" / f"kernel-{kernel}.json")
        with Program(__file__, server.url, server.token, kernel, connection) as pinger:
            yield server, Watch(server, pinger)
    finally:
        server.stop()


def answers(server: JupyterServer) -> bool:
    """Whether Jupyter itself does."""
    try:
        server.get("api/status")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(ping(*sys.argv[1:]))
