"""The events of runs that are not over, read a piece at a time: for the fold of what a run has written so far.

Pieces of one text that follow each other are joined while they are read: what is kept grows with the conversation, and
not with the number of its events. Not responsible for what they are folded into (``orchestrator.transcript``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..statements import Statements, marks

READ_EVENTS = 1_000  # rows of one statement: as many stay in memory beside what is kept
_OF_RUNS = (
    "SELECT seq, frame FROM events WHERE session_id = ? AND run_id IN ({runs}) AND seq >="
    " max(?, (SELECT min(first_seq) FROM runs WHERE id IN ({runs}))) ORDER BY seq LIMIT ?"
)
_PIECE = re.compile(
    r"(\{[^{}]*\{[^{}]*\},)"  # the envelope's head, with its origin
    r'("event":\{"type":"(?:TEXT_MESSAGE_CONTENT|REASONING_MESSAGE_CONTENT|TOOL_CALL_ARGS)",[^{}]*?"delta":")'
    r'([^"\\]*(?:\\.[^"\\]*)*)"\}\}'
)
"""A piece of a text. One that is written in another way is not joined, and means the same."""


class JoinedTexts:
    """Envelopes in order, with the pieces of a text that no other event is between as one: the last of them, which has
    the text of all. Texts that grow at the same time (of subagents) do not part each other."""

    def __init__(self) -> None:
        self._whole: list[str] = []
        self._pieces: dict[str, tuple[str, list[str]]] = {}  # by what they belong to: the last one's head, the texts

    def add(self, frame: str) -> None:
        """The next envelope."""
        found = _PIECE.fullmatch(frame)
        if found is None:
            self._join()
            self._whole.append(frame)
            return
        head, event, text = found.groups()
        _, texts = self._pieces.get(event, ("", []))
        texts.append(text)
        self._pieces[event] = (head, texts)

    def _join(self) -> None:
        for event, (head, texts) in self._pieces.items():
            self._whole.append(f'{head}{event}{"".join(texts)}"}}}}')
        self._pieces.clear()

    def frames(self) -> list[str]:
        """All so far."""
        self._join()
        return self._whole


async def run_frames(view: Statements, session_id: str, run_ids: Sequence[str]) -> Sequence[str]:
    """The envelopes of runs so far, joined. For the database's thread: it may be many rows."""
    joined = JoinedTexts()
    sql = _OF_RUNS.format(runs=marks(run_ids))
    start, is_more = 0, bool(run_ids)
    while is_more:
        rows = await view.all(sql, (session_id, *run_ids, start, *run_ids, READ_EVENTS))
        for row in rows:
            joined.add(row["frame"])
        is_more = len(rows) == READ_EVENTS
        start = rows[-1]["seq"] + 1 if rows else start
    return joined.frames()
