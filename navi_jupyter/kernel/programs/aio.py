"""A server and its sessions, as an async program uses them: from any event loop, several calls at once.

Not responsible for which server that is, nor for programs that do not await (``server``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import quote

from ..api import recall as new_recall
from ..attachments import upload_one
from ..client.client import Client, Query, Service, using
from ..errors import UsageError
from ..grammar.command_line import FORMATS
from ..grammar.times import kernel_client, local_zone
from ..reply import Reply
from ..session import Messages, find_session
from .run import Decision, FollowedRun, OnQuestion, join, send
from .session_events import SessionEvents, on_io


class AsyncSession:
    """A session. Each method is one request, or follows the session's log."""

    def __init__(self, service: Service, session_id: str) -> None:
        self._service = service
        self._client: Client = service.client
        self.id = session_id
        self._path = f"sessions/{quote(session_id, safe='')}"

    async def send(
        self, text: str, *, images: Sequence[Any] = (), files: Sequence[Any] = (), **prompt: Any
    ) -> FollowedRun:
        """Prompt; the run that answers, once the prompt is durable: iterate over it, or wait for it.

        ``images`` and ``files``: bytes, paths, figures. Further fields as in the command: ``mode``, ``model``,
        ``command_id`` (the same one again changes nothing). Raises UsageError, Refused, Unreachable.
        """
        given = kernel_client() | {name: value for name, value in prompt.items() if value is not None}
        for name, things in (("images", images), ("files", files)):
            if things:
                given[name] = [
                    await on_io(upload_one(self._client, thing, number)) for number, thing in enumerate(things, start=1)
                ]
        return await send(self._client, self.id, {"text": text, **given})

    async def ask(
        self, text: str, *, timeout: float | None = None, on_question: OnQuestion = None, **prompt: Any
    ) -> Reply:
        """Prompt, and wait for the reply: :meth:`send`, then ``wait`` of the run, which has the errors.

        To cancel it, or its timeout, leaves the run in progress.
        """
        async with await self.send(text, **prompt) as run:
            return await run.wait(timeout=timeout, on_question=on_question)

    def join(self, run_id: str, *, after: int | None = None) -> FollowedRun:
        """A run that is in progress or over, from the event ``after`` on (the ``cursor`` of an earlier FollowedRun)."""
        return join(self._client, self.id, run_id, after)

    def follow(self, after: int | None = None) -> SessionEvents:
        """Every event of the session as it happens, each once, across reconnects: ``async for``.

        ``after``: the ``seq`` to continue from (0: all that is kept). Without it, the snapshot of the session first.
        """
        return SessionEvents(self._client.follow(self.id, after), after)

    async def state(self) -> dict[str, Any]:
        """Title, model, profile, ``run`` in progress, ``queue``, ``approvals``, ``usage``, ``head_seq`` …"""
        return dict(await self._call("GET"))

    async def messages(self) -> Messages:
        """The conversation, oldest first."""
        return Messages((await self._call("GET", "/messages"))["messages"])

    async def export(self, format: str = "md") -> str:  # noqa: A002 - the contract's name
        """The conversation as ``md``, ``ipynb`` or ``json``."""
        if format not in FORMATS:
            raise UsageError(f"The format is one of {', '.join(FORMATS)}, not {format!r}.", field="format")
        return await on_io(self._client.text(f"{self._path}/export", query={"format": format}))

    async def answer(self, question_id: str, decision: Decision) -> None:
        """Answer an open question, one of ``(await state())["approvals"]``; see :meth:`FollowedRun.answer`."""
        run = join(self._client, self.id, "", None)
        await run.answer(question_id, decision)

    async def stop(self) -> bool:
        """Stop the run in progress; False where there is none."""
        run = (await self.state())["run"]
        if run is not None:
            await join(self._client, self.id, str(run["id"]), None).stop()
        return run is not None

    async def change(self, **fields: Any) -> dict[str, Any]:
        """Change title, model, profile …; the session as it is then."""
        return dict(await self._call("PATCH", "", fields))

    async def recall(self, message: str = "", **when: Any) -> dict[str, Any]:
        """Make a recall of this session, with the keywords of ``navi.recall``; the recall as the server has it."""

        def make() -> str:
            with using(self._service):
                return new_recall(message, session=self.id, **when).id

        # A time in words is a question to the server, which the grammar of the keywords asks in its thread.
        made = await asyncio.to_thread(make)
        return dict(await on_io(self._client.request("GET", f"recalls/{made}")))

    async def _call(self, method: str, rest: str = "", body: Mapping[str, Any] | None = None) -> Any:
        return await on_io(self._client.request(method, self._path + rest, body))


class AsyncServer:
    """A server: ``async with navi.connect(url, token) as server``."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def url(self) -> str:
        """Its base URL; ends with a slash."""
        return self._service.connection.url

    async def session(self, session: str) -> AsyncSession:
        """The session of that id, or whose title begins so. Raises NoSuchItem; UsageError where several do."""
        return AsyncSession(self._service, await asyncio.to_thread(find_session, self._service, session))

    async def new_session(self, **fields: Any) -> AsyncSession:
        """A new session: ``title``, ``model``, ``profile``, ``notebook_path``, ``allowed_tools`` … Raises Refused."""
        made = await self.request("POST", "sessions", session_fields(fields))
        return AsyncSession(self._service, str(made["id"]))

    async def sessions(self, *, query: str | None = None, most: int = 100) -> list[dict[str, Any]]:
        """The user's sessions, most recently used first; those with all words of ``query`` in them."""
        return await self._listed("sessions", {"query": query}, most)

    async def recalls(self, *, session: str | None = None, most: int = 1000) -> list[dict[str, Any]]:
        """The recalls of a session, by its id, or of all, also those that are over."""
        return await self._listed("recalls", {"session_id": session}, most)

    async def request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, query: Query | None = None
    ) -> Any:
        """Any other operation of the API (docs/reference.md): ``request("POST", f"recalls/{id}/fire", {})``."""
        return await on_io(self._service.client.request(method, path, body, query=query))

    async def close(self) -> None:
        """Nothing is kept open but what is iterated over, which ends with its loop; here for ``async with``."""

    async def _listed(self, what: str, query: Query, most: int) -> list[dict[str, Any]]:
        return await asyncio.to_thread(lambda: list(self._service.pages(what, what, most=most, query=query)))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def session_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body for a new session, with this machine's zone, by whose clock its times are."""
    given = {"timezone": local_zone(), **fields}
    return {name: value for name, value in given.items() if value is not None}
