"""What users configure for themselves: profiles, MCP servers and targets, of each user alone, from the next run on."""

from __future__ import annotations

import asyncio
import json
import logging
import socket as sockets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jupyter_core.paths import jupyter_config_dir
from jupyter_server.auth import IdentityProvider, User
from tornado.web import RequestHandler
from traitlets.config import Config

from navi_jupyter.agent.mcp.run_tools import McpTools
from navi_jupyter.ports.agent import tool_call, tool_context
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.services import Services
from navi_jupyter.store.user_configuration import MAX_ENTRIES, UserConfigurationStore
from tests.agent.mcp.mcp_world import SCRIPT
from tests.conftest import Answer, Api
from tests.support.database import database_url, open_store
from tests.support.receiver import Receiver, receiving
from tests.support.server import free_port

ANN, BEN = {"Authorization": "token of-ann"}, {"Authorization": "token of-ben"}
NAMES = {who["Authorization"]: name for name, who in (("ann", ANN), ("ben", BEN))}
SECRET = "whsec_" + "YW5uJ3Mgb3duIHNlY3JldCwgbm9ib2R5IGVsc2UncyE="
KEY = "ann-key-0123456789"


class People(IdentityProvider):
    """Two people with a token each."""

    async def get_user(self, handler: RequestHandler) -> User | None:
        name = NAMES.get(handler.request.headers.get("Authorization", ""))
        if name is not None:
            handler._token_authenticated = True  # type: ignore[attr-defined]
        return None if name is None else User(username=name)


@pytest.fixture
def navi_config(tmp_path: Path) -> dict[str, Any]:
    return {
        "mcp_allow_private": True,
        "notify_allow_private": True,
        "database_url": database_url(tmp_path / "own.db"),
        "kernel_user": "ann",
    }


@pytest.fixture
def jp_server_config(navi_config: dict[str, Any]) -> Config:
    server = {"jpserver_extensions": {"navi_jupyter": True}, "identity_provider_class": People}
    return Config({"ServerApp": server, "NaviExtension": navi_config})


class Two:
    """Requests of two users of one server."""

    def __init__(self, api: Api, services: Services) -> None:
        self.api = api
        self.services = services

    async def call(self, who: dict[str, str], method: str, path: str, body: Any = None) -> Answer:
        return await self.api(method, path, body, headers=who)

    async def ok(self, who: dict[str, str], method: str, path: str, body: Any = None) -> Any:
        answer = await self.call(who, method, path, body)
        assert answer.status < 300, (answer.status, answer.body)
        return answer.json if answer.body else None

    async def named(self, who: dict[str, str], path: str) -> dict[str, Any]:
        """The entries of a list, by their names."""
        return {entry["name"]: entry for entry in (await self.ok(who, "GET", path))[path]}

    async def session(self, who: dict[str, str], **fields: Any) -> str:
        return str((await self.ok(who, "POST", "sessions", {"title": "a test", **fields}))["id"])

    async def tools(self, who: dict[str, str], session_id: str) -> dict[str, Any]:
        """The MCP tools that a run of this session gets, by name."""
        session = await self.services.sessions.find(session_id, owner=NAMES[who["Authorization"]])
        context = await self.services.sessions.orchestrator.context_of(session)
        (source,) = [one for one in self.services.agent.parts.sources if isinstance(one, McpTools)]
        return {tool.name: tool for tool in await source.tools(context)}

    async def run(self, who: dict[str, str], session_id: str, text: str = "hello") -> dict[str, Any]:
        """A prompt and its run, when that is over."""
        sent = await self.ok(who, "POST", f"sessions/{session_id}/commands", {"type": "prompt", "text": text})
        path = f"sessions/{session_id}/runs/{sent['run_id']}"
        async with asyncio.timeout(40):
            while (run := await self.ok(who, "GET", path))["status"] in ("queued", "running"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return dict(run)


@pytest.fixture
def two(api: Api, navi: NaviExtension, jp_asyncio_loop: asyncio.AbstractEventLoop) -> Two:
    assert navi.lifecycle is not None
    return Two(api, jp_asyncio_loop.run_until_complete(navi.lifecycle.ready()))


@pytest.fixture
def mcp_url() -> Iterator[str]:
    """A real MCP server over HTTP."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(SCRIPT), str(port)])
    try:
        while True:
            with closing(sockets.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


ROUTES = [
    ("profiles", {"description": "Short answers.", "more_instructions": "Be short."}),
    ("mcp", {"url": "http://127.0.0.1:9/mcp?key=" + KEY, "headers": {"Authorization": f"Bearer {KEY}"}}),
    ("notify", {"url": f"json://127.0.0.1:9/{KEY}"}),
    ("notify", {"webhook": f"http://127.0.0.1:9/{KEY}", "secret": SECRET, "events": ["run"]}),
]


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_what_a_user_configures_is_this_users_alone(two: Two, path: str, body: dict[str, Any]) -> None:
    made = await two.ok(ANN, "PUT", f"{path}/mine", body)
    assert (made["name"], made["own"], made["available"]) == ("mine", True, True)
    assert (await two.named(ANN, path))["mine"] == made
    assert "mine" not in await two.named(BEN, path)
    refused = await two.call(BEN, "DELETE", f"{path}/mine")
    assert (refused.status, refused.json["code"]) == (404, "not_found")
    assert "mine" in await two.named(ANN, path)
    await two.ok(BEN, "PUT", f"{path}/mine", body)
    await two.ok(ANN, "DELETE", f"{path}/mine")
    assert "mine" not in await two.named(ANN, path)
    assert "mine" in await two.named(BEN, path)
    assert (await two.call(ANN, "DELETE", f"{path}/mine")).status == 404


@pytest.mark.parametrize(("path", "body"), ROUTES)
async def test_no_answer_and_no_log_line_has_a_secret(
    two: Two, path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="navi")
    answers = [await two.call(ANN, "PUT", f"{path}/mine", body), await two.call(ANN, "GET", path)]
    if path == "notify":
        answers.append(await two.call(ANN, "POST", "notify/mine/test"))
    if path == "mcp":
        await two.tools(ANN, await two.session(ANN))
        answers.append(await two.call(ANN, "GET", path))
        assert answers[-1].json["mcp"][0]["status"] == "failed"
    for answer in answers:
        assert answer.status == 200
        assert KEY.encode() not in answer.body
        assert SECRET[6:].encode() not in answer.body
    assert KEY not in caplog.text
    assert SECRET[6:] not in caplog.text


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("profiles/mine", {"tool": []}, "tool"),
        ("profiles/mine", {"headless": "shout"}, "headless"),
        ("profiles/mine", {"model": "nonsense"}, "model"),
        ("profiles/mine", {"extends": "what-there-is-not"}, "extends"),
        ("profiles/a%20b", {}, "name"),
        ("mcp/mine", {"command": "sh", "args": ["-c", "id"]}, None),
        ("mcp/mine", {"url": "ftp://example.org/"}, "url"),
        ("mcp/mine", {"url": "https://ann:pass@example.org/"}, "url"),
        ("mcp/mine", {"url": "https://example.org/${HOME}"}, "headers"),
        ("mcp/mine", {"url": "https://example.org/", "headers": {"X-Key": "${OPENAI_API_KEY}"}}, "headers"),
        ("mcp/mine", {"url": "https://example.org/", "headers": {"X-Key": "a\r\nHost: other"}}, "headers"),
        ("mcp/mine", {"url": "https://example.org/", "headers": {"Host": "other"}}, "headers"),
        ("mcp/mine", {"url": "https://example.org/", "call_timeout": 0}, "call_timeout"),
        ("mcp/a%2Fb", {"url": "https://example.org/"}, None),
        ("notify/mine", {}, "url"),
        ("notify/mine", {"url": "no address"}, "url"),
        ("notify/browser", {"url": "json://example.org/"}, "name"),
        ("notify/mine", {"webhook": "https://example.org/"}, "secret"),
        ("notify/mine", {"webhook": "https://example.org/", "secret": "short"}, "secret"),
        ("notify/mine", {"url": "json://example.org/", "secret": SECRET}, "secret"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_not_kept(
    two: Two, path: str, body: dict[str, Any], field: str | None
) -> None:
    answer = await two.call(ANN, "PUT", path, body)
    assert answer.status in (400, 404), answer.body
    if field is not None:
        assert (answer.status, answer.json["field"]) == (400, field)
    assert not any(entry["own"] for entry in (await two.named(ANN, path.partition("/")[0])).values())


async def test_nothing_is_taken_from_the_servers_environment(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAVI_NOTIFY_MINE_SECRET", SECRET)
    answer = await two.call(ANN, "PUT", "notify/mine", {"webhook": "https://example.org/"})
    assert (answer.status, answer.json["field"]) == (400, "secret")
    assert "NAVI_NOTIFY" not in answer.json["message"]


async def test_there_is_room_for_a_hundred_of_each_and_for_a_million_characters(two: Two) -> None:
    for number in range(MAX_ENTRIES):
        await two.ok(ANN, "PUT", f"notify/n{number}", {"url": "json://example.org/"})
    answer = await two.call(ANN, "PUT", "notify/more", {"url": "json://example.org/"})
    assert (answer.status, answer.json["code"]) == (429, "limit_reached")
    await two.ok(ANN, "PUT", "notify/n7", {"url": "jsons://example.org/"})  # replaced: none more
    await two.ok(BEN, "PUT", "notify/more", {"url": "json://example.org/"})
    for number in range(9):
        await two.ok(ANN, "PUT", f"profiles/p{number}", {"instructions": "x" * 100_000})
    answer = await two.call(ANN, "PUT", "profiles/p9", {"instructions": "x" * 100_000})
    assert (answer.status, answer.json["code"]) == (429, "limit_reached")


class TestProfiles:
    """Profiles."""

    async def test_an_own_one_goes_before_that_of_a_file_and_may_extend_it(self, two: Two) -> None:
        folder = Path(jupyter_config_dir(), "navi", "profiles")
        folder.mkdir(parents=True)
        (folder / "house.toml").write_text('description = "Of the house."\ntools = ["effect:read"]\n')
        assert (await two.named(ANN, "profiles"))["house"]["own"] is False
        made = await two.ok(ANN, "PUT", "profiles/house", {"extends": "house", "description": "Of Ann."})
        assert (made["own"], made["path"], made["tools"]) == (True, None, ["effect:read"])
        await two.ok(ANN, "PUT", "profiles/house", {"description": "Of Ann.", "tools": ["list_recalls"]})
        offered = []
        for who in (ANN, BEN):
            sid = await two.session(who, profile="house")
            listed = (await two.api("GET", "tools", headers=who, session_id=sid)).json["tools"]
            offered.append({tool["name"] for tool in listed})
        assert offered[0] == {"list_recalls"}
        assert offered[1] > {"list_recalls"}
        listed = await two.named(BEN, "profiles")
        assert (listed["house"]["own"], listed["house"]["description"]) == (False, "Of the house.")
        await two.ok(ANN, "DELETE", "profiles/house")
        assert (await two.named(ANN, "profiles"))["house"]["description"] == "Of the house."

    async def test_own_ones_extend_own_ones_but_not_themselves(self, two: Two) -> None:
        await two.ok(ANN, "PUT", "profiles/a", {"tools": ["effect:read"]})
        await two.ok(ANN, "PUT", "profiles/b", {"extends": "a"})
        refused = await two.call(ANN, "PUT", "profiles/a", {"extends": "b"})
        assert (refused.status, refused.json["field"]) == (400, "extends")
        assert (await two.named(ANN, "profiles"))["b"]["tools"] == ["effect:read"]
        await two.ok(ANN, "DELETE", "profiles/a")
        broken = (await two.named(ANN, "profiles"))["b"]
        assert broken["available"] is False
        assert "'a'" in broken["why"]
        refused = await two.call(BEN, "PUT", "profiles/c", {"extends": "b"})
        assert (refused.status, refused.json["field"]) == (400, "extends")
        assert "'b'" in refused.json["message"]

    async def test_sessions_of_others_do_not_get_it(self, two: Two) -> None:
        await two.ok(ANN, "PUT", "profiles/mine", {"model": "offline"})
        await two.session(ANN, profile="mine")
        refused = await two.call(BEN, "POST", "sessions", {"profile": "mine"})
        assert (refused.status, refused.json["field"]) == (400, "profile")
        sid = await two.session(BEN)
        assert (await two.call(BEN, "PATCH", f"sessions/{sid}", {"profile": "mine"})).status == 400

    async def test_a_change_holds_from_the_next_run_on(self, two: Two) -> None:
        await two.ok(ANN, "PUT", "profiles/mine", {})
        sid = await two.session(ANN, profile="mine")
        assert (await two.run(ANN, sid, "remind me in 10 minutes to look"))["status"] == "completed"
        assert len((await two.ok(ANN, "GET", "recalls"))["recalls"]) == 1
        await two.ok(ANN, "PUT", "profiles/mine", {"permissions": {"create_recall": "deny"}})
        await two.run(ANN, sid, "remind me in 20 minutes to look")
        assert len((await two.ok(ANN, "GET", "recalls"))["recalls"]) == 1
        await two.ok(ANN, "DELETE", "profiles/mine")
        ended = await two.run(ANN, sid)
        assert ended["status"] == "failed"
        assert "'mine'" in ended["error"]["message"]

    async def test_the_database_is_read_once_for_a_run(self, two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
        await two.ok(ANN, "PUT", "profiles/mine", {})
        sid = await two.session(ANN, profile="mine")
        store, reads = two.services.sessions.store, []
        real = store.fetch_all

        async def counted(sql: str, parameters: Any = ()) -> Any:
            reads.extend([parameters] if "FROM user_entries" in sql else [])
            return await real(sql, parameters)

        monkeypatch.setattr(store, "fetch_all", counted)
        assert (await two.run(ANN, sid))["status"] == "completed"
        assert reads == [("ann",)]

    async def test_runs_of_recalls_have_it_as_prompts_do(self, two: Two) -> None:
        await two.ok(ANN, "PUT", "profiles/mine", {})
        sid = await two.session(ANN, profile="mine")
        schedule = {"kind": "once", "in": "1h"}
        body = {"session_id": sid, "message": "look", "schedule": schedule}

        async def fired() -> Any:
            recall = await two.ok(ANN, "POST", "recalls", body)
            await two.ok(ANN, "POST", f"recalls/{recall['id']}/fire", {})
            async with asyncio.timeout(40):
                while True:
                    firings = (await two.ok(ANN, "GET", f"recalls/{recall['id']}/firings"))["firings"]
                    run_id = firings[0]["run_id"]
                    if run_id is not None:
                        run = await two.ok(ANN, "GET", f"sessions/{sid}/runs/{run_id}")
                        if run["status"] not in ("queued", "running"):
                            return run
                    await asyncio.sleep(0.05)

        assert (await fired())["status"] == "completed"
        await two.ok(ANN, "DELETE", "profiles/mine")
        run = await fired()
        assert run["status"] == "failed"
        assert "'mine'" in run["error"]["message"]

    async def test_what_another_server_of_the_database_has_stored_holds_too(self, two: Two, tmp_path: Path) -> None:
        await two.ok(ANN, "PUT", "profiles/mine", {"permissions": {"create_recall": "deny"}})
        sid = await two.session(ANN, profile="mine")
        store = await open_store(tmp_path / "own.db")
        await UserConfigurationStore(store).put("ann", "profile", "mine", "{}")
        await store.close()
        await two.run(ANN, sid, "remind me in 10 minutes to look")
        assert len((await two.ok(ANN, "GET", "recalls"))["recalls"]) == 1

    async def test_a_kernel_needs_a_cell_to_change_what_agents_may_do(
        self, two: Two, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cells = two.services.kernel_scope._cells
        assert cells is not None
        monkeypatch.setattr(type(cells), "touched", True)
        assert navi.lifecycle is not None
        kernel = {"Authorization": f"navi {navi.lifecycle.kernel_token.value}"}
        for path, body in ROUTES:
            for method, sent in (("PUT", body), ("DELETE", None)):
                answer = await two.call(kernel, method, f"{path}/mine", sent)
                assert (answer.status, answer.json["code"]) == (403, "kernel_token_scope"), (method, path)


class TestMcp:
    """MCP servers."""

    async def test_runs_of_two_users_have_connections_of_their_own(self, two: Two, mcp_url: str) -> None:
        of_ann, of_ben = await two.session(ANN), await two.session(BEN)
        await two.ok(ANN, "PUT", "mcp/all", {"url": mcp_url})
        assert "all__shout" in await two.tools(ANN, of_ann)
        assert await two.tools(BEN, of_ben) == {}
        for who, sid, listed in ((ANN, of_ann, True), (BEN, of_ben, False)):
            tools = (await two.api("GET", "tools", headers=who, session_id=sid)).json["tools"]
            assert ("mcp:all" in {tool["source"] for tool in tools}) is listed
        assert (await two.ok(BEN, "GET", "mcp"))["mcp"] == []
        assert (await two.call(BEN, "POST", "mcp/all/restart")).status == 404
        await two.ok(BEN, "PUT", "mcp/all", {"url": mcp_url})
        assert "all__shout" in await two.tools(BEN, of_ben)
        pools = two.services.agent.mcp._pools
        mine, others = (pools[owner].pool._servers["all"] for owner in ("ann", "ben"))
        assert mine is not others
        assert mine._client is not None
        assert mine._client is not others._client
        before = others._client
        await two.ok(ANN, "DELETE", "mcp/all")
        assert await two.tools(ANN, of_ann) == {}
        assert mine.state.status == "stopped"
        assert others._client is before
        entry = (await two.named(BEN, "mcp"))["all"]
        assert (entry["status"], entry["own"], entry["host"]) == ("ready", True, "127.0.0.1")

    async def test_its_status_is_seen_in_the_sessions_of_its_user_alone(self, two: Two, mcp_url: str) -> None:
        of_ann, of_ben = await two.session(ANN), await two.session(BEN)
        await two.ok(ANN, "PUT", "mcp/all", {"url": mcp_url})
        async with (
            two.api.socket(of_ann, headers=ANN, after=0) as mine,
            two.api.socket(of_ben, headers=BEN, after=0) as others,
        ):
            for socket in (mine, others):
                await socket.answer({"type": "unqueue", "target": "nothing"})  # it follows by now
            await two.tools(ANN, of_ann)
            seen: list[Any] = []
            while "ready" not in [value["status"] for value in seen]:
                seen += [one["event"]["value"] for one in await mine.envelopes()]
        events = (await two.ok(BEN, "GET", f"sessions/{of_ben}/events"))["events"]
        assert [one for one in events if one["event"].get("name") == "navi.mcp"] == []

    async def test_a_changed_one_is_used_from_the_next_run_on(self, two: Two, mcp_url: str, tmp_path: Path) -> None:
        sid = await two.session(ANN)
        await two.ok(ANN, "PUT", "mcp/all", {"url": f"{mcp_url}/wrong"})
        assert "mcp_unavailable" in await two.tools(ANN, sid)
        store = await open_store(tmp_path / "own.db")  # as another server of the database does
        await UserConfigurationStore(store).put("ann", "mcp", "all", json.dumps({"url": mcp_url}))
        await store.close()
        assert "all__shout" in await two.tools(ANN, sid)

    async def test_an_own_one_goes_before_that_of_a_file(self, two: Two, mcp_url: str) -> None:
        file = Path(jupyter_config_dir(), "navi", "mcp.json")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"mcpServers": {"all": {"url": "http://127.0.0.1:9/"}}}))
        assert (await two.named(ANN, "mcp"))["all"]["own"] is False
        await two.ok(ANN, "PUT", "mcp/all", {"url": mcp_url})
        assert [entry["own"] for entry in (await two.ok(ANN, "GET", "mcp"))["mcp"]] == [True]
        assert "all__shout" in await two.tools(ANN, await two.session(ANN))
        assert [state.status for state in two.services.agent.mcp._shared.states] == ["configured"]

    async def test_connections_that_are_not_used_are_closed_and_opened_again_by_a_call(
        self, two: Two, mcp_url: str
    ) -> None:
        await two.ok(ANN, "PUT", "mcp/all", {"url": mcp_url})
        servers = two.services.agent.mcp
        servers._idle = 0.2
        sid = await two.session(ANN)
        tool = (await two.tools(ANN, sid))["all__shout"]
        sweeper = servers._sweeper
        assert sweeper is not None
        sweeper.cancel()
        servers._sweeper = None
        servers._sweep_later()
        async with asyncio.timeout(20):
            while servers._pools:  # noqa: ASYNC110  a task closes it
                await asyncio.sleep(0.02)
        session = await two.services.sessions.find(sid, owner="ann")
        context = await two.services.sessions.orchestrator.context_of(session)

        async def call() -> Any:
            tool_context.set(context)
            tool_call.set("call")
            return await tool.call({"text": "again"})

        assert (await asyncio.create_task(call())).content == "AGAIN"


class TestGuard:
    """As it is unless the administrator allows private addresses."""

    @pytest.fixture
    def navi_config(self, tmp_path: Path) -> dict[str, Any]:
        return {"database_url": database_url(tmp_path / "own.db")}

    @pytest.mark.parametrize(
        "url",
        ["https://127.0.0.1/mcp", "https://[::1]/", "https://10.0.0.8/", "https://169.254.169.254/", "http://1.1.1.1/"],
    )
    async def test_private_addresses_and_plain_http_are_refused(self, two: Two, url: str) -> None:
        for path, body in (("mcp/x", {"url": url}), ("notify/x", {"webhook": url, "secret": SECRET})):
            answer = await two.call(ANN, "PUT", path, body)
            assert answer.status == 400, answer.body

    async def test_a_name_that_leads_inwards_is_not_connected_to(self, two: Two) -> None:
        port = free_port()
        connected: list[object] = []
        server = await asyncio.start_server(lambda *_: connected.append(1), "127.0.0.1", port)
        await two.ok(ANN, "PUT", "mcp/x", {"url": f"https://localhost:{port}/mcp"})
        await two.tools(ANN, await two.session(ANN))
        entry = (await two.named(ANN, "mcp"))["x"]
        assert entry["status"] == "failed"
        assert "this machine" in entry["why"]
        assert connected == []
        server.close()


class TestNotify:
    """Targets of notifications."""

    async def _fire(self, two: Two, who: dict[str, str], **policy: Any) -> dict[str, Any]:
        """A recall that fires once, when its firing is over and notified."""
        sid = await two.session(who)
        recall = await two.ok(
            who,
            "POST",
            "recalls",
            {"session_id": sid, "message": "look", "schedule": {"kind": "once", "in": "1h"}, "policy": policy},
        )
        await two.ok(who, "POST", f"recalls/{recall['id']}/fire", {})
        async with asyncio.timeout(40):
            while True:
                (firing,) = (await two.ok(who, "GET", f"recalls/{recall['id']}/firings"))["firings"]
                if firing["status"] == "succeeded" and firing["delivery"] in ("none", "delivered", "failed"):
                    return dict(firing)
                await asyncio.sleep(0.05)

    async def test_recalls_name_the_own_target_of_their_user(self, two: Two, receiver: Receiver) -> None:
        await two.ok(ANN, "PUT", "notify/Desk", {"url": receiver.url(path="/ann")})
        refused = await two.call(
            BEN,
            "POST",
            "recalls",
            {
                "session_id": await two.session(BEN),
                "message": "look",
                "schedule": {"kind": "once", "in": "1h"},
                "policy": {"notify": ["desk"]},
            },
        )
        assert refused.status == 400
        assert "desk" in refused.json["message"]
        assert (await two.call(BEN, "POST", "notify/desk/test")).status == 404
        await two.ok(BEN, "PUT", "notify/desk", {"url": receiver.url(path="/ben")})
        await self._fire(two, ANN, notify=["desk"])
        assert receiver.paths == ["/ann"]
        await self._fire(two, BEN, notify=["desk"])
        assert receiver.paths == ["/ann", "/ben"]
        assert [(await two.named(who, "notify"))["desk"]["sent"] for who in (ANN, BEN)] == [1, 1]

    async def test_an_own_webhook_gets_the_events_of_its_user_alone(self, two: Two, receiver: Receiver) -> None:
        folder = Path(jupyter_config_dir(), "navi")
        folder.mkdir(parents=True, exist_ok=True)
        hook = f'webhook = "http://127.0.0.1:{receiver.port}/house"\nsecret = "{SECRET}"\nevents = ["run"]\n'
        (folder / "notify.toml").write_text(f"[targets.house]\n{hook}")
        (folder / "notify.toml").chmod(0o600)
        own = {"webhook": f"http://127.0.0.1:{receiver.port}/ann", "secret": SECRET, "events": ["run"]}
        await two.ok(ANN, "PUT", "notify/hook", own)
        await two.run(BEN, await two.session(BEN))
        await two.run(ANN, await two.session(ANN))
        async with asyncio.timeout(40):
            while len(receiver.paths) < 3:  # noqa: ASYNC110  another thread adds to it
                await asyncio.sleep(0.05)
        assert sorted(receiver.paths) == ["/ann", "/house", "/house"]

    async def test_an_own_target_takes_the_place_of_one_of_a_file_for_its_user(
        self, two: Two, receiver: Receiver
    ) -> None:
        folder = Path(jupyter_config_dir(), "navi")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "notify.toml").write_text(f'[targets.desk]\nurl = "{receiver.url(path="/house")}"\n')
        await two.ok(ANN, "PUT", "notify/desk", {"url": receiver.url(path="/ann")})
        for who in (ANN, BEN):
            await two.ok(who, "POST", "notify/desk/test")
        assert receiver.paths == ["/ann", "/house"]
        await two.ok(ANN, "DELETE", "notify/desk")
        await two.ok(ANN, "POST", "notify/desk/test")
        assert receiver.paths == ["/ann", "/house", "/house"]
