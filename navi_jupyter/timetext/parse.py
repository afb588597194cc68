"""English times -> schedules: "tomorrow at 8:30", "in an hour and a half", "every weekday at 9".

The one reader of times in words: for cells, the chat, the form, the agent's tools and the offline backend. It finds the
phrase in a sentence and gives back the rest of it as the message. Three rules hold everywhere: a time of day without am
or pm is on the 24-hour clock, and means the next such time; a day is a calendar day on the wall clock; hours and
minutes are elapsed time. Not responsible for whether a schedule is allowed: that is ``scheduling``.

It may import dateparser, which is slow: async callers call these functions in a thread.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..clock import Period, zone_label
from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec, OnceSpec, Policy, ScheduleSpec
from .dates import (
    ANOTHER_HOUR,
    CLOCK,
    DURATION,
    MONTH,
    MORE_OF_A_TIME,
    NOT_A_THING,
    PART,
    PART_OF_DAY,
    PARTS_OF_DAY,
    QUOTED,
    WEEKDAY,
    HalfRead,
    morning_note,
    read_clock,
    read_date,
    read_duration,
    zone_behind,
)
from .recurrence import read_recurrence, recurring_pattern

_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = (
    rf"(?:(?:the\s+)?{_ORDINAL}(?:\s+of)?\s+{MONTH}\b\.?(?:,?\s+\d{{4}})?"
    rf"|{MONTH}\.?\s+{_ORDINAL}\b(?:,?\s+\d{{4}}\b)?"
    r"|\d{4}-\d{2}-\d{2}|\d{1,2}\.\d{1,2}\.(?:\d{4})?|\d{1,2}/\d{1,2}/\d{4})"
)
_STRONG_DAY = (
    rf"(?:(?:the\s+)?day after tomorrow|tomorrow|today|tonight|(?:on\s+)?{_DATE}|on the \d{{1,2}}(?:st|nd|rd|th)"
    rf"|(?:on|next|this|coming|this coming)\s+{WEEKDAY}\b|next (?:week|month|year)|yesterday|last (?:week|night"
    rf"|{WEEKDAY})|(?:in\s+)?{DURATION}\s+ago)"
)
_LONG_OFFSET = (
    r"in\s+(?:\d{1,4}|a|an|one|two|three|four|five|six|seven|ten|a couple of|a few)\s+(?:days?|weeks?|months?|years?)\b"
)
_LONGEST = 1000  # characters in which a time is looked for; what follows belongs to the message
_ISO = r"\d{4}-\d{2}-\d{2}[T ]\d{1,2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(?:\s?(?:Z|[+-]\d{2}:?\d{2}))?(?![\d:])"
_NEGATIVE = rf"\bin\s+(?:-\s*\d|minus\b)|\b{DURATION}\s+ago\b"
_IN_PART = rf"(?:in\s+the|at|this)\s+{PART}"


def _form(name: str, pattern: str, strength: int) -> tuple[str, re.Pattern[str], int]:
    return name, re.compile(rf"(?<![\w./-]){pattern}(?![\w])", re.IGNORECASE), strength


@functools.cache
def _forms() -> tuple[tuple[str, re.Pattern[str], int], ...]:
    """What to look for: its reader's name, the pattern, how surely it is a time. Compiling them takes 40 ms: late."""
    clock_behind = rf"(?P<clock2>{CLOCK})(?:\s+{_IN_PART.replace(PART, f'(?P<part2>{PART})')})?"
    return (
        _form("iso", rf"(?:(?:at|on)\s+)?(?P<iso>{_ISO})", 4),
        _form("recurring", recurring_pattern(), 5),
        _form(
            "day",
            rf"(?:(?P<clock>{CLOCK})(?:\s+(?:in\s+the|at)\s+(?P<part0>{PART}))?,?\s+|at\s+)?"
            rf"(?P<day>{_LONG_OFFSET}|{_STRONG_DAY})(?:\s+(?:in the\s+)?(?P<part>{PART}))?"
            rf"(?:(?:,|\s+)\s*(?:{clock_behind}|(?P<hour>\d{{1,2}}(?![\w:./%]){NOT_A_THING})))?",
            3,
        ),
        _form(
            "elapsed", rf"(?:in|after)\s+(?:about\s+|around\s+)?(?P<elapsed>{DURATION})(?:\s+from now|['’]\s+time)?", 3
        ),
        _form("elapsed", rf"(?P<elapsed>{DURATION})\s+(?:from now|later)", 3),
        _form("clock", rf"(?P<clock>{CLOCK})(?:\s+(?P<part>{PART_OF_DAY}|today|tonight))?", 2),
        _form("clock", rf"(?P<part>{PART_OF_DAY}),?\s+(?P<clock>{CLOCK})", 2),
        _form("part", rf"(?P<part>{PART_OF_DAY})", 2),
        _form("day", rf"(?P<day>{WEEKDAY})(?:\s+(?P<part>{PART}))?(?:,|\s+)\s*{clock_behind}", 2),
        _form("day", rf"(?<!the )(?P<day>{WEEKDAY})(?:\s+(?P<part>{PART}))?", 1),
    )


_NO_LIMITS = Policy()
_said = functools.partial(zone_label, reader=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A sentence with a time in it, or with an event to wait for."""

    schedule: ScheduleSpec
    message: str = ""  # the sentence without the time; may be empty
    phrase: str  # the words that were read as the time
    note: str = ""  # what was assumed, as a sentence, when the words left something open
    policy: Policy = _NO_LIMITS  # where the sentence bounds a recurrence (``until …``, ``3 times``)
    period: Period | None = None  # the days or hours from now, where the words count them


def read(text: str, now: datetime, zone: str) -> Timed | None:
    """The time phrase of a sentence and its message; None when there is none.

    ``now`` is aware, ``zone`` an IANA name. Raises InvalidSchedule for times that cannot be: past, 25:00, zero.
    """
    text, tail = text[:_LONGEST], text[_LONGEST:]
    best = _best(text)
    if best is None:
        if re.search(_NEGATIVE, text, re.IGNORECASE):
            raise InvalidSchedule("That time is in the past; a recall needs a time to come.")
        return None
    name, match = best
    if another := ANOTHER_HOUR.match(text, match.end()):
        raise HalfRead(match[0], another[0])
    zone, end = zone_behind(text, match.end(), zone)
    timed = _READERS[name](match, now.astimezone(ZoneInfo(zone)), zone)
    return replace(timed, phrase=text[match.start() : end].strip(), message=_rest(text, match.start(), end) + tail)


def read_when(text: str, now: datetime, zone: str) -> Timed:
    """A text that is all time: a phrase, ``10m``, ISO 8601, or five cron fields. Raises InvalidSchedule."""
    words = text.strip().strip("\"'").strip()
    if (simple := _exact_form(words, now, zone)) is not None:
        return simple
    try:
        timed = read(words, now, zone)
    except HalfRead:  # it is in quotation marks, or alone
        timed = None
    if timed is not None and not re.sub(r"[\W_]|\bplease\b", "", timed.message):
        return timed
    raise InvalidSchedule(
        f"I do not understand {words[:80]!r} as a time. Say it like 'in 10 minutes', 'tomorrow at 8:30', "
        "'every weekday at 9' or 'every other friday at 16:00'.",
        field="when",
    )


def read_leading(text: str, now: datetime, zone: str) -> Timed | None:
    """A sentence that begins with its time: ``every other friday at 16:00 check the loss``; None where it does not.

    Raises InvalidSchedule, also where what follows looks like more of the time than was understood: acting on a part of
    a time would fire at the wrong one.
    """
    text = text.lstrip()
    if quoted := QUOTED.match(text):
        words = (quoted["cron"] or "") + (quoted["a"] or quoted["b"])
        if _exact_form(words, now, zone) is None and _best(words) is None:
            return None  # it quotes something else
        return replace(read_when(words, now, zone), message=_rest(text, 0, quoted.end()))
    exact = _LEADING.match(text)
    if exact and (form := _exact_form(exact[0].strip(), now, zone)) is not None:
        return replace(form, message=_rest(text, 0, exact.end()))
    timed = read(text, now, zone)
    if timed is None or not text.lower().startswith(timed.phrase.lower()):
        return None
    if more := MORE_OF_A_TIME.match(text, len(timed.phrase)):
        raise HalfRead(timed.phrase, more[0])
    return timed


_FIELD = (
    r"(?:(?:[\d*,/?#LW-]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat)+|[HR]\S*)(?!\w)"
)
"""Of a cron expression. What is in it is judged where schedules are checked."""
_LEADING = re.compile(
    rf"(?:(?:cron:?\s+)?(?:[\d*]\S*(?<=[\d*,/-])\s+(?:{_FIELD}\s+){{3}}{_FIELD}|@[a-z]+)"
    rf"|{DURATION}(?!\s+(?:ago|from|later|before|after|of|in|on|at|until|and|every)\b|[^\s,;:]))(?=[\s,;:]|$)",
    re.IGNORECASE,
)
"""Cron fields and bare durations, which are times only where a sentence begins with them."""


def _exact_form(words: str, now: datetime, zone: str) -> Timed | None:
    try:
        return _after(Period.parse(words), words)
    except ValueError:
        pass
    if re.fullmatch(DURATION, words, re.IGNORECASE):
        return _after(read_duration(words), words)
    cron = re.fullmatch(rf"(?:cron:?\s+)?['\"]?((?:{_FIELD}\s+){{4,5}}{_FIELD}|@[a-z]+)['\"]?", words, re.IGNORECASE)
    if cron and re.match(r"[\d*@]", cron[1]):
        return Timed(schedule=CronSpec(kind="cron", expr=cron[1], tz=zone), phrase=words)
    try:
        at = datetime.fromisoformat(words)
    except ValueError:
        return None
    if not re.search(r"\d[T ]\d", words):
        return None  # a bare date: the grammar gives it a time of day
    return _once(at if at.tzinfo else _at(at, zone), now, words)


def _best(text: str) -> tuple[str, re.Match[str]] | None:
    """The phrase that is most surely meant: the strongest form; at an end of the sentence; the longest; the first."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip(" .!?,;:\n\t"))

    def rank(item: tuple[str, re.Match[str], int]) -> tuple[int, bool, int, int]:
        _, match, strength = item
        # Also behind "remind me", "check back", …
        follows_trigger = text[: match.start()].rstrip().lower().endswith(("me", "back", "up", "recall", "again"))
        outer = match.start() <= start or match.end() >= end or follows_trigger
        return (strength, outer, match.end() - match.start(), -match.start())

    found = [(name, match, strength) for name, form, strength in _forms() for match in form.finditer(text)]
    return max(found, key=rank)[:2] if found else None


def _rest(text: str, start: int, end: int) -> str:
    before, after = text[:start].rstrip(" \t,;:-"), text[end:].lstrip(" \t,;:-").rstrip()
    if not before.strip():
        after = re.sub(r"^\.(?=\s)\s*", "", after)
        after = re.sub(r"^(?:then|please)\b[ ,]*", "", after, flags=re.IGNORECASE)
    joined = f"{before.strip()} {after}".strip() if after[:1] not in ".!?" else f"{before.strip()}{after}"
    return re.sub(r"[ \t]{2,}", " ", joined).strip() if before.strip() else joined.strip()


def _read_iso(match: re.Match[str], now: datetime, zone: str) -> Timed:
    text = re.sub(r"T(\d):", r"T0\1:", match["iso"].replace(" ", "T", 1).replace(" ", ""))
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidSchedule(f"{match['iso']!r} is no date and time: {error}.") from None
    return _once(at if at.tzinfo else _at(at, zone), now, match[0])


def _read_recurring(match: re.Match[str], now: datetime, zone: str) -> Timed:
    schedule, note = read_recurrence(match, now, zone)
    policy = Policy(max_fires=int(match["rtimes"]) if match["rtimes"] else 2 if match["rtwice"] else None)
    if until := match["runtil"]:
        until = f"at {until}" if until.isdigit() else until
        policy = policy.model_copy(update={"until": read_until(until, now, zone)})
    if (match["rstart"] or "now").lower() != "now":
        schedule = _started(schedule, match, now, zone)
    if match["rlasting"]:
        policy = policy.model_copy(update={"until": read_duration(match["rlasting"]).after(now, ZoneInfo(zone))})
    return Timed(schedule=schedule, phrase=match[0], note=note, policy=policy)


def read_until(phrase: str, now: datetime, zone: str) -> datetime:
    """The end of a recurrence: ``friday`` is that whole day, ``friday at 9`` an instant. Raises InvalidSchedule."""
    at = _instant(phrase, now, zone, "until")
    if re.search(rf"{CLOCK}|tonight|\d[T ]\d|\d\s*[smh]", phrase, re.IGNORECASE):
        return at
    # a day alone counts as a whole.
    return _on(at.astimezone(ZoneInfo(zone)).date(), time(23, 59, 59), zone)


def _started(schedule: EverySpec | CronSpec, match: re.Match[str], now: datetime, zone: str) -> EverySpec:
    """With a first time. Raises InvalidSchedule for a rule that cannot begin later."""
    start = _instant(match["rstart"], now, zone, "start")
    if isinstance(schedule, EverySpec):
        return schedule.model_copy(update={"start": start})
    minute, hour, *days = schedule.expr.split()
    local = start.astimezone(ZoneInfo(zone))
    if re.search(CLOCK, match["rstart"], re.IGNORECASE) is None and minute.isdigit() and hour.isdigit():
        local = local.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    if days == ["*", "*", "*"] and (match["rclock"] is None or hour.isdigit()):
        return EverySpec(kind="every", every=Period(days=1), start=local, tz=zone)
    raise InvalidSchedule("Such a rule has no first day; make the recall then, or leave the start out.")


def _instant(phrase: str, now: datetime, zone: str, what: str) -> datetime:
    timed = read_when(phrase, now, zone)
    if not isinstance(timed.schedule, OnceSpec):
        raise InvalidSchedule(f"{phrase!r} is no single time to {what}.")
    return timed.schedule.at or (timed.schedule.in_ or Period()).after(now, ZoneInfo(zone))


def _read_elapsed(match: re.Match[str], now: datetime, zone: str) -> Timed:
    del now, zone  # applied where the schedule is stored
    return _after(read_duration(match["elapsed"]), match[0])


def _after(period: Period, phrase: str) -> Timed:
    schedule = OnceSpec.model_validate({"kind": "once", "in": period})
    return Timed(schedule=schedule, phrase=phrase, period=period)


def _read_clock(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = (match["part"] or "").lower().split(" ")[-1] or None
    clock = read_clock(match["clock"], part=part)
    at = _on(now.date(), clock, zone)
    if at <= now and (part in ("today", "tonight") or (match["part"] or "").lower().startswith("this")):
        later = f"; write {clock.hour + 12}:{clock:%M} for the evening" if clock.hour < 12 else ""
        raise InvalidSchedule(f"{match[0].strip()!r} is already past: it is {now:%H:%M} in {_said(zone)}{later}.")
    if at <= now:
        at = _on(now.date() + timedelta(days=1), clock, zone)
    return replace(_once(at, now, match[0]), note=morning_note(match["clock"], clock, part))


def _read_part(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = match["part"].lower().split()[-1]
    at = _on(now.date(), PARTS_OF_DAY[part], zone)
    if at <= now:
        if match["part"].lower().startswith("this"):
            raise InvalidSchedule(
                f"{match[0].strip()!r} has begun: it is {now:%H:%M} in {_said(zone)}; give a time of day."
            )
        at = _on(now.date() + timedelta(days=1), PARTS_OF_DAY[part], zone)
    return _once(at, now, match[0])


def _read_day(match: re.Match[str], now: datetime, zone: str) -> Timed:
    groups = {name: text.lower() for name, text in match.groupdict().items() if text is not None}
    clock_text = groups.get("clock") or groups.get("clock2") or groups.get("hour")
    part = groups.get("part") or groups.get("part2") or groups.get("part0")
    day = re.sub(r"\s+", " ", groups["day"])
    if day.endswith("ago"):
        raise InvalidSchedule(f"{day!r} is in the past; a recall needs a time to come.")
    counted = re.fullmatch(r"in (.*(?:day|week)s?)", day)
    period = read_duration(counted[1]) if counted else None
    on = now.date() + timedelta(days=period.days) if period else read_date(day, now)
    note = f"I read {day.removeprefix('on ')} as {on:%d %B %Y}" if "/" in day else ""
    if clock_text:
        clock = read_clock(clock_text, part="tonight" if day == "tonight" else part)
        note = note or morning_note(clock_text, clock, part or (day if day == "tonight" else None))
        period = None
    else:
        clock = _default_time(day, part, now)
        if not (note or part or day == "tonight" or _keeps_time(day)):
            note = f"no time of day given, so {clock:%H:%M}"
    at = _on(on, clock, zone)
    if at <= now and on == now.date() and clock_text and clock.hour < 12 and not re.search(r"[ap]\.?m", clock_text):
        note = f" Write {clock.hour + 12}:{clock:%M} for the evening."
        raise InvalidSchedule(f"{match[0].strip()!r} is in the past: it is {now:%H:%M} in {_said(zone)}.{note}")
    return replace(_once(at, now, match[0]), note=note, period=None if part else period)


def _default_time(day: str, part: str | None, now: datetime) -> time:
    if part:
        return PARTS_OF_DAY[part]
    if day == "tonight":
        return time(20) if now.time() < time(20) else time(22)
    return now.time() if _keeps_time(day) else time(9)


def _keeps_time(day: str) -> bool:
    """Whether such a day means "at this time of day": "in 3 days", "next week"."""
    return day.startswith("in ") or day in ("next week", "next month", "next year")


def _on(day: date, clock: time, zone: str) -> datetime:
    return _at(datetime.combine(day, clock), zone)


def _at(wall: datetime, zone: str) -> datetime:
    """A wall-clock time in a zone; one that the change of the clocks leaves out is moved on by the gap."""
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))


def _once(at: datetime, now: datetime, phrase: str) -> Timed:
    if at <= now:
        raise InvalidSchedule(
            f"{phrase.strip()!r} is in the past: that was {at:%a %d %b %Y %H:%M} and it is {now:%a %d %b %Y %H:%M} now."
        )
    return Timed(schedule=OnceSpec(kind="once", at=at), phrase=phrase)


_READERS = {
    "iso": _read_iso,
    "recurring": _read_recurring,
    "elapsed": _read_elapsed,
    "clock": _read_clock,
    "part": _read_part,
    "day": _read_day,
}
