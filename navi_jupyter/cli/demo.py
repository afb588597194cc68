"""``navi demo``: the main features without a browser and without a key, each step checked and timed.

A private server, a kernel that loads the extension, a prompt with ``%navi``, a recall from a cell two seconds ahead,
and its firing followed live. Exit status 0 only if every step succeeded. Not responsible for checking an installation
(``doctor``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from tornado.httpclient import HTTPError

from ..installation import start_command
from ..kernel.client.client import Client, Envelope
from ..kernel.errors import KernelError, Refused, Unreachable
from ..text import printable
from .demo_server import CellFailed, CellOutput, PrivateServer, RemoteKernel, ServerFailed, private_server, tail

LIMIT = 27.0  # seconds for all steps; with the clean-up it stays below 30
NOTEBOOK = "demo.ipynb"
QUESTION = "What can you do?"
MESSAGE = "Summarise this session"


class StepFailed(Exception):
    """A step did not happen as it should; ``str()`` is the reason."""


class StepReport:
    """Prints a line per step, for people or for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._step_began = self._began

    def step(self, name: str, sentence: str, **facts: Any) -> None:
        """A step succeeded; its time counts from the step before."""
        now = time.monotonic()
        self._print(name, sentence, ok=True, seconds=now - self._step_began, facts=facts)
        self._step_began = now

    def end(self, *, ok: bool, sentence: str, **facts: Any) -> None:
        """The last line, with the time of all steps."""
        self._print("done" if ok else "failed", sentence, ok=ok, seconds=time.monotonic() - self._began, facts=facts)

    def _print(self, name: str, sentence: str, *, ok: bool, seconds: float, facts: dict[str, Any]) -> None:
        if self._as_json:
            line = json.dumps({"step": name, "ok": ok, "seconds": round(seconds, 3), "text": sentence, **facts})
        else:
            line = f"{'ok  ' if ok else 'FAIL'} {seconds:6.2f} s  {sentence}"
        sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()


def demo(*, as_json: bool = False) -> int:
    """Run it; the exit status."""
    report = StepReport(as_json=as_json)
    try:
        problem = asyncio.run(_demo(report))
    except KeyboardInterrupt:
        report.end(ok=False, sentence="interrupted; the server and its files are removed")
        return 130
    if problem is None:
        report.end(ok=True, sentence=f"all steps succeeded, and all files are removed. Next: {next_step()}")
        return 0
    sentence, log = problem
    report.end(ok=False, sentence=sentence, log_tail=log)
    if log and not as_json:
        sys.stderr.write(f"\nThe end of the server's log:\n{printable(log)}\n")
    return 1


def next_step() -> str:
    """What to do then, in what is installed here."""
    command = start_command()
    if command in ("jupyter lab", "jupyter notebook"):
        return f"{command}, then press the star at the side (Alt+Shift+N)"
    if command == "jupyter navi":
        return f"{command} opens the chat in the browser; in a notebook of another program: %load_ext navi_jupyter"
    return f"{command}, then %load_ext navi_jupyter and %navi chat in a cell"


async def _demo(report: StepReport) -> tuple[str, str] | None:
    """None when all steps succeeded, else what failed and the end of the server's log."""
    server: PrivateServer | None = None
    try:
        async with asyncio.timeout(LIMIT), private_server() as server:
            try:
                await _steps(server, report)
            except (StepFailed, CellFailed, KernelError, HTTPError, OSError) as problem:
                return f"{problem}", server.log_tail
    except ServerFailed as problem:
        return f"{problem}", ""
    except TimeoutError:
        log = tail(server.home / "server.log") if server else ""
        return f"the demo took longer than {LIMIT:.0f} s; it stopped in the step after the last line above", log
    return None


async def _steps(server: PrivateServer, report: StepReport) -> None:
    client = Client(server.connection)
    health = await _healthy(client)
    report.step("server", f"a private server runs at {server.connection.url} (navi {health['version']})")
    kernel = await RemoteKernel.start(server.connection, NOTEBOOK)
    try:
        await kernel.execute("%load_ext navi_jupyter")
        report.step("kernel", "a kernel loaded the extension: %load_ext navi_jupyter")
        await _prompt(kernel, report)
        session = await _session(client)
        report.step("session", f"the notebook has a session: {session['title']}", session_id=session["id"])
        async with _following(client, session) as envelopes:
            await _recall(kernel, client, session, envelopes, report)
    finally:
        kernel.close()
    await _durable(client, session, report)


async def _healthy(client: Client) -> dict[str, Any]:
    while True:
        try:
            # Unlike health, this waits for the start of the server.
            await client.request("GET", "sessions", query={"limit": 1})
            return dict(await client.request("GET", "health"))
        except (Refused, Unreachable) as problem:
            if isinstance(problem, Refused) and problem.server_code != "not_ready":
                raise
            await asyncio.sleep(0.05)


async def _prompt(kernel: RemoteKernel, report: StepReport) -> None:
    began, first = time.monotonic(), 0.0

    def shown(output: CellOutput) -> None:
        nonlocal first
        if not first and output.text.strip("…() "):
            first = time.monotonic() - began

    output = await kernel.execute(f"%navi {QUESTION}", shown)
    if len(output.text) < 20 or not first:
        raise StepFailed(f"%navi {QUESTION} showed no answer, only {output.text!r}")
    report.step(
        "prompt",
        f"%navi {QUESTION} -> {_start_of(output.text)}… (first words after {first:.2f} s, {output.updates} updates)",
        first_text_seconds=round(first, 3),
        updates=output.updates,
        answer=output.text,
    )


async def _session(client: Client) -> dict[str, Any]:
    found = (await client.request("GET", "sessions", query={"notebook_path": NOTEBOOK}))["sessions"]
    if len(found) != 1:
        raise StepFailed(f"the notebook has {len(found)} sessions instead of one")
    return dict(await client.request("GET", f"sessions/{found[0]['id']}"))


@contextlib.asynccontextmanager
async def _following(client: Client, session: dict[str, Any]) -> AsyncIterator[AsyncIterator[Envelope]]:
    """The session's events from now on, one by one."""
    async with contextlib.aclosing(client.follow(session["id"], session["head_seq"])) as pages:

        async def each() -> AsyncIterator[Envelope]:
            async for page in pages:
                for envelope in page:
                    yield envelope

        async with contextlib.aclosing(each()) as envelopes:  # type: ignore[type-var]
            yield envelopes


async def _recall(
    kernel: RemoteKernel,
    client: Client,
    session: dict[str, Any],
    envelopes: AsyncIterator[Envelope],
    report: StepReport,
) -> None:
    await kernel.execute(f"%navi recall in 2s {MESSAGE}")
    recall = (await _next_recall(envelopes, "created"))["recall"]
    report.step("recall", f"a cell scheduled a recall: %navi recall in 2s {MESSAGE}", recall_id=recall["id"])
    run_id, started, answer = await _recalled_run(envelopes)
    late = (started - datetime.fromisoformat(recall["next_at"])).total_seconds()
    report.step(
        "fired",
        f"the recall ran by itself, {late * 1000:.0f} ms after its time, and answered: {_start_of(answer)}…",
        run_id=run_id,
        late_seconds=round(late, 3),
        answer=answer,
    )
    ended = await _next_recall(envelopes, "fired")
    firings = (await client.request("GET", f"recalls/{recall['id']}/firings"))["firings"]
    statuses = [firing["status"] for firing in firings]
    if ended["status"] != "fired" or statuses != ["succeeded"]:
        raise StepFailed(f"the recall ended as {ended['status']} with the firings {statuses}, not as fired with one")
    report.step("ledger", "the recall ended as fired, its ledger has one succeeded firing", session_id=session["id"])


async def _recalled_run(envelopes: AsyncIterator[Envelope]) -> tuple[str, datetime, str]:
    """The next run that a recall started, followed to its end: its id, its start, its answer."""
    run_id, started, answer = "", "", ""
    async for envelope in envelopes:
        event = envelope["event"]
        if event["type"] == "RUN_STARTED" and envelope["origin"]["kind"] == "recall":
            run_id, started = event["runId"], envelope["ts"]
        elif not run_id or envelope["run_id"] != run_id:
            continue
        elif event["type"] == "TEXT_MESSAGE_CONTENT":
            answer += event["delta"]
        elif event["type"] == "RUN_ERROR":
            raise StepFailed(f"the run of the recall failed: {event['message']}")
        elif event["type"] == "RUN_FINISHED":
            return run_id, datetime.fromisoformat(started), answer
    raise StepFailed("the log of the session ended before the recall had run")


def _start_of(text: str) -> str:
    return " ".join(text.split())[:60]


async def _next_recall(envelopes: AsyncIterator[Envelope], action: str) -> dict[str, Any]:
    """The value of the next ``navi.recall`` event with that action."""
    async for envelope in envelopes:
        event = envelope["event"]
        if event["type"] == "CUSTOM" and event["name"] == "navi.recall" and event["value"]["action"] == action:
            return dict(event["value"])
    raise StepFailed(f"the log of the session ended before a recall was {action}")


async def _durable(client: Client, session: dict[str, Any], report: StepReport) -> None:
    messages = (await client.request("GET", f"sessions/{session['id']}/messages"))["messages"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if asked != [QUESTION, MESSAGE]:
        raise StepFailed(f"the session has the prompts {asked} instead of {[QUESTION, MESSAGE]}")
    report.step("durable", f"the session keeps the conversation: {len(messages)} messages")
