"""Formulas in Markdown: which dollars and brackets enclose TeX, and which are money, shell variables or brackets. Pure.

The rule in words is in docs/markdown.md; the chat has the same one (``js/src/view/lib/formulas.ts``), and both are held
by the rows of ``tests/kernel/formulas.json``. Not responsible for what is code, where nothing is a formula.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 5000
"""Characters of a formula: a proof on one line is a tenth of this, and a mark without an end is searched no further."""

# Each ends at the first mark that closes it, and never reaches over a blank line. A backslash and what follows it are
# one piece, so that an escaped dollar and the end of a row of a matrix (``\\]``) close nothing.
_BLANK_LINE = r"\n(?![ \t]*(?:\n|\Z))"
_FORMS = {
    "$$": re.compile(rf"\$\$((?:[^$\\\n]|\\[^\n]|\$(?!\$)|{_BLANK_LINE}){{1,{_LONGEST}}}?)\$\$"),
    "\\[": re.compile(rf"\\\[((?:[^\\\n]|\\(?!\])[^\n]|{_BLANK_LINE}|\\(?=\n)){{1,{_LONGEST}}}?)\\\]"),
    "\\(": re.compile(rf"\\\(((?:[^\\\n]|\\(?!\))[^\n]){{1,{_LONGEST}}}?)\\\)"),
    # Pandoc's rule: no blank inside at either end; and no digit, letter or brace behind.
    "$": re.compile(
        rf"\$(?![\s$])((?:[^$\\\n]|\\[^\n]){{1,{_LONGEST}}}?)(?<!\s)\$(?:(?![A-Za-z0-9${{])|(?=(?:th|st|nd|rd|s)\b))"
    ),
}

_COMMAND = re.compile(r"\\[A-Za-z]+")
_TEXT_COMMAND = re.compile(r"\\(?:text|math|operatorname|mbox|hbox|label|tag|begin|end)[a-z]*\*?\s*\{[^{}]*\}")
_FUNCTION = re.compile(
    r"\b(?:sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|arcsin|arccos|arctan|log|ln|lg|exp|min|max|lim|sup|inf|det|dim|gcd|lcm"
    r"|arg|argmin|argmax|mod|deg|ker|rank|tr|diag|sgn|sign|var|cov|std|if|iff|or|and|for|all)\b(?![:/])|[A-Za-z]+(?=\()",
    re.IGNORECASE,
)
_LETTER = r"[^\W\d_]"
_TWO_WORDS = re.compile(rf"{_LETTER}{{2,}}[,;:.]?\s+{_LETTER}{{2,}}")
_THREE_WORDS = re.compile(rf"{_LETTER}{{2,}}[,;:.]?\s+{_LETTER}{{2,}}[,;:.]?\s+{_LETTER}{{2,}}")
_AMOUNT = re.compile(rf"\d\s+{_LETTER}{{3,}}|\d\s*/\s*{_LETTER}{{2,}}|\d\s+{_LETTER}{{2,}}\s+\d")
_SIGN = re.compile(r"[\\^_=+<>*|]")
_WORD = re.compile(rf"{_LETTER}{{3,}}")
# No word of TeX is as long; what the patterns above do for one grows with its square.
_ENDLESS = re.compile(r"\w{200}")
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|[a-z]{2,}(?:_[a-z]{2,})+")
_REFERENCE = re.compile(r"[\d\s,;–-]+|[A-Za-z]{3,}")


@dataclass(frozen=True, slots=True)
class Formula:
    """TeX in a text: ``text[start:end]`` with its marks; ``is_display``: on lines of its own."""

    tex: str
    is_display: bool
    end: int


def formula_at(text: str, start: int) -> Formula | None:
    """The formula whose opening mark is at ``start``; None where that is no formula."""
    mark = text[start : start + 2]
    if mark not in _FORMS:
        mark = mark[:1]
    if mark not in _FORMS or _follows_a_word(text, start, mark):
        return None
    found = _FORMS[mark].match(text, start)
    if found is None or not is_formula(tex := found[1].strip()) or (mark == "\\[" and _REFERENCE.fullmatch(tex)):
        return None
    return Formula(tex, mark in ("$$", "\\["), found.end())


def _follows_a_word(text: str, start: int, mark: str) -> bool:
    """``US$5``, ``1000$``, ``array\\[0\\]``; two dollars are no currency."""
    before = text[start - 1 : start]
    return before == "$" or (mark != "$$" and before.isascii() and before.isalnum())


def is_formula(tex: str) -> bool:
    """Whether what stands between two marks looks like TeX, and not like prose, an amount of money or a path."""
    if not tex or _ENDLESS.search(tex) or _VARIABLE.fullmatch(tex):
        return False
    has_command = _COMMAND.search(tex) is not None
    bare = _FUNCTION.sub("·", _COMMAND.sub("·", _TEXT_COMMAND.sub("·", tex)))
    if has_command:
        return _THREE_WORDS.search(bare) is None
    if _TWO_WORDS.search(bare) or _AMOUNT.search(tex):
        return False
    if _SIGN.search(tex):
        return True
    return not tex.endswith((":", ",", ";", '"', "'", "/")) and (_WORD.search(bare) is None or tex.isalpha())
