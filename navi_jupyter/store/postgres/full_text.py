"""Full-text search by ``tsvector``: the words are made by ``text_index``, so that no extension is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...ports.transactions import off_loop
from ..full_text import FullText
from ..memory import query_words
from ..session_list.search import query_terms
from ..statements import Row, Statements, marks
from .text_index import Prefix, snippet, ts_query, ts_vector

_HITS = (
    "FROM message_index i JOIN message_texts t ON t.number = i.number JOIN sessions s ON s.id = t.session_id"
    " WHERE i.words @@ CAST(CAST(:match AS TEXT) AS tsquery) AND {readable}"
)


class PostgresFullText(FullText):
    hits = _HITS

    def messages_query(self, query: str) -> str | None:
        parsed = query_terms(query)
        return None if parsed is None else ts_query(parsed[0], prefix="last" if parsed[1] else "none")

    def facts_query(self, query: str) -> str | None:
        return ts_query(query_words(query), prefix="all", any_of=True)

    async def newest_of_sessions(self, view: Statements, values: Mapping[str, object], readable: str) -> list[Row]:
        return await view.all(
            "SELECT * FROM (SELECT DISTINCT ON (t.session_id) t.session_id AS key, t.session_id, t.run_id,"
            "  t.message_id, t.role, t.number, t.at, count(*) OVER (PARTITION BY t.session_id) AS hits"
            f" {self.hits.format(readable=readable)} ORDER BY t.session_id, t.at DESC, t.number DESC) AS newest"
            " WHERE at < :at OR (at = :at AND session_id > :last) ORDER BY at DESC, key LIMIT :limit",
            values,
        )

    async def snippets(self, view: Statements, query: str, numbers: Sequence[int]) -> dict[int, str]:
        rows = await view.all(f"SELECT number, text FROM message_index WHERE number IN ({marks(numbers)})", numbers)
        terms, is_open = query_terms(query) or ((), False)
        prefix: Prefix = "last" if is_open else "none"
        return {row["number"]: snippet(row["text"], terms, prefix=prefix) for row in rows}

    async def add_messages(self, tx: Statements, texts: Sequence[tuple[int, str]]) -> None:
        # A long text takes some 15 ms, for which the event loop is not held up.
        rows = await off_loop(lambda: [(number, text, ts_vector(text)) for number, text in texts])
        await tx.db.executemany(
            "INSERT INTO message_index (number, text, words) VALUES (?, ?, CAST(CAST(? AS TEXT) AS tsvector))", rows
        )

    async def keep_fact(self, tx: Statements, fact_id: str, text: str) -> None:
        await tx.change(
            "INSERT INTO facts_text (number, words)"
            " SELECT number, CAST(CAST(? AS TEXT) AS tsvector) FROM facts WHERE id = ?"
            " ON CONFLICT (number) DO UPDATE SET words = excluded.words",
            (ts_vector(text), fact_id),
        )

    async def facts(self, view: Statements, match: str, owner: str, *, limit: int, skip: int) -> list[Row]:
        return await view.all(
            "SELECT facts.* FROM facts_text JOIN facts ON facts.number = facts_text.number,"
            " CAST(CAST(? AS TEXT) AS tsquery) AS wanted"
            " WHERE facts_text.words @@ wanted AND facts.owner = ?"
            " ORDER BY ts_rank(facts_text.words, wanted) DESC, facts.number DESC LIMIT ? OFFSET ?",
            (match, owner, limit, skip),
        )
