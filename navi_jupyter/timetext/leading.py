"""Sentences that begin with their time, as they stand behind ``%navi recall``.

Not responsible for what a time means (``times``), but for that half of one is never taken for all of it.
"""

from __future__ import annotations

import asyncio
import re
from datetime import datetime

from ..errors import InvalidSchedule
from .clock_times import WEEKDAY
from .months import MONTH
from .parse import Timed, read


def read_leading(text: str, now: datetime, zone: str) -> Timed | None:
    """A sentence that begins with its time: ``every other friday at 16:00 check the loss``; None where it does not.

    Raises InvalidSchedule, also where what follows looks like more of the time than was understood.
    """
    timed = read(text, now, zone)
    if timed is None or not text.lstrip().lower().startswith(timed.phrase.lower()):
        return None
    more = _MORE.match(text.lstrip()[len(timed.phrase) :])
    if more is not None:
        raise InvalidSchedule(
            f"I understand {timed.phrase!r} as a time, but not {more[0].strip(' ,')!r} behind it. Put the whole time in"
            " quotation marks, or say it in another way.",
            field="text",
        )
    return timed


_MORE = re.compile(
    r"[\s,]*(?:(?:and|or)\s+)?(?:"
    r"(?:at|by|from|until|till|between|before|after|on|every|each|except|excluding|but|starting)\s+(?:not\s+)?"
    rf"(?:\d|noon|midnight|the\s+\d|weekend|{WEEKDAY}s?\b|{MONTH}\b)|{WEEKDAY}s?\b|tomorrow|next\s+(?:week|month)"
    rf"|twice|\d+\s+times|in\s+(?:the\s+(?:morning|afternoon|evening|night)|{MONTH})\b|of\s+(?:the|each|every)\s+\w+)",
    re.IGNORECASE,
)
"""More of a time, behind one. ``and`` alone may begin the rest of the message."""


async def read_leading_in_thread(text: str, now: datetime, zone: str) -> Timed | None:
    """:func:`read_leading` off the event loop."""
    return await asyncio.to_thread(read_leading, text, now, zone)
