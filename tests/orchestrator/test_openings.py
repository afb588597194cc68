"""Opening a long session: what is read, made and sent does not grow with it, and is made once for all who open it."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.events import Draft, Event, RunStarted, TextMessageContent, TextMessageStart
from navi_jupyter.model.sessions import USER, Run, RunStatus
from navi_jupyter.orchestrator.transcript import fold_frames
from navi_jupyter.ports.agent import Message, ToolCall
from navi_jupyter.store import runs as turns
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.log.frames import READ_EVENTS, JoinedTexts
from navi_jupyter.store.statements import Statements
from tests.support.database import URL, on_sqlite
from tests.support.orchestrator_world import OWNER, world


def message(run_id: str, name: str, role: str, text: str, **more: Any) -> Message:
    return Message(
        id=f"{name}_{run_id}", role=role, content=text, run_id=run_id, origin=USER, at=now().isoformat(), **more
    )


async def add_run(tx: Transaction, sid: str, run_id: str, messages: list[Message]) -> None:
    at = now()
    run = Run(
        id=run_id,
        session_id=sid,
        command_id=f"c_{run_id}",
        status=RunStatus.QUEUED,
        origin=USER,
        model="m",
        created_at=at,
    )
    await tx.add_run(run, prompt="go", user_id=OWNER, first_seq=1)
    await tx.start_run(run_id, server_id="x", at=at, lease_until=at)
    await tx.end_run(run_id, status=RunStatus.COMPLETED, at=at, transcript=messages)


async def test_ten_who_open_a_session_at_once_get_one_page_that_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "say 3")
        await w.until_end(sid, run.run_id)
        reads, asked, snapshot, opening_of = 0, 0, w.store.snapshot, w.orchestrator.log._opening

        async def counted(session_id: str, *, last: int | None = None) -> Any:
            nonlocal reads
            reads += 1
            while asked < 10:  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0)
            return await snapshot(session_id, last=last)

        async def asking(session_id: str) -> Any:
            nonlocal asked
            asked += 1
            return await opening_of(session_id)

        monkeypatch.setattr(w.store, "snapshot", counted)
        monkeypatch.setattr(w.orchestrator.log, "_opening", asking)
        logs = [w.orchestrator.log.follow(sid, after=None) for _ in range(10)]
        opening = [asyncio.create_task(anext(pages)) for pages in logs]
        while asked < 10:  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0)
        opening[0].cancel()  # who began it leaves
        pages = await asyncio.gather(*opening[1:])
        assert reads == 1
        assert all(page is pages[0] for page in pages)
        assert not w.orchestrator.log._openings
        for log in logs:
            await log.aclose()
        async with aclosing(w.orchestrator.log.follow(sid, after=None)) as later:
            assert (await anext(later)).last_seq == pages[0].last_seq
        assert reads == 2  # nothing is kept


async def test_results_of_any_size_come_in_slices_of_bounded_size_that_are_whole_together(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        everything: list[str] = []
        for number in range(3):
            calls = tuple(ToolCall(id=f"t{n}_{number}", name="read", args="{}") for n in range(12))
            run_id = f"r_{number}"
            messages = [
                message(run_id, "u", "user", "go"),
                message(run_id, "a", "assistant", "", tool_calls=calls),
                *(
                    message(run_id, f"o{n}", "tool", "x" * 150_000, tool_call_id=call.id)
                    for n, call in enumerate(calls)
                ),
            ]
            everything += [each.id for each in messages]
            await w.store.write(lambda tx, r=run_id, m=messages: add_run(tx, sid, r, m))  # type: ignore[misc]
        found: list[str] = []
        before: str | None = None
        while True:
            part = await w.store.transcript(sid, before=before, limit=150)
            assert sum(len(each.content) for each in part.messages) <= turns.LARGEST_SLICE
            found[:0] = [each.id for each in part.messages]
            before = part.earlier
            if before is None:
                break
        assert found == everything
        async with aclosing(w.orchestrator.log.follow(sid, after=None)) as pages:
            assert len((await anext(pages)).text) < 500_000


async def test_what_a_run_in_progress_has_said_is_read_in_pieces_and_opened_by_a_few_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many events it took to say it."""
    async with world(tmp_path) as w:
        sid, count, run_id = await w.session(), 12_345, "r_long"

        def draft(event: Event) -> Draft:
            return Draft(event, run_id=run_id, origin=USER, at=now())

        drafts = [draft(RunStarted(thread_id=sid, run_id=run_id)), draft(TextMessageStart(message_id="m"))]
        drafts += [draft(TextMessageContent(message_id="m", delta=f"{n} ")) for n in range(count)]

        async def unit(tx: Transaction) -> None:
            at = now()
            run = Run(
                id=run_id,
                session_id=sid,
                command_id="c",
                status=RunStatus.QUEUED,
                origin=USER,
                model="m",
                created_at=at,
            )
            await tx.add_run(run, prompt="go", user_id=OWNER, first_seq=1)
            await tx.start_run(run_id, server_id="x", at=at, lease_until=at)
            await tx.append(sid, drafts)

        await w.store.write(unit)
        reads: list[int] = []
        in_loop = threading.get_ident()
        read_all, join = Statements.all, JoinedTexts.add

        async def counted(self: Statements, sql: str, parameters: Any = ()) -> Any:
            rows = await read_all(self, sql, parameters)
            reads.append(len(rows))
            return rows

        def joined(self: JoinedTexts, frame: str) -> None:
            assert URL in os.environ or threading.get_ident() != in_loop  # PostgreSQL answers in the loop
            join(self, frame)

        monkeypatch.setattr(Statements, "all", counted)
        monkeypatch.setattr(JoinedTexts, "add", joined)
        snapshot = await w.store.snapshot(sid)
        assert snapshot is not None
        assert len(snapshot.frames) == 3
        assert sum(reads) >= count
        assert max(reads) <= READ_EVENTS
        whole = "".join(f"{n} " for n in range(count))
        frames = await w.store.run_frames(sid, run_id)
        assert [message.content for message in fold_frames(frames).messages()] == [whole]
        async with aclosing(w.orchestrator.log.follow(sid, after=None)) as pages:
            page = await anext(pages)
        assert len(page.envelopes) < 8
        assert len(page.text) < len(whole) + 3_000


@on_sqlite
async def test_the_end_of_a_conversation_is_read_without_the_rest(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for statement, width in ((turns._LAST_TURNS, 5), (turns._OLDEST_TURN, 1)):
            plan = await w.store.fetch_all(f"EXPLAIN QUERY PLAN {statement}", (0,) * width)
            steps = [row["detail"] for row in plan]
            reads = steps.index(next(step for step in steps if "runs_turns" in step))
            assert not any("runs_by_session" in step for step in steps)
            # What is sorted are the few that were found.
            assert not any("TEMP B-TREE" in step for step in steps[: reads + 1]), steps
            assert [row["detail"] for row in plan if row["parent"] == plan[reads]["parent"]] == [steps[reads]], steps
