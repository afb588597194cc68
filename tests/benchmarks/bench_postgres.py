"""The store on PostgreSQL, beside the one on SQLite in turns: prompts accepted, rows of logs, firings, follow.

    python tests/benchmarks/bench_postgres.py [--rounds 3] [--url postgresql://…]

Without a URL it starts a private PostgreSQL from the installed programs, with ``fsync`` on. Medians of the rounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.clock import now
from navi_jupyter.commands import Acceptance, Prompt
from navi_jupyter.events import Custom, Draft, Event
from navi_jupyter.model.base import ordered_id
from navi_jupyter.model.recalls import Once, Recall
from navi_jupyter.model.sessions import SYSTEM, Session, SessionCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.ports.agent import ToolContext, Turn, TurnResult
from navi_jupyter.ports.recalls import RecallState
from navi_jupyter.scheduling.scheduler import Scheduler
from navi_jupyter.settings import Limits, Settings
from navi_jupyter.store.database import Database
from navi_jupyter.store.postgres import connection as pg
from navi_jupyter.store.postgres.store import PostgresStore
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import Figures, arguments
from tests.support.postgres import MISSING, PrivatePostgres, find_programs

Open = Callable[[], Any]


class Busy:
    """An agent that never ends: what is accepted waits."""

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        await asyncio.sleep(3600)
        yield TurnResult(conversation=b"{}")


def draft(number: int) -> Draft:
    return Draft(Custom(name="navi.kernel", value={"n": number, "pad": "x" * 80}), run_id=None, origin=SYSTEM, at=now())


@contextlib.contextmanager
def statements() -> Iterator[list[str]]:
    """What is performed meanwhile on PostgreSQL for units of work."""
    seen: list[str] = []
    really = {name: getattr(pg.PostgresConnection, name) for name in ("execute", "execute_fetchall", "executemany")}

    def counting(name: str) -> Any:
        async def call(self: Any, sql: str, *rest: Any) -> Any:
            seen.append(sql)
            return await really[name](self, sql, *rest)

        return call

    for name in really:
        setattr(pg.PostgresConnection, name, counting(name))
    try:
        yield seen
    finally:
        for name, call in really.items():
            setattr(pg.PostgresConnection, name, call)


@asynccontextmanager
async def orchestrated(store: Database, sessions: int) -> AsyncIterator[tuple[Orchestrator, list[str]]]:
    limits = Limits(max_queued_prompts=100_000) if "max_queued_prompts" in Limits.__dataclass_fields__ else Limits()
    conductor = Orchestrator(
        store, Busy(), settings=Settings(max_concurrent_runs=1, max_sessions_per_user=100_000, limits=limits)
    )
    await conductor.start(None)  # type: ignore[arg-type]
    try:
        ids = [(await conductor.sessions.create(SessionCreate(), owner="o")).id for _ in range(sessions)]
        yield conductor, ids
    finally:
        await conductor.stop()


async def submit_all(conductor: Orchestrator, ids: list[str], count: int, at_once: int) -> float:
    """Prompts of so many clients at a time, to the sessions in turn: the seconds that all take."""
    todo = iter(range(count))

    async def client() -> None:
        for n in todo:
            await conductor.submit(ids[n % len(ids)], Prompt(text=f"prompt {n}"), user_id="o")

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    return time.perf_counter() - began


async def accepted(store: Database, count: int = 600, at_once: int = 30) -> dict[str, float]:
    """Prompts per second, of many clients at once; and how long one alone waits."""
    async with orchestrated(store, 60) as (conductor, ids):
        await conductor.submit(ids[0], Prompt(text="first"), user_id="o")
        lone = []
        for n in range(20):
            began = time.perf_counter()
            await conductor.submit(ids[n], Prompt(text="alone"), user_id="o")
            lone.append(time.perf_counter() - began)
        took = await submit_all(conductor, ids, count, at_once)
    return {"prompts accepted, 1/s": count / took, "a lone prompt, ms": statistics.median(lone) * 1e3}


async def logged(store: Database, rows: int = 20_000) -> dict[str, float]:
    """Rows of logs per second: batches of 40 events for 20 sessions each, as runs that stream write them."""
    ids = [f"s_{n}" for n in range(20)]
    await add_sessions(store, ids)
    drafts = [draft(n) for n in range(40)]
    began = time.perf_counter()
    for _ in range(rows // (len(ids) * len(drafts))):
        await store.write(lambda tx: tx.append_all(dict.fromkeys(ids, drafts)))
    return {"rows of logs, 1/s": rows / (time.perf_counter() - began)}


async def add_sessions(store: Database, ids: list[str]) -> None:
    at = now()

    async def unit(tx: Any) -> None:
        for one in ids:
            await tx.add_session(
                Session(id=one, owner="o", title="t", profile="p", model="m", created_at=at, updated_at=at)
            )

    await store.write(unit)


async def add_due_recalls(store: Database, due: datetime, count: int) -> None:
    """Recalls that are due once, each of its own session."""
    at = now()
    for low in range(0, count, 500):
        numbers = range(low, min(low + 500, count))
        await add_sessions(store, [f"s_r{n}" for n in numbers])
        recalls = [
            Recall(
                id=ordered_id("rec"), session_id=f"s_r{n}", title="t", message="look", schedule=Once(at=due),
                policy={}, status="pending", next_at=due, created_at=at,
            )
            for n in numbers
        ]  # fmt: skip
        states = [RecallState(recall=recall, owner="o", due_at=due) for recall in recalls]
        await store.write(lambda tx, states=states: tx.add_recalls(states))


async def fired(store: Database, count: int) -> dict[str, float]:
    """Recalls due at once, each of its own session: planned, claimed and delivered to sessions that take no time."""
    due = (now() + timedelta(seconds=4 + count / 1_500)).replace(microsecond=0)
    await add_due_recalls(store, due, count)
    delivered: list[datetime] = []

    async def submit(_session_id: str, command: Any, **_: Any) -> Acceptance:
        delivered.append(now())
        return Acceptance(command_id=command.command_id, seq=1, run_id=f"r_{len(delivered)}")

    async with Scheduler(store, submit, server_id="bench"), asyncio.timeout(120):
        while len(delivered) < count:  # noqa: ASYNC110 - polled, so that nothing of ours is in the measured path
            await asyncio.sleep(0.02)
    late = sorted((each - due).total_seconds() for each in delivered)
    return {
        f"{count} due at once: p99 late, ms": late[int(len(late) * 0.99)] * 1e3,
        f"{count} due at once, 1/s": count / max(late[-1], 1e-3),
    }


async def followed(one: Database, other: Database, rate: int, seconds: float = 5.0) -> dict[str, float]:
    """How long an event of one server needs until another one, which listens, can read it."""
    at = now()
    session = Session(id="s_f", owner="o", title="t", profile="p", model="m", created_at=at, updated_at=at)
    await one.write(lambda tx: tx.add_session(session))
    written: dict[int, float] = {}
    waits: list[float] = []
    over = asyncio.Event()

    async def read() -> None:
        last = 0
        while not over.is_set():
            await other.changed_elsewhere(within=0.05)
            for seq, _ in await other.frames("s_f", after=last, limit=1_000):
                waits.append(time.perf_counter() - written[seq])
                last = seq

    reader = asyncio.create_task(read())
    began = time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        written[n + 1] = time.perf_counter()
        await one.write(lambda tx, n=n: tx.append("s_f", [draft(n)]))
    await asyncio.sleep(0.3)
    over.set()
    await reader
    waits.sort()
    return {
        f"follow at {rate}/s: p50, ms": waits[len(waits) // 2] * 1e3,
        f"follow at {rate}/s: p99, ms": waits[int(len(waits) * 0.99)] * 1e3,
    }


async def measured(open_store: Callable[[], Any], parts: list[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for part in parts:
        store = await open_store()
        try:
            match part:
                case "prompts":
                    found |= await accepted(store)
                case "rows":
                    found |= await logged(store)
                case "recalls":
                    found |= await fired(store, 1_000)
                case "recalls10k":
                    found |= await fired(store, 10_000)
        finally:
            await store.close()
    return found


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url")
    parser.add_argument("--parts", nargs="*", default=["prompts", "rows", "recalls", "recalls10k", "follow"])
    given = parser.parse_args()
    programs = find_programs()
    if given.url is None and programs is None:
        sys.exit(f"needs {MISSING}, or --url")
    server = None if given.url else PrivatePostgres(programs or Path(), durable=True)
    base = given.url or (server.url() if server else "")
    try:
        figures = await report(base, 1 if given.quick else given.rounds, given.parts)
    finally:
        if server is not None:
            server.remove()
    figures.write(given.json)


async def report(base: str, rounds: int, parts: list[str]) -> Figures:
    figures = Figures()

    def new_url() -> str:
        return f"{base}{'&' if '?' in base else '?'}search_path=b_{secrets.token_hex(6)}"

    results: dict[str, dict[str, list[float]]] = {"SQLite": {}, "PostgreSQL": {}}
    for _ in range(rounds):
        for name in results:
            with tempfile.TemporaryDirectory() as folder:

                async def opened(name: str = name, folder: str = folder) -> Database:
                    if name == "SQLite":
                        return await SqliteStore.open(Path(folder) / f"{secrets.token_hex(4)}.db")
                    return await PostgresStore.open(new_url())

                for what, value in (await measured(opened, [part for part in parts if part != "follow"])).items():
                    results[name].setdefault(what, []).append(value)
        if "follow" in parts:
            url = new_url()
            one, other = await PostgresStore.open(url), await PostgresStore.open(url)
            for what, value in (await followed(one, other, 100)).items():
                results["PostgreSQL"].setdefault(what, []).append(value)
            await one.close()
            await other.close()
    for what, values in results["PostgreSQL"].items():
        figures.add(f"PostgreSQL: {what}", statistics.median(values))
        if theirs := results["SQLite"].get(what):
            figures.add(f"SQLite: {what}", statistics.median(theirs))
    if "prompts" in parts:
        store = await PostgresStore.open(new_url())
        async with orchestrated(store, 2) as (conductor, ids):
            await conductor.submit(ids[0], Prompt(text="first"), user_id="o")
            await asyncio.sleep(1)
            with statements() as seen:
                await conductor.submit(ids[1], Prompt(text="counted"), user_id="o")
            words = [sql.split("(")[0][:60] for sql in seen]
            print(*words, sep="\n")
            figures.add("PostgreSQL: a prompt, statements", len(seen))
        await store.close()
    return figures


if __name__ == "__main__":
    asyncio.run(main())
