"""What a client may send as ``client.notebook``: checked, bounded, and each mistake named."""

from __future__ import annotations

from typing import Any

import pytest

from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api
from tests.server.test_bad_input import check_error
from tests.server.test_security import token_of

CELL = {"id": "a", "type": "code", "source": "x = 1"}


def prompt(**notebook: Any) -> dict[str, Any]:
    return {
        "type": "prompt",
        "text": "count to 1",
        "client": {"tz": "Europe/Berlin", "source": "browser", "notebook": {"path": "a.ipynb", **notebook}},
    }


async def test_a_whole_notebook_is_taken(api: Api) -> None:
    sid = await api.session()
    body = prompt(
        cells=[CELL, {"id": "b", "type": "markdown", "source": None}],
        active="a",
        selection={"cell": "a", "text": "x"},
        error={"cell": "a", "ename": "NameError", "evalue": "x", "traceback": "Traceback"},
        unsaved=True,
    )
    accepted = await api("POST", f"sessions/{sid}/commands", body)
    assert accepted.status == 202, accepted.body
    await api.until_run_ends(sid, accepted.json["run_id"])
    snapshot = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert snapshot[0]["content"] == "count to 1"


@pytest.mark.parametrize(
    ("notebook", "field"),
    [
        ({"path": ""}, "client.notebook.path"),
        ({"path": 5}, "client.notebook.path"),
        ({"cells": {}}, "client.notebook.cells"),
        ({"cells": [{**CELL, "id": ""}]}, "client.notebook.cells.0.id"),
        ({"cells": [{**CELL, "type": "python"}]}, "client.notebook.cells.0.type"),
        ({"cells": [{**CELL, "source": ["x"]}]}, "client.notebook.cells.0.source"),
        ({"cells": [{**CELL, "execution_count": -1}]}, "client.notebook.cells.0.execution_count"),
        ({"cells": [{**CELL, "outputs": []}]}, "client.notebook.cells.0.outputs"),
        ({"cells": [{**CELL, "source": "x" * 100_001}]}, "client.notebook.cells.0.source"),
        ({"cells": [{**CELL, "id": f"c{n}", "source": "x" * 90_000} for n in range(6)]}, "client.notebook"),
        ({"cells": [CELL, CELL]}, "client.notebook"),
        ({"cells": [{"id": f"c{n}"} for n in range(2_001)]}, "client.notebook.cells"),
        ({"selection": "x"}, "client.notebook.selection"),
        ({"selection": {"text": ""}}, "client.notebook.selection.text"),
        ({"error": {"evalue": "x"}}, "client.notebook.error.ename"),
        ({"unsaved": "yes"}, "client.notebook.unsaved"),
        ({"dirty": True}, "client.notebook.dirty"),
    ],
)
async def test_a_mistake_is_named(api: Api, notebook: dict[str, Any], field: str) -> None:
    sid = await api.session()
    answer = await api("POST", f"sessions/{sid}/commands", prompt(**notebook))
    check_error(answer, 400, "invalid_request", field)


async def test_what_a_kernel_sends_as_the_page_is_dropped(api: Api, navi: NaviExtension) -> None:
    """Tools show it as the notebook: code of an agent could make it up."""
    sid = await api.session()
    kernel = {"Authorization": f"navi {token_of(navi)}", "Navi-Cell": "k c 1 -"}
    accepted = await api("POST", f"sessions/{sid}/commands", prompt(cells=[CELL]), headers=kernel)
    assert accepted.status == 202, accepted.body
    events = await api.until_run_ends(sid, accepted.json["run_id"])
    (start,) = [one["event"] for one in events if one["event"].get("role") == "user"]
    assert "metadata" not in start
    body = prompt(cells=[CELL], unsaved=True, path="RTC:a.ipynb")  # as a page names it that collaborates
    accepted = await api("POST", f"sessions/{sid}/commands", body)
    events = await api.until_run_ends(sid, accepted.json["run_id"])
    start = [one["event"] for one in events if one["event"].get("role") == "user"][-1]
    assert (start["metadata"]["notebook"]["path"], start["metadata"]["notebook"]["unsaved"]) == ("a.ipynb", True)
