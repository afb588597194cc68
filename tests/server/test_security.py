"""Who may come in, and what each of them sees."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.auth import Authorizer, IdentityProvider, User
from jupyter_server.auth.identity import PasswordIdentityProvider
from jupyter_server.serverapp import ServerApp
from tornado.httpclient import HTTPClientError
from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler
from traitlets.config import Config

from navi_jupyter.commands import Answer, Command, Edit, Prompt, Stop, Unqueue
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.identity import KernelToken, identifies_people
from navi_jupyter.server.kernel_caller import read_caller
from navi_jupyter.server.kernel_scope import needs_cell
from navi_jupyter.server.rest import ROUTES
from tests.conftest import Api

NOT_FOUND = {
    "sessions": "session_not_found",
    "recalls": "recall_not_found",
    "memory": "fact_not_found",
    "attachments": "attachment_not_found",
    "runs": "run_not_found",
}
"""What belongs to somebody, by the first word of its path, and how it is not found."""
IDS = {"sid": "s_1", "iid": "x", "nid": "n_1", "rid": "r_1", "id": "rec_1", "server": "x", "kid": "k", "name": "f"}
WALK = [(op.method, op.path.format(**IDS)) for op in ROUTES.operations] + [
    ("GET", "sessions/s_1/ws"),
    ("GET", "notebooks/ws"),
    ("GET", "kernels/k/loan?session_id=s_1"),
    ("GET", "nothing/here"),
    ("HEAD", "health"),
    ("PUT", "sessions"),
]


@pytest.fixture(params=[True, False], ids=["lax", "strict"])
def allow_unauthenticated_access(request: pytest.FixtureRequest) -> bool:
    """Both values of Jupyter's switch."""
    return bool(request.param)


class TestNobody:
    """Requests without credentials."""

    @pytest.fixture
    def jp_server_config(self, allow_unauthenticated_access: bool) -> Config:
        return Config(
            {
                "ServerApp": {
                    "jpserver_extensions": {"navi_jupyter": True},
                    "allow_unauthenticated_access": allow_unauthenticated_access,
                }
            }
        )

    async def test_no_route_answers_without_credentials(self, api: Api) -> None:
        for method, path in WALK:
            body: Any = {} if method in ("POST", "PATCH") else None
            answer = await api(method, path, body, headers={"Authorization": "token wrong"})
            assert answer.status == 403, (method, path, answer.status)
            if method != "HEAD":
                assert answer.json["code"] == "forbidden"

    async def test_the_page_sends_who_is_not_logged_in_to_the_login_page(
        self, navi: NaviExtension, jp_fetch: Any
    ) -> None:
        with pytest.raises(HTTPClientError) as moved:
            await jp_fetch("navi", headers={"Authorization": "token wrong"}, follow_redirects=False)
        assert moved.value.code == 302
        assert moved.value.response is not None
        assert "/login?next=" in moved.value.response.headers["Location"]

    async def test_a_wrong_kernel_token_is_nobody(self, api: Api) -> None:
        for value in ("navi", "navi ", "navi 0", f"navi {'0' * 48}", "navi é"):
            assert (await api("GET", "health", headers={"Authorization": value})).status == 403

    async def test_the_kernels_token_opens_every_door_without_xsrf(self, api: Api, navi: NaviExtension) -> None:
        kernel = {"Authorization": f"navi {token_of(navi)}"}
        created = await api("POST", "sessions", {}, headers=kernel)
        assert created.status == 201
        async with api.socket(created.json["id"], headers=kernel, after=0) as socket:
            assert "accepted" in await socket.answer({"type": "stop"})
        with pytest.raises(HTTPClientError) as refused:  # code in a kernel could say what the user's page shows
            async with api.page(headers=kernel, work=True):
                pass
        assert refused.value.code == 403


def token_of(navi: NaviExtension) -> str:
    """The secret of the running extension."""
    assert navi.lifecycle is not None
    return navi.lifecycle.kernel_token.value


async def test_a_cookie_needs_the_xsrf_token_to_change_anything(
    api: Api, navi: NaviExtension, jp_fetch: Any, jp_serverapp: ServerApp
) -> None:
    cookies = await login(jp_fetch)
    cookie = {"Authorization": "", "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    assert (await api("GET", "sessions", headers={**cookie, "Referer": referer(jp_serverapp)})).status == 200
    refused = await api("POST", "sessions", {}, headers=cookie)
    assert (refused.status, refused.json["code"]) == (403, "forbidden")
    allowed = await api("POST", "sessions", {}, headers={**cookie, "X-XSRFToken": cookies["_xsrf"]})
    assert allowed.status == 201


async def test_a_cookie_from_a_foreign_origin_gets_no_socket(api: Api, jp_fetch: Any, jp_serverapp: ServerApp) -> None:
    sid = await api.session()
    cookies = await login(jp_fetch)
    cookie, xsrf = browser_headers(cookies, jp_serverapp), cookies["_xsrf"]
    async with api.socket(sid, headers=cookie, after=0, _xsrf=xsrf) as socket:
        assert "accepted" in await socket.answer({"type": "stop"})
    with pytest.raises(HTTPClientError) as refused:
        async with api.socket(sid, headers={**cookie, "Origin": "https://evil.example"}, _xsrf=xsrf):
            pass
    assert refused.value.code == 403
    elsewhere = {**cookie, "Origin": "https://evil.example", "X-XSRFToken": xsrf}
    assert (await api("POST", "sessions", {}, headers=elsewhere)).status in (403, 404)


async def test_a_cookie_needs_the_xsrf_token_for_any_socket(
    api: Api, jp_fetch: Any, jp_ws_fetch: Any, jp_serverapp: ServerApp
) -> None:
    """A page of another server of the same host has the browser send the cookie, and cannot read the token."""
    sid = await api.session()
    cookies = await login(jp_fetch)
    cookie = browser_headers(cookies, jp_serverapp)
    token = jp_serverapp.identity_provider.token
    for path, query in ((f"sessions/{sid}/ws", {}), ("notebooks/ws", {}), ("kernels/k/loan", {"session_id": sid})):
        for forged in ({}, {"_xsrf": ""}, {"_xsrf": "2|a|b|c"}, {"_xsrf": cookies["_xsrf"][:-20]}):
            with pytest.raises(HTTPClientError) as refused:
                await jp_ws_fetch(f"navi/api/{path}", headers=cookie, params={**query, **forged})
            assert refused.value.code == 403
        for unforgeable in ({"_xsrf": cookies["_xsrf"]}, {"token": token}):
            (await jp_ws_fetch(f"navi/api/{path}", headers=cookie, params={**query, **unforgeable})).close()


class TestWithoutTheXsrfCheck:
    """``disable_check_xsrf``: for servers that are protected otherwise."""

    @pytest.fixture
    def jp_server_config(self) -> Config:
        return Config({"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}, "disable_check_xsrf": True}})

    async def test_a_cookie_is_enough_for_a_socket(self, api: Api, jp_fetch: Any, jp_serverapp: ServerApp) -> None:
        sid = await api.session()
        async with api.socket(sid, headers=browser_headers(await login(jp_fetch), jp_serverapp), after=0) as socket:
            assert "accepted" in await socket.answer({"type": "stop"})


def browser_headers(cookies: Mapping[str, str], serverapp: ServerApp) -> dict[str, str]:
    """Those of a browser with these cookies, in a page of this server."""
    host = f"127.0.0.1:{serverapp.port}"  # the cookie's name has it
    cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
    return {"Authorization": "", "Cookie": cookie, "Host": host, "Origin": f"http://{host}"}


async def login(jp_fetch: Any) -> dict[str, str]:
    """The cookies of a browser that has opened the page with the token."""
    response = await jp_fetch("navi")
    pairs = [header.split(";", 1)[0].split("=", 1) for header in response.headers.get_list("Set-Cookie")]
    return dict(pairs)


def referer(serverapp: ServerApp) -> str:
    """Where a page of this server is."""
    return f"http://localhost:{serverapp.port}/"


# --- several people


class Two(IdentityProvider):
    """Two people with a token each, as a company's own identity provider may have them."""

    async def get_user(self, handler: RequestHandler) -> User | None:
        name = {"token of-ann": "ann", "token of-bob": "bob"}.get(handler.request.headers.get("Authorization", ""))
        if name is not None:
            handler._token_authenticated = True  # type: ignore[attr-defined]
        return None if name is None else User(username=name)


ANN = {"Authorization": "token of-ann"}
BOB = {"Authorization": "token of-bob"}
AS = Callable[..., Awaitable[Any]]


class TestSeveralPeople:
    """A server whose identity provider knows names."""

    @pytest.fixture
    def jp_server_config(self, navi_config: dict[str, Any]) -> Config:
        return Config(
            {
                "ServerApp": {"jpserver_extensions": {"navi_jupyter": True}, "identity_provider_class": Two},
                "NaviExtension": navi_config,
            }
        )

    async def test_a_key_that_would_serve_all_of_them_is_not_stored(self, api: Api) -> None:
        assert not (await api("GET", "providers", headers=ANN)).json["may_store"]
        answer = await api("PUT", "providers/openai-chat", {"value": "sk-0123456789"}, headers=ANN)
        assert (answer.status, answer.json["code"]) == (403, "forbidden")

    async def test_what_is_anothers_is_not_found_on_any_route(self, api: Api) -> None:
        sid = (await api("POST", "sessions", {}, headers=ANN)).json["id"]
        prompt = {"type": "prompt", "text": "what can you do?"}
        rid = (await api("POST", f"sessions/{sid}/commands", prompt, headers=ANN)).json["run_id"]
        recall = {"session_id": sid, "message": "look", "schedule": {"kind": "once", "in": "1h"}}
        recall_id = (await api("POST", "recalls", recall, headers=ANN)).json["id"]
        fact_id = (await api("POST", "memory", {"text": "secret"}, headers=ANN)).json["id"]
        file_id = (await api("POST", "attachments", raw=b"secret", headers=ANN)).json["id"]
        ids = {"recalls": recall_id, "memory": fact_id, "attachments": file_id}
        bodies = {
            ("PATCH", "sessions/{sid}"): {"title": "mine"},
            ("POST", "sessions/{sid}/commands"): prompt,
            ("PATCH", "recalls/{id}"): {"title": "mine"},
            ("PATCH", "memory/{id}"): {"text": "mine"},
            ("POST", "sessions/{sid}/read"): {"seq": 1},
            ("POST", "sessions/{sid}/notebook-requests/{nid}/claim"): {"unsaved": True},
            ("POST", "sessions/{sid}/notebook-requests/{nid}/report"): {},
            ("POST", "sessions/{sid}/share"): {"user": "carl"},
            ("POST", "sessions/{sid}/unshare"): {"user": "carl"},
        }
        tried = 0
        for op in ROUTES.operations:
            kind = op.path.partition("/")[0]
            if "{" not in op.path or kind not in NOT_FOUND:
                continue
            path = op.path.format(sid=sid, rid=rid, iid="i_1", nid="n_1", id=ids.get(kind))
            answer = await api(op.method, path, bodies.get((op.method, op.path)), headers=BOB)
            assert answer.status == 404, (op.method, op.path, answer.status, answer.body)
            assert answer.json["code"] == NOT_FOUND[kind]
            tried += 1
        assert tried > 12
        stream = await api("GET", f"sessions/{sid}/events", headers={**BOB, "Accept": "text/event-stream"})
        assert stream.status == 404
        with pytest.raises(HTTPClientError) as refused:
            async with api.socket(sid, headers=BOB):
                pass
        assert refused.value.code == 404
        stolen = await api("POST", "recalls", recall, headers=BOB)
        assert (stolen.status, stolen.json["code"]) == (404, "session_not_found")
        assert (await api("GET", f"sessions/{sid}", headers=ANN)).status == 200

    async def test_lists_show_ones_own(self, api: Api) -> None:
        sid = (await api("POST", "sessions", {}, headers=ANN)).json["id"]
        recall = {"session_id": sid, "message": "look", "schedule": {"kind": "once", "in": "1h"}}
        await api("POST", "recalls", recall, headers=ANN)
        for what in ("sessions", "recalls"):
            assert len((await api("GET", what, headers=ANN)).json[what]) == 1
            assert (await api("GET", what, headers=BOB)).json[what] == []
        exported = {who["Authorization"]: (await api("GET", "recalls/export", headers=who)).body for who in (ANN, BOB)}
        assert sid.encode() in exported[ANN["Authorization"]]
        assert b"[[recall]]" not in exported[BOB["Authorization"]]
        imported = await api("POST", "recalls/import", raw=exported[ANN["Authorization"]], headers=BOB)
        assert (imported.status, imported.json["code"]) == (404, "session_not_found")
        for what in ("pause", "resume"):
            assert (await api("POST", f"recalls/{what}", headers=BOB)).json == {"changed": 0}
            assert (await api("POST", f"recalls/{what}", headers=ANN)).json == {"changed": 1}

    async def test_a_page_hears_of_its_own_users_sessions_alone(self, api: Api, navi: NaviExtension) -> None:
        assert navi.lifecycle is not None
        sessions = (await navi.lifecycle.ready()).sessions
        keys = {"ann": ANN, "bob": BOB}
        of = {who: (await api("POST", "sessions", {}, headers=key)).json["id"] for who, key in keys.items()}
        async with api.page(headers=ANN, work=True) as ann, api.page(headers=BOB, work=False) as bob:
            while None in (shown := [sessions.pages.unsaved(who, "work.ipynb") for who in keys]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert shown == [True, False]
            for who in keys:
                await sessions.pages.changed(await sessions.find(of[who], owner=who), "work.ipynb")
            assert (await ann.read())["session_id"] == of["ann"]
            assert (await bob.read())["session_id"] == of["bob"]

    async def test_the_sender_is_whom_the_server_knows(self, api: Api) -> None:
        session = (await api("POST", "sessions", {}, headers=BOB)).json
        assert session["owner"] == "bob"
        claimed = await api("POST", "sessions", {"owner": "ann"}, headers=BOB)
        assert (claimed.status, claimed.json["field"]) == (400, "owner")

    async def test_kernels_have_no_access_where_it_is_not_set_whose_they_are(
        self, api: Api, navi: NaviExtension
    ) -> None:
        kernel = {"Authorization": f"navi {token_of(navi)}"}
        for method, path in (("GET", "sessions"), ("POST", "sessions"), ("GET", "health")):
            refused = await api(method, path, {} if method == "POST" else None, headers=kernel)
            assert (refused.status, refused.json["code"]) == (403, "forbidden")
            assert "kernel_user" in refused.json["message"]
        sid = (await api("POST", "sessions", {}, headers=ANN)).json["id"]
        with pytest.raises(HTTPClientError) as closed:
            async with api.socket(sid, headers=kernel):
                pass
        assert closed.value.code == 403

    class TestWithAKernelUser:
        """``kernel_user`` says whose the kernels are."""

        @pytest.fixture
        def navi_config(self) -> dict[str, Any]:
            return {"kernel_user": "ann"}

        async def test_kernels_speak_as_that_user(self, api: Api, navi: NaviExtension) -> None:
            sid = (await api("POST", "sessions", {}, headers=ANN)).json["id"]
            kernel = {"Authorization": f"navi {token_of(navi)}"}
            assert (await api("GET", f"sessions/{sid}", headers=kernel)).status == 200


async def test_on_a_server_without_names_every_browser_and_kernel_is_the_same_person(
    api: Api, navi: NaviExtension
) -> None:
    """Jupyter makes up a new "Anonymous …" for every browser; its sessions must not vanish with its cookies."""
    sid = await api.session()
    assert (await api("GET", f"sessions/{sid}")).status == 200
    kernel = {"Authorization": f"navi {token_of(navi)}"}
    seen = await api("GET", f"sessions/{sid}", headers=kernel)
    assert (seen.status, seen.json["owner"]) == (200, "local")


def test_only_a_provider_that_changes_jupyters_identifies_people() -> None:
    class Cosmetic(PasswordIdentityProvider):
        """Changes nothing about who somebody is."""

        cookie_name = "other"

    class Named(PasswordIdentityProvider):
        async def get_user_token(self, handler: RequestHandler) -> User | None:
            return User(username="ann")

    assert not identifies_people(IdentityProvider())
    assert not identifies_people(PasswordIdentityProvider())
    assert not identifies_people(Cosmetic())
    assert identifies_people(Named())
    assert identifies_people(Two())


def test_the_kernels_token_is_secret_enough() -> None:
    token = KernelToken("local")
    assert len(token.value) == 48
    assert token.matches(HTTPHeaders({"Authorization": f"navi {token.value}"}))
    assert not token.matches(HTTPHeaders({"Authorization": f"token {token.value}"}))
    assert not token.matches(HTTPHeaders())


# --- permission


class OnlyRead(Authorizer):
    """Lets everybody look and nobody act."""

    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:
        return action == "read" or resource != "navi"


class TestReaders:
    """A server whose authorizer distinguishes."""

    @pytest.fixture
    def jp_server_config(self) -> Config:
        return Config({"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}, "authorizer_class": OnlyRead}})

    async def test_every_route_asks_the_authorizer(self, api: Api) -> None:
        for op in ROUTES.operations:
            path = op.path.format(**IDS)
            body: Any = {} if op.body else None
            answer = await api(op.method, path, body)
            if op.action == "read":
                assert answer.status != 403, (op.method, op.path)
            else:
                assert (answer.status, answer.json["code"]) == (403, "forbidden"), (op.method, op.path)
        with pytest.raises(HTTPClientError) as refused:
            async with api.socket("s_1"):
                pass
        assert refused.value.code == 403


# --- the connection file


async def test_the_connection_file_is_private_and_leads_to_the_server(
    api: Api, navi: NaviExtension, jp_serverapp: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.environ["NAVI_CONNECTION_FILE"]
    mode, content = read_connection_file(path)
    assert mode == 0o600
    assert content == {
        "url": jp_serverapp.connection_url,
        "token": token_of(navi),
        "pid": os.getpid(),
        "sock": jp_serverapp.sock,
    }
    assert content["token"] not in "".join(os.environ.values())
    await navi.stop_extension()
    assert not os.path.exists(path)  # noqa: PTH110
    assert "NAVI_CONNECTION_FILE" not in os.environ


def read_connection_file(path: str) -> tuple[int, Any]:
    """Its permissions and what it says."""
    file = Path(path)
    return file.stat().st_mode & 0o777, json.loads(file.read_text())


def test_what_a_kernel_may_always_do_is_this_and_everything_else_takes_a_cell() -> None:
    changes = [each for each in ROUTES.operations if each.action != "read"]
    always = {f"{each.method} {each.path}" for each in changes if each.in_cell is False}
    by_its_body = {f"{each.method} {each.path}" for each in changes if callable(each.in_cell)}
    assert always == {
        "POST sessions/{sid}/commands",  # by the kind of command: below
        "POST sessions/{sid}/read",
        "POST attachments",
        "DELETE recalls/{id}",
        "POST recalls/{id}/pause",
        "POST recalls/pause",
    }
    assert by_its_body == {
        "POST sessions",
        "POST sessions/find",
        "PATCH sessions/{sid}",
        "POST recalls",
        "PATCH recalls/{id}",
        "POST recalls/{id}/fire",
        "POST recalls/{id}/clone",
        "POST recalls/{id}/resume",
    }
    assert not any(each.in_cell for each in ROUTES.operations if each.action == "read")


@pytest.mark.parametrize(
    ("command", "takes_a_cell"),
    [
        (Prompt(text="x"), False),
        (Prompt(text="x", mode="steer"), False),
        (Prompt(text="x", model="offline"), True),
        (Stop(), False),
        (Unqueue(target="c"), False),
        (Edit(target="c", text="y"), True),
        (Answer(interrupt_id="i", status="resolved"), True),
        (Answer(interrupt_id="i", status="cancelled"), True),
    ],
)
def test_which_commands_of_a_kernel_take_a_cell(command: Command, takes_a_cell: bool) -> None:
    assert needs_cell(command) is takes_a_cell


@pytest.mark.parametrize(
    "header",
    [
        "",
        "k",
        "k c 1",
        "k c x -",
        'k"} c 1 -',
        "k c 1 short",
        "k c 1 - more",
        "k\tc 1 -",
        "ü c 1 -",
        "k" * 300 + " c 1 -",
    ],
)
def test_a_header_that_is_not_as_it_must_be_names_no_cell(header: str) -> None:
    caller = read_caller(header, None)
    assert (caller.kernel_id, caller.request_id, caller.pid, caller.key) == ("", "", None, None)
    assert read_caller(f"k c_1 7 {'a' * 32}", None).key == "a" * 32
