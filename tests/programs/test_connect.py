"""``navi_jupyter.connect``: a server used by programs that are no kernels, with and without ``await``."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import navi_jupyter as navi
from navi_jupyter.kernel.errors import Refused, Unreachable, UsageError
from navi_jupyter.kernel.programs.run import AnswerNeeded, Question, WaitTimedOut
from navi_jupyter.kernel.programs.server import NaviServer
from navi_jupyter.kernel.reply import RunDidNotComplete
from tests.e2e.obedient import Obedient, call, tell
from tests.support.server import JupyterServer

HELD = {"text": "Wait.", "hold": True}


def write(path: str) -> dict[str, Any]:
    """A call that asks first."""
    return call("write_file", path=path, content="from a program\n")


@pytest.fixture
def connected(server: JupyterServer) -> NaviServer:
    return navi.connect(server.url, server.token)


def status(connected: NaviServer, session: str, run: str) -> str:
    return str(connected.request("GET", f"sessions/{session}/runs/{run}")["status"])


def test_a_script_asks_streams_reads_and_exports(connected: NaviServer, tmp_path: Path) -> None:
    session = connected.new_session(title="A script")
    reply = connected.ask(tell("The loss is flat."), session=session)
    assert (reply.text.strip(), reply.status, reply.session_id) == ("The loss is flat.", "completed", session.id)
    with connected.send(tell("one two three four"), session="A script") as run:
        pieces = list(run.texts())
    assert "".join(pieces) == run.run.reply.text == "one two three four "
    assert [each["role"] for each in session.messages] == ["user", "assistant"] * 2
    attached = tmp_path / "numbers.csv"
    attached.write_text("1,2,3\n")
    connected.ask("hello", session=session, files=[attached, b"raw"], model="offline")
    assert "numbers.csv" in session.export(format="md")
    assert any(each["id"] == session.id for each in connected.sessions(query="flat"))
    with pytest.raises(UsageError, match="nothing to ask"):
        connected.ask("  ", session=session)


def test_the_functions_of_the_package_use_the_server_that_was_connected_last_and_its_own_session_is_made_once(
    connected: NaviServer,
) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = {session.id for session in threads.map(lambda _: connected.session(), range(8))}
    assert len(made) == 1
    assert navi.ask(tell("Hello."), session=made.pop()).text.strip() == "Hello."
    recall = connected.recall("check the loss", every="1h")
    assert recall.session_id == connected.session().id
    assert [each.id for each in connected.recalls(session=connected.session())] == [recall.id]
    recall.cancel()


def test_a_question_raises_is_answered_by_a_function_or_is_left_to_other_clients(
    connected: NaviServer, server: JupyterServer
) -> None:
    session = connected.new_session(title="Questions")
    with pytest.raises(AnswerNeeded, match="write_file") as needed:
        connected.ask(tell([write("left.txt")], "Written."), session=session)
    (question,) = needed.value.questions
    assert (question.kind, question.tool, question.args["path"]) == ("approval", "write_file", "left.txt")
    with connected.join(session, needed.value.reply.run_id) as run:
        run.answer(question.id, True)
        assert run.wait(on_question="wait").text.strip() == "Written."
    assert (server.root / "left.txt").read_text() == "from a program\n"

    seen: list[str] = []

    def deny(question: Question) -> dict[str, Any]:
        seen.append(question.message)
        return {"approved": False, "message": "not on a Friday"}

    reply = connected.ask(tell([write("denied.txt")], "Then not."), session=session, on_question=deny)
    assert (len(seen), reply.text.strip(), (server.root / "denied.txt").exists()) == (1, "Then not.", False)
    assert "not on a Friday" in json.dumps(reply.tool_calls)


def test_a_timeout_leaves_the_run_in_progress_and_it_can_be_joined_and_stopped(connected: NaviServer) -> None:
    session = connected.new_session(title="Slow")
    with pytest.raises(WaitTimedOut) as over:
        connected.ask(tell(HELD), session=session, timeout=1.5)
    run_id = over.value.reply.run_id
    assert status(connected, session.id, run_id) == "running"
    with connected.join(session, run_id) as run:
        first = next(iter(run))
        assert first["snapshot"]
        run.stop()
        assert run.wait().status == "stopped"
    assert run.run.reply.text == "Wait."


def test_what_fails_has_its_code_and_what_there_is_of_an_answer(connected: NaviServer, server: JupyterServer) -> None:
    with pytest.raises(RunDidNotComplete) as failed:
        connected.ask(tell({"status": 401}), session=connected.new_session(title="Fails"))
    assert failed.value.reply.status == "failed"
    with pytest.raises(Refused, match="send a token") as refused:
        navi.connect(server.url, "wrong").request("GET", "sessions")
    assert refused.value.server_status == 403
    with pytest.raises(Refused, match="has no Navi"):
        navi.connect(server.url.removesuffix("user/ada/"), server.token).request("GET", "sessions")
    with pytest.raises(Unreachable, match="does not answer"):
        navi.connect("http://127.0.0.1:9/", "t").request("GET", "sessions")


async def test_async_programs_ask_in_parallel_and_a_cancelled_read_loses_no_event(server: JupyterServer) -> None:
    async with navi.connect(server.url, server.token) as connected:
        sessions = [await connected.new_session(title=f"Parallel {n}") for n in range(3)]
        replies = await asyncio.gather(*(each.ask(tell(f"answer {n}")) for n, each in enumerate(sessions)))
        assert [reply.text.strip() for reply in replies] == ["answer 0", "answer 1", "answer 2"]
        session = sessions[0]
        run = await session.send(tell(" ".join(f"w{n}" for n in range(200))))
        begun, seen = run.cursor, []
        while True:
            try:
                seen.append(await asyncio.wait_for(anext(run), 0.002))
            except TimeoutError:
                continue
            except StopAsyncIteration:
                break
        page = await connected.request("GET", f"sessions/{session.id}/events?after={begun}&limit=5000")
        whole = "".join(each["event"].get("delta", "") for each in page["events"] if each["run_id"] == run.run_id)
        assert "".join(each["event"].get("delta", "") for each in seen) == whole == run.reply.text
        assert run.cursor == seen[-1]["seq"]
        made = await session.recall("look again", at="tomorrow at 9")
        assert [each["id"] for each in await connected.recalls(session=session.id)] == [made["id"]]
        assert "w199" in await session.export("md")


async def test_a_cancelled_ask_leaves_the_run_and_an_async_function_may_answer(server: JupyterServer) -> None:
    async with navi.connect(server.url, server.token) as connected:
        session = await connected.new_session(title="Cancelled")
        asking = asyncio.create_task(session.ask(tell(HELD)))
        async for envelope in session.follow(0):
            if envelope["event"].get("delta") == "Wait.":
                break
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        state = await session.state()
        assert state["run"]["status"] == "running"
        assert await session.stop()
        run = session.join(state["run"]["id"])
        assert (await run.wait()).status == "stopped"
        assert not await session.stop()

        async def allow(question: Question) -> bool:
            await asyncio.sleep(0)
            return question.tool == "write_file"

        reply = await session.ask(tell([write("async.txt")], "Done."), on_question=allow)
        assert (reply.text.strip(), (server.root / "async.txt").exists()) == ("Done.", True)


def test_one_connection_serves_several_event_loops_and_threads_at_once(connected: NaviServer) -> None:
    def in_a_loop(number: int) -> str:
        async def ask() -> str:
            session = await connected.aio.new_session(title=f"Loop {number}")
            return (await session.ask(tell(f"loop {number}"))).text.strip()

        return asyncio.run(ask())

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(in_a_loop, range(4))) == [f"loop {n}" for n in range(4)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX")
def test_a_forked_worker_uses_a_connection_of_before_the_fork(server: JupyterServer) -> None:
    code = (
        "import os, sys, navi_jupyter as navi\n"
        f"server = navi.connect({server.url!r}, {server.token!r})\n"
        "before = server.request('GET', 'health')['status']\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if server.request('GET', 'health')['status'] == before == 'ok' else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


async def test_a_run_is_followed_across_a_server_that_is_killed_and_joined_after_the_cursor(
    tmp_path: Path, model: Obedient
) -> None:
    """The run ends as interrupted, the client reads that without an error of its own, and each event once."""
    server = JupyterServer(tmp_path, env=model.env)
    await asyncio.to_thread(server.start)
    try:
        async with navi.connect(server.url, server.token) as connected:
            session = await connected.new_session(title="Killed")
            await session.ask(tell("Before."))
            run = await session.send(tell(HELD))
            seen = []
            async for envelope in run:
                seen.append(envelope)
                if envelope["event"].get("delta") == "Wait.":
                    break
            await run.close()
            again = session.join(run.run_id, after=run.cursor)
            ending = asyncio.create_task(again.wait())
            await asyncio.to_thread(server.kill9)
            await asyncio.to_thread(server.start)
            with pytest.raises(RunDidNotComplete, match="interrupted") as lost:
                await ending
            assert lost.value.run_code == "interrupted"
            page = await connected.request("GET", f"sessions/{session.id}/events?after={seen[0]['seq'] - 1}&limit=5000")
            assert again.cursor == page["events"][-1]["seq"]
            assert (await session.ask(tell("After."))).text.strip() == "After."
    finally:
        await asyncio.to_thread(server.stop)


def test_a_certificate_is_checked_and_an_authority_of_ones_own_can_be_named(tmp_path: Path, model: Obedient) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=navi"]
    for name in ("own", "other"):
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem"]
        try:
            subprocess.run([*make, "-addext", "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("no openssl here")
    server = JupyterServer(tmp_path / "server", env=model.env)
    tls = [f"--ServerApp.certfile={tmp_path}/own.pem", f"--ServerApp.keyfile={tmp_path}/own.key"]
    with server.start(args=tls, wait=False):
        server.wait_for(lambda: server.connection_file.exists())
        url = f"https://127.0.0.1:{server.port}/"
        connected = navi.connect(url, server.token, ca_file=tmp_path / "own.pem")
        ready(connected)
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            navi.connect(url, server.token, ca_file=tmp_path / "other.pem").request("GET", "health")
        session = connected.new_session(title="TLS")
        assert connected.ask(tell("Encrypted."), session=session).text.strip() == "Encrypted."


def ready(connected: NaviServer) -> None:
    for _ in range(300):
        try:
            connected.request("GET", "sessions")
        except (Refused, Unreachable):
            threading.Event().wait(0.1)
        else:
            return
    raise AssertionError("the server did not get ready")
