"""An open connection to an MCP server, by the official SDK's client; and results of its tools as outputs of tools.

Imports the SDK, which takes more than half a second: ``connection`` imports this module in a thread, at the first use
of a server. Opened and closed by the one task that owns it (anyio's cancel scopes require that); called from any task
of the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import mcp_types as types
from mcp.client._transport import TransportStreams
from mcp.client.client import Client
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from pydantic import FileUrl, ValidationError

from ...input.json_input import load_json
from ...input.json_schema import BoundMet, check, measure
from ...lease_file import LeaseFile
from ...log_setup import get_logger
from ...model.runs import InterruptStatus
from ...output_text import OutputImage
from ...text import IMAGE_TYPES, plain_number, truncate_middle
from ..tools.base import ToolOutput
from . import guarded_process, http, stdio
from .answers import SESSION_GONE, Answers
from .calls import LeftOutTool, PendingCall, PendingCalls, RemoteTool, SessionLost
from .config import ServerConfig, environment

# "session": the server does not know ours any more.
Signal = Literal["lost", "changed", "session"]
MAX_PAGES = 50
RESUBSCRIBE_DELAY = 5.0  # seconds until a lost subscription is renewed
MAX_TEXT = 60_000  # characters of a result that a model gets
MAX_IMAGES = 8
MAX_IMAGE_BYTES = 5 * 1024 * 1024
_NOTE = "ask the tool for less"
_log = get_logger("mcp")


class McpClient:
    def __init__(
        self,
        config: ServerConfig,
        signal: Callable[[Signal], None],
        root: Path | None,
        lease_file: LeaseFile | None = None,
    ) -> None:
        """``signal`` is called when the connection is lost and when the server's tools have changed."""
        self._config = config
        self._signal = signal
        self._root = root
        self._calls = PendingCalls()
        self._trace = guarded_process.Trace()
        self._answers = Answers(config.name, self._version)
        self._unchecked: dict[str, LeftOutTool] = {}  # by tool: what of its results was not checked
        self._mark = None if lease_file is None else lease_file.call_mark()
        self._client = Client(
            self._answers.mending(self._transport()),
            mode=config.protocol,
            client_info=types.Implementation(name="navi-jupyter", version=_version()),
            elicitation_callback=self._elicit,
            list_roots_callback=self._roots if root is not None else None,
            message_handler=self._on_message,
            cache=None,  # tools are listed again only when the server says that they changed
        )

    def _transport(self) -> AbstractAsyncContextManager[TransportStreams]:
        if self._config.url:
            return http.connect(self._config, self._trace, self._answers.session_gone)
        if sys.platform == "win32":
            # The job object that the SDK makes ends with this process and takes the server along, as the guard does.
            program, *arguments = self._config.command
            env = environment(self._config.env)
            return stdio_client(StdioServerParameters(command=program, args=arguments, env=env, cwd=self._config.cwd))
        return stdio.connect(self._config, self._trace, lambda: self._signal("lost"), self._mark)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Connected, with a protocol agreed on, until left."""
        async with self._client:
            listener = asyncio.create_task(self._subscribe(), name=f"navi-mcp-listen-{self._config.name}")
            try:
                yield
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    def _version(self) -> str | None:
        try:
            return self._client.protocol_version
        except RuntimeError:  # not agreed on yet
            return None

    @property
    def protocol(self) -> str:
        return self._client.protocol_version

    def last_output(self) -> str:
        """The server's exit code and its last lines, or its HTTP answer, for a message about its failure."""
        code, tail = self._trace.exit_code, self._trace.tail
        ended = "" if code is None else f"It ended with code {code}. "
        return self._trace.answered or (f"{ended}It wrote: {tail}" if tail else ended.strip())

    @property
    def notes(self) -> tuple[LeftOutTool, ...]:
        """The tools that were left out of the last listing, and those whose results were not checked."""
        return (*self._answers.left_out, *self._unchecked.values())

    async def tools(self) -> tuple[RemoteTool, ...]:
        """What the server offers now. Raises SessionLost."""
        found: list[types.Tool] = []
        cursor: str | None = None
        try:
            for _ in range(MAX_PAGES):
                page = await self._client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None:
                    break
        except MCPError as error:
            if error.data is SESSION_GONE:
                raise SessionLost from None
            if error.code != types.METHOD_NOT_FOUND:  # which a server without tools answers
                raise
        return tuple(_remote(tool) for tool in found)

    async def drain(self, seconds: float) -> None:
        """Wait until no call is running any more, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._calls.running:  # noqa: ASYNC110  a call has no event for its end
                    await asyncio.sleep(0.02)

    async def call(self, tool: str, arguments: Mapping[str, Any], pending: PendingCall) -> ToolOutput:
        """Call a tool. Errors become a failed output; a cancellation is passed on to the server. Raises SessionLost."""
        try:
            marked = nullcontext() if self._mark is None else self._mark.call()
            async with self._calls.track(pending), pending.running():
                with marked:
                    result = await self._client.call_tool(tool, dict(arguments), progress_callback=pending.progress)
        except MCPError as error:
            return self._failed(error)
        except TimeoutError:
            seconds = plain_number(self._config.call_timeout)
            return ToolOutput(content=f"It did not answer within {seconds} s; the call was cancelled.", failed=True)
        except (ValidationError, RuntimeError, ValueError, OSError, ExceptionGroup) as error:
            # The SDK raises any of these for an answer that is not as the protocol says.
            _log.warning("mcp_bad_answer", server=self._config.name, tool=tool, error=type(error).__name__)
            why = truncate_middle(f"The server's answer cannot be used: {error}", 1000)
            return ToolOutput(content=why, failed=True)
        return await self._checked(tool, result)

    async def _checked(self, tool: str, result: types.CallToolResult) -> ToolOutput:
        """The output; failed when its structured content does not fit the schema that the server gives for it."""
        schema = self._answers.output_schemas.get(tool)
        if schema is None or result.is_error or result.structured_content is None:
            return output_of(result)  # also where it gives only text, which many servers do
        found = await asyncio.to_thread(check, schema, result.structured_content)
        if found.unchecked is not None and tool not in self._unchecked:
            _log.warning("mcp_result_not_checked", server=self._config.name, tool=tool, reason=found.unchecked)
            why = f"its results are not checked by its outputSchema: {found.unchecked}"
            self._unchecked[tool] = LeftOutTool(name=tool, why=truncate_middle(why, 500))
        if found.error is not None:
            why = f"The server's answer does not fit the schema that it gives for this tool: {found.error}"
            return ToolOutput(content=truncate_middle(why, 1000), failed=True)
        return output_of(result)

    def _failed(self, error: MCPError) -> ToolOutput:
        if error.data is SESSION_GONE:
            self._signal("session")
            raise SessionLost from error
        message = error.message
        # The SDK's own text: a server's error has another code or message.
        if (error.code, message) == (types.CONNECTION_CLOSED, "Connection closed"):
            self._signal("lost")
            message = "The MCP server went away during the call; it is restarted. "
            message += "Whether it did what was asked is not known."
        return ToolOutput(content=truncate_middle(message, 4000), failed=True)

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self._signal("changed")
        elif isinstance(message, Exception):
            _log.debug("mcp_invalid_message", server=self._config.name, error=type(message).__name__)

    async def _subscribe(self) -> None:
        """With the newer protocol a server notifies only clients that have subscribed of changed tools."""
        capability = self._client.server_capabilities.tools
        if capability is None or not capability.list_changed:
            return
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as changes:
                    async for _ in changes:
                        self._signal("changed")
            except (ListenNotSupportedError, MCPError):
                return
            except SubscriptionLost:
                pass
            await asyncio.sleep(RESUBSCRIBE_DELAY)
            self._signal("changed")  # changes of the meantime were missed

    async def _roots(self, context: ClientRequestContext) -> types.ListRootsResult:  # noqa: ARG002  the SDK's signature
        roots = [] if self._root is None else [types.Root(uri=FileUrl(self._root.as_uri()), name="Jupyter")]
        return types.ListRootsResult(roots=roots)

    async def _elicit(
        self,
        context: ClientRequestContext,  # noqa: ARG002  the SDK's signature
        params: types.ElicitRequestParams,
    ) -> types.ElicitResult | types.ErrorData:
        pending = self._calls.asking()
        if pending is None:
            _log.warning("mcp_question_cancelled", server=self._config.name, reason="cannot determine which call asks")
            return types.ElicitResult(action="cancel")
        message = f"{self._config.name}: {params.message[:4000]}"
        schema: dict[str, Any] | None = None
        if isinstance(params, types.ElicitRequestURLParams):
            message += f"\n\nOpen {params.url[:2000]} in your browser, then confirm here."
        else:
            schema = dict(params.requested_schema)
            try:
                measure(schema)
            except BoundMet as met:
                _log.warning("mcp_question_cancelled", server=self._config.name, reason=str(met))
                return types.ElicitResult(action="cancel")
        answer = await pending.ask(message, schema)
        if answer is None or answer.status is InterruptStatus.EXPIRED:
            return types.ElicitResult(action="cancel")
        if answer.status is not InterruptStatus.RESOLVED:
            return types.ElicitResult(action="decline")
        if schema is None:
            return types.ElicitResult(action="accept")
        # The answer as the form that the server wants; a lone value fills a form with a single field.
        payload, fields = answer.payload, list(schema.get("properties") or {})
        if not isinstance(payload, Mapping):
            payload = {fields[0]: payload} if len(fields) == 1 and payload is not None else {}
        try:
            return types.ElicitResult(action="accept", content=dict(payload))
        except ValidationError:
            return types.ElicitResult(action="cancel")


def _version() -> str:
    try:
        return metadata.version("navi-jupyter")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0"


def _remote(tool: types.Tool) -> RemoteTool:
    hints = tool.annotations
    return RemoteTool(
        name=tool.name,
        description=truncate_middle(tool.description or (hints and hints.title) or tool.name, 4000),
        parameters=tool.input_schema,
        reads_only=bool(hints and hints.read_only_hint),
    )


def output_of(result: types.CallToolResult) -> ToolOutput:
    """A tool's result. Text and structured content are the content; images go beside; other content is only named."""
    texts: list[str] = []
    images: list[OutputImage] = []
    for block in result.content:
        _add_block(block, texts, images)
    text = "\n\n".join(texts)
    content: Any = truncate_middle(text, MAX_TEXT, note=_NOTE)
    if result.structured_content is not None and not _repeats(text, result.structured_content):
        content = _with_structure(text, result.structured_content)
    if content == "" and not images:
        content = "It failed without a message." if result.is_error else "Done; it returned nothing."
    return ToolOutput(content=content, images=tuple(images), failed=result.is_error)


def _with_structure(text: str, structure: Any) -> Any:
    dumped = json.dumps(structure, ensure_ascii=False, default=str)
    if len(dumped) > MAX_TEXT:
        return truncate_middle(f"{text}\n\n{dumped}" if text else dumped, MAX_TEXT, note=_NOTE)
    return {"text": truncate_middle(text, MAX_TEXT, note=_NOTE), "structured": structure} if text else structure


def _repeats(text: str, structure: Any) -> bool:
    """Whether a text is the structured content again, which servers send for older clients."""
    if isinstance(structure, dict) and list(structure) == ["result"]:
        if structure["result"] == text:
            return True
        structure = structure["result"]
    if len(text) > MAX_TEXT or text[:1] not in ("{", "["):
        return isinstance(structure, str | int | float | bool) and str(structure) == text
    try:
        parsed = load_json(text)
    except ValueError:
        return False
    return bool(parsed == structure or parsed == {"result": structure})


def _add_block(block: types.ContentBlock, texts: list[str], images: list[OutputImage]) -> None:
    match block:
        case types.TextContent(text=text):
            texts.append(text)
        case types.ImageContent(data=data, mime_type=kind):
            _add_image(data, kind, "image", texts, images)
        case types.AudioContent(data=data, mime_type=kind):
            texts.append(f"[audio, {kind}, {len(data) * 3 // 4} bytes: not shown]")
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            texts.append(f"[resource {resource.uri}, {resource.mime_type or 'unknown type'}]\n{resource.text}")
        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            kind = resource.mime_type or "unknown type"
            _add_image(resource.blob, kind, f"resource {resource.uri}", texts, images)
        case types.ResourceLink(uri=uri, name=name):
            texts.append(f"[resource {name}: {uri}]")


def _add_image(data: str, kind: str, name: str, texts: list[str], images: list[OutputImage]) -> None:
    size = len(data) * 3 // 4  # four characters of base64 are three bytes
    if kind not in IMAGE_TYPES or size > MAX_IMAGE_BYTES or len(images) >= MAX_IMAGES:
        texts.append(f"[{name}, {kind}, {size} bytes: not shown]")
        return
    try:
        images.append(OutputImage(media_type=kind, content=base64.b64decode(data, validate=True)))
    except (binascii.Error, ValueError):
        texts.append(f"[{name}, {kind}: not valid base64]")
