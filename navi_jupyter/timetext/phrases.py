"""Words that are all time -> schedules: "every weekday at 9 until friday", "10 minutes before noon", ``10m``, cron.

All of the words are understood, or they are refused with how to write them.
"""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ..clock import Period
from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec, OnceSpec, ScheduleSpec
from .clocks import BARE_HOUR, CLOCK, EXACT_CLOCK
from .days import dates_of
from .durations import DURATION, NUMBER, UNIT, number, read_duration
from .extent import HalfRead
from .instants import ONCE_READERS, Timed, form_of, in_period, on_day, once_at, once_forms, wall_time
from .recurrence import read_recurrence, recurring_pattern
from .zones import cut_zone


@functools.cache
def forms() -> tuple[tuple[str, re.Pattern[str], int], ...]:
    """What to look for: its reader's name, the pattern, how surely it is a time. Compiling them takes 40 ms: late."""
    return (form_of("recurring", recurring_pattern(), 5), *once_forms())


def read_when(text: str, now: datetime, zone: str) -> Timed:
    """A text that is all time: a phrase, ``10m``, ISO 8601, or five cron fields. Raises InvalidSchedule."""
    words = text.strip().strip("\"'").strip()
    words = re.sub(r"^please\s+|^@(?=every\b)|[\s,]+please$", "", words, flags=re.IGNORECASE)
    if (simple := exact_form(words, now, zone)) is not None:
        return simple
    refuse_vague(words)
    try:
        return read_stretch(words, now, zone, understood=words)
    except HalfRead as half:
        hint = f"{half.hint}. " if half.hint else ""
    raise InvalidSchedule(
        f"I do not understand {words[:80]!r} as a time. {hint}Say it like 'in 10 minutes', 'tomorrow at 8:30', "
        "'every weekday at 9' or 'every other friday at 16:00'.",
        field="when",
    )


_NEGATIVE = rf"\bin\s+(?:-\s*\d|minus\b)|\b{DURATION}\s+ago\b"


def refuse_vague(words: str) -> None:
    """Raises InvalidSchedule for durations that are in the past, or leave open how long they are."""
    if re.search(_NEGATIVE, words, re.IGNORECASE):
        raise InvalidSchedule("That time is in the past; a recall needs a time to come.")
    if vague := _VAGUE.search(words):
        raise InvalidSchedule(f"{vague[0]!r} leaves open when; name one duration, such as in 10 minutes.")


MAX_PHRASE = 200
"""Characters of one time. The longest in use has some 80; each level of ``a day after a day after …`` reads all."""


def read_stretch(words: str, now: datetime, zone: str, *, understood: str) -> Timed:
    """The meaning of a stretch of words, all of it. Raises InvalidSchedule; HalfRead where it has none."""
    words = re.sub(r"\s+", " ", words)
    if len(words) > MAX_PHRASE:
        raise InvalidSchedule(f"{words[:40].strip()!r} … is too long for a time: at most {MAX_PHRASE} characters.")
    plain, zone = cut_zone(words, zone)
    plain = plain.strip(" ,;:!?")
    if not re.search(r"(?<![\d.])\d{1,2}\.\d{1,2}\.$", plain):  # the point of ``24.12.`` belongs to it
        plain = plain.rstrip(".")
    local = now.astimezone(ZoneInfo(zone))
    if (timed := _fitting(plain, local, zone)) is not None:
        return timed
    if (timed := _bounded(plain, local, zone)) is not None:
        return timed
    if beside := re.fullmatch(
        rf"(?P<by>{DURATION})\s+(?P<side>before|after|from)\s+(?P<anchor>.+)", plain, re.IGNORECASE
    ):
        return _beside(beside, local, zone)
    more = plain.lower().replace(understood.strip().lower(), " … ").strip(" ,…") or plain
    raise HalfRead(understood, more, _hint(plain))


def _fitting(words: str, now: datetime, zone: str) -> Timed | None:
    """By the strongest form that fits all of the words."""
    fitting = [(strength, name, match) for name, form, strength in forms() if (match := form.fullmatch(words))]
    if not fitting:
        return None
    _, name, match = max(fitting, key=lambda item: item[0])
    return _read_recurring(match, now, zone) if name == "recurring" else ONCE_READERS[name](match, now, zone)


_RANGE = re.compile(
    rf"(?:{CLOCK}|{BARE_HOUR})\s*(?:-|–|—|to|till|until|through)\s*(?:{CLOCK}|{BARE_HOUR})|\bbetween\b|\bfrom\b.*\bto\b"
    rf"|\d\s*(?:-|–|to)\s*\d",
    re.IGNORECASE,
)


def _hint(words: str) -> str:
    """How to write what was not understood."""
    if re.search(r"\b(?:until|till?|ending)\b", words):
        return "An end is a day or a time, as in every day at 9 until 24 december"
    if _RANGE.search(words):
        return "A recall has a moment and no range; name when it begins, as in at 13:30"
    if clock := re.fullmatch(r"(?:every|each) (\d{1,2}):(\d\d)", words, re.IGNORECASE):
        return f"Write every day at {clock[1]}:{clock[2]}, or every {int(clock[1])}h{clock[2]}m"
    if hours := re.fullmatch(r"(?:in )?(\d+) ?(?:hours?|hrs?|h) (\d+)", words, re.IGNORECASE):
        return f"Write {hours[1]}h{hours[2]}m"
    if re.search(r"\bevery\b|\beach\b", words):
        return "Times that differ need two recalls; make one for each"
    if len(re.findall(rf"{EXACT_CLOCK}", words, re.IGNORECASE)) > 1 or re.search(r"\bor\b|\band\b", words):
        return "Two times need two recalls, or a rule such as every day at 8am and 8pm"
    if re.search(r"\b(?:before|after)\b", words):
        return "Before and after go with a duration and a time, as in 10 minutes before noon"
    return ""


_BOUND = re.compile(
    rf",?\s*(?<!\w)(?:(?P<until>untill?|['’]?till?|through|thru|up\s+to|ending(?:\s+(?:on|at))?)\s|(?P<start>starting(?:\s+(?:at|on|from))?|beginning(?:\s+(?:at|on))?|from)\s"
    rf"|for\s+(?:the\s+next\s+)?(?=(?P<lasting>{NUMBER}\s+(?:minutes?|hours?|days?|weeks?|months?|years?)$))"
    rf"|(?:for\s+)?(?=(?P<times>{NUMBER}\s+times|twice)$))",
    re.IGNORECASE,
)


def _bounded(words: str, now: datetime, zone: str) -> Timed | None:
    """A recurrence and what bounds it: ``until friday``, ``starting tomorrow``, ``for 2 weeks``, ``3 times``."""
    bounds, head = [], words
    while bound := _last_bound(head):
        bounds.append((bound, head[bound.end() :].strip(" ,")))
        head = head[: bound.start()].strip(" ,")
        if len(bounds) > 3:
            return None
    timed = _fitting(head, now, zone) if bounds and head else None
    if timed is None or isinstance(timed.schedule, OnceSpec):
        return None
    policy = timed.policy
    schedule: ScheduleSpec = timed.schedule
    begins = now
    # The start first: a length is counted from it.
    for bound, value in sorted(bounds, key=lambda item: item[0]["start"] is None):
        if bound["until"]:
            if _of_days(schedule) and not re.search(CLOCK, head, re.IGNORECASE) and (at := re.search(CLOCK, value)):
                raise HalfRead(head, f"until {value}", f"Write {head} {at[0]} until {value.replace(at[0], '').strip()}")
            policy = policy.model_copy(update={"until": _end(words, value, now, zone)})
        elif bound["start"]:
            schedule = _started(schedule, value, now, zone)
            begins = (
                schedule.start.astimezone(now.tzinfo) if isinstance(schedule, EverySpec) and schedule.start else now
            )
        elif bound["lasting"]:
            policy = policy.model_copy(update={"until": _lasting(bound["lasting"], begins, zone)})
        else:
            many = 2 if value.lower() == "twice" else int(number(value.lower().removesuffix("times").strip()))
            policy = policy.model_copy(update={"max_fires": many})
    return replace(timed, schedule=schedule, policy=policy)


def _of_days(schedule: ScheduleSpec) -> bool:
    """Whether it recurs on days, so that a time of day behind its end may be that of the rule."""
    return isinstance(schedule, CronSpec) or (isinstance(schedule, EverySpec) and schedule.every.days > 0)


def _end(words: str, value: str, now: datetime, zone: str) -> datetime:
    try:
        return read_until(value, now, zone)
    except InvalidSchedule as error:
        if error.field != "when":
            raise
        raise HalfRead(words.replace(value, "").strip(), value, _hint("until")) from None


def _last_bound(words: str) -> re.Match[str] | None:
    found = None
    for position in [match.start() for match in re.finditer(r"[,\s]|\A", words)]:
        if match := _BOUND.match(words, position):
            found = match
    return found


def _lasting(words: str, now: datetime, zone: str) -> datetime:
    if re.search(r"months?$|years?$", words, re.IGNORECASE):
        return on_day(next(dates_of(f"in {words}", now.date())), now.time(), zone)
    return read_duration(words).after(now, ZoneInfo(zone))


def _beside(match: re.Match[str], now: datetime, zone: str) -> Timed:
    """``10 minutes before noon``, ``a week from friday``. Raises InvalidSchedule where the anchor is no instant."""
    period, side = read_duration(match["by"]), match["side"].lower()
    if period.elapsed and not re.search(_HAS_CLOCK, match["anchor"], re.IGNORECASE):
        raise InvalidSchedule(f"{match[0]!r} needs a time of day to count from, as in 2 hours before friday at 9.")
    anchor_as_of = now
    if side != "from" and not period.days and not _FROM_NOW.search(match["anchor"]):
        # The next anchor that leaves the time itself ahead: of noon, at 11:55, that of tomorrow.
        anchor_as_of = period.after(now, ZoneInfo(zone)) if side == "before" else now - period.total
    anchor = _instant(match["anchor"], anchor_as_of, zone, f"count {side}")
    if side != "before":
        return once_at(period.after(anchor, ZoneInfo(zone)), now, match[0])
    wall = anchor.astimezone(ZoneInfo(zone)).replace(tzinfo=None) - timedelta(days=period.days)
    day = wall_time(wall, zone) if period.days else anchor
    return once_at((day.astimezone(UTC) - period.elapsed).astimezone(ZoneInfo(zone)), now, match[0])


_FROM_NOW = re.compile(r"\b(?:today|tonight|tomorrow|next|in|this|yesterday)\b", re.IGNORECASE)
"""In a day that is counted from now."""


CRON_FIELD = (
    r"(?:(?:[\d*,/?#LW-]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat)+|[HR]\S*)(?!\w)"
)
"""Of a cron expression. What is in it is judged where schedules are checked."""


def exact_form(words: str, now: datetime, zone: str) -> Timed | None:
    try:
        return in_period(Period.parse(words), words)
    except ValueError:
        pass
    if re.fullmatch(DURATION, words, re.IGNORECASE):
        return in_period(read_duration(words), words)
    fields = rf"(?:{CRON_FIELD}\s+){{4,5}}{CRON_FIELD}"
    cron = re.fullmatch(rf"(?:cron:?\s+)?['\"]?({fields}|@[a-z]+)['\"]?", words, re.IGNORECASE)
    if cron and re.match(r"[\d*@]", cron[1]):
        return Timed(schedule=CronSpec(kind="cron", expr=cron[1], tz=zone), phrase=words)
    try:
        at = datetime.fromisoformat(words)
    except ValueError:
        return None
    if not re.search(r"\d[T ]\d", words):
        return None  # a bare date: the grammar gives it a time of day
    return once_at(at if at.tzinfo else wall_time(at, zone), now, words)


def _read_recurring(match: re.Match[str], now: datetime, zone: str) -> Timed:
    schedule, note = read_recurrence(match, now, zone)
    return Timed(schedule=schedule, phrase=match[0], note=note)


def read_until(phrase: str, now: datetime, zone: str) -> datetime:
    """The end of a recurrence: ``friday`` is that whole day, ``friday at 9`` an instant. Raises InvalidSchedule."""
    phrase = f"at {phrase}" if phrase.isdigit() else phrase
    at = None if re.search(_HAS_CLOCK, phrase, re.IGNORECASE) else _whole_day(phrase, now, zone)
    return at or _instant(phrase, now, zone, "until")


_HAS_CLOCK = rf"{CLOCK}|tonight|\d[T ]\d|\d\s*[smh]\b|hours?\b|minutes?\b|seconds?\b"


def _whole_day(phrase: str, now: datetime, zone: str) -> datetime | None:
    """Its end, which is still to come on the day itself; None where the words name no day."""
    for day in (phrase, f"on {phrase}"):
        try:
            return _instant(f"{day} at 23:59:59", now, zone, "until")
        except InvalidSchedule as error:
            if error.field != "when":
                raise
    return None


def _started(schedule: ScheduleSpec, begins: str, now: datetime, zone: str) -> ScheduleSpec:
    """With a first time. Raises InvalidSchedule for a rule that cannot begin later."""
    if begins.lower() == "now":
        return schedule
    start = _instant(f"at {begins}" if begins.isdigit() else begins, now, zone, "start")
    if isinstance(schedule, EverySpec):
        return schedule.model_copy(update={"start": start})
    if not isinstance(schedule, CronSpec):
        return schedule
    minute, hour, *days = schedule.expr.split()
    local = start.astimezone(ZoneInfo(zone))
    has_clock = re.search(CLOCK, begins, re.IGNORECASE)
    if has_clock is None and minute.isdigit() and hour.isdigit():
        local = local.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    if days == ["*", "*", "*"] and hour.isdigit() and minute.isdigit():
        return EverySpec(kind="every", every=Period(days=1), start=local, tz=zone)
    raise InvalidSchedule("Such a rule has no first day; make the recall then, or leave the start out.")


def _instant(phrase: str, now: datetime, zone: str, what: str) -> datetime:
    timed = read_when(phrase, now, zone)
    if not isinstance(timed.schedule, OnceSpec):
        raise InvalidSchedule(f"{phrase!r} is no single time to {what}.")
    return timed.schedule.at or (timed.schedule.in_ or Period()).after(now, ZoneInfo(zone))


_VAGUE = re.compile(
    rf"\b(?:in|every|after|within)\s+(?:about\s+|around\s+)?(?:\d+\s*[-–]\s*\d+|{NUMBER}\s+(?:to|or)\s+{NUMBER})"
    rf"\s*-?(?:{UNIT}|months?|years?)\b",
    re.IGNORECASE,
)
"""``in 5-10 minutes``."""
