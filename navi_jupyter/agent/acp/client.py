"""What an agent program asks of Navi (the client side of ACP): files below the server's root, commands, permissions.

The requests of the Agent Client Protocol, version 1: https://agentclientprotocol.com/protocol. Served in the run that
the program works on, under its permissions; between two runs, or for another session, they are refused. Not responsible
for ``session/update`` (``translation``) or for the connection (``program``).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import FileRefused, InvalidRequest, NaviError, NotFound, ToolUnavailable
from ...input.json_input import well_formed
from ...ports.agent import ToolContext, tool_context
from ...ports.files import NO_FILE, Files
from ..run.approvals import ApprovalGate
from ..tools.base import available
from ..tools.call_details import CallDescription, change_part, code_part, fingerprint_of, text_part
from .permissions import AgentIdentity, AgentPermissions, Grants
from .terminals import AgentTerminals, command_line

if TYPE_CHECKING:
    from acp.schema import (
        CreateTerminalResponse,
        EnvVariable,
        PermissionOption,
        ReadTextFileResponse,
        RequestPermissionResponse,
        TerminalOutputResponse,
        ToolCallUpdate,
        WaitForTerminalExitResponse,
    )

T = TypeVar("T")

MAX_READ = 10 << 20  # bytes of a file that a program reads through Navi
_RESOURCE_NOT_FOUND = -32002
_INVALID_PARAMS = -32602
_NO_RUN = "No run is in progress in this session of Navi."


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """What the requests of a program work with while it works on a run."""

    session_id: str  # the program's own, of the session that the run is in
    context: ToolContext
    permissions: AgentPermissions
    on_output: Callable[[str], None]

    @property
    def stopping(self) -> bool:
        """Whether nothing more is to be done for the program."""
        return self.context.stop.stopping


class AgentRequests:
    """The requests of one agent program. Its methods are those of ``acp.interfaces.Client`` of the same names."""

    def __init__(
        self,
        agent: AgentIdentity,
        root: str | None,
        environment: Mapping[str, str],
        *,
        own_tools: Callable[[], Sequence[str]],
    ) -> None:
        """``root``: the server's folder, None where it has none of its own; ``environment``: of the program;
        ``own_tools``: Navi's tools that the program has."""
        self._agent = agent
        self._root = None if root is None else os.path.abspath(root)  # noqa: PTH100 - links are kept
        self._own_tools = own_tools
        self._grants = Grants()
        self._terminals = AgentTerminals(environment, self._printed)
        self._run: _Run | None = None
        self._requests: set[asyncio.Task[Any]] = set()

    @property
    def has_files(self) -> bool:
        """Whether there are files and commands to offer, for the client capabilities of ``initialize``."""
        return self._root is not None

    @asynccontextmanager
    async def working_on(
        self,
        session_id: str,
        gate: ApprovalGate,
        context: ToolContext,
        call_in_log: Callable[[ToolCallUpdate], str | None],
        on_output: Callable[[str], None],
    ) -> AsyncIterator[None]:
        """While it is entered, requests are served in this run. Leaving it ends what they have begun, commands too.

        ``session_id``: the program's own; ``call_in_log``: the id that a call has in the log, opened there if need be;
        ``on_output``: called with the id of a terminal that has printed something.
        """
        permissions = AgentPermissions(self._agent, gate, context, self._grants, call_in_log, self._own_tools)
        self._run = _Run(session_id=session_id, context=context, permissions=permissions, on_output=on_output)
        stopper = asyncio.create_task(self._end_on_stop(context), name=f"navi-agent-stop-{context.run_id}")
        try:
            yield
        finally:
            self._run = None
            stopper.cancel()
            await self._end()
            self._grants.end_run()

    def terminal_text(self, terminal_id: str) -> str | None:
        """What a terminal has printed, also one that was released; None for one that is not known."""
        return self._terminals.text(terminal_id)

    def _printed(self, terminal_id: str) -> None:
        if self._run is not None:
            self._run.on_output(terminal_id)

    async def _end_on_stop(self, context: ToolContext) -> None:
        await context.stop.wait()
        await self._end()

    async def _end(self) -> None:
        for request in list(self._requests):
            request.cancel()
        await self._terminals.end_all()

    async def _served(self, session_id: str, serve: Callable[[_Run], Awaitable[T]]) -> T:
        """Serve a request in the present run; errors become those of the protocol, readable for the program."""
        from acp.exceptions import RequestError  # late: an extra, slow to import

        async def work(run: _Run) -> T:
            tool_context.set(run.context)
            return await serve(run)

        try:
            if self._run is None or self._run.stopping:
                raise ToolUnavailable(_NO_RUN)
            if session_id != self._run.session_id:
                raise InvalidRequest("This session is not the one that Navi's run is in.", field="sessionId")
            task = asyncio.ensure_future(work(self._run))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
                raise
            if task.cancelled():
                raise ToolUnavailable("The run was ended.")
            return task.result()
        except NotFound as error:
            # The words that programs look for: a file that is not there is no failure for them.
            raise RequestError(_RESOURCE_NOT_FOUND, f"Resource not found: {error.message}") from error
        except NaviError as error:
            raise RequestError(_INVALID_PARAMS, error.message, {"code": error.code}) from error
        except OSError as error:
            raise RequestError(_INVALID_PARAMS, error.strerror or type(error).__name__) from error

    # --- session/request_permission

    async def request_permission(
        self, session_id: str, tool_call: ToolCallUpdate, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        """Ask the user, with the program's own options. A run that is being stopped answers ``cancelled``."""
        from acp.schema import DeniedOutcome, RequestPermissionResponse  # late: as above

        run = self._run
        if run is None or run.stopping:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        try:
            return await self._served(session_id, lambda run: run.permissions.request(tool_call, options))
        except Exception:
            if run.context.stop.stopping:  # the stop has ended the question
                return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
            raise

    # --- fs/*

    async def read_text_file(
        self, session_id: str, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> ReadTextFileResponse:
        """The text of a file, as it is on the disk; ``line`` counts from one."""
        from acp.schema import ReadTextFileResponse  # late: as above

        async def read(run: _Run) -> str:
            files, inside = self._file(run, path)
            description = CallDescription(details=(text_part("Path", inside),))
            await run.permissions.check("read", {"path": inside}, description, covered=False)
            text = _text(await files.read_bytes(inside, limit=MAX_READ), inside)
            if line is None and limit is None:
                return text
            start = max((line or 1) - 1, 0)
            lines = text.splitlines(keepends=True)[start:]
            return "".join(lines if limit is None else lines[: max(limit, 0)])

        return ReadTextFileResponse(content=await self._served(session_id, read))

    async def write_text_file(self, session_id: str, path: str, content: str, **_: Any) -> None:
        """Create or replace a text file: as the user has allowed it when the program asked, or asked about here."""

        async def write(run: _Run) -> None:
            files, inside = self._file(run, path)
            text = well_formed(content)
            before, expected = await _present(files, inside)
            covered = self._grants.covers_change(path, before, text)
            details = [text_part("Path", inside)]
            if before is None:
                details.append(code_part("New file", text, inside.rpartition(".")[2] if "." in inside else None))
            else:
                details.append(await change_part("Change of the file", before, text))
            described = CallDescription(details=tuple(details), fingerprint=fingerprint_of(inside, expected))
            args = {"path": inside, "content": text}
            await run.permissions.check("edit", args, described, covered=covered)
            # What was shown is what is replaced: it may have changed while the user was asked.
            await files.write(inside, text, expected_sha256=expected)

        await self._served(session_id, write)

    def _file(self, run: _Run, path: str) -> tuple[Files, str]:
        """The files, and a path as they have it: from the root. Raises FileRefused for one outside of it."""
        files = available(run.context.jupyter.files, "files on its own disk")
        return files, self._inside(path)

    def _inside(self, path: str) -> str:
        if self._root is None or not path.startswith(os.sep):
            raise FileRefused(f"{path[:300]} is no absolute path below the server's folder.", field="path")
        # Both as it is named and as links lead: the root may be one. That nothing leads out is the files' own matter.
        roots = {self._root, os.path.realpath(self._root)}
        for name in (os.path.normpath(path), os.path.realpath(path)):
            for root in roots:
                if name == root or name.startswith(root.rstrip(os.sep) + os.sep):
                    return os.path.relpath(name, root).replace(os.sep, "/")
        raise FileRefused(f"{path[:300]} is not below the server's folder.", field="path")

    def _folder(self, cwd: str | None) -> tuple[str, str]:
        """The folder of a command, with all links resolved, and the same from the root. Raises FileRefused."""
        place = os.path.realpath(cwd or self._root or "")
        return place, self._inside(place)

    # --- terminal/*

    async def create_terminal(
        self,
        session_id: str,
        command: str,
        args: list[str] | None = None,
        env: list[EnvVariable] | None = None,
        cwd: str | None = None,
        output_byte_limit: int | None = None,
        **_: Any,
    ) -> CreateTerminalResponse:
        """Start a command in a folder below the server's root."""
        from acp.schema import CreateTerminalResponse  # late: as above

        async def create(run: _Run) -> str:
            if not command.strip() or "\0" in command + "".join(args or ()):
                raise InvalidRequest("The command is empty or has a NUL character.", field="command")
            program, line = command_line(well_formed(command), [well_formed(one) for one in args or ()])
            place, folder = self._folder(cwd)
            variables = {one.name: one.value for one in env or ()}
            details = [code_part("Command", line, "bash"), text_part("Folder", folder)]
            if variables:
                details.append(text_part("Environment", variables))
            given = {"command": line, "cwd": folder, **({"env": variables} if variables else {})}
            covered = not variables and self._grants.covers_command(line)
            await run.permissions.check("execute", given, CallDescription(details=tuple(details)), covered=covered)
            return await self._terminals.create(program, place, variables, output_byte_limit)

        return CreateTerminalResponse(terminal_id=await self._served(session_id, create))

    async def terminal_output(self, session_id: str, terminal_id: str, **_: Any) -> TerminalOutputResponse:
        """What a terminal shows now."""
        from acp.schema import TerminalExitStatus, TerminalOutputResponse  # late: as above

        async def read(_: _Run) -> TerminalOutputResponse:
            now = self._terminals.output(terminal_id)
            over = now.exit_code is not None or now.signal is not None
            status = TerminalExitStatus(exit_code=now.exit_code, signal=now.signal) if over else None
            return TerminalOutputResponse(output=now.text, truncated=now.truncated, exit_status=status)

        return await self._served(session_id, read)

    async def wait_for_terminal_exit(self, session_id: str, terminal_id: str, **_: Any) -> WaitForTerminalExitResponse:
        """Returns when the command has ended."""
        from acp.schema import WaitForTerminalExitResponse  # late: as above

        shown = await self._served(session_id, lambda _: self._terminals.wait(terminal_id))
        return WaitForTerminalExitResponse(exit_code=shown.exit_code, signal=shown.signal)

    async def kill_terminal(self, session_id: str, terminal_id: str, **_: Any) -> None:
        """End the command; its output stays readable."""
        await self._served(session_id, lambda _: self._terminals.kill(terminal_id))

    async def release_terminal(self, session_id: str, terminal_id: str, **_: Any) -> None:
        """End the command and forget its output."""
        await self._served(session_id, lambda _: self._terminals.release(terminal_id))


async def _present(files: Files, path: str) -> tuple[str | None, str]:
    """The text that a file has now and its SHA-256; None and NO_FILE where it is not there."""
    try:
        before = await files.read_bytes(path, limit=MAX_READ)
    except NotFound:
        return None, NO_FILE
    return _text(before, path), hashlib.sha256(before).hexdigest()


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FileRefused(f"{path} is not text in UTF-8.", field="path") from None
