"""The thread that reads what kernels say. One for all that are listened to; it sleeps in ``poll`` when they are quiet.

Not responsible for whether a kernel lives (``listening``) or for what a cell is (``cellruns``).
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Any, Protocol

from ...log_setup import get_logger
from ...ports.jupyter import CellRun, LostHow, Noticed
from .cell_executions import CellFold, Parent, parent_of
from .frames import IopubMessage, cut_stream

log = get_logger("kernels")

CUT = 64 * 1024
"""Bytes of content from which a stream is cut instead of decoded."""
END = 24 * 1024
LARGEST = 4 * 2**20
"""Bytes of content from which anything else is replaced by a note: decoding holds all threads of Python."""
BATCH = 200
"""Messages of one kernel until the next one's turn."""
RECONNECT_MS = 20
QUEUED = 20_000
"""Messages that wait for us; a kernel drops those that find no room."""
_DELIMITER = b"<IDS|MSG>"


class OnNews(Protocol):
    """Called in the thread. ``replaced``: another process speaks than before."""

    def __call__(self, news: Sequence[Noticed], *, replaced: bool) -> None: ...


class Subscription:
    """One kernel's subscription. Made on the event loop; fed in the thread."""

    def __init__(self, kernel_id: str, address: Mapping[str, Any], session: Any, on_news: OnNews) -> None:
        # Late: jupyter_client is there in a server, but not worth its import where nobody listens.
        from jupyter_client.session import Session as JupyterSession

        self.address = address
        self.heard = threading.Event()
        self._on_news = on_news
        self._session = JupyterSession(key=session.key, signature_scheme=session.signature_scheme)
        self._fold = CellFold(kernel_id)
        self._lock = threading.Lock()
        self._parent: tuple[bytes, Parent] = (b"", Parent("", "", ""))
        self._loop = asyncio.get_running_loop()
        self._told_heard = asyncio.Event()

    # --- asked from the loop -----------------------------------------------------------------------------------------

    async def on_heard(self) -> None:
        """Return once the kernel was heard."""
        await self._told_heard.wait()

    @property
    def busy(self) -> bool:
        """Whether it executes something, as far as was heard."""
        return self._fold.busy

    @property
    def replaced(self) -> bool:
        """Whether another process speaks than the one whose cells were begun, and its loss was not told."""
        return self._fold.replaced

    def settle(self) -> None:
        """Jupyter, which listens for longer, says that nothing runs."""
        with self._lock:
            self._fold.settle()

    def end_all(self) -> Sequence[CellRun]:
        """Nothing runs there any more: what did, as it ended."""
        with self._lock:
            return self._fold.end_all()

    def running(self) -> Sequence[CellRun]:
        """Cells that run, with what they have shown."""
        with self._lock:
            return self._fold.running()

    def lose(self, how: LostHow) -> Sequence[CellRun]:
        """Its process is gone: what it ran."""
        with self._lock:
            return self._fold.lose(how)

    def question(self) -> list[bytes]:
        """The frames of a request that is answered on IOPub, also while a cell runs."""
        frames: list[bytes] = self._session.serialize(self._session.msg("kernel_info_request"))
        return frames

    # --- in the thread -----------------------------------------------------------------------------------------------

    def take(self, batch: Sequence[Sequence[bytes]]) -> None:
        """What came."""
        news: list[Noticed] = []
        with self._lock:
            for frames in batch:
                try:
                    self._take(frames, news)
                except (ValueError, TypeError, KeyError, IndexError):
                    continue  # torn, or nobody's
            replaced = self._fold.replaced
        if news:
            self._on_news(news, replaced=replaced)

    def _take(self, frames: Sequence[bytes], news: list[Noticed]) -> None:
        at = frames.index(_DELIMITER)
        signature, header, parent, metadata, content = frames[at + 1 : at + 6]
        if not self.heard.is_set() and self._signed(signature, header, parent, metadata, content):
            self.heard.set()
            self._loop.call_soon_threadsafe(self._told_heard.set)
        if b"execute_request" not in parent:
            return
        if parent != self._parent[0]:  # a cell's messages come one after the other
            self._parent = parent, parent_of(json.loads(parent))
        about = self._parent[1]
        if about.kind != "execute_request" or not self._signed(signature, header, parent, metadata, content):
            return
        head = json.loads(header)
        noticed = self._fold.take(_said(head, about, content), about)
        if noticed is not None:
            news.append(noticed)

    def _signed(self, signature: bytes, *parts: bytes) -> bool:
        if self._session.auth is None:
            return True
        return compare_digest(signature, self._session.sign(list(parts)))


def _said(head: Mapping[str, Any], about: Parent, content: bytes) -> IopubMessage:
    kind, sender = str(head["msg_type"]), str(head.get("session", ""))
    left_out, ending = 0, ""
    decoded: Mapping[str, Any]
    if kind == "stream" and len(content) > CUT:
        name, text, left_out, ending = cut_stream(content, END)
        decoded = {"name": name, "text": text}
    elif len(content) > LARGEST:
        note = f"(an output of {len(content) / 1e6:.0f} MB was left out)"
        decoded = {"data": {"text/plain": note}, "ename": "Error", "evalue": note, "code": note}
    else:
        decoded = json.loads(content)
    return IopubMessage(
        kind=kind,
        sender=sender,
        parent_id=about.id,
        parent_kind=about.kind,
        content=decoded,
        left_out=left_out,
        ending=ending,
    )


class IopubReader:
    """See the module. Its thread runs from the first to the last ear."""

    def __init__(self) -> None:
        import zmq  # late: a server that watches no kernel needs none

        self._zmq = zmq
        self._context = zmq.Context()
        self._orders: deque[Callable[[], None]] = deque()
        self._poller = zmq.Poller()
        self._sockets: dict[Subscription, tuple[Any, Any]] = {}
        """IOPub and control of each ear. Used in the thread only."""
        self._ears: dict[Any, Subscription] = {}
        self._stopping = False
        self._bell_lock = threading.Lock()
        self._bell, listen = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        listen.bind("inproc://bell")
        self._bell.connect("inproc://bell")
        self._poller.register(listen, zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, args=(listen,), name="navi-watch", daemon=True)
        self._thread.start()

    def add(self, ear: Subscription) -> None:
        """Read what this kernel says."""
        self._order(lambda: self._open(ear))

    def ask(self, ear: Subscription) -> None:
        """Have the kernel say something."""
        question = ear.question()
        self._order(lambda: self._ask(ear, question))

    def remove(self, ear: Subscription) -> None:
        """Read it no more."""
        self._order(lambda: self._shut(ear))

    def stop(self) -> None:
        """End the thread. Blocks until it has ended: a moment."""
        self._order(self._end)
        self._thread.join(5)
        self._bell.close(0)
        self._context.destroy(linger=0)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        with self._bell_lock:
            self._bell.send(b"")

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _run(self, bell: Any) -> None:
        while not self._stopping:
            for socket, _ in self._poller.poll():
                try:
                    if socket is bell:
                        bell.recv()
                        self._orders.popleft()()
                    else:
                        self._read(socket)
                except Exception:
                    log.exception("kernel_listening_failed")
        for ear in list(self._sockets):
            self._shut(ear)
        bell.close(0)

    def _read(self, socket: Any) -> None:
        batch: list[list[bytes]] = []
        while len(batch) < BATCH:
            try:
                batch.append(socket.recv_multipart(self._zmq.NOBLOCK))
            except self._zmq.Again:
                break
        ear = self._ears.get(socket)
        if ear is not None and batch:
            ear.take(batch)

    def _open(self, ear: Subscription) -> None:
        iopub = self._connected(self._zmq.SUB, ear.address, "iopub_port")
        iopub.rcvhwm = QUEUED
        iopub.setsockopt(self._zmq.SUBSCRIBE, b"")
        self._sockets[ear] = iopub, self._connected(self._zmq.DEALER, ear.address, "control_port")
        self._ears[iopub] = ear
        self._poller.register(iopub, self._zmq.POLLIN)

    def _connected(self, kind: int, address: Mapping[str, Any], port: str) -> Any:
        socket = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = RECONNECT_MS
        public = address.get("curve_publickey")
        if public is not None:
            socket.curve_publickey = socket.curve_serverkey = public.encode()
            socket.curve_secretkey = address["curve_secretkey"].encode()
        separator = ":" if address["transport"] == "tcp" else "-"
        socket.connect(f"{address['transport']}://{address['ip']}{separator}{address[port]}")
        return socket

    def _ask(self, ear: Subscription, question: list[bytes]) -> None:
        if ear in self._sockets:
            self._sockets[ear][1].send_multipart(question, self._zmq.NOBLOCK)

    def _shut(self, ear: Subscription) -> None:
        iopub, control = self._sockets.pop(ear, (None, None))
        if iopub is None:
            return
        self._ears.pop(iopub, None)
        self._poller.unregister(iopub)
        iopub.close(0)
        control.close(0)

    def _end(self) -> None:
        self._stopping = True
