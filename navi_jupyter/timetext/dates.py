"""Days and dates, by ``dateparser``: "next friday", "3 december", "the 5th", "in 2 weeks".

Importing dateparser takes a quarter of a second and its first call as long again: it is imported at the first use, and
what runs on the event loop goes through a thread.
"""

from __future__ import annotations

import re
import threading
from datetime import date, datetime, timedelta
from typing import Any

from ..errors import InvalidSchedule

dateparser_lock = threading.Lock()  # its caches are not made for threads


_MONTHS = (
    "no month", "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip


def read_date(day: str, now: datetime) -> date:
    """The date that a day phrase means, as :class:`datetime.date`. Raises InvalidSchedule."""
    words = re.sub(r"^on\s+", "", day)
    words = {
        "day after tomorrow": "in 2 days",
        "the day after tomorrow": "in 2 days",
        "tonight": "today",
    }.get(words, words)
    words = re.sub(r"\b(a couple of|a couple)\b", "2", re.sub(r"\ba few\b", "3", words))
    words = re.sub(r"^(?:this coming|coming|this)\s+", "", words)
    if dotted := re.fullmatch(r"(\d{1,2})\.(\d{1,2})\.(\d{4})?", words):
        # dateparser takes 12.12. for a time of day
        words = f"{dotted[1]} {_MONTHS[int(dotted[2]) % 13]} {dotted[3] or ''}".strip()
    if re.match(r"(?:the )?\d+(?:st|nd|rd|th)$", words):
        return _day_of_month(int(re.sub(r"\D", "", words)), now)
    at = dateparse(words, now.replace(tzinfo=None))
    if at is None:
        raise InvalidSchedule(f"{day!r} is no date that exists.")
    return at.date()


def _day_of_month(day: int, now: datetime) -> date:
    first = now.date().replace(day=1)
    for _ in range(13):
        try:
            found = first.replace(day=day)
        except ValueError:
            if not 1 <= day <= 31:
                raise InvalidSchedule(f"There is no day {day} in a month.") from None
        else:
            if found > now.date():
                return found
        first = (first + timedelta(days=32)).replace(day=1)
    raise InvalidSchedule(f"There is no day {day} in a month.")


def dateparse(words: str, base: datetime, *, past: bool = False) -> datetime | None:
    """``words`` as a wall-clock time by dateparser, relative to ``base`` (naive)."""
    with dateparser_lock:
        import dateparser  # late: see the module's docstring

        settings: Any = {
            "PREFER_DATES_FROM": "past" if past else "future",
            "RELATIVE_BASE": base,
            "RETURN_AS_TIMEZONE_AWARE": False,
            # Day before month where only the order decides, unless the year comes first: stated in the answer anyway.
            "DATE_ORDER": "DMY",
            "PREFER_LOCALE_DATE_ORDER": False,
        }
        found = dateparser.parse(words, languages=["en"], settings=settings)
    return found if isinstance(found, datetime) else None
