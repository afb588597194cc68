"""How things look in a cell: Markdown, plain text and HTML from data. Pure.

Everything that goes into HTML is escaped here; what the agent wrote goes through ``markdown``, which distrusts it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

from ..clock import zone_label, zone_or_utc
from ..handles import short_handle
from . import markdown
from .run_view import Part, Question, RunView, Text, Tool, Worker, attachment_of
from .times import local_tz, local_zone

_SHORT = 160

Bundle = dict[str, Any]


# --- a run -----------------------------------------------------------------------------------------------------------


def run_bundle(fold: RunView, *, live: bool = False) -> Bundle:
    """The MIME bundle of a run. ``live`` adds a last line that says what is going on, and a failure's reason."""
    bundle = {"text/markdown": run_markdown(fold, live=live), "text/plain": run_plain(fold, live=live)}
    html = run_html(fold, live=live)
    return bundle if html is None else {"text/html": html, **bundle}


def run_html(fold: RunView, *, live: bool = False) -> str | None:
    """Text rendered, each tool call as one line; None where there is nothing to render with."""
    blocks = []
    for part in _shown(fold):
        block = _part_html(part, fold)
        if block is None:
            return None
        blocks.append(block)
    if note := _note(fold, live=live):
        blocks.append(f"<p><em>{escape(note)}</em></p>")
    return '<div class="navi-answer">' + "".join(blocks) + "</div>"


def run_markdown(fold: RunView, *, live: bool = False) -> str:
    """Text as it is but defused, each tool call as one line."""
    blocks = [_part_markdown(part) for part in _shown(fold)]
    if note := _note(fold, live=live):
        blocks.append(f"*{markdown.literal(note)}*")
    return "\n\n".join(blocks)


def run_plain(fold: RunView, *, live: bool = False) -> str:
    """The same as plain text."""
    blocks = [_part_plain(part) for part in _shown(fold)]
    if note := _note(fold, live=live):
        blocks.append(f"({note})")
    return "\n\n".join(blocks)


def _note(fold: RunView, *, live: bool) -> str:
    if fold.status == "stopped":
        return "stopped"
    if fold.status == "withdrawn":
        return "withdrawn from the queue"
    if fold.status == "waiting" or (fold.questions and not fold.over):
        return _how_to_answer(fold)
    if not live:
        return ""
    if fold.status == "failed" and fold.error:
        return f"failed ({fold.error[0]}): {fold.error[1]}"
    if fold.over:
        return usage_words(fold.usage)
    if fold.stopping:
        return "stopping …"
    return {"sent": "…", "queued": "waiting for the session's other run …"}.get(fold.status, "" if fold.text else "…")


def _how_to_answer(fold: RunView) -> str:
    asked = fold.questions
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


def _shown(fold: RunView) -> list[Part]:
    return [part for part in list(fold.parts) if not isinstance(part, Text) or part.content]


def _part_html(part: Part, fold: RunView) -> str | None:
    match part:
        case Text():
            return markdown.to_html(part.content)
        case Tool():
            return _tool_html(part) + "".join(output_html(output, fold.pictures) for output in list(part.outputs))
        case Question():
            return _question_html(part)
        case Worker():
            return f"<p><small>⤷ {escape(_worker_words(part))}</small></p>"


def _part_markdown(part: Part) -> str:
    match part:
        case Text():
            return markdown.defused(markdown.closed(part.content))
        case Tool():
            shown = "".join(output_plain(output) for output in list(part.outputs)).rstrip()
            return _tool_markdown(part) + (f"\n\n{_fenced(shown)}" if shown else "")
        case Question():
            return f"> ❓ {markdown.literal(_question_words(part))}" + (
                f"\n\n{_fenced(code)}" if part.status == "open" and (code := _asked_code(part)) else ""
            )
        case Worker():
            return f"> ⤷ {markdown.literal(_worker_words(part))}"


def _part_plain(part: Part) -> str:
    match part:
        case Text():
            return part.content
        case Tool():
            shown = "".join(output_plain(output) for output in list(part.outputs)).rstrip()
            return _tool_plain(part) + (f"\n{shown}" if shown else "")
        case Question():
            code = _asked_code(part) if part.status == "open" else ""
            return f"? {_question_words(part)}" + (f"\n{code}" if code else "")
        case Worker():
            return f"> {_worker_words(part)}"


def _question_html(question: Question) -> str:
    code = _asked_code(question) if question.status == "open" else ""
    block = f"<pre>{escape(code)}</pre>" if code else ""
    return f"<p>❓ <strong>{escape(_question_words(question))}</strong></p>{block}"


def _question_words(question: Question) -> str:
    if question.status == "open":
        return f"{question.message} [{short_handle(question.id)}]"
    if question.status == "resolved":
        outcome = {True: "approved", False: "denied", None: "answered"}[question.approved]
    else:
        outcome = {"cancelled": "declined", "expired": "nobody answered in time"}.get(question.status, question.status)
    return f"{question.tool or question.message}: {outcome}"


def _asked_code(question: Question) -> str:
    """What would run or be written, as it would be; other arguments as JSON."""
    for name in ("code", "source", "content"):
        if isinstance(question.args.get(name), str):
            return str(question.args[name])
    return json.dumps(question.args, ensure_ascii=False, indent=2) if question.args else ""


def _worker_words(worker: Worker) -> str:
    words = f"{worker.name}: {_short(worker.description)}" if worker.description else worker.name
    calls = f", {worker.calls} tool call{'' if worker.calls == 1 else 's'}" if worker.calls else ""
    said = f" – {_short(worker.text)}" if worker.text and worker.status != "completed" else ""
    return f"{words} ({worker.status}{calls}){said}"


def _fenced(text: str) -> str:
    """Text in a fence that it can not close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _tool_html(tool: Tool) -> str:
    arguments = f" <code>{escape(_short(tool.args))}</code>" if tool.args else ""
    result = f" … {escape(tool.progress)}" if tool.result is None else f" → {escape(_short(tool.result))}"
    return f"<p><small>⚙ <code>{escape(tool.name)}</code>{arguments}{result}</small></p>"


def _tool_markdown(tool: Tool) -> str:
    return f"> ⚙ `{_code(tool.name)}`" + (f" `{_code(_short(tool.args))}`" if tool.args else "") + _result(tool)


def _result(tool: Tool) -> str:
    if tool.result is None:
        return f" … {markdown.literal(tool.progress)}" if tool.progress else " …"
    return f" → {markdown.literal(_short(tool.result))}"


def _tool_plain(tool: Tool) -> str:
    result = "…" if tool.result is None else "→ " + _short(tool.result)
    return " ".join(part for part in (f"[{tool.name}]", _short(tool.args), result) if part)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"


def _code(text: str) -> str:
    return text.replace("`", "'")


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


def moment(text: str | None, *, zone: str | None = None, now: datetime | None = None) -> str:
    """An ISO instant on the reader's clock, and how far it is: ``Tue 24 Nov 09:00 (in 8h)``.

    ``zone`` is that of its schedule: where it is not the reader's, its wall time stands there too, since it is what
    the user asked for: ``Tue 24 Nov 01:00 (in 8h; 09:00 Asia/Tokyo)``.
    """
    if not text:
        return "–"
    at, now = datetime.fromisoformat(text), now or datetime.now(UTC)
    label = zone_label(zone, local_zone()) if zone else ""
    there = f"; {at.astimezone(zone_or_utc(str(zone))):%H:%M} {label}" if label else ""
    return f"{clock_words(text, now=now)} ({distance((at - now).total_seconds())}{there})"


def clock_words(text: str, *, now: datetime | None = None) -> str:
    """An ISO instant on the reader's clock: ``Fri 27 Nov 16:00``; the year where it is not this one.

    Seconds are shown within ten minutes only, where they are what distinguishes two times.
    """
    zone = local_tz()
    at = datetime.fromisoformat(text).astimezone(zone)
    today = (now or datetime.now(UTC)).astimezone(zone)
    year = "" if at.year == today.year else f" {at.year}"
    near = abs(at - today) < timedelta(minutes=10) and at.second
    return f"{at:%a} {at.day} {at:%b}{year} {at:{'%H:%M:%S' if near else '%H:%M'}}"


def distance(seconds: float) -> str:
    """``in 9m``, ``3h ago``."""
    size = abs(seconds)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if size >= 2 * length - length / 60:  # what was made for two hours is not "in 120m" a moment later
            words = f"{size / length:.0f}{unit}"
            break
    else:
        words = f"{size:.0f}s"
    return f"in {words}" if seconds >= 0 else f"{words} ago"


_WHEN = {
    "cell_done": "{cell} is done",
    "cell_finished": "{cell} finishes without an error",
    "cell_failed": "{cell} fails",
    "cell_slow": "{cell} takes longer than {longer}",
    "kernel_idle": "the kernel is idle",
    "kernel_restarted": "the kernel restarts",
    "kernel_died": "the kernel dies",
}


def _cell_words(cell: str | None) -> str:
    """As whoever made it in a cell would say it."""
    if cell in (None, "any"):
        return "any cell"
    kind, _, named = str(cell).rpartition(":")
    return {"after": "the next cell", "request": "this cell"}.get(
        kind, "the cell" if named == "running" else "that cell"
    )


def _when_words(schedule: dict[str, Any]) -> str:
    """``when the next cell is done``, ``each time data.csv changes``."""
    event = str(schedule.get("event"))
    if event == "file_changed":
        words = f"{schedule.get('path')} changes"
    elif event == "expression":
        words = f"{schedule.get('expr')} is true"
    else:
        longer = schedule.get("longer_than")
        words = _WHEN.get(event, event).format(cell=_cell_words(schedule.get("cell")), longer=longer)
        if longer and event == "kernel_idle":
            words += f" for {longer}"
    return f"{'each time' if schedule.get('repeat') == 'each' else 'when'} {words}"


def schedule_words(schedule: dict[str, Any]) -> str:
    """A schedule in one phrase."""
    match schedule.get("kind"):
        case "once":
            return "once"
        case "every":
            return f"every {schedule.get('every')}{_in_zone(schedule)}"
        case "when":
            return _when_words(schedule)
        case "cron":
            return f"cron {schedule.get('expr')}{_in_zone(schedule)}"
        case kind:
            return str(kind)


_LONGEST = 4000
"""Characters of one output; its end is what counts."""
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def output_html(output: Mapping[str, Any], pictures: Mapping[str, tuple[str, bytes]]) -> str:
    """One output. ``pictures``: the content of attachments that are here."""
    data = output.get("data") or {}
    for kind in _PICTURES:
        content = data.get(kind)
        if content is None:
            continue
        found = pictures.get(attachment_of(content) or "")
        if isinstance(content, str):
            return _picture(kind, content)
        if found is not None:
            return _picture(found[0], base64.b64encode(found[1]).decode())
    text = output_plain(output)
    return f"<pre>{escape(text)}</pre>" if text.strip() else ""


def output_plain(output: Mapping[str, Any]) -> str:
    """One output as text, without colours; what has none is named."""
    match output.get("output_type"):
        case "stream":
            return _cut(_joined(output.get("text")))
        case "error":
            return f"{output.get('ename', 'Error')}: {_cut(str(output.get('evalue', '')))}\n"
        case _:
            data = output.get("data") or {}
            text = data.get("text/plain")
            if isinstance(text, (str, list)):
                return _cut(_joined(text)) + "\n"
            return f"[{', '.join(data)}]\n" if data else ""


def _picture(kind: str, content: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9+/=]", "", content)
    return f'<p><img src="data:{escape(kind, quote=True)};base64,{safe}" style="max-width:100%"></p>'


def _joined(text: Any) -> str:
    whole = "".join(map(str, text)) if isinstance(text, list) else str(text or "")
    return _COLOURS.sub("", whole)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]


def _in_zone(schedule: dict[str, Any]) -> str:
    """`` (Asia/Tokyo)`` where the schedule's zone is not the reader's."""
    label = zone_label(schedule["tz"], local_zone()) if schedule.get("tz") else ""
    return f" ({label})" if label else ""
