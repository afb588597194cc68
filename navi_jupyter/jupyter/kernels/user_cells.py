"""The user's cells, as they run in kernels of this server: what proves that a request of a kernel comes from one.

The kernels' token is known to all code in a kernel, the agent's too. So what only the user may do is done by a kernel
in the name of a cell, which this server has seen begin. It listens to status messages alone (by their ZMQ topic), so a
kernel that floods its outputs costs nothing here. Not responsible for what needs a cell (``server.kernel_scope``).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from ...input.json_input import load_json
from ...log_setup import get_logger
from ...navi_cells import AGENT_USER
from .iopub import IopubReader, IopubSelection, IopubSubscription
from .jupyter_services import JupyterServices
from .transport import RawMessage

log = get_logger("kernels")

EVENTS = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"
SEEN_WITHIN = 3.0  # seconds for the beginning of a cell to reach us: its request may be quicker; or for ours to end
SETTLED = 0.1  # seconds after which the same must still be true: the end of a cell may be on its way
COMM_GRACE = 5.0  # seconds: the kernel is done with a widget's message before what that asks for is sent
_POLL = 0.02
_MOST = 200  # requests of one kernel that run at once; more than that are remains whose end was missed
_SELECTION = IopubSelection(topic=b"kernel", about=(b"execute_request", b"comm_msg"))
"""Status messages and inputs: ipykernel's topics begin so, and those of streams and displays do not."""


@dataclass(eq=False)
class _Request:
    """A request of the user's that a kernel works on."""

    shared: bool = False  # code of an agent has been executed while it ran, and may have left a thread behind
    key: str | None = None  # known to the cell alone: given before any code of an agent ran in it


class WatchedKernel:
    """What one kernel works on. Implements ``IopubListener``: fed in the reader's thread, asked on the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, _Request] = {}
        self._agents: dict[str, None] = {}
        self._comms: deque[tuple[str, float]] = deque(maxlen=_MOST)  # messages of widgets that were handled, and when
        self._over: deque[str] = deque(maxlen=_MOST)  # requests that have ended, of anybody
        self._sender = ""
        self._touched = False

    @property
    def touched(self) -> bool:
        """Whether code of an agent has run in this kernel, in an earlier process of it, too."""
        return self._touched

    def take(self, messages: Sequence[RawMessage]) -> bool:
        """See ``IopubListener``. Always takes more."""
        with self._lock:
            for message in messages:
                self._take(message)
        return True

    def _take(self, message: RawMessage) -> None:
        if message.sender != self._sender:  # another process: nothing goes on from the one before
            self._users.clear()
            self._agents.clear()
            self._sender = message.sender
        parent = message.parent
        ours = parent.username == AGENT_USER
        if message.kind == "execute_input" and ours:
            self._note_code()
        if message.kind != "status":
            return
        with suppress(ValueError):
            state = load_json(message.content).get("execution_state")
            running: dict[str, Any] = self._agents if ours else self._users
            if state == "busy":
                running[parent.id] = _Request()
                while len(running) > _MOST:
                    del running[next(iter(running))]
            elif state == "idle" and parent.id in running:
                del running[parent.id]
                self._over.append(parent.id)
                if parent.kind == "comm_msg" and not ours:
                    self._comms.append((parent.id, time.monotonic()))

    def note_code(self) -> None:
        """Code of an agent is about to run in a cell that lends the kernel."""
        with self._lock:
            self._note_code()

    def _note_code(self) -> None:
        self._touched = True
        for request in self._users.values():
            request.shared = True

    def keep_key(self, request_id: str, key: str) -> bool:
        """Keep the key of a cell that runs, if no code of an agent has run in it. False while it is not seen."""
        with self._lock:
            request = self._users.get(request_id)
            if request is not None and not request.shared and request.key is None:
                request.key = key
            return request is not None

    def has(self, request_id: str, key: str | None) -> bool | None:
        """Whether the user's request goes on (a widget's: was handled just now), and no code of an agent does.

        None: not yet. Its beginning may be on its way, and what runs besides may end.
        """
        with self._lock:
            request = self._users.get(request_id)
            since = time.monotonic() - COMM_GRACE
            if request is not None and request.shared:
                known = key is not None and request.key is not None and compare_digest(key, request.key)
            else:
                handled = any(each == request_id and at >= since for each, at in self._comms)
                known = request is not None or handled
            if known:
                return None if self._agents else True
            return False if request is not None or request_id in self._agents or request_id in self._over else None


class UserCells:
    """See the module. One per server."""

    def __init__(self, parts: JupyterServices, iopub: IopubReader) -> None:
        self._parts, self._iopub = parts, iopub
        self._kernels: dict[str, tuple[WatchedKernel, IopubSubscription]] = {}
        self._closed = False
        self._touched = False  # whether code of an agent has run in a kernel that is gone

    def start(self) -> None:
        """Watch all kernels from now on, each from its start."""
        events = self._parts.settings.get("event_logger")
        if events is not None:
            events.add_listener(schema_id=EVENTS, listener=self._on_event)
        self.refresh()

    async def close(self) -> None:
        """Watch none any more."""
        events = self._parts.settings.get("event_logger")
        if events is not None and not self._closed:
            with suppress(KeyError, ValueError):  # it was never started
                events.remove_listener(schema_id=EVENTS, listener=self._on_event)
        self._closed = True
        kernels, self._kernels = self._kernels, {}
        for _, subscription in kernels.values():
            await self._iopub.unsubscribe(subscription)

    async def _on_event(self, *, data: Mapping[str, Any], **_: Any) -> None:
        if data.get("status") == "success":
            self.refresh()

    def refresh(self) -> None:
        """Watch kernels that are new, or have moved to other ports; forget those that are gone."""
        if self._closed:
            return
        manager = self._parts.kernel_manager
        for kernel_id in list(manager.list_kernel_ids()):
            kernel = manager.get_kernel(kernel_id)
            watched = self._kernels.get(kernel_id)
            # None of a gateway's kernels, which are not reached by ZMQ, and none that has no ports yet.
            if not getattr(kernel, "iopub_port", 0):
                continue
            if watched is not None and watched[1].address == dict(kernel.get_connection_info()):
                continue
            self._drop(kernel_id)
            listener = WatchedKernel()
            self._kernels[kernel_id] = listener, self._iopub.subscribe(kernel_id, kernel, listener, _SELECTION)
        for gone in [each for each in self._kernels if each not in manager]:
            self._drop(gone)

    def _drop(self, kernel_id: str) -> None:
        watched = self._kernels.pop(kernel_id, None)
        if watched is not None:
            self._touched |= watched[0].touched
            task = asyncio.ensure_future(self._iopub.unsubscribe(watched[1]))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    @property
    def touched(self) -> bool:
        """Whether code of an agent has run in a kernel: a program that it has left behind outlives that kernel."""
        return self._touched or any(watched.touched for watched, _ in self._kernels.values())

    def note_code(self, kernel_id: str) -> None:
        """Code of an agent is about to run in a cell that lends this kernel."""
        if kernel_id in self._kernels:
            self._kernels[kernel_id][0].note_code()

    async def keep_key(self, kernel_id: str, request_id: str, key: str) -> None:
        """Keep the key by which the cell that begins to wait is known once code of an agent has run in it."""
        self.refresh()
        if kernel_id in self._kernels:
            await _until(lambda: kernel_id in self._kernels and self._kernels[kernel_id][0].keep_key(request_id, key))

    async def run(self, kernel_id: str, request_id: str, key: str | None) -> bool:
        """Whether this request is the user's, runs now, and alone: no code of an agent is executed in the kernel."""
        self.refresh()

        def state() -> bool | None:
            return self._kernels[kernel_id][0].has(request_id, key) if kernel_id in self._kernels else False

        await _until(lambda: state() is not None)
        if not state():
            return False
        await asyncio.sleep(SETTLED)
        return bool(state())


async def _until(true: Callable[[], bool]) -> bool:
    """Wait a moment for it. Whether it came true."""
    until = time.monotonic() + SEEN_WITHIN
    while not true():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(_POLL)
    return True
