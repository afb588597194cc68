"""English times -> schedules: "tomorrow at 8:30", "in an hour and a half", "every weekday at 9".

Finds the phrase anywhere in a sentence and gives back the rest of it as the message. Days and dates are read by
``dateparser``; durations are ours because they count elapsed time across a change of the clocks. Not responsible for
whether a schedule is allowed: that is the recall desk.

Days and dates are read by dateparser, which is slow to import: async callers go through :func:`read_in_thread`.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..clock import parse_duration
from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec, OnceSpec, Policy
from .clock_times import CLOCK, DURATION, PART_OF_DAY, PARTS_OF_DAY, WEEKDAY, ClockTime, read_clock, read_duration
from .dates import read_date
from .recurrence import RECURRING, Recurrence, read_recurring
from .rhythms import RHYTHM, read_rhythm

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_ORDINAL = r"\d{1,2}(?:st|nd|rd|th)?"
_DATE = (
    rf"(?:(?:the\s+)?{_ORDINAL}(?:\s+of)?\s+{_MONTH}\b\.?(?:,?\s+\d{{4}})?"
    rf"|{_MONTH}\.?\s+{_ORDINAL}\b(?:,?\s+\d{{4}}\b)?"
    r"|\d{4}-\d{2}-\d{2}|\d{1,2}\.\d{1,2}\.(?:\d{4})?|\d{1,2}/\d{1,2}/\d{4})"
)
_PART = r"(?:morning|afternoon|evening|night|noon|midday|lunchtime)"
_STRONG_DAY = (
    rf"(?:(?:the\s+)?day after tomorrow|tomorrow|today|tonight|(?:on\s+)?{_DATE}|on the \d{{1,2}}(?:st|nd|rd|th)"
    rf"|(?:on|next|this|coming|this coming)\s+{WEEKDAY}\b|next (?:week|month|year)|yesterday|last (?:week|night"
    rf"|{WEEKDAY})"
    rf"|(?:in\s+)?{DURATION}\s+ago)"
)
_LONG_OFFSET = (
    r"in\s+(?:\d{1,4}|a|an|one|two|three|four|five|six|seven|ten|a couple of|a few)\s+(?:days?|weeks?|months?|years?)\b"
)
_LONGEST = 1000
"""Characters in which a time is looked for; what follows belongs to the message."""
_ISO = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?\s?(?:Z|[+-]\d{2}:?\d{2})?(?![\d:])"


def _form(name: str, pattern: str, strength: int) -> tuple[str, re.Pattern[str], int]:
    return name, re.compile(rf"(?<![\w./-]){pattern}(?![\w])", re.IGNORECASE), strength


_NEGATIVE = rf"\bin\s+(?:-\s*\d|minus\b)|\b{DURATION}\s+ago\b"


@functools.cache
def _forms() -> tuple[tuple[str, re.Pattern[str], int], ...]:
    """What to look for: its reader's name, the pattern, how surely it is a time. Compiling them takes 40 ms: late."""
    return (
        _form("iso", rf"(?:(?:at|on)\s+)?(?P<iso>{_ISO})", 4),
        _form("rhythm", RHYTHM, 5),
        _form("recurring", RECURRING, 4),
        _form(
            "day",
            rf"(?:(?P<clock>{CLOCK}),?\s+)?(?P<day>{_LONG_OFFSET}|{_STRONG_DAY})(?:\s+(?:in the\s+)?(?P<part>{_PART}))?"
            rf"(?:(?:,|\s+)\s*(?P<clock2>{CLOCK}|\d{{1,2}}(?![\w:./%]))(?:\s+in\s+the\s+(?P<part2>{_PART}))?)?",
            3,
        ),
        _form("elapsed", rf"(?:in|after)\s+(?:about\s+|around\s+)?(?P<elapsed>{DURATION})(?:\s+from now)?", 3),
        _form("elapsed", rf"(?P<elapsed>{DURATION})\s+(?:from now|later)", 3),
        _form("clock", rf"(?P<clock>{CLOCK})(?:\s+(?P<part>{PART_OF_DAY}|today|tonight))?", 2),
        _form("part", rf"(?P<part>{PART_OF_DAY})", 2),
        _form("day", rf"(?P<day>{WEEKDAY})(?:\s+(?P<part>{_PART}))?(?:(?:,|\s+)\s*(?P<clock2>{CLOCK}))", 2),
        _form("day", rf"(?<!the )(?P<day>{WEEKDAY})(?:\s+(?P<part>{_PART}))?", 1),
    )


_NO_LIMITS = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """A sentence with a time in it."""

    schedule: OnceSpec | EverySpec | CronSpec
    message: str
    """The sentence without the time; may be empty."""
    phrase: str
    """The words that were read as the time."""
    note: str = ""
    """What was assumed, as a sentence, when the words left something open."""
    policy: Policy = _NO_LIMITS
    """Where the sentence says when to stop (``until …``, ``3 times``)."""


async def read_in_thread(text: str, now: datetime, zone: str) -> Timed | None:
    """:func:`read` off the event loop, because of dateparser's import and first call."""
    return await asyncio.to_thread(read, text, now, zone)


async def read_when_in_thread(text: str, now: datetime, zone: str) -> Timed:
    """:func:`read_when` off the event loop."""
    return await asyncio.to_thread(read_when, text, now, zone)


def read(text: str, now: datetime, zone: str) -> Timed | None:
    """The time phrase of a sentence and its message; None when there is none.

    ``now`` is aware, ``zone`` an IANA name. Raises InvalidSchedule for times that can not be: past, 25:00, zero.
    """
    text, tail = text[:_LONGEST], text[_LONGEST:]
    best = _best(text)
    if best is None:
        if re.search(_NEGATIVE, text, re.IGNORECASE):
            raise InvalidSchedule("That time is in the past; a recall needs a time to come.")
        return None
    name, match = best
    zone, end = _named_zone(text, match.end(), zone)
    timed = _READERS[name](match, now.astimezone(ZoneInfo(zone)), zone)
    return replace(timed, phrase=text[match.start() : end].strip(), message=_rest(text, match.start(), end) + tail)


def read_when(text: str, now: datetime, zone: str) -> Timed:
    """A text that is all time: a phrase, ``10m``, ISO 8601, or five cron fields. Raises InvalidSchedule."""
    words = text.strip().strip("\"'").strip()
    if (simple := _exact_form(words, now, zone)) is not None:
        return simple
    timed = read(words, now, zone)
    if timed is not None and not re.sub(r"[\W_]|\bplease\b", "", timed.message):
        return timed
    raise InvalidSchedule(
        f"I do not understand {words[:80]!r} as a time. Say it like 'in 10 minutes', 'tomorrow at 8:30', "
        "'every weekday at 9' or 'every other friday at 16:00'.",
        field="when",
    )


_FIELD = (
    r"(?:(?:[\d*,/?#LW-]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat)+|[HR]\S*)(?!\w)"
)
"""Of a cron expression. What is in it is judged where schedules are checked."""


def _exact_form(words: str, now: datetime, zone: str) -> Timed | None:
    try:
        return Timed(schedule=_after(parse_duration(words)), message="", phrase=words)
    except ValueError:
        pass
    if re.fullmatch(DURATION, words, re.IGNORECASE):
        return Timed(schedule=_after(read_duration(words)), message="", phrase=words)
    cron = re.fullmatch(rf"(?:cron:?\s+)?['\"]?((?:{_FIELD}\s+){{4,5}}{_FIELD}|@[a-z]+)['\"]?", words, re.IGNORECASE)
    if cron and re.match(r"[\d*@]", cron[1]):
        return Timed(schedule=CronSpec(kind="cron", expr=cron[1], tz=zone), message="", phrase=words)
    try:
        at = datetime.fromisoformat(words)
    except ValueError:
        return None
    if not re.search(r"\d[T ]\d", words):
        return None  # a bare date: the grammar gives it a time of day
    return _once(at if at.tzinfo else _at(at, ZoneInfo(zone)), now, words)


_ZONE = re.compile(r"\s+\(?(?P<name>UTC|GMT|[A-Z][A-Za-z]+/[A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_]+)?)\b\)?")
_VAGUE_ZONE = re.compile(r"\s+(?P<name>[ECMP][SDE]T|CEST|BST|IST|JST|AEST|AEDT|MEZ|MESZ)\b")


def _named_zone(text: str, end: int, zone: str) -> tuple[str, int]:
    """The zone that is named right after a time ("at 17:00 UTC"), and where its name ends; else the given one."""
    if vague := _VAGUE_ZONE.match(text, end):
        raise InvalidSchedule(
            f"{vague['name']} can mean several zones; name one like Europe/Berlin, or leave it out for {zone}."
        )
    match = _ZONE.match(text, end)
    if match is None:
        return zone, end
    name = "UTC" if match["name"] == "GMT" else match["name"]
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return zone, end
    return name, match.end()


# --- finding the phrase ----------------------------------------------------------------------------------------------


def _best(text: str) -> tuple[str, re.Match[str]] | None:
    """The phrase that is most surely meant: the strongest form; at an end of the sentence; the longest; the first."""
    found = [(name, match, strength) for name, match, strength in _candidates(text)]
    if not found:
        return None
    end = len(text.rstrip(" .!?,;:\n\t"))

    def rank(item: tuple[str, re.Match[str], int]) -> tuple[int, bool, int, int]:
        _, match, strength = item
        outer = match.start() <= len(text) - len(text.lstrip()) or match.end() >= end or _after_trigger(text, match)
        return (strength, outer, match.end() - match.start(), -match.start())

    name, match, _ = max(found, key=rank)
    return name, match


def _after_trigger(text: str, match: re.Match[str]) -> bool:
    """Whether it follows "remind me", "check back", … directly."""
    before = text[: match.start()].rstrip().lower()
    return before.endswith(("me", "back", "up", "recall", "again"))


def _candidates(text: str) -> Iterator[tuple[str, re.Match[str], int]]:
    for name, pattern, strength in _forms():
        for match in pattern.finditer(text):
            yield name, match, strength


def _rest(text: str, start: int, end: int) -> str:
    before, after = text[:start].rstrip(" \t,;:-"), text[end:].lstrip(" \t,;:-").rstrip()
    if not before.strip():
        after = re.sub(r"^(?:then|please)\b[ ,]*", "", after, flags=re.IGNORECASE)
    joined = f"{before.strip()} {after}".strip() if after[:1] not in ".!?" else f"{before.strip()}{after}"
    return re.sub(r"[ \t]{2,}", " ", joined).strip()


# --- reading it ------------------------------------------------------------------------------------------------------


def _read_iso(match: re.Match[str], now: datetime, zone: str) -> Timed:
    try:
        at = datetime.fromisoformat(match["iso"].replace(" ", "T", 1).replace(" ", ""))
    except ValueError as error:
        raise InvalidSchedule(f"{match['iso']!r} is no date and time: {error}.") from None
    return _once(at if at.tzinfo else _at(at, ZoneInfo(zone)), now, match[0])


def _read_recurring(match: re.Match[str], now: datetime, zone: str) -> Timed:
    return _recurring(match, read_recurring(match, now, zone), now, zone)


def _read_rhythm(match: re.Match[str], now: datetime, zone: str) -> Timed:
    return _recurring(match, read_rhythm(match, now, zone), now, zone)


def _recurring(match: re.Match[str], found: Recurrence, now: datetime, zone: str) -> Timed:
    policy = Policy(max_fires=found.times)
    schedule = found.schedule
    if found.until:
        policy = policy.model_copy(update={"until": _until(found.until, now, zone)})
    if found.start:
        schedule = _started(schedule, _instant(found.start, now, zone, "start"), zone, said=match)
    if found.lasting:
        policy = policy.model_copy(update={"until": now.astimezone(UTC) + read_duration(found.lasting)})
    return Timed(schedule=schedule, message="", phrase=match[0], note=found.note, policy=policy)


def _until(phrase: str, now: datetime, zone: str) -> datetime:
    """A day alone counts as a whole."""
    at = _instant(phrase, now, zone, "until")
    if re.search(CLOCK, phrase, re.IGNORECASE) or "tonight" in phrase.lower():
        return at
    return _at(datetime.combine(at.astimezone(ZoneInfo(zone)).date(), time(23, 59, 59)), ZoneInfo(zone))


def _started(schedule: EverySpec | CronSpec, start: datetime, zone: str, *, said: re.Match[str]) -> EverySpec:
    """With a first time. Raises InvalidSchedule for a rhythm that can not begin later."""
    if isinstance(schedule, EverySpec):
        return schedule.model_copy(update={"start": start})
    minute, hour, *days = schedule.expr.split()
    local = start.astimezone(ZoneInfo(zone))
    if re.search(CLOCK, said["rstart"], re.IGNORECASE) is None and minute.isdigit() and hour.isdigit():
        local = local.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    if days == ["*", "*", "*"] and (said["rclock"] is None or hour.isdigit()):
        return EverySpec(kind="every", every=timedelta(days=1), start=local, tz=zone)
    raise InvalidSchedule("Such a rhythm has no first day; make the recall then, or leave the start out.")


def _instant(phrase: str, now: datetime, zone: str, what: str) -> datetime:
    timed = read_when(phrase, now, zone)
    if not isinstance(timed.schedule, OnceSpec):
        raise InvalidSchedule(f"{phrase!r} is no single time to {what}.")
    return timed.schedule.at or now.astimezone(UTC) + (timed.schedule.in_ or timedelta(0))


def _read_elapsed(match: re.Match[str], now: datetime, zone: str) -> Timed:
    del now, zone  # elapsed time is the same everywhere
    return Timed(schedule=_after(read_duration(match["elapsed"])), message="", phrase=match[0])


def _after(elapsed: timedelta) -> OnceSpec:
    return OnceSpec.model_validate({"kind": "once", "in": elapsed})


def _read_clock(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = (match["part"] or "").lower().split(" ")[-1] or None
    said = read_clock(match["clock"], part=part)
    at, note = _next_of(said, now, ZoneInfo(zone))
    if part in ("today", "tonight") and at.astimezone(now.tzinfo).date() != now.date():
        raise InvalidSchedule(f"{match[0].strip()!r} is already past: it is {now:%H:%M} in {zone}.")
    return replace(_once(at, now, match[0]), note=note)


def _read_part(match: re.Match[str], now: datetime, zone: str) -> Timed:
    part = match["part"].lower().split()[-1]
    at = _at(datetime.combine(now.date(), PARTS_OF_DAY[part]), ZoneInfo(zone))
    if at <= now:
        if match["part"].lower().startswith("this"):
            raise InvalidSchedule(f"{match[0].strip()!r} has begun: it is {now:%H:%M} in {zone}; give a time of day.")
        at = _at(datetime.combine(now.date() + timedelta(days=1), PARTS_OF_DAY[part]), ZoneInfo(zone))
    return _once(at, now, match[0])


def _read_day(match: re.Match[str], now: datetime, zone: str) -> Timed:
    groups = match.groupdict()
    said = groups.get("clock") or groups.get("clock2")
    part = (groups.get("part") or groups.get("part2") or "").lower() or None
    day = re.sub(r"\s+", " ", match["day"].lower())
    if day.endswith("ago"):
        raise InvalidSchedule(f"{day!r} is in the past; a recall needs a time to come.")
    date = read_date(day, now)
    note = f"I read {day.removeprefix('on ')} as {date:%d %B %Y}" if "/" in day else ""
    if said:
        reading = read_clock(said, part="tonight" if day == "tonight" else part)
        at_time, assumed = _time_on(reading, date == now.date(), now)
        note = note or assumed
    else:
        at_time = _default_time(day, part, now)
        if not (note or part or day == "tonight" or _keeps_time(day)):
            note = f"no time of day given, so {at_time:%H:%M}"
    return replace(_once(_at(datetime.combine(date, at_time), ZoneInfo(zone)), now, match[0]), note=note)


def _time_on(said: ClockTime, today: bool, now: datetime) -> tuple[time, str]:
    """The time of day on a given day; today only what is still to come counts."""
    choices = said.choices()
    if today:
        choices = tuple(choice for choice in choices if choice > now.time()) or choices
        chosen = choices[0]
    else:
        chosen = said.likely()
    return chosen, _assumption(said, chosen)


def _assumption(said: ClockTime, chosen: time) -> str:
    if not said.ambiguous or chosen == said.at:
        return ""
    return f"I read {said.at.hour}:{said.at:%M} as {chosen:%H:%M}; write {said.at:%H:%M} for the morning"


def _default_time(day: str, part: str | None, now: datetime) -> time:
    if part:
        return PARTS_OF_DAY[part]
    if day == "tonight":
        return time(20) if now.time() < time(20) else time(22)
    if _keeps_time(day):
        return now.time().replace(second=0, microsecond=0)
    return time(9)


def _keeps_time(day: str) -> bool:
    """Whether a day said so means "at this time of day": "in 3 days", "today"."""
    return day.startswith("in ") or day in ("next week", "next month", "next year")


def _next_of(said: ClockTime, now: datetime, zone: tzinfo) -> tuple[datetime, str]:
    """The next time the clock shows this while people are awake, else the next time at all."""
    days = (now.date(), now.date() + timedelta(days=1))
    coming = [(_at(datetime.combine(day, choice), zone), choice) for day in days for choice in said.choices()]
    coming = [(at, choice) for at, choice in coming if at > now]
    awake = [item for item in coming if not said.ambiguous or 6 <= item[1].hour < 23]
    at, chosen = (awake or coming)[0]
    return at, _assumption(said, chosen)


def _at(wall: datetime, zone: tzinfo) -> datetime:
    """A wall-clock time in a zone; one that the change of the clocks leaves out is moved on by the gap."""
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone)


def _once(at: datetime, now: datetime, phrase: str) -> Timed:
    if at <= now:
        raise InvalidSchedule(
            f"{phrase.strip()!r} is in the past: that was {at:%a %d %b %Y %H:%M} and it is {now:%a %d %b %Y %H:%M} now."
        )
    return Timed(schedule=OnceSpec(kind="once", at=at), message="", phrase=phrase)


_READERS = {
    "iso": _read_iso,
    "recurring": _read_recurring,
    "rhythm": _read_rhythm,
    "elapsed": _read_elapsed,
    "clock": _read_clock,
    "part": _read_part,
    "day": _read_day,
}
