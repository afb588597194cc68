"""A session as a file: Markdown and HTML for reading, a notebook, JSON for programs.

Reads the session through the orchestrator, so a file has what a follower sees. Not responsible for routes (``rest``).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from nbformat.v4 import new_markdown_cell, new_notebook

from ... import __version__
from ...clock import zone_label
from ...kernel.display.plans import ACTIVITY as PLAN
from ...kernel.display.plans import PlanEntry, plan_entries, plan_markdown
from ...kernel.display.question_text import settled_words
from ...kernel.display.tool_lines import status_of, tool_line
from ...markdown_text import closed, defused, literal, with_plain_dollars
from ...model.runs import CallDetail, Interrupt, InterruptStatus
from ...model.sessions import AnswerNotice, OriginKind, Run, Session, Usage
from ...ports.agent import Message
from ...text import code_block, one_line
from ...timetext.format import say_time
from ...visible_text import marked, marked_line
from ..http import JSON, HttpReply
from ..wire.sessions import MessageInfo, ToolCallInfo
from .html_page import HTML, PageBlock, PageMessage, html_page

if TYPE_CHECKING:
    from ...orchestrator.orchestrator import Orchestrator

Asked = Mapping[str, Interrupt]
"""What the user was asked, by the call that it is about."""
MARKDOWN = "text/markdown; charset=utf-8"
NOTEBOOK = "application/x-ipynb+json"
KINDS = ("md", "ipynb", "html", "json")
FILE_TYPES = (MARKDOWN, NOTEBOOK, HTML, JSON)
_LONGEST_TITLE = 500  # characters
Notices = Mapping[str, AnswerNotice]  # by run, oldest first
Plans = Mapping[str, Sequence[PlanEntry]]  # by run
NO_PLANS: Plans = {}
NO_NOTICES: Notices = {}


async def conversation(orchestrator: Orchestrator, session_id: str, *, owner: str) -> tuple[MessageInfo, ...]:
    """All messages, oldest first, with the usage of each finished run on its last assistant message.

    Made in a thread. Raises SessionNotFound.
    """
    messages = await orchestrator.sessions.messages(session_id, owner=owner)
    runs = await _runs(orchestrator, session_id, owner=owner)
    return await asyncio.to_thread(_infos, messages, runs)


def _infos(messages: Sequence[Message], runs: Sequence[Run]) -> tuple[MessageInfo, ...]:
    spent = {run.id: run.usage for run in runs if run.status.final}
    last = {m.run_id: m.id for m in messages if m.role == "assistant" and m.subagent_run_id is None}
    return tuple(_info(message, spent if last.get(message.run_id) == message.id else {}) for message in messages)


async def _plans(orchestrator: Orchestrator, session_id: str) -> Plans:
    """What agents wanted to do in runs that are over, as it was in the end."""
    found: dict[str, Sequence[PlanEntry]] = {}
    before: str | None = None
    while True:
        part = await orchestrator.sessions.history.page(session_id, before=before, limit=1000)
        for message in part.messages:
            if message.role != "activity" or message.run_id is None or f'"{PLAN}"' not in message.content:
                continue
            activity = json.loads(message.content)
            if activity["activityType"] == PLAN and (entries := plan_entries(activity["content"])):
                found[message.run_id] = entries
        if (before := part.earlier) is None:
            return found


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
    """The file. ``kind`` is one of ``KINDS``. Raises SessionNotFound."""
    view = await orchestrator.sessions.view(session_id, owner=owner)
    messages = await conversation(orchestrator, session_id, owner=owner)
    runs = await _runs(orchestrator, session_id, owner=owner)
    questions = await orchestrator.sessions.questions(session_id, owner=owner)
    notices = {run.id: run.notice for run in reversed(runs) if run.notice is not None}
    plans = await _plans(orchestrator, session_id)

    def written() -> tuple[str, str]:
        if kind == "md":
            return as_markdown(view.session, messages, notices, questions, plans), MARKDOWN
        if kind == "ipynb":
            notebook = as_notebook(view.session, messages, notices, questions, plans)
            return json.dumps(notebook, indent=1) + "\n", NOTEBOOK
        if kind == "html":
            return as_page(view.session, messages, notices, questions, plans), HTML
        return json.dumps(_as_data(view.session, messages, notices, questions), indent=1) + "\n", JSON

    # In a thread, as all that grows with the conversation: kernels share the event loop.
    content, content_type = await asyncio.to_thread(written)
    return HttpReply(content=content, content_type=content_type, filename=f"{_slug(view.session.title)}.{kind}")


def as_markdown(
    session: Session,
    messages: Sequence[MessageInfo],
    notices: Notices = NO_NOTICES,
    questions: Sequence[Interrupt] = (),
    plans: Plans = NO_PLANS,
) -> str:
    """One heading per message; below a call what the user was asked about it, and what they answered."""
    asked = _by_call(questions)
    model = session.model.replace("`", "'")
    parts = [_heading(session), f"_Exported from Navi; model `{model}`, times in {_zone(session)}._"]
    for message, notice, plan in _shown_messages(messages, notices, plans):
        parts += [f"## {_author(message)} · {_time(session, message.at)}", _body(session, message, notice, asked, plan)]
    return "\n\n".join(part for part in parts if part) + "\n"


def as_notebook(
    session: Session,
    messages: Sequence[MessageInfo],
    notices: Notices = NO_NOTICES,
    questions: Sequence[Interrupt] = (),
    plans: Plans = NO_PLANS,
) -> dict[str, Any]:
    """A notebook (nbformat 4.5) of Markdown cells, one per message, the raw message in the cell's metadata."""
    asked = _by_call(questions)
    cells = [new_markdown_cell(with_plain_dollars(_heading(session)), id="title")]  # type: ignore[no-untyped-call]
    for number, (message, notice, plan) in enumerate(_shown_messages(messages, notices, plans)):
        about = f"**{_author(message)}** · {_time(session, message.at)}"
        source = f"{about}\n\n{_body(session, message, notice, asked, plan)}"
        metadata = {"navi": {"message_id": message.id, "run_id": message.run_id}}
        source = with_plain_dollars(source)
        cells.append(new_markdown_cell(source, id=f"m{number}", metadata=metadata))  # type: ignore[no-untyped-call]
    # Not ``session_id``, by which a notebook is known: this one is about the session, and not the session's notebook.
    metadata = {"navi": {"exported_session": session.id, "version": __version__}}
    return cast("dict[str, Any]", new_notebook(cells=cells, metadata=metadata))  # type: ignore[no-untyped-call]


def as_page(
    session: Session,
    messages: Sequence[MessageInfo],
    notices: Notices = NO_NOTICES,
    questions: Sequence[Interrupt] = (),
    plans: Plans = NO_PLANS,
) -> str:
    """An HTML page that needs nothing besides itself."""
    asked = _by_call(questions)
    about = f"Exported from Navi; model {session.model}, times in {_zone(session)}."
    shown = [
        PageMessage(
            id=message.id,
            role=message.role,
            author=_author(message),
            at=_time(session, message.at),
            blocks=tuple(_page_blocks(session, message, notice, asked, plan)),
        )
        for message, notice, plan in _shown_messages(messages, notices, plans)
    ]
    return html_page(one_line(session.title, _LONGEST_TITLE), about, shown)


def _page_blocks(
    session: Session, message: MessageInfo, notice: AnswerNotice | None, asked: Asked, plan: Sequence[PlanEntry]
) -> Iterator[PageBlock]:
    if plan:
        yield PageBlock(text=plan_markdown(plan))
    if message.content:
        yield PageBlock(text=message.content)
    for attachment in message.attachments:
        yield PageBlock(text=f"Attached: {attachment.name}", note=True)
    for call in message.tool_calls:
        yield PageBlock(summary=_call_line(message, call), text=marked(f"{call.name}({call.args})"))
        question = asked.get(call.id)
        if question is not None:
            yield PageBlock(text=f"{_answer_words(session, question)}; this was shown:", note=True)
            for detail in question.details:
                yield PageBlock(summary=marked_line(detail.label), text=marked(detail.text))
        if call.result is not None:
            yield PageBlock(summary="Result", text=call.result)
    if message.queued or message.partial:
        yield PageBlock(text="waiting" if message.queued else "incomplete", note=True)
    if notice is not None:
        yield PageBlock(text=notice.message, note=True)


def _as_data(
    session: Session, messages: Sequence[MessageInfo], notices: Notices, questions: Sequence[Interrupt]
) -> dict[str, Any]:
    return {
        "version": __version__,
        "session": session.wire(),
        "messages": [message.wire() for message in messages],
        "questions": [question.wire() for question in questions],
        "notices": [{"run_id": run_id, **notice.wire()} for run_id, notice in notices.items()],
    }


def _shown_messages(
    messages: Sequence[MessageInfo], notices: Notices, plans: Plans
) -> Iterator[tuple[MessageInfo, AnswerNotice | None, Sequence[PlanEntry]]]:
    """Each with the notice that its run ended with, the last one of the run alone; the first one of the agent with the
    plan of its run.

    Without the tools' own messages: a call is shown, with its result, where the assistant made it.
    """
    shown = [message for message in messages if message.role != "tool"]
    last = {message.run_id: message.id for message in shown if message.subagent_run_id is None}
    first = {message.run_id: message.id for message in reversed(shown) if message.role == "assistant"}
    for message in shown:
        run = message.run_id or ""
        notice = notices.get(run) if last.get(message.run_id) == message.id else None
        yield message, notice, plans.get(run, ()) if first.get(message.run_id) == message.id else ()


def _author(message: MessageInfo) -> str:
    if message.role == "assistant":
        return "Navi"
    return "Recall" if message.origin.kind is OriginKind.RECALL else "You"


def _heading(session: Session) -> str:
    return f"# {literal(one_line(session.title, _LONGEST_TITLE))}"


def _zone(session: Session) -> str:
    return zone_label(session.timezone, None)


def _time(session: Session, at: str) -> str:
    """A time as everywhere, with its year: a file is read later. On the clock of the session's zone."""
    return _words(session, datetime.fromisoformat(at))


def _words(session: Session, at: datetime) -> str:
    return say_time(at, session.timezone, reader=session.timezone)


def _call_line(message: MessageInfo, call: ToolCallInfo) -> str:
    """A call in words, as the chat has it."""
    is_over = message.partial or call.result is not None
    return tool_line(call.name, call.args, call.result, status_of(call.result, is_over=is_over))


def _body(
    session: Session, message: MessageInfo, notice: AnswerNotice | None, asked: Asked, plan: Sequence[PlanEntry]
) -> str:
    # HTML in it would be live where the file is converted (nbconvert); code that a stop left open swallows the rest.
    parts = [plan_markdown(plan) if plan else "", defused(closed(message.content))]
    parts += [_tool_call(session, message, call, asked.get(call.id)) for call in message.tool_calls]
    if message.queued:
        parts.append("_(waiting)_")
    elif message.partial:
        parts.append("_(incomplete)_")
    if notice is not None:
        parts.append(f"_({literal(notice.message)})_")
    return "\n\n".join(part for part in parts if part)


def _tool_call(session: Session, message: MessageInfo, call: ToolCallInfo, question: Interrupt | None) -> str:
    parts = [f"**{literal(_call_line(message, call))}**", code_block(f"{call.name}({call.args})")]
    if question is not None:
        words = f"{_answer_words(session, question)}; this was shown:"
        parts += [f"_({literal(words)})_", *map(_detail, question.details)]
    if call.result is not None:
        parts.append(code_block(call.result))
    return "\n\n".join(parts)


def _by_call(questions: Sequence[Interrupt]) -> Asked:
    return {question.tool_call_id: question for question in questions if question.tool_call_id is not None}


def _answer_words(session: Session, question: Interrupt) -> str:
    """How it was settled, by whom, and when."""
    if question.status is InterruptStatus.OPEN:
        return "Not answered yet"
    payload = question.payload
    return settled_words(
        kind=question.kind.value,
        status=question.status.value,
        approved=payload.get("approved") is not False if isinstance(payload, dict) else True,
        by=question.answered_by,
        when="" if question.answered_at is None else _words(session, question.answered_at),
        payload=payload,
        options=[option.wire() for option in question.options],
    )


def _detail(detail: CallDetail) -> str:
    # As it was shown: with marks in the place of what cannot be seen.
    omitted = f" ({detail.omitted:,} more characters were not kept)" if detail.omitted else ""
    return f"{literal(marked_line(detail.label))}{omitted}:\n\n{code_block(marked(detail.text))}"


def _slug(title: str) -> str:
    return re.sub(r"[^\w.-]+", "-", title, flags=re.ASCII).strip("-.")[:80] or "session"
