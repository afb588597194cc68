"""Programs of users use Navi by MCP: the official SDK's client, and requests that no client would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestParams, ElicitResult, Implementation, ResourceTemplateReference
from tornado.httpclient import AsyncHTTPClient

from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.mcp_server import endpoint
from tests.conftest import Api
from tests.support.mcp_client import INITIALIZE, answer_in, client_of, post, url_of

PROGRAM = Implementation(name="desk-lamp", title="Desk Lamp", version="1")
DENIED = "restart_kernel"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360f8cf500f0003860180"
    "5a346f6b0000000049454e44ae426082"
)


@pytest.fixture
def navi_config() -> dict[str, Any]:
    return {"tool_ceiling": {DENIED: "deny"}}


@pytest.fixture
def url(api: Api, jp_serverapp: ServerApp) -> str:
    return url_of(jp_serverapp)


@pytest.fixture
def token(jp_serverapp: ServerApp) -> str:
    return str(jp_serverapp.identity_provider.token)


def text_of(result: Any) -> str:
    return "".join(part.text for part in result.content if part.type == "text")


async def until(found: Callable[[], Awaitable[Any]], within: float = 40) -> Any:
    """What comes to be."""
    async with asyncio.timeout(within):
        while not (value := await found()):  # noqa: ASYNC110  of another program's, as its clients see it
            await asyncio.sleep(0.05)
    return value


def question_in(api: Api, **where: str) -> Callable[[], Awaitable[Any]]:
    """The first open question in the sessions of the user, with the session's id."""

    async def find() -> Any:
        for listed in (await api.ok("GET", "sessions"))["sessions"]:
            detail = await api.ok("GET", f"sessions/{listed['id']}")
            if detail["approvals"]:
                return listed["id"], detail["approvals"][0]
        return None

    return find


async def answer(api: Api, found: Any, **payload: Any) -> None:
    session, question = found
    command = {"type": "answer", "interrupt_id": question["id"], "status": "resolved", "payload": payload}
    await api.ok("POST", f"sessions/{session}/commands", command)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_program_lists_everything_and_calls_tools_that_are_asked_about_in_navi(
    api: Api, url: str, token: str, mode: str, jp_root_dir: Any
) -> None:
    (jp_root_dir / "data").mkdir()
    notebook = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (jp_root_dir / "data" / "a b.ipynb").write_text(json.dumps(notebook))
    async with client_of(url, token, mode=mode, client_info=PROGRAM) as client:
        tools = {one.name: one for one in (await client.list_tools()).tools}
        assert {"run_code", "read_notebook", "create_recall", "list_recalls", "read_ledger"} <= set(tools)
        assert {"list_sessions", "read_session", "ask_session", "write_file", "remember"} <= set(tools)
        assert {"notebook", "session"} <= set(tools["run_code"].input_schema["properties"])
        assert tools["read_notebook"].annotations is not None
        assert tools["read_notebook"].annotations.read_only_hint
        resources = {one.uri: one for one in (await client.list_resources()).resources}
        assert "navi://notebooks/data/a%20b.ipynb" in resources
        found = (await client.read_resource("navi://notebooks/data/a%20b.ipynb")).contents[0]
        assert json.loads(found.text) == notebook  # type: ignore[union-attr]
        template = ResourceTemplateReference(uri="navi://notebooks/{+path}")
        completed = await client.complete(template, {"name": "path", "value": "A B"})
        assert completed.completion.values == ["data/a b.ipynb"]
        prompts = {one.name for one in (await client.list_prompts()).prompts}
        assert "profile-assistant" in prompts
        profile = await client.get_prompt("profile-assistant")
        assert profile.messages[0].content.text  # type: ignore[union-attr]

        # What only Navi itself knows is no run.
        assert json.loads(text_of(await client.call_tool("list_recalls", {})))["count"] == 0
        sessions = (await api.ok("GET", "sessions"))["sessions"]
        assert [one["title"] for one in sessions] == ["Desk Lamp"]
        assert (await api.ok("GET", f"sessions/{sessions[0]['id']}/runs"))["runs"] == []

        # What changes something is one, and asks.
        writing = asyncio.ensure_future(client.call_tool("write_file", {"path": "note.txt", "content": "hello"}))
        asked = await until(question_in(api))
        assert asked[1]["tool"] == "write_file"
        assert any("hello" in one["text"] for one in asked[1]["details"])
        await answer(api, asked, approved=True)
        assert not (await writing).is_error
        assert (jp_root_dir / "note.txt").read_text() == "hello"
        refused = asyncio.ensure_future(client.call_tool("write_file", {"path": "note.txt", "content": "no"}))
        await answer(api, await until(question_in(api)), approved=False, message="not that")
        assert (await refused).is_error
        assert "not that" in text_of(await refused)

        async def completed() -> bool:
            runs = (await api.ok("GET", f"sessions/{sessions[0]['id']}/runs"))["runs"]
            return [run["status"] for run in runs] == ["completed", "completed"]

        await until(completed)
        messages = await api.ok("GET", f"sessions/{sessions[0]['id']}/messages")
        assert "Desk Lamp" in messages["messages"][0]["content"]

        made = await client.call_tool("create_recall", {"message": "look", "when": "in 3 hours"})
        assert not made.is_error
        recall = json.loads(text_of(await client.call_tool("list_recalls", {})))["recalls"][0]
        ledger = json.loads(text_of(await client.call_tool("read_ledger", {"recall_id": recall["id"]})))
        assert ledger["firings"] == []
        cancelled = await client.call_tool("cancel_recall", {"recall_id": recall["id"]})
        assert not cancelled.is_error

        above = await client.call_tool(DENIED, {})
        assert above.is_error
        assert "tool_ceiling" in text_of(above)
        with pytest.raises(MCPError):
            await client.call_tool("no_such_tool", {})
        with pytest.raises(MCPError):
            await client.read_resource("navi://sessions/none")
    # The program comes back, and has its session.
    async with client_of(url, token, mode=mode, client_info=PROGRAM) as client:
        listed = json.loads(text_of(await client.call_tool("list_sessions", {})))["sessions"]
        assert [one["title"] for one in listed] == ["Desk Lamp"]
        read = await client.call_tool("read_session", {"session": listed[0]["id"]})
        assert "write_file" in json.loads(text_of(read))["messages"][1]["tools"]
        transcript = await client.read_resource(f"navi://sessions/{listed[0]['id']}")
        assert "note.txt" in transcript.contents[0].text  # type: ignore[union-attr]


async def test_a_program_asks_a_session_and_follows_its_agent(api: Api, url: str, token: str) -> None:
    progress: list[str | None] = []

    async def note(_count: float, _total: float | None, message: str | None) -> None:
        progress.append(message)

    session = await api.session(title="Deep thought")
    async with client_of(url, token, mode="legacy", client_info=PROGRAM) as client:
        asked = {"prompt": "count to 3", "session": session}
        result = await client.call_tool("ask_session", asked, progress_callback=note)
        assert not result.is_error
        assert text_of(result).startswith("1 2 3")
        # A second prompt is cancelled: its run is stopped.
        long = asyncio.ensure_future(client.call_tool("ask_session", asked | {"prompt": "count to 3000"}))

        async def running() -> Any:
            return (await api.ok("GET", f"sessions/{session}"))["run"]

        run = await until(running)
        long.cancel()

        async def stopped() -> bool:
            return (await api.ok("GET", f"sessions/{session}/runs/{run['id']}"))["status"] == "stopped"

        await until(stopped)
        wrong = await client.call_tool("ask_session", {"prompt": "x", "session": "s_none"})
        assert wrong.is_error
    assert any(message and "Navi writes" in message for message in progress)


async def test_a_question_is_put_through_the_program_too_and_the_first_answer_counts(
    api: Api, url: str, token: str, jp_root_dir: Any
) -> None:
    asked: list[str] = []
    answers = [ElicitResult(action="accept", content={"allow": True}), ElicitResult(action="decline")]
    never = asyncio.Event()

    async def elicit(context: Any, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        if len(asked) > 2:
            await never.wait()
        return answers[len(asked) - 1]

    async with client_of(url, token, mode="legacy", client_info=PROGRAM, elicitation_callback=elicit) as client:
        allowed = await client.call_tool("write_file", {"path": "a.txt", "content": "one\u202etwo"})
        assert not allowed.is_error
        assert (jp_root_dir / "a.txt").exists()
        assert "one" in asked[0]
        assert "\u202e" not in asked[0], "what cannot be seen is marked"
        declined = await client.call_tool("write_file", {"path": "b.txt", "content": "two"})
        assert declined.is_error
        assert "Desk Lamp" in text_of(declined)
        # The program does not answer: Navi does.
        writing = asyncio.ensure_future(client.call_tool("write_file", {"path": "c.txt", "content": "three"}))

        async def third() -> bool:
            return len(asked) == 3

        await until(third)
        await answer(api, await until(question_in(api)), approved=True)
        assert not (await writing).is_error
        # Too long to be read in a form: it is asked in Navi alone.
        long = asyncio.ensure_future(client.call_tool("write_file", {"path": "d.txt", "content": "x" * 20_000}))
        await answer(api, await until(question_in(api)), approved=False)
        assert (await long).is_error
    assert len(asked) == 3


async def test_a_call_that_waits_ends_with_its_stop_its_session_and_its_program(api: Api, url: str, token: str) -> None:
    async with client_of(url, token, mode="legacy", client_info=PROGRAM) as client:
        call = ("write_file", {"path": "a.txt", "content": "a"})
        stopped = asyncio.ensure_future(client.call_tool(*call))
        session, _ = await until(question_in(api))
        await api.ok("POST", f"sessions/{session}/commands", {"type": "stop"})
        assert "stopped" in text_of(await stopped)
        # A call behind another one waits; withdrawn in Navi, it fails.
        first = asyncio.ensure_future(client.call_tool(*call))
        await until(question_in(api))
        second = asyncio.ensure_future(client.call_tool(*call))

        async def queued() -> Any:
            return (await api.ok("GET", f"sessions/{session}"))["queue"]

        waiting = await until(queued)
        await api.ok("POST", f"sessions/{session}/commands", {"type": "unqueue", "target": waiting[0]["command_id"]})
        assert (await second).is_error
        # The program cancels a call that waits for an answer: nothing is asked any more.
        first.cancel()

        async def settled() -> bool:
            return (await api.ok("GET", f"sessions/{session}"))["run"] is None

        await until(settled)
        deleted = asyncio.ensure_future(client.call_tool(*call))
        await until(question_in(api))
        await api.ok("DELETE", f"sessions/{session}")
        assert (await deleted).is_error


async def test_who_may_come_in(
    api: Api, url: str, token: str, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await post(url, INITIALIZE, bearer=None)).code == 401
    wrong = await post(url, INITIALIZE, bearer="wrong")
    assert wrong.code == 401
    assert "Bearer" in wrong.headers["WWW-Authenticate"]
    assert (await post(url, INITIALIZE, bearer=token, Origin="https://evil.example")).code == 403
    assert (await post(url, INITIALIZE, bearer=token, Origin=url.split("/navi")[0].rsplit("/", 1)[0])).code == 200
    assert navi.lifecycle is not None
    kernels = navi.lifecycle.kernel_token.value
    refused = await post(url, INITIALIZE, bearer=None, Authorization=f"navi {kernels}")
    assert refused.code == 403
    assert json.loads(refused.body)["code"] == "kernel_token_scope"
    # Flooded with sessions, it refuses more; one that is ended makes room.
    opened = [(await post(url, INITIALIZE, bearer=token)) for _ in range(endpoint.MOST_SESSIONS - 1)]
    assert {one.code for one in opened} == {200}
    assert (await post(url, INITIALIZE, bearer=token)).code == 503
    authorized = {"Authorization": f"Bearer {token}", "Mcp-Session-Id": opened[0].headers["Mcp-Session-Id"]}
    ended = await AsyncHTTPClient().fetch(url, method="DELETE", headers=authorized, raise_error=False)
    assert ended.code == 200
    assert (await post(url, INITIALIZE, bearer=token)).code == 200
    async with client_of(url, token) as client:  # the newest version has no sessions
        assert (await client.list_tools()).tools


async def test_what_no_client_sends_is_refused_and_nothing_hangs(api: Api, url: str, token: str) -> None:
    opened = await post(url, INITIALIZE, bearer=token)
    session = {"Mcp_Session_Id": opened.headers["Mcp-Session-Id"], "Mcp_Protocol_Version": "2025-11-25"}
    assert answer_in(opened)["result"]["protocolVersion"] == "2025-11-25"
    calls: list[tuple[Any, dict[str, str], int]] = [
        (b"", session, 400),
        (b"{", session, 400),
        (b"[" * 100_000, session, 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', session, 400),
        ([INITIALIZE, INITIALIZE], session, 400),
        ({"jsonrpc": "1.0", "id": 1, "method": "tools/list"}, session, 400),
        ({"jsonrpc": "2.0", "id": {"a": 1}, "method": "tools/list"}, session, 400),
        ({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, {}, 400),
        ({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, {"Mcp_Session_Id": "0" * 32}, 404),
        ({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, session | {"Mcp_Protocol_Version": "1999-01-01"}, 400),
        (b'"' + b"x" * (50 * 2**20) + b'"', session, 400),
        ({"jsonrpc": "2.0", "id": 77, "result": {}}, session, 202),
        ({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}}, session, 202),
    ]
    for body, headers, status in calls:
        answered = await post(url, body, bearer=token, **headers)
        assert answered.code == status, (body[:80] if isinstance(body, bytes) else body, answered.code, answered.body)
    wrong = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": 7}}
    assert "error" in answer_in(await post(url, wrong, bearer=token, **session))
    unknown = {"jsonrpc": "2.0", "id": 4, "method": "no/such"}
    assert "error" in answer_in(await post(url, unknown, bearer=token, **session))
    query = b'{"name":"list_sessions","arguments":{"query":"\\ud83d"}}'
    halves = b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":' + query + b"}"
    assert not answer_in(await post(url, halves, bearer=token, **session))["result"].get("isError")
    plain = await post(url, INITIALIZE, bearer=token, Accept="text/html")
    assert plain.code == 406
    # After all of that, the session works.
    listed = await post(url, {"jsonrpc": "2.0", "id": 6, "method": "tools/list"}, bearer=token, **session)
    assert answer_in(listed)["result"]["tools"]


async def test_a_program_works_in_the_kernel_of_a_notebook_and_every_tool_answers(
    api: Api, url: str, token: str, jp_root_dir: Any
) -> None:
    cell = {
        "id": "one",
        "cell_type": "code",
        "source": "x = 20",
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (jp_root_dir / "work.ipynb").write_text(json.dumps(notebook))
    session = (await api.ok("POST", "sessions", {"notebook_path": "work.ipynb"}))["id"]
    await api.ok("PATCH", f"sessions/{session}", {"allowed_tools": ["*"]})
    progress: list[str | None] = []

    async def note(_count: float, _total: float | None, message: str | None) -> None:
        progress.append(message)

    async with client_of(url, token, mode="legacy", client_info=PROGRAM) as client:
        where = {"notebook": "work.ipynb"}
        assert not (await client.call_tool("run_cell", {"cell": "one"} | where)).is_error
        drawn = "from IPython.display import Image, display\ndisplay(Image(bytes.fromhex('%s')))\nx + 2"
        result = await client.call_tool("run_code", {"code": drawn % PNG.hex()} | where)
        assert "22" in text_of(result)
        assert [part.mime_type for part in result.content if part.type == "image"] == ["image/png"]
        listed = json.loads(text_of(await client.call_tool("list_variables", where)))
        assert "x" in [one["name"] for one in listed["variables"]]
        # A call that is cancelled is interrupted in the kernel, which goes on.
        code = "import time\nfor n in range(600):\n    print('step', n, flush=True)\n    time.sleep(0.1)"
        running = asyncio.ensure_future(client.call_tool("run_code", {"code": code} | where, progress_callback=note))

        async def stepping() -> bool:
            return any(message and message.startswith("step") for message in progress)

        await until(stepping)
        running.cancel()

        async def idle() -> bool:
            return (await api.ok("GET", f"sessions/{session}"))["run"] is None

        await until(idle)
        assert "22" in text_of(await client.call_tool("run_code", {"code": "x + 2"} | where))

        # Every tool answers, whatever it is called with; some ask each time, whatever is allowed.
        async def decline_all() -> None:
            while True:
                await answer(api, await until(question_in(api), within=600), approved=False)

        declining = asyncio.ensure_future(decline_all())
        for one in (await client.list_tools()).tools:
            if one.name in ("ask_session", "interrupt_kernel"):
                continue
            answered = await asyncio.wait_for(client.call_tool(one.name, dict(where)), 60)
            assert text_of(answered), one.name
            strange = await asyncio.wait_for(client.call_tool(one.name, {"no_such_argument": 1}), 60)
            assert strange.is_error, one.name
        declining.cancel()


async def test_the_model_of_such_a_run_is_no_model_that_anybody_can_choose(api: Api) -> None:
    session = await api.session()
    refused = await api("PATCH", f"sessions/{session}", {"model": "mcp-call:desk-lamp/p_1"})
    assert refused.status == 400
    prompt = {"type": "prompt", "text": "x", "model": "mcp-call:desk-lamp/p_1"}
    assert (await api("POST", f"sessions/{session}/commands", prompt)).status == 400
