"""The store by itself: how long a lone event takes to be durable and seen, and how many events a second it takes.

    python tests/benchmarks/bench_store.py [--events 20000]

Reports: commit latency of a lone event (p50, p99; ``kill``: survives a killed process, ``power``: fsynced), events
per second through the journal for 1 and for 50 sessions at once (events that cannot be merged), and how long another
process's commit takes to reach a follower here.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from navi_jupyter.clock import now  # noqa: E402
from navi_jupyter.events import Custom, Draft  # noqa: E402
from navi_jupyter.model.sessions import SYSTEM, SessionCreate  # noqa: E402
from navi_jupyter.orchestrator.event_writer import EventWriter  # noqa: E402
from navi_jupyter.orchestrator.orchestrator import Orchestrator  # noqa: E402
from navi_jupyter.store.sqlite import SqliteStore  # noqa: E402
from tests.benchmarks.measuring import Figures, arguments, in_ms  # noqa: E402

NEIGHBOUR = """
import asyncio, sys, time
from pathlib import Path
from navi_jupyter.events import Custom, Draft
from navi_jupyter.clock import now
from navi_jupyter.model.sessions import SYSTEM
from navi_jupyter.store.sqlite import SqliteStore
async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    for _ in range(int(sys.argv[3])):
        event = Custom(name="navi.kernel", value={"at": time.monotonic()})
        await store.write(lambda tx: tx.append(sys.argv[2], [Draft(event, run_id=None, origin=SYSTEM, at=now())]))
        await asyncio.sleep(0.037)
    await store.close()
asyncio.run(main())
"""


def draft(number: int) -> Draft:
    value = {"n": number, "pad": "x" * 130}
    return Draft(Custom(name="navi.kernel", value=value), run_id=None, origin=SYSTEM, at=now())


async def lone(store: SqliteStore, sid: str, *, durable: bool, count: int = 500) -> list[float]:
    """Seconds of each."""
    took = []
    for number in range(count):
        began = time.perf_counter()
        await store.write(lambda tx, number=number: tx.append(sid, [draft(number)]), durable=durable)  # type: ignore[misc]
        took.append(time.perf_counter() - began)
    return took


async def storm(store: SqliteStore, sids: list[str], events: int) -> float:
    """Events per second through a journal, as runs write them."""
    journal = EventWriter(store, "bench")
    work = asyncio.create_task(journal.work())
    began = time.perf_counter()
    for number in range(events):
        journal.write(sids[number % len(sids)], draft(number))
        await journal.room()
    journal.stop()
    await work
    return events / (time.perf_counter() - began)


async def across(orchestrator: Orchestrator, sid: str, path: Path, count: int = 100) -> list[float]:
    """From another process's write to a follower in this one, who looks every tenth of a second."""
    head = (await orchestrator.sessions.view(sid, owner="local")).head_seq
    process = subprocess.Popen([sys.executable, "-c", NEIGHBOUR, str(path), sid, str(count)], cwd=ROOT)
    took: list[float] = []
    async with aclosing(orchestrator.follow(sid, after=head, owner="local")) as pages:
        async for page in pages:
            at = time.monotonic()
            took += [at - json.loads(frame)["event"]["value"]["at"] for _, frame in page.envelopes]
            if len(took) == count:
                break
    await asyncio.to_thread(process.wait)
    return took


async def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--events", type=int, help="20,000; in the short form 5,000")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "navi.db"
        began = time.perf_counter()
        store = await SqliteStore.open(path)
        figures.add("store: open a new file, ms", (time.perf_counter() - began) * 1e3)
        agent: Any = None
        orchestrator = Orchestrator(store, agent)
        await orchestrator.start(agent)
        sids = [(await orchestrator.sessions.create(SessionCreate(), owner="local")).id for _ in range(50)]
        waits = {
            "a lone event is durable (kill)": await lone(store, sids[0], durable=False),
            "a lone event is durable (power)": await lone(store, sids[0], durable=True),
            "from another process to a follower": await across(orchestrator, sids[0], path),
        }
        for name, took in waits.items():
            for figure, value in in_ms(f"store: {name}", took).items():
                figures.add(figure, value)
        for count in (1, 50):
            rate = await storm(store, sids[:count], options.events or (5_000 if options.quick else 20_000))
            figures.add(f"store: events of {count} sessions, 1/s", rate)
        await orchestrator.stop()
        await store.close()
    figures.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
