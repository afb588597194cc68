"""How things look in a cell: Markdown, plain text and HTML from data. Pure.

Everything that goes into HTML is escaped here; what the agent wrote goes through ``markdown``, which distrusts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from . import markdown
from .fold import RunFold, Text, Tool

_SHORT = 160

Bundle = dict[str, Any]


# --- a run -----------------------------------------------------------------------------------------------------------


def run_bundle(fold: RunFold, *, live: bool = False) -> Bundle:
    """The MIME bundle of a run. ``live`` adds a last line that says what is going on, and a failure's reason."""
    bundle = {"text/markdown": run_markdown(fold, live=live), "text/plain": run_plain(fold, live=live)}
    html = run_html(fold, live=live)
    return bundle if html is None else {"text/html": html, **bundle}


def run_html(fold: RunFold, *, live: bool = False) -> str | None:
    """Text rendered, each tool call as one line; None where there is nothing to render with."""
    blocks = []
    for part in _shown(fold):
        block = markdown.to_html(part.content) if isinstance(part, Text) else _tool_html(part)
        if block is None:
            return None
        blocks.append(block)
    if note := _note(fold, live=live):
        blocks.append(f"<p><em>{escape(note)}</em></p>")
    return '<div class="navi-answer">' + "".join(blocks) + "</div>"


def run_markdown(fold: RunFold, *, live: bool = False) -> str:
    """Text as it is but defused, each tool call as one line."""
    blocks = [
        markdown.defused(markdown.closed(part.content)) if isinstance(part, Text) else _tool_markdown(part)
        for part in _shown(fold)
    ]
    if note := _note(fold, live=live):
        blocks.append(f"*{markdown.literal(note)}*")
    return "\n\n".join(blocks)


def run_plain(fold: RunFold, *, live: bool = False) -> str:
    """The same as plain text."""
    blocks = [part.content if isinstance(part, Text) else _tool_plain(part) for part in _shown(fold)]
    if note := _note(fold, live=live):
        blocks.append(f"({note})")
    return "\n\n".join(blocks)


def _note(fold: RunFold, *, live: bool) -> str:
    if fold.status == "stopped":
        return "stopped"
    if fold.status == "withdrawn":
        return "withdrawn from the queue"
    if fold.status == "waiting":
        return "waiting for your answer: %navi chat shows the question"
    if not live:
        return ""
    if fold.status == "failed" and fold.error:
        return f"failed ({fold.error[0]}): {fold.error[1]}"
    if fold.over:
        return ""
    if fold.stopping:
        return "stopping …"
    return {"sent": "…", "queued": "waiting for the session's other run …"}.get(fold.status, "" if fold.text else "…")


def _shown(fold: RunFold) -> list[Text | Tool]:
    return [part for part in list(fold.parts) if isinstance(part, Tool) or part.content]


def _tool_html(tool: Tool) -> str:
    arguments = f" <code>{escape(_short(tool.args))}</code>" if tool.args else ""
    result = " …" if tool.result is None else f" → {escape(_short(tool.result))}"
    return f"<p><small>⚙ <code>{escape(tool.name)}</code>{arguments}{result}</small></p>"


def _tool_markdown(tool: Tool) -> str:
    return f"> ⚙ `{_code(tool.name)}`" + (f" `{_code(_short(tool.args))}`" if tool.args else "") + _result(tool)


def _result(tool: Tool) -> str:
    return " …" if tool.result is None else f" → {markdown.literal(_short(tool.result))}"


def _tool_plain(tool: Tool) -> str:
    result = "…" if tool.result is None else "→ " + _short(tool.result)
    return " ".join(part for part in (f"[{tool.name}]", _short(tool.args), result) if part)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def _code(text: str) -> str:
    return text.replace("`", "'")


# --- tables and transcripts ------------------------------------------------------------------------------------------


def table_plain(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> str:
    """Columns padded to their widest cell."""
    body = [[_short(cell) for cell in row] for row in rows]
    if not body:
        return empty
    widths = [max(len(line[i]) for line in [list(columns), *body]) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *body]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def table_html(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> str:
    """A plain HTML table; the front end brings the style."""
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return f"<p>{escape(empty)}</p>"
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


_SPEAKERS = {"user": "You", "assistant": "Navi"}


def speaker(message: dict[str, Any]) -> str:
    """Who says it, in a reader's words."""
    if (message.get("origin") or {}).get("kind") == "recall" and message["role"] == "user":
        return "Recall"
    role = str(message["role"])
    return _SPEAKERS.get(role, role.capitalize())


def transcript_plain(messages: Iterable[dict[str, Any]]) -> str:
    """``You: …`` paragraphs; tool results are left out."""
    return "\n\n".join(f"{speaker(m)}: {m['content']}" for m in messages if _told(m)) or "(no messages yet)"


def transcript_html(messages: Iterable[dict[str, Any]]) -> str:
    """The transcript for places without JavaScript: no style sheet, no script, everything escaped."""
    paragraphs = "".join(
        f'<p style="white-space:pre-wrap"><strong>{escape(speaker(m))}:</strong> {escape(m["content"])}</p>'
        for m in messages
        if _told(m)
    )
    return f'<div class="navi-transcript">{paragraphs or "<p><em>no messages yet</em></p>"}</div>'


def _told(message: dict[str, Any]) -> bool:
    return message["role"] in _SPEAKERS and bool(message["content"])


# --- times -----------------------------------------------------------------------------------------------------------


def moment(text: str | None, *, now: datetime | None = None) -> str:
    """An ISO instant as local time and distance: ``2026-11-24 09:00 (in 8h)``."""
    if not text:
        return "–"
    at = datetime.fromisoformat(text)
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({distance((at - (now or datetime.now(UTC))).total_seconds())})"


def distance(seconds: float) -> str:
    """``in 9m``, ``3h ago``."""
    size = abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if size >= 2 * length:
            words = f"{size / length:.0f}{unit}"
            break
    else:
        words = f"{size:.0f}s"
    return f"in {words}" if seconds >= 0 else f"{words} ago"


def schedule_words(schedule: dict[str, Any]) -> str:
    """A schedule in one phrase."""
    match schedule.get("kind"):
        case "once":
            return "once"
        case "every":
            return f"every {schedule.get('every')}"
        case "cron":
            return f"cron {schedule.get('expr')} ({schedule.get('tz')})"
        case kind:
            return str(kind)
