"""Kernels, notebooks and files of a user's server as the ports that tools and the interface use, in the service.

What a call is about (user, session, run) travels with it; outputs and events of the run come back while it lasts. Not
responsible for the link itself (``links``), or for what is done at the other end (``server_end``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from ...model.recalls import Needs
from ...model.runs import Interrupt
from ...model.sessions import Origin, OriginKind, Session
from ...ports.agent import NO_JUPYTER, subagent, tool_call, tool_context
from ...ports.files import Files
from ...ports.jobs import NotebookJobs
from ...ports.jupyter import Execution, Kernels, KernelState, Notebooks
from ...ports.jupyter_access import JupyterAccess, PageRequests, ServerStarter, may_start_server
from ...ports.tracing import caller_server
from .call_events import CallEvents
from .links import OFF, LinkedServer, ServerLinks
from .port_codec import codec_of
from .tool_port import OwnTools


@dataclass(frozen=True, kw_only=True, slots=True)
class CallSubject:
    """What a call is about, as the other end is to know it."""

    session_id: str = ""
    run_id: str = ""
    epoch: int = 0  # when the server that executes the run took it, in ms since 1970; 0: no run's
    tool_call: str | None = None
    subagent: str | None = None
    asks: bool = False  # whether its user can be asked meanwhile

    @classmethod
    def now(cls) -> CallSubject:
        """Of the present task."""
        context = tool_context.get(None)
        if context is None:
            return cls()
        epoch = int(context.began.timestamp() * 1000) if context.run_id else 0
        return cls(
            session_id=context.session.id,
            run_id=context.run_id,
            epoch=epoch,
            tool_call=tool_call.get(),
            subagent=subagent.get(),
            asks=context.ask is not None,
        )


class RemotePort:
    """A port of the user's server: each method of ``port`` is a call there."""

    def __init__(self, name: str, port: type, call: LinkedServer) -> None:
        self._name, self._port, self._call = name, port, call

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        codec = codec_of(self._port, method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            params, on_output, callbacks = codec.encode_params(args, kwargs)
            events = CallEvents(on_output, self._answer)
            try:
                answer = await self._call(
                    f"{self._name}.{method}",
                    {"args": params, "subject": asdict(CallSubject.now())},
                    events.take,
                    callbacks=callbacks,
                    start=may_start_server.get(),
                )
            finally:
                events.close()
            return codec.decode_result(answer)

        return call

    async def _answer(self, question: str, interrupt: Interrupt | None) -> None:
        await cast("OwnTools", RemotePort("tools", OwnTools, self._call)).answer(question, interrupt)


class UserKernels:
    """Implements ``ports.jupyter.Kernels``: the kernel that a cell lends to this process, else the user's server's."""

    def __init__(self, lent: Kernels, is_lent: Callable[[str], bool], call: LinkedServer) -> None:
        """``is_lent``: whether a cell that waits lends its kernel to a session here."""
        self._lent, self._is_lent, self._call = lent, is_lent, call
        self._remote = cast("Kernels", RemotePort("kernels", Kernels, call))

    def _of(self, session: Session) -> Kernels:
        return self._lent if self._is_lent(session.id) else self._remote

    async def state(self, session: Session) -> KernelState:
        kernels = self._of(session)
        if kernels is self._remote and not self._call.linked:
            return KernelState(status="none", note=OFF)
        return await kernels.state(session)

    async def execute(self, session: Session, code: str, **options: Any) -> Execution:
        return await self._of(session).execute(session, code, **options)

    async def evaluate(self, session: Session, code: str, *, timeout: float = 10.0, lent: bool = True) -> Any:
        return await self._of(session).evaluate(session, code, timeout=timeout, lent=lent)

    async def interrupt(self, session: Session) -> bool:
        if not self._is_lent(session.id) and not self._call.linked:
            return False
        return await self._of(session).interrupt(session)

    async def restart(self, session: Session) -> KernelState:
        return await self._of(session).restart(session)

    async def variables(self, session: Session, *, pattern: str = "*", limit: int = 200) -> Mapping[str, Any]:
        return await self._of(session).variables(session, pattern=pattern, limit=limit)

    async def inspect(self, session: Session, expression: str) -> Mapping[str, Any]:
        return await self._of(session).inspect(session, expression)


def access_of(kernels: Kernels, call: LinkedServer) -> JupyterAccess:
    """What the tools of a user's runs get."""
    return JupyterAccess(
        kernels=kernels,
        notebooks=cast("Notebooks", RemotePort("notebooks", Notebooks, call)),
        files=cast("Files", RemotePort("files", Files, call)),
        jobs=cast("NotebookJobs", RemotePort("jobs", NotebookJobs, call)),
        pages=cast("PageRequests", RemotePort("pages", PageRequests, call)),
    )


class ServiceWorkspace:
    """What the service reaches for its users: their servers, where these are linked or may be started; else only
    kernels that cells lend to this process."""

    def __init__(
        self,
        links: ServerLinks,
        lent: JupyterAccess,
        is_lent: Callable[[str], bool],
        *,
        starter: ServerStarter | None,
        needs_of: Callable[[str], Awaitable[Needs]],
    ) -> None:
        """``needs_of``: what a recall's runs need, by its id."""
        self._links, self._lent, self._is_lent = links, lent, is_lent
        self._starter, self._needs_of = starter, needs_of

    def of(self, owner: str, server: str | None = None, /) -> JupyterAccess:
        """For a request: nothing is started."""
        found = LinkedServer(self._links, owner, caller_server.get() if server is None else server)
        return self._access(found) if found.linked else self._lent

    async def for_run(self, session: Session, origin: Origin) -> JupyterAccess:
        """For a run that begins."""
        recall = origin.recall_id if origin.kind is OriginKind.RECALL else None
        needs = "auto" if recall is None else await self._needs_of(recall)
        if needs == "none":
            return NO_JUPYTER
        may_start = self._starter is not None and self._starter.may_start(origin)
        server = LinkedServer(self._links, session.owner, session.server, self._starter, may_start=may_start)
        if needs == "kernel":
            return replace(self._access(server), prepare=server.start)
        return self._access(server) if may_start or server.linked else self._lent

    def _access(self, server: LinkedServer) -> JupyterAccess:
        lent = self._lent.kernels
        if lent is None:
            return self._lent
        return access_of(UserKernels(lent, self._is_lent, server), server)
