"""A session as a file: Markdown for reading, a notebook, JSON for programs.

Reads the session through the orchestrator, so a file has what a follower sees. Not responsible for routes (``rest``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from nbformat.v4 import new_markdown_cell, new_notebook

from .. import __version__
from ..markdown_text import closed, defused, literal, with_plain_dollars
from ..model.sessions import AnswerNotice, OriginKind, Run, Session, Usage
from ..ports.agent import Message
from ..text import code_block, one_line
from .http import JSON, HttpReply
from .wire.sessions import MessageInfo, ToolCallInfo

if TYPE_CHECKING:
    from ..orchestrator.orchestrator import Orchestrator

MARKDOWN = "text/markdown; charset=utf-8"
NOTEBOOK = "application/x-ipynb+json"
_LONGEST_TITLE = 500  # characters
Notices = Mapping[str, AnswerNotice]  # by run, oldest first
NO_NOTICES: Notices = {}


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
    fields = {name: getattr(message, name) for name in MessageInfo.model_fields if name != "usage"}
    return MessageInfo.model_validate(fields | {"usage": spent.get(message.run_id or "")}, from_attributes=True)


async def download(orchestrator: Orchestrator, session_id: str, kind: str, *, owner: str) -> HttpReply:
    """The file. ``kind`` is ``md``, ``ipynb`` or ``json``. Raises SessionNotFound."""
    view = await orchestrator.sessions.view(session_id, owner=owner)
    messages = await conversation(orchestrator, session_id, owner=owner)
    runs = await _runs(orchestrator, session_id, owner=owner)
    notices = {run.id: run.notice for run in reversed(runs) if run.notice is not None}
    if kind == "md":
        content, content_type = as_markdown(view.session, messages, notices), MARKDOWN
    elif kind == "ipynb":
        content, content_type = json.dumps(as_notebook(view.session, messages, notices), indent=1) + "\n", NOTEBOOK
    else:
        content, content_type = json.dumps(_as_data(view.session, messages, notices), indent=1) + "\n", JSON
    return HttpReply(content=content, content_type=content_type, filename=f"{_slug(view.session.title)}.{kind}")


def as_markdown(session: Session, messages: Sequence[MessageInfo], notices: Notices = NO_NOTICES) -> str:
    """One heading per message."""
    model = session.model.replace("`", "'")
    parts = [_heading(session), f"_Exported from Navi; session `{session.id}`, model `{model}`._"]
    for message, notice in _shown_messages(messages, notices):
        parts += [f"## {_author(message)} · {message.at}", _body(message, notice)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_notebook(session: Session, messages: Sequence[MessageInfo], notices: Notices = NO_NOTICES) -> dict[str, Any]:
    """A notebook (nbformat 4.5) of Markdown cells, one per message, the raw message in the cell's metadata."""
    cells = [new_markdown_cell(with_plain_dollars(_heading(session)), id="title")]  # type: ignore[no-untyped-call]
    for number, (message, notice) in enumerate(_shown_messages(messages, notices)):
        source = f"**{_author(message)}** · {message.at}\n\n{_body(message, notice)}"
        metadata = {"navi": {"message_id": message.id, "run_id": message.run_id}}
        source = with_plain_dollars(source)
        cells.append(new_markdown_cell(source, id=f"m{number}", metadata=metadata))  # type: ignore[no-untyped-call]
    # Not ``session_id``, by which a notebook is known: this one is about the session, and not the session's notebook.
    metadata = {"navi": {"exported_session": session.id, "version": __version__}}
    return cast("dict[str, Any]", new_notebook(cells=cells, metadata=metadata))  # type: ignore[no-untyped-call]


def _as_data(session: Session, messages: Sequence[MessageInfo], notices: Notices) -> dict[str, Any]:
    return {
        "version": __version__,
        "session": session.wire(),
        "messages": [message.wire() for message in messages],
        "notices": [{"run_id": run_id, **notice.wire()} for run_id, notice in notices.items()],
    }


def _shown_messages(
    messages: Sequence[MessageInfo], notices: Notices
) -> Iterator[tuple[MessageInfo, AnswerNotice | None]]:
    """Each with the notice that its run ended with, the last one of the run alone.

    Without the tools' own messages: a call is shown, with its result, where the assistant made it.
    """
    shown = [message for message in messages if message.role != "tool"]
    last = {message.run_id: message.id for message in shown if message.subagent_run_id is None}
    for message in shown:
        yield message, notices.get(message.run_id or "") if last.get(message.run_id) == message.id else None


def _author(message: MessageInfo) -> str:
    if message.role == "assistant":
        return "Navi"
    return "Recall" if message.origin.kind is OriginKind.RECALL else "You"


def _heading(session: Session) -> str:
    return f"# {literal(one_line(session.title, _LONGEST_TITLE))}"


def _body(message: MessageInfo, notice: AnswerNotice | None) -> str:
    # HTML in it would be live where the file is converted (nbconvert); code that a stop left open swallows the rest.
    parts = [defused(closed(message.content))]
    parts += [_tool_call(call) for call in message.tool_calls]
    if message.queued:
        parts.append("_(waiting)_")
    elif message.partial:
        parts.append("_(incomplete)_")
    if notice is not None:
        parts.append(f"_({literal(notice.message)})_")
    return "\n\n".join(part for part in parts if part)


def _tool_call(call: ToolCallInfo) -> str:
    shown = code_block(f"{call.name}({call.args})")
    return shown if call.result is None else f"{shown}\n\n{code_block(call.result)}"


def _slug(title: str) -> str:
    return re.sub(r"[^\w.-]+", "-", title, flags=re.ASCII).strip("-.")[:80] or "session"
