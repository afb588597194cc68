"""What users' servers call in the service, and the watching of ``when`` recalls in those servers.

A link belongs to one user, and a call over it is that user's: whatever it names, another user's session or recall is
not found. Not responsible for how calls travel (``calls``), or for the other end (``recall_watching``).
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from ...errors import InvalidRequest, NaviError, SessionNotFound
from ...log_setup import get_logger
from ...model.recalls import When
from ...orchestrator.session_directory import SessionLinks
from ...ports.agent import Attachments
from ...ports.recalls import Occurrences
from ...scheduling.mutations import require_owner
from ...store.database import Database
from .links import Key, ServerLinks
from .port_codec import codec_of

log = get_logger("bench")

NOTIFIED_WITHIN = 5.0  # seconds; a server that is not notified reads by itself after some time
ASKED_WITHIN = 3.0  # seconds
LONGEST_PATH = 4096  # characters

_REPORTS = ("record", "expire", "report_failure", "narrow")


class UserCalls:
    """See the module. :meth:`serve` is a ``links.ServeUser``."""

    def __init__(
        self,
        links: ServerLinks,
        store: Database,
        occurrences: Occurrences,
        attachments: Attachments,
        paths: SessionLinks,
    ) -> None:
        self._links = links
        self._store = store
        self._occurrences = occurrences
        self._attachments = attachments
        self._paths = paths

    async def serve(self, owner: str, method: str, params: Mapping[str, Any]) -> Any:
        """Raises InvalidRequest for a method that there is not, RecallNotFound, SessionNotFound."""
        port, _, name = method.partition(".")
        if method == "session":
            session = await self._store.session(str(params.get("id")))
            return None if session is None or session.owner != owner else session.wire()
        if method == "kernel_elsewhere":
            return await self._elsewhere(owner, str(params.get("kernel_id")), str(params.get("server")))
        if method == "attachments.add":
            return await self._add_attachment(owner, params)
        if method == "occurrences.open_whens":
            return codec_of(Occurrences, name).encode_result(await self._occurrences.open_whens(owner))
        if method == "paths.follow":
            return await self._paths.follow(_path(params, "source"), _path(params, "target"), owner=owner)
        if method == "paths.forget":
            return await self._paths.forget(_path(params, "path"), owner=owner)
        if port == "occurrences" and name in _REPORTS:
            return await self._report(owner, name, params)
        raise InvalidRequest(f"There is no method {method[:50]!r}: the service has another version of Navi.")

    async def _report(self, owner: str, name: str, params: Mapping[str, Any]) -> Any:
        codec, function = codec_of(Occurrences, name), getattr(self._occurrences, name)
        args = _complete(function, codec.decode_params(params.get("args") or {}))
        recall_id = args["recall_id"] if "recall_id" in args else args["happened"].recall_id
        state = require_owner(await self._store.recall_state(recall_id), recall_id, owner)
        if name == "narrow":
            if state.recall.schedule == args["after"]:
                return True  # the answer to the first call was lost
            _check_narrower(args["before"], args["after"])
        return codec.encode_result(await function(**args))

    async def _add_attachment(self, owner: str, params: Mapping[str, Any]) -> Any:
        codec = codec_of(Attachments, "add")
        args = codec.decode_params(params.get("args") or {})
        args = _complete(self._attachments.add, {**args, "owner": owner})
        session_id = args.get("session_id")
        session = None if session_id is None else await self._store.session(session_id)
        if session is None or session.owner != owner:
            raise SessionNotFound(f"There is no session {str(session_id)[:100]}.")
        return codec.encode_result(await self._attachments.add(**args))

    async def _elsewhere(self, owner: str, kernel_id: str, server: str) -> bool:
        """Whether another server of the user has the kernel, or may have it."""
        others = [key for key in self._links.keys_of(owner) if key[1] != server]

        async def has(key: Key) -> bool:
            try:
                async with asyncio.timeout(ASKED_WITHIN):
                    asked = {"kernel_id": kernel_id}
                    return bool(await self._links.call(owner, "has_kernel", asked, server=key[1]))
            except (NaviError, TimeoutError):
                return True

        return any(await asyncio.gather(*map(has, others))) or self._links.may_come_back(owner, besides=server)


def _complete(function: Callable[..., Awaitable[Any]], args: Mapping[str, Any]) -> dict[str, Any]:
    """Raises InvalidRequest where a parameter is missing."""
    try:
        inspect.signature(function).bind(**args)
    except TypeError as error:
        raise InvalidRequest(f"The call does not fit this version of Navi: {error}") from error
    return dict(args)


def _path(params: Mapping[str, Any], name: str) -> str:
    """Raises InvalidRequest where it is none."""
    path = params.get(name)
    if not isinstance(path, str) or not path.strip("/") or len(path) > LONGEST_PATH:
        raise InvalidRequest(f"{name}: a path, relative to the folder of the server", field=name)
    return path.strip("/")


def _check_narrower(before: When, after: When) -> None:
    """Raises InvalidRequest unless only the cell and its kernel are named more closely."""
    if after.model_copy(update={"cell": before.cell, "kernel_id": before.kernel_id}) != before:
        raise InvalidRequest("Only the cell that is waited for, and its kernel, can be narrowed.")


class RemoteWatchers:
    """The watchers in users' servers, as the service has them look and listen. Implements ``services.RecallWatcher``.

    Each process of the service notifies over its own links, so that a server hears of a change from the process that
    has made it.
    """

    def __init__(self, links: ServerLinks) -> None:
        self._links = links
        self._notifying: dict[Key, asyncio.Task[None]] = {}
        self._again: set[Key] = set()  # of these, those whose owner's recalls have changed since

    async def start(self) -> None:
        """Nothing is to be started: links come by themselves."""

    async def stop(self) -> None:
        """Notify no more."""
        tasks = list(self._notifying.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def changed(self, owners: Collection[str] = ()) -> None:
        """``when`` recalls of these owners were made, have changed or ended. Does not block."""
        for owner in owners:
            for key in self._links.keys_of(owner):
                self._again.add(key)
                if key not in self._notifying:
                    self._notifying[key] = asyncio.create_task(self._notify(key), name="navi-whens-changed")

    async def _notify(self, key: Key) -> None:
        try:
            while key in self._again:
                self._again.discard(key)
                with suppress(NaviError, TimeoutError):  # it reads again when it has a link again
                    async with asyncio.timeout(NOTIFIED_WITHIN):
                        await self._links.call(key[0], "whens_changed", {}, server=key[1])
        finally:
            self._notifying.pop(key, None)

    async def listening(self, recall_id: str, *, owner: str = "", within: float = 2.0) -> bool:
        """Wait until the user's servers watch that recall. False when it took too long; True where none is there."""

        async def listens(key: Key) -> bool:
            try:
                async with asyncio.timeout(within):
                    return bool(await self._links.call(owner, "listening", {"recall_id": recall_id}, server=key[1]))
            except (NaviError, TimeoutError):
                return False

        return all(await asyncio.gather(*map(listens, self._links.keys_of(owner))))
