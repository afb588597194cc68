"""The list of 10,000 sessions and the search over their 40,000 messages: time of a page, of a find, of the back-fill.

python tests/benchmarks/bench_session_list.py [--quick] [--sessions 10000]
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from navi_jupyter.store.session_list.index import SearchIndex
from navi_jupyter.store.sqlite.database_file import migrate
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import Figures, arguments

WORDS = [f"{stem}{ending}" for stem in ("loss", "rate", "plot", "frame", "model", "cell") for ending in range(300)]
ROUNDS = 30


def fill(path: Path, sessions: int) -> None:
    """Sessions of one user, each with a run of four messages of 60 words."""
    pick = random.Random(7)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db)
        db.execute("BEGIN")
        for number in range(sessions):
            db.execute(
                "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
                " VALUES (?, 'me', ?, 'assistant', 'offline', 'UTC', ?, ?)",
                (f"s{number}", " ".join(pick.choices(WORDS, k=4)), number, number),
            )
            messages = [
                {
                    "id": f"m{number}.{turn}",
                    "role": "assistant" if turn % 2 else "user",
                    "content": " ".join(pick.choices(WORDS, k=60)),
                    "run_id": f"r{number}",
                    "at": "2026-11-22T09:00:00+00:00",
                    "origin": {"kind": "user"},
                    "tool_calls": [],
                }
                for turn in range(4)
            ]
            db.execute(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                " created_at, started_at, ended_at, transcript)"
                " VALUES (?, ?, 'c', 'completed', 'user', 'me', 'offline', 'x', 1, 2, 3, 4, ?)",
                (f"r{number}", f"s{number}", json.dumps(messages)),
            )
        db.execute("COMMIT")


async def timed(figures: Figures, name: str, act: Callable[[], Awaitable[object]]) -> None:
    """Median and worst of some rounds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await act()
        took.append((time.perf_counter() - began) * 1000)
    figures.add(f"list of sessions: {name}, p50, ms", statistics.median(took))
    figures.add(f"list of sessions: {name}, worst, ms", max(took))


async def main(sessions: int) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "navi.db")
        fill(path, sessions)
        store = await SqliteStore.open(path)
        try:
            began = time.perf_counter()
            while await SearchIndex(store).take_in(limit=20):
                pass
            figures.add("list of sessions: back-fill of all, beside others, s", time.perf_counter() - began)
            await timed(figures, "a page of 100 sessions", lambda: store.sessions("me", limit=100))
            await timed(figures, "the last page", lambda: store.sessions("me", limit=100, cursor="100:s100"))
            await timed(figures, "find a word (1 of 1,800)", lambda: store.search("me", "loss7 ", limit=50))
            await timed(figures, "find two words", lambda: store.search("me", "loss7 plot9 ", limit=50))
            await timed(figures, "find a beginning (half of all messages)", lambda: store.search("me", "los", limit=50))
            await timed(figures, "whether all is indexed", store.is_indexed)
        finally:
            await store.close()
    return figures


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--sessions", type=int, help="10,000; in the short form 2,000")
    options = parser.parse_args()
    asyncio.run(main(options.sessions or (2_000 if options.quick else 10_000))).write(options.json)
