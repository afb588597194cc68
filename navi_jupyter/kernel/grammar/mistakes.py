"""Mistyped ``%navi`` lines: whether a line is a sentence or a subcommand gone wrong, and the right form nearest to it.

A line that is nearly a subcommand must not become a prompt: it would be answered by a model, at a cost, with something
else than what was meant. A line that is a sentence must stay one. The rule is in docs/reference.md, in these words:
:func:`is_sentence`. Pure. Not responsible for what a line means (``command_line``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

SENTENCE_LENGTH = 4  # words, with the subcommand

_NO_NAMES = frozenset((
    "about", "all", "any", "anything", "both", "every", "everything", "everyone", "for", "in", "it", "me", "my",
    "none", "of", "on", "our", "that", "them", "this", "those", "to", "what", "when", "whatever", "with", "your",
))  # fmt: skip
"""The words with which one talks to an agent about items rather than names one: "cancel everything"."""

_SENTENCE_WORDS = _NO_NAMES | frozenset((
    "a", "an", "and", "are", "at", "by", "did", "do", "does", "each", "from", "how", "i", "if", "is", "its", "the",
    "their", "these", "they", "us", "was", "we", "were", "where", "which", "who", "why", "you",
))  # fmt: skip
"""Those, and the words that begin a title as well: "pause the loss" is a recall where there is one of that title."""

_OF_RECALLS = "its number in %navi recalls, or its title"
FORMS: Mapping[str, tuple[str, str]] = {
    "recall": ("recall in 10m check the loss", "or at 18:30 …, every 1h …, when done …"),
    "recalls": ("recalls [--all]", ""),
    "session": ("session [new | use 2 | list | search TEXT | rename TITLE | archive | delete 2 | unlink]", ""),
    "export": ("export [md|ipynb|html|json] [FILE]", ""),
    "approve": ("approve [2] [--always]", "the number of a question in %navi approvals"),
    "approvals": ("approvals [--all]", ""),
    "deny": ("deny [2] [REASON]", "the number of a question in %navi approvals"),
    "answer": ("answer [2] VALUE", "the number of a question in %navi approvals"),
    "allow": ("allow 3 run_code", _OF_RECALLS),
    "remember": ("remember I prefer polars", ""),
    "memory": ("memory [WORDS]", ""),
    "unqueue": ("unqueue 1", "its number in %navi queue"),
    "forget": ("forget 2", "its number in %navi memory"),
    "profile": ("profile [NAME]", "%navi profiles lists them"),
    "model": ("model [NAME]", "%navi models lists them"),
    "timezone": ("timezone [ZONE]", "such as Europe/Berlin, or auto"),
    **{name: (f"{name} 3", _OF_RECALLS) for name in ("cancel", "pause", "resume", "fire", "revoke")},
}
"""The form of each subcommand that takes words, and what explains it. The others stand alone."""

_ITEM_COMMANDS = ("cancel", "pause", "resume", "fire", "revoke", "allow", "unqueue", "forget")

_ENGLISH = frozenset((
    "cancer", "charge", "chart", "chatty", "expert", "file", "find", "fine", "fires", "five", "parse", "paste",
    "phase", "profit", "shop", "step", "steps", "store", "story", "toll", "top",
))  # fmt: skip
"""Words that only look like a subcommand: those with which people begin a request about data."""


def is_sentence(line: str) -> bool:
    """Whether a line whose first word is a subcommand is meant for the agent all the same.

    It has four words or more, ends with a question mark, or goes on with a word like "the", "my" or "everything".
    """
    words = line.split()
    if len(words) >= SENTENCE_LENGTH or line.rstrip().endswith(("?", "？")):
        return True
    return len(words) > 1 and words[1].lower().strip(".,:;!") in _SENTENCE_WORDS


def names_sentence(item: str) -> bool:
    """Whether the words behind a subcommand begin a sentence rather than name an item."""
    return item.endswith("?") or item.split()[0].lower() in _NO_NAMES


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The subcommand of which ``word`` is a misspelling, if it is one.

    The first letter is the one that is hardly ever mistyped, and keeps "what" apart from "chat".
    """
    lower = word.lower()
    candidates = [name for name in known if name[:1] == lower[:1] and len(name) > 2]
    if lower in candidates:
        return lower  # only its capital letters differ
    if lower in _ENGLISH or len(lower) < 3:
        return None
    found = get_close_matches(lower, candidates, n=1, cutoff=0.75)
    # Two letters exchanged may leave little in common for the comparison above: "qeuue".
    return next(iter(found), None) or next((name for name in candidates if sorted(name) == sorted(lower)), None)


def usage_of(name: str, rest: str = "") -> str:
    """What to write: the message of a usage error about the subcommand ``name``, given ``rest``."""
    form, more = FORMS.get(name, (name, ""))
    write = f"Write %navi {form}{f' ({more})' if more else ''}."
    if rest:
        return f"%navi {name} does not take {_shown(rest)}. {write} To ask Navi instead: %navi -- {name} {rest}"
    if name in _ITEM_COMMANDS:
        return f"Which one? {write}"
    return f"Something is missing. {write}" if form != name else write


def misspelled(line: str, meant: str) -> str:
    """The message of a usage error about ``line``, which should have been ``meant``."""
    return f"Did you mean %navi {meant}? To ask Navi instead: %navi -- {line}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
