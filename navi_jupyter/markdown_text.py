"""Markdown as text: closed, made harmless, quoted literally, or without its marks. Pure.

Not responsible for HTML (``kernel/display/markdown``).
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from .formulas import formula_at

_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:https?:|mailto:)[^<>\s]*>)")
_SCHEME = re.compile(r"(javascript|vbscript|data)(?=[\s\\]*:)", re.IGNORECASE)  # a backslash may stand before the colon
_ENTITY = re.compile(r"&(?=#|colon|tab|newline)", re.IGNORECASE)
_BREAK = "\u200b"  # invisible; between two characters it breaks a construct


def defused(text: str) -> str:
    """Markdown with images, HTML tags, entities and script links disabled, outside of fenced code.

    Only a fence at the left margin counts, and none behind anything that another parser of Markdown could take for a
    fence (in a list, in a quote): what may be outside of code is treated as outside.
    """
    lines, fence, clear = [], "", True
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            lines.append(line)
            continue
        if clear and mark and mark.end() == len(line):
            fence = mark[1]
        elif "```" in line or "~~~" in line:
            clear = False
        lines.append(_defused_line(line))
    return "\n".join(lines)


def _defused_line(line: str) -> str:
    line = _TAG.sub("<" + _BREAK, line).replace("![", "!" + _BREAK + "[")
    return _ENTITY.sub("&" + _BREAK, _SCHEME.sub(rf"\1{_BREAK}", line))


def with_plain_dollars(text: str) -> str:
    """Markdown for a notebook's cell, in which formulas are those of ``formulas`` and other dollars are no marks.

    In Jupyter ``\\$148 to \\$19`` is typeset: MathJax sees the page, where the backslashes are gone. A dollar in an
    element of its own is none of its marks, and a reader of Markdown that looks for formulas first sees no dollar.
    """
    written: list[str] = []
    prose: list[str] = []  # lines since the last code: a formula may have several
    fence = ""
    left = _MAX_MISSES
    for line in text.split("\n"):
        if fence:
            mark = _FENCE_ENDS.match(line)
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark := _FENCE_OPENS.match(line):
            fence = mark[1] or mark[2]
        else:
            prose.append(line)
            continue
        if prose:
            plain, left = _plain_dollars("\n".join(prose), left)
            written.append(plain)
            prose.clear()
        written.append(line)
    return "\n".join([*written, *([_plain_dollars("\n".join(prose), left)[0]] if prose else [])])


_SPAN_OR_MARK = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)|\\[\\`$]|\$\$?|\\[(\[]")


_MAX_MISSES = 2_000  # marks in one text that open no formula: each is searched for its end, and those behind are plain


def _plain_dollars(prose: str, left: int) -> tuple[str, int]:
    """``left``: how many marks may still be searched in vain; returned less those that were."""
    written, at = [], 0
    while found := _SPAN_OR_MARK.search(prose, at):
        written.append(prose[at : found.start()])
        at = found.end()
        if found[0][0] == "`" or found[0] in ("\\\\", "\\`"):
            written.append(found[0])
            continue
        formula = formula_at(prose, found.start()) if left > 0 and found[0] != "\\$" else None
        if formula is not None:
            mark = "$$" if formula.is_display else "$"
            written.append(f"{mark}{formula.tex}{mark}")
            at = formula.end
            continue
        left -= found[0] != "\\$"
        if "$" in found[0]:
            written.append("<span>&#36;</span>" * found[0].count("$"))
        else:
            written.append(found[0])
    return "".join([*written, prose[at:]]), left


# A fence of backticks has none in its info string; one of tildes may have anything.
_FENCE_OPENS = re.compile(r" {0,3}(?:(`{3,})[^`]*|(~{3,}).*)\Z")
_FENCE_ENDS = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*\Z")
# Blocks of HTML that only their own end closes; the other kinds end at a blank line.
_HTML_OPENS = re.compile(
    r" {0,3}(?:<(pre|script|style|textarea)(?=[\s>]|\Z)|(<!--)|(<\?)|(<!\[CDATA\[)|(<![A-Za-z]))", re.IGNORECASE
)
_HTML_ENDS = ("", "-->", "?>", "]]>", ">")


_ITEM = re.compile(r"( {0,3}(?:[-*+]|\d{1,9}[.)])(?: {1,4}(?=\S)|(?=[ \t]*\Z)))")


def closed(text: str) -> str:
    """``text`` with the code or HTML closed that is still open at its end, so that what follows is not swallowed.

    What stands in a list or a quote ends with it, and what is open in a paragraph (``**``, a backtick, a formula) ends
    at the blank line that joins two texts.
    """
    end = ""  # what closes the open block; a fence is closed by a longer one, too
    item = 0  # the indentation of what belongs to the present item of a list
    is_empty = False  # nothing is in it so far: a blank line ends it
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if end[:1] in ("`", "~") and end:
            mark = _FENCE_ENDS.match(line)
            end = "" if mark and mark[1].startswith(end) else end
        elif end:
            end = "" if end in line.lower() else end
        elif found := _ITEM.match(line):
            is_empty = not line[found.end() :].strip()
            item = len(found[1]) + is_empty
        elif item and not is_empty and not line.strip():
            pass  # a blank line in the item
        elif item and line[:item].isspace() and line.strip():
            is_empty = False
        else:
            item = 0
            end = _opened(line)
    return f"{text}\n{end}" if end else text


def _opened(line: str) -> str:
    """What closes the block of code or HTML that begins with ``line``; empty: none does, or it ends there."""
    if mark := _FENCE_OPENS.match(line):
        return mark[1] or mark[2]
    if mark := _HTML_OPENS.match(line):
        end = f"</{mark[1].lower()}>" if mark[1] else _HTML_ENDS[(mark.lastindex or 1) - 1]
        return "" if end in line[mark.end() :].lower() else end
    return ""


_NOTE = re.compile(r" {0,3}\[\^([^\s\[\]\\^]{1,100})\]:[ \t]+(?=\S)")
MAX_NOTES = 200
"""Footnotes of one text; definitions behind these are text."""


def split_notes(text: str) -> tuple[str, dict[str, str]]:
    """A text without the definitions of its footnotes, and these by name, in their order.

    A definition (``[^name]: words``) begins a line outside of fenced code, and goes on in indented lines. The first of
    a name counts. The chat does the same (``js/src/view/lib/footnotes.ts``).
    """
    if "[^" not in text:
        return text, {}
    notes: dict[str, list[str]] = {}
    body: list[str] = []
    fence = ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if fence:
            mark = _FENCE_ENDS.match(line)
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark := _FENCE_OPENS.match(line):
            fence = mark[1] or mark[2]
        elif (found := _NOTE.match(line)) and found[1] not in notes and len(notes) < MAX_NOTES:
            end = _end_of_note(lines, at)
            notes[found[1]] = [line[found.end() :], *(_INDENT.sub("", one) for one in lines[at:end])]
            at = end
            continue
        body.append(line)
    return "\n".join(body), {name: "\n".join(words).rstrip() for name, words in notes.items()}


_INDENT = re.compile(r"^(?: {1,4}|\t)")


def _end_of_note(lines: list[str], at: int) -> int:
    """Where the indented lines from ``at`` on end; blank ones count where an indented one follows."""
    end = at
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.strip():
            continue
        if not _INDENT.match(line) or _NOTE.match(line):
            break
        end = at
    return end


def literal(text: str) -> str:
    """Markdown that shows ``text`` literally."""
    return re.sub(r"([\\`*_\[\]<>!#|~&$])", r"\\\1", text)


_ACTIVE_WORD = re.compile(r"\S*(?:[*<\[\]\\$|&]|~~|(?<!\w)_|_(?!\w))\S*")


def quoted(text: str) -> str:
    """A line of Markdown that shows the words of ``text``: those in which a sign would act are shown as code."""
    return _ACTIVE_WORD.sub(lambda word: f"`{word[0]}`", text.replace("`", "'"))


_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_FENCED = re.compile(r"^ {0,3}(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"\n]*\")?\)")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
# Emphasis has a boundary outside and none inside: ``snake_case``, ``2*3*4`` and ``a * b`` have none.
_EMPHASIS = re.compile(
    r"(?<![\w*_~\\])(?:(\*{1,3})(?![\s*])(?P<stars>[^*\n]*[^*\s\\])\1|(_{1,3})(?![\s_])(?P<lines>[^\n]{0,200}?[^_\s\\])\3"
    r"|(~~)(?![\s~])(?P<waves>[^~\n]*[^~\s\\])~~)(?![\w*_~])"
)
_NAME = re.compile(r"__\w+__|_[a-z]+_[a-z_]+_")  # ``__init__`` is the name of a method more often than a bold word
_START = re.compile(r"^[ \t]*(?:(?:>[ \t]?)+|#{1,6}(?=[ \t])|\|(?=.*\|[ \t]*$))[ \t]*", re.MULTILINE)
_END = re.compile(r"(?<=[ \t])#+[ \t]*$|[ \t]*\|[ \t]*$", re.MULTILINE)
_RULE = re.compile(
    r"^[ \t]*(?:(?:`{3,}|~{3,})[^\n`]*|\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?|[*_=]{3,})[ \t]*$",
    re.MULTILINE,
)


def without_marks(text: str) -> str:
    """``text`` without the marks of Markdown: emphasis, headings, quotes, links, fences. Words, names and code stay.

    A sign goes only where it is a mark: ``OPENAI_API_KEY``, ``__init__``, ``2*3*4``, ``a~b``, ``<T>``, ``x | y`` stay.
    """
    kept: list[str] = []

    def keep(words: str) -> str:
        kept.append(words)
        return f"\0{len(kept) - 1}\0"

    plain = _FENCED.sub(lambda found: keep(found[2]), text.replace("\0", ""))
    plain = _CODE.sub(lambda found: keep(found[2].strip()) if "\n\n" not in found[2] else found[0], plain)
    plain = _ESCAPE.sub(lambda found: keep(found[1]), plain)
    plain = _LINK.sub(r"\1", _RULE.sub("", plain))
    rows = [_END.sub("", _START.sub("", line)) if _START.match(line) else line for line in plain.split("\n")]
    plain = "\n".join(rows)
    for _ in range(3):  # ``**bold _and_ italic**``
        before, plain = plain, _EMPHASIS.sub(_emphasised, plain)
        if plain == before:
            break
    plain = re.sub(r"`{3,}", "", plain)  # of a fence that was cut off, or is on one line
    while "\0" in plain:
        plain = re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], plain)
    return plain


def _emphasised(found: re.Match[str]) -> str:
    return found[0] if _NAME.fullmatch(found[0]) else found["stars"] or found["lines"] or found["waves"]


_LONGEST_PATH = 2_000  # characters
_PART = r"[^/\\:?#%<>\"'\s.][^/\\:?#%<>\"'\s]*"
_IMAGE_FILE = re.compile(rf"(?:\./)?(?:{_PART}/)*{_PART}\.(?:png|jpe?g|gif|webp)", re.IGNORECASE)
"""A path below the notebook's folder. No part of it begins with a dot, and no encoding hides one."""


def is_file_beside(url: str) -> bool:
    """Whether an address is an image file in the notebook's folder, or below it."""
    plain = unquote(url)
    return len(url) <= _LONGEST_PATH and "%" not in plain and bool(_IMAGE_FILE.fullmatch(plain.replace(" ", "_")))
