"""Text for people and for models: shortening, plain text from terminal output, counts and lists in words, fences.

A fence has text of others as data in what a model reads (cells, outputs, names, remembered facts, what an agent noted
for later): it stands between two lines with a random mark, which it cannot write. That is a help for the model and no
wall: what a model may do is decided elsewhere (``agent.tools.permissions``), and a prompt with a fence counts as one
with foreign text. Not responsible for what a caller says about a part that was left out: it gives the note.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from functools import cache

IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Media types of images that browsers draw and models look at, the preferred one first."""

# CSI sequences (colours, cursor), OSC sequences (titles, links; ended by BEL or ST), and other two-character escapes.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][0-9A-B]|\x1b[@-Z\\-_]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?!\n|\Z)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# Controls of C0 (but tab and line feed) and C1, separators that some terminals break lines at, halves of characters.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def approval_words(tool: str | None) -> str:
    """The question whether ``tool`` may be used, for a call without words of its own."""
    return f"Navi wants to use {tool}."


def truncate(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters; where it was shortened it ends with ``…``."""
    return text if len(text) <= limit else text[: max(0, limit - 1)].rstrip() + "…"


def truncate_start(text: str, limit: int) -> str:
    """The last characters of ``text``, at most ``limit``; where it was shortened it begins with ``…``."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]


def one_line(text: str, limit: int) -> str:
    """``text`` with each run of white space as one blank, in at most ``limit`` characters."""
    return truncate(" ".join(text.split()), limit)


def truncate_middle(text: str, limit: int, *, head: float = 0.5, note: str = "") -> str:
    """``text``, or where it is longer than ``limit`` its two ends with a line between them that counts the rest.

    ``head`` is the share of the beginning; ``note`` says how to get what was left out. The line between the ends comes
    on top of ``limit``.
    """
    if len(text) <= limit:
        return text
    first = int(limit * head)
    last = limit - first
    more = f"; {note}" if note else ""
    between = f"[… {len(text) - limit:,} of {len(text):,} characters left out{more} …]"
    return f"{text[:first]}\n{between}\n{text[len(text) - last :]}"


def strip_ansi(text: str) -> str:
    """``text`` without terminal escape sequences."""
    return _ANSI.sub("", text) if "\x1b" in text else text


def terminal_text(text: str) -> str:
    """``text`` as a terminal would leave it: without escapes, each overwritten line (a progress bar) in its last state.

    Other control characters become U+FFFD.
    """
    plain = strip_ansi(text).replace("\r\n", "\n")
    if "\r" in plain:
        plain = _OVERWRITTEN.sub("", plain).replace("\r", "")
    return _CONTROL.sub("\ufffd", plain)


def printable(text: str) -> str:
    """``text`` for a terminal: nothing in it moves the cursor, clears the screen, sets a title or the clipboard.

    Each control character is shown as its code. What the beginning of a text is shown as stays the same when the text
    grows, so that an answer can be printed as it comes.
    """
    if not _UNPRINTABLE.search(text):
        return text
    lines = text.removesuffix("\r").replace("\r\n", "\n")
    return _UNPRINTABLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", lines)


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """``1 recall``, ``2 recalls``, ``1,000 recalls``."""
    return f"{count:,} {noun if count == 1 else plural_noun or noun + 's'}"


def with_article(noun: str) -> str:
    """``an integer``, ``a number``."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def plain_number(value: float) -> str:
    """A number as a person writes it: ``9007199254740992``, ``0.5``; never with an exponent where it is an integer."""
    whole = isinstance(value, int) or (math.isfinite(value) and value.is_integer())
    return str(int(value)) if whole else f"{value:.12g}"


def join_words(words: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, end = [*words] or [""]
    return f"{', '.join(most)} {last} {end}" if most else end


def code_block(text: str, language: str = "") -> str:
    """A Markdown code block that ``text`` cannot end."""
    longest = max((len(ticks) for ticks in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def closeness(query: str, name: str) -> tuple[int, int] | None:
    """How well a name (or a path) fits what somebody has typed of it: the smaller, the better. None: not at all.

    The letters have to be there in order; those in one piece, and those at the beginning of the last part, fit better.
    """
    wanted, whole = query.casefold(), name.casefold()
    last = whole.rstrip("/").rpartition("/")[2]
    for rank, fits in enumerate((last.startswith(wanted), wanted in last, wanted in whole)):
        if fits:
            return rank, len(name)
    for rank, text in enumerate((last, whole), 3):
        letters = iter(text)
        if all(letter in letters for letter in wanted):
            return rank, len(name)
    return None


def joined(value: object) -> str:
    """A text of nbformat, which is a string or a list of strings; empty for anything else."""
    if isinstance(value, str):
        return value
    return "".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, bytes) else ""


# They are among the unseen characters, and a part of what people write: white space, the joiners of letters and emoji,
# and the two selectors of how an emoji is drawn.
_WRITTEN = re.compile(r"[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000\u200c\u200d\ufe0e\ufe0f]")
_OPENED = re.compile(r"^<<<([\w-]{4,64})$", re.MULTILINE)
_MOST_OPENED = 100  # lines that open a fence; a text with more was written to have them, and counts as one with a fence


def inert(text: str) -> str:
    """``text`` with U+FFFD for each character that is not seen. Lines stay."""
    plain = strip_ansi(text).replace("\r\n", "\n").replace("\r", "\n")
    return _unseen().sub(lambda one: one[0] if _WRITTEN.match(one[0]) else "\ufffd", plain)


def inert_line(text: str, limit: int) -> str:
    """``text`` as a part of a line: each run of white space is one blank, in at most ``limit`` characters."""
    return truncate(inert(" ".join(strip_ansi(text).split())), limit)


def fenced(text: str, mark: str | None = None) -> str:
    """``text`` between the two lines of a fence. ``mark``: a random word that its writer cannot have known."""
    word = mark or f"data-{os.urandom(5).hex()}"
    return f"<<<{word}\n{inert(text)}\n{word}>>>"


def has_fence(text: str) -> bool:
    """Whether a part of the text is fenced."""
    for count, opened in enumerate(_OPENED.finditer(text)):
        if count == _MOST_OPENED or text.find(f"\n{opened[1]}>>>", opened.end()) >= 0:
            return True
    return False


@cache
def _unseen() -> re.Pattern[str]:
    # Imported and compiled when it is first needed: a kernel's start pays for nothing that it may not use.
    from .visible_text import UNSEEN, character_class

    return re.compile(f"[{character_class(UNSEEN)}]")


TRACEPARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
"""Who has caused something, as the header ``traceparent`` of W3C Trace Context has it."""


def read_traceparent(header: str | None) -> str | None:
    """The header ``traceparent`` as it may be stored; None for none, and for another form, which is to be ignored."""
    text = (header or "").strip()[:200]
    form = text[:55] if text[:2] != "00" and text[55:56] == "-" else text  # a later version may add fields
    return form if re.fullmatch(TRACEPARENT, form) else None
