"""Full-text search over titles, prompts and answers: its index, its query language, and what it finds.

FTS5 takes a run of letters for one word. Scripts that do not separate words (Chinese, Japanese, Thai ...) are therefore
indexed letter by letter, with an invisible separator between the letters, and searched as phrases of letters: any part
of such a text is found, of any length. Nothing that a user types is syntax of FTS5: it is split here, and quoted.
Not responsible for who may read what is found, but for the condition itself (``_READABLE``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...ports.session_list import SnippetPart, TextHit
from ..rows import from_micros
from ..statements import Readers, Row, Statements
from .listing import read_cursor

LONGEST = 50_000  # characters of one message that are searched
MOST_TERMS = 16  # words and phrases of a query; what follows them is left out
_SNIPPET_WORDS = 24
_SEPARATOR = "\u200b"  # no letter for FTS5, and invisible where it should ever be shown
_OPEN, _CLOSE = "\x02", "\x03"  # around what matches; a text has none, see `indexed_text`
_UNSPACED = (
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
"""Letters of scripts that write words without a space: Thai, Lao, Burmese, Khmer, kana, Han; and Hangul, whose words
carry endings."""
_BETWEEN = re.compile(rf"(?<={_UNSPACED})(?=\w)|(?<=\w)(?={_UNSPACED})")
_HIDDEN = str.maketrans("", "", f"{_SEPARATOR}{_OPEN}{_CLOSE}\x00")
_TERM = re.compile(r'"([^"]*)"?|([^\s"]+)')
_READABLE = (
    "s.deleted_at IS NULL AND (s.owner = :user OR EXISTS"
    " (SELECT 1 FROM shares WHERE shares.session_id = s.id AND shares.user_id = :user))"
)
_HITS = (
    "FROM message_index JOIN message_texts t ON t.number = message_index.rowid JOIN sessions s ON s.id = t.session_id"
    f" WHERE message_index MATCH :match AND {_READABLE}"
)
_SNIPPET = f"snippet(message_index, 0, char({ord(_OPEN)}), char({ord(_CLOSE)}), '…', {_SNIPPET_WORDS}) AS snippet"


def match_expression(query: str) -> str | None:
    """The query of FTS5 for what a user typed: all words and all ``"phrases"``, the last word by its beginning.

    None where there is nothing to search for.
    """
    text = query.translate(_HIDDEN).encode("utf-8", "replace").decode()
    found = [(quoted or word, bool(word)) for quoted, word in _TERM.findall(text)]
    # One without a letter or a digit is no word for FTS5 either, and would match nothing.
    terms = [(term, is_word) for term, is_word in found if any(map(str.isalnum, term))][:MOST_TERMS]
    if not terms:
        return None
    expression = " AND ".join(f'"{_separated(term)}"' for term, _ in terms)
    # Who has typed a space or a quote has finished the word.
    is_open = terms[-1] == found[-1] and terms[-1][1] and not text[-1:].isspace()
    return f"{expression}*" if is_open else expression


def _separated(text: str) -> str:
    return _BETWEEN.sub(_SEPARATOR, text)


def indexed_text(text: str) -> str:
    """A text as the index has it."""
    return _separated(text[:LONGEST].translate(_HIDDEN))


def _snippet(text: str) -> tuple[SnippetPart, ...]:
    parts = []
    for number, piece in enumerate(re.split(f"[{_OPEN}{_CLOSE}]", text.replace(_SEPARATOR, ""))):
        if piece:
            parts.append(SnippetPart(text=piece, match=number % 2 == 1))
    return tuple(parts)


class SearchReads(Readers):
    """Implements the search of :class:`navi_jupyter.ports.session_list.SessionListReads`."""

    async def search(
        self, user_id: str, query: str, *, limit: int, cursor: str | None = None, session_id: str | None = None
    ) -> tuple[Sequence[TextHit], str | None]:
        at, last = read_cursor(cursor)
        match = match_expression(query)
        if match is None:
            return [], None
        values = {"user": user_id, "match": match, "at": at, "last": last, "session": session_id, "limit": limit + 1}
        async with self.reading() as view:
            if session_id is None:
                found = await _newest_of_sessions(view, values)
            else:
                found = await _all_of_session(view, values)
            page = found[:limit]
            texts = await _snippets(view, match, [row["number"] for row in page])
        hits = [_hit(row, texts.get(row["number"], "")) for row in page]
        more = f"{page[-1]['at']}:{page[-1]['key']}" if len(found) > limit else None
        return hits, more

    async def is_indexed(self) -> bool:
        row = await self.fetch_one(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE indexed = 0 AND ended_at IS NOT NULL)"
            " OR EXISTS (SELECT 1 FROM sessions WHERE indexed_title IS NOT title) AS missing"
        )
        return row is not None and not row["missing"]


async def _newest_of_sessions(view: Statements, values: dict[str, object]) -> list[Row]:
    # A bare column beside max() is that of the row with the maximum: SQLite promises it.
    return await view.all(
        "SELECT t.session_id AS key, t.session_id, t.run_id, t.message_id, t.role, t.number, max(t.at) AS at,"
        f" count(*) AS hits {_HITS} GROUP BY t.session_id"
        " HAVING max(t.at) < :at OR (max(t.at) = :at AND t.session_id > :last) ORDER BY at DESC, key LIMIT :limit",
        values,
    )


async def _all_of_session(view: Statements, values: dict[str, object]) -> list[Row]:
    key = "printf('%019d', t.number)"
    return await view.all(
        f"SELECT {key} AS key, t.session_id, t.run_id, t.message_id, t.role, t.number, t.at, 1 AS hits {_HITS}"
        f" AND t.session_id = :session AND t.run_id IS NOT NULL AND (t.at < :at OR (t.at = :at AND {key} > :last))"
        " ORDER BY t.at DESC, key LIMIT :limit",
        values,
    )


async def _snippets(view: Statements, match: str, numbers: Sequence[int]) -> dict[int, str]:
    if not numbers:
        return {}
    rows = await view.all(
        f"SELECT rowid AS number, {_SNIPPET} FROM message_index WHERE message_index MATCH ?"
        f" AND rowid IN ({', '.join('?' * len(numbers))})",
        (match, *numbers),
    )
    return {row["number"]: row["snippet"] for row in rows}


def _hit(row: Row, snippet: str) -> TextHit:
    return TextHit(
        session_id=row["session_id"],
        run_id=row["run_id"],
        message_id=row["message_id"],
        role=row["role"],
        at=from_micros(row["at"]),
        snippet=_snippet(snippet),
        count=row["hits"],
    )
