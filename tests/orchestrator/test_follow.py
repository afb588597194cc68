"""Following: everyone sees the same envelopes, each once, in order, however they come and go."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from collections.abc import Iterable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tornado.websocket import WebSocketProtocol13, _WebSocketParams

from navi_jupyter.clock import now
from navi_jupyter.errors import SessionNotFound, StoreError
from navi_jupyter.events import Custom, Draft, TextMessageContent, TextMessageStart
from navi_jupyter.model.sessions import SYSTEM, USER, SessionPatch
from navi_jupyter.orchestrator import followers
from navi_jupyter.orchestrator.event_log import EventLog
from navi_jupyter.orchestrator.event_writer import EventWriter
from navi_jupyter.orchestrator.followers import Feed, Page, Ring, Rounds, make_page
from navi_jupyter.orchestrator.upkeep import compaction, maintenance
from navi_jupyter.orchestrator.upkeep.compaction import compact
from tests.support.database import Hold
from tests.support.orchestrator_world import OWNER, Envelope, World, ends, eventually, text_of, world


def frames_of(page: Page) -> list[str]:
    return [frame for _, frame in page.envelopes]


async def follow(w: World, sid: str, into: list[str], *, after: int | None, run_id: str | None) -> None:
    """Take envelopes until the end of a run."""
    async with aclosing(w.orchestrator.follow(sid, after=after, owner=OWNER)) as pages:
        async for page in pages:
            into += frames_of(page)
            if any(ends(run_id)(json.loads(frame)) for frame in frames_of(page)):
                return


async def note(w: World, sid: str, number: int) -> None:
    """Append one event that belongs to no run."""
    draft = Draft(Custom(name="navi.kernel", value={"n": number}), run_id=None, origin=SYSTEM, at=now())
    await w.store.write(lambda tx: tx.append(sid, [draft]))


async def test_followers_that_join_before_during_and_after_a_run_see_identical_envelopes(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        before: list[str] = []
        during: list[str] = []
        after: list[str] = []
        waiting = asyncio.create_task(w.until(sid, lambda e: e["event"].get("delta", "").startswith("0 ")))
        run = await w.prompt(sid, "say 300")
        first = asyncio.create_task(follow(w, sid, before, after=0, run_id=run.run_id))
        await waiting
        second = asyncio.create_task(follow(w, sid, during, after=0, run_id=run.run_id))
        await asyncio.gather(first, second)
        await follow(w, sid, after, after=0, run_id=run.run_id)
        assert before == during == after
        assert [json.loads(frame)["seq"] for frame in before] == list(range(1, len(before) + 1))
        assert text_of(map(json.loads, before), f"m_{run.run_id}") == "".join(f"{n} " for n in range(300))


async def test_a_follower_that_is_cut_at_two_hundred_points_sees_each_envelope_exactly_once(tmp_path: Path) -> None:
    dice = random.Random(2)
    async with world(tmp_path, replay_buffer_size=50) as w:
        sid = await w.session()
        run = await w.prompt(sid, "storm 3000")
        waiting = [await w.prompt(sid, "storm 1000") for _ in range(3)]
        whole: list[str] = []
        witness = asyncio.create_task(follow(w, sid, whole, after=0, run_id=waiting[-1].run_id))
        seen: list[str] = []
        cursor, cuts = 0, 0
        while not (seen and ends(waiting[-1].run_id)(json.loads(seen[-1]))):
            async with aclosing(w.orchestrator.follow(sid, after=cursor, owner=OWNER)) as pages:
                for _ in range(dice.randint(1, 2)):
                    envelopes = (await anext(pages)).envelopes
                    # What a socket delivers may end anywhere in a page.
                    got = envelopes[: dice.randint(1, min(len(envelopes), 40))] if cuts < 400 else envelopes
                    seen += [frame for _, frame in got]
                    cursor = got[-1][0]
                    if got[-1] != envelopes[-1] or ends(waiting[-1].run_id)(json.loads(seen[-1])):
                        break
            cuts += 1
        await witness
        assert cuts >= 200
        assert seen == whole
        assert run.run_id


async def test_a_follower_without_cursor_gets_the_prelude_then_the_tail(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        done = await w.prompt(sid, "say 2")
        await w.until_end(sid, done.run_id)
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        queued = await w.prompt(sid, "say 1", command_id="q1")
        async with aclosing(w.orchestrator.follow(sid, after=None, owner=OWNER)) as pages:
            prelude = [json.loads(frame) for frame in frames_of(await anext(pages))]
            head = prelude[0]["seq"]
            assert all(e["snapshot"] and e["seq"] == head for e in prelude)
            kinds = [e["event"]["type"] for e in prelude]
            assert kinds == ["MESSAGES_SNAPSHOT", "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
            assert prelude[3]["event"]["delta"] == "0 1 "
            messages = prelude[0]["event"]["messages"]
            assert [(m["role"], m.get("queued", False)) for m in messages] == [
                ("user", False),
                ("assistant", False),
                ("user", False),
                ("user", True),
            ]
            w.agent.gate.set()
            tail = [json.loads(frame) for frame in frames_of(await anext(pages))]
            assert tail[0]["seq"] == head + 1
        await w.until_end(sid, queued.run_id)


async def test_a_cursor_beyond_the_head_gets_a_gap_and_the_prelude(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "say 2")
        await w.until_end(sid, run.run_id)
        head = (await w.log(sid))[-1]["seq"]
        async with aclosing(w.orchestrator.follow(sid, after=head + 1000, owner=OWNER)) as pages:
            first = [json.loads(frame)["event"] for frame in frames_of(await anext(pages))]
        assert first[0]["value"] == {"since": head + 1000, "min_seq": head, "head_seq": head}
        assert first[1]["type"] == "MESSAGES_SNAPSHOT"


async def test_after_compaction_a_cursor_inside_a_message_gets_a_gap_and_others_the_same_text(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        for number in range(20):  # so that the run's deltas are many
            draft = Draft(
                TextMessageContent(message_id=f"m_{run.run_id}", delta=f"d{number} "),
                run_id=run.run_id,
                origin=USER,
                at=now(),
            )
            await w.store.write(lambda tx, draft=draft: tx.append(sid, [draft]))
        w.agent.gate.set()
        await w.until_end(sid, run.run_id)
        before = await w.log(sid)
        inside = [e["seq"] for e in before if e["event"].get("delta", "").startswith("d")]
        assert await compact(w.store, older_than=timedelta(0)) == 1
        assert await compact(w.store, older_than=timedelta(0)) == 0
        after = await w.log(sid)
        assert len(after) < len(before)
        assert text_of(after, f"m_{run.run_id}") == text_of(before, f"m_{run.run_id}")
        known = {e["seq"]: e for e in before}
        for cursor in range(len(before)):
            async with aclosing(w.orchestrator.follow(sid, after=cursor, owner=OWNER)) as pages:
                got = [json.loads(frame) for frame in frames_of(await anext(pages))]
            if inside[0] <= cursor < inside[-1]:
                assert got[0]["event"].get("name") == "navi.gap"
                rest, _ = await w.orchestrator.page(sid, owner=OWNER, after=cursor, limit=100)
                assert json.loads(rest[0])["event"].get("name") == "navi.gap"
            elif got[0]["event"].get("name") != "navi.gap":
                had = [e for e in before if e["seq"] <= cursor]
                text = text_of([*had, *got], f"m_{run.run_id}")
                assert text == text_of(before, f"m_{run.run_id}")
                assert all(known[e["seq"]]["event"]["type"] == e["event"]["type"] for e in got)


async def test_a_run_that_is_folded_under_a_slow_follower_is_not_told_twice(tmp_path: Path) -> None:
    async with world(tmp_path, replay_buffer_size=5) as w:
        sid = await w.session()
        await note(w, sid, 0)
        run_id = "r_long"
        drafts = [Draft(TextMessageStart(message_id="m"), run_id=run_id, origin=USER, at=now())]
        drafts += [
            Draft(TextMessageContent(message_id="m", delta=f"{n} "), run_id=run_id, origin=USER, at=now())
            for n in range(1200)
        ]
        await w.store.write(lambda tx: tx.append(sid, drafts))
        async with aclosing(w.orchestrator.follow(sid, after=0, owner=OWNER)) as pages:
            page = await anext(pages)
            assert 2 < page.last_seq < 1200
            frames = [json.loads(frame) for frame in await w.store.run_frames(sid, run_id)] or await w.log(sid)
            deltas = [e for e in frames if "delta" in e["event"]]
            whole = {**deltas[-1], "event": {**deltas[-1]["event"], "delta": "all"}}

            async def fold(tx: Any) -> None:
                await tx.fold_events(sid, {deltas[-1]["seq"]: json.dumps(whole)}, [e["seq"] for e in deltas[:-1]])
                await tx.note_folded(sid, run_id, [(deltas[0]["seq"], deltas[-1]["seq"])])

            await w.store.write(fold)
            assert json.loads(frames_of(await anext(pages))[0])["event"]["name"] == "navi.gap"


async def test_a_page_waits_for_the_first_event_and_no_longer_than_it_was_told(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        assert await w.orchestrator.page(sid, owner=OWNER, after=0, limit=5, wait=0.05) == ([], 0)
        waiting = asyncio.create_task(w.orchestrator.page(sid, owner=OWNER, after=0, limit=5, wait=10))
        await eventually(lambda: w.orchestrator.log.followers == 1)
        await note(w, sid, 1)
        frames, head = await waiting
        assert (len(frames), head) == (1, 1)
        assert w.orchestrator.log.followers == 0


async def test_a_follower_that_begins_while_another_servers_commits_are_looked_at_is_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        heads, asked, answered = w.store.heads, asyncio.Event(), asyncio.Event()

        async def slow(session_ids: Iterable[str]) -> dict[str, int]:
            found = await heads(session_ids)
            asked.set()
            await answered.wait()
            return found

        monkeypatch.setattr(w.store, "heads", slow)
        refreshing = asyncio.create_task(w.orchestrator.log.refresh())
        await asked.wait()
        sid = await w.session()
        run = await w.prompt(sid, "wait")
        end = asyncio.create_task(w.until_end(sid, run.run_id))
        await w.streaming(sid, run.run_id)
        answered.set()
        await refreshing
        w.agent.gate.set()
        assert (await end)["event"]["type"] == "RUN_FINISHED"


async def test_changing_a_session_is_told_to_its_followers(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session(title="old")
        waiting = asyncio.create_task(w.until(sid, lambda e: e["event"].get("name") == "navi.session"))
        await w.orchestrator.sessions.change(sid, SessionPatch(title="new"), owner=OWNER)
        value = (await waiting)[-1]["event"]["value"]
        assert (value["changed"], value["session"]["title"]) == (["title", "title_source"], "new")


async def test_followers_leave_nothing_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        followers = []
        for _ in range(20):
            pages = w.orchestrator.follow(sid, after=0, owner=OWNER)
            followers.append(asyncio.create_task(anext(pages)))
        await eventually(lambda: w.orchestrator.log.followers == 20)
        for task in followers:
            task.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        assert w.orchestrator.log.followers == 0
        assert not w.orchestrator.log._feeds
        with pytest.raises(SessionNotFound):
            await anext(w.orchestrator.follow("s_none", after=0, owner=OWNER))
        assert not w.orchestrator.log._feeds


async def test_a_reader_that_is_cancelled_anywhere_leaves_no_stale_view(tmp_path: Path) -> None:
    """A cancelled statement is performed by its thread all the same; the connection must not keep its snapshot."""
    async with world(tmp_path) as w:
        sid = await w.session()
        for number in range(60):
            task = asyncio.create_task(w.store.snapshot(sid))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await note(w, sid, number)
            heads = await asyncio.gather(*(w.store.head(sid) for _ in range(6)))
            assert set(heads) == {number + 1}
            snapshots = await asyncio.gather(*(w.store.snapshot(sid) for _ in range(3)))
            assert {s.head_seq for s in snapshots if s} == {number + 1}


# --- slow followers and storms


async def test_a_slow_follower_only_lags_and_holds_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, replay_buffer_size=100) as w:
        sid = await w.session()
        pages = w.orchestrator.follow(sid, after=0, owner=OWNER)
        run = await w.prompt(sid, "say 5000")
        first = await anext(pages)  # and then it does not come back for long
        await w.until_end(sid, run.run_id)
        feed = w.orchestrator.log._feeds[sid]
        assert len(feed.ring._seqs) <= 134
        assert sum(len(page.text) for page in feed._pages.values()) <= 32 * 300_000
        seen = [json.loads(frame) for frame in frames_of(first)]
        while not ends(run.run_id)(seen[-1]):
            seen += [json.loads(frame) for frame in frames_of(await anext(pages))]
        await pages.aclose()
        assert seen == await w.log(sid)


async def test_the_log_knows_how_far_its_followers_are_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        for number in range(3):
            await note(w, sid, number)
        assert w.orchestrator.log.lag() == (0, 0)
        readers = [w.orchestrator.follow(sid, after=after, owner=OWNER) for after in (0, 1)]
        polling = asyncio.create_task(w.orchestrator.page(sid, owner=OWNER, after=3, limit=9, wait=10))
        assert [(await anext(pages)).last_seq for pages in readers] == [3, 3]
        await eventually(lambda: w.orchestrator.log.followers == 3)
        assert w.orchestrator.log.lag() == (0, 0)
        for number in range(4):
            await note(w, sid, number)
        await polling
        assert w.orchestrator.log.lag() == (4, 2)
        assert (await anext(readers[0])).last_seq == 7
        assert w.orchestrator.log.lag() == (4, 1)
        for pages in readers:
            await pages.aclose()


async def test_deltas_that_gather_while_the_database_is_busy_become_one_event(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        hold = Hold()
        run = await w.prompt(sid, "wait")
        await w.streaming(sid, run.run_id)
        head = len(await w.log(sid))
        held = asyncio.create_task(w.store.write(hold))
        active = w.orchestrator._actors[sid][0].current
        assert active is not None
        for number in range(100):
            active._emit(TextMessageContent(message_id=f"m_{run.run_id}", delta=f"x{number}"))
        await asyncio.sleep(0)
        hold.release()
        await held
        w.agent.gate.set()
        await w.until_end(sid, run.run_id)
        new = (await w.log(sid))[head:]
        said = [e["event"]["delta"] for e in new if "delta" in e["event"]]
        assert "".join(said) == "".join(f"x{n}" for n in range(100))
        assert len(said) <= 2


async def test_a_writer_waits_when_too_much_waits_for_the_database(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        hold = Hold()
        run = await w.prompt(sid, "say 100000")
        await w.until(sid, lambda e: "delta" in e["event"] and e["event"]["messageId"] != e["run_id"])
        held = asyncio.create_task(w.store.write(hold))
        for _ in range(20_000):
            await asyncio.sleep(0)
        assert w.orchestrator._event_writer._count <= 2600
        hold.release()
        await held
        await w.stop(sid, run.run_id)
        await w.until_end(sid, run.run_id)


async def test_the_journal_offers_what_was_refused_again_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(1)
    async with world(tmp_path) as w:
        sid = await w.session()
        write, refusals = w.store.write, 0

        async def flaky(unit: Any, *, durable: bool = False) -> Any:
            nonlocal refusals
            if dice.random() < 0.4:
                refusals += 1
                raise StoreError("The disk is full.")
            return await write(unit, durable=durable)

        run = await w.prompt(sid, "say 400")
        monkeypatch.setattr(w.store, "write", flaky)
        await w.until_end(sid, run.run_id)
        monkeypatch.undo()
        log = await w.log(sid)
        assert refusals > 0
        assert text_of(log, f"m_{run.run_id}") == "".join(f"{n} " for n in range(400))


async def test_events_of_one_session_that_can_not_be_stored_do_not_end_the_others_writing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        good, bad = await w.session(), await w.session()
        run = await w.prompt(good, "wait")
        await w.streaming(good, run.run_id)
        draft = Draft(Custom(name="navi.kernel", value={"x": object()}), run_id=None, origin=SYSTEM, at=now())
        w.orchestrator._event_writer.write(bad, draft)
        active = w.orchestrator._actors[good][0].current
        assert active is not None
        # With a space: an end that may be the beginning of a secret, as a letter may be, is held back.
        active._emit(TextMessageContent(message_id=f"m_{run.run_id}", delta="still "))
        await w.until(good, lambda e: e["event"].get("delta") == "still ")
        w.agent.gate.set()
        assert (await w.until_end(good, run.run_id))["event"]["type"] == "RUN_FINISHED"


async def test_a_journal_that_stops_writes_what_it_has_first(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        journal = EventWriter(w.store, w.orchestrator.server.id)
        for number in range(1200):
            draft = Draft(Custom(name="navi.kernel", value={"n": number}), run_id=None, origin=SYSTEM, at=now())
            journal.write(sid, draft)
        journal.stop()
        await journal.work()
        assert [e["event"]["value"]["n"] for e in await w.log(sid)] == list(range(1200))


# --- pushed pages


class Reader:
    """A connection: takes what is pushed and what is yielded, and has room or not."""

    def __init__(self, w: World, sid: str, *, after: int | None = 0, owner: str = OWNER) -> None:
        self.pages: list[Page] = []
        self.pushed = 0
        self.full: asyncio.Future[None] | None = None  # while there is no room: done when the next page has left
        self._leaving: asyncio.Future[None] | None = None
        self.broken: Exception | None = None
        self._follow = w.orchestrator.follow(sid, after=after, owner=owner, push=self.push)
        self.task = asyncio.create_task(self._take())

    def push(self, page: Page) -> asyncio.Future[None] | None:
        if self.broken:
            raise self.broken
        assert self._leaving is None or self._leaving.done(), "pushed while the page before had not left"
        self._leaving = self.full
        self.pages.append(page)
        self.pushed += 1
        return self.full

    def lose_room(self) -> None:
        self.full = asyncio.get_running_loop().create_future()

    def make_room(self) -> None:
        if self.full is not None:
            full, self.full = self.full, None
            full.set_result(None)

    async def _take(self) -> None:
        async with aclosing(self._follow) as pages:
            async for page in pages:
                self.pages.append(page)
                del page
                if self.full is not None:
                    await self.full

    @property
    def envelopes(self) -> list[Envelope]:
        return [json.loads(frame) for page in self.pages for frame in frames_of(page)]

    @property
    def seqs(self) -> list[int]:
        return [seq for page in self.pages for seq, _ in page.envelopes]

    async def has(self, seq: int) -> None:
        await eventually(lambda: self.task.done() or (bool(self.pages) and self.pages[-1].last_seq >= seq))


async def keep_up(w: World, sid: str, count: int) -> None:
    """Wait until so many readers have all there is."""
    await eventually(lambda: sid in w.orchestrator.log._feeds)
    await eventually(lambda: len(w.orchestrator.log._feeds[sid]._caught_up) == count)


async def test_followers_that_keep_up_are_pushed_one_frame_that_all_share_and_their_tasks_sleep(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        readers = [Reader(w, sid) for _ in range(30)]
        await note(w, sid, 0)
        await asyncio.gather(*(reader.has(1) for reader in readers))
        pulled = [len(reader.pages) - reader.pushed for reader in readers]
        tasks = len(asyncio.all_tasks())
        for number in range(1, 20):
            await note(w, sid, number)
            await asyncio.gather(*(reader.has(number + 1) for reader in readers))
            assert len({id(reader.pages[-1].frame) for reader in readers}) == 1
        assert [len(reader.pages) - reader.pushed for reader in readers] == pulled
        assert len(asyncio.all_tasks()) == tasks
        assert all(reader.seqs == list(range(1, 21)) for reader in readers)
        delivered = w.orchestrator.log.delivered
        assert delivered == 30 * 20
        for reader in readers:
            reader.task.cancel()
        await asyncio.gather(*(reader.task for reader in readers), return_exceptions=True)
        assert not w.orchestrator.log._feeds


async def test_a_reader_of_a_shared_session_is_pushed_nothing_each_page_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        shared = True

        async def is_shared(session_id: str, user_id: str) -> bool:
            return shared

        monkeypatch.setattr(w.store, "is_shared", is_shared)
        reader = Reader(w, sid, owner="bob")
        await eventually(lambda: w.orchestrator.log.followers == 1)
        await note(w, sid, 0)
        await reader.has(1)
        shared = False
        await note(w, sid, 1)
        with pytest.raises(SessionNotFound):
            await asyncio.wait_for(reader.task, 20)
        assert (reader.seqs, reader.pushed) == ([1], 0)


async def test_a_feed_whose_page_cannot_be_made_ends_its_followers_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as w:
        one, two = await w.session(), await w.session()
        ended, other = Reader(w, one), Reader(w, two)
        for sid in (one, two):
            await note(w, sid, 0)
            await keep_up(w, sid, 1)
        feed = w.orchestrator.log._feeds[one]
        page = Feed.page

        def failing(self: Feed, cursor: int) -> Page | None:
            if self is feed:
                raise MemoryError
            return page(self, cursor)

        monkeypatch.setattr(Feed, "page", failing)
        await note(w, one, 1)
        with pytest.raises(MemoryError):
            await asyncio.wait_for(ended.task, 20)
        await note(w, two, 1)
        await other.has(2)
        assert other.seqs == [1, 2]
        other.task.cancel()


async def test_a_reader_that_has_all_keeps_no_page(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        run = await w.prompt(sid, "say 5")
        await w.until_end(sid, run.run_id)
        reader = Reader(w, sid, after=None)
        await keep_up(w, sid, 1)
        await note(w, sid, 0)
        await eventually(lambda: reader.pushed > 0)
        await note(w, sid, 1)
        await eventually(lambda: reader.pushed > 1)
        reader.pages.clear()
        w.orchestrator.log._feeds[sid]._pages.clear()
        gc.collect()
        assert not [page for page in gc.get_objects() if type(page) is Page and page.envelopes]
        reader.task.cancel()


async def test_a_reader_without_room_is_pushed_nothing_costs_the_others_nothing_and_goes_on_without_a_gap(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, replay_buffer_size=20) as w:
        sid = await w.session()
        quick, slow = Reader(w, sid), Reader(w, sid)
        await note(w, sid, 0)
        await asyncio.gather(quick.has(1), slow.has(1))
        await keep_up(w, sid, 2)
        slow.lose_room()
        for number in range(1, 200):
            await note(w, sid, number)
            await quick.has(number + 1)
        assert (slow.seqs, w.orchestrator.log.lag()) == ([1, 2], (198, 1))
        pushed = slow.pushed
        slow.make_room()
        await slow.has(200)
        assert slow.pushed == pushed  # it read the store by itself: the ring does not reach that far back
        assert slow.seqs == quick.seqs == list(range(1, 201))
        await note(w, sid, 200)
        await eventually(lambda: slow.pushed == pushed + 1)
        for reader in (quick, slow):
            reader.task.cancel()


async def test_a_reader_that_is_pages_behind_when_it_has_room_again_is_pushed_all_of_them_at_once(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, replay_buffer_size=5000) as w:
        sid = await w.session()
        reader = Reader(w, sid)
        await keep_up(w, sid, 1)
        reader.lose_room()
        await note(w, sid, 0)
        await eventually(lambda: reader.pushed == 1)
        drafts = [
            Draft(Custom(name="navi.kernel", value={"n": n}), run_id=None, origin=SYSTEM, at=now()) for n in range(1200)
        ]
        await w.store.write(lambda tx: tx.append(sid, drafts))
        reader.make_room()
        await reader.has(1201)  # and nothing more is written that would wake it
        assert [len(page.envelopes) for page in reader.pages] == [1, 500, 500, 200]
        assert reader.pushed == 4
        reader.task.cancel()


async def test_a_reader_that_cannot_be_written_to_ends_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        readers = [Reader(w, sid) for _ in range(3)]
        await keep_up(w, sid, 3)
        readers[1].broken = ConnectionError("gone")
        for number in range(3):
            await note(w, sid, number)
        await asyncio.gather(*(reader.has(3) for reader in readers))
        with pytest.raises(ConnectionError, match="gone"):
            await readers[1].task
        assert w.orchestrator.log.followers == 2
        assert readers[0].seqs == readers[2].seqs == [1, 2, 3]
        w.orchestrator.log.close_session(sid)
        await asyncio.gather(readers[0].task, readers[2].task)
        assert not w.orchestrator.log._feeds


async def test_a_session_that_is_deleted_while_a_reader_looks_into_the_store_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, replay_buffer_size=1) as w:
        sid = await w.session()
        for number in range(3):
            await note(w, sid, number)
        feeds = w.orchestrator.log._feeds
        reading, release = asyncio.Event(), asyncio.Event()

        async def frames(session_id: str, *, after: int, limit: int) -> list[tuple[int, str]]:
            reading.set()
            await release.wait()
            return []

        monkeypatch.setattr(w.store, "frames", frames)
        reader = Reader(w, sid)
        await reading.wait()
        feeds[sid].close()
        release.set()
        await asyncio.wait_for(reader.task, 20)


async def test_serving_takes_a_slice_of_a_turn_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "SLICE", 0)
    async with world(tmp_path) as w:
        sid = await w.session()
        readers = [Reader(w, sid) for _ in range(50)]
        await keep_up(w, sid, 50)
        turns: set[int] = set()
        turn = 0

        def count() -> None:
            nonlocal turn
            turn += 1
            asyncio.get_running_loop().call_soon(count)

        for reader in readers:
            reader.push = lambda page, take=reader.push: (turns.add(turn), take(page))[1]  # type: ignore[method-assign]
        for member, reader in zip(w.orchestrator.log._feeds[sid]._caught_up, readers, strict=True):
            member.push = reader.push
        count()
        await note(w, sid, 0)
        await asyncio.gather(*(reader.has(1) for reader in readers))
        assert len(turns) == 50
        for reader in readers:
            reader.task.cancel()


async def test_rounds_are_held_back_under_load_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, clock = 0.0, 0.0

    def thread_time() -> float:
        nonlocal clock
        clock += cost / 2  # asked before and after
        return clock

    monkeypatch.setattr(followers.time, "thread_time", thread_time)
    monkeypatch.setattr(followers, "LONGEST_HOLD", 60)
    rounds = Rounds()
    feed = Feed("s", Ring(max_events=10, max_bytes=1000), rounds)
    for seconds, held in ((0.001, False), (5, False), (5, True), (5000, True), (5, True)):
        cost = seconds
        feed.extend([])
        assert isinstance(rounds._next, asyncio.TimerHandle) == held
        if isinstance(rounds._next, asyncio.TimerHandle):
            assert rounds._next.when() <= asyncio.get_running_loop().time() + 60
        assert rounds._next is not None
        rounds._next.cancel()
        rounds._begin()


async def test_readers_with_any_connection_see_every_event_once_in_order(tmp_path: Path) -> None:
    """They lose room and get it again, hang up and come back at their cursors; the ring is short; others write, too."""
    dice = random.Random(14)
    async with world(tmp_path, replay_buffer_size=30) as w:
        sid = await w.session()
        whole: list[list[int]] = [[] for _ in range(20)]
        readers: list[Reader | None] = [None] * 20
        for number in range(400):
            await asyncio.gather(*(note(w, sid, number) for _ in range(dice.choice((1, 1, 1, 25)))))
            if (
                dice.random() < 0.1 and sid in w.orchestrator.log._feeds
            ):  # as if another server had written what came since
                w.orchestrator.log._feeds[sid].ring._clear(await w.store.head(sid) or 0)
            for place in dice.sample(range(20), 5):
                reader = readers[place]
                if reader is None:
                    cursor = whole[place][-1] if whole[place] else 0
                    readers[place] = Reader(w, sid, after=cursor)
                elif reader.full is not None:
                    reader.make_room()
                elif dice.random() < 0.3:
                    reader.task.cancel()
                    await asyncio.gather(reader.task, return_exceptions=True)
                    whole[place] += reader.seqs
                    readers[place] = None
                else:
                    reader.lose_room()
        head = await w.store.head(sid) or 0
        for place, reader in enumerate(readers):
            if reader is None:
                reader = Reader(w, sid, after=whole[place][-1] if whole[place] else 0)
            reader.make_room()
            await eventually(lambda reader=reader, place=place: (whole[place] + reader.seqs)[-1:] == [head])
            assert whole[place] + reader.seqs == list(range(1, head + 1))
            reader.task.cancel()
        assert w.orchestrator.log._rounds.pushed > 1000


# --- the ring


def envelope(seq: int, size: int = 10) -> tuple[int, str]:
    return seq, "x" * size


def test_the_ring_is_bounded_by_count() -> None:
    ring = Ring(max_events=100, max_bytes=2**30)
    for seq in range(1, 1001):
        ring.extend([envelope(seq)])
        assert len(ring._seqs) <= 134  # cut in lumps of a quarter
        kept = ring.after(ring.start)
        assert kept is not None
        assert [s for s, _ in kept] == list(range(ring.start + 1, seq + 1))
    assert ring.after(0) is None
    assert ring.start >= 866


def test_the_ring_is_bounded_by_bytes_and_counts_them_as_encoded() -> None:
    ring = Ring(max_events=10**6, max_bytes=10_000)
    for seq in range(1, 200):
        ring.extend([(seq, "ä" * 500)])
        assert sum(len(frame.encode()) for frame in ring._frames) == ring._bytes
        assert ring._bytes <= 11_000
    ring.extend([(200, "y" * 50_000)])
    assert ring.after(199) == [(200, "y" * 50_000)]


def test_events_of_another_server_in_between_empty_the_ring_and_are_not_skipped_over() -> None:
    ring = Ring(max_events=100, max_bytes=2**30)
    ring.extend([envelope(1), envelope(2)])
    ring.extend([envelope(5)])
    assert ring.after(2) is None
    assert ring.after(4) == [envelope(5)]
    ring.extend([envelope(4), envelope(5)])  # late news change nothing
    assert (ring.start, ring.head) == (4, 5)
    ring.skip_to(9)
    assert ring.after(5) is None
    assert ring.after(9) == []


def test_a_page_ends_before_it_is_too_large_but_has_one_event_at_least() -> None:
    ring = Ring(max_events=100, max_bytes=2**30)
    ring.extend([envelope(seq, 100_000) for seq in range(1, 11)])
    page = ring.after(0)
    assert page is not None
    assert len(page) == 2
    ring.extend([envelope(11, 10**6)])
    assert ring.after(10) == [envelope(11, 10**6)]


@pytest.mark.parametrize("size", [1, 125, 126, 127, 65535, 65536, 300_000])
def test_a_page_is_framed_as_tornado_frames_a_text_message(size: int) -> None:
    written: list[bytes] = []

    class Stream:
        def write(self, data: bytes) -> None:
            written.append(data)

    protocol = WebSocketProtocol13(None, False, _WebSocketParams())  # type: ignore[arg-type]
    protocol.stream = Stream()  # type: ignore[assignment]
    page = make_page([(1, "x" * size)])
    protocol._write_frame(True, 1, page.text)
    assert page.text == b"x" * size
    assert written == [page.frame]


def test_one_event_is_a_frame_by_itself_and_several_are_a_batch() -> None:
    assert make_page([(1, '{"seq":1}')]).text == b'{"seq":1}'
    assert json.loads(make_page([(1, '{"seq":1}'), (2, '{"seq":2}')]).text) == {"batch": [{"seq": 1}, {"seq": 2}]}


async def test_large_events_are_read_from_the_store_a_few_at_a_time(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        for number in range(6):
            event = Custom(name="navi.kernel", value={"n": number, "x": "y" * 800_000})
            await w.store.write(
                lambda tx, event=event: tx.append(sid, [Draft(event, run_id=None, origin=SYSTEM, at=now())])
            )
        assert [len(await w.store.frames(sid, after=after, limit=500)) for after in (0, 2, 4)] == [2, 2, 2]


async def test_followers_who_fell_behind_together_read_the_store_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, replay_buffer_size=10) as w:
        sid = await w.session()
        drafts = [
            Draft(Custom(name="navi.kernel", value={"n": n}), run_id=None, origin=SYSTEM, at=now()) for n in range(3000)
        ]
        await w.store.write(lambda tx: tx.append(sid, drafts))
        reads, frames = 0, w.store.frames

        async def counted(session_id: str, *, after: int, limit: int) -> Any:
            nonlocal reads
            reads += 1
            return await frames(session_id, after=after, limit=limit)

        monkeypatch.setattr(w.store, "frames", counted)
        ready = asyncio.Barrier(50)

        async def catch_up() -> list[Envelope]:
            await ready.wait()
            return await w.until(sid, lambda e: e["seq"] == 3000)

        seen = await asyncio.gather(*(catch_up() for _ in range(50)))
        assert all([e["seq"] for e in one] == list(range(1, 3001)) for one in seen)
        assert reads <= 100


async def test_a_stopped_log_lets_nobody_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        sid = await w.session()
        log = EventLog(w.store, ring_events=10)
        log.close()
        with pytest.raises(SessionNotFound):
            await anext(log.follow(sid, after=0))


async def test_what_is_old_enough_is_compacted_soon_after_the_start_in_one_batch_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BATCH", 2)
    monkeypatch.setattr(maintenance, "COMPACT_PAUSE", 0.01)
    assert maintenance.COMPACT_FIRST < 60
    assert maintenance.COMPACT_EVERY <= 300
    async with world(tmp_path) as w:
        sid = await w.session()
        for _ in range(5):
            run = await w.prompt(sid, "storm 20")
            await w.until_end(sid, run.run_id)
        assert len(await w.store.runs_to_compact(ended_before=now(), limit=9)) == 5
    monkeypatch.setattr(maintenance, "COMPACT_FIRST", 0.05)
    async with world(tmp_path, compact_after=0.0) as w, asyncio.timeout(20):
        while await w.store.runs_to_compact(ended_before=now(), limit=9):  # noqa: ASYNC110  nothing else tells
            await asyncio.sleep(0.02)
