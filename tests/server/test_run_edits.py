"""What a run has changed in a notebook is listed, kept and undone: all of it, but what somebody has changed since."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp

from navi_jupyter import clock
from navi_jupyter.commands import Prompt
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.notebooks.undo import NOT_KEPT
from navi_jupyter.model.sessions import SessionCreate
from navi_jupyter.ports.edits import edit_of
from navi_jupyter.server.metrics import ProcessMeasures
from navi_jupyter.server.runtime import runtime
from navi_jupyter.server.services import Services
from navi_jupyter.settings import Settings
from tests.agent.test_whole import OPENAI, ended
from tests.conftest import Api
from tests.jupyter.test_notebooks import code, loaded, sources, write
from tests.server.test_bad_input import check_error
from tests.support.providers import Call, Reply, ScriptedProvider

TOOLS = ("insert_cell", "edit_cell", "delete_cell")
OUTPUT = {"output_type": "stream", "name": "stdout", "text": "1\n"}


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    cells = [
        code("x = 1", "one"),
        code("print(x)", "two", outputs=[OUTPUT], execution_count=2),
        code("y = 2", "three"),
        code("z = 3", "four"),
    ]
    write(path, cells)
    return path


def calls(*calls: tuple[str, dict[str, Any]]) -> list[Reply]:
    """A model that makes these calls, one after the other, and ends."""
    made = [Reply(calls=(Call(name, args, id=f"call_{n}"),)) for n, (name, args) in enumerate(calls)]
    return [*made, Reply("Done.")]


ALL = calls(
    ("edit_cell", {"cell": "one", "source": "x = 10"}),
    ("edit_cell", {"cell": "one", "search": "10", "replace": "11"}),
    ("delete_cell", {"cell": "two"}),
    ("delete_cell", {"cell": "three"}),
    ("insert_cell", {"source": "new = 1", "after": "one"}),
    ("insert_cell", {"source": "last = 1"}),
)


async def edited(api: Api, script: list[Reply], monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The session and the run that has made the calls."""
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        run_id = (await api.prompt(sid, "go"))["run_id"]
        await api.until_run_ends(sid, run_id)
    return sid, run_id


async def test_one_undo_brings_back_all_that_a_run_has_changed(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = loaded(work).cells
    sid, run_id = await edited(api, ALL, monkeypatch)
    assert sources(work) == ["x = 11", "new = 1", "z = 3", "last = 1"]

    listed = (await api.ok("GET", f"runs/{run_id}/edits"))["edits"]
    assert {one["cell"]: (one["before"], one["after"]) for one in listed if one["before"] is not None} == {
        "one": ("x = 1", "x = 11"),
        "two": ("print(x)", None),
        "three": ("y = 2", None),
    }
    assert [one["after"] for one in listed if one["before"] is None] == ["new = 1", "last = 1"]
    assert {one["state"] for one in listed} == {"open"}

    result = await api.ok("POST", f"runs/{run_id}/undo")
    assert (len(result["undone"]), result["left"]) == (5, [])
    assert [dict(cell) for cell in loaded(work).cells] == [dict(cell) for cell in before], "outputs, too"
    assert {one["state"] for one in (await api.ok("GET", f"runs/{run_id}/edits"))["edits"]} == {"undone"}
    events = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
    undone = [one["event"]["value"] for one in events if one["event"].get("name") == "navi.notebook"]
    assert [(one["action"], one["run_id"], len(one["undone"])) for one in undone] == [("undone", run_id, 5)]

    work.write_text(work.read_text().replace("x = 1", "x = 5"))
    again = await api.ok("POST", f"runs/{run_id}/undo")
    assert again == result, "to undo again changes nothing more"
    assert sources(work)[0] == "x = 5"


async def test_what_somebody_has_changed_since_is_left_with_the_reason(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = calls(
        ("edit_cell", {"cell": "one", "source": "x = 10"}),
        ("edit_cell", {"cell": "four", "source": "z = 30"}),
        ("insert_cell", {"source": "new = 1"}),
    )
    _, run_id = await edited(api, script, monkeypatch)
    work.write_text(work.read_text().replace("x = 10", "x = mine").replace("new = 1", "new = mine"))
    result = await api.ok("POST", f"runs/{run_id}/undo")
    assert [one["cell"] for one in result["undone"]] == ["four"]
    assert {one["reason"] for one in result["left"]} == {"It was changed since."}
    assert sources(work) == ["x = mine", "print(x)", "y = 2", "z = 3", "new = mine"]


async def test_a_change_of_the_user_between_two_edits_of_a_run_is_what_comes_back(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Reply(calls=(Call("edit_cell", {"cell": "one", "source": "x = 10"}),))
    second = Reply(calls=(Call("edit_cell", {"cell": "one", "source": "x = 20"}, id="call_2"),), hold_first=True)
    async with ScriptedProvider(first, second, Reply("Done.")) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        run_id = (await api.prompt(sid, "go"))["run_id"]
        await provider.request(1)
        work.write_text(work.read_text().replace("x = 10", "x = mine"))
        second.release.set()
        await api.until_run_ends(sid, run_id)
    assert sources(work)[0] == "x = 20"
    await api.ok("POST", f"runs/{run_id}/undo")
    assert sources(work)[0] == "x = mine"


async def test_some_cells_can_be_kept_or_undone_alone(api: Api, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = calls(
        ("edit_cell", {"cell": "one", "source": "x = 10"}), ("edit_cell", {"cell": "four", "source": "z = 30"})
    )
    _, run_id = await edited(api, script, monkeypatch)
    kept = await api.ok("POST", f"runs/{run_id}/keep", {"cells": ["one"]})
    assert {one["cell"]: one["state"] for one in kept["edits"]} == {"one": "kept", "four": "open"}
    await api.ok("POST", f"runs/{run_id}/undo", {"cells": ["four"]})
    assert sources(work) == ["x = 10", "print(x)", "y = 2", "z = 3"]
    await api.ok("POST", f"runs/{run_id}/undo")
    assert sources(work)[0] == "x = 1", "what was kept can still be undone"


async def test_a_change_that_was_refused_leaves_nothing_to_undo(
    api: Api, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = calls(("edit_cell", {"cell": "one", "source": "x = 10", "expected": "something else"}))
    _, run_id = await edited(api, script, monkeypatch)
    assert (await api.ok("GET", f"runs/{run_id}/edits"))["edits"] == []
    assert (await api.ok("POST", f"runs/{run_id}/undo"))["undone"] == []


async def test_a_run_that_still_works_is_not_undone(api: Api, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Reply("wait", hold_end=True)
    async with ScriptedProvider(held) as provider:
        provider.point(monkeypatch)
        sid = await api.session(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS)
        run_id = (await api.prompt(sid, "go"))["run_id"]
        await provider.request()
        check_error(await api("POST", f"runs/{run_id}/undo"), 409, "session_busy")
        held.release.set()
        await api.until_run_ends(sid, run_id)


async def test_mistakes_are_named(api: Api) -> None:
    check_error(await api("POST", "runs/r_none/undo"), 404, "run_not_found")
    check_error(await api("GET", "runs/r_none/edits"), 404, "run_not_found")
    sid = await api.session()
    run_id = (await api.prompt(sid, "count to 1"))["run_id"]
    await api.until_run_ends(sid, run_id)
    check_error(await api("POST", f"runs/{run_id}/undo", {"cells": []}), 400, "invalid_request", "cells")
    check_error(await api("POST", f"runs/{run_id}/undo", {"cell": "x"}), 400, "invalid_request", "cell")


# --- after a restart


@asynccontextmanager
async def served(tmp_path: Path, serverapp: ServerApp) -> AsyncIterator[Services]:
    """All of the extension but HTTP, so that it can be stopped and started again on one database."""
    settings = Settings(database_url=f"sqlite:///{tmp_path}/restarted.db")
    async with runtime(
        settings, ProcessMeasures(), logging.getLogger("server"), JupyterServices.of(serverapp)
    ) as built:
        yield built


async def test_an_undo_works_after_a_restart_of_the_server_and_a_move_of_the_notebook(
    tmp_path: Path, jp_serverapp: ServerApp, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(*ALL) as provider, served(tmp_path, jp_serverapp) as built:
        provider.point(monkeypatch)
        session = await built.sessions.notebooks.create(
            SessionCreate(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS), owner="ada"
        )
        accepted = await built.sessions.orchestrator.submit(session.id, Prompt(text="go"), user_id="ada")
        assert accepted.run_id is not None
        await ended(built, session.id, accepted.run_id)
        assert sources(work)[0] == "x = 11"
    moved = work.rename(work.parent / "moved.ipynb")
    async with served(tmp_path, jp_serverapp) as built:
        found = await built.sessions.find(session.id, owner="ada")
        listed = await built.sessions.edits.of_run(found, accepted.run_id)
        assert {one.path for one in listed} == {"work.ipynb"}, "where it is now is found when it is used"
        result = await built.sessions.edits.undo(found, accepted.run_id)
        assert result.left == []
        found = await built.sessions.find(session.id, owner="ada")
        listed = await built.sessions.edits.of_run(found, accepted.run_id)
        assert {one.path for one in listed} == {"moved.ipynb"}
        assert sources(moved) == ["x = 1", "print(x)", "y = 2", "z = 3"]


async def test_a_change_in_which_the_server_was_killed_is_undone_whether_it_was_made_or_not(
    tmp_path: Path, jp_serverapp: ServerApp, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, jp_serverapp) as built:
        session = await built.sessions.notebooks.create(SessionCreate(notebook_path="work.ipynb"), owner="ada")
        accepted = await built.sessions.orchestrator.submit(session.id, Prompt(text="count to 1"), user_id="ada")
        assert accepted.run_id is not None
        await ended(built, session.id, accepted.run_id)
        store = built.sessions.edits._edits
        notebook = await built.sessions.jupyter_of("local").notebooks.read(session)  # type: ignore[union-attr]
        for cell, source in (("one", "x = 10"), ("four", "z = 30")):
            now = next(each for each in notebook.cells if each.id == cell)
            await store.begin(
                edit_of(
                    notebook, now, run_id=accepted.run_id, own=True, before=now.source, after=source, at=clock.now()
                )
            )
        work.write_text(work.read_text().replace("x = 1", "x = 10"))  # the first was made, the second was not
        result = await built.sessions.edits.undo(session, accepted.run_id)
        assert (len(result.undone), result.left) == (2, [])
        assert sources(work) == ["x = 1", "print(x)", "y = 2", "z = 3"]


async def test_of_more_text_than_is_kept_the_cells_are_listed_and_left(
    tmp_path: Path, jp_serverapp: ServerApp, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("navi_jupyter.store.notebooks.edits.MOST_TEXT", 40)
    script = calls(
        ("edit_cell", {"cell": "one", "source": "x = 10"}),
        ("edit_cell", {"cell": "four", "source": "z = " + "3" * 100}),
    )
    async with ScriptedProvider(*script) as provider, served(tmp_path, jp_serverapp) as built:
        provider.point(monkeypatch)
        session = await built.sessions.notebooks.create(
            SessionCreate(model=OPENAI, notebook_path="work.ipynb", allowed_tools=TOOLS), owner="ada"
        )
        accepted = await built.sessions.orchestrator.submit(session.id, Prompt(text="go"), user_id="ada")
        assert accepted.run_id is not None
        await ended(built, session.id, accepted.run_id)
        result = await built.sessions.edits.undo(session, accepted.run_id)
        assert [one.cell for one in result.undone] == ["one"]
        assert [(one.cell, reason) for one, reason in result.left] == [("four", NOT_KEPT)]


async def test_an_undo_is_of_the_notebook_that_was_changed_whatever_the_session_has_now(
    api: Api, work: Path, jp_root_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid, run_id = await edited(api, calls(("delete_cell", {"cell": "two"})), monkeypatch)
    write(jp_root_dir / "other.ipynb", [code("a = 1", "one")])
    await api.ok("PATCH", f"sessions/{sid}", {"notebook_path": "other.ipynb"})
    listed = (await api.ok("GET", f"runs/{run_id}/edits"))["edits"]
    assert {one["path"] for one in listed} == {"work.ipynb"}
    assert (await api.ok("POST", f"runs/{run_id}/undo"))["left"] == []
    assert sources(jp_root_dir / "other.ipynb") == ["a = 1"]
    assert sources(work) == ["x = 1", "print(x)", "y = 2", "z = 3"]


async def test_the_edits_go_with_their_session_and_with_age(
    tmp_path: Path, jp_serverapp: ServerApp, work: Path
) -> None:
    async with served(tmp_path, jp_serverapp) as built:
        runs = []
        for _ in range(2):
            session = await built.sessions.notebooks.create(SessionCreate(notebook_path="work.ipynb"), owner="ada")
            accepted = await built.sessions.orchestrator.submit(session.id, Prompt(text="count to 1"), user_id="ada")
            await ended(built, session.id, str(accepted.run_id))
            runs.append(str(accepted.run_id))
        store, notebook = built.sessions.edits._edits, await built.sessions.jupyter_of("local").notebooks.read(session)  # type: ignore[union-attr]
        cell = notebook.cells[0]
        for run_id, age in ((runs[0], timedelta(days=31)), (runs[1], timedelta())):
            await store.begin(
                edit_of(notebook, cell, run_id=run_id, own=True, before="a", after="b", at=clock.now() - age)
            )
        assert [len(await store.of_run(run_id)) for run_id in runs] == [0, 1]
        await built.sessions.orchestrator.delete_session(session.id, owner="ada", forever=True)
        assert await store.of_run(runs[1]) == []
