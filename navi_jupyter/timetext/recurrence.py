"""Recurring times in English, as one table of forms: "every 2 hours", "weekdays at 9", "the first Monday of the month".

Elapsed intervals are anchored (:class:`EverySpec`). Days and weeks that are counted are whole days on the wall clock of
the zone (``EverySpec`` with ``tz``), so that 16:00 stays 16:00 across a change of the clocks. What names days is a cron
expression. Not responsible for what bounds a recurrence (``until friday``, ``3 times``): ``parse`` reads those words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from ..clock import Period
from ..errors import InvalidSchedule
from ..model.recalls import CronSpec, EverySpec
from ..text import plain_number
from .clocks import BARE_HOUR, CLOCK, EXACT_CLOCK, PART, morning_note, read_clock
from .days import MONTH, MONTHS, NTH, WEEKDAY, WEEKDAYS, WORKDAY
from .durations import DURATION, NUMBER, UNIT, number, period_of, read_duration

_EVERY = r"(?:every single|every|each|once (?:an?|per|each|every))"
_ON = r"(?:on )?(?:the |every |each )?"
_OF_MONTH = r"(?:of|in) (?:the|each|every|a) month"
_SEP = r"(?:,\s*and |,\s*| and )"
_ORD = r"\d{1,2}(?:st|nd|rd|th)"
_DATE = r"(?:\d{1,2}(?:st|nd|rd|th)?|first|last day)"
_NTH_WORD = rf"(?:{'|'.join(NTH)})"
_COUNT = rf"(?:other|second|third|fourth|2nd|3rd|4th|{NUMBER})"
_PLURAL = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days)"  # by the whole name: ``thurs`` is one Thursday
_SPAN = rf"(?:from )?{WEEKDAY}s?\s*(?:-|–|to|through|till)\s*{WEEKDAY}s?"
_DAYS = rf"(?:(?:all )?{WORKDAY}s|weekends|{_SPAN}|{_PLURAL}(?:{_SEP}{_PLURAL})*)"
"""Days in the plural, which repeat without an ``every``."""
_NAMED = rf"(?:{_SPAN}|{WEEKDAY}s?(?:(?:{_SEP}|\s*&\s*|\s*/\s*| ){WEEKDAY}s?)*|{WORKDAY}|weekend)"
_BETWEEN = r"(?:,\s*and |,\s*| and |\s*&\s*|\s*/\s*| )"
_HALF_CLOCK = r"(?:\d{1,2}(?::\d\d)?\s?[ap]\.?m\b)"
_STEP = rf"(?:(?P<n>{NUMBER}|other|second)\s*-?\s*)?(?P<unit>minutes?|mins?|m|hours?|hrs?|h)"
_STEPS = rf"(?:{_EVERY} {_STEP}|hourly)"
_HOUR = rf"(?:{EXACT_CLOCK}|{BARE_HOUR})"
_TO = r"\s*(?:and|to|till|until|-|–)\s*"
_LEFT_OUT = rf"(?:(?:the )?weekends?|{WEEKDAY}s?(?:(?:,\s*(?:and |or )?| and | or ){WEEKDAY}s?)*)"
_EXCEPT = r"(?:except|but(?: not)?|excluding|other than|apart from|without)(?: for)?(?: on)?"
_PERIOD = (
    rf"(?:half(?: an?)?(?:\s|-)hour|hour and a half|quarter(?:\s|-)hour|{DURATION}(?![a-z])"
    rf"|{_COUNT}\s*-?\s*{UNIT}(?! {WEEKDAY})|hour|minute|second(?! {WEEKDAY}))\b"
)


@dataclass(slots=True)
class _Reading:
    """A rule with the times of day around it; ``note``: what was assumed."""

    rule: str
    clocks: list[time]
    now: datetime
    zone: str
    note: str = ""

    def cron(self, days: str, *, at: time = time(9), times: str = "") -> CronSpec:
        """On ``days`` (the last three fields) at ``times`` (the first two), else at the times of day, else ``at``."""
        clocks = self.clocks or [at]
        if times and self.clocks:
            raise InvalidSchedule(f"{self.rule!r} has its times already; leave out the time of day beside it.")
        if any(one.second for one in clocks):
            raise InvalidSchedule("A rule has times of day in minutes, without seconds.")
        minutes, hours = sorted({one.minute for one in clocks}), sorted({one.hour for one in clocks})
        if len(minutes) * len(hours) != len({(one.hour, one.minute) for one in clocks}):
            raise InvalidSchedule("Different minutes at different hours need two recalls; make one for each time.")
        times = times or f"{','.join(map(str, minutes))} {','.join(map(str, hours))}"
        return CronSpec(kind="cron", expr=f"{times} {days}", tz=self.zone)

    def next_day(self, at: time, ahead: int = 0) -> datetime:
        """That time of day in ``ahead`` days."""
        return datetime.combine(self.now.date() + timedelta(days=ahead), at, tzinfo=ZoneInfo(self.zone))


def _spaced(form: str) -> str:
    return form.replace(" ", r"\s+")


_Groups = dict[str, str]  # what the named groups of a form matched, without those that matched nothing
_Read = Callable[[_Groups, _Reading], EverySpec | CronSpec]


def _refused(why: str) -> _Read:
    def read(_: _Groups, reading: _Reading) -> CronSpec:
        raise InvalidSchedule(why.format(reading.rule))

    return read


def _on(days: str) -> _Read:
    return lambda _, reading: reading.cron(days)


def _window(groups: _Groups, reading: _Reading) -> CronSpec:
    """``every 3 hours between 9 and 17 on weekdays``."""
    step, (first, last), days = _step(groups), _between(groups["a"], groups["b"]), _weekdays(groups.get("days", ""))
    if groups.get("unit", "h")[0] == "h":
        end = last.hour if last.minute >= first.minute else last.hour - 1
        final = first.hour + (end - first.hour) // step * step
        if (final, first.minute) != (last.hour, last.minute):
            reading.note = f"the last one of a day is at {final:02}:{first:%M}"
        times = f"{first.minute} {first.hour}-{end}" + (f"/{step}" if step > 1 else "")
        return reading.cron(f"* * {days}", times=times)
    if 60 % step or first.minute or last.minute or step > 30:
        raise InvalidSchedule(
            "Minutes within a part of the day need a step that divides the hour (5, 10, 15, 20, 30) and whole hours as"
            " its ends: every 15 minutes between 9 and 17."
        )
    reading.note = f"the last one of a day is at {last.hour - 1:02}:{60 - step:02}"
    times = f"{f'*/{step}' if step > 1 else '*'} {first.hour}-{last.hour - 1}"
    return reading.cron(f"* * {days}", times=times)


def _between(a: str, b: str) -> tuple[time, time]:
    first, last = read_clock(a), read_clock(b)
    if last <= first and re.fullmatch(r"[1-9]|1[01]|[a-z]+", b.strip()) and last.hour < 12:
        last = last.replace(hour=last.hour + 12)  # from 9 to 5
    if last <= first:
        raise InvalidSchedule(f"From {first:%H:%M} to {last:%H:%M} is over midnight; make two recalls.")
    return first, last


def _step(groups: _Groups) -> int:
    count = number(groups.get("n", "1"))
    if count != int(count) or count < 1:
        raise InvalidSchedule(f"Every {plain_number(count)} is no step within a day.")
    return int(count)


def _on_some_days(groups: _Groups, reading: _Reading) -> CronSpec:
    """``every 2 hours on weekdays``."""
    count, is_hours = _step(groups), groups["unit"].startswith("h")
    if (24 if is_hours else 60) % count:
        raise InvalidSchedule(f"On some days only, a step must divide the {'day' if is_hours else 'hour'}.")
    every = "*" if count == 1 else f"*/{count}"
    times = f"0 {every}" if is_hours else f"{every} *"
    return reading.cron(f"* * {_weekdays(groups['days'])}", times=times)


def _of_hour(groups: _Groups, reading: _Reading) -> CronSpec:
    minute = int(groups.get("minute", {"half": 30, "quarter": 15}.get(groups.get("part", ""), 0)))
    if minute > 59:
        raise InvalidSchedule(f"An hour has no minute {minute}.")
    return reading.cron("* * *", times=f"{minute} *")


def _with_exceptions(groups: _Groups, reading: _Reading) -> CronSpec:
    """``every weekday except friday``."""
    days = {1, 2, 3, 4, 5} if re.search(WORKDAY, groups["among"]) else set(range(7))
    out = groups["out"]
    days -= {0, 6} if "weekend" in out else {WEEKDAYS[name] for name in re.findall(rf"\b({WEEKDAY})s?\b", out)}
    if not days:
        raise InvalidSchedule(f"{reading.rule!r} leaves no day.")
    return reading.cron(f"* * {'1-5' if days == {1, 2, 3, 4, 5} else ','.join(map(str, sorted(days)))}")


def _months(groups: _Groups, reading: _Reading) -> CronSpec:
    """``every 3 months on the 1st``: counted from the next such day."""
    step = number(groups["n"])
    if step not in (1, 2, 3, 4, 6, 12):
        raise InvalidSchedule("Months are counted by 2, 3, 4 or 6, so that they come out even with the year.")
    day, now, clock = _date(groups.get("date", "1")), reading.now, (reading.clocks or [time(9)])[0]
    begins = now.month if (now.day, now.time()) < (28 if day == "L" else int(day), clock) else now.month % 12 + 1
    months = sorted((begins - 1 + int(step) * count) % 12 + 1 for count in range(12 // int(step)))
    return reading.cron(f"{day} {','.join(map(str, months)) if step > 1 else '*'} *")


def _day_of_year(groups: _Groups, reading: _Reading) -> CronSpec:
    return reading.cron(f"{_date(groups['date'])} {MONTHS.index(groups['month'][:3]) + 1} *")


def _nth_weekdays(groups: _Groups, reading: _Reading) -> CronSpec:
    day = WEEKDAYS[groups["day"]]
    which = [NTH[word] for word in re.findall(rf"\b{_NTH_WORD}\b", groups["nths"])]
    return reading.cron(f"* * {','.join(f'{day}#{nth}' if nth else f'{day}L' for nth in which)}")


def _end_of_month(groups: _Groups, reading: _Reading) -> CronSpec:
    """The first or last day, or working day, of each month."""
    is_last = groups["end"] in ("last", "end")
    workday = "W" if re.search(WORKDAY, reading.rule) else ""
    return reading.cron(f"{'L' if is_last else '1'}{workday} * *")


def _dates(groups: _Groups, reading: _Reading) -> CronSpec:
    days = {_date(one) for one in re.findall(_DATE, groups.get("dates", "1"))}
    return reading.cron(f"{','.join(sorted(days, key=lambda day: (len(day), day)))} * *")


def _date(text: str) -> str:
    """The field day-of-month."""
    if text == "last day":
        return "L"
    day = 1 if text == "first" else int(re.sub(r"\D", "", text) or 0)
    if not 1 <= day <= 31:
        raise InvalidSchedule(f"There is no day {day} in a month.")
    return str(day)


def _weeks(groups: _Groups, reading: _Reading) -> EverySpec:
    """``every other friday``, ``every 3 weeks on monday``."""
    weeks = number(groups.get("count", "2"))
    if len(reading.clocks) > 1:
        raise InvalidSchedule("Two times of day in weeks that are counted need two recalls; make one for each time.")
    if not (1 <= weeks <= 520 and weeks == int(weeks)):
        raise InvalidSchedule(f"{reading.rule!r} cannot be counted; say for example every other Friday.")
    if re.search(rf"(?:second|third|fourth|2nd|3rd|4th) {WEEKDAY}", reading.rule):
        reading.note = reading.note or "counted in weeks; for one in each month add 'of the month'"
    clock = (reading.clocks or [time(9)])[0]
    # From cron's Sunday 0 to Python's Monday 0.
    away = (WEEKDAYS[re.findall(rf"\b({WEEKDAY})s?\b", reading.rule)[-1]] - 1 - reading.now.weekday()) % 7
    start = reading.next_day(clock, away)
    if start.timestamp() <= reading.now.timestamp():
        start = reading.next_day(clock, away + 7)
    return EverySpec(kind="every", every=Period(days=7 * int(weeks)), start=start, tz=reading.zone)


def _named_days(groups: _Groups, reading: _Reading) -> CronSpec:
    return reading.cron(f"* * {_weekdays(groups.get('days', 'monday'))}")


def _listed_days(groups: _Groups, reading: _Reading) -> CronSpec:
    """``monday, wednesday at 9am``: several days make a rule."""
    reading.note = reading.note or "each week, since it names several days; for once, make a recall for each day"
    return _named_days(groups, reading)


def _at_clock(_: _Groups, reading: _Reading) -> CronSpec:
    """``every 9am``."""
    if not reading.clocks:
        raise InvalidSchedule("Every what? Say for example every day at 9, or every 2 hours.")
    return reading.cron("* * *")


def _weekdays(text: str) -> str:
    """The field day-of-week; ``*`` for no text."""
    if re.search(rf"\b{WORKDAY}s?\b", text):
        return "1-5"
    if "weekend" in text:
        return "0,6"
    names = [WEEKDAYS[name] for name in re.findall(rf"\b({WEEKDAY})(?=s?\b)", text)]
    if re.search(_SPAN, text):
        names = [(names[0] + step) % 7 for step in range((names[1] - names[0]) % 7 + 1)]
    return ",".join(map(str, sorted(set(names)))) or "*"


def _daily(_: _Groups, reading: _Reading) -> CronSpec:
    return reading.cron("* * *", at=reading.now.time())


def _every(period: Period) -> _Read:
    return lambda _, reading: _interval(period, reading)


def _period(groups: _Groups, reading: _Reading) -> EverySpec:
    """``every 2 hours``, ``every other day at 9``."""
    words = groups["period"]
    minutes = {"hour and a half": 90, "quarter hour": 15, "quarter-hour": 15}.get(words, 30 * (words[:4] == "half"))
    if minutes:
        return _interval(Period(elapsed=timedelta(minutes=minutes)), reading)
    counted = re.fullmatch(rf"(?:(?P<n>{_COUNT})\s*-?\s*)?(?P<unit>{UNIT})", words)
    count = number(counted["n"]) if counted and counted["n"] else 1.0
    if count <= 0:
        raise InvalidSchedule(f"{reading.rule!r} never comes to an end; say for example every 10 minutes.")
    return _interval(period_of([(count, counted["unit"][0])], words) if counted else read_duration(words), reading)


def _interval(every: Period, reading: _Reading) -> EverySpec:
    """An interval; with a time of day it starts at the next one."""
    start = None
    if len(reading.clocks) > 1:
        raise InvalidSchedule("Two times of day in an interval need two recalls; make one for each time.")
    if reading.clocks:
        start = reading.next_day(reading.clocks[0])
        if start.timestamp() <= reading.now.timestamp():
            start = reading.next_day(reading.clocks[0], 1) if every.total >= timedelta(days=1) else start + every.total
    tz = reading.zone if every.days and not every.elapsed else None
    return EverySpec(kind="every", every=every, start=start, tz=tz)


_PLURAL_DAYS = rf"(?<!every\s)(?<!each\s)(?<!weekly\s)(?<!weekly\son\s)(?:on )?(?P<days>{_DAYS})"
_BEHIND = r"(?=,?\s+(?:(?:at|by|around|@)\s|\d{1,2}(?::\d\d|\s?[ap]\.?m\b))|\W*$)"
"""What follows plural days without ``on`` or ``every``: a time of day, or nothing. A sentence may begin with them."""
_EVERYDAY = rf"everyday(?=\s+(?:to|remind|tell|ping)\s)|everyday{_BEHIND}"
_ALL_DAYS = rf"{_EVERY} (?:day|{WORKDAY})|everyday|daily|(?:on )?{WORKDAY}s"
_NOT_OF_MONTH = rf"(?! {_OF_MONTH})"
_OF_YEAR = r"of (?:the|each|every|a) year"
_OF_QUARTER = r"of (?:the|each|every|a) quarter"
_YEARLY = rf"(?:{_EVERY}(?: year on)?|yearly on|annually on)(?: the)?"
_MONTHLY = rf"(?:monthly|{_EVERY} month)"

# The first form that fits the whole rule reads it.
_FORMS: tuple[tuple[str, _Read], ...] = (
    # what leaves something open
    (
        rf"(?:twice|three times|{NUMBER} times) (?:a|per|each|every) (?:hour|day|week|month|year)\b",
        _refused("{0!r} leaves open when; say for example every day at 9 and 17, or every 12 hours."),
    ),
    (r"bi-?monthly", _refused("Bimonthly can mean two things; say every 2 months, or the 1st and 15th of each month.")),
    # steps within some hours, or on some days
    (rf"{_STEPS} (?:between|from) (?P<a>{_HOUR}){_TO}(?P<b>{_HOUR})(?:,? (?:on )?(?P<days>{_DAYS}))?", _window),
    (rf"{_EVERY} {_STEP},? (?:on )?(?P<days>{_DAYS})", _on_some_days),
    (rf"(?:{_EVERY} hour|hourly),? (?:on the hour|at :(?P<minute>\d\d))", _of_hour),
    (rf"(?:{_EVERY} hour|hourly),? at (?:minute )?(?P<minute>\d{{1,2}}) (?:minutes? )?past(?: the hour)?", _of_hour),
    (rf"(?:{_EVERY} hour|hourly),? at (?P<part>half|quarter) past", _of_hour),
    (r"(?:at )?(?:a )?(?P<part>half|quarter) past (?:every|each) hour", _of_hour),
    # days of the month
    (rf"{_ON}(?P<nths>{_NTH_WORD}(?:{_SEP}(?:the )?{_NTH_WORD})*) (?P<day>{WEEKDAY}) {_OF_MONTH}", _nth_weekdays),
    (rf"{_ON}(?P<nths>{_NTH_WORD}(?:{_SEP}(?:the )?{_NTH_WORD})+) (?P<day>{WEEKDAY})", _nth_weekdays),
    (rf"{_MONTHLY} on the (?P<nths>{_NTH_WORD}) (?P<day>{WEEKDAY})", _nth_weekdays),
    (rf"{_ON}(?P<end>first|last) (?:{WORKDAY}|day) {_OF_MONTH}", _end_of_month),
    (rf"{_MONTHLY} on the (?P<end>first|last) (?:{WORKDAY}|day)", _end_of_month),
    # Without ``each`` it is one day, which ``days`` reads.
    (r"(?:at |by |on )?(?:the )?(?P<end>end|beginning|start) of (?:each|every) month\b", _end_of_month),
    (rf"{_EVERY} month ?end|(?P<end>end) of month (?:each|every) month", _end_of_month),
    (rf"{_ON}(?P<dates>{_ORD}(?:{_SEP}(?:the )?{_ORD})+)(?: {_OF_MONTH}|(?=\s+at\b)|(?=\W*$))", _dates),
    (rf"(?:on )?(?:the )?(?P<dates>{_DATE}) of (?:every|each) month", _dates),
    (rf"{_EVERY} (?P<dates>{_DATE}) of the month", _dates),
    (rf"{_EVERY} (?P<dates>{_ORD})(?=,?\s+(?:at|remind|ping|tell)\b|\W*$)", _dates),
    (rf"{_MONTHLY}(?: on the (?P<dates>{_DATE}))?", _dates),
    # days of the year
    (rf"{_EVERY} (?P<n>other|{NUMBER}) months?(?: on the (?P<date>{_DATE}))?", _months),
    (rf"{_EVERY} quarter(?!\s+hour|-hour|\s+of)|quarterly|{_ON}first day {_OF_QUARTER}", _on("1 1,4,7,10 *")),
    (rf"{_ON}last day {_OF_QUARTER}", _on("L 3,6,9,12 *")),
    (rf"{_ON}last day {_OF_YEAR}", _on("L 12 *")),
    (rf"(?:yearly|annually|{_EVERY} year)(?! on)|{_ON}first day {_OF_YEAR}", _on("1 1 *")),
    (rf"{_YEARLY} (?P<date>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<month>{MONTH})\b", _day_of_year),
    (rf"{_YEARLY} (?P<month>{MONTH}) (?P<date>\d{{1,2}})(?:st|nd|rd|th)?\b", _day_of_year),
    # weeks that are counted
    (rf"(?:on )?{_EVERY} (?P<count>{_COUNT}) {WEEKDAY}{_NOT_OF_MONTH}", _weeks),
    (rf"{_EVERY} (?P<count>{_COUNT}) weeks? on {WEEKDAY}s?", _weeks),
    (rf"(?:biweekly|fortnightly|{_EVERY} fortnight) on {WEEKDAY}s?", _weeks),
    (rf"biweekly|fortnightly|{_EVERY} fortnight", _every(Period(days=14))),
    # days of the week
    (rf"(?P<among>{_ALL_DAYS}),? {_EXCEPT} (?P<out>{_LEFT_OUT})", _with_exceptions),
    (rf"(?:{_EVERY} week|weekly)(?: on (?P<days>{WEEKDAY}s?))?", _named_days),
    (rf"on (?P<days>{_PLURAL}(?:(?:{_SEP}|,? ){_PLURAL})+|{WORKDAY}s|weekends|{_PLURAL})", _named_days),
    (rf"{_PLURAL_DAYS}{_BEHIND}", _named_days),
    (rf"\A\s*(?P<days>{_DAYS})", _named_days),
    (rf"(?:{_EVERY} day|daily),? (?P<days>{_SPAN})", _named_days),
    (rf"{_EVERY} (?P<days>{_NAMED})", _named_days),
    (rf"(?:on )?(?P<days>{WEEKDAY}(?:{_BETWEEN}{WEEKDAY})+)(?! {_OF_MONTH})", _listed_days),
    (rf"{_EVERY}(?=\s+{_HALF_CLOCK}|\Z)", _at_clock),
    # intervals, and every day
    (r"hourly", _every(Period(elapsed=timedelta(hours=1)))),
    (rf"{_EVERY} (?P<period>{_PERIOD})", _period),
    (rf"{_EVERY} (?:day|{PART})|daily|nightly|{_EVERYDAY}", _daily),
)


_CLOCKS = rf"{CLOCK}(?:\s*(?:and|,|&)\s*(?:{CLOCK}|{BARE_HOUR}))*"
_TIMES = (
    rf"(?:\s+(?:in the\s+)?(?P<rpart>{PART}))?"
    rf"(?:,?\s+(?P<rclock>{_CLOCKS})(?:\s+(?:in the|at)\s+(?P<rpart2>{PART}))?)?"
    rf"(?:,?\s+{_spaced(_EXCEPT)}\s+(?P<rout>{_spaced(_LEFT_OUT)}))?"
)


def recurring_pattern() -> str:
    """Everything that repeats, with the times of day before it (``at 9 and 17 on weekdays``) or behind it.

    Named groups: rbefore, rule, rpart, rclock, rpart2, rout.
    """
    rules = "|".join(re.sub(r"\?P<\w+>", "?:", _spaced(form)) for form, _ in _FORMS)
    return rf"(?:(?P<rbefore>{_CLOCKS}),?\s+)?(?P<rule>{rules}){_TIMES}"


def read_recurrence(match: re.Match[str], now: datetime, zone: str) -> tuple[EverySpec | CronSpec, str]:
    """What matched :func:`recurring_pattern`, and a note of what was assumed.

    Raises InvalidSchedule for what no schedule can express.
    """
    rule = re.sub(r"\s+", " ", match["rule"].lower()).strip()
    clocks, note = _clocks(match, rule)
    rule += f" except {' '.join(match['rout'].lower().split())}" if match["rout"] else ""
    reading = _Reading(rule, clocks, now, zone, note)
    for form, read in _FORMS:
        if found := re.fullmatch(_spaced(form), rule):
            groups = {name: text for name, text in found.groupdict().items() if text is not None}
            return read(groups, reading), reading.note
    raise InvalidSchedule(f"I do not understand {rule!r} as a rule for times.")


def _clocks(match: re.Match[str], rule: str) -> tuple[list[time], str]:
    """The times of day before or behind the rule, else that of a part of the day, else none; and what was assumed."""
    words = match["rclock"] or match["rbefore"] or ""
    found = re.search(rf"\b{PART}$", rule)
    part = match["rpart2"] or match["rpart"] or (found[0] if found else "night" if rule == "nightly" else None)
    part = part.lower() if part else None
    times, note = [], ""
    for one in re.split(r"\s*(?:,|&|\band\b)\s*", words) if words else []:
        times.append(read_clock(one, part=part))
        note = note or morning_note(one, times[-1], part)
    if not times and part:
        times = [read_clock(part)]
    return times, note
