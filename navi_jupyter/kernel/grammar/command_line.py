"""The grammar of a ``%navi`` line: text in, one request out; and ``{name}`` in a prompt. Pure.

The first word is a subcommand when the rest has that subcommand's shape. Else the line is a prompt if it is a sentence,
and a usage error if it is not (``mistakes``): ``%navi stop`` stops, ``%navi stop the presses please`` asks, and
``%navi stop now`` is refused. ``%navi -- anything`` is always a prompt. Not responsible for doing what is requested
(``magics``).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...handles import row_number
from ..errors import UsageError
from .mistakes import is_sentence, misspelled, names_sentence, nearest, usage_of
from .recall_command import MANY, NewRecall, read_recall, take_options, take_options_anywhere
from .session_command import SESSION_WORDS, read_session

HELP = """\
%navi TEXT                              ask; the answer streams into the cell (-b: do not wait for it)
%%navi [-b] [--model M] [--mode M]      the same with the cell as the question; {name} takes a variable's value
%navi recall in 10m check the loss      come back once; also: at 18:30 …, tomorrow 8:30 …, in 2 days … (1 day: the same
                                        time tomorrow; 24h: 24 hours; at 9: the next 09:00; 9pm: in the evening)
%navi recall every 1h check the loss    come back regularly; also: cron "0 9 * * 1-5" …
%navi recall every other friday at 16:00 check the loss   a time in English (in quotes where it is not clear where
                                        it ends); its meaning and the next times are shown. Options stand anywhere:
                                        --tz Asia/Tokyo, --title, --notify phone, --max-fires 3, … (-- ends them)
%navi recall when done summarize        come back when the running cell is done; also: failed, slow 10m, idle, died,
                                        changed FILE, true "loss < 0.1" (--each: every time it happens)
%navi recall every weekday at 9 run report.ipynb -p n 7   execute a notebook, its outputs go into a dated copy
%navi recalls [--all]                   what is scheduled (--all: also what is over, in all of your sessions);
                                        then: %navi cancel|pause|resume|fire 3
%navi recall --allow run_code at 18:30 update the plot    come back, and run code then without asking; of one that is
                                        there: %navi allow 3 run_code, revoke 3, fire 3 --allow run_code (run it again)
%navi recall pause all, resume all
%navi away                              what ran while you were away, and what did not and why
%navi stop                              stop what is running
%navi approve|deny [2]                  allow a tool call that a run asks about, or not (--always; the run goes on
                                        in this cell, -b: do not wait); %navi approvals [--all]
%navi --with-output 7 TEXT              send along what cell [7] showed, its error too (or: last); --attach FILE a file
%navi --insert TEXT                     put the code of the answer into a new cell below
%navi --mode steer TEXT                 steer the run in progress (interrupt, rollback, collect; queue, unqueue 1)
%navi remember TEXT, memory, forget 2   what Navi knows about you in every session
%navi usage, tools, profiles, models, mcp
%navi session [new | use 2 | list]      this notebook's session, and how the notebook is linked to it; another one
                                        (use 2 --move: also one of another notebook); unlink: none
%navi session search TEXT, rename TITLE, archive [2], delete 2   find what was asked or answered in any session; archive
                                        and delete can be undone: unarchive 2, restore 2; list --archived, --deleted
%navi model [NAME], %navi profile [NAME]
%navi timezone [ZONE]                   whose clock counts for times that name no zone; auto: your browser's
%navi export [md|ipynb|html|json] [FILE]   save the conversation
%navi chat                              the chat, in this notebook
%navi /fix, /explain, /document, /test  a prompt by its name; your own: /NAME for navi/prompts/NAME.md
%navi -- TEXT                           TEXT is a question, whatever its first word is

Where a number stands, it is that of a list's row. A beginning of the title or the id will do as well: %navi cancel loss
"""

MODES = ("enqueue", "reject", "interrupt", "rollback", "steer", "collect")
FORMATS = ("md", "ipynb", "html", "json")
_ID = re.compile(r"[a-z]{1,8}_[0-9A-Za-z]{4,64}|[0-9a-f]{8,64}")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt for the agent."""

    text: str
    wait: bool = True
    interpolate: bool = True
    session: str | None = None
    model: str | None = None
    mode: str = "enqueue"
    outputs: tuple[str, ...] = ()  # numbers of cells (or ``last``) whose outputs go along
    files: tuple[str, ...] = ()  # paths on the kernel's disk
    insert: bool = False  # whether the code of the answer goes into a new cell


@dataclass(frozen=True, kw_only=True)
class Action:
    """Any other subcommand and its words."""

    name: str
    args: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


Request = Prompt | NewRecall | Action
_Shape = Callable[[str], Request | None]  # reads what follows a subcommand; None when the words do not have its shape


def parse_line(line: str) -> Request:
    """The meaning of ``%navi <line>``. Raises UsageError."""
    text = line.strip()
    if not text or text in ("-h", "--help", "?"):
        return Action(name="help" if text else "status")
    request = _command(text)
    if request is None and (problem := _mistake(text)) is not None:
        raise UsageError(problem)
    return request or parse_prompt(text)


def _command(text: str) -> Request | None:
    """The subcommand that a line is; None when its words do not have the shape of one. Raises UsageError."""
    word, rest = _split(text)
    shape = _SHAPES.get(word)
    return shape(rest) if shape else None


def _split(text: str) -> tuple[str, str]:
    word, *rest = text.split(maxsplit=1)
    return word, rest[0] if rest else ""


def _mistake(text: str) -> str | None:
    """What is wrong with a line that is no subcommand, if it was to be one: the message of a usage error."""
    word, rest = _split(text)
    second = _SECOND_WORDS.get(word, ())
    if rest and (meant := nearest(rest.split()[0], second)) not in (None, rest.split()[0]):
        corrected = f"{word} {meant}{rest[len(rest.split()[0]) :]}"
        if _is_meant(corrected, with_mistakes=False):  # "recall crop yields" has nothing to do with cron
            return misspelled(text, corrected)
    if word in _SHAPES:
        return None if is_sentence(text) else usage_of(word, rest)
    name = nearest(word, _SHAPES)
    if name is None:
        return None
    corrected = f"{name} {rest}".strip()
    return misspelled(text, corrected) if _is_meant(corrected) or not is_sentence(text) else None


def _is_meant(corrected: str, *, with_mistakes: bool = True) -> bool:
    """Whether a line is a subcommand for certain: one that names an item by its title may be a sentence."""
    try:
        request = _command(corrected)
    except UsageError:
        return with_mistakes
    return request is not None and not (isinstance(request, Action) and "else" in request.options)


def parse_cell(line: str, cell: str) -> Prompt | NewRecall:
    """The meaning of ``%%navi <line>`` above ``cell``: options, then a first line of the prompt, if any.

    ``%%navi recall <when>`` has its message below. Raises UsageError where it looks as if the cell should be run.
    """
    word, _, rest = line.strip().partition(" ")
    if word == "recall" and cell.strip():
        try:
            complete = read_recall(rest.strip())
        except UsageError:
            complete = None  # it lacks a message: that is below
        if complete is not None and complete.sentence:
            return replace(complete, message=cell.strip(), sentence=False)  # all of the line is the time
        recall = None if complete else read_recall(f"{rest.strip()} -- {cell.strip()}")
        if complete is not None:
            raise UsageError(
                "With %%navi the cell below is a message, and does not run. To run it and be notified, begin the cell"
                f" with one percent sign: %navi {line.strip()}"
            )
        if recall is not None:
            return recall
    prompt = parse_prompt(line, cell=cell)
    if not prompt.text.strip():
        raise UsageError("The cell is empty: write what you want to ask below %%navi.")
    return prompt


def parse_prompt(line: str, *, cell: str = "") -> Prompt:
    """``[options] [--] text``. Raises UsageError for an unknown option or no text at all."""
    options, text = take_options(line, flags=_PROMPT_FLAGS, values=("session", "model", "mode", *MANY))
    mode = options.get("mode", "enqueue")
    if mode not in MODES:
        raise UsageError(f"--mode is one of {', '.join(MODES)}, not {mode!r}.", field="mode")
    whole = "\n".join(part for part in (text, cell.rstrip()) if part.strip())
    if not whole and not cell:
        raise UsageError("There is nothing to ask: write the question behind %navi.")
    return Prompt(
        text=whole,
        wait="no-wait" not in options or "insert" in options,  # the cell below is made when this one ends
        interpolate="raw" not in options,
        session=options.get("session"),
        model=options.get("model"),
        mode=mode,
        outputs=tuple(word for word in re.split(r"[,\n]", options.get("with-output", "")) if word),
        files=tuple(word for word in options.get("attach", "").split("\n") if word),
        insert="insert" in options,
    )


_NO_WAIT = {"-b": "no-wait", "--no-wait": "no-wait"}
_PROMPT_FLAGS = {**_NO_WAIT, "-w": "wait", "--wait": "wait", "--raw": "raw", "--insert": "insert"}


_BARE = ("away", "chat", "help", "mcp", "models", "profiles", "queue", "status", "stop", "tools", "usage")
"""Subcommands without further words."""


def _bare(name: str) -> _Shape:
    return lambda rest: None if rest else Action(name=name)


def _naming(name: str) -> _Shape:
    """A subcommand with the item that it is about: ``cancel 3``, ``cancel loss``."""

    def shape(rest: str) -> Request | None:
        return _named_action(name, rest)

    return shape


def _fire(rest: str) -> Request | None:
    """``fire <recall> [--allow names]``."""
    options, item, _ = take_options_anywhere(rest, flags={}, values=("allow",))
    return _named_action("fire", item, **options)


def _allow(rest: str) -> Request | None:
    """``allow <recall> <names>``: the last word names what it may do, with commas where that is more than one."""
    item, _, names = rest.rpartition(" ")
    if not item:
        if row_number(names) is not None or _ID.fullmatch(names):
            raise UsageError(f"What may it do without asking? Write %navi allow {names} run_code")
        return None
    return _named_action("allow", item.strip(), allow=names) if _LEAVE.fullmatch(names) else None


_LEAVE = re.compile(r"[A-Za-z_][\w.:-]*(?:,[A-Za-z_][\w.:-]*)*")


def _named_action(name: str, item: str, *before: str, **options: str) -> Action | None:
    """The action on ``item``; None where its words begin a sentence.

    Whether a title has these words only the server can say. Where none has, the line is a prompt, so it goes along
    as ``else``; a number and an id can only be an item.
    """
    if not item or names_sentence(item):
        return None
    if not _ID.fullmatch(item) and row_number(item) is None:
        options["else"] = " ".join((name, *before, item, *([options["allow"]] if name == "allow" else [])))
    return Action(name=name, args=(*before, item), options=options)


def _with_name(name: str) -> _Shape:
    """``profile``, ``model`` or ``timezone``: alone it shows, with exactly one word it sets."""

    def shape(rest: str) -> Request | None:
        words = rest.split()
        return Action(name=name, args=tuple(words)) if len(words) <= 1 else None

    return shape


def _recalls(rest: str) -> Request | None:
    return Action(name="recalls", options={"all": ""} if rest else {}) if rest in ("", "--all", "-a") else None


def _session(rest: str) -> Request | None:
    read = read_session(rest)
    if read is None:
        return None
    if read.item is not None:
        return _named_action("session", read.item, *read.args, **read.options)
    return Action(name="session", args=read.args, options=read.options)


def _export(rest: str) -> Request | None:
    """``export [md|ipynb|html|json] [FILE] [--force]``."""
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


def _recall(rest: str) -> Request | None:
    if rest in ("pause all", "resume all"):
        return Action(name=f"{rest.split()[0]}_all")
    return read_recall(rest)


def _approvals(rest: str) -> Request | None:
    """``approvals [--all]``."""
    if rest not in ("", "--all"):
        return None
    return Action(name="approvals", options={"all": ""} if rest else {})


def _approve(rest: str) -> Request | None:
    """``approve [-b] [question] [--always]``."""
    words = rest.split()
    flags = {"--always": "always", **_NO_WAIT}
    options = {flags[word]: "" for word in words if word in flags}
    named = [word for word in words if word not in flags]
    if len(named) > 1:
        return None
    return _named_action("approve", named[0], **options) if named else Action(name="approve", options=options)


def _id_and_text(name: str) -> _Shape:
    """``deny [-b] [question] [reason]``, ``answer [-b] [question] value``."""

    def shape(rest: str) -> Request | None:
        options = {}
        word, _, text = rest.partition(" ")
        if word in _NO_WAIT:
            options, rest = {_NO_WAIT[word]: ""}, text.strip()
            word, _, text = rest.partition(" ")
        if _ID.fullmatch(word) and word.startswith("i_"):
            return Action(name=name, args=(word, text.strip()), options=options)
        # Without an id it is an answer only while a question is open; else it is a prompt. A number may be the
        # question's or the value: that depends on how many are open, so it stays in the text.
        return Action(name=name, args=("", rest), options={**options, "else": f"{name} {rest}".strip()})

    return shape


def _memory(rest: str) -> Request | None:
    """``memory [words]``; a sentence is a prompt."""
    words = rest.split()
    if len(words) > 3 or rest.endswith("?"):
        return None
    return Action(name="memory", args=(rest,) if rest else ())


def _remember(rest: str) -> Request | None:
    if not rest:
        raise UsageError("What? Write %navi remember I prefer polars.")
    if rest.lower().startswith(("to ", "when ", "me to ", "that time ")):
        return None  # a reminder or a question, which is a prompt
    return Action(name="remember", args=(rest.removeprefix("that "),))


_SHAPES: Mapping[str, _Shape] = {
    "recall": _recall,
    "recalls": _recalls,
    "session": _session,
    "export": _export,
    "approve": _approve,
    "fire": _fire,
    "allow": _allow,
    "remember": _remember,
    "memory": _memory,
    **{name: _bare(name) for name in _BARE},
    "approvals": _approvals,
    **{name: _naming(name) for name in ("cancel", "pause", "resume", "revoke", "unqueue", "forget")},
    **{name: _with_name(name) for name in ("profile", "model", "timezone")},
    **{name: _id_and_text(name) for name in ("deny", "answer")},
}

_SECOND_WORDS: Mapping[str, tuple[str, ...]] = {  # of which a subcommand's second word may be a misspelling
    "recall": ("every", "cron", "when", "tomorrow", "pause", "resume"),
    "session": SESSION_WORDS,
    "export": FORMATS,
}


MAX_VALUE = 4000  # characters of one value, which keeps a data frame from filling the model's context

_VARIABLE = re.compile(r"\{\{([A-Za-z_]\w*)\}\}|\{([A-Za-z_]\w*)\}")


def interpolate(text: str, names: Mapping[str, Any], show: Callable[[Any], str] = repr) -> str:
    """``text`` with the values of ``{name}``; ``show`` writes out a value that is not text.

    Only plain names: nothing is evaluated. Unknown names stay, so that JSON and code in a prompt survive; ``{{name}}``
    gives ``{name}``.
    """

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "{" + match[1] + "}"
        if match[2] not in names:
            return match[0]
        text = _value_text(names[match[2]], show)
        # The length is worth more to a model than a mere "…".
        more = f"… (cut: {len(text):,} characters in all)" if len(text) > MAX_VALUE else ""
        return text[:MAX_VALUE] + more

    return _VARIABLE.sub(value, text)


def _value_text(value: Any, show: Callable[[Any], str]) -> str:
    if isinstance(value, str):
        return value
    try:
        return str(show(value))
    except Exception as problem:  # noqa: BLE001 - the value's own code runs here, and may do anything
        return f"<{type(value).__name__} that cannot be shown: {type(problem).__name__}>"
