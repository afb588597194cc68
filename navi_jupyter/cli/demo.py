"""``navi demo``: the main job without a browser, on the embedded default, each step seen and timed.

A private server, a kernel that loads the extension, a prompt with ``%navi``, a recall from a cell two seconds ahead,
and its firing followed live. Exit status 0 only if everything was seen. Not responsible for checking an installation
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

from ..kernel.client import Client, Envelope
from ..kernel.errors import KernelError, Refused, Unreachable
from .demo_server import PrivateServer, ServerFailed, private_server, tail
from .remote_kernel import CellFailed, CellOutput, RemoteKernel

LIMIT = 27.0
"""Seconds for all steps; with the clean-up it stays below 30."""
NOTEBOOK = "demo.ipynb"
QUESTION = "What can you do?"
MESSAGE = "Summarise this session"


class NotSeen(Exception):
    """Something that had to happen did not; ``str()`` says what."""


class Report:
    """Prints a line per step, for people or for programs."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()
        self._step_began = self._began

    def step(self, name: str, sentence: str, **facts: Any) -> None:
        """A step was seen; the time is since the step before."""
        now = time.monotonic()
        self._print(name, sentence, ok=True, seconds=now - self._step_began, facts=facts)
        self._step_began = now

    def end(self, *, ok: bool, sentence: str, **facts: Any) -> None:
        """The last line; the time is that of all."""
        self._print("done" if ok else "failed", sentence, ok=ok, seconds=time.monotonic() - self._began, facts=facts)

    def _print(self, name: str, sentence: str, *, ok: bool, seconds: float, facts: dict[str, Any]) -> None:
        if self._as_json:
            line = json.dumps({"step": name, "ok": ok, "seconds": round(seconds, 3), "text": sentence, **facts})
        else:
            line = f"{'ok  ' if ok else 'FAIL'} {seconds:6.2f} s  {sentence}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def demo(*, as_json: bool = False) -> int:
    """Run it; the exit status."""
    report = Report(as_json=as_json)
    try:
        problem = asyncio.run(_demo(report))
    except KeyboardInterrupt:
        report.end(ok=False, sentence="interrupted; everything was cleaned up")
        return 130
    if problem is None:
        report.end(
            ok=True, sentence="everything was seen, and cleaned up. Next: jupyter lab, then %load_ext navi_jupyter"
        )
        return 0
    sentence, log = problem
    report.end(ok=False, sentence=sentence, log_tail=log)
    if log and not as_json:
        sys.stderr.write(f"\nThe end of the server's log:\n{log}\n")
    return 1


async def _demo(report: Report) -> tuple[str, str] | None:
    """None when everything was seen, else what was not, and the end of the server's log."""
    server: PrivateServer | None = None
    try:
        async with asyncio.timeout(LIMIT), private_server() as server:
            try:
                await _steps(server, report)
            except (NotSeen, CellFailed, KernelError, HTTPError, OSError) as problem:
                return f"{problem}", server.log_tail
    except ServerFailed as problem:
        return f"{problem}", ""
    except TimeoutError:
        log = tail(server.home / "server.log") if server else ""
        return f"it took longer than {LIMIT:.0f} s; the step after the last line above was not seen", log
    return None


async def _steps(server: PrivateServer, report: Report) -> None:
    client = Client(server.connection)
    health = await _healthy(client)
    report.step("server", f"a private server runs at {server.connection.url} (navi {health['version']})")
    kernel = await RemoteKernel.start(server.connection, NOTEBOOK)
    try:
        await kernel.execute("%load_ext navi_jupyter")
        report.step("kernel", "a kernel has loaded the extension: %load_ext navi_jupyter")
        await _prompt(kernel, report)
        session = await _session(client)
        report.step("session", f"the notebook's session is {session['id']}", session_id=session["id"])
        async with _following(client, session) as envelopes:
            await _recall(kernel, client, session, envelopes, report)
    finally:
        kernel.close()
    await _durable(client, session, report)


async def _healthy(client: Client) -> dict[str, Any]:
    while True:
        try:
            await client.request("GET", "sessions", query={"limit": 1})  # waits for the start; health does not
            return dict(await client.request("GET", "health"))
        except (Refused, Unreachable) as problem:
            if isinstance(problem, Refused) and problem.server_code != "not_ready":
                raise
            await asyncio.sleep(0.05)


async def _prompt(kernel: RemoteKernel, report: Report) -> None:
    began, first = time.monotonic(), 0.0

    def seen(output: CellOutput) -> None:
        nonlocal first
        if not first and output.text.strip("…() "):
            first = time.monotonic() - began

    output = await kernel.execute(f"%navi {QUESTION}", seen)
    if len(output.text) < 20 or not first:
        raise NotSeen(f"%navi gave no answer, only {output.text!r}")
    words = " ".join(output.text.split())
    report.step(
        "prompt",
        f"%navi {QUESTION} -> {words[:60]}… (first words after {first:.2f} s, {output.updates} updates)",
        first_text_seconds=round(first, 3),
        updates=output.updates,
        answer=output.text,
    )


async def _session(client: Client) -> dict[str, Any]:
    found = (await client.request("GET", "sessions", query={"notebook_path": NOTEBOOK}))["sessions"]
    if len(found) != 1:
        raise NotSeen(f"the notebook has {len(found)} sessions, not 1")
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
    kernel: RemoteKernel, client: Client, session: dict[str, Any], envelopes: AsyncIterator[Envelope], report: Report
) -> None:
    await kernel.execute(f"%navi recall in 2s {MESSAGE}")
    created = await _next_recall(envelopes, "created")
    report.step("recall", f"a cell scheduled a recall: %navi recall in 2s {MESSAGE}", recall_id=created["recall"]["id"])
    run_id, started, said = "", "", ""
    async for envelope in envelopes:
        event = envelope["event"]
        if envelope["origin"]["kind"] == "recall" and event["type"] == "RUN_STARTED":
            run_id, started = event["runId"], envelope["ts"]
        elif envelope["run_id"] == run_id and event["type"] == "TEXT_MESSAGE_CONTENT":
            said += event["delta"]
        elif envelope["run_id"] == run_id and event["type"] == "RUN_ERROR":
            raise NotSeen(f"the recall's run failed: {event['message']}")
        elif envelope["run_id"] == run_id and event["type"] == "RUN_FINISHED":
            break
    late = (datetime.fromisoformat(started) - datetime.fromisoformat(created["recall"]["next_at"])).total_seconds()
    report.step(
        "fired",
        f"it came back by itself, {late * 1000:.0f} ms after its time, and answered: {' '.join(said.split())[:60]}…",
        run_id=run_id,
        late_seconds=round(late, 3),
        answer=said,
    )
    ended = await _next_recall(envelopes, "fired")
    firings = (await client.request("GET", f"recalls/{created['recall']['id']}/firings"))["firings"]
    if ended["status"] != "fired" or [firing["status"] for firing in firings] != ["succeeded"]:
        raise NotSeen(f"the recall is {ended['status']}, its ledger says {[firing['status'] for firing in firings]}")
    report.step(
        "ledger", "the recall has ended as fired, with one succeeded firing in its ledger", session_id=session["id"]
    )


async def _next_recall(envelopes: AsyncIterator[Envelope], action: str) -> dict[str, Any]:
    """The value of the next ``navi.recall`` event with that action."""
    async for envelope in envelopes:
        event = envelope["event"]
        if event["type"] == "CUSTOM" and event["name"] == "navi.recall" and event["value"]["action"] == action:
            return dict(event["value"])
    raise NotSeen(f"the session's log ended before a recall was {action}")


async def _durable(client: Client, session: dict[str, Any], report: Report) -> None:
    messages = (await client.request("GET", f"sessions/{session['id']}/messages"))["messages"]
    asked = [message["content"] for message in messages if message["role"] == "user"]
    if asked != [QUESTION, MESSAGE]:
        raise NotSeen(f"the session has the prompts {asked}, not {[QUESTION, MESSAGE]}")
    report.step("durable", f"the session keeps all of it: {len(messages)} messages")
