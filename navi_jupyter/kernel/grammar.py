"""What a ``%navi`` line means. Pure: text in, one request out.

The rule: the first word is a subcommand only when the rest has that subcommand's shape; else all of it is a prompt. So
``%navi stop`` stops, and ``%navi stop the presses please`` asks. ``%navi -- anything`` is always a prompt.
Not responsible for doing it (``magics``) or for ``{name}`` (``interpolation``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .errors import UsageError
from .times import instant_text, local_tz, named_zone, take_duration, take_time

MODES = ("enqueue", "reject", "interrupt", "rollback", "steer", "collect")
FORMATS = ("md", "ipynb", "json")
POLICY = ("misfire", "grace", "busy", "retries", "timeout", "until", "max-fires", "jitter")

_ID = re.compile(r"[a-z]{1,8}_[0-9A-Za-z]{4,64}|[0-9a-f]{8,64}")
_OPTION = re.compile(r"(--[a-z][a-z-]*|-[a-z])(?:=(\S+))?(?=\s|$)\s*")
_QUOTED = re.compile(r"""(["'])(.*?)\1(?=\s|$)""")
_CRON_FIELD = re.compile(r"[0-9*?][0-9*/,?#L-]*|(?:MON|TUE|WED|THU|FRI|SAT|SUN)(?:[-,][A-Z0-9]+)*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """Ask the agent."""

    text: str
    wait: bool = True
    interpolate: bool = True
    session: str | None = None
    model: str | None = None
    mode: str = "enqueue"
    outputs: tuple[str, ...] = ()
    """Numbers of cells (or ``last``) whose outputs go along."""
    files: tuple[str, ...] = ()
    """Paths, as the kernel sees them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRecall:
    """Schedule a message. ``schedule`` and ``policy`` are in the contract's form."""

    message: str
    schedule: Mapping[str, Any]
    policy: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None
    session: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """Any other subcommand and its words."""

    name: str
    args: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


Request = Prompt | NewRecall | Action


def parse_line(line: str, *, now: datetime | None = None) -> Request:
    """The meaning of ``%navi <line>``. Raises UsageError."""
    text = line.strip()
    if not text or text in ("help", "status", "-h", "--help", "?"):
        return Action(name="status" if text in ("", "status") else "help")
    word, _, rest = text.partition(" ")
    shape = _SHAPES.get(word)
    request = shape(rest.strip(), now) if shape else None
    return request or parse_prompt(text)


def parse_cell(line: str, cell: str) -> Prompt:
    """The meaning of ``%%navi <line>`` above ``cell``: options, then a first line of the prompt, if any."""
    prompt = parse_prompt(line, cell=cell)
    if not prompt.text.strip():
        raise UsageError("The cell is empty: write what you want to ask below %%navi.")
    return prompt


def parse_prompt(line: str, *, cell: str = "") -> Prompt:
    """``[options] [--] text``. Raises UsageError for an unknown option or no text at all."""
    options, text = _take_options(line, flags=_PROMPT_FLAGS, values=("session", "model", "mode", *_MANY))
    mode = options.get("mode", "enqueue")
    if mode not in MODES:
        raise UsageError(f"--mode is one of {', '.join(MODES)}, not {mode!r}.", field="mode")
    whole = "\n".join(part for part in (text, cell.rstrip()) if part.strip())
    if not whole and not cell:
        raise UsageError("There is nothing to ask: write the question behind %navi.")
    return Prompt(
        text=whole,
        wait="no-wait" not in options,
        interpolate="raw" not in options,
        session=options.get("session"),
        model=options.get("model"),
        mode=mode,
        outputs=tuple(word for word in re.split(r"[,\n]", options.get("with-output", "")) if word),
        files=tuple(word for word in options.get("attach", "").split("\n") if word),
    )


_MANY = ("with-output", "attach")
"""Options that may come more than once: their values are joined by line breaks."""
_PROMPT_FLAGS = {"-b": "no-wait", "--no-wait": "no-wait", "-w": "wait", "--wait": "wait", "--raw": "raw"}


def _take_options(text: str, *, flags: Mapping[str, str], values: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The options that ``text`` begins with, and the rest. ``--`` ends them."""
    options: dict[str, str] = {}
    text = text.strip()
    while match := _OPTION.match(text):
        name, given = match[1], match[2]
        text = text[match.end() :]
        if name in flags and given is None:
            options[flags[name]] = ""
        elif name.startswith("--") and name[2:] in values:
            if given is None:
                given, text = _take_value(name, text)
            before = options.get(name[2:]) if name[2:] in _MANY else None
            options[name[2:]] = given if before is None else f"{before}\n{given}"
        else:
            known = ", ".join([*flags, *("--" + value for value in values)])
            raise UsageError(
                f"Unknown option {name} (there are {known}; write -- before text that begins with a dash)."
            )
    return options, re.sub(r"^--(\s+|$)", "", text)


def _take_value(name: str, text: str) -> tuple[str, str]:
    if quoted := _QUOTED.match(text):
        return quoted[2], text[quoted.end() :].lstrip()
    value, _, rest = text.partition(" ")
    if not value:
        raise UsageError(f"{name} needs a value.")
    return value, rest.lstrip()


# --- subcommands: each returns None when the words do not have its shape
# -----------------------------------------------


def _bare(name: str) -> Callable[[str, datetime | None], Request | None]:
    return lambda rest, _now: None if rest else Action(name=name)


def _with_id(name: str) -> Callable[[str, datetime | None], Request | None]:
    def shape(rest: str, _now: datetime | None) -> Request | None:
        if not rest and name == "cancel":  # the others, alone, are things one says to an agent
            raise UsageError(f"Which one? Write %navi {name} ID; %navi recalls lists them.")
        return Action(name=name, args=(rest,)) if _ID.fullmatch(rest) else None

    return shape


def _with_name(name: str) -> Callable[[str, datetime | None], Request | None]:
    """``profile`` or ``model``: alone it lists, with exactly one word it sets."""

    def shape(rest: str, _now: datetime | None) -> Request | None:
        words = rest.split()
        return Action(name=name, args=tuple(words)) if len(words) <= 1 else None

    return shape


def _recalls(rest: str, _now: datetime | None) -> Request | None:
    if rest in ("", "--all", "-a"):
        return Action(name="recalls", options={"all": ""} if rest else {})
    return None


def _session(rest: str, _now: datetime | None) -> Request | None:
    words = rest.split()
    if words in ([], ["list"], ["new"]):
        return Action(name="session", args=tuple(words))
    if len(words) == 2 and words[0] == "use":
        return Action(name="session", args=tuple(words))
    if words == ["use"]:
        raise UsageError("Which one? Write %navi session use ID; %navi session list shows them.")
    return None


def _export(rest: str, _now: datetime | None) -> Request | None:
    """``export [md|ipynb|json] [FILE] [--force]``."""
    try:
        words = shlex.split(rest)
    except ValueError:
        return None
    force = "--force" in words
    words = [word for word in words if word != "--force"]
    kind = words.pop(0) if words and words[0] in FORMATS else None
    if len(words) > 1 or (words and kind is None and not words[0].endswith(tuple("." + each for each in FORMATS))):
        return None
    file = words[0] if words else ""
    kind = kind or (file.rpartition(".")[2] if file else "md")
    return Action(name="export", args=(kind, file), options={"force": ""} if force else {})


def _recall(rest: str, now: datetime | None) -> Request | None:
    options, rest = _recall_options(rest)
    kind, _, text = rest.partition(" ")
    taker = _SCHEDULES.get(kind)
    if taker is None:
        if not options:
            return None
        raise UsageError(f"A recall begins with in, at, every, cron or when. {RECALL_HELP}")
    taken = taker(text.strip(), options.get("tz"), now)
    if taken is None:
        return None
    schedule, text = taken
    more, message = _recall_options(text)
    options |= more
    if not message:
        raise UsageError(f"What should Navi do then? {RECALL_HELP}")
    if kind == "cron" and "tz" in options:
        schedule = {**schedule, "tz": options["tz"]}
    policy = {name.replace("-", "_"): _number(options[name]) for name in POLICY if name in options}
    return NewRecall(
        message=message,
        schedule=schedule,
        policy=policy,
        title=options.get("title"),
        session=options.get("session"),
    )


RECALL_HELP = "For example: %navi recall in 10m check the loss"


def _recall_options(text: str) -> tuple[dict[str, str], str]:
    return _take_options(text, flags={}, values=("tz", "title", "session", *POLICY))


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
    if quoted := _QUOTED.match(text):
        return {"kind": "cron", "expr": quoted[2].strip()}, text[quoted.end() :].strip()
    words = text.split(maxsplit=5)
    if words and words[0].startswith("@"):
        return {"kind": "cron", "expr": words[0]}, text[len(words[0]) :].strip()
    if len(words) > 5 and all(_CRON_FIELD.fullmatch(word) for word in words[:5]):
        return {"kind": "cron", "expr": " ".join(words[:5])}, words[5].strip()
    raise UsageError('Put the five fields in quotes: %navi recall cron "0 9 * * 1-5" check the loss')


def _when(text: str, _tz: str | None, _now: datetime | None) -> _Taken:
    if quoted := _QUOTED.match(text):
        return {"kind": "when", "when": quoted[2]}, text[quoted.end() :].strip()
    event, _, message = text.partition(" ")
    if not event:
        raise UsageError("When what? Write %navi recall when done summarize")
    return {"kind": "when", "when": event}, message.strip()


_SCHEDULES: Mapping[str, Callable[[str, str | None, datetime | None], _Taken]] = {
    "in": _in,
    "at": _at,
    "every": _every,
    "cron": _cron,
    "when": _when,
}


def _approve(rest: str, _now: datetime | None) -> Request | None:
    """``approve [ID] [--always]``."""
    words = rest.split()
    always = "--always" in words
    ids = [word for word in words if word != "--always"]
    if len(ids) > 1 or any(not _ID.fullmatch(word) for word in ids):
        return None
    return Action(name="approve", args=tuple(ids), options={"always": ""} if always else {})


def _id_and_text(name: str) -> Callable[[str, datetime | None], Request | None]:
    """``deny [ID] [reason]``, ``answer [ID] value``."""

    def shape(rest: str, _now: datetime | None) -> Request | None:
        word, _, text = rest.partition(" ")
        if _ID.fullmatch(word) and word.startswith("i_"):
            return Action(name=name, args=(word, text.strip()))
        # Without an id it is an answer only while a question is open; else somebody talks to the agent.
        return Action(name=name, args=("", rest), options={"else": f"{name} {rest}".strip()})

    return shape


def _memory(rest: str, _now: datetime | None) -> Request | None:
    """``memory [words]``; a sentence is the agent's."""
    words = rest.split()
    if len(words) > 3 or rest.endswith("?"):
        return None
    return Action(name="memory", args=(rest,) if rest else ())


def _remember(rest: str, _now: datetime | None) -> Request | None:
    if not rest:
        raise UsageError("What? Write %navi remember I prefer polars.")
    if rest.lower().startswith(("to ", "when ", "me to ", "that time ")):
        return None  # a reminder, or a question: the agent's
    return Action(name="remember", args=(rest.removeprefix("that "),))


def _forget(rest: str, _now: datetime | None) -> Request | None:
    return Action(name="forget", args=(rest,)) if _ID.fullmatch(rest) else None


_SHAPES: Mapping[str, Callable[[str, datetime | None], Request | None]] = {
    "recall": _recall,
    "recalls": _recalls,
    "cancel": _with_id("cancel"),
    "pause": _with_id("pause"),
    "resume": _with_id("resume"),
    "fire": _with_id("fire"),
    "stop": _bare("stop"),
    "session": _session,
    "profile": _with_name("profile"),
    "model": _with_name("model"),
    "export": _export,
    "chat": _bare("chat"),
    "approve": _approve,
    "deny": _id_and_text("deny"),
    "answer": _id_and_text("answer"),
    "queue": _bare("queue"),
    "approvals": _bare("approvals"),
    "usage": _bare("usage"),
    "tools": _bare("tools"),
    "profiles": _bare("profiles"),
    "models": _bare("models"),
    "mcp": _bare("mcp"),
    "remember": _remember,
    "memory": _memory,
    "forget": _forget,
}
