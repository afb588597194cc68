"""The protocol by the official SDK: its requests lead to the caller's offer, its answers are made of what that gives.

Every version that the SDK speaks is served, with its checks of headers, ids and messages. Imports the SDK: only
``endpoint`` imports this module, in a thread, at the first request.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, Self, cast

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

from ... import __version__
from ...errors import InvalidRequest, NaviError, NotFound
from ...log_setup import get_logger
from ...ports.run_tools import CallResult, OfferedTool
from ...text import one_line
from .offers import FOR_AGENTS, CallingProgram, Elicit, Elicited, McpOffer

log = get_logger("mcp")

NAME = "navi"
"""Of the server, as agent programs put it in the names of its tools."""
FOR_USERS = (
    "A Jupyter server with Navi, an agent that works in its notebooks. Tools act in a session of Navi: name a "
    "`notebook` by its path to work with that notebook, its kernel and the user's variables in it; without it you have "
    "a session of your own. The user sees each call in Navi, and is asked there, or here, about those that change or "
    "run something. `ask_session` gives a prompt to Navi's own agent."
)
_HEARTBEAT = 10.0  # seconds between two reports of progress at most, so that a program keeps waiting
_RESOURCE_NOT_FOUND = -32002  # of the protocol
_MOST_COMPLETIONS = 100  # of the protocol
_MOST_NAME = 60  # characters of what a program calls itself


def new_manager(
    *, for_agents: bool, most_sessions: int, idle: float, max_message_bytes: int
) -> StreamableHTTPSessionManager:
    """The sessions of one caller."""
    return StreamableHTTPSessionManager(
        _agent_server() if for_agents else _user_server(),
        session_idle_timeout=idle,
        max_sessions=most_sessions,
        # Well-formed JSON may be some bytes longer than what came, which has been measured.
        max_request_body_size=2 * max_message_bytes,
    )


def _agent_server() -> Server[Any]:
    return _untraced(
        Server(
            NAME,
            version=__version__,
            title="Navi",
            instructions=FOR_AGENTS,
            on_list_tools=_list_tools,
            on_call_tool=_call_tool,
        )
    )


def _user_server() -> Server[Any]:
    return _untraced(
        Server(
            NAME,
            version=__version__,
            title="Navi",
            instructions=FOR_USERS,
            on_list_tools=_list_tools,
            on_call_tool=_call_tool,
            on_list_resources=_list_resources,
            on_list_resource_templates=_list_templates,
            on_read_resource=_read_resource,
            on_list_prompts=_list_prompts,
            on_get_prompt=_get_prompt,
            on_completion=_complete,
        )
    )


def _untraced(server: Server[Any]) -> Server[Any]:
    """The server without the SDK's own spans: they have messages of errors, which may be content. A call's run has one
    of Navi's."""
    server.middleware.clear()
    return server


def _offer(ctx: Any) -> McpOffer:
    return cast("McpOffer", ctx.request.scope["navi_offer"])


async def _list_tools(ctx: Any, params: Any) -> types.ListToolsResult:  # noqa: ARG001
    offered = await _answering(_offer(ctx).tools())
    return types.ListToolsResult(tools=[_tool(one) for one in offered])


def _tool(offered: OfferedTool) -> types.Tool:
    return types.Tool(
        name=offered.name,
        description=offered.description,
        input_schema=dict(offered.parameters),
        annotations=types.ToolAnnotations(
            read_only_hint=offered.reads_only,
            destructive_hint=None if offered.reads_only else True,
            open_world_hint=offered.open_world,
        ),
    )


async def _call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    async with _ProgressReports(ctx) as reports:
        try:
            result = await _offer(ctx).call(
                params.name, params.arguments or {}, progress=reports.put, program=_program_of(ctx)
            )
        except LookupError as error:  # the protocol makes a difference between no tool and one that fails
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        except NaviError as error:
            result = CallResult(text=error.message, failed=True)
        except Exception as error:
            log.exception("mcp_call_failed", tool=params.name)
            result = CallResult(text=f"Something went wrong inside Navi ({type(error).__name__}).", failed=True)
    content: list[Any] = [types.TextContent(text=result.text)]
    for image in result.images:
        data = await asyncio.to_thread(base64.b64encode, image.content)
        content.append(types.ImageContent(data=data.decode(), mime_type=image.media_type))
    return types.CallToolResult(content=content, is_error=result.failed)


async def _list_resources(ctx: Any, params: Any) -> types.ListResourcesResult:  # noqa: ARG001
    listed = [
        types.Resource(
            uri=one.uri,
            name=one.name,
            title=one.title or None,
            description=one.description or None,
            mime_type=one.media_type,
        )
        for one in await _answering(_offer(ctx).resources())
    ]
    return types.ListResourcesResult(resources=listed)


async def _list_templates(ctx: Any, params: Any) -> types.ListResourceTemplatesResult:  # noqa: ARG001
    listed = [
        types.ResourceTemplate(
            uri_template=one.uri, name=one.name, description=one.description, mime_type=one.media_type
        )
        for one in _offer(ctx).templates()
    ]
    return types.ListResourceTemplatesResult(resource_templates=listed)


async def _read_resource(ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)
    text, media_type = await _answering(_offer(ctx).read(uri), missing=_RESOURCE_NOT_FOUND)
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, text=text, mime_type=media_type)])


async def _list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:  # noqa: ARG001
    listed = [
        types.Prompt(
            name=one.name,
            title=one.title or None,
            description=one.description or None,
            arguments=[types.PromptArgument(name=name, required=False) for name in one.arguments] or None,
        )
        for one in await _answering(_offer(ctx).prompts())
    ]
    return types.ListPromptsResult(prompts=listed)


async def _get_prompt(ctx: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
    text = await _answering(_offer(ctx).prompt(params.name, params.arguments or {}))
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=types.TextContent(text=text))])


async def _complete(ctx: Any, params: types.CompleteRequestParams) -> types.CompleteResult:
    values: list[str] = []
    if isinstance(params.ref, types.ResourceTemplateReference):
        values = list(await _answering(_offer(ctx).completions(params.ref.uri, params.argument.value)))
    shown = values[:_MOST_COMPLETIONS]
    completion = types.Completion(values=shown, total=len(values), has_more=len(shown) < len(values))
    return types.CompleteResult(completion=completion)


async def _answering(answer: Awaitable[Any], *, missing: int = types.INVALID_PARAMS) -> Any:
    """The answer; what Navi raises as the protocol's error. ``missing``: the code for what there is not."""
    try:
        return await answer
    except NotFound as error:
        raise MCPError(missing, error.message) from None
    except InvalidRequest as error:
        raise MCPError(types.INVALID_PARAMS, error.message) from None
    except NaviError as error:
        raise MCPError(types.INTERNAL_ERROR, error.message, {"code": error.code}) from None


def _program_of(ctx: Any) -> CallingProgram:
    session = ctx.session
    params = session.client_params
    info = None if params is None else params.client_info
    capabilities = session.client_capabilities
    asks = capabilities is not None and capabilities.elicitation is not None and session.can_send_request
    return CallingProgram(
        name="" if info is None else one_line(info.name, _MOST_NAME),
        title="" if info is None else one_line(info.title or "", _MOST_NAME),
        elicit=_elicit_of(ctx) if asks else None,
    )


def _elicit_of(ctx: Any) -> Elicit:
    async def elicit(message: str, schema: Mapping[str, Any]) -> Elicited:
        try:
            answer = await ctx.session.elicit_form(message, dict(schema), related_request_id=ctx.request_id)
        except Exception as error:  # an answer of a foreign program: no kind of it is to end the call
            raise RuntimeError(f"the program did not ask: {error}") from error
        content = answer.content if answer.action == "accept" else None
        return Elicited(content=content, cancelled=answer.action == "cancel")

    return elicit


class _ProgressReports:
    """What a call does at the moment, sent to the program that asked for it: the latest, a few times a second at most.

    Without news it is sent again now and then, since programs give up a call that is silent for long.
    """

    _PERIOD = 0.2  # seconds between two reports at least

    def __init__(self, ctx: Any) -> None:
        self._session = ctx.session
        self._news = asyncio.Event()
        self._message = "The call is being made."
        self._task: asyncio.Task[None] | None = None

    def put(self, message: str) -> None:
        """Never blocks."""
        self._message = message
        self._news.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._send(), name="navi-mcp-progress")
        return self

    async def __aexit__(self, *_exception: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _send(self) -> None:
        count = 0
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _HEARTBEAT)
            self._news.clear()
            count += 1
            try:
                await self._session.report_progress(count, None, self._message)
            except Exception as error:  # noqa: BLE001 - the program has gone; the call goes on
                log.debug("mcp_progress_not_sent", error=repr(error))
                return
            await asyncio.sleep(self._PERIOD)
