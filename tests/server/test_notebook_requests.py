"""A page that has a notebook open with unsaved changes makes the agent's change itself; else the file is changed.

The page here is a client of the API that keeps its cells in a list and saves them into the file. It follows no session.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.jupyter.notebooks import open_pages
from navi_jupyter.model.sessions import Session
from tests.agent.test_whole import OPENAI
from tests.conftest import Api, Socket
from tests.jupyter.test_notebooks import code, loaded, sources, write
from tests.server.test_bad_input import check_error
from tests.server.test_run_edits import TOOLS, calls
from tests.support.providers import Reply, ScriptedProvider


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    write(path, [code("x = 1", "one"), code("y = 2", "two")])
    return path


class LivePage:
    """A notebook in a page, which does what it is asked for."""

    def __init__(self, api: Api, path: Path, cells: list[tuple[str, str]] | None) -> None:
        """``cells`` None: it shows what is saved."""
        self._api, self._path = api, path
        self.unsaved = cells is not None
        self.cells = dict(cells or ())
        self.asked: list[dict[str, Any]] = []
        self.changed: list[str] = []
        """The sessions for which its file was changed, as it is told."""
        self.conflicts: set[str] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Socket]:
        async with self._api.page(**{self._path.stem: self.unsaved}) as socket:
            following = asyncio.create_task(self._follow(socket))
            yield socket
            following.cancel()

    async def _follow(self, socket: Socket) -> None:
        while True:
            message = await socket.read()
            assert message["path"] == self._path.name
            if message["type"] == "changed":
                self.changed.append(message["session_id"])
                if self.cells and not self.unsaved:
                    self.cells = {cell.id: cell.source for cell in loaded(self._path).cells}
                continue
            await self.take(message["session_id"], message["request_id"])
            await socket.send({"notebooks": [{"path": self._path.name, "unsaved": self.unsaved}]})

    async def take(self, session_id: str, request_id: str) -> None:
        route = f"sessions/{session_id}/notebook-requests/{request_id}"
        answer = await self._api("POST", f"{route}/claim", {"unsaved": self.unsaved})
        claimed = answer.json
        if answer.status == 404 or claimed["change"] is None:  # another page makes it, or the server does
            return
        self.asked.append(claimed["change"])
        report = self.make(claimed["change"])
        if "cell" in report or claimed["change"]["action"] == "save":
            write(self._path, [code(source, cell) for cell, source in self.cells.items()])
            self.unsaved = False
        assert (await self._api("POST", f"{route}/report", report)).status == 204

    def make(self, change: dict[str, Any]) -> dict[str, Any]:
        action, cell, expected = change["action"], change["cell"], change["expected"]
        if action == "save":
            return {}
        if action == "show":
            return {"notebook": self.client()["notebook"]}
        if action == "insert":
            new = change["new_cell"]
            at = len(self.cells) if change["after"] is None else list(self.cells).index(change["after"]) + 1
            items = list(self.cells.items())
            self.cells = dict([*items[:at], (new["id"], new["source"]), *items[at:]])
            return {"cell": {"id": new["id"], "index": at, "type": "code", "source": new["source"]}}
        if cell in self.conflicts:
            return {"refusal": "conflict"}
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


async def until_asked(api: Api, sid: str, answered: set[str]) -> list[dict[str, Any]]:
    """The questions of the session that are not these, as soon as there are any."""
    while True:
        found: list[dict[str, Any]] = (await api.ok("GET", f"sessions/{sid}"))["approvals"]
        if others := [one for one in found if one["id"] not in answered]:
            return others
        await asyncio.sleep(0.02)


async def test_a_page_with_unsaved_changes_makes_the_changes_and_saves(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No view of the conversation is open, and the prompt has nothing of the page: as of a recall at night."""
    script = calls(
        ("read_notebook", {}),
        ("edit_cell", {"cell": "0", "search": "unsaved", "replace": "edited"}),
        ("insert_cell", {"source": "at_the_end = 1"}),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, work, [("one", "x = 'unsaved'"), ("two", "y = 2"), ("mine", "z = 'mine'")])
        async with page.open():
            run_id = (await api.prompt(sid, "go"))["run_id"]
            read, edit, insert = await results(api, sid, run_id)
            assert "as the user's page shows it now, with changes that are not saved" in read
            assert "x = 'unsaved'" in read
            assert "mine" in read
            assert "made this one in what it shows, and saved" in edit
            assert json.loads(insert)["index"] == 3, "the end is the end on the screen"
            assert sources(work) == ["x = 'edited'", "y = 2", "z = 'mine'", "at_the_end = 1"]
            events = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
            assert [one for one in events if one["event"].get("name") == "navi.notebook"] == []
            page.cells["mine"] = "z = 'and mine'"
            page.unsaved = True
            undone = await api.ok("POST", f"runs/{run_id}/undo")
    assert undone["left"] == []
    assert sources(work) == ["x = 'unsaved'", "y = 2", "z = 'and mine'"]


async def test_an_approval_shows_the_cell_of_the_page_though_the_file_was_saved_since_and_conflicts_are_said(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prompt's cells are older than the file, and the file is not what the page shows."""
    script = calls(("edit_cell", {"cell": "mine", "source": "z"}), ("edit_cell", {"cell": "one", "source": "x = 10"}))
    script[0] = Reply(calls=script[0].calls, hold_first=True)
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb")
        page = LivePage(api, work, [("one", "x = 'in the page'"), ("two", "y = 2"), ("mine", "z = 'in the page'")])
        page.conflicts = {"mine"}
        async with page.open():
            await api.prompt(sid, "go", client=page.client())
            await provider.request()
            write(work, [code("x = 'in the file'", "one"), code("y = 2", "two"), code("z = 'in the file'", "mine")])
            script[0].release.set()
            answered: set[str] = set()
            while len(answered) < 2:
                (asked,) = await until_asked(api, sid, answered)
                answered.add(asked["id"])
                shown = json.dumps(asked["details"])
                assert "in the page" in shown
                assert "in the file" not in shown
                yes = {"interrupt_id": asked["id"], "status": "resolved", "payload": {"approved": True}}
                await api.ok("POST", f"sessions/{sid}/commands", {"type": "answer", **yes})
            found: list[str] = []
            while len(found) < 2:  # the run has paused for each question
                events = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
                found = [one["event"]["content"] for one in events if one["event"]["type"] == "TOOL_CALL_RESULT"]
            conflict, edited = found
    assert "made this one in what it shows" in edited
    assert "in its file and in the page that has it open, in the same cell" in conflict
    assert sources(work) == ["x = 10", "y = 2", "z = 'in the page'"]


async def test_what_the_user_types_meanwhile_is_never_overwritten(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = calls(
        ("edit_cell", {"cell": "one", "source": "x = 10", "expected": "x = 1"}),
        ("edit_cell", {"cell": "gone", "source": "y"}),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, work, [("one", "x = 1"), ("gone", "y")])
        client = page.client()
        page.cells = {"one": "x = 1  # typed since"}
        async with page.open():
            run_id = (await api.prompt(sid, "go", client=client))["run_id"]
            first, second = await results(api, sid, run_id)
    assert "changed meanwhile" in first
    assert "There is no cell" in second
    assert sources(work) == ["x = 1", "y = 2"]
    assert (await api.ok("GET", f"runs/{run_id}/edits"))["edits"] == []


async def test_a_page_in_which_all_is_saved_leaves_the_change_to_the_server(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*calls(("edit_cell", {"cell": "one", "source": "x = 10"}))) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        page = LivePage(api, work, None)
        async with page.open():
            began = time.monotonic()
            run_id = (await api.prompt(sid, "go"))["run_id"]
            await api.until_run_ends(sid, run_id)
            await api.ok("POST", f"runs/{run_id}/keep")
            while len(page.changed) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert time.monotonic() - began < 3, "it is not waited for other pages"
    assert page.asked == []
    assert page.changed == [sid, sid], "of the change, and of what is kept"
    assert sources(work) == ["x = 10", "y = 2"]


async def test_where_no_page_answers_the_file_is_changed_and_the_page_is_not_asked_again_at_once(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pages, "CLAIM_SECONDS", 0.3)
    script = calls(*[("edit_cell", {"cell": "one", "source": f"x = {n}"}) for n in range(5)])
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        async with api.page(work=False, other=True) as socket:
            began = time.monotonic()
            run_id = (await api.prompt(sid, "go"))["run_id"]
            await api.until_run_ends(sid, run_id)
            assert time.monotonic() - began < 10
            said = [await socket.read() for _ in range(6)]
    assert [one["type"] for one in said] == ["requested", *["changed"] * 5]
    assert set(said[0]) == {"type", "session_id", "request_id", "path"}, "it has no content of the change"
    assert sources(work) == ["x = 4", "y = 2"]


async def test_a_page_that_claims_and_does_not_report_is_an_error_and_the_file_stays(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_pages, "MADE_SECONDS", 0.3)
    async with ScriptedProvider(*calls(("edit_cell", {"cell": "one", "source": "x = 10"}))) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        async with api.page(work=False) as socket:
            run_id = (await api.prompt(sid, "go"))["run_id"]
            request_id = (await socket.read())["request_id"]
            route = f"sessions/{sid}/notebook-requests/{request_id}"
            assert (await api.ok("POST", f"{route}/claim", {"unsaved": True}))["change"]["source"] == "x = 10"
            second = await api("POST", f"{route}/claim", {"unsaved": True})
            check_error(second, 404, "notebook_request_gone")
            (result,) = await results(api, sid, run_id)
            check_error(await api("POST", f"{route}/report", {}), 404, "notebook_request_gone")
    assert "did not report whether it made the change" in result
    assert sources(work) == ["x = 1", "y = 2"]


async def test_of_two_pages_the_one_with_unsaved_changes_makes_it_and_the_other_hears_of_it(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*calls(("edit_cell", {"cell": "one", "source": "x = 10"}))) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        saved = LivePage(api, work, None)
        typing = LivePage(api, work, [("one", "x = 1"), ("two", "y = 2 + 0")])
        async with saved.open(), typing.open():
            run_id = (await api.prompt(sid, "go"))["run_id"]
            await results(api, sid, run_id)
            while not saved.changed:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert sources(work) == ["x = 10", "y = 2 + 0"]


@pytest.mark.parametrize(
    "frame", ["no JSON", "[]", '{"notebooks": 1}', '{"notebooks": [{"path": "a.ipynb"}]}', b"\xff"]
)
async def test_a_frame_that_is_none_closes_the_socket_of_a_page(api: Api, frame: str | bytes) -> None:
    async with api.page() as socket:
        await socket.send(frame)
        assert await socket.read() is None


async def test_requests_of_other_sessions_cannot_be_claimed(api: Api) -> None:
    sid = await api.session()
    route = f"sessions/{sid}/notebook-requests/n_none"
    check_error(await api("POST", f"{route}/claim", {"unsaved": True}), 404, "notebook_request_gone")
    check_error(await api("POST", f"{route}/claim", {}), 400, "invalid_request", "unsaved")
    check_error(await api("POST", f"{route}/report", {"refusal": "no"}), 400, "invalid_request", "refusal")


async def test_only_pages_of_the_sessions_owner_are_told_and_asked() -> None:
    pages = open_pages.OpenPages()
    told: dict[str, list[Any]] = {"ada": [], "grace": []}
    for owner, messages in told.items():
        pages.shows(messages.append, owner, {"work.ipynb": owner == "grace"})
    names = {"id": "s1", "owner": "ada", "title": "t", "profile": "assistant", "model": "offline"}
    session = Session(**names, created_at=now(), updated_at=now())
    await pages.changed(session, "work.ipynb")
    assert (len(told["ada"]), told["grace"]) == (1, [])
    assert pages.unsaved("ada", "work.ipynb") is False, "what is unsaved in another user's page is not asked for"
    assert pages.unsaved("linus", "work.ipynb") is None
