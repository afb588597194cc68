"""Conversations that are too long to be sent at once: what a follower gets first, and how it reads back."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.orchestrator.snapshot import PRELUDE_MESSAGES
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.export import files
from navi_jupyter.server.wire.sessions import MessageInfo, MessagePage
from tests.conftest import Api
from tests.support.long_sessions import lengthen

COPIES = 4_999  # with the run itself, ten thousand messages


def database_of(navi: NaviExtension) -> Path:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    return Path(navi.lifecycle.services.sessions.store.path)


def many_steps(database: Path, run_id: str, steps: int) -> list[dict[str, Any]]:
    """Makes the run one with so many steps, with calls of tools; its messages."""
    with closing(sqlite3.connect(database)) as db, db:
        (text,) = db.execute("SELECT transcript FROM runs WHERE id = ?", (run_id,)).fetchone()
        user, answer = json.loads(text)
        messages = [user]
        for step in range(steps):
            calls = [{"id": f"k{step}_{n}", "name": "now", "args": "{}", "result": "noon"} for n in range(step % 4)]
            messages.append({**answer, "id": f"a{step}", "content": f"step {step}", "tool_calls": calls})
            messages += [
                {**answer, "id": f"t_{call['id']}", "role": "tool", "content": "noon", "tool_call_id": call["id"]}
                for call in calls
            ]
        db.execute("UPDATE runs SET transcript = ? WHERE id = ?", (json.dumps(messages), run_id))
    return messages


async def one_run(api: Api, **session: Any) -> tuple[str, str]:
    sid = await api.session(**session)
    run_id = (await api.prompt(sid, "hello"))["run_id"]
    await api.until_run_ends(sid, run_id)
    return sid, run_id


async def snapshot_of(api: Api, sid: str) -> tuple[dict[str, Any], int]:
    """The first event that a follower gets, and the size of all that comes with it, in bytes."""
    async with api.socket(sid) as socket:
        envelopes = await socket.envelopes()
    snapshot: dict[str, Any] = envelopes[0]["event"]
    assert snapshot["type"] == "MESSAGES_SNAPSHOT"
    return snapshot, len(json.dumps(envelopes))


async def read_back(api: Api, sid: str, before: str | None, **query: Any) -> list[dict[str, Any]]:
    """Everything before a cursor, by pages, oldest first."""
    found: list[dict[str, Any]] = []
    while before is not None:
        page = await api.ok("GET", f"sessions/{sid}/transcript", before=before, **query)
        assert page["messages"]
        assert page["messages"][0]["role"] in ("user", "assistant"), "a result without its call cannot be shown"
        found = page["messages"] + found
        before = page["earlier"]
    return found


async def test_of_ten_thousand_messages_a_follower_gets_the_last_ones_and_reads_the_others_when_it_shows_them(
    api: Api, navi: NaviExtension
) -> None:
    sid, run_id = await one_run(api)
    await asyncio.to_thread(lengthen, database_of(navi), run_id, COPIES)
    snapshot, size = await snapshot_of(api, sid)
    last = snapshot["messages"]
    assert PRELUDE_MESSAGES <= len(last) <= PRELUDE_MESSAGES + 1
    assert last[-1]["runId"] == run_id
    assert size < 200_000
    earlier = await read_back(api, sid, snapshot["earlier"], limit=1000)
    whole = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert [message["id"] for message in earlier + last] == [message["id"] for message in whole]
    assert len(whole) == 2 * (COPIES + 1)


async def test_a_whole_conversation_is_read_and_written_outside_of_the_event_loop(
    api: Api, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As messages and in each kind of file, piece by piece."""
    sid, run_id = await one_run(api)
    await asyncio.to_thread(lengthen, database_of(navi), run_id, 20)
    loop, pieces = threading.get_ident(), Counter[str]()

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            assert threading.get_ident() != loop, name
            pieces[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for name in ("_info", "_body", "_page_blocks"):
        watch(files, name)
    for name in ("wire", "model_dump_json"):
        watch(MessageInfo, name)
    page = await api.ok("GET", f"sessions/{sid}/messages")
    assert pieces == {"_info": 42, "model_dump_json": 42}
    assert MessagePage.model_validate(page).wire() == page
    for kind in files.KINDS:
        pieces.clear()
        answer = await api("GET", f"sessions/{sid}/export", format=kind)
        assert answer.status == 200
        assert sum(pieces.values()) >= 2 * 42, kind


async def test_a_short_conversation_comes_whole_and_says_so(api: Api) -> None:
    sid, _ = await one_run(api)
    snapshot, _ = await snapshot_of(api, sid)
    assert len(snapshot["messages"]) == 2
    assert "earlier" not in snapshot
    page = await api.ok("GET", f"sessions/{sid}/transcript")
    assert (page["messages"], page["earlier"]) == (snapshot["messages"], None)
    empty = await api.session()
    nothing = {"messages": [], "runs": [], "questions": [], "earlier": None}
    assert await api.ok("GET", f"sessions/{empty}/transcript") == nothing


async def test_long_messages_make_fewer_of_them_the_first_ones(api: Api, navi: NaviExtension) -> None:
    sid, run_id = await one_run(api)
    await asyncio.to_thread(lengthen, database_of(navi), run_id, 100, lambda index: f"{index} " * 4_000)
    snapshot, size = await snapshot_of(api, sid)
    assert 2 < len(snapshot["messages"]) < 20
    assert size < 200_000
    earlier = await read_back(api, sid, snapshot["earlier"])
    assert len(earlier) + len(snapshot["messages"]) == 202


async def test_a_run_of_many_steps_is_cut_before_what_somebody_said(api: Api, navi: NaviExtension) -> None:
    sid, run_id = await one_run(api)
    messages = await asyncio.to_thread(many_steps, database_of(navi), run_id, 300)
    ids = [message["id"] for message in messages]
    snapshot, _ = await snapshot_of(api, sid)
    assert snapshot["messages"][0]["role"] == "assistant"
    for limit in (1, 7, 50, 1000):
        found = await read_back(api, sid, snapshot["earlier"], limit=limit)
        assert [message["id"] for message in found + snapshot["messages"]] == ids


async def test_a_page_is_read_from_a_run_on_and_says_how_its_runs_ended(api: Api, navi: NaviExtension) -> None:
    sid, run_id = await one_run(api)
    await asyncio.to_thread(lengthen, database_of(navi), run_id, 20)
    page = await api.ok("GET", f"sessions/{sid}/transcript", before="r_copy_10", limit=4)
    assert [message["runId"] for message in page["messages"]] == ["r_copy_8"] * 2 + ["r_copy_9"] * 2
    assert [(run["id"], run["status"]) for run in page["runs"]] == [
        ("r_copy_8", "completed"),
        ("r_copy_9", "completed"),
    ]


@pytest.mark.parametrize("before", ["nonsense", "1.2", "1.2.3.4", "-1.2.3", "1.2.x", "r_none", "9" * 30 + ".1.1"])
async def test_what_is_no_cursor_is_refused(api: Api, before: str) -> None:
    sid, _ = await one_run(api)
    answer = await api("GET", f"sessions/{sid}/transcript", before=before)
    assert (answer.status, answer.json["field"]) == (400, "before")


async def test_a_cursor_of_another_session_reads_nothing_of_it(api: Api, navi: NaviExtension) -> None:
    _, run_id = await one_run(api)
    await asyncio.to_thread(lengthen, database_of(navi), run_id, 20)
    other, other_run = await one_run(api)
    assert (await api("GET", f"sessions/{other}/transcript", before="r_copy_10")).status == 400
    page = await api.ok("GET", f"sessions/{other}/transcript", before=f"{10**17}.{10**17}.0")
    assert {message["runId"] for message in page["messages"]} == {other_run}
