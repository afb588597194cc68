"""A session as a file: Markdown for reading, a notebook, JSON for programs.

Reads the session through the orchestrator, so a file has what a follower sees. Not responsible for routes (``rest``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..model.sessions import OriginKind, Run, Session, Usage
from ..ports.agent import Message
from .http import JSON, Reply
from .wire.sessions import MessageInfo, ToolCallInfo

if TYPE_CHECKING:
    from ..orchestrator.orchestrator import Orchestrator

MARKDOWN = "text/markdown; charset=utf-8"
NOTEBOOK = "application/x-ipynb+json"


async def conversation(orchestrator: Orchestrator, session_id: str, *, owner: str) -> tuple[MessageInfo, ...]:
    """All messages, oldest first, with the usage of each finished run on its last assistant message.

    Raises SessionNotFound.
    """
    messages = await orchestrator.sessions.messages(session_id, owner=owner)
    spent = {run.id: run.usage for run in await _runs(orchestrator, session_id, owner=owner) if run.status.final}
    last = {m.run_id: m.id for m in messages if m.role == "assistant" and m.subagent_run_id is None}
    return tuple(_info(message, spent if last.get(message.run_id) == message.id else {}) for message in messages)


async def _runs(orchestrator: Orchestrator, session_id: str, *, owner: str) -> Sequence[Run]:
    found: list[Run] = []
    cursor: str | None = None
    while True:
        page, cursor = await orchestrator.sessions.runs(session_id, owner=owner, limit=1000, cursor=cursor)
        found.extend(page)
        if cursor is None:
            return found


def _info(message: Message, spent: dict[str, Usage]) -> MessageInfo:
    calls = tuple(
        ToolCallInfo(id=call.id, name=call.name, args=call.args, result=call.result) for call in message.tool_calls
    )
    return MessageInfo.model_validate(
        {
            "id": message.id,
            "role": message.role,
            "content": message.content,
            "run_id": message.run_id,
            "origin": message.origin,
            "at": message.at,
            "tool_calls": calls,
            "tool_call_id": message.tool_call_id,
            "reasoning": message.reasoning,
            "queued": message.queued,
            "partial": message.partial,
            "subagent_run_id": message.subagent_run_id,
            "attachments": message.attachments,
            "usage": spent.get(message.run_id or ""),
        }
    )


async def download(orchestrator: Orchestrator, session_id: str, kind: str, *, owner: str) -> Reply:
    """The file. ``kind`` is ``md``, ``ipynb`` or ``json``. Raises SessionNotFound."""
    view = await orchestrator.sessions.view(session_id, owner=owner)
    messages = await conversation(orchestrator, session_id, owner=owner)
    if kind == "md":
        content, content_type = as_markdown(view.session, messages), MARKDOWN
    elif kind == "ipynb":
        content, content_type = json.dumps(as_notebook(view.session, messages), indent=1) + "\n", NOTEBOOK
    else:
        content, content_type = json.dumps(_as_data(view.session, messages), indent=1) + "\n", JSON
    return Reply(content=content, content_type=content_type, filename=f"{_slug(view.session.title)}.{kind}")


def as_markdown(session: Session, messages: Sequence[MessageInfo]) -> str:
    """One heading per message."""
    parts = [f"# {session.title}", f"_Exported from Navi; session `{session.id}`, model `{session.model}`._"]
    for message in _shown_messages(messages):
        parts += [f"## {_author(message)} · {message.at}", _body(message)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_notebook(session: Session, messages: Sequence[MessageInfo]) -> dict[str, Any]:
    """A notebook (nbformat 4.5) of Markdown cells, one per message, the raw message in the cell's metadata."""
    cells = [_cell("title", f"# {session.title}", {})]
    for number, message in enumerate(_shown_messages(messages)):
        source = f"**{_author(message)}** · {message.at}\n\n{_body(message)}"
        cells.append(_cell(f"m{number}", source, {"navi": {"message_id": message.id, "run_id": message.run_id}}))
    return {
        "cells": cells,
        "metadata": {"navi": {"session_id": session.id, "version": __version__}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _as_data(session: Session, messages: Sequence[MessageInfo]) -> dict[str, Any]:
    return {
        "version": __version__,
        "session": session.wire(),
        "messages": [message.wire() for message in messages],
    }


def _cell(cell_id: str, source: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": cell_id, "metadata": metadata, "source": source}


def _shown_messages(messages: Sequence[MessageInfo]) -> list[MessageInfo]:
    """Without the tools' own messages: a call is shown, with its result, where the assistant made it."""
    return [message for message in messages if message.role != "tool"]


def _author(message: MessageInfo) -> str:
    if message.role == "assistant":
        return "Navi"
    return "Recall" if message.origin.kind is OriginKind.RECALL else "You"


def _body(message: MessageInfo) -> str:
    parts = [message.content]
    parts += [_tool_call(call) for call in message.tool_calls]
    if message.queued:
        parts.append("_(waiting)_")
    elif message.partial:
        parts.append("_(incomplete)_")
    return "\n\n".join(part for part in parts if part)


def _tool_call(call: ToolCallInfo) -> str:
    result = call.result or ""
    # A fence longer than any run of backticks inside, so that nothing in the content closes it.
    longest = max((len(ticks) for ticks in re.findall(r"`+", call.args + result)), default=0)
    fence = "`" * max(3, longest + 1)
    shown = f"{fence}\n{call.name}({call.args})\n{fence}"
    return shown if call.result is None else f"{shown}\n\n{fence}\n{result}\n{fence}"


def _slug(title: str) -> str:
    return re.sub(r"[^\w.-]+", "-", title, flags=re.ASCII).strip("-.")[:80] or "session"
