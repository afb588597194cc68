"""The grammar of ``%navi session …``: this notebook's session, and the list of all. Pure.

Not responsible for doing what is asked for (``session_list``), nor for which session a handle names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SessionCommand:
    """What follows ``%navi session``."""

    args: tuple[str, ...]
    item: str | None = None  # the handle of the session that it is about, where the words of a sentence may stand, too
    options: Mapping[str, str] = field(default_factory=dict)


_ALONE = ("list", "new", "unlink", "archive")
_LISTS = ("--archived", "--deleted")
_WHICH = "Which one? Write %navi session {0} and its number or title; %navi session list{1} shows them."
_MISSING: Mapping[str, str] = {
    "use": _WHICH.format("use", ""),
    "delete": _WHICH.format("delete", ""),
    "archive": _WHICH.format("archive", ""),
    "unarchive": _WHICH.format("unarchive", " --archived"),
    "restore": _WHICH.format("restore", " --deleted"),
    "rename": "To what? Write %navi session rename Loss of the new model",
    "search": "For what? Write %navi session search learning rate",
}
"""The words that need more, and what to write where that is missing."""
SESSION_WORDS = tuple(dict.fromkeys((*_ALONE, *_MISSING)))
"""What can follow ``%navi session``."""


def read_session(rest: str) -> SessionCommand | None:
    """The meaning of ``%navi session <rest>``; None where it has no such shape. Raises UsageError."""
    words = rest.split()
    if len(words) <= 1 and (not words or words[0] in _ALONE):
        return SessionCommand(args=tuple(words))
    if len(words) == 2 and words[0] == "list" and words[1] in _LISTS:
        return SessionCommand(args=("list",), options={words[1].removeprefix("--"): ""})
    word, _, item = rest.partition(" ")
    if word not in _MISSING:
        return None
    options = {}
    if word == "use" and "--move" in words:
        options, item = {"move": ""}, " ".join(one for one in words[1:] if one != "--move")
    item = item.strip()
    if not item:
        raise UsageError(_MISSING[word])
    if word == "search":
        return SessionCommand(args=("search", item))
    if word == "rename":
        # ``rename 2 -- New title``: another one than this notebook's.
        handle, mark, title = item.partition(" -- ")
        return SessionCommand(args=("rename", handle.strip(), title.strip()) if mark else ("rename", "", item))
    return SessionCommand(args=(word,), item=item, options=options)
