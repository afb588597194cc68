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
from ..full_text import FullText
from ..rows import from_micros
from ..statements import Readers, Row
from .listing import read_cursor

LONGEST = 50_000  # characters of one message that are searched
MOST_TERMS = 16  # words and phrases of a query; what follows them is left out
SNIPPET_WORDS = 24
_SEPARATOR = "\u200b"  # no letter for FTS5, and invisible where it should ever be shown
OPEN, CLOSE = "\x02", "\x03"  # around what matches; a text has none, see `indexed_text`
_UNSPACED = (
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
    r"\uf900-\ufaff\uff66-\uff9d\U00020000-\U0003ffff]"
)
"""Letters of scripts that write words without a space: Thai, Lao, Burmese, Khmer, kana, Han; and Hangul, whose words
carry endings."""
_BETWEEN = re.compile(rf"(?<={_UNSPACED})(?=\w)|(?<=\w)(?={_UNSPACED})")
_HIDDEN = str.maketrans("", "", f"{_SEPARATOR}{OPEN}{CLOSE}\x00")
_TERM = re.compile(r'"([^"]*)"?|([^\s"]+)')
_READABLE = (
    "s.deleted_at IS NULL AND (s.owner = :user OR EXISTS"
    " (SELECT 1 FROM shares WHERE shares.session_id = s.id AND shares.user_id = :user))"
)


def query_terms(query: str) -> tuple[Sequence[str], bool] | None:
    """The words and phrases of what a user typed, as the index has them, and whether the last one is open: it is
    searched by its beginning, because it may not be finished.

    None where there is nothing to search for.
    """
    text = query.translate(_HIDDEN).encode("utf-8", "replace").decode()
    found = [(quoted or word, bool(word)) for quoted, word in _TERM.findall(text)]
    # One without a letter or a digit is no word for FTS5 either, and would match nothing.
    terms = [(term, is_word) for term, is_word in found if any(map(str.isalnum, term))][:MOST_TERMS]
    if not terms:
        return None
    # Who has typed a space or a quote has finished the word.
    is_open = terms[-1] == found[-1] and terms[-1][1] and not text[-1:].isspace()
    return [_separated(term) for term, _ in terms], is_open


def _separated(text: str) -> str:
    return _BETWEEN.sub(_SEPARATOR, text)


def indexed_text(text: str) -> str:
    """A text as the index has it."""
    return _separated(text[:LONGEST].translate(_HIDDEN))


def _snippet(text: str) -> tuple[SnippetPart, ...]:
    parts = []
    for number, piece in enumerate(re.split(f"[{OPEN}{CLOSE}]", text.replace(_SEPARATOR, ""))):
        if piece:
            parts.append(SnippetPart(text=piece, match=number % 2 == 1))
    return tuple(parts)


class SearchReads(Readers):
    """Implements the search of :class:`navi_jupyter.ports.session_list.SessionListReads`."""

    full_text: FullText

    async def search(
        self, user_id: str, query: str, *, limit: int, cursor: str | None = None, session_id: str | None = None
    ) -> tuple[Sequence[TextHit], str | None]:
        at, last = read_cursor(cursor)
        match = self.full_text.messages_query(query)
        if match is None:
            return [], None
        values = {"user": user_id, "match": match, "at": at, "last": last, "session": session_id, "limit": limit + 1}
        async with self.reading() as view:
            if session_id is None:
                found = await self.full_text.newest_of_sessions(view, values, _READABLE)
            else:
                found = await self.full_text.all_of_session(view, values, _READABLE)
            page = found[:limit]
            numbers = [row["number"] for row in page]
            texts = await self.full_text.snippets(view, query, numbers) if numbers else {}
        hits = [_hit(row, texts.get(row["number"], "")) for row in page]
        more = f"{page[-1]['at']}:{page[-1]['key']}" if len(found) > limit else None
        return hits, more

    async def is_indexed(self) -> bool:
        row = await self.fetch_one(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE indexed = 0 AND ended_at IS NOT NULL)"
            " OR EXISTS (SELECT 1 FROM sessions WHERE indexed_title IS NOT title) AS missing"
        )
        return row is not None and not row["missing"]


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
