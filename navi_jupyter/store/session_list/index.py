"""The index of the search: what runs and titles are taken into it, a few at a time. See ``search`` for its form.

It follows marks in the rows (``runs.indexed``, ``sessions.indexed_title``), so it needs nothing of the moment at which
something happens: the end of a run costs nothing more, a crash loses nothing, and a database of an earlier version is
taken in like everything else. Two servers that do it at once do nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from ..database import Database, Transaction
from ..full_text import FullText
from ..rows import load_messages, to_micros
from ..statements import Row
from .search import indexed_text

_TITLES_PER_RUN = 10  # titles are short: more of them go into one transaction
_TITLE = "title"


class _Entry(NamedTuple):
    """A text that goes into the index."""

    session_id: str
    run_id: str | None
    message_id: str
    role: str
    at: int
    text: str


class SearchIndex:
    """Implements :class:`navi_jupyter.ports.session_list.TextIndex`."""

    def __init__(self, store: Database) -> None:
        self._store = store

    async def take_in(self, *, limit: int) -> int:
        runs = await self._store.fetch_all(
            "SELECT number, id, session_id, transcript, ended_at FROM runs WHERE indexed = 0"
            f" AND ended_at IS NOT NULL{self._store.served.of_session('runs.session_id')} ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        titles = await self._store.fetch_all(
            "SELECT id, title, updated_at FROM sessions WHERE indexed_title IS NOT title"
            f"{self._store.served.by('owner')} LIMIT ?",
            (limit * _TITLES_PER_RUN,),
        )
        if not runs and not titles:
            return 0
        # A transcript can have megabytes: it is read outside of the transaction, in which others would wait for it.
        entries = await asyncio.to_thread(lambda: {run["number"]: list(_entries_of(run)) for run in runs})

        async def unit(tx: Transaction) -> None:
            for run in runs:
                if await tx.change("UPDATE runs SET indexed = 1 WHERE number = ? AND indexed = 0", (run["number"],)):
                    await _add(tx, self._store.full_text, entries[run["number"]])
            for row in titles:
                await _set_title(tx, self._store.full_text, row)

        await self._store.write(unit)
        return len(runs) + len(titles)


def _entries_of(run: Row) -> Iterator[_Entry]:
    """The prompts and the answers of a finished run."""
    for message in load_messages(run["transcript"]):
        shown = message.role in ("user", "assistant") and message.subagent_run_id is None
        if shown and message.content.strip():
            at = _micros(message.at) or run["ended_at"]
            yield _Entry(run["session_id"], run["id"], message.id, message.role, at, indexed_text(message.content))


def _micros(at: str) -> int | None:
    try:
        return to_micros(datetime.fromisoformat(at))
    except (TypeError, ValueError):  # of a message that an earlier version has kept without its time
        return None


async def _set_title(tx: Transaction, full_text: FullText, row: Row) -> None:
    marked = await tx.change(
        "UPDATE sessions SET indexed_title = title WHERE id = ? AND title = ? AND indexed_title IS NOT title",
        (row["id"], row["title"]),
    )
    if marked:
        await tx.change("DELETE FROM message_texts WHERE session_id = ? AND run_id IS NULL", (row["id"],))
        await _add(tx, full_text, [_Entry(row["id"], None, "", _TITLE, row["updated_at"], indexed_text(row["title"]))])


async def _add(tx: Transaction, full_text: FullText, entries: Sequence[_Entry]) -> None:
    if not entries:
        return
    last = await tx.one("SELECT coalesce(max(number), 0) AS number FROM message_texts")
    first = 1 + (0 if last is None else last["number"])
    await tx.change_many(
        "INSERT INTO message_texts (number, session_id, run_id, message_id, role, at) VALUES {rows}",
        [(first + n, *entry[:5]) for n, entry in enumerate(entries)],
    )
    await full_text.add_messages(tx, [(first + n, entry.text) for n, entry in enumerate(entries)])
