"""Recalls that execute notebooks: which notebooks there are, their dated copies, and what differs between two of them.

Not responsible for how results are made and compared (``jupyter.jobs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from ...errors import FileRefused, InvalidRequest, NotebookNotFound, RecallNotFound, RunNotFound
from ...ports.jobs import JobResult
from ..http import CURSOR, LIMIT, HttpReply, Query
from ..wire import recalls as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()
MOST_COMPARED = 1000  # results of a recall, the newest, of which two can be compared


@TABLE.add(
    "GET recalls/notebooks",
    "read",
    answers="NotebookPage",
    query=(Query(name="query", help="What was typed of the path."), LIMIT),
)
async def find_notebooks(call: Call) -> HttpReply:
    """The notebooks below the server's folder that a recall could execute, as far as they are found in a second."""
    jobs = call.recalls.jupyter_of(call.owner).jobs
    found = () if jobs is None else await jobs.notebooks(call.string("query") or "", limit=call.integer("limit"))
    return reply(wire.NotebookPage(notebooks=tuple(wire.NotebookPath(path=path) for path in found)))


@TABLE.add(
    "GET recalls/notebook",
    "read",
    answers="NotebookToRun",
    query=(Query(name="path", help="Relative to the server's folder."),),
    errors=(NotebookNotFound, FileRefused),
)
async def describe_notebook(call: Call) -> HttpReply:
    """What a recall that executes a notebook can be given: its parameters with their defaults, and the kernels."""
    path = call.string("path")
    if path is None:
        raise InvalidRequest("Name the notebook.", field="path")
    jobs = call.recalls.jupyter_of(call.owner).jobs
    if jobs is None:
        raise NotebookNotFound("This server has no notebooks.")
    found = await jobs.describe(path)
    known = found.parameters
    return reply(
        wire.NotebookToRun(
            path=found.path,
            parameters=None if known is None else tuple(wire.NotebookParameter(**asdict(one)) for one in known),
            kernel=found.kernel,
            kernels=tuple(wire.NotebookKernel(**asdict(one)) for one in found.kernels),
        )
    )


@TABLE.add("GET recalls/{id}/results", "read", answers="ResultPage", query=(LIMIT, CURSOR), errors=(RecallNotFound,))
async def list_results(call: Call) -> HttpReply:
    """The dated copies that a recall's notebook has made, newest first."""
    recall = await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner)
    found, following = await call.recalls.results.of_recall(
        recall.id, limit=call.integer("limit"), cursor=call.string("cursor")
    )
    results = [await _result(call, one) for one in found]
    return reply(wire.ResultPage(results=tuple(results), next=following))


async def _result(call: Call, result: JobResult) -> wire.RecallResult:
    jobs = call.recalls.jupyter_of(call.owner).jobs
    return wire.RecallResult(
        run_id=result.run_id,
        path=result.path,
        created_at=result.created_at,
        status=result.status,
        reason=result.reason,
        exists=jobs is not None and await jobs.exists(result.path),
    )


@TABLE.add(
    "GET recalls/{id}/results/diff",
    "read",
    answers="ResultDiff",
    query=(
        Query(name="new", help="The run of the newer result; the last one by default."),
        Query(name="old", help="The run of the older result; the one before the newer by default."),
    ),
    errors=(RecallNotFound, RunNotFound, NotebookNotFound, FileRefused),
)
async def compare_results(call: Call) -> HttpReply:
    """What of the outputs has changed between two results of a recall, cell by cell."""
    recall = await call.recalls.service.queries.get(call.parameters["id"], owner=call.owner)
    found, _ = await call.recalls.results.of_recall(recall.id, limit=MOST_COMPARED)
    new = _chosen(found, call.string("new"), 0)
    old = _chosen([one for one in found if one.number < new.number], call.string("old"), 0)
    jobs = call.recalls.jupyter_of(call.owner).jobs
    if jobs is None:
        raise NotebookNotFound("This server has no notebooks.")
    cells, unchanged = await jobs.compare(old.path, new.path)
    return reply(
        wire.ResultDiff(
            old=await _result(call, old),
            new=await _result(call, new),
            cells=tuple(wire.CellDiff(**asdict(cell)) for cell in cells),
            unchanged=unchanged,
        )
    )


def _chosen(results: Sequence[JobResult], run_id: str | None, place: int) -> JobResult:
    """The result of that run, else the one at that place. Raises RunNotFound."""
    if run_id is not None:
        results, place = [one for one in results if one.run_id == run_id], 0
    if len(results) <= place:
        raise RunNotFound("This recall has no such result; two are needed to compare them.")
    return results[place]
