"""What ``%navi recall …`` means: options, ``in 10m …``, an instant, ``cron "…"``, ``when done …``. Pure.

Not responsible for times in English and times of day: such a line goes to the server as it is, which has the one reader
of them. Nor for judging times and events: that is the server's, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from . import notebook_job
from .times import UNIT_WORD, named_zone, take_duration, take_instant

QUOTED = re.compile(r"""(["'])(.*?)\1(?=\s|$)""")
MANY = ("with-output", "attach")  # options that may come more than once: their values are joined by line breaks
_SEPARATORS = {"with-output": "\n", "attach": "\n", "notify": ",", "cancel-on": ",", "allow": ","}
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=|(?=\s|$))")
_END = re.compile(r"--(?:\s+|$)")
POLICY = (
    "misfire", "grace", "busy", "retries", "timeout", "until", "max-fires", "jitter", "cancel-on", "notify", "quiet",
    "needs",
)  # fmt: skip
_LISTS = ("cancel-on", "notify")  # policies that are lists: with commas
_FLAGS = {"--each": "each"}
_VALUES = ("tz", "title", "session", "cooldown", "allow", *POLICY, *notebook_job.OPTIONS)
_LOOKS_LIKE_OPTION = re.compile(r"--?[a-z][a-z-]*(?==|\s|$)")
RECALL_HELP = "For example: %navi recall in 10m check the loss"
WHEN_HELP = "For example: %navi recall when done summarize the output"


@dataclass(frozen=True, kw_only=True)
class NewRecall:
    """Schedule a message. ``schedule`` and ``policy`` are in the contract's form."""

    message: str  # with ``sentence``: what follows ``--``, to be joined to the message in ``words``
    schedule: Mapping[str, Any]
    policy: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None
    session: str | None = None
    allow: tuple[str, ...] = ()  # what it may do without asking: tools or effects
    words: str | None = None  # a time in English that the server is to read; ``schedule`` is empty then
    sentence: bool = False  # ``words`` have the message, too. They are a prompt when there is no time in them.
    tz: str | None = None
    job: Mapping[str, str] = field(default_factory=dict)  # options of a recall that executes a notebook


def read_recall(rest: str) -> NewRecall | None:
    """The meaning of ``recall <rest>``; None when it asks for no recall. Raises UsageError."""
    line = _Line(*take_options_anywhere(rest, flags=_FLAGS, values=_VALUES))
    if "tz" in line.options:
        named_zone(line.options["tz"])
    if option := _LOOKS_LIKE_OPTION.match(line.text):
        raise unknown_option(option[0], _FLAGS, _VALUES)
    kind, _, text = line.text.partition(" ")
    kind, text = kind.lower().rstrip(","), text.strip()
    if quoted := QUOTED.match(line.text):
        return line.in_words(quoted[2].strip(), line.text[quoted.end() :])
    if kind in ("in", "at", "on", "every") and (quoted := QUOTED.match(text)) and text[quoted.end() :].strip():
        return line.in_words(f"{kind} {quoted[2].strip()}", text[quoted.end() :])
    if kind in _SCHEDULES:
        taken = _SCHEDULES[kind](text, line.options.get("tz"))
        if taken is not None and (kind in ("cron", "when") or _is_apart(taken)):
            return line.scheduled(kind, *taken)
    if re.match(_MAY_BE_TIME, line.text, re.IGNORECASE) and not re.match(_PAST, line.text, re.IGNORECASE):
        return line.sentence()
    if (event_last := _when_last(line.text)) is not None:
        return line.made(event_last[0], schedule=event_last[1])
    if line.options:
        raise UsageError(f"A recall begins with in, at, every, cron, when or a time. {RECALL_HELP}")
    return None


def message_text(text: str, verbatim: str = "") -> str:
    """The message behind a time: without quotation marks around all of it; ``verbatim`` is what follows ``--``.

    Raises UsageError where it begins with an option that is not there.
    """
    text = re.sub(r"^[\s,;:]+|^(?:then|please)\b[ ,]*", "", text.strip(), flags=re.IGNORECASE).strip()
    if option := _LOOKS_LIKE_OPTION.match(text):
        raise unknown_option(option[0], _FLAGS, _VALUES)
    quoted = QUOTED.fullmatch(text)
    text = quoted[2].strip() if quoted and quoted[1] not in quoted[2] else text
    return f"{text} -- {verbatim}" if text and verbatim else text or verbatim


@dataclass(frozen=True, slots=True)
class _Line:
    """A line taken apart: its options, the rest, and what follows ``--``."""

    options: dict[str, str]
    text: str
    verbatim: str

    def made(self, message: str, *, schedule: dict[str, Any] | None = None, **more: Any) -> NewRecall:
        return NewRecall(
            message=message,
            schedule=self._repeated(schedule) if schedule else {},
            policy=_policy(self.options),
            title=self.options.get("title"),
            session=self.options.get("session"),
            allow=leave_names(self.options.get("allow", "")),
            job={name: self.options[name] for name in notebook_job.OPTIONS if name in self.options},
            **more,
        )

    def in_words(self, words: str, message: str) -> NewRecall:
        """``"every other friday at 16:00" check the loss``: the server reads what is in quotes."""
        if "each" in self.options and words.lower().startswith("when "):
            words = f"each time {words[5:]}"
        elif wrong := self._of_events():
            raise UsageError(f"--{wrong} goes with when.")
        return self.made(self._message(message, RECALL_HELP), words=words, tz=self.options.get("tz"))

    def sentence(self) -> NewRecall:
        """A line for the server to read."""
        if wrong := self._of_events():
            raise UsageError(f"--{wrong} goes with when.")
        return self.made(self.verbatim, words=self.text, sentence=True, tz=self.options.get("tz"))

    def scheduled(self, kind: str, schedule: dict[str, Any], message: str) -> NewRecall:
        message = self._message(message, WHEN_HELP if kind == "when" else RECALL_HELP)
        zone = self.options.get("tz")
        if kind == "cron" and zone:
            return self.made(message, schedule={**schedule, "tz": zone})
        return self.made(message, schedule=schedule, tz=zone if kind in ("in", "every") else None)

    def _message(self, text: str, help_text: str) -> str:
        message = message_text(text, self.verbatim)
        if not message:
            raise UsageError(f"What should Navi do then? {help_text}")
        return message

    def _of_events(self) -> str | None:
        """The option that only a recall on an event takes."""
        return next((name for name in ("each", "cooldown") if name in self.options), None)

    def _repeated(self, schedule: dict[str, Any]) -> dict[str, Any]:
        """``--each`` and ``--cooldown`` belong to the event, not to the policy."""
        if schedule["kind"] != "when":
            if wrong := self._of_events():
                raise UsageError(f"--{wrong} goes with when.")
            return schedule
        again = {"repeat": "each"} if "each" in self.options else {}
        cooldown = {"cooldown": self.options["cooldown"]} if "cooldown" in self.options else {}
        return {**schedule, **again, **cooldown}


def leave_names(text: str) -> tuple[str, ...]:
    """The names in the value of ``--allow``."""
    return tuple(name for name in re.split(r"[,\s]+", text) if name)


def _policy(options: Mapping[str, str]) -> dict[str, Any]:
    given = {name: options[name] for name in POLICY if name in options}
    return {
        name.replace("-", "_"): text.split(",") if name in _LISTS else _number(text) for name, text in given.items()
    }


def _number(text: str) -> str | int:
    return int(text) if text.isdecimal() and len(text) < 10 else text


# May a line begin with a time? The server answers; these only keep questions from being sent there.
# Patterns as text, which ``re`` compiles and keeps when they are first used: all of them take ten milliseconds, and
# every kernel that loads Navi imports this.

_COUNT = (
    r"(?:[\d½¼¾]|an?\b|the\s|half|quarter|noon|midnight|midday|lunchtime|about|around|roughly|approximately|exactly"
    r"|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety)"
)
_DAY_NAME = r"(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:days?)?"
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_MAY_BE_TIME = (
    rf"(?:[\d½¼¾]|\*\S*\s+[\d*]|@\s*[a-z\d]|cron:|{_MONTH}\.?\s+\d|(?:in|at)\s+(?:(?:about|around)\s+)?(?:{_COUNT}|to(?:day"
    rf"|morrow|night)|{_DAY_NAME}\b|{_MONTH}\b)|(?:an?|{_COUNT}|fortnight)\s+(?:\w+\s+)*?(?:{UNIT_WORD}"
    rf"|fortnight|month|year)s?\b|(?:by|for|around|about|after|before|until|till|since|from|between|exactly|precisely|no|not)\s+(?:at\s+)?(?:{_COUNT}|{_DAY_NAME}|{_MONTH}\s|tomorrow|before|than|later)"
    r"|the\s+(?:next|coming|day|first|second|third|fourth|last|end|beginning|start|\d)"
    rf"|(?:a\s+)?{_COUNT}\s*(?:minutes?\s+)?(?:past|to|in\s+the|at\s+night|o['’]?clock|[ap]\.?m\b)|once\s+(?:an?|per|each|every)\s"
    r"|(?:every|each|everyday|all\s+(?:week|work)days|on|next|this|coming|tomorrow|today|tonight|noon|midday|midnight|hourly|daily|nightly|weekly"
    r"|bi-?weekly|bi-?monthly|monthly|fortnightly|quarterly|yearly|annually|twice|three\s+times|weekdays?|workdays?"
    r"|weekends?|working\s+days?|business\s+days?|first|second|third|fourth|last|end|beginning|start|day\s+after"
    rf"|{_DAY_NAME})\b)"
)
_PAST = rf"(?:last|this)\s+(?:week(?!,?\s+(?:on\s+)?{_DAY_NAME}\b)|month|year|night|time|session|run)\b"
"""Then it is a question about what was."""
_MORE_OF_A_TIME = (
    r"\A\W*(?:[\d½¼¾]|[-–(]\s*\d|(?:and|or|to|from|before|after|between|during|except|excluding|but|within|past|in|on|by|for|of"
    r"|around|about|a|an|the|then|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|half|quarter|next|this|coming"
    r"|last|minus|plus|x\s?\d+|into|up|through|thru|ending|til|afterwards?|rest|all|twice|thirty|time|prior|ahead|short|shy|first|second|third|fourth|fifth|end|start|middle|later|not|utc|gmt|z|[ecmp][sd]t|[a-z]+/[a-z_]+|\w+\s+time)\b)"
    r"|\b(?:every|each|until|till?|ending|up\s+to|starting|beginning|hourly|daily|nightly|(?:bi-?)?weekly|fortnightly|(?:bi-?)?monthly|quarterly"
    r"|yearly|annually|for\s+(?:the\s+next|\d+|an?|half|one|two|three|four|five|six|ten|twelve|twenty|thirty)|at|noon|midday|midnight|lunchtime|mornings?|afternoons?|evenings?|nights?|tomorrow"
    r"|today|tonight|yesterday|week\s?days?|weekends?|work\s?days?|business|"
    rf"{_DAY_NAME}|{_MONTH}|\d\s?[ap]\.?m)\b|@\s*\d|\d[:h/]\d\d|,[^,]*\b(?:times|twice)\b"
)
"""What may be more of a time, next to what was read of it or further on: ``every 10m check the loss until 6pm``.

Rather too much than too little: it only decides who reads the line.
"""
_NO_DURATION = (
    rf"$|-|\d[\d.,]*(?!\s*-?\s*(?:{UNIT_WORD}|months?|years?|quarters?|working\s+days?|business\s+days?|week\s?days?|work\s?days?|st|nd|rd|th|and|{_MONTH})\b"
    r"|[\d.,:/½¼¾-]|[hm]\w*\d|\s?[ap]\.?m\b|\s*\d+\s*[a-z/]|\s+(?:to|or)\b)"
)
"""No text, less than nothing, or a number without a unit."""

_Taken = tuple[dict[str, Any], str] | None
"""What a form that is read here gives: the schedule and the rest of the text; None when it is none."""
_CRON_FIELD = r"[0-9*?][0-9*/,?#L-]*|(?:MON|TUE|WED|THU|FRI|SAT|SUN)(?:[-,][A-Z0-9]+)*"


def _is_apart(taken: tuple[dict[str, Any], str]) -> bool:
    """Whether what was read here is all of the time. Where the rest may hold more of it, the server reads the line.

    Milliseconds it does not read.
    """
    schedule, rest = taken
    if not rest or QUOTED.fullmatch(rest) or any(str(value).endswith("ms") for value in schedule.values()):
        return True
    return not re.search(_MORE_OF_A_TIME, rest, re.IGNORECASE)


def _duration(schedule: dict[str, Any], key: str) -> Callable[[str, str | None], _Taken]:
    def take(text: str, _tz: str | None) -> _Taken:
        taken = take_duration(text)
        if taken is None and re.match(_NO_DURATION, text, re.IGNORECASE):
            raise UsageError(f"{text.split(' ')[0]!r} is not a duration: write it like 90s, 10m, 1h30m or 2d.")
        return None if taken is None else ({**schedule, key: taken[0]}, taken[1])

    return take


def _at(text: str, tz: str | None) -> _Taken:
    if not text:
        raise UsageError("That is not a time: write it like 18:30, tomorrow 8:30 or 2027-01-31T18:30.")
    taken = take_instant(text, tz)
    return None if taken is None else ({"kind": "once", "at": taken[0]}, taken[1])


def _cron(text: str, _tz: str | None) -> _Taken:
    if quoted := QUOTED.match(text):
        return {"kind": "cron", "expr": quoted[2].strip()}, text[quoted.end() :].strip()
    words = text.split(maxsplit=5)
    if words and words[0].startswith("@"):
        return {"kind": "cron", "expr": words[0]}, text[len(words[0]) :].strip()
    if len(words) >= 5 and all(re.fullmatch(_CRON_FIELD, word, re.IGNORECASE) for word in words[:5]):
        return {"kind": "cron", "expr": " ".join(words[:5])}, words[5].strip() if len(words) > 5 else ""
    raise UsageError('Put the five fields in quotes: %navi recall cron "0 9 * * 1-5" check the loss')


_WITH_OPERAND = ("slow", "slower", "changed", "changes", "true")
_WHEN_WORDS = (
    "done", "finished", "succeeded", "failed", "fails", "idle", "restarted", "restarts", "died", "dies",
    "cell_done", "cell_finished", "cell_failed", "kernel_idle", "kernel_restarted", "kernel_died",
)  # fmt: skip
_SUBJECT = (
    r"^(?:(?:(?:the|this|that|my|running|current|next)\s+)*(?:cell|kernel)\s+|it\s+|it['’]s\s+)"
    r"(?:is\s+|has\s+been\s+|has\s+|gets\s+|was\s+)?"
)
_SAME_EVENT = {
    "finishes": "finished", "ends": "done", "ended": "done", "completes": "done", "completed": "done", "ready": "done",
    "over": "done", "complete": "done", "succeeds": "succeeded", "errors": "failed", "crashes": "failed",
    "crashed": "failed",
}  # fmt: skip
_LAST = (
    r"^(?P<message>(?!(?:what|how|why|who|where|which|our|to|did|do|the|that|if)\b)\S.*?),?\s+"
    r"(?:when|once|after|as soon as)\s+"
    r"(?P<when>(?:(?:(?:the|this|that|running|current|next)\s+)*cell\s+|it\s+)?(?:is\s+|has\s+)?\w+)[.!]?$"
)


def _when(text: str, _tz: str | None = None) -> _Taken:
    if quoted := QUOTED.match(text):
        return {"kind": "when", "when": quoted[2]}, text[quoted.end() :].strip()
    text = re.sub(_SUBJECT, "", text, count=1, flags=re.IGNORECASE)
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


def _when_last(rest: str) -> tuple[str, dict[str, Any]] | None:
    """``summarize the output when done``: the message, and the event behind it."""
    found = re.match(_LAST, rest, re.IGNORECASE | re.DOTALL)
    taken = _when(found["when"]) if found and found["when"].split()[-1].lower() not in _WITH_OPERAND else None
    return (found["message"], taken[0]) if found and taken and not taken[1] else None


_SCHEDULES: Mapping[str, Callable[[str, str | None], _Taken]] = {
    "in": _duration({"kind": "once"}, "in"),
    "at": _at,
    "on": lambda text, tz: _at(text, tz) if text else None,
    "every": _duration({"kind": "every"}, "every"),
    "cron": _cron,
    "when": _when,
}


def take_options(text: str, *, flags: Mapping[str, str], values: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The options that ``text`` begins with, and the rest. ``--`` ends them. Raises UsageError for an unknown one."""
    options: dict[str, str] = {}
    text = text.strip()
    while match := _OPTION.match(text):
        rest = _take_one(match, text, options, flags, values)
        if rest is None:
            raise unknown_option(match[1], flags, values)
        text = rest
    return options, _END.sub("", text, count=1) if _END.match(text) else text


def take_options_anywhere(
    text: str, *, flags: Mapping[str, str], values: tuple[str, ...]
) -> tuple[dict[str, str], str, str]:
    """The options that stand anywhere in ``text``, the text without them, and what follows a ``--``, as it stands.

    What is in quotes is left alone, and so are words that only look like options.
    """
    options: dict[str, str] = {}
    kept, text = "", text.strip()
    while text:
        if end := _END.match(text):
            return options, kept.strip(), text[end.end() :]
        match = _OPTION.match(text)
        rest = _take_one(match, text, options, flags, values) if match else None
        if rest is None:
            word = QUOTED.match(text) or re.match(r"\S+", text)
            gap = re.match(r"\s*", text[word.end() :]) if word else None
            length = word.end() + gap.end() if word and gap else len(text)
            kept, rest = kept + text[:length], text[length:]
        text = rest
    return options, kept.strip(), ""


def unknown_option(name: str, flags: Mapping[str, str], values: tuple[str, ...]) -> UsageError:
    """The error about an option that is not there."""
    known = ", ".join([*flags, *("--" + value for value in values)])
    return UsageError(f"Unknown option {name} (there are {known}; write -- before text that begins with a dash).")


def _take_one(
    match: re.Match[str], text: str, options: dict[str, str], flags: Mapping[str, str], values: tuple[str, ...]
) -> str | None:
    """The text behind the option that it begins with, which goes into ``options``; None for an unknown one."""
    name, has_value, rest = match[1], match[0].endswith("="), text[match.end() :]
    if name in flags and not has_value:
        options[flags[name]] = ""
        return rest.lstrip()
    key = name.removeprefix("--")
    if name in ("-p", "--param") and "param" in values:
        return notebook_job.add_parameter(options, rest)
    if not name.startswith("--") or key not in values:
        return None
    rest = rest if has_value else rest.lstrip()
    value = QUOTED.match(rest) or re.match(r"()(\S+)", rest)
    if value is None:
        raise UsageError(f"{name} needs a value.")
    is_more = key in options and key in _SEPARATORS
    options[key] = f"{options[key]}{_SEPARATORS[key]}{value[2]}" if is_more else value[2]
    return rest[value.end() :].lstrip()
