"""The session of a notebook: found by what the notebook carries, on a real server with real files."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_server.serverapp import ServerApp

from navi_jupyter.model.sessions import Session, SessionCreate
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.wire.sessions import SessionFind
from tests.conftest import Api

pytestmark = pytest.mark.usefixtures("navi")

Find = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture
def root(jp_root_dir: Path) -> Path:
    """The server's root."""
    return jp_root_dir


@pytest.fixture
def find(api: Api) -> Find:
    """``find("a.ipynb", kernel_id=…)``: what ``POST sessions/find`` answers."""

    async def ask(path: str | None, **fields: Any) -> dict[str, Any]:
        body = {"notebook_path": path, "create": True, **fields}
        return dict(await api.ok("POST", "sessions/find", {k: v for k, v in body.items() if v is not None}))

    return ask


def make(path: Path, *sources: str, minor: int = 5) -> Path:
    """A notebook with a cell for each source."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.nbformat_minor = minor
    if minor < 5:
        for cell in notebook.cells:
            del cell["id"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(nbformat.writes(notebook))
    return path


def id_in(path: Path) -> str | None:
    """The id that the notebook carries."""
    found: str | None = json.loads(path.read_text())["metadata"].get("navi", {}).get("session_id")
    return found


def without_id(path: Path) -> dict[str, Any]:
    """The notebook as a page knows it that was opened before the session was bound."""
    content: dict[str, Any] = json.loads(path.read_text())
    content["metadata"].pop("navi", None)
    return content


# --- the rules


async def test_a_notebook_gets_a_session_and_carries_its_id(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = await find("work.ipynb", kernel_id="k1")
    assert first["how"] == "created"
    assert first["session"]["title"] == "work"
    assert first["session"]["notebook_link"] == "linked"
    assert id_in(root / "work.ipynb") == first["session"]["id"]
    again = await find("work.ipynb", kernel_id="k2")
    assert (again["how"], again["session"]["id"]) == ("found", first["session"]["id"])
    assert again["session"]["kernel_id"] == "k2"


async def test_nothing_is_made_unless_it_is_asked_for(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    before = (root / "work.ipynb").read_text()
    assert (await find("work.ipynb", create=False))["session"] is None
    assert (root / "work.ipynb").read_text() == before


async def test_a_notebook_that_was_moved_while_nothing_watched_keeps_its_session(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]
    (root / "deep").mkdir()
    (root / "work.ipynb").rename(root / "deep" / "other.ipynb")
    moved = await find("deep/other.ipynb", kernel_id="k2")
    assert (moved["how"], moved["session"]["id"]) == ("moved", first["id"])
    assert moved["session"]["notebook_path"] == "deep/other.ipynb"


async def test_a_new_notebook_at_the_path_does_not_inherit_the_session(find: Find, api: Api, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]
    (root / "work.ipynb").rename(root / "away.ipynb")
    make(root / "work.ipynb", "b = 2")
    new = await find("work.ipynb", kernel_id="k2")
    assert new["how"] == "created"
    assert new["session"]["id"] != first["id"]
    assert (new["earlier"], new["note"]) == ([], None)
    assert (await api.ok("GET", f"sessions/{first['id']}"))["notebook_path"] == "away.ipynb"
    moved = await find("away.ipynb", kernel_id="k3")
    assert (moved["how"], moved["session"]["id"]) == ("found", first["id"])
    assert id_in(root / "work.ipynb") == new["session"]["id"]


async def test_where_a_notebook_was_deleted_a_new_one_names_the_earlier_session(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]
    (root / "work.ipynb").unlink()
    make(root / "work.ipynb", "b = 2")
    new = await find("work.ipynb", kernel_id="k1")
    assert new["how"] == "created"
    assert [one["id"] for one in new["earlier"]] == [first["id"]]
    assert "%navi session" in new["note"]


async def test_a_copy_gets_a_session_of_its_own(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]
    shutil.copy(root / "work.ipynb", root / "copy.ipynb")
    copied = await find("copy.ipynb")
    assert copied["how"] == "copied"
    assert copied["session"]["id"] != first["id"]
    assert "copy" in copied["note"]
    assert id_in(root / "copy.ipynb") == copied["session"]["id"]
    assert (await find("copy.ipynb"))["session"]["id"] == copied["session"]["id"]
    assert (await find("work.ipynb"))["session"]["id"] == first["id"]


async def test_of_a_notebook_moved_and_copied_the_first_that_asks_keeps_the_session(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    shutil.copy(root / "work.ipynb", root / "copy.ipynb")
    (root / "work.ipynb").rename(root / "moved.ipynb")
    assert (await find("moved.ipynb"))["session"]["id"] == first
    assert (await find("copy.ipynb"))["how"] == "copied"


async def test_two_that_change_places_keep_their_sessions(find: Find, root: Path) -> None:
    for name in "ab":
        make(root / f"{name}.ipynb", name)
    ids = {name: (await find(f"{name}.ipynb", kernel_id=f"k{name}"))["session"]["id"] for name in "ab"}
    (root / "a.ipynb").rename(root / "t.ipynb")
    (root / "b.ipynb").rename(root / "a.ipynb")
    (root / "t.ipynb").rename(root / "b.ipynb")
    assert (await find("a.ipynb", kernel_id="kb"))["session"]["id"] == ids["b"]
    assert (await find("b.ipynb", kernel_id="ka"))["session"]["id"] == ids["a"]
    assert (await find("a.ipynb"))["session"]["notebook_path"] == "a.ipynb"


async def test_a_deleted_session_is_noticed_and_its_id_replaced(find: Find, api: Api, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]["id"]
    await api.ok("DELETE", f"sessions/{first}")
    new = await find("work.ipynb", kernel_id="k1")
    assert new["how"] == "created"
    assert id_in(root / "work.ipynb") == new["session"]["id"] != first


async def test_an_id_of_another_server_is_replaced(find: Find, root: Path) -> None:
    notebook = json.loads(make(root / "work.ipynb", "a = 1").read_text())
    notebook["metadata"]["navi"] = {"session_id": "s_of_another", "note": "kept"}
    (root / "work.ipynb").write_text(json.dumps(notebook))
    new = await find("work.ipynb")
    assert json.loads((root / "work.ipynb").read_text())["metadata"]["navi"] == {
        "session_id": new["session"]["id"],
        "note": "kept",
    }


@pytest.mark.parametrize("minor", [4, 5])
async def test_a_notebook_that_a_checkout_put_back_without_its_id_is_known_by_its_cells(
    find: Find, root: Path, minor: int
) -> None:
    path = make(root / "work.ipynb", "a = 1", "b = 2", minor=minor)
    committed = path.read_text()
    first = (await find("work.ipynb", kernel_id="k1"))["session"]["id"]
    await find("work.ipynb", create=False)  # it has been noticed that it was saved with the id, and with ids of cells
    path.write_text(committed)
    again = await find("work.ipynb", kernel_id="k2")
    assert (again["how"], again["session"]["id"]) == ("found", first)
    assert id_in(path) == first


async def test_a_notebook_made_anew_by_a_program_that_numbers_its_cells_is_another_one(find: Find, root: Path) -> None:
    def write(source: str) -> None:
        cells = [nbformat.v4.new_code_cell(source, id="c0")]
        (root / "work.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))

    write("a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    write("b = 2")
    assert (await find("work.ipynb"))["session"]["id"] != first


async def test_a_kernel_without_a_notebook_is_known_by_itself(find: Find) -> None:
    first = await find(None, kernel_id="k1")
    assert first["session"]["notebook_path"] is None
    assert (await find(None, kernel_id="k1"))["session"]["id"] == first["session"]["id"]
    assert (await find(None, kernel_id="k2"))["session"]["id"] != first["session"]["id"]
    assert (await find("console-1-abc", kernel_id="k1"))["session"]["id"] == first["session"]["id"]


async def test_a_program_is_known_by_the_session_that_it_used(find: Find, api: Api) -> None:
    first = (await find(None))["session"]["id"]
    assert (await find(None, session_id=first))["session"]["id"] == first
    await api.ok("DELETE", f"sessions/{first}")
    assert (await find(None, session_id=first))["session"]["id"] != first


async def test_two_cells_that_ask_at_once_have_one_session(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    found = await asyncio.gather(*(find("work.ipynb", kernel_id="k1") for _ in range(5)))
    assert len({one["session"]["id"] for one in found}) == 1


async def test_an_absolute_path_is_the_same_notebook(find: Find, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = await find("work.ipynb")
    again = await find(str(root / "work.ipynb"))
    assert again["session"]["id"] == first["session"]["id"]
    assert again["path"] == "work.ipynb"


async def test_sessions_of_an_earlier_version_are_known_by_path_and_cells(
    find: Find, navi: NaviExtension, root: Path
) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    sessions = navi.lifecycle.services.sessions
    await sessions.store.write(
        lambda tx: tx.change_session(first, {"notebook_link": "pending", "fingerprint": None, "kernel_id": None})
    )
    (root / "work.ipynb").write_text(json.dumps(without_id(root / "work.ipynb")))
    await sessions.notebooks.upgrade()
    assert (await find("work.ipynb"))["session"]["id"] == first


async def test_a_session_made_while_those_of_earlier_versions_are_marked_may_have_a_notebook_without_a_file(
    navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    sessions = navi.lifecycle.services.sessions
    made: list[Session] = []

    async def make_one() -> None:
        request = SessionCreate(notebook_path="work.ipynb")
        made.append(await sessions.orchestrator.sessions.create(request, owner="ada"))

    await make_one()
    mark = sessions.notebooks._notebooks.mark  # type: ignore[union-attr]

    async def in_between(path: str) -> Any:
        await make_one()
        return await mark(path)

    monkeypatch.setattr(sessions.notebooks._notebooks, "mark", in_between)
    await sessions.notebooks.upgrade()
    links = [await sessions.store.link(each.id) for each in made]
    assert [link.fingerprint for link in links if link is not None] == [("-",), ()]


async def test_an_absolute_path_of_an_earlier_version_becomes_relative(
    find: Find, navi: NaviExtension, root: Path
) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    sessions = navi.lifecycle.services.sessions
    old = {"notebook_link": "pending", "fingerprint": None, "notebook_path": str(root / "work.ipynb")}
    await sessions.store.write(lambda tx: tx.change_session(first, old))
    (root / "work.ipynb").write_text(json.dumps(without_id(root / "work.ipynb")))
    await sessions.notebooks.upgrade()
    again = await find("work.ipynb")
    assert (again["session"]["id"], again["session"]["notebook_path"]) == (first, "work.ipynb")


async def test_two_users_of_one_notebook_have_a_session_each_and_keep_it(navi: NaviExtension, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    notebooks = navi.lifecycle.services.sessions.notebooks

    async def ask(owner: str) -> str:
        request = SessionFind(notebook_path="work.ipynb", kernel_id="k1", create=True)
        found = await notebooks.find(request, owner=owner)
        assert found.session is not None
        return found.session.id

    ada, bob = await ask("ada"), await ask("bob")
    assert ada != bob
    assert [await ask(owner) for owner in ("ada", "bob", "bob", "ada")] == [ada, bob, bob, ada]


async def test_notebooks_that_share_a_kernel_are_distinguished_by_the_cell_that_asks(
    find: Find, api: Api, root: Path, jp_fetch: Any
) -> None:
    for name in "ab":
        cells = [nbformat.v4.new_code_cell("1", id=f"cell-{name}")]
        (root / f"{name}.ipynb").write_text(nbformat.writes(nbformat.v4.new_notebook(cells=cells)))
    kernel_id = await page(api, jp_fetch, "a.ipynb")
    body = {"path": "b.ipynb", "type": "notebook", "kernel": {"id": kernel_id}}
    await jp_fetch("api", "sessions", method="POST", body=json.dumps(body))
    first = await find("a.ipynb", kernel_id=kernel_id, cell_id="cell-a")
    second = await find("a.ipynb", kernel_id=kernel_id, cell_id="cell-b")
    assert (first["path"], second["path"]) == ("a.ipynb", "b.ipynb")
    assert first["session"]["id"] != second["session"]["id"]


# --- an open page


async def page(api: Api, jp_fetch: Any, path: str) -> str:
    """A kernel for the notebook, and a client on it as a page has; the kernel's id."""
    body = {"path": path, "type": "notebook", "kernel": {"name": "python3"}}
    answer = json.loads((await jp_fetch("api", "sessions", method="POST", body=json.dumps(body))).body)
    return str(answer["kernel"]["id"])


async def save(jp_fetch: Any, path: str, content: dict[str, Any]) -> dict[str, Any]:
    """A page saves."""
    body = json.dumps({"type": "notebook", "format": "json", "content": content})
    return dict(json.loads((await jp_fetch("api", "contents", path, method="PUT", body=body)).body))


async def test_behind_an_open_page_nothing_is_written_and_its_save_brings_the_id(
    find: Find, api: Api, root: Path, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    opened = (root / "work.ipynb").read_text()
    kernel_id = await page(api, jp_fetch, "work.ipynb")
    socket = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    first = await find("old-name.ipynb", kernel_id=kernel_id)  # the environment has an old name
    assert (first["path"], first["session"]["notebook_link"]) == ("work.ipynb", "pending")
    assert (root / "work.ipynb").read_text() == opened
    assert (await find("work.ipynb", kernel_id=kernel_id))["session"]["id"] == first["session"]["id"]
    content = without_id(root / "work.ipynb")
    content["cells"].append(nbformat.v4.new_code_cell("b = 2"))
    for _ in range(2):  # the page never learns of the id
        answer = await save(jp_fetch, "work.ipynb", content)
        assert id_in(root / "work.ipynb") == first["session"]["id"]
        current = json.loads((await jp_fetch("api", "contents", "work.ipynb", params={"content": "0"})).body)
        assert current["last_modified"] == answer["last_modified"]  # so that the page sees no foreign change
    again = await find("work.ipynb", kernel_id="another")
    assert (again["how"], again["session"]["notebook_link"]) == ("found", "linked")
    socket.close()


async def test_behind_a_page_without_a_kernel_nothing_is_written_and_its_save_brings_the_id(
    find: Find, root: Path, jp_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    content = without_id(root / "work.ipynb")
    (root / "work.ipynb").write_text(json.dumps(content))  # an older version was put back
    asked = await find("work.ipynb", is_open=True, create=False)
    assert (asked["session"]["id"], asked["session"]["notebook_link"]) == (first, "pending")
    assert id_in(root / "work.ipynb") is None
    await save(jp_fetch, "work.ipynb", content)
    assert id_in(root / "work.ipynb") == first


async def test_a_notebook_in_a_front_end_that_gives_its_kernels_other_paths_is_known_by_its_file(
    find: Find, api: Api, root: Path, jp_fetch: Any
) -> None:
    place = make(root / "work.ipynb", "a = 1")
    before = place.read_text()
    found = []
    for number in "12":  # it is opened again: another kernel, and another made-up path
        kernel_id = await page(api, jp_fetch, f"work-jvsc-{number}.ipynb")
        found.append(await find(str(place), kernel_id=kernel_id, is_open=True, cell_source="a = 1"))
    assert [one["path"] for one in found] == ["work.ipynb", "work.ipynb"]
    assert found[0]["session"]["id"] == found[1]["session"]["id"]
    assert place.read_text() == before


async def test_a_notebook_that_another_program_renames_while_its_kernel_runs_keeps_its_session(
    find: Find, api: Api, root: Path, jp_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    kernel_id = await page(api, jp_fetch, "work.ipynb")
    first = (await find("work.ipynb", kernel_id=kernel_id))["session"]["id"]
    (root / "work.ipynb").rename(root / "moved.ipynb")
    asked = await find("work.ipynb", kernel_id=kernel_id)
    assert (asked["session"]["id"], asked["session"]["notebook_path"]) == (first, "moved.ipynb")
    assert id_in(root / "moved.ipynb") == first
    make(root / "work.ipynb", "b = 2")  # another one, which the kernel's row names now
    assert (await find("work.ipynb", kernel_id=kernel_id))["session"]["id"] != first
    assert (await find("moved.ipynb"))["session"]["id"] == first


async def test_a_notebook_whose_page_never_saved_it_is_known_by_the_cell_that_asked(
    find: Find, api: Api, root: Path, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    make(root / "new.ipynb")  # as JupyterLab makes one: without cells
    kernel_id = await page(api, jp_fetch, "new.ipynb")
    socket = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    first = (await find("new.ipynb", kernel_id=kernel_id, cell_id="c1"))["session"]["id"]
    assert (await find("new.ipynb", kernel_id=kernel_id, cell_id="c2"))["session"]["id"] == first
    cells = [nbformat.v4.new_code_cell("%navi hello", id="c2")]
    await save(jp_fetch, "new.ipynb", dict(nbformat.v4.new_notebook(cells=cells)))
    assert id_in(root / "new.ipynb") == first
    socket.close()


async def test_a_notebook_without_ids_of_cells_is_known_by_the_source_of_the_cell_that_asked(
    find: Find, api: Api, root: Path, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    make(root / "old.ipynb", "x", minor=4)
    kernel_id = await page(api, jp_fetch, "old.ipynb")
    socket = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    first = (await find("old.ipynb", kernel_id=kernel_id, cell_source="%navi hello"))["session"]["id"]
    content = without_id(root / "old.ipynb")
    content["cells"][0]["source"] = "%navi hello\n"
    await save(jp_fetch, "old.ipynb", content)
    assert id_in(root / "old.ipynb") == first
    socket.close()


async def test_a_copy_made_in_jupyter_does_not_carry_the_id(find: Find, root: Path, jp_fetch: Any) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    body = json.dumps({"copy_from": "work.ipynb"})
    made = json.loads((await jp_fetch("api", "contents", method="POST", body=body)).body)["path"]
    assert id_in(root / made) is None
    # Save As: the page of the copy goes on with the metadata of the original.
    content = json.loads((root / "work.ipynb").read_text())
    await save(jp_fetch, "saved-as.ipynb", content)
    assert id_in(root / "saved-as.ipynb") is None
    own = await find("saved-as.ipynb")
    assert own["session"]["id"] != first
    await save(jp_fetch, "saved-as.ipynb", content)
    assert id_in(root / "saved-as.ipynb") == own["session"]["id"]
    await save(jp_fetch, "work.ipynb", content)
    assert id_in(root / "work.ipynb") == first


async def test_a_page_that_goes_on_with_the_copy_takes_the_kernel_along(
    find: Find, api: Api, root: Path, jp_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    kernel_id = await page(api, jp_fetch, "work.ipynb")
    first = (await find("work.ipynb", kernel_id=kernel_id))["session"]["id"]
    await save(jp_fetch, "saved-as.ipynb", json.loads((root / "work.ipynb").read_text()))
    (row,) = json.loads((await jp_fetch("api", "sessions")).body)
    moved = json.dumps({"path": "saved-as.ipynb", "name": "saved-as.ipynb"})
    await jp_fetch("api", "sessions", row["id"], method="PATCH", body=moved)
    second = (await find("work.ipynb", kernel_id=kernel_id))["session"]
    assert (second["notebook_path"], second["kernel_id"]) == ("saved-as.ipynb", kernel_id)
    assert second["id"] != first
    original = await api.ok("GET", f"sessions/{first}")
    assert (original["notebook_path"], original["kernel_id"]) == ("work.ipynb", None)


async def test_what_a_page_saves_at_the_new_path_of_a_moved_notebook_keeps_the_id(
    find: Find, root: Path, jp_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb"))["session"]["id"]
    content = json.loads((root / "work.ipynb").read_text())
    (root / "work.ipynb").rename(root / "moved.ipynb")
    await save(jp_fetch, "moved.ipynb", content)
    assert id_in(root / "moved.ipynb") == first


async def test_another_notebook_that_is_saved_at_the_path_does_not_get_the_id(
    find: Find, root: Path, jp_fetch: Any
) -> None:
    make(root / "work.ipynb", "a = 1")
    await find("work.ipynb")
    cells = [nbformat.v4.new_code_cell("something else")]
    await save(jp_fetch, "work.ipynb", dict(nbformat.v4.new_notebook(cells=cells)))
    assert id_in(root / "work.ipynb") is None


# --- binding by hand


async def test_a_session_that_is_made_for_a_notebook_becomes_its_session(find: Find, api: Api, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]["id"]
    second = await api.session(notebook_path="work.ipynb")
    assert id_in(root / "work.ipynb") == second
    found = await find("work.ipynb", kernel_id="k1")
    assert found["session"]["id"] == second
    assert [one["id"] for one in found["earlier"]] == [first]
    assert (await api.ok("GET", f"sessions/{first}"))["notebook_link"] == "earlier"


async def test_a_notebook_is_given_back_to_an_earlier_session(find: Find, api: Api, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    first = (await find("work.ipynb", kernel_id="k1"))["session"]["id"]
    second = await api.session(notebook_path="work.ipynb")
    await api.ok("PATCH", f"sessions/{first}", {"notebook_path": "work.ipynb"})
    assert id_in(root / "work.ipynb") == first
    assert (await find("work.ipynb", kernel_id="k1"))["session"]["id"] == first
    assert (await api.ok("GET", f"sessions/{second}"))["notebook_link"] == "earlier"


async def test_a_session_that_is_moved_to_another_notebook_leaves_the_first(find: Find, api: Api, root: Path) -> None:
    for name in "ab":
        make(root / f"{name}.ipynb", name)
    session = (await find("a.ipynb"))["session"]["id"]
    changed = await api.ok("PATCH", f"sessions/{session}", {"notebook_path": "b.ipynb", "title": "Both"})
    assert (changed["notebook_path"], changed["title"], changed["notebook_link"]) == ("b.ipynb", "Both", "linked")
    assert (id_in(root / "a.ipynb"), id_in(root / "b.ipynb")) == (None, session)
    assert (await find("a.ipynb"))["how"] == "created"


async def test_an_unlinked_session_belongs_to_no_notebook(find: Find, api: Api, root: Path, jp_fetch: Any) -> None:
    make(root / "work.ipynb", "a = 1")
    session = (await find("work.ipynb", kernel_id="k1"))["session"]["id"]
    content = json.loads((root / "work.ipynb").read_text())
    changed = await api.ok("PATCH", f"sessions/{session}", {"notebook_path": None})
    assert (changed["notebook_path"], changed["notebook_link"], changed["kernel_id"]) == (None, None, None)
    assert id_in(root / "work.ipynb") is None
    await save(jp_fetch, "work.ipynb", content)  # a page that still knows the id
    assert id_in(root / "work.ipynb") is None
    new = await find("work.ipynb", kernel_id="k1")
    assert new["session"]["id"] != session
    assert [one["id"] for one in new["earlier"]] == [session]


async def test_followers_read_of_a_new_link(api: Api, root: Path) -> None:
    make(root / "work.ipynb", "a = 1")
    session = await api.session()
    await api.ok("PATCH", f"sessions/{session}", {"notebook_path": "work.ipynb"})
    (event,) = (await api.ok("GET", f"sessions/{session}/events"))["events"]
    assert event["event"]["value"]["changed"] == ["notebook_path"]
    assert event["event"]["value"]["session"]["notebook_path"] == "work.ipynb"


async def test_a_session_can_be_bound_before_its_notebook_exists(
    find: Find, api: Api, root: Path, jp_fetch: Any
) -> None:
    session = await api.session(notebook_path="later.ipynb")
    assert (await find("later.ipynb", kernel_id="k1"))["session"]["id"] == session
    await save(jp_fetch, "later.ipynb", json.loads(make(root / "t.ipynb", "a = 1").read_text()))
    assert id_in(root / "later.ipynb") == session


async def test_agents_still_write_notebooks_off_the_event_loop(jp_serverapp: ServerApp, navi: NaviExtension) -> None:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    notebooks: Any = navi.lifecycle.services.sessions.jupyter_of("local").notebooks
    jp_serverapp.contents_manager.notary.db_file = "signatures.db"  # in memory, as in tests, only Jupyter can use it
    assert jp_serverapp.contents_manager._pre_save_hooks  # ours
    assert notebooks._stored._own_files() is not None


async def test_a_notebook_made_anew_with_the_same_question_in_it_is_another_one(
    find: Find, api: Api, root: Path, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    make(root / "Untitled.ipynb", "")
    kernel_id = await page(api, jp_fetch, "Untitled.ipynb")
    socket = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    first = await find("Untitled.ipynb", kernel_id=kernel_id, cell_id="c1", cell_source="%navi hello")
    assert first["session"]["notebook_link"] == "pending"
    socket.close()
    make(root / "Untitled.ipynb", "%navi hello")
    again = await find("Untitled.ipynb", kernel_id="another", cell_id="c2", cell_source="%navi hello")
    assert again["session"]["id"] != first["session"]["id"]


async def test_a_notebook_made_anew_with_the_same_imports_is_another_one(find: Find, root: Path) -> None:
    make(root / "old.ipynb", "import pandas", "a = 1", "b = 2", minor=4)
    first = (await find("old.ipynb"))["session"]["id"]
    await find("old.ipynb", create=False)  # it has been noticed that it was saved with the id, and with ids of cells
    make(root / "old.ipynb", "import pandas", "a = 1", minor=4)  # an older version is still the notebook
    assert (await find("old.ipynb"))["session"]["id"] == first
    (root / "old.ipynb").unlink()
    make(root / "old.ipynb", "import pandas", "something = 'else'", minor=4)
    assert (await find("old.ipynb"))["session"]["id"] != first


async def test_a_notebook_with_the_same_numbers_of_cells_is_not_the_one_that_its_page_has_saved(
    find: Find, api: Api, root: Path, jp_fetch: Any, jp_ws_fetch: Any
) -> None:
    def content(*sources: str, **metadata: Any) -> dict[str, Any]:
        cells = [nbformat.v4.new_code_cell(source, id=f"c{number}") for number, source in enumerate(sources)]
        return dict(nbformat.v4.new_notebook(cells=cells, metadata=metadata))

    await save(jp_fetch, "work.ipynb", content("a = 1", "b = 2"))
    kernel_id = await page(api, jp_fetch, "work.ipynb")
    socket = await jp_ws_fetch("api", "kernels", kernel_id, "channels")
    first = (await find("work.ipynb", kernel_id=kernel_id, cell_id="c0", cell_source="a = 1"))["session"]["id"]
    await find("work.ipynb", is_open=True, create=False)
    await save(jp_fetch, "work.ipynb", content("a = 1", "b = 2", navi={"session_id": first}))
    assert (await find("work.ipynb"))["session"]["notebook_link"] == "linked"
    (root / "work.ipynb").unlink()
    await save(jp_fetch, "work.ipynb", content("fresh = 1"))
    socket.close()
    assert (await find("work.ipynb"))["session"]["id"] != first
