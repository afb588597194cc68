"""What a user asks of the offline backend: a sentence in, an intent out. Pure; no I/O, no time.

Forgives case, punctuation, politeness and small typos. What it does not understand is ``unknown``, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Literal, NamedTuple

Kind = Literal[
    "schedule", "maybe schedule", "list", "cancel", "cancel all", "history", "summary", "variables", "inspect", "plot",
    "last error", "time", "count", "help", "greeting", "thanks", "unknown",
]  # fmt: skip
"""``maybe schedule``: an order, which is meant for later only if there is a time in it."""


class Intent(NamedTuple):
    """What is asked, and its detail."""

    kind: Kind
    text: str = ""
    """The sentence that holds the time, the words that name a recall (``""``: the only one), since when, the pattern or
    name of variables, the place, or the number to count to."""
    every: float = 0.0  # seconds between the numbers of a count


_UNKNOWN = Intent("unknown")
_LONGEST = 1000  # characters of a sentence that is looked at closely; what is pasted may be a megabyte
_BLANKS = re.compile(r"[ \t\r\f\v]{8,}|\n{8,}")  # runs of blanks, which make patterns slow and mean nothing
_WORDS = frozenset((
    "remind", "reminder", "reminders", "recall", "recalls", "cancel", "delete", "remove", "check", "follow", "schedule",
    "summarise", "summarize", "summary", "happened", "session", "minutes", "minute", "hours", "hour", "seconds",
    "every", "tomorrow", "tonight", "weekday", "weekdays", "weekend", "weekends", "monday", "tuesday", "wednesday",
    "thursday", "friday", "saturday", "sunday", "evening", "morning", "afternoon", "hello", "thanks", "daily", "hourly",
    "weekly", "count", "about", "again", "yesterday", "list", "what", "when", "time", "help", "me", "mondays",
    "tuesdays", "wednesdays", "thursdays", "fridays", "saturdays", "sundays", "evenings", "mornings", "in", "at", "to",
    "stop", "every", "week", "month", "day",
))  # fmt: skip
_FIXABLE = sorted(word for word in _WORDS if len(word) >= 5)
_POLITE = re.compile(
    r"(?i)^(?:\s|[,;:!.-]|(?:hey|hi|hello|ok|okay|so|well|and|now|please|pls|navi|@navi|kindly)\b(?=[\s,:!]+\S)"
    r"|(?:can|could|would|will) you(?: please)?\b|i(?:'d| would) like you to\b|i want you to\b)+"
)
_REMIND = (
    r"(?:remind (?:me|us)(?: again)?|reminder|remember (?:me|to remind me)|(?:set|make|create|add"
    r"|schedule)(?: me)?(?: up)? (?:an?|the|another)? ?(?:\w+ )?(?:reminder|alarm|timer|recall|alert)|recall|schedule"
    r"|do(?:n't|nt| not) let me forget|(?:ping|nudge|alert|notify|tell|ask) me)"
)
_RETURN = (
    r"(?:check back|come back|check in|look back|get back to me|follow[ -]?up|look again|check again|try again"
    r"|let me know|wake (?:me|up|yourself)(?: up)?)"
)
_TRIGGER = re.compile(rf"(?i)(?:{_REMIND}|{_RETURN})\b")
_WEAK = re.compile(
    r"(?i)(?:tell me|ask me|let me know|look again|try again|check again|check in|look back|schedule|recall)\b"
)
_LATER_TRIGGER = re.compile(rf"(?i)[, ](?:{_REMIND}|{_RETURN})\b")
_THINGS = (
    r"(?:recalls?|reminders?|alarms?|timers?|alerts?|wake-?ups?|scheduled|schedules?|planned|upcoming|coming up|pending"
    r"|follow[- ]?ups?)"
)
_LIST = re.compile(
    rf"(?i)(?:(?:list|show|display|see|view|get|print|tell me|give me)\b.*\b{_THINGS}\b|(?:what|which|are|is|do|have"
    rf"|any|how many)\b.*\b{_THINGS}\b|(?:my|all|all my|pending|upcoming) {_THINGS}|recalls|reminders|list)"
    r"(?: (?:do (?:i|we|you) have|are there|have i(?: got)?|now|today|here|in this session|left|set))*\W*$"
)
_CANCEL = re.compile(
    r"(?is)(?:cancel|delete|remove|drop|clear|unschedule|stop reminding(?: me)?|forget|never ?mind|stop|kill|abort"
    r"|dismiss)\b(?P<what>.*)$"
)
_STRONG_CANCEL = re.compile(r"(?i)(?:cancel|unschedule|stop reminding|dismiss)\b")
_HISTORY = re.compile(
    r"(?is)(?:what(?:'s| is| has|s)? (?:has )?(?:happened|happend|happening|new|been going on|went on|going on)"
    r"|what did (?:i|we) miss|what have i missed|did (?:i miss anything|anything happen)|has anything happened"
    r"|anything new|catch me up|news|bring me up to date|what did (?:you|we|i) do|history"
    r"|show (?:me )?(?:the )?history|remind me what (?:happened|we did))\b(?P<rest>.*)$"
)
_SUMMARY = re.compile(
    r"(?is)(?:summari[sz]e|sum up|recap|tl;?dr|(?:give|show|write|make)(?: me)? (?:an? |the )?(?:\w+ )?(?:summary"
    r"|recap)|(?:an? )?summary)\b(?P<rest>.*)$"
)
_HERE = frozenset((
    "of", "about", "this", "the", "our", "my", "it", "all", "everything", "whole", "entire", "so", "far", "today", "us",
    "for", "me", "please", "session", "chat", "conversation", "discussion", "talk", "thread", "above", "until", "now",
    "what", "happened", "has", "been", "said", "done", "we", "did", "notebook's", "history", "up", "to",
))  # fmt: skip
"""A summary of these is one of the session; of anything else it is a language model's work."""
_TIME = re.compile(
    r"(?i)(?:what(?:'s| is|s)? (?:the )?(?:(?:current|local|exact) )?(?:time|date|day)(?: is it| is today"
    r"| of (?:the )?(?:day|week)| today| now)*|what time is it|what day is (?:it|today)|(?:current|local) (?:time"
    r"|date)|time|date|(?:do you know )?(?:the )?time now|what(?:'s| is) today(?:'s date)?|tell me the (?:time|date)"
    r"|which (?:day|date) is (?:it|today))(?: (?:right )?now| today| please)*(?: (?:in"
    r"|at) (?P<place>[a-z][\w /_.'-]{1,40}?))?(?: (?:right )?now| please)*\W*$"
)
_COUNT = re.compile(r"(?is)count(?: from 1| from one)?(?: up)? to (?P<to>\d{1,6})(?P<rest>\b.*)?$")
_VARIABLES = re.compile(
    r"(?i)(?:(?:what|which|show|list|print|display|how many|are there|do i have|all|my|any)\b.*\b(?:variables?|vars)\b"
    r"(?: (?:are|is|do|does|have|i|we|you|there|defined|in|the|this|my|our|kernel|notebook|memory|now|here|got|exist"
    r"|loaded|set))*|what(?:'s| is) (?:defined |loaded )?in (?:the|my|this) (?:kernel|notebook|memory|namespace)"
    r"|(?:variables|vars|%?whos?))(?: (?:named|called|like|matching)? ?`?(?P<pattern>[\w*?]*[*?][\w*?]*)`?)?$"
)
_ERROR = r"(?:error|exception|traceback|failure|crash)s?"
_LAST_ERROR = re.compile(
    r"(?i)(?:what(?:'s| is| was| has| have| just| went|s)*(?: (?:the|last|just|my|has|have|went|most|recent))*"
    rf" (?:failed|fail|wrong|crashed|broke|broken|{_ERROR})|(?:which|what) cells? (?:has |have |did )?fail(?:ed)?"
    r"|why (?:did|has|does) (?:it|this|that|(?:the|my|this|that)(?: last)? (?:cell|code|notebook|run)) (?:fail(?:ed)?"
    r"|crash(?:ed)?|break|stop|not work)"
    rf"|(?:(?:show|print|display|give|explain)(?: me)? )?(?:the |my )?(?:last |latest )?{_ERROR})"
    r"(?: (?:in|of|the|this|my|notebook|kernel|cell|here|last|just now|message|about|again|now|there))*$"
)
_INSPECT = re.compile(
    r"(?i)(?:(?:show|inspect|describe|display|print|examine|preview)(?: me)?|what(?:'s| is)(?: in)?|what does"
    r"|(?:info|details|infos)(?: on| about| of)?|how (?:big|large|long) is)(?: the)?"
    r"(?: (?:variable|values?(?: of)?|data ?frame|array|table|contents? of|head of|tail of|shape of|size of|type of"
    r"|columns of))?(?: the)? `?(?P<name>[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w*|\[[\w'\"., -]{1,60}\])*)`?"
    r"(?: (?:now|please|look like|contain|hold|again))*$"
)
_PLOT = re.compile(
    r"(?i)(?:plot|graph|chart|draw|visuali[sz]e|(?:show|give|make|draw)(?: me)? an? (?:plot|graph|chart) of"
    r"|code (?:to|that) plots?)(?: (?:the|my|a|variable))* `?(?P<name>[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w*)*)`?"
    r"(?: (?:now|please|again))*$"
)
_ASIDE = re.compile(r"(?:\n\n\[[^\[\]\n]{1,300}\])+\s*$")  # what a program has added for a model, as ``--insert`` does
_NO_VARIABLES = frozenset((
    "me", "it", "this", "that", "them", "everything", "all", "help", "up", "here", "navi", "you", "a", "an", "the",
    "there",
))  # fmt: skip
_HELP = re.compile(
    r"(?i)(?:help(?: me)?(?: please)?|\?+|what can (?:you|i|navi) (?:do|ask|say)(?: for me| here)?|what (?:do"
    r"|are) you(?: do| able to do| good at)?|who are you|how (?:do(?:es)?|can) (?:you|this|it|i) (?:work|use (?:you"
    r"|this|navi))|commands|usage|show help|what else can you do|what are your (?:commands|features"
    r"|capabilities))\W*$"
)
_GREETING = re.compile(
    r"(?i)(?:hi+|hey+|hello+|hallo|howdy|yo|greetings|good (?:morning|afternoon|evening|day)|moin|servus)"
    r"(?:[ ,]+(?:navi|there|you|all|everyone|again))*\W*$"
)
_THANKS = re.compile(
    r"(?i)(?:thanks?(?: you)?|thx|ty|cheers|great|nice|perfect|cool|awesome|good job|well done|danke|ok(?:ay)?)"
    r"(?:[ ,!]+(?:thanks?|you|so much|a lot|very much|navi|again|a million|job|work))*\W*$"
)
_QUESTION = re.compile(
    r"(?i)(?:what|why|how|who|where|when|which|is|are|was|were|do|does|did|should|shall|may|can i|could i|am i)\b"
)
_IMPERATIVE = re.compile(
    r"(?i)(?:check|look|see|tell|say|ask|call|write|send|start|summari[sz]e|report|list|show|review|water|feed|buy|leave"
    r"|go|stand|stretch|drink|take|make|do|get|read|update|restart|run|count|save|back up|backup|commit|push|submit"
    r"|plot|evaluate|test|in|at|on|every|each|tomorrow|tonight|next|daily|hourly|after)\b"
)


def understand(written: str) -> Intent:
    """The intent of a sentence. A long text has none of these, unless it begins as a reminder."""
    written = _BLANKS.sub(" ", written.strip())
    written = _ASIDE.sub("", written) if len(written) <= _LONGEST else written
    text = _POLITE.sub("", written) or written
    if len(text) > _LONGEST:
        return _schedule(text) if _TRIGGER.match(text) else _UNKNOWN
    plain = re.sub(r"[\s?!.]+$", "", text)
    plain = re.sub(r"(?i)[\s,]+(?:please|pls|thanks|thank you)$", "", plain)
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


def _exact(text: str, plain: str) -> Intent | None:
    """What the first words decide. ``plain`` is without end punctuation, perhaps with typos corrected."""
    for pattern, read in _FORMS:
        if match := pattern.match(plain) or (pattern is _HELP and pattern.match(text)):
            intent = Intent(read) if isinstance(read, str) else read(match)
            if intent is not None:
                return intent
    return None


def _loose(written: str, text: str, plain: str) -> Intent:
    """A later trigger ("in 10 minutes remind me"), or an order that may hold a time."""
    if _QUESTION.match(plain):
        return _UNKNOWN
    if _LATER_TRIGGER.search(f" {plain}"):
        return Intent("schedule", text)
    if _IMPERATIVE.match(plain):
        return Intent("maybe schedule", text)
    return Intent("greeting") if _GREETING.match(written) else _UNKNOWN


def _schedule(plain: str) -> Intent:
    return Intent("maybe schedule" if _WEAK.match(plain) else "schedule", plain)


def _inspect(plain: str) -> Intent | None:
    for pattern, kind in _OF_VARIABLE:
        match = pattern.match(plain)
        if match and match["name"].lower() not in _NO_VARIABLES:
            return Intent(kind, match["name"])
    return None


_OF_VARIABLE: tuple[tuple[re.Pattern[str], Kind], ...] = ((_PLOT, "plot"), (_INSPECT, "inspect"))


def _summary(match: re.Match[str]) -> Intent | None:
    return Intent("summary") if _HERE.issuperset(re.findall(r"[\w']+", match["rest"].lower())) else None


def _history(match: re.Match[str]) -> Intent:
    words = re.sub(r"[\s?!.]+$", "", match["rest"].strip())
    if re.search(r"(?i)\b(?:away|gone|out|asleep|offline|not here|i slept|last (?:here|time))\b", words):
        return Intent("history", "away")
    words = re.sub(r"(?i)^(?:in |to )?(?:here|this session|the session|this chat|with (?:this|it))\s*", "", words)
    found = re.match(r"(?is)^(?:since |in |within |during |over |between )?(?P<when>.*)$", words)
    when = (found["when"] if found else "").strip()
    is_vague = not when or re.fullmatch(r"(?i)(?:then|here|so far|now|lately|recently|before)", when)
    return Intent("history", "" if is_vague else when)


def _cancel(match: re.Match[str]) -> Intent | None:
    what = match["what"]
    named = re.search(rf"(?i)\b{_THINGS}\b|\b\w{{1,8}}_[0-9a-f]{{3,}}\b", what)
    all_of = r"\W*(?:everything|every|them all|all of (?:them|it)|all|each)\b"
    everything = re.fullmatch(rf"(?i){all_of}(?:\s*(?:of|my|the|these|those|{_THINGS}))*\W*", what)
    if not (named or everything or _STRONG_CANCEL.match(match[0])):
        return None
    if everything:
        return Intent("cancel all")
    words = re.sub(rf"(?i)\b(?:the|my|a|an|that|this|please|me|one|{_THINGS})\b", " ", what)
    words = re.sub(r"(?i)^\W*(?:about|for|to|of|with|on|called|named|titled|at|number|id)\b", " ", words.strip())
    return Intent("cancel", " ".join(words.strip(" \"'“”.,!?").split()))


def _count(match: re.Match[str]) -> Intent:
    rest = (match["rest"] or "").lower()
    every = 0.02
    if pace := re.search(r"every (\d{1,6}(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?)\b", rest):
        every = float(pace[1]) / (1000 if pace[2].startswith("m") else 1)
    elif "slow" in rest:
        every = 0.2
    elif "every second" in rest:
        every = 1.0
    return Intent("count", str(min(int(match["to"]), 100_000)), min(every, 60.0))


_FORMS: tuple[tuple[re.Pattern[str], Kind | Callable[[re.Match[str]], Intent | None]], ...] = (
    (_HISTORY, _history),
    (_LIST, "list"),
    (_TRIGGER, lambda match: _schedule(match.string)),
    (_CANCEL, _cancel),
    (_SUMMARY, _summary),
    (_TIME, lambda match: Intent("time", match["place"] or "")),
    (_VARIABLES, lambda match: Intent("variables", match["pattern"] or "*")),
    (_LAST_ERROR, "last error"),
    (_COUNT, _count),
    (_HELP, "help"),
    (_GREETING, "greeting"),
    (_THANKS, "thanks"),
)
"""The first that fits a sentence, and makes an intent of it."""


_STRIP = re.compile(
    rf"(?i)^(?:{_REMIND})\b\s*(?:again\b)?[\s,:;–-]*(?:(?:to|about|that|of|for|when|if i|called|saying|with)\b[\s,:]*)?"
)
_MORNING = re.compile(r"(?i)wake (?:me|up|yourself)(?: up)?\b[\s,:]*(?:(?:to|for|and)\b)?\s*")


def message_of(rest: str) -> str:
    """The message of a recall, from its sentence without the time; ``""`` when there is none."""
    words, tail = rest.strip()[:_LONGEST], rest.strip()[_LONGEST:]
    words = _POLITE.sub("", _BLANKS.sub(" ", words)).strip()
    words = re.sub(r"(?i)[\s,]*\b(?:please|thanks|thank you)\b[\s.!]*$", "", words)
    words = _STRIP.sub("", words) if _STRIP.match(words) else words
    if wake := _MORNING.match(words):
        words = words[wake.end() :] or "Wake up"
    if tail:
        return words + tail
    words = re.sub(
        r"(?i)\s*\b(?:and )?(?:please )?(?:remind me|ping me|tell me)(?: (?:about it|again|to|that))?\s*$", "", words
    )
    words = re.sub(r"(?i)[\s,]+(?:for|at|on|in|by|to)$", "", words.strip(" \t,;:-?"))
    words = re.sub(r"(?i)^(?:to|about|that|for|on)\s+(?=\w)", "", words)
    if words.lower() in ("", "me", "it", "that", "this", "a", "an", "again"):
        return ""
    return words[0].upper() + words[1:]
