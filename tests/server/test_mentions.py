"""What a prompt can name: prompts by name, mentions with completion, and what goes along to the model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_server.serverapp import ServerApp

from tests.conftest import Api
from tests.server.test_bad_input import check_error
from tests.support.providers import Reply, ScriptedProvider


@pytest.fixture
def root(jp_root_dir: Path) -> Path:
    """The server's root."""
    return jp_root_dir


@pytest.fixture
def prompts_folder(jp_config_dir: Path, navi: Any) -> Path:
    folder = jp_config_dir / "navi" / "prompts"
    folder.mkdir(parents=True)
    return folder


async def tokens(api: Api, sid: str, query: str = "", **more: Any) -> list[str]:
    return [one["token"] for one in (await api.ok("GET", f"sessions/{sid}/mentions", query=query, **more))["mentions"]]


def notebook_at(path: Path) -> None:
    cells = [
        nbformat.v4.new_markdown_cell("# Report"),
        nbformat.v4.new_code_cell("import math\nx = 1", execution_count=1),
        nbformat.v4.new_code_cell(
            "1 / 0",
            execution_count=2,
            outputs=[
                nbformat.v4.new_output(
                    "error", ename="ZeroDivisionError", evalue="division by zero", traceback=["\x1b[31mline 1\x1b[0m"]
                )
            ],
        ),
        nbformat.v4.new_code_cell("y = 2"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


async def read_prompt(api: Api, provider: ScriptedProvider, sid: str, text: str, **fields: Any) -> str:
    """What the model reads of a prompt."""
    accepted = await api.prompt(sid, text, **fields)
    await api.until_run_ends(sid, accepted["run_id"])
    return json.dumps(provider.requests[-1].body["messages"][-1], ensure_ascii=False)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Iterator[ScriptedProvider]:
    scripted = ScriptedProvider(Reply("Yes."))
    jp_asyncio_loop.run_until_complete(scripted.__aenter__())
    scripted.point(monkeypatch)
    yield scripted
    jp_asyncio_loop.run_until_complete(scripted.__aexit__())


MODEL = "openai-chat:gpt-5"


# --- completion


async def test_cells_and_errors_of_the_notebook_are_offered(api: Api, root: Path) -> None:
    notebook_at(root / "report.ipynb")
    sid = await api.session(notebook_path="report.ipynb")
    assert await tokens(api, sid, kind="cell") == ["@cell:#1", "@cell:#4", "@cell:In[1]", "@cell:In[2]"]
    assert await tokens(api, sid, "cell:In[2", kind="cell") == ["@cell:In[2]"]
    assert set(await tokens(api, sid, kind="error")) == {"@error", "@error:In[2]"}
    (cell,) = (await api.ok("GET", f"sessions/{sid}/mentions", kind="cell", query="In [1"))["mentions"]
    assert (cell["label"], cell["detail"]) == ("In [1]", "import math")


async def test_files_are_found_by_their_letters_and_names_with_blanks_are_quoted(api: Api, root: Path) -> None:
    (root / "data").mkdir()
    for name in ("data/sales.csv", "data/my sales.csv", "notes.txt", ".hidden.csv"):
        (root / name).write_text("x")
    sid = await api.session()
    assert (await tokens(api, sid, "sales", kind="file"))[:2] == ["@data/sales.csv", '@"data/my sales.csv"']
    assert (await tokens(api, sid, "dsal", kind="file"))[0] == "@data/sales.csv"
    assert ".hidden" not in " ".join(await tokens(api, sid, "hidden", kind="file"))


@pytest.mark.parametrize("name", ['a"b.csv', "a\nb.csv", "a`b`.csv", "\u202egpj.exe", "@x.csv", "a" * 240])
async def test_hostile_names_of_files_make_one_harmless_line(api: Api, root: Path, name: str) -> None:
    (root / name).write_text("secret")
    sid = await api.session()
    for one in (await api.ok("GET", f"sessions/{sid}/mentions", kind="file"))["mentions"]:
        assert one["token"].startswith("@")
        assert not set("\n\u202e") & set(one["token"] + one["label"])
        assert len(one["token"]) < 250


async def test_sessions_and_recalls_are_offered_by_title_but_not_those_of_others(api: Api) -> None:
    sid, other = await api.session(title="here"), await api.session(title="Why is the loss flat?")
    recall = {
        "session_id": other,
        "message": "check it",
        "title": "loss check",
        "schedule": {"kind": "once", "in": "1h"},
    }
    await api.ok("POST", "recalls", recall)
    assert await tokens(api, sid, "loss", kind="session,recall") == [
        '@recall:"loss check"',
        '@session:"Why is the loss flat?"',
    ]
    twins = [await api.session(title="twin") for _ in range(2)]
    assert sorted(await tokens(api, sid, "twin", kind="session")) == sorted(
        f"@session:{one.rpartition('_')[2][-8:]}" for one in twins
    )


async def test_the_kinds_are_checked_and_the_session_must_be_the_users(api: Api) -> None:
    sid = await api.session()
    check_error(await api("GET", f"sessions/{sid}/mentions", kind="cell,door"), 400, "invalid_request", "kind")
    check_error(await api("GET", "sessions/s_none/mentions"), 404, "session_not_found")


async def test_a_variable_of_an_idle_kernel_is_offered_and_a_busy_kernel_is_said(
    api: Api, jp_serverapp: ServerApp, provider: ScriptedProvider
) -> None:
    kernel_id = await jp_serverapp.kernel_manager.start_kernel()
    sid = await api.session(kernel_id=kernel_id, model=MODEL)
    client = jp_serverapp.kernel_manager.get_kernel(kernel_id).client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        await client.execute_interactive("prices = [1, 2, 3]\npress = 'x'", timeout=60)
        assert await tokens(api, sid, "pri", kind="variable") == ["@prices"]
        assert "[1, 2, 3]" in await read_prompt(api, provider, sid, "what is @prices?", mentions=["@prices"])
        client.execute("import time; time.sleep(30)")
        notes: list[str] = []
        while notes != ["The kernel is busy: its variables cannot be listed now."]:  # once it has begun
            notes = (await api.ok("GET", f"sessions/{sid}/mentions", kind="variable"))["notes"]
            await asyncio.sleep(0.1)
    finally:
        client.stop_channels()
        await jp_serverapp.kernel_manager.shutdown_kernel(kernel_id, now=True)


# --- what goes along


async def test_the_content_of_what_is_named_goes_along_as_foreign_text(
    api: Api, root: Path, provider: ScriptedProvider
) -> None:
    notebook_at(root / "report.ipynb")
    (root / "my data.csv").write_text("a,b\n1,2\n")
    sid = await api.session(notebook_path="report.ipynb", model=MODEL)
    mentions = ["@cell:In[1]", "@error", '@"my data.csv"']
    read = await read_prompt(api, provider, sid, "compare these", mentions=mentions)
    assert all(text in read for text in ("import math", "ZeroDivisionError", "a,b", "<<<data-"))
    assert "\\u001b" not in read
    prompt = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"][0]
    assert prompt["content"] == "compare these"
    assert [one["name"] for one in prompt["attachments"]] == mentions


async def test_what_cannot_be_found_is_said_and_a_bare_word_stays_a_word(
    api: Api, root: Path, provider: ScriptedProvider
) -> None:
    notebook_at(root / "report.ipynb")
    sid = await api.session(notebook_path="report.ipynb", model=MODEL)
    mentions = ["@cell:In[9]", "@data/none.csv", "@property", "@session:nothing", "@../../etc/passwd", "@/etc/passwd"]
    read = await read_prompt(api, provider, sid, "look at @property", mentions=mentions)
    names = [one["name"] for one in (await api.ok("GET", f"sessions/{sid}/messages"))["messages"][0]["attachments"]]
    lost = ["@cell:In[9]", "@none.csv", "@session:nothing", "@passwd", "@passwd"]
    assert names == [f"{one} (not found)" for one in lost]
    assert "the notebook has no such cell" in read
    assert "root:" not in read


async def test_a_mention_is_bounded(api: Api, root: Path, provider: ScriptedProvider) -> None:
    (root / "long.txt").write_text("line\n" * 100_000)
    (root / "wide.txt").write_text("x" * 3_000_000)
    (root / "out.txt").symlink_to("/etc/hostname")
    sid = await api.session(model=MODEL)
    mentions = ["@long.txt", "@wide.txt", "@out.txt"]
    read = await read_prompt(api, provider, sid, "look", mentions=mentions)
    assert len(read) < 60_000
    assert "lines 1 to 400 of 100,000" in read
    assert "@out.txt (not found)" in read


@pytest.mark.parametrize(
    "mentions", [["x"], ["@"], ["@ x"], ["@x\ny"], ["@" + "x" * 400], [f"@x{n}" for n in range(21)], "@x", [1]]
)
async def test_mentions_are_checked(api: Api, mentions: Any) -> None:
    sid = await api.session()
    body = {"type": "prompt", "text": "x", "mentions": mentions}
    answer = await api("POST", f"sessions/{sid}/commands", body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert "mentions" in answer.json["field"]


async def test_another_session_and_a_recall_go_along(api: Api, provider: ScriptedProvider) -> None:
    other = await api.session(title="first", model=MODEL)
    run = await api.prompt(other, "the secret word is plum")
    await api.until_run_ends(other, run["run_id"])
    made = {"session_id": other, "message": "water the plants", "schedule": {"kind": "once", "in": "1h"}}
    await api.ok("POST", "recalls", made)
    sid = await api.session(model=MODEL)
    read = await read_prompt(api, provider, sid, "x", mentions=["@session:first", '@recall:"water the plants"'])
    assert "plum" in read
    assert "latest_firings" in read


# --- prompts by name


async def test_prompts_are_listed_with_their_mistakes(api: Api, prompts_folder: Path) -> None:
    (prompts_folder / "weekly.md").write_text("---\ndescription: The week\n---\nSummarize: {input}")
    (prompts_folder / "recall.md").write_text("x")
    listed = {one["name"]: one for one in (await api.ok("GET", "prompts"))["prompts"]}
    assert {"fix", "explain", "document", "test"} <= set(listed)
    assert (listed["weekly"]["description"], listed["weekly"]["available"]) == ("The week", True)
    assert (listed["recall"]["available"], listed["recall"]["text"]) == (False, "")
    assert str(prompts_folder / "recall.md") in listed["recall"]["why"]


async def test_a_prompt_by_name_is_sent_in_full_and_shown_as_it_was_written(
    api: Api, prompts_folder: Path, provider: ScriptedProvider
) -> None:
    (prompts_folder / "weekly.md").write_text("Summarize the week: {input}")
    sid = await api.session(model=MODEL)
    assert "Summarize the week: in two lines" in await read_prompt(api, provider, sid, "/weekly in two lines")
    assert (await api.ok("GET", f"sessions/{sid}/messages"))["messages"][0]["content"] == "/weekly in two lines"
    assert "/unknown in two lines" in await read_prompt(api, provider, sid, "/unknown in two lines")


async def test_fix_carries_the_error_that_the_page_shows_as_foreign_text(api: Api, provider: ScriptedProvider) -> None:
    sid = await api.session(model=MODEL)
    page = {
        "path": "a.ipynb",
        "cells": [{"id": "c1", "source": "1 / 0", "execution_count": 4}],
        "active": "c1",
        "error": {"cell": "c1", "ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": "line 1"},
    }
    read = await read_prompt(api, provider, sid, "/fix", client={"tz": "UTC", "notebook": page})
    assert "Find the cause of this error" in read
    assert "The cell In [4]:" in read
    assert "<<<data-" in read


async def test_fix_carries_the_last_error_of_the_stored_notebook_where_no_page_shows_one(
    api: Api, root: Path, provider: ScriptedProvider
) -> None:
    notebook_at(root / "report.ipynb")
    sid = await api.session(notebook_path="report.ipynb", model=MODEL)
    read = await read_prompt(api, provider, sid, "/fix")
    assert "ZeroDivisionError" in read
    assert "1 / 0" in read
    (message,) = [one for one in (await api.ok("GET", f"sessions/{sid}/messages"))["messages"] if one["role"] == "user"]
    assert (message["content"], [one["name"] for one in message["attachments"]]) == ("/fix", ["@error"])
    # What a cell sends along is meant, and not the notebook.
    stored = {"data": "VmFsdWVFcnJvcg==", "name": "Out3.txt", "media_type": "text/plain"}
    assert "ZeroDivisionError" not in await read_prompt(api, provider, sid, "/fix", files=[stored])


async def test_a_recall_sends_the_prompt_that_its_message_names_as_it_is_then(
    api: Api, prompts_folder: Path, provider: ScriptedProvider
) -> None:
    file = prompts_folder / "weekly.md"
    file.write_text("the first text: {input}")
    sid = await api.session(model=MODEL)
    schedule = {"kind": "every", "every": "1h"}
    made = await api.ok("POST", "recalls", {"session_id": sid, "message": "/weekly short", "schedule": schedule})
    file.write_text("the second text: {input}")
    await api.ok("POST", f"recalls/{made['id']}/fire", {})
    for _ in range(200):
        runs = (await api.ok("GET", f"sessions/{sid}/runs"))["runs"]
        if runs and runs[0]["status"] == "completed":
            break
        await asyncio.sleep(0.05)
    assert "the second text: short" in json.dumps(provider.requests[-1].body["messages"][-1])
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert [one["content"] for one in messages if one["role"] == "user"] == ["/weekly short"]


async def test_a_mention_of_a_cell_is_of_what_the_page_shows(api: Api, root: Path, provider: ScriptedProvider) -> None:
    notebook_at(root / "report.ipynb")
    sid = await api.session(notebook_path="report.ipynb", model=MODEL)
    page = {
        "path": "report.ipynb",
        "cells": [{"id": "c", "source": "unsaved = 1", "execution_count": 1}],
        "unsaved": True,
    }
    client = {"tz": "UTC", "notebook": page}
    await read_prompt(api, provider, sid, "x", mentions=["@cell:In[1]"], client=client)
    prompt = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"][0]
    content = await api("GET", f"attachments/{prompt['attachments'][0]['id']}")
    assert b"unsaved = 1" in content.body


# --- once more


async def test_a_prompt_again_is_sent_as_it_was_with_its_files_and_the_answer_is_replaced(
    api: Api, root: Path, provider: ScriptedProvider
) -> None:
    (root / "a.csv").write_text("a,b\n")
    sid = await api.session(model=MODEL)
    accepted = await api.prompt(sid, "the whole text", display="short", mentions=["@a.csv"])
    await api.until_run_ends(sid, accepted["run_id"])
    read = await read_prompt(api, provider, sid, "short", replaces=accepted["run_id"], again=True)
    assert "the whole text" in read
    assert "a,b" in read
    assert len([one for one in provider.requests[-1].body["messages"] if one["role"] != "system"]) == 1
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert [one["content"] for one in messages if one["role"] == "user"] == ["short", "short"]
    runs = (await api.ok("GET", f"sessions/{sid}/runs"))["runs"]
    assert [run["rolled_back"] for run in runs] == [False, True]


async def test_again_needs_a_run_of_the_session(api: Api) -> None:
    sid, other = await api.session(), await api.session()
    accepted = await api.prompt(other, "count to 1")
    await api.until_run_ends(other, accepted["run_id"])
    answer = await api("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "x", "again": True})
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    body = {"type": "prompt", "text": "x", "again": True, "replaces": accepted["run_id"]}
    check_error(await api("POST", f"sessions/{sid}/commands", body), 404, "run_not_found")
