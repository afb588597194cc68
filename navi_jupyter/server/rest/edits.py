"""What runs have changed in notebooks: read, kept, undone; and pages that make a change in the notebook they have open.

Not responsible for how an edit is undone (``jupyter.notebooks.undo``).
"""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import NotebookRequestGone, RunNotFound, SessionBusy, SessionNotFound
from ...events import Custom
from ...model.sessions import Run, Session
from ...ports.edits import CellEdit
from ...ports.jupyter import Cell
from ..http import NOTHING, HttpReply
from ..wire import edits as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()


@TABLE.add("GET runs/{rid}/edits", "read", answers="RunEditList", errors=(RunNotFound,))
async def list_edits(call: Call) -> HttpReply:
    """What a run has changed in notebooks, cell by cell: as it was before the run, and as the run has left it."""
    run, session = await _own_run(call)
    return reply(_listed(run, await call.sessions.edits.of_run(session, run.id)))


@TABLE.add(
    "POST runs/{rid}/keep", "write", body="EditChoice", answers="RunEditList", errors=(RunNotFound,), in_cell=True
)
async def keep_edits(call: Call) -> HttpReply:
    """Keep what a run has changed (`cells`: only in these): views ask no more. It can still be undone."""
    run, session = await _own_run(call)
    kept = await call.sessions.edits.keep(session, run.id, _cells(call))
    await _emit(call, run, {"action": "kept"})
    for path in {one.path for one in kept}:
        await call.sessions.page_requests(call.owner).changed(session, path)
    return reply(_listed(run, kept))


@TABLE.add(
    "POST runs/{rid}/undo",
    "write",
    body="EditChoice",
    answers="UndoneEdits",
    errors=(RunNotFound, SessionBusy),
    in_cell=True,
)
async def undo_edits(call: Call) -> HttpReply:
    """Bring the cells that a run has changed (`cells`: only these) back to what they were before it.

    A cell that somebody has changed since is left, and listed with the reason. To undo again changes nothing more.
    """
    run, session = await _own_run(call)
    if not run.status.final:
        raise SessionBusy("The run still works on the notebook. Stop it first.")
    result = await call.sessions.edits.undo(session, run.id, _cells(call))
    undone = tuple(wire.EditedCell(path=one.path, cell=one.cell) for one in result.undone)
    left = tuple(wire.LeftCell(path=one.path, cell=one.cell, reason=reason) for one, reason in result.left)
    answer = wire.UndoneEdits(run_id=run.id, undone=undone, left=left)
    if any(one.state != "undone" for one in result.undone):
        shown = answer.wire()
        await _emit(call, run, {"action": "undone", "undone": shown["undone"], "left": shown["left"]})
    return reply(answer)


@TABLE.add(
    "POST sessions/{sid}/notebook-requests/{nid}/claim",
    "write",
    body="NotebookClaim",
    answers="ClaimedRequest",
    errors=(SessionNotFound, NotebookRequestGone),
    in_cell=True,
)
async def claim_request(call: Call) -> HttpReply:
    """A page that has the notebook of a request open takes it over: what it is to do, if it is to do it."""
    claim: wire.NotebookClaim = call.body()
    session = await call.sessions.find(call.parameters["sid"], owner=call.owner)
    change = await call.sessions.page_requests(call.owner).claim(
        session.id, call.parameters["nid"], unsaved=claim.unsaved
    )
    return reply(wire.ClaimedRequest(change=None if change is None else wire.NotebookChange.model_validate(change)))


@TABLE.add(
    "POST sessions/{sid}/notebook-requests/{nid}/report",
    "write",
    body="NotebookReport",
    status=204,
    errors=(SessionNotFound, NotebookRequestGone),
    in_cell=True,
)
async def report_request(call: Call) -> HttpReply:
    """The page has made the change that it has claimed, and saved; or it could not."""
    report: wire.NotebookReport = call.body()
    session = await call.sessions.find(call.parameters["sid"], owner=call.owner)
    cell = None
    if (made := report.cell) is not None:
        cell = Cell(id=made.id, index=made.index, kind=made.type, source=made.source, by_page=True)
    await call.sessions.page_requests(call.owner).report(
        session.id, call.parameters["nid"], cell=cell, notebook=report.notebook, refusal=report.refusal
    )
    return NOTHING


def _cells(call: Call) -> tuple[str, ...] | None:
    choice: wire.EditChoice = call.body() if call.request.body.strip() else wire.EditChoice()
    return choice.cells


async def _own_run(call: Call) -> tuple[Run, Session]:
    """Raises RunNotFound, also for other people's."""
    run_id = call.parameters["rid"]
    run = await call.sessions.store.run(run_id)
    try:
        if run is not None:
            return run, await call.sessions.find(run.session_id, owner=call.owner)
    except SessionNotFound:
        pass
    raise RunNotFound(f"There is no run {run_id[:100]}.")


async def _emit(call: Call, run: Run, value: dict[str, object]) -> None:
    await call.sessions.orchestrator.emit(
        run.session_id, Custom(name="navi.notebook", value={**value, "run_id": run.id})
    )


def _listed(run: Run, edits: Sequence[CellEdit]) -> wire.RunEditList:
    return wire.RunEditList(
        run_id=run.id,
        session_id=run.session_id,
        edits=tuple(
            wire.RunEdit(
                path=one.path,
                cell=one.cell,
                kind=one.kind,
                before=one.before,
                after=one.unfinished if one.is_unfinished else one.after,
                place=one.place,
                omitted=one.omitted,
                state=one.state,
                at=one.at,
            )
            for one in edits
        ),
    )
