"""Schedules that wait for something to happen in a notebook: from what was written to a ``When``. Pure.

Not responsible for noticing that it happens (``triggers``), nor for what becomes of it then (``event_firings``).
"""

from __future__ import annotations

import ast
import re
import warnings
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, Never

from ..clock import parse_duration
from ..errors import InvalidSchedule
from ..model.recalls import When, WhenEvent, WhenSpec

DEFAULT_EVERY = timedelta(seconds=5)
SHORTEST_EVERY = timedelta(seconds=1)
LONGEST_EVERY = timedelta(days=1)

_CELL_EVENTS = (WhenEvent.CELL_DONE, WhenEvent.CELL_FINISHED, WhenEvent.CELL_FAILED, WhenEvent.CELL_SLOW)
_POLLED = (WhenEvent.FILE_CHANGED, WhenEvent.EXPRESSION)
_WORDS = {
    "done": WhenEvent.CELL_DONE,
    "finished": WhenEvent.CELL_FINISHED,
    "succeeded": WhenEvent.CELL_FINISHED,
    "failed": WhenEvent.CELL_FAILED,
    "fails": WhenEvent.CELL_FAILED,
    "slow": WhenEvent.CELL_SLOW,
    "slower": WhenEvent.CELL_SLOW,
    "idle": WhenEvent.KERNEL_IDLE,
    "restarted": WhenEvent.KERNEL_RESTARTED,
    "restarts": WhenEvent.KERNEL_RESTARTED,
    "died": WhenEvent.KERNEL_DIED,
    "dies": WhenEvent.KERNEL_DIED,
    "changed": WhenEvent.FILE_CHANGED,
    "changes": WhenEvent.FILE_CHANGED,
    "true": WhenEvent.EXPRESSION,
} | {event.value: event for event in WhenEvent}
_MAX_DEPTH = 64
"""Levels of an expression: deeper ones exhaust the stack of a kernel or of this server, whichever looks at it."""
_KNOWN = "done, finished, failed, slow 10m, idle, restarted, died, changed <path>, true <expression>"


def resolve_when(spec: WhenSpec) -> When:
    """Check a spec and fill in what it leaves open. Raises InvalidSchedule, with ``field`` set, for what does not fit.

    A short word (``when``) may bring along its own operand: ``slow 10m``, ``changed data/*.csv``, ``true loss < 1``.
    """
    # Not model_dump, which makes text of durations.
    given = {name: value for name, value in spec if name not in ("kind", "when") and value is not None}
    if spec.when is not None:
        given = _merged(_read_word(spec.when), given)
    event = given.pop("event", None)
    if event is None:
        _refuse(f"name the event: {_KNOWN}", "schedule.event")
    event = WhenEvent(event)
    _check_fields(event, given)
    repeat = given.get("repeat", "once")
    if repeat == "once" and "cooldown" in given:
        _refuse("a cooldown goes with repeat: each", "schedule.cooldown")
    if event in _CELL_EVENTS:
        given.setdefault("cell", "running" if repeat == "once" else "any")
    return When(event=event, **given)


def _merged(word: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    for name, value in word.items():
        if name in given and given[name] != value:
            _refuse(f"{name} is given twice, and differently", f"schedule.{name}")
    return {**given, **word}


def _read_word(text: str) -> dict[str, Any]:
    """``slow 10m`` as fields. Raises InvalidSchedule."""
    words = re.sub(r"^(?:the\s+)?(?:cell|kernel|file)\s+(?:is\s+)?", "", text.strip(), flags=re.IGNORECASE)
    word, _, rest = words.partition(" ")
    rest = rest.strip()
    event = _WORDS.get(word.lower())
    if event is None:
        _refuse(f"{text[:60]!r} is nothing to wait for; use {_KNOWN}", "schedule.when")
    if not rest:
        return {"event": event}
    match event:
        case WhenEvent.CELL_SLOW | WhenEvent.KERNEL_IDLE:
            return {"event": event, "longer_than": _duration(re.sub(r"^(?:for|than|after)\s+", "", rest))}
        case WhenEvent.FILE_CHANGED:
            return {"event": event, "path": rest.strip("\"'")}
        case WhenEvent.EXPRESSION:
            return {"event": event, "expr": rest}
        case _:
            raise InvalidSchedule(f"when: {word} takes no more words; {rest[:40]!r} is too much", field="schedule.when")


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidSchedule(f"{error}", field="schedule.longer_than") from None


def _check_fields(event: WhenEvent, given: dict[str, Any]) -> None:
    """Check that the fields belong to the event and have sensible values. Raises InvalidSchedule."""
    allowed = {"repeat", "cooldown", "kernel_id"}
    if event in _CELL_EVENTS:
        allowed |= {"cell"}
    if event in (WhenEvent.CELL_SLOW, WhenEvent.KERNEL_IDLE):
        allowed |= {"longer_than"}
    if event in _POLLED:
        allowed |= {"every", "path" if event is WhenEvent.FILE_CHANGED else "expr"}
    if event is WhenEvent.FILE_CHANGED:
        allowed -= {"kernel_id"}
    if "every" not in allowed and given.get("every") == DEFAULT_EVERY:
        del given["every"]  # a stored one has it, and is to be taken back
    for name in given:
        if name not in allowed:
            _refuse(f"{name} does not go with {event}", f"schedule.{name}")
    if event is WhenEvent.CELL_SLOW and "longer_than" not in given:
        _refuse("longer_than is missing, as in slow 10m", "schedule.longer_than")
    if event is WhenEvent.FILE_CHANGED:
        given["path"] = _path(given.get("path", ""))
    if event is WhenEvent.EXPRESSION:
        given["expr"] = _expression(given.get("expr", ""))
    if not SHORTEST_EVERY <= given.get("every", DEFAULT_EVERY) <= LONGEST_EVERY:
        _refuse("every is from 1s to 1d", "schedule.every")


def _path(text: str) -> str:
    path = text.strip().removeprefix("./")
    if not path:
        _refuse("the file is missing: changed <path>", "schedule.path")
    parts = PurePosixPath(path).parts
    if path.startswith(("/", "~", "\\")) or ".." in parts or "\\" in path or not path.isprintable():
        _refuse(f"{text[:80]!r} is outside; a path is relative to the server's root", "schedule.path")
    return path


def _expression(text: str) -> str:
    expr = text.strip()
    if not expr:
        _refuse("the expression is missing: true <expression>", "schedule.expr")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is shown where the expression runs
            tree = ast.parse(expr, mode="eval")
            if (depth := _depth(tree)) <= _MAX_DEPTH:
                compile(tree, "<when>", "eval")
    except SyntaxError as error:
        _refuse(f"{expr[:60]!r} is no Python expression: {error.msg}", "schedule.expr")
    except (ValueError, RecursionError, MemoryError):
        _refuse("the expression cannot be read", "schedule.expr")
    if depth > _MAX_DEPTH:
        _refuse(f"the expression is nested more than {_MAX_DEPTH} levels deep", "schedule.expr")
    if isinstance(tree.body, ast.Constant):
        _refuse(f"{expr[:60]!r} never changes", "schedule.expr")
    return expr


def _depth(tree: ast.AST) -> int:
    """How many nodes lie within one another. Without recursion, which is what a deep one would exhaust."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _refuse(why: str, field: str) -> Never:
    raise InvalidSchedule(f"when: {why}", field=field)
