"""The content behind the mentions of a prompt, which goes along with it as text files.

Read when the prompt is accepted, as its user may read it, each within bounds. As an attachment it is foreign text, is
shown below the prompt, and stays what it was when it was sent. What cannot be found is reported in the
place of the content. What a page shows of its notebook goes before the file, since it has what is not saved. Not
responsible for completion (``candidates``), nor for what a model reads of the page by itself
(``agent.profiles.page_context``).
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import InvalidRequest, NaviError
from ...handles import HandleError, Named, resolve
from ...model.notebooks import ClientNotebook, ShownCell
from ...model.sessions import Session
from ...orchestrator.session_directory import SessionDirectory
from ...orchestrator.session_list.service import SessionListReader
from ...output_text import outputs_text, traceback_text
from ...ports.jupyter import Cell
from ...ports.jupyter_access import JupyterOf
from ...scheduling.service import RecallQueries
from ...text import IMAGE_TYPES, code_block, inert_line, truncate, truncate_middle
from .candidates import cell_label, error_of

MAX_CHARACTERS = 30_000  # of one mention
MAX_LINES = 400  # of a text file; the agent reads more with its own tools
SECONDS = 3.0  # for one mention
_MESSAGES = 40  # of another session
_LOOKED_THROUGH = 200  # sessions or recalls among which a title is looked up
_DOCUMENTS = (*IMAGE_TYPES, "application/pdf")
_PARTS = re.compile(r'@(?:(cell|error|session|recall|file|variable):)?(?:"([^"]*)"|(.*))', re.DOTALL)
_VARIABLE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*|\[[^\[\]\n]{1,80}\])*")
_PATH = re.compile(
    r".*/.*|.*\.(?:c|cfg|csv|feather|gif|h5|html?|ini|ipynb|jpe?g|json|jsonl|log|md|npy|npz|parquet|pdf|pickle|pkl|png|py"
    r"|r|rst|sh|sql|svg|toml|tsv|txt|webp|xlsx?|xml|ya?ml|zip)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class MentionContent:
    """A mention as a file. Its name is the token, by which it is known as one."""

    name: str = ""
    data: bytes
    media_type: str = "text/markdown"


class _NotFound(Exception):
    """There is nothing of that name; the message says so."""


class MentionReader:
    """Reads what the prompts of a session mention."""

    def __init__(
        self,
        jupyter_of: JupyterOf,
        sessions: SessionListReader,
        directory: SessionDirectory,
        recalls: RecallQueries,
        *,
        max_bytes: int,
    ) -> None:
        """``max_bytes``: of one file."""
        self._jupyter_of = jupyter_of
        self._sessions = sessions
        self._directory = directory
        self._recalls = recalls
        self._max_bytes = max_bytes

    async def contents(
        self, tokens: Sequence[str], session: Session, *, live: Sequence[Cell] | None = None
    ) -> list[MentionContent]:
        """What each token names. ``live``: the cells as the page shows them.

        A bare word that names nothing is a word, and has no content.
        """
        read = await asyncio.gather(*(self._content(token, session, live) for token in dict.fromkeys(tokens)))
        return [content for content in read if content is not None]

    async def _content(self, token: str, session: Session, live: Sequence[Cell] | None) -> MentionContent | None:
        match = _PARTS.fullmatch(token)
        kind, name = (match[1] or "", match[2] if match[2] is not None else match[3]) if match else ("", "")
        # Names of files have no folders: the folder is in the content.
        shown = inert_line(f"@{token[1:].rpartition('/')[2]}", 200)
        try:
            async with asyncio.timeout(SECONDS):
                found = await self._read(kind, name, session, live)
                return None if found is None else replace(found, name=shown)
        except TimeoutError:
            why = "reading it took too long"
        except _NotFound as error:
            why = str(error)
        except NaviError as error:
            why = error.message
        # For the user, below the prompt, and for the model.
        text = f"{inert_line(token, 300)} in the prompt could not be read: {why}"
        return MentionContent(name=f"{shown} (not found)", data=text.encode(), media_type="text/plain")

    async def _read(self, kind: str, name: str, session: Session, live: Sequence[Cell] | None) -> MentionContent | None:
        by_kind: Mapping[str, Callable[[], Awaitable[MentionContent]]] = {
            "cell": lambda: self._cell(name, session, live),
            "error": lambda: self._error(name, session, live),
            "session": lambda: self._session(name, session),
            "recall": lambda: self._recall(name, session),
            "file": lambda: self._file(name, session),
            "variable": lambda: self._variable(name, session),
        }
        if kind:
            return await by_kind[kind]()
        if name == "error":
            return await self._error("", session, live)
        if _VARIABLE.fullmatch(name) and (found := await self._variable_if_any(name, session)) is not None:
            return found
        try:
            return await self._file(name, session)
        except NaviError:
            if _PATH.fullmatch(name):
                raise
            return None

    # --- the notebook ------------------------------------------------------------------------------------------------

    async def _cells(self, session: Session, live: Sequence[Cell] | None) -> Sequence[Cell]:
        if live is not None:
            return live
        notebooks = self._jupyter_of(session.owner, session.server).notebooks
        if notebooks is None or session.notebook_path is None:
            raise _NotFound("this conversation has no notebook")
        return (await notebooks.read(session)).cells

    async def _cell(self, name: str, session: Session, live: Sequence[Cell] | None) -> MentionContent:
        cell = _named_cell(name, await self._cells(session, live))
        parts = [code_block(cell.source, "python" if cell.kind == "code" else "markdown")]
        if output := outputs_text(cell.outputs, traceback_limit=6000, name_images=True):
            parts += ["Its output:", code_block(truncate_middle(output, MAX_CHARACTERS // 2))]
        return _text(cell_label(cell), "\n\n".join(parts))

    async def _error(self, name: str, session: Session, live: Sequence[Cell] | None) -> MentionContent:
        cells = await self._cells(session, live)
        failed = [cell for cell in ([_named_cell(name, cells)] if name else cells) if error_of(cell) is not None]
        if not failed:
            raise _NotFound("no cell shows an error" if not name else "that cell shows no error")
        cell, error = failed[-1], error_of(failed[-1]) or {}
        parts = [code_block(cell.source, "python"), "Its error:", code_block(traceback_text(error, 12_000))]
        return _text(f"Error in {cell_label(cell)}", "\n\n".join(parts))

    # --- the kernel and files ----------------------------------------------------------------------------------------

    async def _variable_if_any(self, name: str, session: Session) -> MentionContent | None:
        try:
            return await self._variable(name, session)
        except InvalidRequest:
            return None  # the kernel has no such name
        except NaviError:
            if _PATH.fullmatch(name):
                return None
            raise

    async def _variable(self, name: str, session: Session) -> MentionContent:
        kernels = self._jupyter_of(session.owner, session.server).kernels
        state = None if kernels is None else await kernels.state(session)
        if kernels is None or state is None or state.status in ("none", "dead"):
            raise InvalidRequest("there is no kernel", field="mentions")
        if state.status != "idle":
            raise _NotFound("the kernel is busy, so that its variables cannot be read now")
        found = await kernels.inspect(session, name)
        return _text(f"Variable {name}", _json_block(found))

    async def _file(self, path: str, session: Session) -> MentionContent:
        files = self._jupyter_of(session.owner, session.server).files
        if files is None:
            raise _NotFound("files cannot be read on this server")
        kind = mimetypes.guess_type(path)[0] or ""
        if kind in _DOCUMENTS:
            content = await files.read_bytes(path, limit=self._max_bytes)
            return MentionContent(data=content, media_type=kind)
        try:
            page = await files.page(path, lines=MAX_LINES)
        except NaviError as error:
            try:
                listed = await files.list(path.rstrip("/"), limit=_LOOKED_THROUGH)
            except NaviError:
                raise error from None  # no folder either
            return _text(f"{path.rstrip('/')}/", "\n".join(f"{one['path']} ({one['kind']})" for one in listed))
        text = truncate_middle(page.text, MAX_CHARACTERS)
        more = f"\n[lines 1 to {page.lines} of {page.total:,}]" if page.total > page.lines else ""
        return _text(path, f"{text}{more}", "text/plain")

    # --- sessions and recalls ----------------------------------------------------------------------------------------

    async def _session(self, name: str, session: Session) -> MentionContent:
        listed, _ = await self._sessions.page(session.owner, limit=_LOOKED_THROUGH)
        others = [one.session for one in listed if one.session.id != session.id]
        found = _by_name(name, [Named(one.id, one.title) for one in others], "session")
        title = next(one.title for one in others if one.id == found)
        messages = await self._directory.messages(found, owner=session.owner)
        spoken = [one for one in messages if one.content and one.role in ("user", "assistant")][-_MESSAGES:]
        text = "\n\n".join(f"[{one.role}] {truncate(one.content, 4000)}" for one in spoken)
        return _text(f"Session {title}", truncate_middle(text or "(it is empty)", MAX_CHARACTERS, head=1 / 4))

    async def _recall(self, name: str, session: Session) -> MentionContent:
        listed, _ = await self._recalls.list(session.owner, limit=_LOOKED_THROUGH)
        found = _by_name(name, [Named(one.id, one.title or one.message) for one in listed], "recall")
        recall = next(one for one in listed if one.id == found)
        firings, _ = await self._recalls.ledger(found, owner=session.owner, limit=10)
        about: dict[str, Any] = {"recall": recall.wire(), "latest_firings": [one.wire() for one in firings]}
        return _text(f"Recall {recall.title or recall.message}", _json_block(about))


def _named_cell(name: str, cells: Sequence[Cell]) -> Cell:
    """The cell of ``In[3]``, or the fifth of ``#5``. Where a count stands twice, the later cell is meant."""
    if (count := re.fullmatch(r"(?:In\s*)?\[(\d{1,9})\]", name)) is not None:
        found = [cell for cell in cells if cell.execution_count == int(count[1])]
    else:
        place = re.fullmatch(r"#?(\d{1,9})", name)
        found = [cell for cell in cells if place is not None and cell.index + 1 == int(place[1])]
        found = found or [cell for cell in cells if cell.id == name]
    if not found:
        raise _NotFound("the notebook has no such cell")
    return found[-1]


def _by_name(name: str, items: Sequence[Named], noun: str) -> str:
    try:
        return resolve(name, items, noun=noun, shown=())
    except HandleError as error:
        raise _NotFound(str(error)) from None


def _json_block(value: Mapping[str, Any]) -> str:
    return code_block(json.dumps(value, indent=1, ensure_ascii=False, default=str), "json")


def _text(title: str, text: str, media_type: str = "text/markdown") -> MentionContent:
    """A text under a line that says what it is."""
    whole = f"{inert_line(title, 200)}:\n\n{truncate_middle(text, 2 * MAX_CHARACTERS)}"
    return MentionContent(data=whole.encode(), media_type=media_type)


def page_parts(notebook: ClientNotebook) -> dict[str, str]:
    """The values of the placeholders ``selection``, ``cell`` and ``error``, as far as the page shows such a thing."""
    parts: dict[str, str] = {}
    if notebook.selection is not None:
        parts["selection"] = notebook.selection.text
    if (active := notebook.cell(notebook.active)) is not None and active.source:
        parts["cell"] = active.source
    if (error := notebook.error) is not None:
        place = next((n for n, cell in enumerate(notebook.cells or ()) if cell.id == error.cell), None)
        where = "" if place is None else _with_source(_cell(place, (notebook.cells or ())[place], notebook))
        parts["error"] = f"{where}{error.traceback or f'{error.ename}: {error.evalue}'}"
    return parts


def _with_source(cell: Cell) -> str:
    return f"The cell {cell_label(cell)}:\n{cell.source}\n\nIts error:\n"


def live_cells(notebook: ClientNotebook) -> Sequence[Cell] | None:
    """The cells as the page shows them; None where it does not give all of them."""
    if notebook.cells is None or any(cell.source is None for cell in notebook.cells):
        return None
    return [_cell(index, cell, notebook) for index, cell in enumerate(notebook.cells)]


def _cell(index: int, cell: ShownCell, notebook: ClientNotebook) -> Cell:
    outputs: list[dict[str, Any]] = []
    if cell.output:
        outputs.append({"output_type": "stream", "name": "stdout", "text": cell.output})
    if cell.error:
        ename, _, evalue = cell.error.partition(": ")
        error: dict[str, Any] = {"output_type": "error", "ename": ename, "evalue": evalue, "traceback": []}
        if notebook.error is not None and notebook.error.cell == cell.id:
            error["traceback"] = [notebook.error.traceback or cell.error]
        outputs.append(error)
    return Cell(
        id=cell.id,
        index=index,
        kind=cell.type,
        source=cell.source or "",
        execution_count=cell.execution_count,
        outputs=outputs,
    )
