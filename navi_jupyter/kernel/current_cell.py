"""The cell that a recall on a cell refers to when it is created in a cell: the same one, or the next.

A line alone in its cell (``%navi recall when done …``) means the next cell that runs; among other code, that cell.
Not responsible for observing the cell: the server does that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..navi_cells import only_makes_recalls
from .shell import current_kernel, current_request, kernel_id, seconds_running

CELL_WORDS = ("done", "finished", "succeeded", "failed", "fails", "slow", "slower")
CELL_EVENTS = ("cell_done", "cell_finished", "cell_failed", "cell_slow")
AFTER = "after:"  # prefix of a request's id: the cell that begins next after the one that this request runs
REQUEST = "request:"  # prefix of a request's id: the cell that it runs, in this execution

COMM = "navi.cell"
LONGEST_SOURCE = 20_000


def with_cell(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """``schedule`` with the cell that it refers to, where it waits for a cell and names none."""
    given = dict(schedule)
    if given.get("kind") != "when" or given.get("cell") or not _of_a_cell(given):
        return given
    if given.get("repeat") == "each":
        return given
    parent = current_request()
    request_id = str((parent.get("header") or {}).get("msg_id") or "")
    if not request_id:
        return given
    alone = only_makes_recalls(str((parent.get("content") or {}).get("code") or ""))
    given["cell"] = f"{AFTER if alone else REQUEST}{request_id}"
    here = kernel_id()
    if here and "kernel_id" not in given:
        given["kernel_id"] = here
    return given


def report_cell(schedule: Mapping[str, Any]) -> None:
    """Report the running cell to the server's observer of this kernel, if ``schedule`` refers to it.

    The observer has subscribed when the recall was created, after the cell began, so it has not seen the beginning.
    A recall on each cell needs the report, too: a cell that only talks to Navi does not count as one.
    """
    request = current_request()
    request_id = (request.get("header") or {}).get("msg_id")
    if schedule.get("kind") != "when" or request_id is None or not _of_a_cell(schedule):
        return
    if schedule.get("cell") != f"{REQUEST}{request_id}" and schedule.get("repeat") != "each":
        return
    kernel = current_kernel()
    code = str((request.get("content") or {}).get("code") or "")[:LONGEST_SOURCE]
    data = {"code": code, "seconds": seconds_running(request)}
    # a message of a comm that does not exist: front ends ignore that silently, but warn of an unknown message type.
    kernel.send_response(kernel.iopub_socket, "comm_msg", {"comm_id": COMM, "data": data})


def _of_a_cell(schedule: Mapping[str, Any]) -> bool:
    if schedule.get("event") is not None:
        return str(schedule["event"]) in CELL_EVENTS
    text = re.sub(r"^(?:the\s+)?cell\s+(?:is\s+)?", "", str(schedule.get("when") or "").strip(), flags=re.IGNORECASE)
    word = text.partition(" ")[0].lower()
    return word in CELL_WORDS or word in CELL_EVENTS
