"""Full-text search as each engine performs it: over messages and titles, and over what is remembered.

Not responsible for what is taken into an index (``session_list.index``), nor for who may read what is found.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from .statements import Row, Statements

_KEY = "printf('%019d', t.number)"


class FullText(ABC):
    """The search of one engine. A query is an expression of the engine's, which has no syntax of the user's."""

    hits: str
    """From ``message_texts``, ``t``, and their sessions, ``s``: what matches ``:match`` where ``{readable}`` is so."""

    @abstractmethod
    def messages_query(self, query: str) -> str | None:
        """What finds all words and all ``"phrases"``, the last word by its beginning. None without a word."""

    @abstractmethod
    def facts_query(self, query: str) -> str | None:
        """What finds any of the words, each by its beginning. None without a word."""

    @abstractmethod
    async def newest_of_sessions(self, view: Statements, values: Mapping[str, object], readable: str) -> list[Row]:
        """Of each session with a hit the newest one, newest first: ``key``, ``session_id``, ``run_id``,
        ``message_id``, ``role``, ``number``, ``at`` and ``hits``.

        ``values``: ``match``, ``user``, ``at`` and ``last`` (where the page begins), ``limit``. ``readable``: the
        condition on sessions, ``s``.
        """

    async def all_of_session(self, view: Statements, values: Mapping[str, object], readable: str) -> list[Row]:
        """The hits in messages of the session ``session``, newest first; as above."""
        return await view.all(
            f"SELECT {_KEY} AS key, t.session_id, t.run_id, t.message_id, t.role, t.number, t.at, 1 AS hits"
            f" {self.hits.format(readable=readable)} AND t.session_id = :session AND t.run_id IS NOT NULL"
            f" AND (t.at < :at OR (t.at = :at AND {_KEY} > :last)) ORDER BY t.at DESC, key LIMIT :limit",
            values,
        )

    @abstractmethod
    async def snippets(self, view: Statements, query: str, numbers: Sequence[int]) -> dict[int, str]:
        """Of each of these texts the part that matches; around each match the marks of ``session_list.search``.

        ``query``: as the user wrote it.
        """

    @abstractmethod
    async def add_messages(self, tx: Statements, texts: Sequence[tuple[int, str]]) -> None:
        """Take these in, each with its number in ``message_texts``. They go with their rows there."""

    @abstractmethod
    async def keep_fact(self, tx: Statements, fact_id: str, text: str) -> None:
        """A fact was added or changed. It goes with its row."""

    @abstractmethod
    async def facts(self, view: Statements, match: str, owner: str, *, limit: int, skip: int) -> list[Row]:
        """The owner's facts that match, the best first."""
