"""What ``%navi recall …`` means: ``in 10m …``, ``when done …``, or a time in English that the server is to read. Pure.

Not responsible for judging times and events: that is the server's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import UsageError
from .options import QUOTED, take_options
from .times import instant_text, local_tz, named_zone, take_duration, take_time

POLICY = (
    "misfire", "grace", "busy", "retries", "timeout", "until", "max-fires", "jitter", "cancel-on", "notify", "quiet",
)  # fmt: skip
_LISTS = ("cancel-on", "notify")
"""Policies that are lists: with commas."""
_CRON_FIELD = re.compile(r"[0-9*?][0-9*/,?#L-]*|(?:MON|TUE|WED|THU|FRI|SAT|SUN)(?:[-,][A-Z0-9]+)*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRecall:
    """Schedule a message. ``schedule`` and ``policy`` are in the contract's form."""

    message: str
    schedule: Mapping[str, Any]
    policy: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None
    session: str | None = None
    words: str | None = None
    """A time in English that the server is to read; ``schedule`` is empty then."""
    sentence: bool = False
    """``words`` have the message, too. They are a prompt when there is no time in them."""
    tz: str | None = None


def read_recall(rest: str, now: datetime | None) -> NewRecall | None:
    """The meaning of ``recall <rest>``; None when it is no wish to be woken. Raises UsageError."""
    options, rest = _recall_options(rest)
    if quoted := QUOTED.match(rest):
        return _in_words(quoted, rest, options)
    kind, _, text = rest.partition(" ")
    kind = kind.lower().rstrip(",")
    if kind in _SCHEDULES:
        return _by_kind(kind, text.strip(), rest, options, now)
    if _TIME_WORD.fullmatch(kind) and not _PAST.match(rest):
        return _sentence(rest, options)
    if (said := _when_last(rest)) is not None:
        return _made(said[0], said[1], options)
    if options:
        raise UsageError(f"A recall begins with in, at, every, cron or when. {RECALL_HELP}")
    return None


def _by_kind(kind: str, text: str, rest: str, options: dict[str, str], now: datetime | None) -> NewRecall | None:
    """``rest`` begins with ``kind``. What our own forms can not say in full is a sentence for the server to read."""
    try:
        taken = _SCHEDULES[kind](text, options.get("tz"), now)
    except UsageError as error:
        words = {"at": r".*[a-z]{2}", "every": r"\d+(?:st|nd|rd|th)\b"}.get(kind)
        if error.field != "tz" and words is not None and re.match(words, text, re.IGNORECASE):
            return _sentence(rest, options)
        raise
    if taken is None:
        return _sentence(rest, options) if kind == "every" or _MAY_BE_TIME.match(rest) else None
    schedule, text = taken
    more, message = _recall_options(text)
    if kind in ("in", "at", "every") and _GOES_ON.match(message):
        return _sentence(rest, options)
    options |= more
    if kind == "cron" and "tz" in options:
        schedule = {**schedule, "tz": options["tz"]}
    if not message:
        raise UsageError(f"What should Navi do then? {WHEN_HELP if kind == 'when' else RECALL_HELP}")
    return _made(_unquoted(message), schedule, options)


def _made(message: str, schedule: dict[str, Any], options: Mapping[str, str]) -> NewRecall:
    return NewRecall(
        message=message,
        schedule=_repeated(schedule, options),
        policy=_policy(options),
        title=options.get("title"),
        session=options.get("session"),
    )


def _sentence(rest: str, options: Mapping[str, str]) -> NewRecall:
    return NewRecall(
        message="",
        schedule={},
        policy=_policy(options),
        title=options.get("title"),
        session=options.get("session"),
        words=rest,
        sentence=True,
        tz=options.get("tz"),
    )


def _in_words(quoted: re.Match[str], rest: str, options: dict[str, str]) -> NewRecall:
    """``"every other friday at 16:00" check the loss``: the server reads what is in quotes."""
    more, message = _recall_options(rest[quoted.end() :].strip())
    options |= more
    if not message:
        raise UsageError(f"What should Navi do then? {RECALL_HELP}")
    return NewRecall(
        message=message,
        schedule={},
        policy=_policy(options),
        title=options.get("title"),
        session=options.get("session"),
        words=quoted[2].strip(),
        tz=options.get("tz"),
    )


def _policy(options: Mapping[str, str]) -> dict[str, Any]:
    given = {name: options[name] for name in POLICY if name in options}
    return {
        name.replace("-", "_"): text.split(",") if name in _LISTS else _number(text) for name, text in given.items()
    }


def _repeated(schedule: dict[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """``--each`` and ``--cooldown`` belong to the event, not to the policy."""
    if schedule["kind"] != "when":
        if wrong := next((name for name in ("each", "cooldown") if name in options), None):
            raise UsageError(f"--{wrong} goes with when.")
        return schedule
    again = {"repeat": "each"} if "each" in options else {}
    return {**schedule, **again, **({"cooldown": options["cooldown"]} if "cooldown" in options else {})}


RECALL_HELP = "For example: %navi recall in 10m check the loss"
WHEN_HELP = "For example: %navi recall when done summarize the output"


_TIME_WORD = re.compile(
    r"every|each|at|on|in|next|this|tomorrow|today|tonight|noon|midnight|hourly|daily|nightly|weekly|biweekly|monthly"
    r"|fortnightly|quarterly|yearly|twice|weekdays?|workdays?|weekends?|first|last|end"
    r"|(?:mon|tues?|wednes|thurs?|fri|satur|sun)days?|mon|tues?|wed|thurs?|thu|fri|sat|sun",
    re.IGNORECASE,
)
"""With which a time in English may begin."""
_PAST = re.compile(r"(?:last|this)\s+(?:week|month|year|night|time|session|run)\b", re.IGNORECASE)
"""Then it is a question about what was."""
_MAY_BE_TIME = re.compile(
    r"(?:in|at)\s+(?:(?:about|around)\s+)?(?:\d|an?\b|the\s|half|quarter|noon|midnight|lunchtime|one|two|three|four|five|six"
    r"|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty|forty|fifty|sixty|ninety)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r",?\s*(?:at|on|every|each|until|till|between|from|for|starting|beginning|tomorrow|today|tonight|and|or|in|daily"
    r"|twice|\d+\s+times|except|excluding|but|before|after|during|of|(?:mon|tues|wednes|thurs|fri|satur|sun)days?)\b",
    re.IGNORECASE,
)
"""With which more of a time may begin, behind what was read of it: ``every 2 hours between 9 and 17``."""


def _unquoted(message: str) -> str:
    """Without quotation marks around all of it."""
    quoted = QUOTED.fullmatch(message)
    return quoted[2].strip() if quoted and quoted[1] not in quoted[2] else message


def _recall_options(text: str) -> tuple[dict[str, str], str]:
    return take_options(text, flags={"--each": "each"}, values=("tz", "title", "session", "cooldown", *POLICY))


def _number(text: str) -> str | int:
    return int(text) if text.isdecimal() and len(text) < 10 else text


_Taken = tuple[dict[str, Any], str] | None


def _in(text: str, _tz: str | None, _now: datetime | None) -> _Taken:
    return _duration_schedule(text, {"kind": "once"}, "in")


def _every(text: str, _tz: str | None, _now: datetime | None) -> _Taken:
    return _duration_schedule(text, {"kind": "every"}, "every")


def _duration_schedule(text: str, schedule: dict[str, Any], key: str) -> _Taken:
    taken = take_duration(text)
    if taken is None:
        if not text or text[0].isdigit() or text[0] == "-":
            raise UsageError(f"{text.split(' ')[0]!r} is not a duration: write it like 90s, 10m, 1h30m or 2d.")
        return None  # "recall in detail what we did"
    return {**schedule, key: taken[0]}, taken[1]


def _at(text: str, tz: str | None, now: datetime | None) -> _Taken:
    zone = named_zone(tz) if tz else local_tz()
    taken = take_time(text, now=(now or datetime.now().astimezone()).astimezone(zone))
    if taken is None:
        if not text or text[0].isdigit() or text.split()[0] in ("today", "tomorrow"):
            raise UsageError("That is not a time: write it like 18:30, tomorrow 8:30 or 2027-01-31T18:30.")
        return None
    return {"kind": "once", "at": instant_text(taken[0])}, taken[1]


def _cron(text: str, _tz: str | None, _now: datetime | None) -> _Taken:
    if quoted := QUOTED.match(text):
        return {"kind": "cron", "expr": quoted[2].strip()}, text[quoted.end() :].strip()
    words = text.split(maxsplit=5)
    if words and words[0].startswith("@"):
        return {"kind": "cron", "expr": words[0]}, text[len(words[0]) :].strip()
    if len(words) > 5 and all(_CRON_FIELD.fullmatch(word) for word in words[:5]):
        return {"kind": "cron", "expr": " ".join(words[:5])}, words[5].strip()
    raise UsageError('Put the five fields in quotes: %navi recall cron "0 9 * * 1-5" check the loss')


def _when(text: str, _tz: str | None, _now: datetime | None) -> _Taken:
    if quoted := QUOTED.match(text):
        return {"kind": "when", "when": quoted[2]}, text[quoted.end() :].strip()
    text = _SUBJECT.sub("", text, count=1)
    event, _, message = text.partition(" ")
    if not event:
        raise UsageError(f"When what? {WHEN_HELP}")
    event, message = event.lower(), message.strip()
    if event in _WITH_OPERAND:
        return _when_operand(event, message)
    event = event.rstrip(",:;")
    event = _SAME_EVENT.get(event, event)
    if event not in _WHEN_WORDS:
        return None  # "recall when we met"
    if event == "idle" and (lasting := take_duration(re.sub(r"^for\s+", "", message))) is not None:
        event, message = f"idle {lasting[0]}", lasting[1]
    message = re.sub(r"^(?:[,:;]\s*)?(?:then\s+)?", "", message, flags=re.IGNORECASE)
    return {"kind": "when", "when": event}, message


_SUBJECT = re.compile(
    r"^(?:(?:(?:the|this|that|my|running|current|next)\s+)*(?:cell|kernel)\s+|it\s+|it['’]s\s+)"
    r"(?:is\s+|has\s+been\s+|has\s+|gets\s+|was\s+)?",
    re.IGNORECASE,
)
_SAME_EVENT = {
    "finishes": "finished", "ends": "done", "ended": "done", "completes": "done", "completed": "done", "ready": "done",
    "over": "done", "complete": "done", "succeeds": "succeeded", "errors": "failed", "crashes": "failed",
    "crashed": "failed",
}  # fmt: skip
_LAST = re.compile(
    r"^(?P<message>(?!(?:what|how|why|who|where|which|our|to|did|do|the|that|if)\b)\S.*?),?\s+"
    r"(?:when|once|after|as soon as)\s+"
    r"(?P<when>(?:(?:(?:the|this|that|running|current|next)\s+)*cell\s+|it\s+)?(?:is\s+|has\s+)?\w+)[.!]?$",
    re.IGNORECASE | re.DOTALL,
)


def _when_last(rest: str) -> tuple[str, dict[str, Any]] | None:
    """``summarize the output when done``: the message, and the event behind it."""
    said = _LAST.match(rest)
    taken = _when(said["when"], None, None) if said and said["when"].split()[-1].lower() not in _WITH_OPERAND else None
    return (said["message"], taken[0]) if said and taken and not taken[1] else None


_WITH_OPERAND = ("slow", "slower", "changed", "changes", "true")
_WHEN_WORDS = (
    "done", "finished", "succeeded", "failed", "fails", "idle", "restarted", "restarts", "died", "dies",
    "cell_done", "cell_finished", "cell_failed", "kernel_idle", "kernel_restarted", "kernel_died",
)  # fmt: skip


def _when_operand(event: str, text: str) -> _Taken:
    """``slow 10m …``, ``changed data/*.csv …``, ``true "loss < 0.1" …``: a duration, a word, or what is in quotes."""
    if quoted := QUOTED.match(text):
        operand, message = quoted[2], text[quoted.end() :]
    elif event in ("slow", "slower"):
        taken = take_duration(re.sub(r"^(?:than|for)\s+", "", text))
        if taken is None:
            raise UsageError("How slow? Write %navi recall when slow 10m look what it does")
        operand, message = taken
    elif event == "true":
        raise UsageError('Put the expression in quotes: %navi recall when true "loss < 0.1" tell me')
    else:
        operand, _, message = text.partition(" ")
    if not operand:
        raise UsageError("Which file? Write %navi recall when changed data.csv look at it")
    return {"kind": "when", "when": f"{event} {operand}"}, message.strip()


_SCHEDULES: Mapping[str, Callable[[str, str | None, datetime | None], _Taken]] = {
    "in": _in,
    "at": _at,
    "every": _every,
    "cron": _cron,
    "when": _when,
}
