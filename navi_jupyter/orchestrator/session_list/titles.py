"""Titles of sessions, made once the first exchange is over: by the session's model, else from the words of the prompt.

A title is made beside the run and after it, so it never holds one up or fails it. What a crash leaves without a title
gets one from its words at the next start. A user's own title is never replaced.
Not responsible for how a model is asked (:data:`WriteTitle`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from ...clock import now
from ...errors import NaviError
from ...events import Draft, session_event
from ...log_setup import get_logger
from ...model.sessions import SYSTEM, TitleSource, Usage
from ...ports.session_list import UntitledSession
from ...ports.store import SessionStore
from ...ports.transactions import SessionTx
from ...redaction import redact
from ...text import inert_line, truncate

log = get_logger("titles")

LONGEST = 60  # characters of a title that is made
_PATIENCE = 30.0  # seconds that a model has for a title
_MENTION = re.compile(r"(?<!\S)@(?:\"[^\"\n]*\"|'[^'\n]*'|\S+)")
_FENCE = re.compile(r"```.*?(?:```|\Z)|<<<([\w-]+)\n.*?\n\1>>>", re.DOTALL)
_MARKS = re.compile(r"^[\s#>*+\-–—•]+|[*_`]+")
_SENTENCE = re.compile(r"(.+?[.!?…])(?=\s)|(.+?[。！？])", re.DOTALL)
_QUOTES = "\"'“”‘’«»„`*# \t"

WriteTitle = Callable[[str, str, str], Awaitable[tuple[str, Usage] | None]]
"""Asks a model for a title: (model, prompt, answer) -> its words and what they cost; None where there is no model to
ask. May raise anything that a model's provider does."""


def title_from_words(prompt: str) -> str:
    """The first sentence of a prompt without mentions, code and marks of Markdown; empty where nothing is left."""
    plain = _FENCE.sub(" ", prompt)
    plain = _MENTION.sub(" ", plain)
    lines = (_MARKS.sub(" ", line).strip() for line in plain.splitlines())
    line = next((line for line in lines if any(map(str.isalnum, line))), "")
    line = inert_line(line, 1000)
    found = _SENTENCE.match(f"{line} ")
    sentence = line if found is None else found[0].strip()
    return _shortened(sentence.removesuffix(".").removesuffix("。").strip(" ,;:"))


def title_from_model(text: str) -> str:
    """A model's answer as a title; empty where it is none."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"^\s*(?:title|titel|标题)\s*[:：]\s*", "", line, flags=re.IGNORECASE)
    return _shortened(inert_line(line, 1000).strip(_QUOTES).removesuffix(".").strip(_QUOTES))


def _shortened(text: str) -> str:
    """At most ``LONGEST`` characters, cut between words where that leaves enough."""
    if len(text) <= LONGEST:
        return text
    head = truncate(text, LONGEST)
    words = head.rpartition(" ")[0].rstrip(" ,;:")
    return f"{words}…" if len(words) > LONGEST // 2 else head


class SessionTitles:
    """Gives sessions their titles, one after the other."""

    def __init__(self, store: SessionStore, write_title: WriteTitle | None) -> None:
        """``write_title``: None where no model is to be asked."""
        self._store = store
        self._write_title = write_title
        self._ended: asyncio.Queue[str] = asyncio.Queue()

    def run_ended(self, session_id: str) -> None:
        """A run of this session is over; its title is made soon if it has none."""
        self._ended.put_nowait(session_id)

    async def work(self) -> None:
        """Goes on until it is cancelled."""
        await self._guarded(self._title_those_left())
        while True:
            session_id = await self._ended.get()
            await self._guarded(self._title(session_id))

    @staticmethod
    async def _guarded(work: Awaitable[None]) -> None:
        try:
            await work
        except NaviError as error:
            log.warning("title_not_made", error=error.message)
        except Exception:
            log.exception("title_broke")

    async def _title_those_left(self) -> None:
        while found := await self._store.untitled():
            for session in found:
                await self._set(session, title_from_words(session.prompt), TitleSource.WORDS)

    async def _title(self, session_id: str) -> None:
        for session in await self._store.untitled(session_id=session_id):
            written, usage = await self._asked(session), Usage()
            title = ""
            if written is not None:
                title, usage = title_from_model(redact(written[0])), written[1]
            source = TitleSource.MODEL if title else TitleSource.WORDS
            await self._set(session, title or title_from_words(session.prompt), source, usage)

    async def _asked(self, session: UntitledSession) -> tuple[str, Usage] | None:
        if self._write_title is None or not session.completed or not session.answer:
            return None
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._write_title(session.model, session.prompt, session.answer)
        except Exception as error:  # noqa: BLE001 - whatever a provider does, there is a title
            log.info("title_without_model", session_id=session.session_id, error=type(error).__name__)
            return None

    async def _set(
        self, untitled: UntitledSession, title: str, source: TitleSource, usage: Usage | None = None
    ) -> None:
        async def unit(tx: SessionTx) -> None:
            if usage is not None and usage.requests:
                await tx.add_usage(untitled.run_id, usage)
            session = await tx.session(untitled.session_id)
            if session is None or session.title_source is not TitleSource.DEFAULT:
                return  # the user was quicker
            changes = {"title": title or session.title, "title_source": source}
            await tx.change_session(session.id, changes)
            changed = session_event(session.but(**changes), ["title"])
            await tx.append(session.id, [Draft(changed, run_id=None, origin=SYSTEM, at=now())])

        await self._store.write(unit)
