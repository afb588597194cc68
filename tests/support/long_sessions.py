"""A session with thousands of runs, made of one that was really run: its rows are copied in the database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

ANSWER = "The loss is at 0.042 after this epoch, and the plot shows why: the rate was halved. " * 4


def lengthen(
    database: Path,
    run_id: str,
    copies: int,
    answer: Callable[[int], str] = lambda _: ANSWER,
    *,
    rolled_back: bool = False,
) -> None:
    """Copies a finished run ``copies`` times, each a second earlier than the next; the run itself stays the last.

    ``rolled_back``: the copies are, so that no model reads them.
    """
    with closing(sqlite3.connect(database)) as db, db:
        db.row_factory = sqlite3.Row
        run = dict(db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone())
        number = run.pop("number")
        messages = json.loads(run["transcript"])
        columns = [*run, "number"]
        # Numbers grow with the time: those of the copies are below the one that was there.
        db.execute("UPDATE runs SET number = number + ? WHERE id = ?", (copies + number, run_id))
        sql = f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        for index in range(copies):
            name = f"r_copy_{index}"
            own = [
                {**message, "id": f"m_{index}_{place}", "run_id": name, "content": answer(index)}
                for place, message in enumerate(messages)
            ]
            back = (copies - index) * 1_000_000
            times = {key: run[key] - back for key in ("created_at", "started_at", "ended_at")}
            row = {**run, **times, "id": name, "command_id": f"c_copy_{index}", "transcript": json.dumps(own)}
            row["rolled_back"] = int(rolled_back)
            db.execute(sql, [*(row[key] for key in run), index + 1])
