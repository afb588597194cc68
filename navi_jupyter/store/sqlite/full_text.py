"""Full-text search by FTS5. Its tables of facts follow theirs by triggers (migrations 0002 and 0013)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..full_text import FullText
from ..memory import query_words
from ..session_list.search import CLOSE, OPEN, SNIPPET_WORDS, query_terms
from ..statements import Row, Statements, marks

_HITS = (
    "FROM message_index JOIN message_texts t ON t.number = message_index.rowid JOIN sessions s ON s.id = t.session_id"
    " WHERE message_index MATCH :match AND {readable}"
)
_SNIPPET = f"snippet(message_index, 0, char({ord(OPEN)}), char({ord(CLOSE)}), '…', {SNIPPET_WORDS}) AS snippet"


class SqliteFullText(FullText):
    hits = _HITS

    def messages_query(self, query: str) -> str | None:
        return match_expression(query)

    def facts_query(self, query: str) -> str | None:
        return full_text_query(query)

    async def newest_of_sessions(self, view: Statements, values: Mapping[str, object], readable: str) -> list[Row]:
        # A bare column beside max() is that of the row with the maximum: SQLite promises it.
        return await view.all(
            "SELECT t.session_id AS key, t.session_id, t.run_id, t.message_id, t.role, t.number, max(t.at) AS at,"
            f" count(*) AS hits {self.hits.format(readable=readable)} GROUP BY t.session_id"
            " HAVING max(t.at) < :at OR (max(t.at) = :at AND t.session_id > :last) ORDER BY at DESC, key LIMIT :limit",
            values,
        )

    async def snippets(self, view: Statements, query: str, numbers: Sequence[int]) -> dict[int, str]:
        rows = await view.all(
            f"SELECT rowid AS number, {_SNIPPET} FROM message_index WHERE message_index MATCH ?"
            f" AND rowid IN ({marks(numbers)})",
            (match_expression(query), *numbers),
        )
        return {row["number"]: row["snippet"] for row in rows}

    async def add_messages(self, tx: Statements, texts: Sequence[tuple[int, str]]) -> None:
        await tx.change_many("INSERT INTO message_index (rowid, text) VALUES {rows}", texts)

    async def keep_fact(self, tx: Statements, fact_id: str, text: str) -> None:
        """Triggers have done it."""

    async def facts(self, view: Statements, match: str, owner: str, *, limit: int, skip: int) -> list[Row]:
        return await view.all(
            "SELECT facts.* FROM facts_text JOIN facts ON facts.number = facts_text.rowid"
            " WHERE facts_text MATCH ? AND facts.owner = ? ORDER BY facts_text.rank, facts.number DESC"
            " LIMIT ? OFFSET ?",
            (match, owner, limit, skip),
        )


def match_expression(query: str) -> str | None:
    """The query of FTS5 for what a user typed: all words and all ``"phrases"``, the last word by its beginning.

    None where there is nothing to search for.
    """
    parsed = query_terms(query)
    if parsed is None:
        return None
    terms, is_open = parsed
    expression = " AND ".join(f'"{term}"' for term in terms)
    return f"{expression}*" if is_open else expression


def full_text_query(text: str) -> str | None:
    """Words as FTS5 wants them: any of them, by their beginnings; nothing in them is syntax. None without a word."""
    return " OR ".join(f'"{word}"*' for word in query_words(text)) or None
