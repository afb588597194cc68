"""Calls of tools in words, on one line: ``Ran code``, ``Reading cell 3…``, ``Could not write notes.md``. Pure.

The chat says the same in English (``js/src/view/conversation/tool-line.ts``); ``tests/kernel/tool_lines.json`` holds
both. A tool without words of its own is called by its name, one of an MCP server with the server's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from ...visible_text import marked_line

Status = Literal["running", "done", "stopped", "failed", "asking", "denied"]

_LONGEST = 60  # characters of a name or a text in a line
_READ = 20_000  # characters of arguments and results that are read for it
_DENIED = frozenset({"not_approved", "not_allowed", "tool_denied"})
_OF_SERVER = re.compile(r"(.+?)__(.+)", re.DOTALL)
_CELLS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class Verb(NamedTuple):
    """``{}`` is what the call is about; ``any`` stands there where that is not known. ``plain`` comes behind "to"."""

    done: str
    running: str
    plain: str
    any: str = ""


OF_AGENT = "acp__"
"""How the calls of an agent program are named: this, and the kind that the program gives (Agent Client Protocol)."""
_VERBS: Mapping[str, Verb] = {
    "acp__delete": Verb("Deleted {}", "Deleting {}…", "delete {}", "a file"),
    "acp__edit": Verb("Changed {}", "Changing {}…", "change {}", "a file"),
    "acp__execute": Verb("Ran a command", "Running a command…", "run a command"),
    "acp__fetch": Verb("Fetched a page", "Fetching a page…", "fetch a page"),
    "acp__move": Verb("Moved {}", "Moving {}…", "move {}", "a file"),
    "acp__other": Verb("Used {}", "Using {}…", "use {}", "a tool of its own"),
    "acp__read": Verb("Read {}", "Reading {}…", "read {}", "a file"),
    "acp__search": Verb("Searched the files", "Searching the files…", "search the files"),
    "acp__switch_mode": Verb("Changed its mode", "Changing its mode…", "change its mode"),
    "acp__think": Verb("Thought about it", "Thinking about it…", "think about it"),
    "ask_user": Verb("Asked you a question", "Asking you a question…", "ask you a question"),
    "cancel_recall": Verb("Cancelled {}", "Cancelling {}…", "cancel {}", "a recall"),
    "change_recall": Verb("Changed {}", "Changing {}…", "change {}", "a recall"),
    "create_recall": Verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a recall"),
    "current_time": Verb("Looked at the clock", "Looking at the clock…", "look at the clock"),
    "delegate": Verb("Gave a task to a subagent", "Giving a task to a subagent…", "give a task to a subagent"),
    "delete_cell": Verb("Deleted {}", "Deleting {}…", "delete {}", "a cell"),
    "edit_cell": Verb("Changed {}", "Changing {}…", "change {}", "a cell"),
    "forget": Verb("Forgot a fact", "Forgetting a fact…", "forget a fact"),
    "insert_cell": Verb("Inserted a cell", "Inserting a cell…", "insert a cell"),
    "inspect_variable": Verb("Looked at {}", "Looking at {}…", "look at {}", "a variable"),
    "interrupt_kernel": Verb("Interrupted the kernel", "Interrupting the kernel…", "interrupt the kernel"),
    "kernel_status": Verb("Looked at the kernel", "Looking at the kernel…", "look at the kernel"),
    "list_files": Verb("Listed {}", "Listing {}…", "list {}", "the files"),
    "list_recalls": Verb("Listed the recalls", "Listing the recalls…", "list the recalls"),
    "list_variables": Verb("Listed the variables", "Listing the variables…", "list the variables"),
    "pause_recall": Verb("Paused {}", "Pausing {}…", "pause {}", "a recall"),
    "read_file": Verb("Read {}", "Reading {}…", "read {}", "a file"),
    "read_notebook": Verb("Read {}", "Reading {}…", "read {}", "the notebook"),
    "read_output": Verb("Read more of an output", "Reading more of an output…", "read more of an output"),
    "recall_notebook": Verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a notebook"),
    "recall_when_true": Verb("Scheduled {}", "Scheduling {}…", "schedule {}", "a recall"),
    "remember": Verb("Remembered a fact", "Remembering a fact…", "remember a fact"),
    "restart_kernel": Verb("Restarted the kernel", "Restarting the kernel…", "restart the kernel"),
    "resume_recall": Verb("Resumed {}", "Resuming {}…", "resume {}", "a recall"),
    "run_cell": Verb("Ran {}", "Running {}…", "run {}", "a cell"),
    "run_code": Verb("Ran code", "Running code…", "run code"),
    "run_notebook": Verb("Ran {}", "Running {}…", "run {}", "a notebook"),
    "search_files": Verb("Searched files for {}", "Searching files for {}…", "search files for {}", "a text"),
    "search_memory": Verb("Searched the memory", "Searching the memory…", "search the memory"),
    "session_history": Verb("Read what happened here", "Reading what happened here…", "read what happened here"),
    "write_file": Verb("Wrote {}", "Writing {}…", "write {}", "a file"),
}
VERBS = frozenset(_VERBS)
"""The tools that have words of their own."""
_OTHER = Verb("Used {}", "Using {}…", "use {}")


def tool_line(name: str, args: str, result: str | None, status: Status) -> str:
    """The words. ``args`` and ``result`` are JSON as the log has it, as far as it can be read."""
    if name.startswith(OF_AGENT) and name not in _VERBS:
        name = f"{OF_AGENT}other"  # a kind that came with a later version of the protocol
    verb, about = _VERBS.get(name, _OTHER), ""
    about = (_about(name, _fields(args), _fields(result)) or verb.any) if name in _VERBS else _tool_name(name)
    plain = verb.plain.replace("{}", about)
    match status:
        case "done":
            return verb.done.replace("{}", about)
        case "running":
            return verb.running.replace("{}", about)
        case "asking":
            return f"Wants to {plain}"
        case "failed":
            return f"Could not {plain}"
        case "denied":
            return f"Was not allowed to {plain}"
        case "stopped":
            return f"Began to {plain}, and was stopped"


def has_words(name: str) -> bool:
    """Whether a call of that tool has words of its own, which say what its arguments do."""
    return name in VERBS or name.startswith(OF_AGENT)


def present_call(name: str, args: str, reported: Mapping[str, Any]) -> tuple[str, str]:
    """The name and arguments of an agent program's call with what it has reported since; others are as they are."""
    if not name.startswith(OF_AGENT) or not reported:
        return name, args
    known = {key: reported[key] for key in ("title", "locations") if reported.get(key)}
    kind = reported.get("kind")
    return f"{OF_AGENT}{kind}" if isinstance(kind, str) else name, json.dumps({**_fields(args), **known})


def agent_title(name: str, args: str) -> str:
    """What an agent program says of its call, in its own words; empty where the line has it, or nothing is known."""
    title = _fields(args).get("title") if name.startswith(OF_AGENT) else None
    if not isinstance(title, str) or name == f"{OF_AGENT}other":
        return ""
    about = _about(name, _fields(args), {})
    return "" if about and re.split(r"[\s/\\]+", title.strip())[-1] == about else title


def tool_problem(result: str | None) -> tuple[bool, str] | None:
    """Of a result that says that something is wrong: whether the call was denied, and the message; None: it is well."""
    fields = _fields(result)
    error = fields.get("error")
    if not isinstance(error, str):
        return None
    message = fields.get("message")
    return error in _DENIED, message if isinstance(message, str) else error


def status_of(result: str | None, *, is_over: bool, raised: bool = False) -> Status:
    """How far a call is. ``is_over``: its run is, so no result will come; ``raised``: its code ended with an error."""
    if result is None:
        return "stopped" if is_over else "running"
    problem = tool_problem(result)
    if problem is None:
        return "failed" if raised else "done"
    return "denied" if problem[0] else "failed"


def _fields(text: str | None) -> Mapping[str, Any]:
    if text is None or len(text) > _READ or not text.startswith("{"):
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _tool_name(name: str) -> str:
    """``search of github`` for ``github__search``, which is how tools of MCP servers are called."""
    found = _OF_SERVER.fullmatch(name)
    return f"{_shortened(found[2])} of {_shortened(found[1])}" if found else _shortened(name)


def _about(name: str, args: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What a call is about, for the user's eyes: never an id. Empty where that is not known."""
    match name:
        case (
            "create_recall" | "recall_when_true" | "change_recall" | "pause_recall" | "resume_recall" | "cancel_recall"
        ):
            return _quoted(result.get("title")) or _quoted(args.get("title")) or _quoted(args.get("message"))
        case "search_files":
            return _quoted(args.get("query"))
        case "recall_notebook" | "run_notebook" | "read_file" | "write_file" | "list_files":
            return _file_name(args.get("path"))
        case "read_notebook":
            return _cells(args["cells"]) if _text(args.get("cells")) else _file_name(args.get("path"))
        case "edit_cell" | "delete_cell" | "run_cell":
            return _cells(args.get("cell"))
        case "inspect_variable":
            return _text(args.get("name"))
        case "acp__read" | "acp__edit" | "acp__delete" | "acp__move":
            return _file_name(_first_path(args))
        case "acp__other":
            return _quoted(args.get("title"))
    return ""


def _first_path(args: Mapping[str, Any]) -> object:
    """The path of the first place that a call of an agent program names."""
    places = args.get("locations")
    first = places[0] if isinstance(places, list) and places else None
    return first.get("path") if isinstance(first, dict) else None


def _cells(value: object) -> str:
    """Cells by their places, as ``2``, ``2-4`` and ``-1`` name them from 0 on; empty for ids and lists."""
    named = _text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)
    if named == "-1":
        return "the last cell"
    found = _CELLS.fullmatch(named)
    if found is None:
        return ""
    first, last = found[1], found[2]
    if last is None or last == first:
        return f"cell {int(first) + 1}"
    return f"cells {int(first) + 1} to {int(last) + 1}"


def _file_name(value: object) -> str:
    return _text(value.rstrip("/").rpartition("/")[2]) if isinstance(value, str) else ""


def _quoted(value: object) -> str:
    text = _text(value)
    return f"“{text}”" if text else ""


def _text(value: object) -> str:
    return _shortened(value) if isinstance(value, str) and value.strip() else ""


def _shortened(value: str) -> str:
    line = " ".join(value.split())
    return marked_line(line if len(line) <= _LONGEST else line[: _LONGEST - 1].rstrip() + "…")
