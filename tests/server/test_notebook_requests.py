"""A page that has a notebook open with unsaved changes makes the agent's change itself; else the file is changed.

The page here is a client of the API that keeps its cells in a list and saves them into the file.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.jupyter.notebooks import open_pages
from tests.agent.test_whole import OPENAI
from tests.conftest import Api, Socket
from tests.jupyter.test_notebooks import code, sources, write
from tests.server.test_bad_input import check_error
from tests.server.test_run_edits import TOOLS, calls
from tests.support.providers import ScriptedProvider


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    write(path, [code("x = 1", "one"), code("y = 2", "two")])
    return path


class LivePage:
    """A notebook in a page, which follows a session and does what it is asked for."""

    def __init__(self, api: Api, sid: str, path: Path, cells: list[tuple[str, str]] | None) -> None:
        """``cells`` None: it shows what is saved."""
        self._api, self._sid, self._path = api, sid, path
        self.unsaved = cells is not None
        self.cells = dict(cells or ())
        self.asked: list[dict[str, Any]] = []

    async def follow(self, socket: Socket) -> None:
        while True:
            for envelope in await socket.envelopes():
                value = envelope["event"].get("value") or {}
                if envelope["event"].get("name") == "navi.notebook" and value.get("action") == "requested":
                    await self.take(value["request_id"])

    async def take(self, request_id: str) -> None:
        route = f"sessions/{self._sid}/notebook-requests/{request_id}"
        claimed = await self._api.ok("POST", f"{route}/claim", {"unsaved": self.unsaved})
        if claimed["change"] is None:
            return
        self.asked.append(claimed["change"])
        report = self.make(claimed["change"])
        if "refusal" not in report:
            write(self._path, [code(source, cell) for cell, source in self.cells.items()])
            self.unsaved = False
        assert (await self._api("POST", f"{route}/report", report)).status == 204

    def make(self, change: dict[str, Any]) -> dict[str, Any]:
        action, cell, expected = change["action"], change["cell"], change["expected"]
        if action == "save":
            return {}
        if action == "insert":
            new = change["new_cell"]
            at = len(self.cells) if change["after"] is None else list(self.cells).index(change["after"]) + 1
            items = list(self.cells.items())
            self.cells = dict([*items[:at], (new["id"], new["source"]), *items[at:]])
            return {"cell": {"id": new["id"], "index": at, "type": "code", "source": new["source"]}}
        if cell not in self.cells:
            return {"refusal": "not_found"}
        if expected not in (None, self.cells[cell]):
            return {"refusal": "changed"}
        index, source = list(self.cells).index(cell), self.cells[cell]
        if action == "edit":
            source = self.cells[cell] = change["source"]
        else:
            del self.cells[cell]
        return {"cell": {"id": cell, "index": index, "type": "code", "source": source}}

    def client(self) -> dict[str, Any]:
        """What goes with its prompts."""
        cells = [{"id": cell, "type": "code", "source": source} for cell, source in self.cells.items()]
        notebook = {"path": self._path.name, "cells": cells, "active": "one", "unsaved": True}
        return {"tz": "Europe/Berlin", "source": "browser", "notebook": notebook}


async def results(api: Api, sid: str, run_id: str) -> list[str]:
    """What the tools have answered, once the run is over."""
    events = await api.until_run_ends(sid, run_id)
    return [one["event"]["content"] for one in events if one["event"]["type"] == "TOOL_CALL_RESULT"]


async def test_a_page_with_unsaved_changes_makes_the_changes_and_saves(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = calls(
        ("read_notebook", {}),
        ("edit_cell", {"cell": "0", "search": "unsaved", "replace": "edited"}),
        ("insert_cell", {"source": "at_the_end = 1"}),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, sid, work, [("one", "x = 'unsaved'"), ("two", "y = 2"), ("mine", "z = 'mine'")])
        async with api.socket(sid) as socket:
            following = asyncio.create_task(page.follow(socket))
            run_id = (await api.prompt(sid, "go", client=page.client()))["run_id"]
            read, edit, insert = await results(api, sid, run_id)
            following.cancel()
    assert "x = 'unsaved'" in read
    assert "mine" in read
    assert "made this one in what it shows, and saved" in edit
    assert json.loads(insert)["index"] == 3, "the end is the end on the screen"
    assert sources(work) == ["x = 'edited'", "y = 2", "z = 'mine'", "at_the_end = 1"]
    undone = await api.ok("POST", f"runs/{run_id}/undo")
    assert undone["left"] == []
    assert sources(work) == ["x = 'unsaved'", "y = 2", "z = 'mine'"]


async def test_what_the_user_types_meanwhile_is_never_overwritten(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = calls(("edit_cell", {"cell": "one", "source": "x = 10"}), ("edit_cell", {"cell": "gone", "source": "y"}))
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, sid, work, [("one", "x = 1"), ("gone", "y")])
        client = page.client()
        page.cells = {"one": "x = 1  # typed since"}
        async with api.socket(sid) as socket:
            following = asyncio.create_task(page.follow(socket))
            run_id = (await api.prompt(sid, "go", client=client))["run_id"]
            first, second = await results(api, sid, run_id)
            following.cancel()
    assert "changed meanwhile" in first
    assert "no such cell" in second
    assert sources(work) == ["x = 1", "y = 2"]
    assert (await api.ok("GET", f"runs/{run_id}/edits"))["edits"] == []


async def test_a_page_in_which_all_is_saved_leaves_the_change_to_the_server(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*calls(("edit_cell", {"cell": "one", "source": "x = 10"}))) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, sid, work, None)
        async with api.socket(sid) as socket:
            following = asyncio.create_task(page.follow(socket))
            run_id = (await api.prompt(sid, "go"))["run_id"]
            await api.until_run_ends(sid, run_id)
            following.cancel()
    assert page.asked == []
    assert sources(work) == ["x = 10", "y = 2"]


async def test_where_no_page_answers_the_file_is_changed_and_the_session_is_not_asked_again_at_once(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pages, "CLAIM_SECONDS", 0.3)
    script = calls(*[("edit_cell", {"cell": "one", "source": f"x = {n}"}) for n in range(5)])
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        async with api.socket(sid):
            began = time.monotonic()
            run_id = (await api.prompt(sid, "go"))["run_id"]
            events = await api.until_run_ends(sid, run_id)
            assert time.monotonic() - began < 10
    asked = [one for one in events if one["event"].get("name") == "navi.notebook"]
    assert len(asked) == 1
    assert "x" not in asked[0]["event"]["value"], "the log has no content of the change"
    assert sources(work) == ["x = 4", "y = 2"]


async def test_a_page_that_claims_and_does_not_report_is_an_error_and_the_file_stays(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pages, "MADE_SECONDS", 0.3)
    async with ScriptedProvider(*calls(("edit_cell", {"cell": "one", "source": "x = 10"}))) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        async with api.socket(sid) as socket:
            run_id = (await api.prompt(sid, "go"))["run_id"]
            request_id = None
            while request_id is None:
                for envelope in await socket.envelopes():
                    request_id = (envelope["event"].get("value") or {}).get("request_id") or request_id
            route = f"sessions/{sid}/notebook-requests/{request_id}"
            assert (await api.ok("POST", f"{route}/claim", {"unsaved": True}))["change"]["source"] == "x = 10"
            second = await api("POST", f"{route}/claim", {"unsaved": True})
            check_error(second, 404, "notebook_request_gone")
            (result,) = await results(api, sid, run_id)
            check_error(await api("POST", f"{route}/report", {}), 404, "notebook_request_gone")
    assert "did not report whether it made the change" in result
    assert sources(work) == ["x = 1", "y = 2"]


async def test_requests_of_other_sessions_cannot_be_claimed(api: Api) -> None:
    sid = await api.session()
    route = f"sessions/{sid}/notebook-requests/n_none"
    check_error(await api("POST", f"{route}/claim", {"unsaved": True}), 404, "notebook_request_gone")
    check_error(await api("POST", f"{route}/claim", {}), 400, "invalid_request", "unsaved")
    check_error(await api("POST", f"{route}/report", {"refusal": "no"}), 400, "invalid_request", "refusal")
