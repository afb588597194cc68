"""How far a time reaches in a sentence: words next to it that still read as time belong to it.

A time is one stretch of words. What adjoins it and reads as time (a clock, a number with a unit, a day, a zone,
``until``, ``every``, a preposition that wants a time) is part of the stretch, which is then understood as a whole or
refused. Words further away are the message, also with a time in them, unless they could complete the time.
"""

from __future__ import annotations

import re
from difflib import get_close_matches

from ..errors import InvalidSchedule
from .clocks import AMPM, BARE_HOUR, CLOCK, EXACT_CLOCK, NOT_A_THING, PART, PART_OF_DAY
from .days import DATE, MONTH, SLASHED, WEEKDAY, WORKDAY
from .durations import DURATION, NUMBER, UNIT
from .zones import zone_at


def any_of(*forms: str) -> str:
    """The pattern that matches any of them, the first one that does."""
    return f"(?:{'|'.join(forms)})"


_END = r"(?![\w/]|['’]\w|-[a-z])"
_ADVERB = r"(?:hourly|daily|nightly|weekly|bi-?weekly|fortnightly|monthly|bi-?monthly|quarterly|yearly|annually)"
_REPEATED = (
    rf"(?:every|each)\s+(?:{NUMBER}|other|second|third|fourth|single|alternate|{UNIT}|month|year|quarter|{WEEKDAY}s?"
    rf"|{PART}s?|{WORKDAY}|weekend|{MONTH}|fortnight|\d{{1,2}}(?:st|nd|rd|th)|{EXACT_CLOCK})"
)
_OF_PERIOD = r"(?:of|in)\s+(?:the|each|every|this|next)\s+(?:day|week|month|year|quarter)"
_WHEN = any_of(
    # A clock, a length, a day.
    EXACT_CLOCK,
    DURATION,
    rf"(?:the\s+)?next\s+{NUMBER}\s+\w+",
    rf"{NUMBER}\s+(?:month|year|quarter)s?",
    DATE,
    SLASHED,
    rf"{WEEKDAY}s?",
    *("yesterday", "today", "tomorrow", "tonight", "eod", "eow", "eom", "cob", "everyday", r"first\s+thing"),
    rf"(?:next|this|coming|last)\s+(?:week|month|year|quarter|weekend|{PART}|{WEEKDAY})s?",
    rf"{PART_OF_DAY}s?",
    rf"{PART}s?",
    rf"{WORKDAY}s?",
    r"weekends?",
    # What recurs, and places in a period.
    _ADVERB,
    _REPEATED,
    r"(?:the\s+)?\d{1,2}(?:st|nd|rd|th)",
    r"weeks?",
    rf"(?:the\s+)?(?:first|second|third|fourth|fifth|last)\s+(?:{WEEKDAY}|day|week|{WORKDAY})",
    r"(?:the\s+)?(?:end|beginning|start|middle)\s+of\s+(?:(?:the|this|next|each|every)\s+)?"
    rf"(?:day|week|month|year|quarter|{MONTH})",
    r"christmas(?:\s+eve)?",
    r"new\s+year(?:['’]s)?(?:\s+(?:eve|day))?",
    r"easter",
    _OF_PERIOD,
    rf"(?:of|in)\s+{MONTH}",
    rf"{NUMBER}\s+times",
    r"twice",
    # Without "may" and "march", which are verbs, too.
    r"(?:january|february|april|june|july|august|september|october|november|december)",
    # Pieces of a clock, and zones.
    AMPM,
    r"(?:utc|gmt)(?:[+-]\d\S*)?",
    r"(?-i:[A-Z][a-z]+/[A-Z]\w+)",
    r"\d{4}-\d\d-\d\dT\S+",
    r"[½¼¾]",
    # What blurs a time: understood nowhere, so that it is refused beside a time.
    r"on\s+the\s+(?:half|quarter)?[\s-]?hour",
    r"(?:the\s+)?rest\s+of\s+(?:the|this)\s+\w+",
    r"(?:at|by|around)\s+(?:dawn|dusk|sunrise|sunset|daybreak|nightfall|breakfast|lunch|dinner|supper|bedtime|teatime)",
    r"\d{1,2}(?::\d\d)?\s?-?ish",
    r"x\s?\d+",
    r"\d+\s?x",
    rf"all\s+(?:day|night|week|month|{PART})",
    r"(?:at\s+)?:\d\d",
    r"(?:at\s+)?(?:half|quarter)\s+past",
    r"business\s+hours",
    r"work(?:ing)?\s+hours",
) + _END  # fmt: skip
"""What reads as time by itself."""
_JOINT = any_of(
    r"(?:on|of|until|till|from|before|after|by|at|in)\s+the",
    *("and", "or", "to", "untill?", "['’]?till?", "ending", r"up\s+to", "through", "thru", "from", "between", "before"),
    *("after", "on", "at", "by", "of", "in", "for", "starting", "beginning", "except", "excluding", "but", "not"),
    *("minus", "plus", "&", r"\+", "@", "/", "-", "–", "—", "~"),
)  # fmt: skip
_NUMBER = rf"(?:{BARE_HOUR}(?!['’.]\w|-[a-z])|\d{{3,4}}(?!\w){NOT_A_THING})"
_AFTER_JOINT = (
    rf"(?:and|or|to|till|until|through|thru|from|between|before|after|at|by|around|about|@|&|/|-|–|—|,)\s*{_NUMBER}"
)
_WANTS_TIME = (
    r"(?:untill?|['’]?till?|ending|up\s+to|before|after|between|except|excluding|during|starting|beginning"
    r"|from|past|within|into|afterwards?)\b"
)
"""A preposition that wants a time: behind one, what it leads to belongs to the time."""
_RIGHT = re.compile(
    any_of(
        rf"[\s,]*\(?(?:{_JOINT}(?:[\s,]+|(?<=\W)|(?=\d))){{0,4}}(?:{_WHEN})\)?",
        rf"[\s,]*{_AFTER_JOINT}{_END}",
        rf"[\s,]+(?:(?:and|or|but|not)\s+)*{_WANTS_TIME}(?:\s+(?!then\b)[^\s,;.!?]+)?",
        # More digits: "in 1 hour 30", "9.30", "1,5", "9-17", "9 - 17:00", "12/3 '26".
        r"(?<=hour|ours)\s+\d{1,2}\b(?!\w)",
        r"(?<=\w)[.'’](?=\w)\S*",
        r"(?<=\d),\d+",
        r"[-–]\d\S*",
        rf"[\s,]+\d{{1,2}}(?::\d\d)?(?:\s?{AMPM})?\s*[-–—]\s*\d\S*",
        r"[\s,]+at\s+the\s+(?:latest|earliest)",
        r"[\s,]*['’]\d\d\b",
        r"\s+and\s+(?:a\s+)?(?:bit|little|half|quarter)\b",
        # More words: "in 2 days time", "friday next", "9 p", "9 uhr", "nine thirty", "9 or so", "and again at 5".
        r"(?<=[dkhr]s)\s+time\b",
        r"(?<=day)\s+next\b",
        r"\s?p\b",
        r"\s+(?:hrs?|hours?|min(?:ute)?s?|sec(?:ond)?s?|uhr|h)\b",
        r"[\s-]+(?:oh|fifteen|twenty|thirty|forty|fifty)\b",
        r"[\s,]+or\s+(?:so|later|earlier|sooner)\b",
        r"[\s,]+and\s+(?:again|then)\s+(?:at|in|on|every)\s+\S+",
        rf"[\s,]+(?:at|@|um)\s*\d\S*(?<!%){NOT_A_THING}",
        # A preposition at the very end, and numbers that nothing else explains.
        r"[\s,]+(?:every|each|at|by|from)(?=\W*$)",
        r"[\s,]+\d{1,2}:\d\d\w*",
        rf"\s+{_NUMBER}{_END}",
    ),
    re.IGNORECASE,
)
"""What belongs to a time that ends in front of it."""
_LEFT = re.compile(
    r"(?<![\w/.'’-])"
    + any_of(
        # Another time or a preposition with a number, and what joins it: "monday and", "from 9 to".
        rf"(?:(?:on|at|by|in|from|between|until|till|after|before)\s+)?(?:(?<!the\s)(?:{_WHEN})"
        rf"|(?:at|by|from|between|until|till|after|before)\s+{_NUMBER})(?:[\s,]+|{_JOINT}(?=[\s\d]))*",
        r"(?:(?:no|not)\s+)?(?:later|earlier|sooner|longer|more|less)\s+than\s+(?:at\s+)?",
        r"(?:(?:every|each|until|till|before|after|from|between|except|excluding|during|since|within|not"
        r"|next|coming|past|starting|beginning|first|second|third|fourth|fifth|last)\s+)+(?:(?:the|about|around|on|at|of)\s+)*",
        r"(?:(?:short|ahead|shy)\s+of|prior\s+to)\s+",
        r"(?:early|late|later|around|about|approximately|roughly|sometime|some\s+time|mid)\s+(?:on\s+|in\s+)?",
        r"on\s+(?:the\s+)?\d{1,2},?\s+",
        r":\d\d\s+",
        rf"(?:in|within|after)\s+{NUMBER}\s+",
        r"(?:mwf|m-?f|tth|all)\s+",
        r"(?:end|beginning|start|middle)\s+of\s+(?:the\s+)?",
        r"between\s+\d\S*\s+and\s+\d\S*\s+",
        r"\S*\*\S*\s+",  # cron fields
        r"(?:(?:morning|evening|night|afternoon|day|week)\s+(?:of|before|after)\s+)",
        r"(?:(?<=\Ame\s)|(?<=\sme\s)|(?<=\A))\d{1,2}\s+",
    )
    + r"\Z",
    re.IGNORECASE,
)
"""What belongs to a time that begins behind it."""
_THING = r"(?:the|a|an|my|our|your|his|her|their|its|this|that|these|those|each|every|\w+['’]s)"


_NEAR = 120  # characters in which the words that belong to a time, or to what it is a part of, are looked for


def extent_of(text: str, start: int, end: int) -> tuple[int, int]:
    """Where the time that was found at ``start`` to ``end`` begins and ends with what adjoins it.

    Raises InvalidSchedule for a zone that is not known.
    """
    while True:
        if zone := zone_at(text, end):
            end = zone[1]
        elif (more := _RIGHT.match(text, end)) and more.end() > end and not _names_report(text, start, more):
            end = more.end()
        else:
            break
    # What adjoins it is a few words: each search begins near enough to cost the same in any text.
    while before := _LEFT.search(text, max(0, start - _NEAR), start):
        start = before.start()
    return start, end


def _names_report(text: str, start: int, more: re.Match[str]) -> bool:
    """Whether ``weekly``, behind a time that recurs already, belongs to a thing: ``every friday weekly report``."""
    is_again = re.search(rf"\b(?:every|each|{_ADVERB}|{WEEKDAY}s)\b", text[start : more.start()], re.IGNORECASE)
    return bool(
        is_again
        and re.fullmatch(rf"\s+{_ADVERB}", more[0], re.IGNORECASE)
        and re.match(r"\s+(?!(?:at|on|by|until|for)\b)[a-z]", text[more.end() :], re.IGNORECASE)
    )


def is_adjective(text: str, start: int, end: int) -> bool:
    """Whether a time is part of a thing's name: ``the 9am report``, ``my daily plan``, ``friday's list``."""
    if re.match(r"['’]\w|-[a-z]", text[end:], re.IGNORECASE):
        return True
    leads = re.search(rf"\b{_THING}\s+\Z", text[max(0, start - _NEAR) : start], re.IGNORECASE)
    return bool(
        leads and re.match(r"\s+(?!(?:at|on|in|by|and|or|until|to|for|please)\b)[a-z]", text[end:], re.IGNORECASE)
    )


def completes(first: str, other: str) -> bool:
    """Whether ``other``, elsewhere in a sentence, could complete the time ``first``: then they are not both read.

    A duration is complete, and so is a day with its time of day.
    """
    is_again = re.search(rf"\b(?:{_REPEATED}|{_ADVERB})", other, re.IGNORECASE)
    if is_again and not (re.fullmatch(_ADVERB, other, re.IGNORECASE) and re.search("every|each", first, re.IGNORECASE)):
        return True
    clocks = re.search(rf"{CLOCK}|{PART}|\d:\d|\d[T ]\d", first, re.IGNORECASE)
    days = re.search(
        rf"{WEEKDAY}|to(?:day|night|morrow)|{DATE}|{SLASHED}|every|each|{_ADVERB}|next|(?:day|week|month|year)s?\b|{MONTH}",
        first,
        re.IGNORECASE,
    )
    if not clocks and not days:
        return False
    if not clocks:
        return re.search(rf"{CLOCK}", other, re.IGNORECASE) is not None
    return (
        not days
        and re.search(rf"\b(?:{WEEKDAY}s?|tomorrow|tonight|{DATE}|next\s+\w+)", other, re.IGNORECASE) is not None
    )


_SHORT_FORMS = dict.fromkeys(("tmrw", "tmr", "tmw", "tomo", "2moro", "2morrow", "2mrw"), "tomorrow") | {
    "2nite": "tonight", "tonite": "tonight", "2day": "today", "ev": "every",
}  # fmt: skip
_TIME_WORDS = (
    "tomorrow", "tonight", "yesterday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday",
    "morning", "afternoon", "evening", "midnight", "minutes", "hours", "weekday", "weekdays", "weekend", "january",
    "february", "april", "august", "september", "october", "november", "december",
)  # fmt: skip


def misspelt(word: str) -> str | None:
    """The word of time that a word beside a time seems to be meant for: ``tomorow``, ``tmrw``; else None."""
    lowered = word.lower()
    if lowered in _SHORT_FORMS:
        return _SHORT_FORMS[lowered]
    if len(lowered) < 5 or lowered in _TIME_WORDS or (lowered.endswith("s") and lowered[:-1] in _TIME_WORDS):
        return None
    close = get_close_matches(lowered, _TIME_WORDS, n=1, cutoff=0.83)
    return close[0] if close and close[0][0] == lowered[0] else None


class HalfRead(InvalidSchedule):
    """A time has more of it beside it than was understood; ``hint``: how to write it."""

    def __init__(self, understood: str, more: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(
            f"I understand {understood.strip()!r} as a time, but not {more.strip(' ,')!r} with it."
            f"{f' {hint}.' if hint else ''} Where the rest is the message, put the time alone in quotation marks:"
            ' "tomorrow at 9" check the loss.',
            field="text",
        )
