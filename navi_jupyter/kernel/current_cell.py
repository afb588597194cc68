"""Which cell a recall means that is made in a cell: that very one, or the next.

A line alone in its cell (``%navi recall when done …``) means the next cell that runs; among other code, that cell.
Not responsible for noticing what becomes of it: that is the server's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..navi_cells import is_alone
from .shell import current_kernel, current_request, current_shell, kernel_id

CELL_WORDS = ("done", "finished", "succeeded", "failed", "fails", "slow", "slower")
CELL_EVENTS = ("cell_done", "cell_finished", "cell_failed", "cell_slow")
AFTER = "after:"
"""Before the id of the request that runs a cell: the cell that begins next after it."""
REQUEST = "request:"
"""Before the id of the request that runs a cell: that cell, this time that it runs."""

COMM = "navi.cell"
LONGEST_SOURCE = 20_000
_BEGAN = "_navi_cell_began"


def with_cell(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """``schedule`` with the cell that it means, where it waits for one and does not say which."""
    given = dict(schedule)
    if given.get("kind") != "when" or given.get("cell") or not _of_a_cell(given):
        return given
    if given.get("repeat") == "each":
        return given
    parent = current_request()
    request_id = str((parent.get("header") or {}).get("msg_id") or "")
    if not request_id:
        return given
    alone = is_alone(str((parent.get("content") or {}).get("code") or ""))
    given["cell"] = f"{AFTER if alone else REQUEST}{request_id}"
    here = kernel_id()
    if here and "kernel_id" not in given:
        given["kernel_id"] = here
    return given


def tell_of_it(schedule: Mapping[str, Any]) -> None:
    """Let whoever listens to this kernel know the cell that runs, if that is the one which ``schedule`` means.

    They began to listen when the recall was made, and its beginning was over by then. Said as a message of a comm that
    nobody has opened: front ends pass over it in silence, as they do not with kinds of messages that are new to them.
    A recall for each cell is told too: of one that only talks to Navi, so that it is known to be none.
    """
    request = current_request()
    request_id = (request.get("header") or {}).get("msg_id")
    if schedule.get("kind") != "when" or request_id is None or not _of_a_cell(schedule):
        return
    if schedule.get("cell") != f"{REQUEST}{request_id}" and schedule.get("repeat") != "each":
        return
    kernel = current_kernel()
    code = str((request.get("content") or {}).get("code") or "")[:LONGEST_SOURCE]
    said = {"code": code, "seconds": _seconds(request)}
    kernel.send_response(kernel.iopub_socket, "comm_msg", {"comm_id": COMM, "data": said})


def install(shell: Any) -> None:
    """Note when cells begin. Once for each shell."""
    if not getattr(shell, _BEGAN, None):
        shell.events.register("pre_run_cell", lambda *_: setattr(shell, _BEGAN, time.monotonic()))


def _seconds(request: Mapping[str, Any]) -> float:
    """For how long the cell has been running; where that was not noted, since it was asked for."""
    began = getattr(current_shell(), _BEGAN, None)
    if began is not None:
        return float(time.monotonic() - began)
    asked = (request.get("header") or {}).get("date")
    return max(0.0, time.time() - asked.timestamp()) if isinstance(asked, datetime) else 0.0


def _of_a_cell(schedule: Mapping[str, Any]) -> bool:
    if schedule.get("event") is not None:
        return str(schedule["event"]) in CELL_EVENTS
    text = re.sub(r"^(?:the\s+)?cell\s+(?:is\s+)?", "", str(schedule.get("when") or "").strip(), flags=re.IGNORECASE)
    word = text.partition(" ")[0].lower()
    return word in CELL_WORDS or word in CELL_EVENTS
