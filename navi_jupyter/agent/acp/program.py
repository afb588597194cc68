"""One agent program: its process, its connection, and its session of the Agent Client Protocol.

The process runs under the guard of ``agent.mcp.process_guard``, so it ends with this server in whatever way that ends.
What it reports and asks while no turn is in progress changes nothing but its offer. Every wait for it has a limit, but
for the answer to a prompt, which the run limits. Source: https://agentclientprotocol.com, version 1. Not responsible
for when it starts and ends (``programs``) or what it is asked (``backend``).

This module and those that import it load the SDK (0.3 s): ``programs`` imports it at the first turn, in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

from acp.client.router import build_client_router
from acp.connection import Connection
from acp.exceptions import RequestError
from acp.meta import AGENT_METHODS, PROTOCOL_VERSION

from ...errors import RunFailed
from ...installation import DISTRIBUTION
from ...lease_file import CallMark
from ...log_setup import get_logger
from ...model.agent_options import AgentChoice
from ...redaction import scrub
from ...text import one_line
from ..mcp.config import redact
from ..mcp.guarded_process import Trace, complete, end, end_session, record, start, wait_exit
from .agents import FoundAgent
from .client import AgentRequests
from .offer import Kind, SessionOffer
from .transport import UPDATE, LineTransport, TurnReports

log = get_logger("acp")

START_SECONDS = 60.0  # for the program to start and initialize: Node and its packages, on a busy machine
SESSION_SECONDS = 90.0  # to begin or load a session: it connects to its own MCP servers meanwhile
OPTION_SECONDS = 20.0
MAX_REQUESTS = 64  # requests of the program that are answered at a time; it is not read while there are more
_QUIET = 0.3  # seconds without a report, after which a loaded conversation has been repeated
_LOUD = 5.0  # seconds that are waited for that at most
_AUTH_REQUIRED, _METHOD_NOT_FOUND = -32000, -32601
_SESSION_METHODS = ("session/new", "session/load", "session/resume")


class AgentProgram:
    """See the module. ``start`` it once; ``close`` it in any case."""

    def __init__(
        self, agent: FoundAgent, root: Path, requests: Callable[[AgentProgram], AgentRequests], mark: CallMark | None
    ) -> None:
        """``requests`` makes what serves the requests of the program."""
        self.agent = agent
        self.offer = SessionOffer(agent.name, agent.title)
        self.session: str | None = None  # the id of its session
        self.capabilities: Mapping[str, Any] = {}
        self.turn: TurnReports | None = None  # set while it answers a prompt
        self.mark = mark
        self.ended = asyncio.Event()  # set once its process has ended
        self.requests = requests(self)
        self._root = root
        self._trace = Trace()
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._transport: LineTransport
        self._connection: Connection
        self._router = build_client_router(self.requests)  # type: ignore[arg-type]  # session/update never gets there
        self._killed = False
        self._open = 0  # its requests that wait for an answer
        self._answered = asyncio.Event()
        self._login_hint = ""  # how it says that one logs in
        self._reported = asyncio.Event()
        self._strangers = 0  # reports about sessions that are not its own

    # --- life

    async def start(self) -> None:
        """Start the process and agree on the protocol. Raises RunFailed."""
        try:
            process = await start(self.agent.command, env=self.agent.env, cwd=str(self._root), mark=self.mark)
        except OSError as error:
            raise self.failed(f"cannot be started: {error.strerror or error}", "agent_not_installed") from error
        self._process = process
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise OSError("no pipes")  # never: start asks for them
        self._transport = LineTransport(
            process.stdin, process.stdout, self._trace, on_update=self._report, answered=self._room
        )
        self._tasks = [
            asyncio.create_task(record(process.stderr, self._trace), name=f"navi-acp-stderr-{self.agent.name}"),
            asyncio.create_task(self._watch(process), name=f"navi-acp-exit-{self.agent.name}"),
        ]
        self._connection = Connection(self._serve, self._transport)
        files = self.requests.has_files
        # Gemini CLI 0.61 takes every error of a read for a failure, also that there is no such file, and could then
        # make none. It reads the disk itself, which is the same.
        reads = files and "gemini" not in (self.agent.name, Path(self.agent.command[0]).name)
        answer = await self._request(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "clientCapabilities": {"fs": {"readTextFile": reads, "writeTextFile": files}, "terminal": files},
                "clientInfo": {"name": "navi-jupyter", "title": "Navi", "version": installed(DISTRIBUTION)},
            },
            START_SECONDS,
        )
        version = answer.get("protocolVersion")
        if version != PROTOCOL_VERSION:
            raise self.failed(
                f"speaks version {one_line(str(version), 20)} of the Agent Client Protocol, and Navi version "
                f"{PROTOCOL_VERSION}. Install versions of both that fit.",
                "agent_protocol",
            )
        self.capabilities = _object(answer.get("agentCapabilities"))
        about = _object(answer.get("agentInfo"))
        # OpenCode reports a version and no title.
        named = f"{about.get('title') or self.agent.title} {about.get('version') or ''}"
        self.offer.title = one_line(named.strip(), 100)
        methods = answer.get("authMethods")
        texts = (
            [each.get("description") for each in methods if isinstance(each, dict)] if isinstance(methods, list) else []
        )
        self._login_hint = next((one_line(text, 300) for text in texts if isinstance(text, str) and text), "")

    async def close(self) -> None:
        """End the process and all that it has started, within bounds."""
        await complete(self._close())

    async def _close(self) -> None:
        process = self._process
        if process is None:
            return
        self._tasks[1].cancel()
        await end(process)
        await asyncio.wait(self._tasks[:1], timeout=0.2)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()
        self.ended.set()
        if self.mark is not None:
            self.mark.remove()

    def kill(self) -> None:
        """End the process and all that it has started: it does not end its turn. To be followed by :meth:`close`."""
        self._killed = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                # The guard kills; without it, what has left the program's process group would go on.
                self._process.terminate()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        code = await wait_exit(process, None)
        if code is not None and code < 0:
            await asyncio.to_thread(end_session, process.pid)
        self._trace.exit_code = code
        self.ended.set()

    @property
    def usable(self) -> bool:
        """Whether it runs and can be read."""
        return not (self._killed or self.ended.is_set() or self._transport.ended.is_set())

    # --- its session

    def can(self, *path: str) -> bool:
        """Whether it has announced a capability."""
        found: Any = self.capabilities
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found is not None and found is not False

    async def begin_session(self, servers: Sequence[Mapping[str, Any]]) -> None:
        """Begin a new session, with these MCP servers. Raises RunFailed."""
        self.session = None
        answer = await self._request("session/new", self._place(servers), SESSION_SECONDS)
        session = answer.get("sessionId")
        if not isinstance(session, str) or not 0 < len(session) <= 1000:
            raise self.failed("has begun a session without an id.", "agent_protocol")
        self.session = session
        self.offer.begin(answer)

    async def continue_session(
        self, session: str, servers: Sequence[Mapping[str, Any]]
    ) -> Literal["resumed", "loaded"] | None:
        """Continue an earlier session where the program can; None where it cannot, or refuses. Raises RunFailed.

        What it repeats of the conversation is dropped.
        """
        resumes = self.can("sessionCapabilities", "resume")
        if not resumes and not self.can("loadSession"):
            return None
        method = "session/resume" if resumes else "session/load"
        self.session = session
        try:
            answer = await self._request(method, {"sessionId": session, **self._place(servers)}, SESSION_SECONDS)
        except RunFailed as error:
            if error.run_code != "agent_failed":
                raise
            log.info("agent_session_not_continued", agent=self.agent.name, reason=error.message)
            self.session = None
            return None
        self.offer.begin(answer)
        if not resumes:
            await self._quiet()
        return "resumed" if resumes else "loaded"

    async def _quiet(self) -> None:
        """Wait until it has repeated the conversation: some do that after they have answered."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOUD):
                while self.usable:
                    self._reported.clear()
                    try:
                        await asyncio.wait_for(self._reported.wait(), _QUIET)
                    except TimeoutError:
                        return

    def _place(self, servers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {"cwd": str(self._root), "mcpServers": list(servers)}

    async def choose(self, choice: AgentChoice) -> list[str]:
        """Have it use these options where it offers them; sentences about those that it does not take."""
        problems = []
        wanted: tuple[tuple[Kind, str | None], ...] = (("model", choice.model), ("mode", choice.mode))
        for kind, option in wanted:
            if option is None or option == self.offer.current[kind]:
                continue
            if not self.offer.has(kind, option):
                problems.append(f"{self.offer.title} has no {kind} {one_line(option, 100)!r}.")
                continue
            try:
                await self._set(kind, option)
            except RunFailed as error:
                problems.append(error.message)
        return problems

    async def _set(self, kind: Kind, option: str) -> None:
        where = {"sessionId": self.session}
        if (config := self.offer.config_ids.get(kind)) is not None:
            params = {**where, "configId": config, "value": option}
            answer = await self._request("session/set_config_option", params, OPTION_SECONDS)
            self.offer.set_config(answer.get("configOptions"))
        elif kind == "mode":
            await self._request("session/set_mode", {**where, "modeId": option}, OPTION_SECONDS)
        else:
            await self._request("session/set_model", {**where, "modelId": option}, OPTION_SECONDS)
        self.offer.current[kind] = option

    async def prompt(self, blocks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """Have it answer, and report to ``turn`` meanwhile: its answer to ``session/prompt``. Raises RunFailed.

        Everything that it has reported before it answered has been taken on return.
        """
        return await self._request("session/prompt", {"sessionId": self.session, "prompt": list(blocks)}, None)

    async def cancel(self) -> None:
        """Ask it to end the turn; it answers the prompt then."""
        with suppress(ConnectionError, OSError):
            await self._connection.send_notification(AGENT_METHODS["session_cancel"], {"sessionId": self.session})

    # --- messages

    async def _request(self, method: str, params: Mapping[str, Any], seconds: float | None) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(seconds) as limit:
                answer = await self._connection.send_request(method, dict(params))
        except RequestError as error:
            raise self._refused(method, error) from error
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.failed(f"has not answered {method} within {seconds:.0f} s.", "agent_timeout") from None
        except (ConnectionError, OSError) as error:
            raise await self._gone() from error
        return _object(answer)

    async def _gone(self) -> RunFailed:
        """It has ended, or does not speak the protocol."""
        if (why := self._transport.broken) is not None:
            return RunFailed(f"{self.offer.title} was given up. {why}", run_code="agent_protocol")
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._tasks[1]), 2.0)  # for its exit code
        code = self._trace.exit_code
        ending = "has ended" if code in (None, 0) else f"has ended with code {code}"
        return self.failed(f"{ending}. {self._trace.tail}".strip(), "agent_ended")

    def failed(self, what: str, code: str) -> RunFailed:
        """The failure of a run: what the program does, without secrets."""
        text = scrub(redact(f"{self.offer.title} {what}", self.agent.secrets))
        return RunFailed(text[:2000], run_code=code)

    def _refused(self, method: str, error: RequestError) -> RunFailed:
        data = error.data if isinstance(error.data, dict) else {}
        details = next((str(data[key]) for key in ("details", "message", "reason") if data.get(key)), "")
        words = one_line(f"{error}. {details}" if details and details not in str(error) else str(error), 500)
        if error.code == _AUTH_REQUIRED:
            command = f" Log in with: `{self.agent.login}`" if self.agent.login else f" {self._login_hint}"
            return self.failed(f"needs a login. {words}{command}".rstrip(), "agent_login_needed")
        return self.failed(f"has answered {method} with an error: {words}", "agent_failed")

    async def _report(self, params: Any) -> None:
        self._reported.set()
        update = params.get("update") if isinstance(params, dict) else None
        if not isinstance(update, dict):
            return
        # The answer to session/new may come after the first report of that session.
        if self.session is not None and params.get("sessionId") != self.session:
            self._strangers += 1
            if self._strangers == 1:
                log.warning("agent_reports_on_other_session", agent=self.agent.name)
            return
        if self.offer.apply(update):
            if self.turn is not None:
                self.turn.offer_changed()
        elif self.turn is not None:
            await self.turn.take(update)

    async def _room(self) -> None:
        while self._open >= MAX_REQUESTS:
            self._answered.clear()
            await self._answered.wait()

    async def _serve(self, method: str, params: Any, is_notification: bool) -> Any:
        """A request of the program; notifications other than reports mean nothing here."""
        if is_notification:
            return None
        if method.startswith("_") or method == UPDATE:
            raise RequestError(_METHOD_NOT_FOUND, "Method not found", {"method": method[:100]})
        self._open += 1
        try:
            return await self._router(method, params, False)
        finally:
            self._open -= 1
            self._answered.set()


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
