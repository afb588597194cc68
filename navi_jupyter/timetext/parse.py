"""English times -> schedules: "tomorrow at 8:30", "in an hour and a half", "every weekday at 9".

The one reader of times in words: for cells, the chat, the form, the agent's tools and the offline backend. It finds the
phrase in a sentence and gives back the rest of it as the message. Four rules hold everywhere: a time of day without am
or pm is on the 24-hour clock; what is meant is the next instant that fits all of the words; a day is a calendar day on
the wall clock, hours and minutes are elapsed time; and no part of a time is read without the rest of it (``extent``).
Pure: nothing is asked of the machine. Not responsible for whether a schedule is allowed: that is ``scheduling``.

Its patterns take a while to compile, and zones are files: async callers call these functions in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from ..model.recalls import EverySpec, OnceSpec, ScheduleSpec
from .clocks import CLOCK, DOTTED_CLOCK
from .days import DAY, WEEKDAY
from .durations import DURATION, NUMBER, read_duration
from .extent import HalfRead, completes, extent_of, is_adjective, misspelt
from .instants import Timed
from .phrases import CRON_FIELD, exact_form, forms, read_stretch, read_when, refuse_vague

_LONGEST = 1000  # characters in which a time is looked for; what follows belongs to the message
_QUOTED = r"(?P<cron>cron:?\s+)?(?:([\"'])(?P<a>.{1,200}?)\2|“(?P<b>.{1,200}?)”)(?=[\s,;:]|$)"
_QUOTED_TIME = re.compile(
    rf"(?:\A\s*|\b(?:me|us|back|up|again|recall|reminder|alarm|timer)[\s,:]+){_QUOTED}", re.IGNORECASE
)
"""A time in quotation marks, where a sentence begins with it or says what to do then."""
_VERBATIM = re.compile(r"\s--\s")  # what is behind it is the message as it stands
_ANY_QUOTED = re.compile(r"(?<!\w)(?:\"[^\"]*\"|'[^']*'|“[^”]*”|`[^`]*`)(?!\w)")


def read(text: str, now: datetime, zone: str) -> Timed | None:
    """The time phrase of a sentence and its message; None when there is none.

    ``now`` is aware, ``zone`` an IANA name. Raises InvalidSchedule for times that cannot be: past, 25:00, zero; and
    HalfRead where what adjoins the phrase, or could complete it, is more than was understood. A time in quotation
    marks is all of the time, and what is behind ``--``, or quoted elsewhere, is message.
    """
    text, tail = text[:_LONGEST], text[_LONGEST:]
    if verbatim := _VERBATIM.search(text):
        timed = _read_sentence(text[: verbatim.start()], now, zone)
        if timed is not None:
            words = text[verbatim.end() :] + tail
            return replace(timed, message=f"{timed.message} {words}" if timed.message else words)
    timed = _read_sentence(text, now, zone)
    return timed and replace(timed, message=timed.message + tail)


def _read_sentence(text: str, now: datetime, zone: str) -> Timed | None:
    quoted = _QUOTED_TIME.search(text)
    if quoted and _is_time(words := _unquoted(quoted), now, zone):
        start = quoted.start("cron") if quoted["cron"] else quoted.start(2) if quoted["a"] else text.index("“")
        return replace(read_when(words, now, zone), phrase=words, message=_rest(text, start, quoted.end()))
    plain = _ANY_QUOTED.sub(lambda match: "x" * len(match[0]), text)
    best = _best(plain)
    if best is None:
        refuse_vague(plain)
        return None
    start, end = extent_of(plain, *best)
    found = text[start:end].strip(" ,;:")
    timed = read_stretch(found, now, zone, understood=text[best[0] : best[1]])
    _check_rest(plain, start, end, timed.schedule)
    return replace(timed, phrase=found, message=_rest(text, start, end))


def _check_rest(text: str, start: int, end: int, schedule: ScheduleSpec) -> None:
    """Raises HalfRead where words further away could complete the time."""
    found = text[start:end]
    in_front = _leads(text, start)
    for other_start, other_end in _candidates(text):
        if other_end > start and other_start < end:
            continue
        other = text[other_start:other_end]
        if completes(found, other) or (not in_front and _leads(text, other_start)):
            raise HalfRead(found, other, f"Write all of the time in one place, as in {found} {other}")
    for word in (*re.findall(r"(\w+)[\s,]*\Z", text[:start]), *re.findall(r"\A[\s,]*(\w+)", text[end:])):
        if meant := misspelt(word):
            raise HalfRead(found, word, f"Write {meant} if that is meant")
    rest = f"{text[:start]} \0 {text[end:]}"
    far = _FAR_ANCHOR.search(rest)
    if not isinstance(schedule, OnceSpec):
        far = far or _FAR_LIMIT.search(rest) or _far_lasting(rest, schedule)
    if far:
        raise HalfRead(found, far[0], "Write all of the time in one place")


def _leads(text: str, position: int) -> bool:
    """Whether what stands there begins the sentence, or follows the words that ask for a recall."""
    if re.search(r"\w", text[:position]) is None:
        return True
    # Its last seven characters hold the longest of the words and the sign before it: as cheap in any text.
    return _ASKS.search(text[:position].rstrip(_BETWEEN)[-7:]) is not None


_BETWEEN = " \t\n\r\f\v\u00a0\u2009\u202f,:"
_ASKS = re.compile(r"(?:\A|\W)(?:me|us|back|up|recall|again)\Z", re.IGNORECASE)


_FAR_LIMIT = re.compile(
    rf"\b(?:(?:until|till?|ending|up\s+to|starting|beginning)\s+(?:on\s+)?(?:{DAY}|{CLOCK}|{WEEKDAY}|the\s+end)|for\s+the\s+next\s+{NUMBER}"
    rf"|,\s*(?:{NUMBER}\s+times|twice)\W*\Z)",
    re.IGNORECASE,
)
"""A bound of a recurrence, far from it."""
_FAR_ANCHOR = re.compile(
    rf"\b(?:{DURATION}|the\s+(?:day|week|month|morning|evening|night))\s+(?:before|after|ahead\s+of|prior\s+to)\b",
    re.IGNORECASE,
)
"""What is counted from something else: ``an hour before the meeting at 3pm``."""


def _far_lasting(rest: str, schedule: ScheduleSpec) -> re.Match[str] | None:
    """``check the loss for 2 hours``, of a recurrence of minutes; ``run for 30 minutes``, each day, is the message."""
    lasting = re.search(rf"\bfor\s+({DURATION})\W*\Z", rest, re.IGNORECASE)
    every = schedule.every.total if isinstance(schedule, EverySpec) else timedelta(days=1)
    return lasting if lasting and read_duration(lasting[1]).total > every else None


def _is_time(words: str, now: datetime, zone: str) -> bool:
    """Whether quoted words are meant as a time, right or wrong."""
    return exact_form(words, now, zone) is not None or _best(words) is not None


def _unquoted(match: re.Match[str]) -> str:
    return (match["cron"] or "") + (match["a"] or match["b"])


def read_leading(text: str, now: datetime, zone: str) -> Timed | None:
    """A sentence that begins with its time: ``every other friday at 16:00 check the loss``; None where it does not.

    Raises InvalidSchedule, as :func:`read` does.
    """
    text = text.lstrip()
    if quoted := re.match(_QUOTED, text, re.IGNORECASE):
        words = _unquoted(quoted)
        if not _is_time(words, now, zone):
            return None  # it quotes something else
        return replace(read_when(words, now, zone), message=_rest(text, 0, quoted.end()))
    head = text[:_LONGEST]
    exact = _LEADING.match(head)
    if exact and (form := exact_form(exact[0].strip(), now, zone)) is not None:
        _, end = extent_of(head, 0, exact.end())
        if end == exact.end():
            return replace(form, message=_rest(text, 0, end))
    timed = read(text, now, zone)
    if timed is None or not text.lower().startswith(timed.phrase.lower()):
        if exact and form is not None:
            raise HalfRead(exact[0], text[exact.end() : end])
        return None
    return timed


_LEADING = re.compile(
    rf"(?:(?:cron:?\s+)?(?:[\d*]\S*(?<=[\d*,/-])\s+(?:{CRON_FIELD}\s+){{3}}{CRON_FIELD}|@[a-z]+)"
    rf"|(?![0-2]\d[0-5]\d\s?h){DURATION}(?!\s+(?:ago|from|later|before|after|prior|ahead|short|shy|past|into|to|of|in|on|at|until|and|every)\b|[^\s,;:]))(?=[\s,;:]|$)",
    re.IGNORECASE,
)
"""Cron fields and bare durations, which are times only where a sentence begins with them."""


def _candidates(text: str) -> Iterator[tuple[int, int]]:
    """Where something reads as a time that is not part of a thing's name."""
    return ((match.start(), match.end()) for _, match in _matches(text))


def _matches(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    for _, form, strength in forms():
        for match in form.finditer(text):
            # ``0.50`` is a number before it is a time of day.
            if not _is_number(text, match) and not is_adjective(text, match.start(), match.end()):
                yield strength, match


def _is_number(text: str, match: re.Match[str]) -> bool:
    """Whether ``3.12`` is one: it is a time of day only at an end of the sentence, where no word says otherwise."""
    if re.fullmatch(DOTTED_CLOCK, match[0]) is None:
        return False
    if "h" in match[0]:
        return True
    at_an_end = not re.search(r"\w", text[: match.start()]) or not re.search(r"\w", text[match.end() :])
    return not at_an_end or _NUMBER_BEFORE.search(text, max(0, match.start() - 100), match.start()) is not None


_NUMBER_BEFORE = re.compile(
    r"(?:\b(?:is|are|was|to|of|by|at|below|above|than|under|over|reaches|version|v|python|about)|[=<>])\s*\Z",
    re.IGNORECASE,
)


def _best(text: str) -> tuple[int, int] | None:
    """The phrase that is most surely meant: the strongest form; at an end of the sentence; the longest; the first."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip(" .!?,;:\n\t"))

    def rank(item: tuple[int, re.Match[str]]) -> tuple[int, bool, int, int]:
        strength, match = item
        # Also behind "remind me", "check back", …
        follows_trigger = (
            text[max(0, match.start() - 100) : match.start()]
            .rstrip()
            .lower()
            .endswith(("me", "back", "up", "recall", "again"))
        )
        outer = match.start() <= start or match.end() >= end or follows_trigger
        return (strength, outer, match.end() - match.start(), -match.start())

    best = max(_matches(text), key=rank, default=None)
    return best[1].span() if best else None


def _rest(text: str, start: int, end: int) -> str:
    before, after = text[:start].rstrip(" \t,;:-"), text[end:].lstrip(" \t,;:-").rstrip()
    if not before.strip():
        after = re.sub(r"^[.!](?=\s)\s*", "", after)
        after = re.sub(r"^(?:then|please)\b[ ,]*", "", after, flags=re.IGNORECASE)
    joined = f"{before.strip()} {after}".strip() if after[:1] not in ".!?" else f"{before.strip()}{after}"
    return re.sub(r"[ \t]{2,}", " ", joined).strip() if before.strip() else joined.strip()
