"""Rhythms that are counted in months and years: "every quarter", "1st and 15th of the month", "every 24 december",
"every first and third Monday of the month", "end of month".

All are cron expressions. Not responsible for single months (``recurring``) or for times of day (``rhythms``).
"""

from __future__ import annotations

import re
from datetime import datetime, time

from ..errors import InvalidSchedule
from .clock_times import NUMBER, WEEKDAY, WEEKDAYS, WORKDAY, number

NTH = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "last": 0}
NTH_WORD = rf"(?:{'|'.join(NTH)})"
MONTHLY = r"(?:of|in)\s+(?:the|each|every|a)\s+month"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_ORD = r"\d{1,2}(?:st|nd|rd|th)"
_AND = r"(?:,\s*(?:and\s+)?|\s+and\s+)"
_ON = r"(?:on\s+)?(?:the\s+|every\s+|each\s+)?"
MONTHS = (
    r"(?:(?:every|each)\s+quarter(?![ -]hour|\s+of)|quarterly|yearly|annually"
    r"|(?:every|each|once\s+(?:a|per))\s+year(?!\s+on)"
    rf"|{_ON}(?:first|last)\s+day\s+of\s+(?:the|each|every|a)\s+(?:quarter|year)"
    rf"|(?:every|each)\s+(?:other|{NUMBER})\s+months?(?:\s+on\s+the\s+(?:{_ORD}|first|last day))?"
    rf"|{_ON}{_ORD}(?:{_AND}(?:the\s+)?{_ORD})+(?:\s+{MONTHLY}|(?=\s+at\b)|(?=\W*$))"
    rf"|(?:every|each)\s+{_ORD}(?=,?\s+at\b|\W*$)"
    r"|(?:at\s+|by\s+|on\s+)?(?:the\s+)?(?:end|beginning|start)\s+of\s+(?:(?:the|each|every)\s+)?month\b"
    rf"|(?:every|each)\s+(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{MONTH}|{MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?)\b"
    rf"|{_ON}{NTH_WORD}(?:{_AND}(?:the\s+)?{NTH_WORD})+\s+{WEEKDAY}(?:\s+{MONTHLY})?"
    rf"|monthly\s+on\s+the\s+(?:{NTH_WORD}\s+{WEEKDAY}|(?:first|last)\s+(?:{WORKDAY}|day))"
    rf"|(?:twice|three times|{NUMBER}\s+times)\s+(?:a|per|each|every)\s+(?:hour|day|week|month|year)\b"
    r"|bi-?monthly)"
)


def month_days(rule: str, now: datetime, clock: time) -> str | None:
    """The fields day-of-month, month and day-of-week; None for a rule of another kind. Raises InvalidSchedule."""
    if re.fullmatch(MONTHS, rule) is None:
        return None
    if "times a" in rule or "times per" in rule or "times e" in rule or rule.startswith("twice "):
        raise InvalidSchedule(f"{rule!r} leaves open when; say for example every day at 9 and 17, or every 12 hours.")
    if "bimonthly" in rule.replace("-", ""):
        raise InvalidSchedule("Bimonthly can mean two things; say every 2 months, or the 1st and 15th of each month.")
    for read in (_quarters, _every_months, _dates, _yearly, _nths):
        if (found := read(rule, now, clock)) is not None:
            return found
    return None


def _quarters(rule: str, _now: datetime, _clock: time) -> str | None:
    if "quarter" not in rule:
        return None
    return "L 3,6,9,12 *" if "last day" in rule else "1 1,4,7,10 *"


def _every_months(rule: str, now: datetime, clock: time) -> str | None:
    """``every 3 months on the 1st``: counted from the next such day."""
    counted = re.match(rf"(?:every|each) (other|{NUMBER}) months?(?: on the (.+))?", rule)
    if counted is None:
        return None
    step = number(counted[1])
    if step not in (1, 2, 3, 4, 6, 12):
        raise InvalidSchedule("Months are counted by 2, 3, 4 or 6, so that they come out even with the year.")
    day = "L" if counted[2] == "last day" else str(_day(counted[2] or "1"))
    first = 28 if day == "L" else int(day)
    begins = now.month if (now.day, now.time()) < (first, clock) else now.month % 12 + 1
    months = sorted((begins - 1 + int(step) * count) % 12 + 1 for count in range(12 // int(step)))
    return f"{day} {','.join(map(str, months)) if step > 1 else '*'} *"


def _dates(rule: str, _now: datetime, _clock: time) -> str | None:
    if re.search(r"(?:end|beginning|start) of", rule):
        return "L * *" if "end" in rule else "1 * *"
    if re.search(rf"\b(?:{MONTH}|{WEEKDAY}|year)\b", rule):
        return None
    days = sorted({_day(one) for one in re.findall(_ORD, rule)})
    return f"{','.join(map(str, days))} * *" if days else None


def _yearly(rule: str, _now: datetime, _clock: time) -> str | None:
    if re.search(r"\byear|^annually", rule):
        return "L 12 *" if "last day" in rule else "1 1 *"
    named = re.search(rf"\b{MONTH}\b", rule)
    digits = re.search(r"\d{1,2}", rule)
    return f"{_day(digits[0])} {_MONTHS.index(named[0][:3]) + 1} *" if named and digits else None


def _nths(rule: str, _now: datetime, _clock: time) -> str | None:
    named = re.search(rf"\b({WEEKDAY})\b", rule)
    which = [NTH[word] for word in re.findall(rf"\b{NTH_WORD}\b", rule)]
    if named is not None:
        day = WEEKDAYS[named[1]]
        return f"* * {','.join(f'{day}#{nth}' if nth else f'{day}L' for nth in which)}"
    if not rule.startswith("monthly"):
        return None
    if re.search(WORKDAY, rule):
        return "LW * *" if "last" in rule else "1W * *"
    return "L * *" if "last" in rule else "1 * *"


def _day(text: str) -> int:
    day = 1 if text == "first" else int(re.sub(r"\D", "", text) or 0)
    if not 1 <= day <= 31:
        raise InvalidSchedule(f"There is no day {day} in a month.")
    return day
