"""What can be mentioned in a prompt, for completion while it is written.

Each source has little time and its own bounds: a kernel that is busy, a notebook that cannot be read or a slow disk
only leaves its part out, and says so. Not responsible for the content behind a mention (``contents``).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from ...errors import NaviError, NotebookNotFound
from ...handles import lasting_handle
from ...model.sessions import Session
from ...orchestrator.session_list.service import SessionListReader
from ...output_text import error_line
from ...ports.jupyter import Cell
from ...ports.jupyter_access import JupyterOf
from ...scheduling.service import RecallQueries
from ...text import closeness, inert_line, plural
from ..wire.agent import MentionInfo, MentionKind, MentionPage

KINDS: Final[tuple[MentionKind, ...]] = ("cell", "error", "variable", "file", "session", "recall")
SOURCE_SECONDS = 2.0
MOST_READ = 200  # items of one source
_PLAIN = re.compile(r'[^\s"@,;!?()]+')

Found = list[tuple[tuple[int, int], MentionInfo]]  # with how well each fits


class MentionIndex:
    """Everything of a user's that a prompt in a session can mention."""

    def __init__(self, jupyter_of: JupyterOf, sessions: SessionListReader, recalls: RecallQueries) -> None:
        self._jupyter_of = jupyter_of
        self._sessions = sessions
        self._recalls = recalls

    async def search(self, session: Session, query: str, kinds: Collection[str], *, limit: int) -> MentionPage:
        """The best candidates of each kind, and notes about what could not be looked at."""
        sources: Mapping[str, Callable[[Session, str], Awaitable[Found]]] = {
            "cell": self._cells,
            "error": self._errors,
            "variable": self._variables,
            "file": self._files,
            "session": self._other_sessions,
            "recall": self._own_recalls,
        }
        wanted = [kind for kind in KINDS if kind in kinds]
        notes: list[str] = []
        parts = await asyncio.gather(*(_within(kind, sources[kind](session, query), notes) for kind in wanted))
        found = [(rank, number, one) for number, part in enumerate(parts) for rank, one in part]
        found.sort(key=lambda each: (each[0][0], each[1], each[0][1]))
        return MentionPage(mentions=tuple(one for *_, one in found[:limit]), notes=tuple(notes), next=None)

    async def _cells(self, session: Session, query: str) -> Found:
        return _matching(query, (_cell(cell) for cell in await self._notebook(session)))

    async def _errors(self, session: Session, query: str) -> Found:
        failed = [(cell, error) for cell in await self._notebook(session) if (error := error_of(cell)) is not None]
        found: list[MentionInfo] = []
        for cell, error in failed[-MOST_READ:]:
            token = f"@error:{cell_name(cell)}"
            found.append(_info("error", token, f"Error in {cell_label(cell)}", error_line(error)))
        if failed:
            found.append(_info("error", "@error", "The last error", error_line(failed[-1][1])))
        return _matching(query, found)

    async def _notebook(self, session: Session) -> Sequence[Cell]:
        notebooks = self._jupyter_of(session.owner, session.server).notebooks
        if notebooks is None or session.notebook_path is None:
            return ()
        try:
            return (await notebooks.read(session)).cells
        except NotebookNotFound:
            return ()  # not saved yet

    async def _variables(self, session: Session, query: str) -> Found:
        kernels = self._jupyter_of(session.owner, session.server).kernels
        if kernels is None or (state := await kernels.state(session)).status in ("none", "dead"):
            return []
        if state.status != "idle":
            raise _LeftOut("The kernel is busy: its variables cannot be listed now.")
        listed = (await kernels.variables(session, limit=MOST_READ)).get("variables", ())
        return _matching(query, [_variable(one) for one in listed])

    async def _files(self, session: Session, query: str) -> Found:
        files = self._jupyter_of(session.owner, session.server).files
        if files is None:
            return []
        listed = await (files.list(query=query, limit=MOST_READ) if query else files.list(limit=MOST_READ))
        return _matching(query, [_file(one) for one in listed])

    async def _other_sessions(self, session: Session, query: str) -> Found:
        listed, _ = await self._sessions.page(session.owner, limit=MOST_READ)
        others = [(one.session.id, one.session.title) for one in listed if one.session.id != session.id]
        return _titled("session", others, query)

    async def _own_recalls(self, session: Session, query: str) -> Found:
        listed, _ = await self._recalls.list(session.owner, limit=MOST_READ)
        return _titled("recall", [(one.id, one.title or one.message) for one in listed], query)


class _LeftOut(Exception):
    """A source has nothing to give now; the message is for the user."""


async def _within(kind: str, source: Awaitable[Found], notes: list[str]) -> Found:
    try:
        async with asyncio.timeout(SOURCE_SECONDS):
            return await source
    except TimeoutError:
        notes.append(f"{kind.capitalize()}s took too long and are left out.")
    except _LeftOut as why:
        notes.append(str(why))
    except NaviError as error:
        notes.append(error.message)
    return []


def _matching(query: str, infos: Sequence[MentionInfo] | Any) -> Found:
    """Those that fit what was typed: the token, with or without its kind, or the label."""
    found: Found = []
    for info in infos:
        bare = info.token.removeprefix("@").removeprefix(f"{info.kind}:").strip('"')
        ranks = [rank for text in (bare, info.token[1:], info.label) if (rank := closeness(query, text)) is not None]
        if ranks:
            found.append((min(ranks), info))
    return found


def _info(kind: MentionKind, token: str, label: str, detail: str) -> MentionInfo:
    return MentionInfo(kind=kind, token=token, label=inert_line(label, 120), detail=inert_line(detail, 160))


def _cell(cell: Cell) -> MentionInfo:
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return _info("cell", f"@cell:{cell_name(cell)}", cell_label(cell), first)


def cell_name(cell: Cell) -> str:
    """``In[3]`` of a cell that was executed, else its place: ``#5``."""
    return f"#{cell.index + 1}" if cell.execution_count is None else f"In[{cell.execution_count}]"


def cell_label(cell: Cell) -> str:
    """The cell as a person calls it."""
    if cell.execution_count is not None:
        return f"In [{cell.execution_count}]"
    return f"Cell {cell.index + 1}" if cell.kind == "code" else f"Cell {cell.index + 1} ({cell.kind})"


def error_of(cell: Cell) -> Mapping[str, Any] | None:
    """The error among a cell's outputs; None: it has none."""
    return next((output for output in cell.outputs if output.get("output_type") == "error"), None)


def _variable(one: Mapping[str, Any]) -> MentionInfo:
    about = [str(one.get("type", "")), str(one.get("shape") or ""), str(one.get("preview") or "")]
    return _info("variable", f"@{one['name']}", str(one["name"]), " ".join(part for part in about if part))


def _file(one: Mapping[str, Any]) -> MentionInfo:
    path, kind = str(one["path"]), str(one["kind"])
    size = one.get("size")
    return _info("file", _token("", path), path, kind if size is None else f"{kind}, {plural(int(size), 'byte')}")


def _titled(kind: MentionKind, items: Sequence[tuple[str, str]], query: str) -> Found:
    """Sessions or recalls: by their title, or where others have the same one, by a part of the id."""
    shared = Counter(title.casefold() for _, title in items)
    return _matching(
        query,
        [
            _info(
                kind,
                _token(f"{kind}:", title if title and shared[title.casefold()] == 1 else lasting_handle(item_id)),
                title,
                lasting_handle(item_id),
            )
            for item_id, title in items
        ],
    )


def _token(prefix: str, name: str) -> str:
    """``@data/sales.csv``, ``@"my data.csv"``, ``@session:"Why is the loss flat?"``."""
    name = inert_line(name, 200)
    return f"@{prefix}{name}" if _PLAIN.fullmatch(name) else f'@{prefix}"{name.replace(chr(34), chr(39))}"'
