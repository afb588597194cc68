"""The answers of the offline backend, as Markdown. Pure: tool results in, text out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from ...clock import zone_label
from ...handles import HandleError, Named, resolve, short_handle
from ...markdown_text import closed, quoted, without_marks
from ...text import code_block, one_line, plural, strip_ansi
from ...timetext.format import say, say_stretch, say_time
from ..history_summary import HistorySummary
from ..providers.catalog import how_to_get_one
from ..trigger import RecallTrigger

Outcome = Mapping[str, Any]

_CAN = """\
I can do these without a language model, a key or the network:

- **Come back later**: `remind me in 10 minutes to check the loss`, `check back every hour on the training`, \
`remind me tomorrow at 8:30 to call Bob`, `every weekday at 9 summarise this session`
- **Show and cancel what is planned**: `list recalls`, `cancel the reminder about loss`, `cancel all`
- **Report what happened**: `what happened since yesterday`, `what happened while I was away`, `summarise this session`
- **Look into the notebook's kernel**: `what variables are there`, `show df`, `plot losses`, `what failed`
- **Show the time**: `what time is it`, `what time is it in Tokyo`
- **Show streaming and stop**: `count to 200`, `count to 50 every 500 ms`, `count to 100 slowly`

A reminder fires also when every notebook is closed, as long as I run; if I do not, it fires when I am back."""


def capabilities() -> str:
    """What can you do."""
    return f"{_CAN}\n\nFor anything else I need a language model. {how_to_get_one()}"


GREETING = "Hello! I can remind you, show variables, and report what happened here. Ask `what can you do` for more."


def no_language_model() -> str:
    """To anything else: what it is not, and the one command that fixes it."""
    return (
        "I cannot answer that: this session uses the `offline` backend, which is no language model. "
        f"{how_to_get_one()}\n\nWhat I can do without one: reminders and recalls, what happened, summaries, "
        "your variables and errors, the time. Ask `what can you do`."
    )


def failure(outcome: Outcome) -> str | None:
    """The tool's error as a sentence, if it was one."""
    return str(outcome.get("message", "Something went wrong.")) if "error" in outcome else None


def created(outcome: Outcome, message: str) -> str:
    """A recall was made, or not."""
    if error := failure(outcome):
        return f"I could not do that: {error}"
    recall = outcome["recall"]
    about = f": “{message}”" if message else " (you did not say of what)"
    when = recall.get("next", "")
    if recall["recurring"]:
        text = f"I will come back **{recall['schedule']}**{about}. The first time: **{when}**."
    else:
        text = f"I will remind you **{when}**{about}."
    if note := outcome.get("note"):
        text += f" ({note[:1].upper()}{note[1:]}.)"
    return f"{text}\n\nTo cancel it: `cancel {short_handle(recall['id'])}`."


NO_TIME_GIVEN = (
    "I made no reminder, because I found no time in that. Say it with one, for example `remind me in 10 minutes to "
    "check the loss`, `… tomorrow at 8:30`, `… every weekday at 9`."
)


def time_without_message(phrase: str) -> str:
    """A time, and nothing to do then."""
    example = f"`remind me {phrase} to check the loss`"
    return f"I understood the time (“{phrase}”), not what to do then. Say for example {example}."


def notebook_by_cell(phrase: str, message: str) -> str:
    """A notebook is code: without a model there is nothing here that could ask whether it may be executed."""
    return f"To have a notebook executed, write it in a cell:\n\n{code_block(f'%navi recall {phrase} {message}')}"


def recall_list(outcome: Outcome) -> str:
    """What is planned."""
    if error := failure(outcome):
        return f"I could not look: {error}"
    recalls = outcome["recalls"]
    if not recalls:
        over = f" ({outcome['over']} are over.)" if outcome.get("over") else ""
        return f"Nothing is planned in this session.{over}"
    one = len(recalls) == 1
    return f"{'One recall is' if one else f'{len(recalls)} recalls are'} planned:\n\n{_bullets(recalls)}"


def _in_a_line(text: str) -> str:
    return " ".join(text.split())


def _bullets(recalls: Sequence[Outcome]) -> str:
    # Numbered, because `cancel 2` is the shortest way to name one.
    ids = [str(recall["id"]) for recall in recalls]
    return "\n".join(f"{number}. {_bullet(recall, ids)}" for number, recall in enumerate(recalls, start=1))


def _bullet(recall: Outcome, ids: Sequence[str]) -> str:
    when = recall.get("next") or recall["status"]
    rule = f", {recall['schedule']}" if recall["recurring"] else ""
    paused = " (paused)" if recall["status"] == "paused" else ""
    return f"**{_in_a_line(recall['title'])}**: {when}{rule}{paused} — `{short_handle(str(recall['id']), ids)}`"


def matching(what: str, recalls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The recalls that ``what`` names: by a short handle, else by words of the title or message, typos forgiven."""
    wanted = what.lower().strip()
    if wanted in ("", "it", "last", "latest", "next", "first", "only"):
        if wanted in ("next", "first"):
            return list(recalls[:1])
        return list(recalls) if len(recalls) == 1 else []
    # Several matches are no error here: the reply lists them.
    with suppress(HandleError):
        chosen = resolve(wanted, [Named(str(one["id"]), str(one["title"])) for one in recalls])
        return [one for one in recalls if one["id"] == chosen]
    scored = [(_likeness(wanted, one), one) for one in recalls]
    best = max((score for score, _ in scored), default=0.0)
    return [one for score, one in scored if best >= 0.5 and score >= best - 0.01]


_EMPTY = frozenset({"the", "a", "an", "to", "of", "about", "on", "in", "at", "my", "and", "for", "is", "it"})


def _likeness(wanted: str, recall: Outcome) -> float:
    """The share of the wanted words that the recall has, a nearly equal word counting nearly one."""
    asked = [word for word in re.findall(r"\w+", wanted) if word not in _EMPTY]
    have = set(re.findall(r"\w+", f"{recall['title']} {recall['message']} {recall['schedule']}".lower()))
    if not asked or not have:
        return 0.0
    best = [max(SequenceMatcher(None, word, other).ratio() for other in have) for word in asked]
    return sum(score if score >= 0.75 else 0.0 for score in best) / len(asked)


def which_one(what: str, recalls: Sequence[Outcome], *, several: bool) -> str:
    """Nothing was cancelled, because it is not clear what."""
    if not recalls:
        return "There is nothing to cancel: nothing is planned in this session."
    named = f"“{what}” fits {'more than one' if several else 'none'}" if what else "there is more than one"
    return f"I cancelled nothing, because {named}. Say `cancel` with a number:\n\n{_bullets(recalls)}"


def cancelled(*outcomes: Outcome) -> str:
    """What was cancelled and what was not."""
    lines: list[str] = []
    for outcome in outcomes:
        if error := failure(outcome):
            lines.append(f"Not cancelled: {error}")
        else:
            recall = outcome["recall"]
            lines.append(f"Cancelled: **{_in_a_line(recall['title'])}** (`{short_handle(recall['id'])}`).")
    return lines[0] if len(lines) == 1 else "\n".join(f"- {line}" for line in lines)


def _due(trigger: RecallTrigger, zone: str, now: datetime) -> str:
    if trigger.slot is None:
        return ""
    late = f", {say_stretch(trigger.lateness)} late" if trigger.lateness.total_seconds() >= 1 else ""
    more = f"; it stands for {trigger.coalesced} earlier times, too" if trigger.coalesced else ""
    rule = (
        f" ({say(trigger.recall.schedule, reader=zone)})"
        if trigger.recall and trigger.recall.schedule.kind != "once"
        else ""
    )
    return f"Due {say_time(trigger.slot, zone, now, reader=zone)}{rule}{late}{more}."


def reminder(message: str, trigger: RecallTrigger, zone: str, now: datetime) -> str:
    """A recall that is a message to the user."""
    text = closed(f"**Reminder:** {message.strip()}")
    return f"{text}\n\n_{due}_" if (due := _due(trigger, zone, now)) else text


_FENCED = re.compile(r"<<<(f_\w+)\n(.*?)\n\1>>>", re.DOTALL)  # as the prompt of a firing has what happened


def happened(prompt: str) -> str:
    """The first line of what happened in the notebook, where that has made the recall fire."""
    fences = _FENCED.findall(prompt) if "[What happened in the notebook" in prompt else []
    return quoted(one_line(fences[-1][1].splitlines()[0], 200)) if fences else ""


def since_then(found: HistorySummary, since: datetime, zone: str, now: datetime) -> str:
    """One line about what has happened in the session since then; nothing where nothing has."""
    turns = [turn for turn in found.turns if turn.run.created_at >= since]
    parts = []
    if turns:
        last = turns[-1]
        answer = f" → {_short(last.answer, 120)}" if last.answer else ""
        parts.append(f"{plural(len(turns), 'turn')}, the last “{_short(last.prompt, 80)}”{answer}")
    if found.missed:
        parts.append(f"{plural(found.missed, 'planned time')} did not run")
    return f"Since {say_time(since, zone, now, reader=zone)}: {'; '.join(parts)}." if parts else ""


def history(outcome: Outcome) -> str:
    """What happened since."""
    if error := failure(outcome):
        return f"{error} Say for example `what happened since yesterday` or `… in the last hour`."
    since = outcome["since"]
    turns, missed = outcome["turns"], outcome["not_run"]
    if not turns and not missed:
        return f"Nothing happened in this session since {since}."
    parts = [f"Since {since}: {plural(len(turns), 'turn')}.", _turns(turns)]
    if missed:
        parts.append("What did **not** run:\n\n" + "\n".join(map(_missed, _grouped(missed))))
    return "\n\n".join(part for part in parts if part)


def _turns(turns: Sequence[Outcome]) -> str:
    return "\n".join(map(_turn, turns))


def _turn(turn: Outcome) -> str:
    who = "recall " if turn["from"] == "recall" else ""
    text = f"- {turn['at']}: {who}**{_short(turn['prompt'], 120)}**"
    if turn["status"] != "completed":
        text += f" ({turn['status'].replace('_', ' ')}{': ' + turn['error'] if turn.get('error') else ''})"
    return f"{text} → {_short(turn['answer'], 160)}" if turn["answer"] else text


def _short(text: str, limit: int) -> str:
    """On one line, without the marks of Markdown; names with such signs keep them."""
    return quoted(one_line(without_marks(text[: 20 * limit]), limit))


def _grouped(rows: Sequence[Outcome]) -> list[list[Outcome]]:
    """Slots of one recall that did not run for one reason belong together."""
    groups: dict[tuple[Any, ...], list[Outcome]] = {}
    for row in rows:
        groups.setdefault((row["recall"], row["status"], row.get("reason")), []).append(row)
    return list(groups.values())


def _missed(rows: Sequence[Outcome]) -> str:
    first, last = rows[0], rows[-1]
    count = sum(1 + row.get("and_earlier_slots", 0) for row in rows)
    when = first["slot"] if count == 1 else f"{count} times, {first['slot']} to {last['slot']}"
    why = first.get("reason") or ""
    if first["status"] == "coalesced":
        return f"- {when}: {_in_a_line(first['recall'])} (a later run made up for it)"
    return f"- {when}: {_in_a_line(first['recall'])} ({first['status']}{': ' + why if why else ''})"


def summary(past: Outcome, planned: Outcome) -> str:
    """The session in short. It counts and quotes: it does not understand."""
    text = summary_alone(past, planned)
    explained = bool(past.get("turns"))
    return f"{text}\n\n_A list, not an understanding: I am no language model._" if explained else text


def summary_alone(past: Outcome, planned: Outcome) -> str:
    """:func:`summary` without a word about itself."""
    if error := failure(past):
        return f"I could not look: {error}"
    turns = past["turns"]
    if not turns:
        return "Nothing has happened in this session yet." + _planned(planned)
    woken = sum(turn["from"] == "recall" for turn in turns)
    bad = [turn for turn in turns if turn["status"] not in ("completed", "stopped")]
    text = f"This session so far: {plural(len(turns), 'turn')}"
    text += f", {woken} of them by recalls" if woken else ""
    text += f", {len(bad)} not completed" if bad else ""
    shown = turns if len(turns) <= 12 else [*turns[:4], *turns[-8:]]
    left = f"\n\n({len(turns) - len(shown)} in between left out.)" if len(shown) < len(turns) else ""
    return f"{text}.\n\n{_turns(shown)}{left}{_planned(planned)}"


def _planned(planned: Outcome) -> str:
    recalls = planned.get("recalls") or []
    return f"\n\nPlanned:\n\n{_bullets(recalls)}" if recalls else ""


_TEXTS = ("head", "text", "items", "describe", "traceback", "signature", "source")
"""Parts of a description that are shown as blocks of code, in this order; where there is a traceback, it alone."""


def variables(outcome: Outcome) -> str:
    """Which variables there are in the kernel."""
    if error := failure(outcome):
        return f"I could not look: {error}"
    found, count = outcome["variables"], outcome["count"]
    if not found:
        return "There are no such variables in the kernel."
    rows = "\n".join(f"- `{one['name']}`: {_about(one)}" for one in found)
    more = f"\n\n({count - len(found)} more; ask for some by `variables like x*`.)" if count > len(found) else ""
    return f"{plural(count, 'variable')} in the kernel:\n\n{rows}{more}"


def variable(outcome: Outcome) -> str:
    """What a variable holds."""
    if error := failure(outcome):
        more = "Ask `what variables are there`; for all else I need a language model."
        return f"I could not show that: {error}\n\n{more}"
    parts = [f"**`{outcome['name']}`**: {_about(outcome)}"]
    for name in _TEXTS:
        value = outcome.get(name)
        if isinstance(value, Mapping):
            value = "\n".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "\n".join(map(str, value))
        if value and str(value) != outcome.get("preview"):
            parts.append(code_block(strip_ansi(str(value))))
    if missing := outcome.get("missing"):
        listed = missing if not isinstance(missing, Mapping) else ", ".join(f"{key} {n}" for key, n in missing.items())
        parts.append(f"Missing values: {listed}")
    return "\n\n".join(parts)


def plot(name: str, outcome: Outcome) -> str:
    """Code that plots a variable: a language model would choose what to show; this has one line for each kind."""
    if error := failure(outcome):
        return f"I could not look at it: {error}"
    kind = str(outcome.get("type", ""))
    if kind.rpartition(".")[2] in ("DataFrame", "Series"):
        code = f"{name}.plot();"
    elif kind == "dict":
        code = f"plt.bar([str(key) for key in {name}], {name}.values());"
    else:
        code = f"plt.plot({name});"
    code = code if ".plot()" in code else f'import matplotlib.pyplot as plt\n\n{code[:-1]}\nplt.title("{name}");'
    return f"This plots `{name}`, {_about({**outcome, 'preview': ''})}:\n\n{code_block(code, 'python')}"


def _about(one: Outcome) -> str:
    """``pandas.DataFrame (3 × 2)``, ``int 3``."""
    shape = f" ({' × '.join(map(str, one['shape']))})" if one.get("shape") else ""
    preview = one_line(str(one.get("preview") or ""), 80)
    return f"{one['type']}{shape}" + (f" `{preview.replace('`', chr(39))}`" if preview else "")


_CELL = re.compile(r"^--- \[(\d+)\] code In\[(\d+| )\]", re.MULTILINE)
_FAILED = re.compile(r"Traceback \(most recent call last\)|^\w*(?:Error|Exception|Interrupt)\b.*", re.MULTILINE)


def last_error(error: Outcome, notebook: Outcome | None = None) -> str:
    """The last error of the kernel, else that of the cell of the notebook that failed last."""
    if traceback := error.get("traceback"):
        kind = str(error.get("type") or "an error").rpartition(".")[2]
        return f"The last error in the kernel was `{kind}`:\n\n{code_block(strip_ansi(str(traceback)))}"
    if error.get("error") == "tool_denied":
        return f"I could not look: {error['message']}"
    text = str((notebook or {}).get("text", ""))
    starts = [*_CELL.finditer(text)]
    failed: list[tuple[int, str, str]] = []
    for cell, following in zip_longest(starts, starts[1:]):
        _, has_output, output = text[cell.end() : following.start() if following else len(text)].partition("--- output")
        if has_output and _FAILED.search(output):
            failed.append((int(cell[2]) if cell[2].strip() else 0, cell[1], output.strip()))
    if failed:
        count, index, output = max(failed)
        return f"Cell {index} (In[{count}]) of the notebook failed:\n\n{code_block(strip_ansi(output))}"
    if error.get("error") == "kernel_busy":
        return f"The notebook shows no error, and the kernel could not be asked. {failure(error)}"
    unreadable = failure(error) if error.get("error") == "kernel_unavailable" else failure(notebook or {})
    return f"I found nothing that failed in this notebook.{f' ({unreadable})' if unreadable else ''}"


def unreadable_attachments(names: Sequence[str]) -> str:
    """A sentence about attachments, before the answer; nothing when there are none."""
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names)
    return f"I cannot see {listed}: I am no language model. Choose a model that reads it, then send it again.\n\n"


def time_now(outcome: Outcome) -> str:
    """What time it is."""
    if error := failure(outcome):
        return error
    at = datetime.fromisoformat(outcome["now"])
    return f"It is **{at:%H:%M}** on {at:%A}, {at.day} {at:%B} {at.year} ({zone_label(outcome['timezone'], None)})."
