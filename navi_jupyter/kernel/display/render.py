"""A run and a transcript as Markdown, plain text and HTML for a cell. Pure.

Everything that goes into HTML is escaped here, also the outputs of code that ran for the agent: HTML among them is not
rendered. What the agent wrote goes through ``markdown.to_html``, which makes it safe.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from ...handles import short_handle, with_short_handles
from ...markdown_text import closed, defused, literal
from ...output_text import error_line, outputs_text
from ...text import IMAGE_TYPES, code_block, one_line, plural, printable, truncate, truncate_start
from ...visible_text import marked_line
from .code_colours import CODE_CLASS, STYLE
from .markdown import NOT_TYPESET, inert, to_html
from .plans import plan_html, plan_markdown, plan_plain
from .question_text import details_html, details_plain, question_message, settled_words
from .run_view import NoticePart, Part, PlanPart, QuestionPart, RunView, SubagentPart, TextPart, ToolPart, attachment_of
from .time_text import short_time
from .tool_lines import agent_title, has_words, present_call, status_of, tool_line, tool_problem

_MAX_LINE = 160  # characters of a tool call's arguments and of its result: each stands on one line
_MAX_NOTICE = 500  # characters of a line about an agent program
_MAX_OUTPUT = 4000  # characters of the text that a tool call emitted

Bundle = dict[str, Any]

TRANSCRIPT: Mapping[str, Any] = {"navi": {"transcript": True}}
"""The metadata of an output that has words of the conversation: a server that is to save none leaves them out."""


def run_bundle(view: RunView, *, live: bool = False) -> Bundle:
    """The MIME bundle of a run. ``live`` adds a last line with its state, or the reason of its failure."""
    return _bundle(view, visible_parts(view), note_of(view, live=live))


def run_bundles(view: RunView, *, live: bool = False) -> list[Bundle]:
    """The same as the several outputs of a waiting cell.

    A question has one of its own, which front ends may draw with buttons. Where the cell itself shows the outputs of
    code, these are left out, and what comes after is another output, below them.
    """
    advice = view.advice or ""
    note = "" if view.advice is not None and view.questions else note_of(view, live=live)
    bundles: list[Bundle] = []
    group: list[Part] = []

    def close_group() -> None:
        if group:
            bundles.append(_bundle(view, group, ""))
            group.clear()

    for number, segment in enumerate(view.segments()):
        if number:
            close_group()
        for part in (one for one in segment if _is_visible(one, view)):
            if not isinstance(part, QuestionPart):
                group.append(without_shown(part, view))
                continue
            close_group()
            is_open = part.status == "open"
            about = {QUESTION_MIME: {"session_id": view.session_id, "interrupt_id": part.id}} if is_open else {}
            bundles.append(about | _bundle(view, [part], advice if is_open else ""))
    return [*bundles, _bundle(view, group, note)] if group or note or not bundles else bundles


def without_shown(part: Part, view: RunView) -> Part:
    """A part without what the waiting cell has shown itself."""
    if isinstance(part, ToolPart) and view.executed(part.id):
        return replace(part, outputs=[], shown=True)
    return part


QUESTION_MIME = "application/vnd.navi.question+json"
"""Of an open question: the lab extension draws it with buttons, or with its form."""


def _bundle(view: RunView, parts: Sequence[Part], note: str) -> Bundle:
    bundle = {"text/markdown": _markdown(view, parts, note), "text/plain": _plain(view, parts, note)}
    html = _html(view, parts, note)
    return bundle if html is None else {"text/html": html, **bundle}


def _html(view: RunView, parts: Sequence[Part], note: str) -> str | None:
    """Text rendered, each tool call as one line; None where there is nothing to render with."""
    blocks = [_part_html(part, view) for part in parts]
    if None in blocks:
        return None
    if note:
        blocks.append(f"<p><em>{inert(note)}</em></p>")
    inner = "".join(map(str, blocks))
    style = STYLE if CODE_CLASS in inner else ""
    return f'<div class="navi-answer {NOT_TYPESET}">{style}{inner}</div>'


def _markdown(view: RunView, parts: Sequence[Part], note: str) -> str:
    return "\n\n".join([*(_part_markdown(part, view) for part in parts), *([f"*{literal(note)}*"] if note else [])])


def run_plain(view: RunView, *, live: bool = False) -> str:
    """The same as plain text."""
    return _plain(view, visible_parts(view), note_of(view, live=live))


def _plain(view: RunView, parts: Sequence[Part], note: str) -> str:
    return printable("\n\n".join([*(part_plain(part, view) for part in parts), *([f"({note})"] if note else [])]))


def note_of(view: RunView, *, live: bool) -> str:
    """The last line: how the run ended, what it waits for; and where it is ``live``, its state."""
    if view.handed_over and not view.over:
        return "it goes on in another cell"
    if view.status == "stopped":
        return "stopped"
    if view.status == "withdrawn":
        return "withdrawn from the queue"
    if view.status == "waiting" or (view.questions and not view.over):
        return _how_to_answer(view)
    noticed = view.notice[1] if view.notice and view.over else ""
    if not live:
        return noticed
    if view.status == "failed" and view.error:
        return f"failed ({view.error[0]}): {view.error[1]}"
    if view.over:
        return " · ".join(filter(None, (noticed, usage_words(view.usage))))
    if view.stopping or view.server_starting:
        return "stopping …" if view.stopping else "waiting for your server to start …"
    return {"sent": "…", "queued": "waiting for the session's other run …"}.get(view.status, "" if view.text else "…")


def _how_to_answer(view: RunView) -> str:
    asked = view.questions
    if view.advice is not None:  # other cells do not run before that one ends
        return view.advice
    if not asked:
        return "waiting for your answer"
    if all(question.kind == "approval" for question in asked):
        return "waiting for your answer: %navi approve, %navi deny, or the buttons in any chat"
    return "waiting for your answer: %navi answer VALUE, or the form in any chat"


def usage_words(usage: dict[str, Any]) -> str:
    """``1,234 tokens, $0.012``; empty when nothing is known."""
    tokens = int(usage.get("input_tokens") or 0) + int(usage.get("output_tokens") or 0)
    cost = usage.get("cost")
    words = [f"{tokens:,} tokens"] if tokens else []
    return ", ".join([*words, f"${cost:.2g}"] if cost else words)


def visible_parts(view: RunView) -> list[Part]:
    """The parts that there is something to show of."""
    return [part for part in list(view.parts) if _is_visible(part, view)]


def _is_visible(part: Part, view: RunView) -> bool:
    if isinstance(part, ToolPart):
        # The question says all of it while it is open.
        return part.result is not None or all(question.call != part.id for question in view.questions)
    match part:
        case TextPart(content="") | PlanPart(entries=()) | NoticePart(message=""):
            return False
    return True


def _part_html(part: Part, view: RunView) -> str | None:
    match part:
        case TextPart():
            return to_html(part.content, scope=f"{view.run_id} {part.id}", images=view.images, coloured=True)
        case ToolPart():
            return _tool_html(part, view) + _outputs_html(list(part.outputs), view.images)
        case QuestionPart():
            details = details_html(part.details) if part.status == "open" else ""
            words = inert(_question_words(part, view))
            return (
                f"<p><strong>{words}</strong></p>{details}"
                if part.status == "open"
                else f"<p><small>{words}</small></p>"
            )
        case SubagentPart():
            return f"<p><small>{inert(_subagent_words(part))}</small></p>"
        case PlanPart():
            return plan_html(part.entries)
        case NoticePart():
            return f"<p><small>{inert(part.message)}</small></p>"


def _part_markdown(part: Part, view: RunView) -> str:
    match part:
        case TextPart():
            return defused(closed(part.content))
        case ToolPart():
            output = _outputs_plain(list(part.outputs))
            return _tool_markdown(part, view) + (f"\n\n{code_block(output)}" if output else "")
        case QuestionPart():
            details = details_plain(part.details) if part.status == "open" else ""
            return f"> {literal(_question_words(part, view))}" + (f"\n\n{code_block(details)}" if details else "")
        case SubagentPart():
            return f"> {literal(_subagent_words(part))}"
        case PlanPart():
            return plan_markdown(part.entries)
        case NoticePart():
            return f"> {literal(one_line(part.message, _MAX_NOTICE))}"


def part_plain(part: Part, view: RunView) -> str:
    """A part as plain text."""
    match part:
        case TextPart():
            return part.content
        case ToolPart():
            output = _outputs_plain(list(part.outputs))
            return _tool_plain(part, view) + (f"\n{output}" if output else "")
        case QuestionPart():
            details = details_plain(part.details) if part.status == "open" else ""
            words = _question_words(part, view)
            return f"? {words}" + (f"\n{details}" if details else "") if part.status == "open" else f"[{words}]"
        case SubagentPart():
            return f"> {_subagent_words(part)}"
        case PlanPart():
            return plan_plain(part.entries)
        case NoticePart():
            return f"({one_line(part.message, _MAX_NOTICE)})"


def _question_words(question: QuestionPart, view: RunView) -> str:
    if question.status == "open":
        return f"{question_message(question.message, question.source)} [{short_handle(question.id)}]"
    words = settled_words(
        kind=question.kind,
        status=question.status,
        approved=question.approved,
        by=question.answered_by,
        when=short_time(question.answered_at) if question.answered_at else "",
        payload=question.payload,
        options=question.options,
    )
    if question.call is not None and view.has_call(question.call):
        return words  # below its line
    return f"{marked_line(question.tool or question.message)}: {words}"


def _subagent_words(part: SubagentPart) -> str:
    words = f"{part.name}: {one_line(part.description, _MAX_LINE)}" if part.description else part.name
    calls = f", {plural(part.calls, 'tool call')}" if part.calls else ""
    message = f" – {one_line(part.text, _MAX_LINE)}" if part.text and part.status != "completed" else ""
    return f"{words} ({part.status}{calls}){message}"


def _tool_words(tool: ToolPart, view: RunView) -> tuple[str, str, str]:
    """A call in words; its code, or what a tool without words of its own was called with; what came of it."""
    raised = any(output.get("output_type") == "error" for output in tool.outputs)
    status = status_of(tool.result, is_over=view.over, raised=raised)
    name, args = present_call(tool.name, tool.args, tool.reported)
    line = tool_line(name, args, tool.result, status)
    problem = tool_problem(tool.result)
    if tool.result is None:
        came = tool.progress
    elif problem is not None:
        came = problem[1]
    else:
        came = "" if has_words(tool.name) or tool.shown else tool.result
    called = agent_title(name, args) or (_code_of(tool) if has_words(tool.name) else tool.args)
    return line, _one_line(called), _one_line(came)


def _code_of(tool: ToolPart) -> str:
    if tool.name != "run_code":
        return ""
    try:
        code = json.loads(tool.args).get("code", "")
    except (ValueError, AttributeError):  # it is still being written
        return ""
    return str(code)


def _tool_html(tool: ToolPart, view: RunView) -> str:
    line, called, came = _tool_words(tool, view)
    code = f" <code>{inert(called)}</code>" if called else ""
    return f"<p><small>{inert(line)}{code}{f': {inert(came)}' if came else ''}</small></p>"


def _tool_markdown(tool: ToolPart, view: RunView) -> str:
    line, called, came = _tool_words(tool, view)
    code = " `" + called.replace("`", "'") + "`" if called else ""
    return f"> {literal(line)}{code}{f': {literal(came)}' if came else ''}"


def _tool_plain(tool: ToolPart, view: RunView) -> str:
    line, called, came = _tool_words(tool, view)
    return " ".join(filter(None, (f"[{line}]", called, f"→ {came}" if came else "")))


def _one_line(text: str) -> str:
    """A tool call's arguments or result; the model works with whole ids, a person with short handles."""
    return one_line(with_short_handles(text), _MAX_LINE)


NO_MESSAGES = "<p><em>no messages yet</em></p>"
_SPEAKERS = {"user": "You", "assistant": "Navi"}


def speaker(message: dict[str, Any]) -> str:
    """The author of a message, as a transcript names it."""
    if (message.get("origin") or {}).get("kind") == "recall" and message["role"] == "user":
        return "Recall"
    role = str(message["role"])
    return _SPEAKERS.get(role, role.capitalize())


def transcript_plain(messages: Iterable[dict[str, Any]]) -> str:
    """``You: …`` paragraphs; tool results are left out."""
    text = "\n\n".join(f"{speaker(m)}: {m['content']}" for m in messages if _is_shown(m))
    return printable(text) or "(no messages yet)"


def transcript_html(messages: Sequence[dict[str, Any]], *, is_end: bool = False, limit: int | None = None) -> str:
    """The transcript for places without JavaScript: no style sheet, no script; answers rendered, all else escaped.

    ``limit``: characters, of which the last messages are shown. ``is_end``: there are messages before these.
    """
    parts: list[str] = []  # newest first
    size = 0
    for message in reversed([m for m in messages if _is_shown(m)]):
        part = _message_html(message)
        if limit is not None and parts and size + len(part) > limit:
            is_end = True
            break
        if limit is not None and len(part) > limit:
            part = _spoken(message, f"<p>{inert(truncate(message['content'], limit // 2))}</p>")
        parts.append(part)
        size += len(part)
    if is_end:
        parts.append("<p><em>Earlier messages are in Navi.</em></p>")
    return f'<div class="navi-transcript {NOT_TYPESET}">{"".join(parts[::-1]) or NO_MESSAGES}</div>'


def _message_html(message: dict[str, Any]) -> str:
    answer = to_html(message["content"]) if message["role"] == "assistant" else None
    return _spoken(message, answer or f'<p style="white-space:pre-wrap">{inert(message["content"])}</p>')


def _spoken(message: dict[str, Any], content: str) -> str:
    return f"<p><strong>{inert(speaker(message))}:</strong></p>{content}"


def _is_shown(message: dict[str, Any]) -> bool:
    return message["role"] in _SPEAKERS and bool(message["content"])


def _outputs_html(outputs: Sequence[Mapping[str, Any]], images: Mapping[str, tuple[str, bytes]]) -> str:
    """Outputs as images and preformatted text. ``images``: the attachments that were fetched."""
    blocks: list[str] = []
    text: list[Mapping[str, Any]] = []
    for output in outputs:
        image = _image_html(output.get("data") or {}, images)
        if image is None:
            text.append(output)
        else:
            blocks += [_preformatted(_outputs_plain(text)), image]
            text = []
    return "".join([*blocks, _preformatted(_outputs_plain(text))])


def _outputs_plain(outputs: Sequence[Mapping[str, Any]]) -> str:
    """The text of outputs, at most ``_MAX_OUTPUT`` characters: the end, which is what counts of a log."""
    # The answer below it explains a failure; its traceback would push that off the screen.
    plain = [
        {"data": {"text/plain": error_line(output)}} if output.get("output_type") == "error" else output
        for output in outputs
    ]
    return truncate_start(outputs_text(plain, name_images=True), _MAX_OUTPUT)


def _image_html(data: Mapping[str, Any], images: Mapping[str, tuple[str, bytes]]) -> str | None:
    for kind in IMAGE_TYPES:
        content = data.get(kind)
        if isinstance(content, str):
            return _image(kind, content)
        if (found := images.get(attachment_of(content) or "")) is not None:
            return _image(found[0], base64.b64encode(found[1]).decode())
    return None


def _image(kind: str, content: str) -> str:
    # The content comes from code that ran for the agent: only what base64 consists of gets into the attribute.
    safe = re.sub(r"[^A-Za-z0-9+/=]", "", content)
    return f'<p><img src="data:{escape(kind)};base64,{safe}" style="max-width:100%"></p>'


def _preformatted(text: str) -> str:
    return f"<pre>{inert(text)}</pre>" if text.strip() else ""
