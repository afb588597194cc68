"""What a user asks of the offline backend: a sentence in, a typed intent out. Pure; no I/O, no time.

Forgives case, punctuation, politeness and small typos. What it does not understand is :class:`Unknown`, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class _Plain:
    """Base of intents that have no details: equal where they are of one class."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Come back later. ``text`` still holds the time; ``sure`` where the words say so ("remind me …")."""

    text: str
    sure: bool = True


class ListRecalls(_Plain):
    """What is planned."""


@dataclass(frozen=True, slots=True)
class CancelRecall:
    """Cancel what ``what`` names: an id, words of the message, ``""`` (the only one), or all."""

    what: str
    all: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """What happened; ``since`` as for the tool (None: from the beginning)."""

    since: str | None


class Summary(_Plain):
    """The whole session in short."""


@dataclass(frozen=True, slots=True)
class Variables:
    """Which variables there are in the kernel, by a pattern of names."""

    pattern: str = "*"


@dataclass(frozen=True, slots=True)
class Inspect:
    """What a variable, or a part of one, holds."""

    name: str


class LastError(_Plain):
    """What failed last in the notebook."""


@dataclass(frozen=True, slots=True)
class Time:
    """What time it is, here or in ``place``."""

    place: str | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """Count to ``to``, one number each ``every`` seconds."""

    to: int
    every: float


class Help(_Plain):
    """What can you do."""


class Greeting(_Plain):
    """Hello."""


class Thanks(_Plain):
    """Thank you."""


class Unknown(_Plain):
    """Anything else."""


Intent = _Plain | Schedule | CancelRecall | History | Variables | Inspect | Time | Count

_LONGEST = 1000
"""Characters of a sentence that is looked at closely; what is pasted may be a megabyte."""
_BLANKS = re.compile(r"[ \t\r\f\v]{8,}|\n{8,}")
"""Runs of blanks, which make patterns slow and mean nothing."""
_WORDS = frozenset((
    "remind", "reminder", "reminders", "recall", "recalls", "cancel", "delete", "remove", "check", "follow",
    "schedule", "summarise", "summarize", "summary", "happened", "session", "minutes", "minute", "hours",
    "hour", "seconds", "every", "tomorrow", "tonight", "weekday", "weekdays", "weekend", "weekends", "monday",
    "tuesday", "wednesday",
    "thursday", "friday", "saturday", "sunday", "evening", "morning", "afternoon", "hello", "thanks", "daily",
    "hourly", "weekly", "count", "about", "again", "yesterday", "list", "what", "when", "time", "help", "me",
    "mondays", "tuesdays", "wednesdays", "thursdays", "fridays", "saturdays", "sundays", "evenings", "mornings",
    "in", "at", "to", "stop", "every", "week", "month", "day",
))  # fmt: skip
_FIXABLE = sorted(word for word in _WORDS if len(word) >= 5)
_POLITE = re.compile(
    r"^(?:\s|[,;:!.-]|(?:hey|hi|hello|ok|okay|so|well|and|now|please|pls|navi|@navi|kindly)\b(?=[\s,:!]+\S)"
    r"|(?:can|could|would|will) you(?: please)?\b|i(?:'d| would) like you to\b|i want you to\b)+",
    re.IGNORECASE,
)
_REMIND = (
    r"(?:remind (?:me|us)(?: again)?|reminder|remember (?:me|to remind me)|(?:set|make|create|add"
    r"|schedule)(?: me)?(?: up)? "
    r"(?:an?|the|another)? ?(?:\w+ )?(?:reminder|alarm|timer|recall|alert)|recall|schedule|do(?:n't|nt"
    r"| not) let me forget"
    r"|(?:ping|nudge|alert|notify|tell|ask) me)"
)
_RETURN = (
    r"(?:check back|come back|check in|look back|get back to me|follow[ -]?up|look again|check again|try again"
    r"|let me know"
    r"|wake (?:me|up|yourself)(?: up)?)"
)
_TRIGGER = re.compile(rf"^(?:{_REMIND}|{_RETURN})\b", re.IGNORECASE)
_WEAK = re.compile(
    r"^(?:tell me|ask me|let me know|look again|try again|check again|check in|look back|schedule|recall)\b",
    re.IGNORECASE,
)
_LATER_TRIGGER = re.compile(rf"[, ](?:{_REMIND}|{_RETURN})\b", re.IGNORECASE)
_THINGS = (
    r"(?:recalls?|reminders?|alarms?|timers?|alerts?|wake-?ups?|scheduled|schedules?|planned|upcoming|coming up|pending"
    r"|follow[- ]?ups?)"
)
_LIST = re.compile(
    rf"^(?:(?:list|show|display|see|view|get|print|tell me|give me)\b.*\b{_THINGS}\b"
    rf"|(?:what|which|are|is|do|have|any|how many)\b.*\b{_THINGS}\b|(?:my|all|all my|pending|upcoming) {_THINGS}"
    rf"|recalls|reminders|list)"
    r"(?: (?:do (?:i|we|you) have|are there|have i(?: got)?|now|today|here|in this session|left|set))*\W*$",
    re.IGNORECASE,
)
_CANCEL = re.compile(
    r"^(?:cancel|delete|remove|drop|clear|unschedule|stop reminding(?: me)?|forget|never ?mind|stop|kill|abort"
    r"|dismiss)\b(?P<what>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_STRONG_CANCEL = re.compile(r"^(?:cancel|unschedule|stop reminding|dismiss)\b", re.IGNORECASE)
_HISTORY = re.compile(
    r"^(?:what(?:'s| is| has|s)? (?:has )?(?:happened|happend|happening|new|been going on|went on|going on)"
    r"|what did (?:i|we) miss"
    r"|what have i missed|did (?:i miss anything|anything happen)|has anything happened|anything new|catch me up"
    r"|news|bring me up to date"
    r"|what did (?:you|we|i) do|history|show (?:me )?(?:the )?history|remind me what (?:happened"
    r"|we did))\b(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_SUMMARY = re.compile(
    r"^(?:summari[sz]e|sum up|recap|tl;?dr|(?:give|show|write|make)(?: me)? (?:an? |the )?(?:\w+ )?(?:summary|recap)"
    r"|(?:an? )?summary)\b"
    r"(?P<rest>.*)$",
    re.IGNORECASE | re.DOTALL,
)
_HERE = frozenset((
    "of", "about", "this", "the", "our", "my", "it", "all", "everything", "whole", "entire", "so", "far",
    "today", "us", "for", "me", "please", "session", "chat", "conversation", "discussion", "talk", "thread",
    "above", "until", "now", "what", "happened", "has", "been", "said", "done", "we", "did", "notebook's",
    "history", "up", "to",
))  # fmt: skip
"""A summary of these is one of the session; of anything else it is a language model's work."""
_TIME = re.compile(
    r"^(?:what(?:'s| is|s)? (?:the )?(?:(?:current|local|exact) )?(?:time|date|day)(?: is it| is today"
    r"| of (?:the )?(?:day|week)| today| now)*"
    r"|what time is it|what day is (?:it|today)|(?:current|local) (?:time|date)|time|date"
    r"|(?:do you know )?(?:the )?time now"
    r"|what(?:'s| is) today(?:'s date)?|tell me the (?:time|date)|which (?:day|date) is (?:it|today))"
    r"(?: (?:right )?now| today| please)*(?: (?:in|at) (?P<place>[a-z][\w /_.'-]{1,40}?))?(?: (?:right )?now"
    r"| please)*\W*$",
    re.IGNORECASE,
)
_COUNT = re.compile(
    r"^count(?: from 1| from one)?(?: up)? to (?P<to>\d{1,6})(?P<rest>\b.*)?$", re.IGNORECASE | re.DOTALL
)
_VARIABLES = re.compile(
    r"^(?:(?:what|which|show|list|print|display|how many|are there|do i have|all|my|any)\b.*\b(?:variables?|vars)\b"
    r"(?: (?:are|is|do|does|have|i|we|you|there|defined|in|the|this|my|our|kernel|notebook|memory|now|here|got|exist"
    r"|loaded|set))*|what(?:'s| is) (?:defined |loaded )?in (?:the|my|this) (?:kernel|notebook|memory|namespace)"
    r"|(?:variables|vars|%?whos?))(?: (?:named|called|like|matching)? ?`?(?P<pattern>[\w*?]*[*?][\w*?]*)`?)?$",
    re.IGNORECASE,
)
_ERROR = r"(?:error|exception|traceback|failure|crash)s?"
_LAST_ERROR = re.compile(
    r"^(?:what(?:'s| is| was| has| have| just| went|s)*(?: (?:the|last|just|my|has|have|went|most|recent))*"
    rf" (?:failed|fail|wrong|crashed|broke|broken|{_ERROR})|(?:which|what) cells? (?:has |have |did )?fail(?:ed)?"
    r"|why (?:did|has|does) (?:it|this|that|(?:the|my|this|that)(?: last)? (?:cell|code|notebook|run)) (?:fail(?:ed)?"
    r"|crash(?:ed)?|break|stop|not work)"
    rf"|(?:(?:show|print|display|give|explain)(?: me)? )?(?:the |my )?(?:last |latest )?{_ERROR})"
    r"(?: (?:in|of|the|this|my|notebook|kernel|cell|here|last|just now|message|about|again|now|there))*$",
    re.IGNORECASE,
)
_INSPECT = re.compile(
    r"^(?:(?:show|inspect|describe|display|print|examine|preview)(?: me)?|what(?:'s| is)(?: in)?|what does"
    r"|(?:info|details|infos)(?: on| about| of)?|how (?:big|large|long) is)(?: the)?"
    r"(?: (?:variable|values?(?: of)?|data ?frame|array|table|contents? of|head of|tail of|shape of|size of|type of"
    r"|columns of))?(?: the)? `?(?P<name>[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w*|\[[\w'\"., -]{1,60}\])*)`?"
    r"(?: (?:now|please|look like|contain|hold|again))*$",
    re.IGNORECASE,
)
_NO_VARIABLES = frozenset((
    "me", "it", "this", "that", "them", "everything", "all", "help", "up", "here", "navi", "you", "a", "an", "the",
    "there",
))  # fmt: skip
_HELP = re.compile(
    r"^(?:help(?: me)?(?: please)?|\?+|what can (?:you|i|navi) (?:do|ask|say)(?: for me| here)?|what (?:do"
    r"|are) you(?: do| able to do| good at)?"
    r"|who are you|how (?:do(?:es)?|can) (?:you|this|it|i) (?:work|use (?:you|this|navi))|commands|usage|show help"
    r"|what else can you do"
    r"|what are your (?:commands|features|capabilities))\W*$",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^(?:hi+|hey+|hello+|hallo|howdy|yo|greetings|good (?:morning|afternoon|evening|day)|moin|servus)"
    r"(?:[ ,]+(?:navi|there|you|all|everyone|again))*\W*$",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"^(?:thanks?(?: you)?|thx|ty|cheers|great|nice|perfect|cool|awesome|good job|well done|danke|ok(?:ay)?)"
    r"(?:[ ,!]+(?:thanks?|you|so much|a lot|very much|navi|again|a million|job|work))*\W*$",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^(?:what|why|how|who|where|when|which|is|are|was|were|do|does|did|should|shall|may|can i|could i|am i)\b",
    re.IGNORECASE,
)
_IMPERATIVE = re.compile(
    r"^(?:check|look|see|tell|say|ask|call|write|send|start|summari[sz]e|report|list|show|review|water|feed|buy"
    r"|leave|go|stand"
    r"|stretch|drink|take|make|do|get|read|update|restart|run|count|save|back up|backup|commit|push|submit|plot"
    r"|evaluate|test)\b",
    re.IGNORECASE,
)


def understand(written: str) -> Intent:
    """The intent of a sentence. A long text has none of these, unless it begins as a reminder."""
    written = _BLANKS.sub(" ", written.strip())
    text = _POLITE.sub("", written) or written
    if len(text) > _LONGEST:
        return Schedule(text, sure=_WEAK.match(text) is None) if _TRIGGER.match(text) else Unknown()
    plain = re.sub(r"[\s?!.]+$", "", text)
    plain = re.sub(r"[\s,]+(?:please|pls|thanks|thank you)$", "", plain, flags=re.IGNORECASE)
    exact = _exact(text, plain) or _exact(text, fix_typos(plain))
    # Names of variables are left as they are: "df" is no typo.
    return exact or _inspect(plain) or _loose(written, text, fix_typos(plain))


def fix_typos(text: str) -> str:
    """``text`` with the typos in words of ours corrected: ``minuts``, ``tomorow``, ``remnid``.

    In its beginning only: a request is short, and comparing each word of a long text would hold up the event loop.
    """

    def fixed(match: re.Match[str]) -> str:
        word = match[0]
        lowered = word.lower()
        if lowered in _WORDS or len(word) < 4:
            return word
        close = get_close_matches(lowered, _FIXABLE, n=1, cutoff=0.83)
        # "minute" and "minutes" are both right; a plural of something else is not a typo.
        return close[0] if close and close[0][0] == lowered[0] else word

    return re.sub(r"[A-Za-z]+", fixed, text[:_LONGEST]) + text[_LONGEST:]


def _inspect(plain: str) -> Inspect | None:
    match = _INSPECT.match(plain)
    return Inspect(match["name"]) if match and match["name"].lower() not in _NO_VARIABLES else None


def _exact(text: str, plain: str) -> Intent | None:
    """What the first words decide. ``plain`` is without end punctuation, perhaps with typos corrected."""
    if match := _HISTORY.match(plain):
        return History(_since(match["rest"]))
    if _LIST.match(plain):
        return ListRecalls()
    if _TRIGGER.match(plain):
        return Schedule(plain, sure=_WEAK.match(plain) is None)
    if (match := _CANCEL.match(plain)) and (cancel := _cancel(plain, match["what"])):
        return cancel
    if (match := _SUMMARY.match(plain)) and _HERE.issuperset(re.findall(r"[\w']+", match["rest"].lower())):
        return Summary()
    if match := _TIME.match(plain):
        return Time(match["place"])
    if match := _VARIABLES.match(plain):
        return Variables(match["pattern"] or "*")
    if _LAST_ERROR.match(plain):
        return LastError()
    if match := _COUNT.match(plain):
        return _count(match)
    for pattern, intent in ((_HELP, Help()), (_GREETING, Greeting()), (_THANKS, Thanks())):
        if pattern.match(plain) or (pattern is _HELP and pattern.match(text)):
            return intent
    return None


def _loose(written: str, text: str, plain: str) -> Intent:
    """A later trigger ("in 10 minutes remind me"), or an order that may hold a time."""
    if _QUESTION.match(plain):
        return Unknown()
    if _LATER_TRIGGER.search(f" {plain}"):
        return Schedule(text)
    if _IMPERATIVE.match(plain) or re.match(
        r"^(?:in|at|on|every|each|tomorrow|tonight|next|daily|hourly|after)\b", plain, re.IGNORECASE
    ):
        return Schedule(text, sure=False)
    if _GREETING.match(written):
        return Greeting()
    return Unknown()


def _since(rest: str) -> str | None:
    words = re.sub(r"[\s?!.]+$", "", rest.strip())
    if re.search(r"\b(?:away|gone|out|asleep|offline|not here|i slept|last (?:here|time))\b", words, re.IGNORECASE):
        return "away"
    words = re.sub(
        r"^(?:in |to )?(?:here|this session|the session|this chat|with (?:this|it))\s*", "", words, flags=re.IGNORECASE
    )
    found = re.match(r"^(?:since |in |within |during |over |between )?(?P<when>.*)$", words, re.IGNORECASE | re.DOTALL)
    when = (found["when"] if found else "").strip()
    is_vague = not when or re.fullmatch(r"(?:then|here|so far|now|lately|recently|before)", when, re.IGNORECASE)
    return None if is_vague else when


def _cancel(plain: str, what: str) -> CancelRecall | None:
    named = re.search(rf"\b{_THINGS}\b|\b\w{{1,8}}_[0-9a-f]{{3,}}\b", what, re.IGNORECASE)
    all_of = (
        rf"\W*(?:everything|every|them all|all of (?:them|it)|all|each)\b(?:\s*(?:of|my|the|these|those|{_THINGS}))*\W*"
    )
    everything = re.fullmatch(all_of, what, re.IGNORECASE)
    if not (named or everything or _STRONG_CANCEL.match(plain)):
        return None
    if everything:
        return CancelRecall("", all=True)
    words = re.sub(rf"\b(?:the|my|a|an|that|this|please|me|one|{_THINGS})\b", " ", what, flags=re.IGNORECASE)
    words = re.sub(
        r"^\W*(?:about|for|to|of|with|on|called|named|titled|at|number|id)\b", " ", words.strip(), flags=re.IGNORECASE
    )
    return CancelRecall(" ".join(words.strip(" \"'“”.,!?").split()))


def _count(match: re.Match[str]) -> Count:
    rest = (match["rest"] or "").lower()
    every = 0.02
    if pace := re.search(r"every (\d{1,6}(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?)\b", rest):
        every = float(pace[1]) / (1000 if pace[2].startswith("m") else 1)
    elif "slow" in rest:
        every = 0.2
    elif "every second" in rest:
        every = 1.0
    return Count(min(int(match["to"]), 100_000), min(every, 60.0))


_STRIP = re.compile(
    rf"^(?:{_REMIND})\b\s*(?:again\b)?[\s,:;–-]*(?:(?:to|about|that|of|for|when|if i|called|saying|with)\b[\s,:]*)?",
    re.IGNORECASE,
)
_MORNING = re.compile(r"^wake (?:me|up|yourself)(?: up)?\b[\s,:]*(?:(?:to|for|and)\b)?\s*", re.IGNORECASE)


def message_of(rest: str) -> str:
    """The message of a recall, from its sentence without the time; ``""`` when there is none."""
    words, tail = rest.strip()[:_LONGEST], rest.strip()[_LONGEST:]
    words = _POLITE.sub("", _BLANKS.sub(" ", words)).strip()
    words = re.sub(r"[\s,]*\b(?:please|thanks|thank you)\b[\s.!]*$", "", words, flags=re.IGNORECASE)
    words = _STRIP.sub("", words) if _STRIP.match(words) else words
    if wake := _MORNING.match(words):
        words = words[wake.end() :] or "Wake up"
    if tail:
        return words + tail
    words = re.sub(
        r"\s*\b(?:and )?(?:please )?(?:remind me|ping me|tell me)(?: (?:about it|again|to|that))?\s*$",
        "",
        words,
        flags=re.IGNORECASE,
    )
    words = re.sub(r"[\s,]+(?:for|at|on|in|by|to)$", "", words.strip(" \t,;:-?"), flags=re.IGNORECASE)
    words = re.sub(r"^(?:to|about|that|for|on)\s+(?=\w)", "", words, flags=re.IGNORECASE)
    if words.lower() in ("", "me", "it", "that", "this", "a", "an", "again"):
        return ""
    return words[0].upper() + words[1:]
