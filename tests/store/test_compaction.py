"""Compaction: what it reads and writes of a log, and the pages that it leaves: bounded, whatever the log's length."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.events import Custom, Draft, Event, Outcome, RunFinished, TextMessageContent, ToolCallArgs
from navi_jupyter.model.sessions import USER, Run, RunStatus
from navi_jupyter.orchestrator.upkeep import compaction
from navi_jupyter.orchestrator.upkeep.compaction import compact, compact_batch, give_back
from navi_jupyter.ports.transactions import Foldable
from navi_jupyter.store.database import Database, Transaction
from navi_jupyter.store.log.compaction import _FOLDABLE, _TO_COMPACT, GAP
from navi_jupyter.store.served_owners import ServedOwners
from navi_jupyter.store.sqlite import database_file
from tests.support.database import on_sqlite

from .test_writer import count_transactions, opened


def delta(run_id: str, text: str) -> Draft:
    return Draft(TextMessageContent(message_id=f"u_{run_id}", delta=text), run_id=run_id, origin=USER, at=now())


async def queue(tx: Transaction, run_id: str) -> None:
    run = Run(
        id=run_id,
        session_id="s_1",
        command_id=f"c_{run_id}",
        status=RunStatus.QUEUED,
        origin=USER,
        model="m",
        created_at=now(),
    )
    seq = await tx.append("s_1", [delta(run_id, "prompt")])
    await tx.add_run(run, prompt="go", user_id="local", first_seq=seq)


async def perform(tx: Transaction, run_id: str, events: Sequence[Event]) -> None:
    """A queued run from its start to its end."""
    at = now()
    assert await tx.start_run(run_id, server_id="x", at=at, lease_until=at)
    await tx.append("s_1", [Draft(event, run_id=run_id, origin=USER, at=at) for event in events])
    await tx.end_run(run_id, status=RunStatus.COMPLETED, at=at)
    finished = RunFinished(thread_id="s_1", run_id=run_id, outcome=Outcome(type="success"))
    await tx.append("s_1", [Draft(finished, run_id=run_id, origin=USER, at=at)])


def texts(run_id: str, count: int) -> list[Event]:
    """Two messages and the arguments of a call that alternate: no two of one kind are next to each other."""
    kinds: list[Callable[[str], Event]] = [
        lambda text: TextMessageContent(message_id=f"m_{run_id}", delta=text),
        lambda text: TextMessageContent(message_id=f"n_{run_id}", delta=text),
        lambda text: ToolCallArgs(tool_call_id=f"t_{run_id}", delta=text),
    ]
    return [kinds[number % 3](f"{number} ") for number in range(count)]


async def told(store: Database) -> dict[str, str]:
    """What each message and call of the log says."""
    found: dict[str, str] = {}
    after = 0
    while page := await store.frames("s_1", after=after, limit=500):
        for _, frame in page:
            event = json.loads(frame)["event"]
            if "delta" in event:
                key = event.get("messageId") or event["toolCallId"]
                found[key] = found.get(key, "") + event["delta"]
        after = page[-1][0]
    return found


async def count(store: Database) -> int:
    return int((await store.fetch_all("SELECT count(*) AS n FROM events"))[0]["n"])


async def test_compaction_reads_each_event_once_however_long_the_log_is_and_prompts_have_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        for number in range(60):  # all prompts wait first: the beginning of each run lies far back
            await store.write(lambda tx, n=number: queue(tx, f"r_{n}"))
        for number in range(60):
            await store.write(lambda tx, n=number: perform(tx, f"r_{n}", texts(f"r_{n}", 12)))
        before, events = await told(store), await count(store)
        ranges: list[Foldable] = []
        read = store.foldable_frames

        async def seen(foldable: Foldable, *, limit: int) -> Any:
            ranges.append(foldable)
            return await read(foldable, limit=limit)

        monkeypatch.setattr(store, "foldable_frames", seen)
        assert await compact(store, older_than=timedelta(0)) == 60
        assert sum(each.last - each.after for each in ranges) <= events
        assert await told(store) == before
        assert await count(store) == 60 * (1 + 3 + 1)
        assert await store.runs_to_compact(ended_before=now(), limit=9) == []


async def test_a_run_of_an_earlier_version_ends_for_compaction_where_the_next_prompt_was_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number in range(3):
            await store.write(lambda tx, n=number: queue(tx, f"r_{n}"))
            await store.write(lambda tx, n=number: perform(tx, f"r_{n}", texts(f"r_{n}", 6)))
        await store.write(lambda tx: queue(tx, "r_withdrawn"))
        await store.write(lambda tx: tx.end_run("r_withdrawn", status=RunStatus.STOPPED, at=now()))
        await store.write(lambda tx: tx.change("UPDATE runs SET last_seq = NULL"))
        found = await store.runs_to_compact(ended_before=now(), limit=9)
        assert [(each.after, each.last) for each in found] == [(0, 9), (8, 17), (16, 25), (24, 0)]
        assert await compact(store, older_than=timedelta(0)) == 4
        assert await count(store) == 3 * 5 + 1


async def test_a_long_run_is_folded_in_transactions_of_bounded_size_each_of_which_can_be_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "READ_EVENTS", 100)
    monkeypatch.setattr(compaction, "UNIT_EVENTS", 100)
    async with opened(tmp_path) as store:
        await store.write(lambda tx: queue(tx, "r"))
        await store.write(lambda tx: perform(tx, "r", texts("r", 900)))
        before, sizes, cursors = await told(store), [], set()
        write, ends = store.write, 1_000

        async def counted(unit: Any, **more: Any) -> Any:
            if len(sizes) >= ends:
                raise KeyboardInterrupt  # the process ends here
            left = await count(store)
            result = await write(unit, **more)
            sizes.append(left - await count(store))
            return result

        monkeypatch.setattr(store, "write", counted)
        ends = 3
        with pytest.raises(KeyboardInterrupt):
            await compact(store, older_than=timedelta(0))
        assert await told(store) == before
        ends = 1_000
        assert await compact(store, older_than=timedelta(0)) == 1
        assert len(sizes) >= 9
        assert max(sizes) <= 100
        assert await told(store) == before
        assert await count(store) == 1 + 3 + 1  # each message is one event in the end
        cursors = {cursor for cursor in range(906) if await store.gap("s_1", cursor)}
        assert cursors == set(range(2, 901))


async def test_what_another_server_has_folded_meanwhile_is_not_folded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        await store.write(lambda tx: queue(tx, "r"))
        await store.write(lambda tx: perform(tx, "r", texts("r", 30)))
        before, read = await told(store), store.foldable_frames

        async def late(foldable: Foldable, *, limit: int) -> Any:
            page = await read(foldable, limit=limit)
            monkeypatch.setattr(store, "foldable_frames", read)
            await compact_batch(store, older_than=timedelta(0))  # the other one, in between
            await store.write(lambda tx: tx.change("UPDATE events SET frame = replace(frame, '0 ', 'x ')"))
            return page

        monkeypatch.setattr(store, "foldable_frames", late)
        await compact_batch(store, older_than=timedelta(0))
        assert await told(store) == {key: text.replace("0 ", "x ") for key, text in before.items()}


@on_sqlite
async def test_the_statements_of_compaction_and_the_gap_find_their_rows_by_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        to_compact = [
            (_TO_COMPACT.format(served=ServedOwners.of(each).of_session("runs.session_id")), 2) for each in "*a"
        ]
        for statement, width in (*to_compact, (_FOLDABLE, 6), (GAP, 2)):
            plan = await store.fetch_all(f"EXPLAIN QUERY PLAN {statement}", (0,) * width)
            steps = [row["detail"] for row in plan]
            scans = [step for step in steps if step.startswith("SCAN") and "(subquery" not in step]
            assert [step for step in scans if step != "SCAN page"] == [], steps
            assert any("events" in step and "seq>? AND seq<?" in step for step in steps) is (statement == _FOLDABLE)
        assert any("compactions" in step and "from_seq>? AND from_seq<?" in step for step in steps), steps


# --- pages


async def fill(store: Database, megabytes: int) -> None:
    pad = {"pad": "x" * 8_000}
    drafts = [Draft(Custom(name="navi.kernel", value=pad), run_id=None, origin=USER, at=now())] * 128
    for _ in range(megabytes):
        await store.write(lambda tx: tx.append("s_1", drafts))


def pages_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint")
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return int(db.execute("PRAGMA page_count").fetchone()[0])


@on_sqlite
async def test_unused_pages_are_given_back_to_the_file_system_in_small_steps(tmp_path: Path) -> None:
    path = tmp_path / "navi.db"
    async with opened(tmp_path) as store:
        await fill(store, 3)
        full = pages_of(path)
        await store.write(lambda tx: tx.change("DELETE FROM events WHERE seq > 10"))
        free = await store.free_pages()
        assert free > 700
        seen = await count_transactions(store)
        await give_back(store)
        assert await store.free_pages() == compaction.FREE_PAGES
        assert pages_of(path) <= full - free + compaction.FREE_PAGES
        assert seen.count("COMMIT") >= (free - compaction.FREE_PAGES) / compaction.PAGES_AT_ONCE
        assert len(await store.frames("s_1", after=0, limit=100)) == 10


@on_sqlite
@pytest.mark.parametrize("use", ["closed", "killed", "large"])
async def test_a_small_database_of_an_earlier_version_that_no_server_uses_is_written_anew(
    tmp_path: Path, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "navi.db"
    async with opened(tmp_path) as store:
        await fill(store, 1)
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA auto_vacuum = NONE")
        db.execute("VACUUM")
        db.execute(f"UPDATE database_state SET in_use = {int(use == 'killed')}")
        db.commit()
    if use == "large":
        monkeypatch.setattr(database_file, "REWRITTEN_BYTES", 2**20)
    async with opened(tmp_path) as store:
        await store.write(lambda tx: tx.change("DELETE FROM events WHERE seq > 10"))
        before = pages_of(path)
        assert (await store.free_pages() > 0) is (use == "closed")
        await give_back(store)
        await store.write(lambda tx: tx.give_back(1_000))
        assert (pages_of(path) < before) is (use == "closed")
        assert len(await store.frames("s_1", after=0, limit=100)) == 10
