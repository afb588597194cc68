"""Full-text search in PostgreSQL with the words, the queries and the snippets of SQLite's FTS5.

The words are made here, as ``unicode61 remove_diacritics 2`` makes them, and given to PostgreSQL as the literals of a
``tsvector`` and a ``tsquery``. So both engines find the same, whatever the configurations and the extensions of a
server are. FTS5 knows Unicode 6.1. Of characters that were added later, it takes all for letters without a lower case;
this module knows which of them are symbols or marks, and separators thus, and the lower case of the letters.
Pure functions; not responsible for the tables.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from ..session_list.search import CLOSE, OPEN, SNIPPET_WORDS

Prefix = Literal["none", "last", "all"]
"""Of which terms the last word is searched by its beginning: of none, of the last term, of all."""

_LONGEST_LEXEME = 2046  # bytes; PostgreSQL refuses longer ones
_LAST_POSITION = 16382  # all later ones become 16383 in PostgreSQL, and are equal there
_MOST_POSITIONS = 255  # of one lexeme; PostgreSQL drops the others
_LARGEST_VECTOR = 1_000_000  # bytes; PostgreSQL refuses more than 1,048,575
_LONGEST_PHRASE = 1000  # words that are searched of one; PostgreSQL's stack ends after some ten thousand
_BYTES_OF_ENTRY = 4  # of a lexeme with its alignment and the number of its positions, at most

_MARK = "\u0301"  # stands for all diacritics
_DIACRITICS = frozenset("\u0311\u031b\u032d\u032e\u0330\u0331").union(
    map(chr, (*range(0x300, 0x305), *range(0x306, 0x30D), 0x30F, *range(0x323, 0x329)))
)
"""The marks that FTS5 removes from words; all others separate words."""
_WORD = re.compile(rf"[^ {_MARK}][^ ]*")
_BLANKS = " \t\n\r"
_MOST_FOLDED = 50_000  # characters whose folding is kept; a bound of the memory that it takes


class _Word(NamedTuple):
    """A word, and where it is in its text."""

    folded: str
    start: int
    end: int


class _Match(NamedTuple):
    """An occurrence of a term: its first word, the term's number, and how many words it has."""

    first: int
    term: int
    length: int


class _Folding(dict[int, str]):
    """Of each character one: the letter without case and diacritics, ``_MARK``, or a space for a separator.

    One for one, so the words of the folded text are where those of the text are.
    """

    def __missing__(self, code: int) -> str:
        folded = _folded(chr(code))
        if len(self) < _MOST_FOLDED:
            self[code] = folded
        return folded


def _folded(letter: str) -> str:
    if letter in _DIACRITICS:
        return _MARK
    category = unicodedata.category(letter)
    # FTS5 takes an unassigned character for a letter, so a letter of a later version of Unicode is always one.
    if category[0] not in "LN" and category not in ("Co", "Cn"):
        return " "
    lower = letter.casefold()
    if len(lower) > 1:  # FTS5 keeps ß
        lower = letter.lower()[0]
    # FTS5 removes diacritics where an ASCII letter remains: from é, but not from й or ά.
    base = unicodedata.normalize("NFD", lower)[0]
    return base if base.isascii() else lower


_FOLDING = _Folding()


def _words(text: str) -> list[_Word]:
    return [_Word(m[0].replace(_MARK, ""), m.start(), m.end()) for m in _WORD.finditer(text.translate(_FOLDING))]


def words_of(text: str) -> list[str]:
    """The words of a text, in their order, as FTS5 finds them: without case, and without diacritics."""
    return [word.folded for word in _words(text)]


def ts_vector(text: str) -> str:
    """The literal of the ``tsvector`` of a text: its words with their positions.

    Of a word of more than 2046 bytes the first 2046 are taken, here and in :func:`ts_query`. PostgreSQL keeps 255
    positions of a word, and none after 16,382. In a text that has more, phrases are found by lexemes of two words each
    (``'two words'``; no word has a space). Of a text with more than a megabyte of lexemes, the rest is left out.
    """
    words = words_of(text)
    positions: dict[str, list[int]] = {}
    complete = len(words) <= _LAST_POSITION
    for at, word in enumerate(words, start=1):
        known = positions.setdefault(_cut(word), [])
        if len(known) < _MOST_POSITIONS and at <= _LAST_POSITION:
            known.append(at)
        else:
            complete = False
    if not complete:
        for pair in _pairs(words):
            positions.setdefault(pair, [])
    literal, size = [], 0
    for lexeme, places in positions.items():
        size += len(lexeme.encode()) + 2 * len(places) + _BYTES_OF_ENTRY
        if size > _LARGEST_VECTOR:
            break
        literal.append(f"{_quoted(lexeme)}:{','.join(map(str, places))}" if places else _quoted(lexeme))
    return " ".join(literal)


def ts_query(terms: Sequence[str], *, prefix: Prefix = "none", any_of: bool = False) -> str | None:
    """The literal of the ``tsquery`` for all terms, or for any of them. A term is a word, or a phrase of several;
    of one with more than 1000 words, the first 1000 are searched.

    None where nothing can be found: no term has a word, or one that is required has none.
    """
    parts = []
    for term, is_open in _opened(terms, prefix):
        words = words_of(term)
        if words:
            parts.append(_phrase(words, is_open=is_open))
        elif not any_of:
            return None
    return (" | " if any_of else " & ").join(parts) or None


def _opened(terms: Sequence[str], prefix: Prefix) -> Iterable[tuple[str, bool]]:
    last = len(terms) - 1
    return ((term, prefix == "all" or (prefix == "last" and n == last)) for n, term in enumerate(terms))


def _phrase(words: Sequence[str], *, is_open: bool) -> str:
    end = ":*" if is_open and len(words) <= _LONGEST_PHRASE else ""
    words = words[:_LONGEST_PHRASE]
    adjacent = " <-> ".join(_quoted(_cut(word)) for word in words) + end
    if len(words) == 1:
        return adjacent
    # Where a text has too many words for positions, see `ts_vector`.
    in_pairs = " & ".join(map(_quoted, _pairs(words))) + end
    return f"({adjacent} | {in_pairs})"


def _pairs(words: Sequence[str]) -> Iterable[str]:
    return (_cut(f"{one} {following}") for one, following in pairwise(words))


def _cut(lexeme: str) -> str:
    return lexeme.encode()[:_LONGEST_LEXEME].decode(errors="ignore")


def _quoted(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def snippet(text: str, terms: Sequence[str], *, prefix: Prefix = "none") -> str:
    """The part of a text that FTS5's ``snippet()`` chooses: 24 words with as many different terms as possible.

    What matches is between ``OPEN`` and ``CLOSE``; ``…`` stands where text is left out.
    """
    words = _words(text)
    if not words:
        return text
    matches = _matches([word.folded for word in words], terms, prefix)
    first = _best_start(text, words, matches)
    last = min(first + SNIPPET_WORDS, len(words)) - 1
    parts, at = (["…"], words[first].start) if first else ([], 0)
    for begin, end in _without_overlap(matches):
        if first <= begin <= last:
            start, stop = words[begin].start, words[min(end, last)].end
            parts += [text[at:start], OPEN, text[start:stop], CLOSE]
            at = stop
    parts += [text[at:]] if last == len(words) - 1 else [text[at : words[last].end], "…"]
    return "".join(parts)


def _matches(words: Sequence[str], terms: Sequence[str], prefix: Prefix) -> list[_Match]:
    matches = []
    for number, (term, is_open) in enumerate(_opened(terms, prefix)):
        *exact, final = words_of(term) or [""]
        if not final:
            continue
        for end, word in enumerate(words[len(exact) :], start=len(exact)):
            at_end = word.startswith(final) if is_open else word == final
            if at_end and words[end - len(exact) : end] == exact:
                matches.append(_Match(end - len(exact), number, len(exact) + 1))
    return sorted(matches)


def _best_start(text: str, words: Sequence[_Word], matches: Sequence[_Match]) -> int:
    """The first word of the snippet. A new term counts 1000 and a repeated one 1, the beginning of a sentence 100."""
    places = [match.first for match in matches]
    sentences = _sentences(text, words)
    best, start = 0, 0
    for place in places:
        within = _within(matches, places, place)
        length = within[-1].first + within[-1].length - place
        score = _score(within)
        if score > best:
            centred = place - int((SNIPPET_WORDS - length) / 2)
            best, start = score, max(0, min(centred, len(words) - SNIPPET_WORDS))
        sentence = sentences[bisect_right(sentences, place) - 1]
        if sentence < place and len(words) > SNIPPET_WORDS:
            score = _score(_within(matches, places, sentence)) + (100 if sentence else 120)
            if score > best:
                best, start = score, sentence
    return start


def _within(matches: Sequence[_Match], places: Sequence[int], first: int) -> Sequence[_Match]:
    return matches[bisect_left(places, first) : bisect_left(places, first + SNIPPET_WORDS)]


def _score(matches: Sequence[_Match]) -> int:
    different = len({match.term for match in matches})
    return 1000 * different + len(matches) - different


def _sentences(text: str, words: Sequence[_Word]) -> list[int]:
    """The words that follow a full stop or a colon and a space."""
    starts = [0]
    for number, (one, following) in enumerate(pairwise(words), start=1):
        between = text[one.end : following.start]
        before = between.rstrip(_BLANKS)
        if before != between and before.endswith((".", ":")):
            starts.append(number)
    return starts


def _without_overlap(matches: Sequence[_Match]) -> list[tuple[int, int]]:
    """The first and the last words of what matches."""
    ranges: list[tuple[int, int]] = []
    for match in matches:
        end = match.first + match.length - 1
        if ranges and match.first <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], end))
        else:
            ranges.append((match.first, end))
    return ranges
