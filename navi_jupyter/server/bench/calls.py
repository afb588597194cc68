"""Calls between a user's server and the service over a channel: requests, what happens meanwhile, and their ends.

Frames, each with the ``id`` of its call: ``call`` (``method``, ``params``), ``event`` (anything, while the call lasts),
``result``, ``error`` (a NaviError's ``code``, ``message``, ``field``), ``cancel``. Either side may call the other. A
call is made once or not at all: the channel repeats frames and drops what came before. When the channel ends, calls to
the other side fail, and those of the other side are cancelled. Not responsible for what methods there are.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InvalidRequest, KernelUnavailable, LeaseLost, LimitReached, NaviError
from ...log_setup import get_logger
from .channel import Channel, Frame

log = get_logger("bench")

CANCELLED_WITHIN = 3.0  # seconds for a call that was cancelled to end: a kernel has two to come back
MOST_CALLS = 1000  # of the other side at once
REMEMBERED = 1000  # sessions
ENDED_WITHIN = 3.0  # seconds for what an earlier epoch has begun to end

LOST = "The connection to your Jupyter server was lost, so it is not known how this went on."

OnEvent = Callable[[Any], None]
Serve = Callable[[str, Mapping[str, Any], OnEvent], Awaitable[Any]]
"""Serves one method with its parameters; what it is given sends an event. Raises NaviError."""


@dataclass(eq=False)
class _Pending:
    ended: asyncio.Future[Any]
    on_event: OnEvent


@dataclass(eq=False)
class Calls:
    """The calls over one channel."""

    name: str
    serve: Serve
    on_end: Callable[[], None] = lambda: None  # called when the channel has ended
    channel: Channel = field(init=False)

    def __post_init__(self) -> None:
        self.channel = Channel(self.name, on_frame=self._take, on_end=self._ended)
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._serving: dict[int, asyncio.Task[None]] = {}

    async def call(self, method: str, params: Mapping[str, Any], on_event: OnEvent = lambda _: None) -> Any:
        """Have the other side do it, and wait. Cancelled, it is cancelled there, and its end awaited for a moment.

        Raises the NaviError that it raised there; KernelUnavailable when the channel ends before the call does;
        LimitReached for parameters that are too large.
        """
        if self.channel.ended:
            raise KernelUnavailable(LOST)
        call_id = next(self._ids)
        pending = self._pending[call_id] = _Pending(asyncio.get_running_loop().create_future(), on_event)
        try:
            self.channel.send({"type": "call", "id": call_id, "method": method, "params": params})
            return await asyncio.shield(pending.ended)
        except asyncio.CancelledError:
            self.channel.send({"type": "cancel", "id": call_id})
            await asyncio.wait((pending.ended,), timeout=CANCELLED_WITHIN)
            if pending.ended.done() and not pending.ended.cancelled():
                pending.ended.exception()  # it is of no interest any more
            raise
        finally:
            self._pending.pop(call_id, None)

    def _take(self, frame: Frame) -> None:
        kind, call_id = frame.get("type"), frame.get("id")
        if not isinstance(call_id, int):
            log.warning("bench_frame_refused", channel=self.name, kind=str(kind)[:50])
        elif kind == "call":
            self._begin(call_id, frame)
        elif kind == "cancel":
            if (task := self._serving.get(call_id)) is not None:
                task.cancel()
        elif (pending := self._pending.get(call_id)) is not None and not pending.ended.done():
            if kind == "event":
                self._note(pending, frame.get("event"))
            elif kind == "result":
                pending.ended.set_result(frame.get("result"))
            elif kind == "error":
                pending.ended.set_exception(_error_of(frame.get("error")))

    def _note(self, pending: _Pending, event: Any) -> None:
        try:
            pending.on_event(event)
        except Exception:  # what the other side sends must not end the channel
            log.exception("bench_event_failed", channel=self.name)

    def _begin(self, call_id: int, frame: Frame) -> None:
        method, params = frame.get("method"), frame.get("params")
        if not isinstance(method, str) or not isinstance(params, dict) or call_id in self._serving:
            self._send_error(call_id, InvalidRequest("A call has a new id, a method and parameters."))
            return
        if len(self._serving) >= MOST_CALLS:
            self._send_error(call_id, LimitReached(f"There are {MOST_CALLS} calls at once already."))
            return
        task = asyncio.create_task(self._serve(call_id, method, params), name=f"navi-bench {method}")
        self._serving[call_id] = task
        task.add_done_callback(lambda _: self._serving.pop(call_id, None))

    async def _serve(self, call_id: int, method: str, params: Mapping[str, Any]) -> None:
        def emit(event: Any) -> None:
            try:
                self.channel.send({"type": "event", "id": call_id, "event": event})
            except Exception:  # it is left out; the call goes on
                log.exception("bench_event_not_sent", channel=self.name, method=method)

        try:
            result = await self.serve(method, params, emit)
            self.channel.send({"type": "result", "id": call_id, "result": result})
        except asyncio.CancelledError:
            self._send_error(call_id, KernelUnavailable("It was cancelled."))
            raise
        except NaviError as error:
            self._send_error(call_id, error)
        except Exception as error:
            log.exception("bench_call_failed", channel=self.name, method=method)
            self._send_error(call_id, NaviError(f"It failed ({type(error).__name__}): {str(error)[:300]}"))

    def _send_error(self, call_id: int, error: NaviError) -> None:
        about = {"code": error.code, "message": error.message, "field": error.field}
        self.channel.send({"type": "error", "id": call_id, "error": about})

    def _ended(self) -> None:
        for pending in self._pending.values():
            if not pending.ended.done():
                pending.ended.set_exception(KernelUnavailable(LOST))
                pending.ended.exception()  # where what waited was cancelled, it is of no interest
        for task in list(self._serving.values()):
            task.cancel()
        self.on_end()


def _kinds(base: type[NaviError]) -> dict[str, type[NaviError]]:
    found = {base.code: base}
    for kind in base.__subclasses__():
        for code, each in _kinds(kind).items():
            found.setdefault(code, each)
    return found


def _error_of(about: object) -> NaviError:
    given = about if isinstance(about, dict) else {}
    kind = _kinds(NaviError).get(str(given.get("code")), NaviError)
    field_name = given.get("field")
    error = kind.__new__(kind)
    NaviError.__init__(error, str(given.get("message"))[:10_000], field=field_name or None)
    return error


class EpochFence:
    """Which run of a session may work here: of two processes that both take it for theirs, the later one.

    A process of the service that was cut off or stopped may go on with a run that another one has closed. Each call of
    a run says when its process took the run, its epoch; once a later one has called, earlier ones are refused, and what
    they have begun is cancelled first.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[str, int] = OrderedDict()  # by session
        self._tasks: dict[str, dict[asyncio.Task[Any], int]] = {}

    async def enter(self, session_id: str, epoch: int) -> None:
        """The present task begins to work for a run. Raises LeaseLost for one of an earlier epoch."""
        latest = self._latest.get(session_id, 0)
        if epoch < latest:
            raise LeaseLost("This run was taken over by another process of the service.")
        self._latest[session_id] = epoch
        self._latest.move_to_end(session_id)
        while len(self._latest) > REMEMBERED:
            self._latest.popitem(last=False)
        tasks = self._tasks.setdefault(session_id, {})
        earlier = [task for task, begun in tasks.items() if begun < epoch]
        if (task := asyncio.current_task()) is not None:
            tasks[task] = epoch
            task.add_done_callback(lambda done: self._leave(session_id, done))
        for one in earlier:
            one.cancel()
        if earlier:
            await asyncio.wait(earlier, timeout=ENDED_WITHIN)

    def _leave(self, session_id: str, task: asyncio.Task[Any]) -> None:
        tasks = self._tasks.get(session_id, {})
        tasks.pop(task, None)
        if not tasks:
            self._tasks.pop(session_id, None)
