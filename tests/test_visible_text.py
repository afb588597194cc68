"""Marks in the place of what would not be seen; ``python tests/test_visible_text.py`` writes the page's table anew."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from navi_jupyter import visible_text
from navi_jupyter.visible_text import marked, marked_line, pieces

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "js/src/view/lib/visible-table.ts"
EXAMPLES = json.loads((ROOT / "tests/support/visible_text.json").read_text(encoding="utf-8"))
_NAMES = ("UNSEEN", "DOUBLES", "OVERLAYS", "LATIN", "FOREIGN", "GREEK", "CYRILLIC", "RARE")


def page_table() -> str:
    """The table as the page has it."""
    lines = ["/** What cannot be seen, written by tests/test_visible_text.py from navi_jupyter/visible_text.py. */\n"]
    for name in _NAMES:
        ranges = ", ".join(f"[0x{first:x}, 0x{last:x}]" for first, last in getattr(visible_text, name))
        lines.append(f"export const {name}: readonly (readonly [number, number])[] = [{ranges}];")
    lines.append(f"export const ALIKE = {json.dumps(visible_text.ALIKE)};")
    for name in ("LONGEST_BLANKS", "MOST_TABS", "MOST_BLANK_LINES", "MOST_STACKED"):
        lines.append(f"export const {name} = {getattr(visible_text, name)};")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("text", "shown"), EXAMPLES)
def test_what_cannot_be_seen_is_marked(text: str, shown: str) -> None:
    # JSON has characters beyond U+FFFF as pairs; Python reads these as one.
    assert marked(text) == shown


def test_the_page_marks_by_the_same_table() -> None:
    assert TABLE.read_text(encoding="utf-8") == page_table(), "python tests/test_visible_text.py writes it anew"


@pytest.mark.parametrize("category", ["Cc", "Cf", "Zl", "Zp", "Zs", "Cs", "Co"])
def test_every_character_of_a_category_that_is_not_seen_is_marked(category: str) -> None:
    shown_as_they_are = {" ", "\n", "\t"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) == category and character not in shown_as_they_are:
            assert marked(f"a{character}b") == f"a⟨U+{code:04X}⟩b"


def test_every_character_that_python_reads_as_ascii_in_a_name_is_marked() -> None:
    for code in range(0x80, sys.maxunicode + 1):
        read = unicodedata.normalize("NFKC", chr(code))
        if read.isascii() and read.replace("_", "a").isalnum() and f"a{chr(code)}".isidentifier():
            assert marked(f"a{chr(code)}b") == f"a⟨{chr(code)} U+{code:04X}⟩b"
            assert marked(chr(code)) == f"⟨{chr(code)} U+{code:04X}⟩"


def test_a_text_in_one_line_marks_line_breaks_and_tabs() -> None:
    assert marked_line("a\nb\tc") == "a⟨U+000A⟩b⟨U+0009⟩c"


def test_the_marks_are_distinguished_from_the_text() -> None:
    assert [(piece.text, piece.mark) for piece in pieces("⟨U+202E⟩\u202e")] == [("⟨U+202E⟩", False), ("⟨U+202E⟩", True)]


@pytest.mark.parametrize(
    "unit", ["aa1_", "а", "а ", "\u200b ", " \n", "  \t", "aа", "x = 1; ", "a\u0301", "\u0e01\u0e47", "ρо"]
)
def test_a_long_text_is_marked_in_time_that_grows_with_its_length(unit: str) -> None:
    began = time.process_time()
    marked(unit * (200_000 // len(unit)))
    assert time.process_time() - began < 10


if __name__ == "__main__":
    TABLE.write_text(page_table(), encoding="utf-8")
