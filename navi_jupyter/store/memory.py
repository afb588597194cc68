"""What is kept about users: facts, with full-text search, and the model that they have chosen.

Implements :class:`navi_jupyter.ports.agent.Memory`.

Not responsible for which facts a model reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, cast

from ..clock import now
from ..errors import FactNotFound, InvalidRequest, LimitReached
from ..model.attachments import Fact
from ..model.base import new_id
from .database import Database, Transaction
from .rows import from_micros, to_micros
from .statements import Row

LONGEST = 4000  # characters of a fact
_WORD = re.compile(r"\w+", re.UNICODE)
_WORDS = 32  # of a query; more do not make it better
_LAST = 2**62


_SET_MODEL = (
    "INSERT INTO preferences (owner, model) VALUES (?, ?) ON CONFLICT (owner) DO UPDATE SET model = excluded.model"
)


class PreferenceStore:
    """What users have chosen for all sessions to come."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def model(self, owner: str) -> str | None:
        """The model for new sessions; None: none was chosen."""
        row = await self._store.fetch_one("SELECT model FROM preferences WHERE owner = ?", (owner,))
        return None if row is None else str(row["model"])

    async def models(self) -> Sequence[str]:
        """The models that users have chosen, and those of the last runs, of all users."""
        rows = await self._store.fetch_all(
            "SELECT model FROM preferences"
            " UNION SELECT model FROM (SELECT model FROM runs ORDER BY number DESC LIMIT 20) AS last"
        )
        return [str(row["model"]) for row in rows]

    async def set_model(self, owner: str, model: str | None) -> None:
        """Choose it; None: none any more."""

        async def unit(tx: Transaction) -> None:
            if model is None:
                await tx.change("DELETE FROM preferences WHERE owner = ?", (owner,))
            else:
                await tx.change(_SET_MODEL, (owner, model))

        await self._store.write(unit, durable=True)


class FactStore:
    def __init__(self, store: Database, *, max_facts_per_user: int = 1000) -> None:
        self._store = store
        self._limit = max_facts_per_user

    async def add(self, text: str, *, owner: str, source: str, session_id: str | None = None) -> Fact:
        text = _checked(text)
        at = now()
        fact = Fact(
            id=new_id("f"),
            owner=owner,
            text=text,
            source=cast("Literal['user', 'agent']", source),
            session_id=session_id,
            created_at=at,
            updated_at=at,
        )

        async def unit(tx: Transaction) -> Fact:
            known = await tx.one("SELECT * FROM facts WHERE owner = ? AND text = ?", (owner, text))
            if known is not None:
                return _fact_of(known)
            count = await tx.one("SELECT count(*) AS n FROM facts WHERE owner = ?", (owner,))
            if count is not None and count["n"] >= self._limit:
                raise LimitReached(f"{self._limit} facts are remembered already; forget some first.")
            await tx.change(
                "INSERT INTO facts (id, owner, text, source, session_id, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (fact.id, owner, text, source, session_id, to_micros(at), to_micros(at)),
            )
            await self._store.full_text.keep_fact(tx, fact.id, text)
            return fact

        return await self._store.write(unit, durable=True)

    async def facts(
        self, owner: str, *, query: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[Fact], str | None]:
        if query is not None and query.strip():
            return await self._search(owner, query, limit=limit, skip=_number(cursor, default=0))
        rows = await self._store.fetch_all(
            "SELECT * FROM facts WHERE owner = ? AND number < ? ORDER BY number DESC LIMIT ?",
            (owner, _number(cursor, default=_LAST), limit + 1),
        )
        page = rows[:limit]
        return [_fact_of(row) for row in page], str(page[-1]["number"]) if len(rows) > limit else None

    async def _search(self, owner: str, query: str, *, limit: int, skip: int) -> tuple[Sequence[Fact], str | None]:
        match = self._store.full_text.facts_query(query)
        if match is None:
            return [], None
        rows = await self._store.read(
            lambda view: self._store.full_text.facts(view, match, owner, limit=limit + 1, skip=skip)
        )
        page = rows[:limit]
        return [_fact_of(row) for row in page], str(skip + limit) if len(rows) > limit else None

    async def change(self, fact_id: str, text: str, *, owner: str) -> Fact:
        text = _checked(text)

        async def unit(tx: Transaction) -> Fact:
            row = await tx.one("SELECT * FROM facts WHERE id = ? AND owner = ?", (fact_id, owner))
            if row is None:
                raise _unknown(fact_id)
            same = await tx.one("SELECT id FROM facts WHERE owner = ? AND text = ?", (owner, text))
            if same is not None and same["id"] != fact_id:
                raise InvalidRequest("text: that is remembered already, as another fact", field="text")
            at = now()
            await tx.change("UPDATE facts SET text = ?, updated_at = ? WHERE id = ?", (text, to_micros(at), fact_id))
            await self._store.full_text.keep_fact(tx, fact_id, text)
            return _fact_of(row).but(text=text, updated_at=at)

        return await self._store.write(unit, durable=True)

    async def forget(self, fact_id: str, *, owner: str) -> None:

        async def unit(tx: Transaction) -> None:
            if not await tx.change("DELETE FROM facts WHERE id = ? AND owner = ?", (fact_id, owner)):
                raise _unknown(fact_id)

        await self._store.write(unit, durable=True)

    async def forget_all(self, owner: str) -> int:
        return await self._store.write(
            lambda tx: tx.change("DELETE FROM facts WHERE owner = ?", (owner,)), durable=True
        )


def query_words(text: str) -> Sequence[str]:
    """The words of a query: any of them is searched, each by its beginning."""
    words = dict.fromkeys(word.lower() for word in _WORD.findall(text[:2000]))
    # a single letter begins half of all words.
    return ([word for word in words if len(word) > 1] or list(words))[:_WORDS]


def _checked(text: str) -> str:
    text = text.strip()
    if not text or "\x00" in text:
        raise InvalidRequest("text: must say something", field="text")
    if len(text) > LONGEST:
        raise InvalidRequest(f"text: at most {LONGEST} characters", field="text")
    return text


def _number(cursor: str | None, *, default: int) -> int:
    if cursor is None:
        return default
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise InvalidRequest("cursor: not a cursor of this list", field="cursor")
    return int(cursor)


def _unknown(fact_id: str) -> FactNotFound:
    return FactNotFound(f"There is no fact {fact_id[:100]} in your memory.")


def _fact_of(row: Row) -> Fact:
    return Fact(
        id=row["id"],
        owner=row["owner"],
        text=row["text"],
        source=row["source"],
        session_id=row["session_id"],
        created_at=from_micros(row["created_at"]),
        updated_at=from_micros(row["updated_at"]),
    )
