"""Short handles: how a person names one of several recalls, sessions, runs or facts. Pure.

A handle is the row's number in the list that was shown, a beginning or the end of the id, or a beginning of the title.
Not responsible for fetching the list, nor for remembering which one was shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .text import join_words, one_line

_FULL_ID = re.compile(r"[a-z]{1,8}_[0-9a-f]{24}")
_ID_IN_TEXT = re.compile(rf"(?<![A-Za-z0-9_]){_FULL_ID.pattern}(?![A-Za-z0-9_])")
_NUMBER = re.compile(r"#?([1-9]\d{0,3})")  # no leading zero: "0012" is the end of an id
_SHORTEST = 4  # characters of a short handle; more where two items share them (of a hundred, in one list of thirteen)
_LISTED = 5  # candidates that an error names


class Named(NamedTuple):
    """Something with an id and a title."""

    id: str
    title: str


class HandleError(LookupError):
    """Text that names none or several of the items; ``str()`` says which there are."""

    def __init__(self, message: str, *, ambiguous: bool) -> None:
        super().__init__(message)
        self.ambiguous = ambiguous


def is_full_id(text: str) -> bool:
    """Whether ``text`` is a complete id, so that no list is needed to resolve it."""
    return _FULL_ID.fullmatch(text) is not None


def short_handle(item_id: str, others: Iterable[str] = ()) -> str:
    """The end of ``item_id``, as long as is needed to tell it from ``others``.

    The end, because the ids of recalls begin with the time: those made in one hour have the same first digits.
    """
    digits = _digits(item_id)
    rest = [_digits(other) for other in others if other != item_id]
    for length in range(_SHORTEST, len(digits)):
        if not any(other.endswith(digits[-length:]) for other in rest):
            return digits[-length:]
    return digits


def with_short_handles(text: str) -> str:
    """``text`` with each whole id in it as its short handle: for views of what a model and a tool exchanged."""
    return _ID_IN_TEXT.sub(lambda match: short_handle(match[0]), text)


def lasting_handle(item_id: str) -> str:
    """A handle for a text that stays, and is read beside items that are not there yet: eight characters."""
    return _digits(item_id)[-2 * _SHORTEST :]


def row_number(text: str) -> int | None:
    """``3`` or ``#3`` as the number of a row; None for anything else."""
    match = _NUMBER.fullmatch(text.strip())
    return int(match[1]) if match else None


def resolve(text: str, *scopes: Sequence[Named], noun: str = "recall", shown: Sequence[str] | None = None) -> str:
    """The id of the item that ``text`` names.

    A number is that row of ``shown`` (ids of the list that the person saw), or of the first scope where none was
    shown; it always wins over an id that has these digits. Other text is looked up in the scopes in turn, and the
    first scope with a match decides: the exact id or title, then a beginning of the title or the id (with or without
    its type) or the end of the id, then a beginning of a later word of the title. Raises HandleError.
    """
    text = text.strip()
    rows = shown if shown is not None else [item.id for item in scopes[0]] if scopes else []
    number = row_number(text)
    if number is not None and number <= len(rows):
        return rows[number - 1]
    if number is not None and not rows and shown is not None:
        raise HandleError(f"There is no {noun} {number}: the list is empty.", ambiguous=False)
    for scope in scopes:
        found = _matches(text, scope)
        if len(found) == 1:
            return found[0].id
        if found:
            raise HandleError(f"{text!r} names {len(found)} {noun}s: {_list(found)}.", ambiguous=True)
    items = next((scope for scope in scopes if scope), ())
    if number is not None and rows:
        raise HandleError(f"There is no {noun} {number}: the list has {len(rows)}.", ambiguous=False)
    there_is = f" There is {_list(items)}." if items else ""
    raise HandleError(f"No {noun} is called {one_line(text, 60)!r}.{there_is}", ambiguous=False)


def _matches(text: str, scope: Sequence[Named]) -> list[Named]:
    folded = text.casefold()
    if not folded:
        return []
    for rule in (_is_exactly, _begins, _has_word, _begins_briefly):
        if found := [item for item in scope if rule(folded, item)]:
            return found
    return []


def _is_exactly(text: str, item: Named) -> bool:
    return text in (item.id, _digits(item.id), item.title.casefold())


def _begins(text: str, item: Named) -> bool:
    if item.title.casefold().startswith(text):
        return True
    # One or two hex digits are as likely the beginning of a word: ids count from the length of a handle on.
    return len(text) >= _SHORTEST and (_begins_briefly(text, item) or _digits(item.id).endswith(text))


def _has_word(text: str, item: Named) -> bool:
    # a number is a whole word: "cancel 9" of a list of three must not take "check 95 files".
    end = r"(?!\w)" if text.isdecimal() else ""
    return re.search(rf"(?<!\w){re.escape(text)}{end}", item.title.casefold()) is not None


def _begins_briefly(text: str, item: Named) -> bool:
    return item.id.startswith(text) or _digits(item.id).startswith(text)


def _digits(item_id: str) -> str:
    return item_id.rpartition("_")[2]


def _list(items: Sequence[Named]) -> str:
    ids = [item.id for item in items]
    named = [f"{one_line(item.title, 40)!r} ({short_handle(item.id, ids)})" for item in items[:_LISTED]]
    return join_words([*named, f"{len(items) - _LISTED} more"] if len(items) > _LISTED else named)
