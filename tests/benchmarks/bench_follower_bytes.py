"""Bytes that each follower of a streamed answer gets: the event log against a shared document rewritten per chunk.

    python tests/benchmarks/bench_follower_bytes.py [--quick]

- *navi*: a run on a real store whose model gives 200 chunks a second; one follower reads it to its end;
- *rewrite*: what jupyter-chat's ``update_message`` does: the message in the document's array is replaced by one
  with the whole text so far, for each chunk; the updates that pycrdt sends to other clients are counted.

Both with the headers of their WebSocket messages. Counts, not times: a busy machine merges more of ours, if anything.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.commands import Prompt
from navi_jupyter.events import TextMessageContent, TextMessageEnd, TextMessageStart
from navi_jupyter.model.sessions import SessionCreate
from navi_jupyter.orchestrator.orchestrator import Orchestrator
from navi_jupyter.ports.agent import TurnResult
from navi_jupyter.store.sqlite.store import SqliteStore
from tests.benchmarks.measuring import Figures, arguments

OWNER = "local"
RATE = 200
END = b'"RUN_FINISHED"'


def chunk(number: int) -> str:
    """As long as a token with its blank mostly is."""
    return f"word{number % 100} "


class Model:
    """An agent whose answer has as many chunks as its prompt says."""

    async def run(self, turn: Any, context: Any) -> AsyncIterator[Any]:
        yield TextMessageStart(message_id="m")
        began = time.monotonic()
        for number in range(int(turn.prompt)):
            await asyncio.sleep(began + number / RATE - time.monotonic())
            yield TextMessageContent(message_id="m", delta=chunk(number))
        yield TextMessageEnd(message_id="m")
        yield TurnResult(conversation=b"")


def with_header(size: int) -> int:
    """Of a WebSocket message from a server."""
    return size + (2 if size < 126 else 4 if size < 65_536 else 10)


async def followed(orchestrator: Orchestrator, chunks: int) -> int:
    """Bytes of all frames of one answer."""
    session = await orchestrator.sessions.create(SessionCreate(), owner=OWNER)
    await orchestrator.submit(session.id, Prompt(text=str(chunks)), user_id=OWNER)
    size = 0
    async with aclosing(orchestrator.follow(session.id, after=0, owner=OWNER)) as pages:
        async for page in pages:
            size += with_header(len(page.text))
            if END in page.text:
                break
    return size


def rewritten(chunks: int) -> int:
    """Bytes of all updates of one answer."""
    from pycrdt import Array, Doc, create_update_message

    document: Any = Doc()
    messages = document["messages"] = Array()
    sizes: list[int] = []
    subscription = document.observe(lambda event: sizes.append(with_header(len(create_update_message(event.update)))))
    message = {"type": "msg", "id": str(uuid.uuid4()), "sender": "agent", "time": time.time(), "body": ""}
    messages.append(message | {"raw_time": False, "deleted": False, "edited": False, "mentions": []})
    for number in range(chunks):
        with document.transaction():
            message = messages[0]
            messages[0] = message | {"body": message["body"] + chunk(number)}
    document.unobserve(subscription)
    return sum(sizes)


async def main() -> None:
    """Both, for answers of several lengths."""
    options = arguments(__doc__).parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        store = await SqliteStore.open(Path(folder) / "navi.db")
        orchestrator = Orchestrator(store, Model())
        await orchestrator.start(None)
        for chunks in (200, 1_000) if options.quick else (50, 200, 1_000):
            ours, theirs = await followed(orchestrator, chunks), rewritten(chunks)
            name = f"an answer of {chunks} chunks"
            figures.add(f"{name}, navi: to each follower, KB", ours / 1e3)
            figures.add(f"{name}, rewrite per chunk: to each follower, KB", theirs / 1e3)
            figures.add(f"{name}, rewrite per chunk / navi: to each follower, x", theirs / ours)
        await orchestrator.stop()
        await store.close()
    figures.write(options.json)


if __name__ == "__main__":
    asyncio.run(main())
