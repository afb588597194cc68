"""What a call would do, described for the user before they decide about it: the parts of a description.

Each tool describes its own calls (``Tool.describes``); one that does not is described by its arguments, all of them.
Not responsible for how a description looks in a view, which marks what cannot be seen (``visible_text``).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from ...model.runs import CallDetail, CellPlace
from ...redaction import redact

LONGEST = 400_000  # characters of one part that are stored and shown; how many are left out is in it
_AROUND = 3  # unchanged lines around a change
_MOST_COMPARED = 4_000_000  # lines before times lines after: what has more is shown as all removed and all added


@dataclass(frozen=True, kw_only=True, slots=True)
class CallDescription:
    """What a call would do, as it is now."""

    details: tuple[CallDetail, ...] = ()
    fingerprint: str | None = None  # of what it was described from; None: of its arguments alone
    expects: str | None = None  # what the tool has to find when it is called: see ``ports.agent.call_expects``


def text_part(label: str, value: Any, *, foreign: bool = False, cell: CellPlace | None = None) -> CallDetail:
    """A value that stands beside its label; ``foreign``: words of another program; ``cell``: which one it names."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    return _bounded(label, text, foreign=foreign, cell=cell)


def code_part(label: str, text: str, language: str | None = "python") -> CallDetail:
    """Code, or the text of a cell or file: the whole of it."""
    return _bounded(label, text, kind="code", language=language)


async def change_part(label: str, before: str, after: str) -> CallDetail:
    """The difference of two texts. It is made in a thread: to compare long ones takes a while."""
    return _bounded(label, await asyncio.to_thread(_difference, before, after), kind="diff")


def argument_parts(args: Mapping[str, Any], described: Collection[str] = ()) -> list[CallDetail]:
    """The arguments of a call that no other part describes, each whole."""
    others = [(name, value) for name, value in args.items() if name not in described and value is not None]
    return [
        code_part(name, value, None) if isinstance(value, str) and "\n" in value else text_part(name, value)
        for name, value in others
    ]


def fingerprint_of(*parts: object) -> str:
    """A short text that changes when one of the parts does."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:32]


def _bounded(label: str, text: str, **fields: Any) -> CallDetail:
    # A cell or a file may hold a key of this server, which must not get into the database.
    shown = redact(text[:LONGEST])
    return CallDetail(label=label, text=shown, omitted=max(0, len(text) - LONGEST), **fields)


def _difference(before: str, after: str) -> str:
    old, new = before.split("\n"), after.split("\n")
    if old == new:
        return "@ nothing changes"
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    # What is equal at both ends is most of a long file, and need not be compared.
    start = max(0, same - _AROUND)
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    end = max(0, tail - _AROUND)
    lines = _changes(old[start : len(old) - end], new[start : len(new) - end], start)
    if end:
        lines.append(f"@ {end} more lines as before")
    return "\n".join(lines)


def _changes(old: list[str], new: list[str], start: int) -> list[str]:
    if len(old) * len(new) > _MOST_COMPARED:
        return [f"@ from line {start + 1}", *_signed("-", old), *_signed("+", new)]
    lines: list[str] = []
    for group in SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(_AROUND):
        lines.append(f"@ from line {start + group[0][1] + 1}")
        for kind, first, last, first_new, last_new in group:
            if kind == "equal":
                lines += _signed(" ", old[first:last])
            else:
                lines += [*_signed("-", old[first:last]), *_signed("+", new[first_new:last_new])]
    return lines


def _signed(sign: str, lines: Iterable[str]) -> list[str]:
    return [sign + line for line in lines]
