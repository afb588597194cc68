"""Text in which everything can be seen: what is invisible, or looks like something else, replaced by marks.

For text that a person approves: a direction control, a zero-width space, a Cyrillic letter in a Latin name, marks
that pile up over a line, or code behind 400 blanks must not pass for something else. Pure. The table and the rule are
the same in ``js/src/view/lib/visible-text.ts``: ``python tests/test_visible_text.py`` writes its table anew, and both
are tested with the same examples.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

Ranges = tuple[tuple[int, int], ...]

UNSEEN: Ranges = (
    # Control characters, except tab and line feed. A carriage return is among them: it hides what stands before it.
    (0x00, 0x08),
    (0x0B, 0x1F),
    (0x7F, 0xA0),  # with NO-BREAK SPACE
    (0xAD, 0xAD),
    (0x034F, 0x034F),
    (0x0600, 0x0605),
    (0x061C, 0x061C),
    (0x06DD, 0x06DD),
    (0x070F, 0x070F),
    (0x0890, 0x0891),
    (0x08E2, 0x08E2),
    (0x115F, 0x1160),
    (0x1680, 0x1680),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    # Spaces of other widths, zero-width characters, controls of the text's direction, separators of lines.
    (0x2000, 0x200F),
    (0x2028, 0x202F),
    (0x205F, 0x206F),
    (0x2800, 0x2800),  # the empty Braille pattern
    (0x3000, 0x3000),
    (0x3164, 0x3164),
    (0xD800, 0xF8FF),  # surrogates; private characters, which each font draws as it likes
    (0xFDD0, 0xFDEF),
    (0xFE00, 0xFE0F),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0xFFFE, 0xFFFF),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x16FE4, 0x16FE4),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0x10FFFF),  # tags, more variation selectors, private characters
)
"""Characters that are not seen, that change how others are drawn, or that are drawn as a space."""

DOUBLES: Ranges = (
    (0x01C3, 0x01C3),  # !
    (0x037E, 0x037E),  # ;
    (0x0589, 0x0589),  # :
    (0x2010, 0x2012),  # -
    (0x2024, 0x2024),  # .
    (0x2044, 0x2044),  # /
    (0x2160, 0x217F),  # Roman numerals
    (0x2212, 0x2212),  # -
    (0x2215, 0x2216),  # / and \
    (0x2236, 0x2236),  # :
    (0x29F5, 0x29F5),
    (0x29F8, 0x29F9),
    (0xA4FA, 0xA4FA),  # ..
    (0xA789, 0xA789),  # :
    (0xFF0E, 0xFF0F),  # . and /
    (0xFF3C, 0xFF3C),
    # What Python reads as letters, digits and the line of ASCII in names: ſ, ª, ᵉ, ₐ, ﬁ, ｅ, letters of mathematics.
    (0x00AA, 0x00AA),
    (0x00BA, 0x00BA),
    (0x0132, 0x0133),
    (0x017F, 0x017F),
    (0x01C7, 0x01CC),
    (0x01F1, 0x01F3),
    (0x02B0, 0x02B0),
    (0x02B2, 0x02B3),
    (0x02B7, 0x02B8),
    (0x02E1, 0x02E3),
    (0x1D2C, 0x1D2C),
    (0x1D2E, 0x1D2E),
    (0x1D30, 0x1D31),
    (0x1D33, 0x1D3A),
    (0x1D3C, 0x1D3C),
    (0x1D3E, 0x1D43),
    (0x1D47, 0x1D49),
    (0x1D4D, 0x1D4D),
    (0x1D4F, 0x1D50),
    (0x1D52, 0x1D52),
    (0x1D56, 0x1D58),
    (0x1D5B, 0x1D5B),
    (0x1D62, 0x1D65),
    (0x1D9C, 0x1D9C),
    (0x1DA0, 0x1DA0),
    (0x1DBB, 0x1DBB),
    (0x2071, 0x2071),
    (0x207F, 0x207F),
    (0x2090, 0x2093),
    (0x2095, 0x209C),
    (0x2102, 0x2102),
    (0x210A, 0x2113),
    (0x2115, 0x2115),
    (0x2119, 0x211D),
    (0x2124, 0x2124),
    (0x2128, 0x212D),
    (0x212F, 0x2131),
    (0x2133, 0x2134),
    (0x2139, 0x2139),
    (0x2145, 0x2149),
    (0x2C7C, 0x2C7D),
    (0xA7F2, 0xA7F4),
    (0xFB00, 0xFB06),
    (0xFE33, 0xFE34),
    (0xFE4D, 0xFE4F),
    (0xFF10, 0xFF19),
    (0xFF21, 0xFF3A),
    (0xFF3F, 0xFF3F),
    (0xFF41, 0xFF5A),
    (0x107A5, 0x107A5),
    (0x1D400, 0x1D7FF),
    (0x1FBF0, 0x1FBF9),
)
"""Characters that look like ASCII, or that Python reads as ASCII, wherever they stand."""

OVERLAYS: Ranges = (
    (0x0334, 0x0338),
    (0x0488, 0x0489),
    (0x20D2, 0x20D3),
    (0x20D8, 0x20E0),
    (0x20E2, 0x20E6),
    (0x20EA, 0x20EB),
)
"""Marks that are drawn over the letter before them or around it, and make another sign of it: ``=`` becomes ``≠``."""

LATIN: Ranges = (
    (0x41, 0x5A),
    (0x61, 0x7A),
    (0xC0, 0xD6),
    (0xD8, 0xF6),
    (0xF8, 0x01BF),
    (0x01C4, 0x024F),
    (0x1E00, 0x1EFF),
)
FOREIGN: Ranges = (
    (0x0251, 0x0251),  # of phonetics: a, g, i, and small capitals
    (0x0261, 0x0262),
    (0x0269, 0x026A),
    (0x0274, 0x0274),
    (0x0280, 0x0280),
    (0x028F, 0x028F),
    (0x0299, 0x0299),
    (0x029C, 0x029C),
    (0x029F, 0x029F),
    (0x0370, 0x037D),  # Greek
    (0x037F, 0x03FF),
    (0x0400, 0x052F),  # Cyrillic
    (0x0531, 0x0588),  # Armenian
    (0x05D0, 0x05EA),  # Hebrew
    (0x0620, 0x064A),  # Arabic
    (0x0660, 0x0669),
    (0x066E, 0x06D3),
    (0x06EE, 0x06FC),
    (0x0710, 0x088F),  # Syriac to Arabic
    (0x08A0, 0x08C9),
    (0x0904, 0x0963),  # Devanagari
    (0x0966, 0x096F),
    (0x0972, 0x0DFF),  # Bengali to Sinhala
    (0x0E01, 0x0E30),  # Thai
    (0x0E40, 0x0E46),
    (0x0E50, 0x0E59),
    (0x0E81, 0x0FFF),  # Lao, Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x10A0, 0x10FF),  # Georgian
    (0x1200, 0x135F),  # Ethiopic
    (0x13A0, 0x13FF),  # Cherokee
    (0x1401, 0x167F),  # Canadian syllabics
    (0x1780, 0x17B3),  # Khmer
    (0x17E0, 0x17E9),
    (0x1820, 0x1878),  # Mongolian
    (0x1C80, 0x1C8F),
    (0x1C90, 0x1CBF),
    (0x1D00, 0x1DBF),  # more of phonetics
    (0x1F00, 0x1FFF),
    (0x2C80, 0x2CFF),  # Coptic
    (0x2D00, 0x2D2F),
    (0x2D30, 0x2D67),  # Tifinagh
    (0x2DE0, 0x2DFF),
    (0xA4D0, 0xA4FF),  # Lisu
    (0xA500, 0xA63F),  # Vai
    (0xA640, 0xA69F),
    (0xA730, 0xA731),  # more small capitals
    (0xAB30, 0xAB6F),
    (0xAB70, 0xABBF),
    (0x10280, 0x1044F),  # Lycian to Deseret
    (0x104B0, 0x104FF),  # Osage
    (0x118A0, 0x118FF),  # Warang Citi
)
"""Letters of other scripts: each has some with a shape of the Latin one. In a word with Latin letters they are marked.

Not those of Chinese, Japanese and Korean, which stand beside Latin letters in what people write.
"""

GREEK: Ranges = ((0x0370, 0x03FF), (0x1F00, 0x1FFF))
CYRILLIC: Ranges = ((0x0400, 0x052F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F))
"""A word with letters of two of the foreign scripts is marked: so Latin words can be written without a Latin letter."""

ALIKE = "асеорхуѕіјԁԛԝһӏѵАВЕКМНОРСТУХЅІЈԚԜҮΑΒΕΖΗΙΚΜΝΟΡΤΥΧοօոս"
"""Letters that look like Latin ones. A word of nothing else is marked, unless it stands beside others of its script."""
RARE: Ranges = (
    (0x1401, 0x167F),
    (0x13A0, 0x13FF),
    (0x1D00, 0x1DBF),
    (0x2C80, 0x2CFF),
    (0x2D30, 0x2D67),
    (0xA4D0, 0xA4FF),
    (0xA500, 0xA63F),
    (0xAB30, 0xAB6F),
    (0xAB70, 0xABBF),
    (0x10280, 0x1044F),
    (0x104B0, 0x104FF),
    (0x118A0, 0x118FF),
)
"""Scripts of few texts in which most capitals look like Latin ones: their letters count as alike."""

LONGEST_BLANKS = 40
"""Blanks and tabs in a row that are shown as they are."""
MOST_TABS = 8
MOST_BLANK_LINES = 5
"""Blank lines in a row that are shown as they are."""
MOST_STACKED = 4
"""Marks on one letter that are shown as they are: more of them cover the lines above and below."""
_NEIGHBOURHOOD = 64  # characters before and after a word in which its neighbours are looked for


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text: as it is, or a mark in the place of what would not be seen."""

    text: str
    mark: bool = False


def pieces(text: str) -> list[Piece]:
    """``text`` in parts, marks and what is shown as it is."""
    found: list[Piece] = []
    end = 0
    for match in _pattern().finditer(text):
        shown = _mark(match, text)
        if shown is None:
            continue
        found += [Piece(text[end : match.start()]), *shown]
        end = match.end()
    found.append(Piece(text[end:]))
    return [piece for piece in found if piece.text]


def marked(text: str) -> str:
    """``text`` with the marks in it: ``⟨U+202E⟩``, ``⟨а U+0430⟩``, ``··· 400 spaces ···``."""
    return "".join(piece.text for piece in pieces(text))


def is_blank(text: str) -> bool:
    """Whether nothing of it is seen: spaces, controls, zero-width characters, U+FFFD for what was no character."""
    return not _blank().sub("", text)


@cache
def _blank() -> re.Pattern[str]:
    return re.compile(f"(?:\\s|\\ufffd|[{character_class(UNSEEN)}])+")


def marked_line(text: str) -> str:
    """The same on one line: also line breaks and tabs are marked."""
    return marked(text).replace("\n", "⟨U+000A⟩").replace("\t", "⟨U+0009⟩")


def character_class(*tables: Ranges | str) -> str:
    """The characters of these tables as the inside of a regular expression's class."""
    return "".join(
        re.escape(table) if isinstance(table, str) else "".join(_range(first, last) for first, last in table)
        for table in tables
    )


def _range(first: int, last: int) -> str:
    return f"\\U{first:08x}" if first == last else f"\\U{first:08x}-\\U{last:08x}"


@cache
def _pattern() -> re.Pattern[str]:
    # Compiled when it is first needed: a kernel's start pays for nothing that it may not use.
    word = "0-9_" + character_class(LATIN, FOREIGN)
    double, combining = character_class(DOUBLES), character_class(_combining())
    return re.compile(
        rf"(?P<lines>(?:(?<=\n)|\A)(?:[ \t]*\n){{{MOST_BLANK_LINES + 1},}})"
        rf"|(?P<blanks>[ \t]{{{LONGEST_BLANKS + 1},}}|\t{{{MOST_TABS + 1},}})"
        rf"|(?P<unseen>([{character_class(UNSEEN, OVERLAYS)}])\4*)"
        rf"|(?P<stack>[{combining}]{{{MOST_STACKED + 1},}})"
        rf"|(?P<double>[{double}])"
        # Whole words, also those without a foreign letter: to look for one from each character on would be quadratic.
        rf"|(?P<word>(?:(?![{double}{combining}])[{word}])+)"
    )


def _combining() -> Ranges:
    """The marks that are drawn on the letter before them (``\\p{Mn}`` and ``\\p{Me}`` of the page)."""
    found: list[tuple[int, int]] = []
    for code in range(0x300, 0x1F000):  # behind it are variation selectors alone
        if unicodedata.category(chr(code)) in ("Mn", "Me"):
            first = found.pop()[0] if found and found[-1][1] == code - 1 else code
            found.append((first, code))
    return tuple(found)


@cache
def _letters(which: str) -> re.Pattern[str]:
    tables: dict[str, Iterable[Ranges | str]] = {
        "latin": (LATIN,),
        "foreign": (FOREIGN,),
        "alike": (ALIKE, RARE),
        "greek": (GREEK,),
        "cyrillic": (CYRILLIC,),
    }
    return re.compile(f"[{character_class(*tables[which])}]")


@cache
def _neighbour(side: str) -> re.Pattern[str]:
    word = "0-9_" + character_class(LATIN, FOREIGN)
    return re.compile(f"[{word}]+(?= \\Z)" if side == "before" else f"(?<=\\A )[{word}]+")


def _mark(match: re.Match[str], text: str) -> list[Piece] | None:
    """What is shown for a match; None: the text itself."""
    found = match[0]
    match match.lastgroup:
        case "lines":
            return [Piece(f"··· {found.count(chr(10))} blank lines ···", mark=True), Piece("\n")]
        case "blanks":
            return [Piece(f"··· {_blank_words(found)} ···", mark=True)]
        case "word":
            return _word_pieces(match, text)
        case "stack":
            return [Piece(f"⟨{len(found)} marks on one letter⟩", mark=True)]
        case "double":
            return [Piece(f"⟨{found} U+{ord(found):04X}⟩", mark=True)]
        case _:
            times = f" ×{len(found)}" if len(found) > 1 else ""
            return [Piece(f"⟨U+{ord(found[0]):04X}{times}⟩", mark=True)]


def _blank_words(found: str) -> str:
    spaces, tabs = found.count(" "), found.count("\t")
    return ", ".join(f"{count} {noun}" for count, noun in ((spaces, "spaces"), (tabs, "tabs")) if count)


def _word_pieces(match: re.Match[str], text: str) -> list[Piece] | None:
    word = match[0]
    if word.isascii():
        return None
    foreign, alike = _letters("foreign"), _letters("alike")
    if not foreign.search(word):
        return None
    if not _letters("latin").search(word) and not _is_mixed(foreign.findall(word)):
        if not all(alike.match(letter) for letter in foreign.findall(word)):
            return None
        start, end = match.span()
        before = _neighbour("before").search(text[max(0, start - _NEIGHBOURHOOD) : start])
        after = _neighbour("after").search(text[end : end + _NEIGHBOURHOOD])
        if any(other is not None and _is_foreign(other[0]) for other in (before, after)):
            return None
    return [
        Piece(f"⟨{letter} U+{ord(letter):04X}⟩", mark=True) if foreign.match(letter) else Piece(letter)
        for letter in word
    ]


def _is_mixed(letters: list[str]) -> bool:
    """Whether letters are of more than one script."""
    greek, cyrillic = _letters("greek"), _letters("cyrillic")
    return len({"greek" if greek.match(one) else "cyrillic" if cyrillic.match(one) else "" for one in letters}) > 1


def _is_foreign(word: str) -> bool:
    """Whether a word is of another script beyond doubt."""
    letters = _letters("foreign").findall(word)
    return not _letters("latin").search(word) and any(not _letters("alike").match(letter) for letter in letters)
