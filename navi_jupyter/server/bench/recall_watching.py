"""``when`` recalls are watched in the user's server, where kernels and files are; the recalls are in the service.

The watcher is that of any server (``triggers``); what it reads and reports are calls to the service. While no link is
there it goes on with the recalls that it knows, and what has happened is recorded once there is a link again: each
record has a key, so that one whose answer was lost may be sent again. Not responsible for whose recalls the service
hands out and takes reports for (``user_calls``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from ...errors import KernelUnavailable, NaviError, NotReady
from ...jupyter.kernels.jupyter_services import JupyterServices
from ...jupyter.kernels.observer import KernelObserver
from ...log_setup import get_logger
from ...model.recalls import Recall, When
from ...model.sessions import Session
from ...ports.agent import Attachments
from ...ports.recalls import Happened, Occurrences, RecallState
from ...triggers.watcher import Watcher
from ..builders import Workspace
from .calls import Calls
from .port_codec import codec_of, known_fields

log = get_logger("bench")

KNOWN_FOR = 15.0  # seconds until open recalls are read again; the service says at once when they change
SESSION_KNOWN_FOR = 5.0  # seconds; the service does not say when a session has another kernel or notebook
ANSWER_WITHIN = 10.0  # seconds for what is read; what is recorded waits for as long as there is no link
MOST_SESSIONS = 1000


class AnyProcess:
    """Calls to the service, to whichever of its processes there is a link."""

    def __init__(self, links: Mapping[str, Calls]) -> None:
        """``links``: by process; the owner calls :meth:`note_change` when one has a socket or has ended."""
        self._links = links
        self._changed = asyncio.Event()  # replaced at each change

    def note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _attached(self) -> Calls | None:
        return next((calls for calls in self._links.values() if calls.channel.attached), None)

    @property
    def linked(self) -> bool:
        return self._attached() is not None

    async def call(self, method: str, params: Mapping[str, Any]) -> Any:
        """Waits for a link; made again where the link ends before the answer. To be used for what may be repeated.

        Raises the NaviError that it raised in the service.
        """
        while True:
            if (calls := self._attached()) is None:
                await self._changed.wait()
                continue
            try:
                return await calls.call(method, params)
            except KernelUnavailable:
                if not calls.channel.ended:
                    raise


class RemoteOccurrences:
    """Implements ``ports.recalls.Occurrences``: those of the user of this server."""

    def __init__(self, service: AnyProcess) -> None:
        self._service = service
        self._state = TypeAdapter(RecallState)
        self._open: Sequence[RecallState] | None = None  # as they were read last
        self._read_at = float("-inf")  # on the loop's clock
        self._epoch = 0  # grows with each change
        self._read_epoch = -1
        self._sessions: dict[str, tuple[int, float, Session | None]] = {}

    def changed(self) -> None:
        """What was read is read again when it is asked for next."""
        self._epoch += 1

    async def open_whens(self, owner: str | None = None) -> Sequence[RecallState]:  # noqa: ARG002 - of this one
        """From memory for a while: a watcher that waits for a kernel asks each second."""
        if self._open is not None and self._is_fresh(self._read_epoch, self._read_at, KNOWN_FOR):
            return self._open
        while True:
            epoch, at = self._epoch, asyncio.get_running_loop().time()
            found = await self._read("occurrences.open_whens", {"args": {}})
            if epoch == self._epoch:  # else a change may have passed it on the way
                break
        self._open = [state for each in found or () if (state := self._state_of(each)) is not None]
        self._read_epoch, self._read_at = epoch, at
        return self._open

    def _state_of(self, given: Any) -> RecallState | None:
        """None: of a later version of the service, which has kinds of events that this one does not know."""
        if isinstance(given, dict):
            given = {**given, "recall": known_fields(Recall, given.get("recall"))}
        try:
            return self._state.validate_python(given)
        except ValidationError as error:
            log.warning("recall_not_known", error=error.errors()[0]["msg"])
            return None

    async def session(self, session_id: str) -> Session | None:
        """A session of this user. Raises NotReady."""
        epoch, at, known = self._sessions.get(session_id, (-1, 0.0, None))
        if self._is_fresh(epoch, at, SESSION_KNOWN_FOR):
            return known
        epoch, at = self._epoch, asyncio.get_running_loop().time()
        found = await self._read("session", {"id": session_id})
        session = None if found is None else Session.model_validate(known_fields(Session, found))
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.clear()
        self._sessions[session_id] = (epoch, at, session)
        return session

    def _is_fresh(self, epoch: int, at: float, seconds: float) -> bool:
        """Whether what was read need not be read again. Without a link it cannot be."""
        if epoch >= 0 and not self._service.linked:
            return True
        return epoch == self._epoch and asyncio.get_running_loop().time() - at < seconds

    async def _read(self, method: str, params: Mapping[str, Any]) -> Any:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await self._service.call(method, params)
        except TimeoutError:
            raise NotReady("The service does not answer.") from None

    async def record(self, happened: Happened) -> bool:
        return bool(await self._report("record", happened))

    async def report_failure(self, recall_id: str, reason: str) -> None:
        await self._report("report_failure", recall_id, reason)

    async def expire(self, happened: Happened, reason: str) -> bool:
        return bool(await self._report("expire", happened, reason))

    async def narrow(self, recall_id: str, before: When, after: When) -> bool:
        return bool(await self._report("narrow", recall_id, before, after))

    async def follow(
        self, source: str, target: str, session_id: str | None = None, *, owner: str | None = None
    ) -> None:
        """Nothing here: the service follows renames by itself."""

    async def _report(self, method: str, *args: Any) -> Any:
        codec = codec_of(Occurrences, method)
        params, *_ = codec.encode_params(args, {})
        answer = codec.decode_result(await self._service.call(f"occurrences.{method}", {"args": params}))
        self.changed()  # by this very call
        return answer


class RemoteAttachments:
    """The part of ``ports.agent.Attachments`` that the watcher uses."""

    def __init__(self, service: AnyProcess) -> None:
        self._service = service

    async def add(self, content: bytes, **fields: Any) -> Any:
        """As that of the port; the owner is always the user of this server."""
        codec = codec_of(Attachments, "add")
        params, *_ = codec.encode_params((content,), fields)
        return codec.decode_result(await self._service.call("attachments.add", {"args": params}))


class RecallWatching:
    """See the module. Between :meth:`start` and :meth:`stop`."""

    def __init__(self, jupyter: JupyterServices, workspace: Workspace, links: Mapping[str, Calls], server: str) -> None:
        """``links``: by process of the service; ``server``: the name of this server among those of its user."""
        self.service = AnyProcess(links)
        self._jupyter = jupyter
        self._server = server
        self._occurrences = RemoteOccurrences(self.service)
        self.watcher = Watcher(
            self._occurrences,
            session=self._occurrences.session,
            observer=KernelObserver(jupyter, workspace.iopub),
            kernels=workspace.access.kernels,
            attachments=cast("Attachments", RemoteAttachments(self.service)),
            root=Path(jupyter.root_dir),
            elsewhere=self._elsewhere,
        )

    async def start(self) -> None:
        await self.watcher.start()

    async def stop(self) -> None:
        """While the links are there: what has happened is still recorded, for a moment."""
        await self.watcher.stop()

    @property
    def methods(self) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """What the service calls: each is awaited with the parameters."""
        return {"whens_changed": self._on_changed, "listening": self._on_listening, "has_kernel": self._has_kernel}

    def linked(self) -> None:
        """There is a link to one more process: what it has changed meanwhile was not notified."""
        self.service.note_change()
        self.moved()

    def moved(self) -> None:
        """Recalls or sessions have changed: they are read again."""
        self._occurrences.changed()
        self.watcher.changed()

    async def _on_changed(self, _: Mapping[str, Any]) -> None:
        self.moved()

    async def _on_listening(self, params: Mapping[str, Any]) -> bool:
        self._occurrences.changed()
        return await self.watcher.listening(str(params.get("recall_id")))

    async def _has_kernel(self, params: Mapping[str, Any]) -> bool:
        return str(params.get("kernel_id")) in self._jupyter.kernel_manager

    async def _elsewhere(self, kernel_id: str, _: bool) -> bool:
        """Whether another server of the user may have the kernel. Where the service cannot be asked, it may."""
        if not self.service.linked:
            return True
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                asked = {"kernel_id": kernel_id, "server": self._server}
                return bool(await self.service.call("kernel_elsewhere", asked))
        except (NaviError, TimeoutError) as error:
            log.info("kernels_not_known", error=str(error)[:200])
            return True
