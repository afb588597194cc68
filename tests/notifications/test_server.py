"""On a real Jupyter server: a recall runs, its owner is notified, and what came is unread until it is seen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.identity import server_address
from tests.conftest import Api
from tests.support.database import URL, database_url, perform
from tests.support.receiver import Receiver

TOMORROW = {"kind": "once", "in": "1d"}


@pytest.fixture
def navi_config(tmp_path: Path) -> dict[str, Any]:
    return {"notify_allow_private": True, "database_url": database_url(tmp_path / "own.db")}


@pytest.fixture(autouse=True)
def nothing_is_found_by_looking_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has something to tell must say so."""
    monkeypatch.setattr("navi_jupyter.notifications.service.POLL_EVERY", timedelta(hours=1))


@pytest.fixture
def desk(receiver: Receiver, jp_config_dir: Path) -> Receiver:
    """The target ``desk`` of the server's user."""
    configure(f'[targets.desk]\nurl = "{receiver.url()}"\n')
    return receiver


def configure(text: str) -> None:
    path = Path(os.environ["JUPYTER_CONFIG_DIR"]) / "navi" / "notify.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  the other side is a server
            await asyncio.sleep(0.05)


async def fired(api: Api, sid: str, **policy: Any) -> str:
    """A recall that has run; its id."""
    recall = await api.ok(
        "POST", "recalls", {"session_id": sid, "message": "hello", "schedule": TOMORROW, "policy": policy}
    )
    await api.ok("POST", f"recalls/{recall['id']}/fire")

    async def is_over() -> bool:
        page = await api.ok("GET", f"recalls/{recall['id']}/firings")
        return bool(page["firings"] and page["firings"][0]["status"] == "succeeded")

    await until(is_over)
    return str(recall["id"])


async def listed_unread(api: Api, sid: str) -> int:
    page = await api.ok("GET", "sessions")
    (listed,) = (session["unread"] for session in page["sessions"] if session["id"] == sid)
    return int(listed)


async def unread(api: Api, sid: str) -> int:
    """What the list and the session say alike, when nothing happens in between."""
    listed = await listed_unread(api, sid)
    assert (await api.ok("GET", f"sessions/{sid}"))["unread"] == listed
    return listed


async def test_a_recall_that_has_run_tells_its_owner_with_a_link_to_the_session(api: Api, desk: Receiver) -> None:
    sid = await api.session()
    recall = await fired(api, sid, notify=["desk"])

    async def is_notified() -> bool:
        page = await api.ok("GET", f"recalls/{recall}/firings")
        return bool(page["firings"][0]["delivery"] == "delivered")

    await until(is_notified)
    (body,) = desk.bodies
    assert body["title"] == "Navi: hello – done"
    assert f"navi?session={sid}" in body["message"]
    assert "token" not in body["message"]


async def test_targets_are_listed_and_tried_without_their_urls(api: Api, desk: Receiver) -> None:
    page = await api("GET", "notify")
    assert b"k3yk3yk3y" not in page.body
    (target,) = page.json["notify"]
    assert (target["name"], target["service"], target["available"]) == ("desk", "json", True)
    tried = await api("POST", "notify/desk/test")
    assert (tried.status, tried.json) == (200, {"delivered": True, "error": None})
    assert desk.titles == ["Navi: test"]
    assert (await api("POST", "notify/nobody/test")).json["code"] == "not_found"
    desk.failures = 1
    refused = await api("POST", "notify/desk/test")
    assert refused.json["delivered"] is False
    assert "503" in refused.json["error"]
    assert b"k3yk3yk3y" not in refused.body


async def test_a_slot_that_is_only_accounted_for_is_notified_as_well(api: Api, desk: Receiver) -> None:
    sid = await api.session()
    await api.ok("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "count to 1000"})
    body = {"session_id": sid, "message": "m", "schedule": {"kind": "once", "in": "100ms"}}
    recall = await api.ok("POST", "recalls", body | {"policy": {"notify": ["desk"], "busy": "skip"}})

    async def is_notified() -> bool:
        return bool(desk.bodies)

    await until(is_notified)
    assert desk.titles == ["Navi: m – skipped"]
    (firing,) = (await api.ok("GET", f"recalls/{recall['id']}/firings"))["firings"]
    assert firing["status"] == "skipped"


UNKNOWN = "There is no notification target 'pager'. There are: browser, desk; others go into navi/notify.toml."


async def test_a_name_that_is_not_configured_is_refused_wherever_a_recall_gets_it(api: Api, desk: Receiver) -> None:
    sid = await api.session()
    body: dict[str, Any] = {"session_id": sid, "message": "m", "schedule": TOMORROW}
    good, bad = {"notify": ["DESK", "browser"]}, {"notify": ["desk", "pager"]}
    recall = await api.ok("POST", "recalls", body | {"policy": good})
    toml = f'[[recall]]\nsession = "{sid}"\nmessage = "m"\nschedule = {{kind = "once", in = "1d"}}\n'
    answers = [
        await api("POST", "recalls", body | {"policy": bad}),
        await api("PATCH", f"recalls/{recall['id']}", {"policy": bad}),
        await api("POST", f"recalls/{recall['id']}/clone", {"policy": bad}),
        await api("POST", "recalls/import", raw=(toml + 'policy = {notify = ["pager"]}\n').encode()),
        await api("POST", "recalls/import", raw=(toml + 'policy = {notify = ["pager"]}\n').encode(), dry_run="true"),
    ]
    for answer in answers:
        assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", "policy.notify")
        assert answer.json["message"].endswith(UNKNOWN)
    assert answers[3].json["message"].startswith("recall 1, line 1: ")
    assert [each["id"] for each in (await api.ok("GET", "recalls"))["recalls"]] == [recall["id"]]
    assert (await api("POST", "recalls/import", raw=(toml + 'policy = {notify = ["desk"]}\n').encode())).status == 201


async def test_a_target_that_is_taken_away_breaks_no_recall_and_the_ledger_says_why_no_user_was_notified(
    api: Api, desk: Receiver
) -> None:
    sid = await api.session()
    body: dict[str, Any] = {"session_id": sid, "message": "hello", "schedule": TOMORROW}
    recall = await api.ok("POST", "recalls", body | {"policy": {"notify": ["desk"]}})
    path = f"recalls/{recall['id']}"
    configure("")
    assert (await api("POST", "recalls", body | {"policy": {"notify": ["desk"]}})).status == 400
    await api.ok("PATCH", path, {"title": "other"})
    await api.ok("PATCH", path, {"policy": {"notify": ["desk", "browser"], "retries": 1}})
    await api.ok("POST", f"{path}/clone")
    await api.ok("POST", f"{path}/fire")

    async def is_said() -> bool:
        firings = (await api.ok("GET", f"{path}/firings"))["firings"]
        return bool(firings and firings[0]["delivery_error"])

    await until(is_said)
    (firing,) = (await api.ok("GET", f"{path}/firings"))["firings"]
    assert (firing["status"], firing["delivery"]) == ("succeeded", "pending"), "it may come back"
    assert firing["delivery_error"] == "desk: there is no such target in navi/notify.toml"
    (gone,) = (await api.ok("GET", "notify"))["notify"]
    assert (gone["name"], gone["available"], gone["why"]) == ("desk", False, "it is not configured")


def stored(path: Path) -> bytes:
    """All that the database has."""
    if URL not in os.environ:
        return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))
    tables = perform(path, "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()")
    return b"".join(repr(tuple(row)).encode() for (name,) in tables for row in perform(path, f"SELECT * FROM {name}"))


async def test_no_key_of_a_target_is_in_any_answer_log_or_row(
    api: Api, desk: Receiver, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    sid = await api.session()
    desk.failures = 1
    recall = await fired(api, sid, notify=["desk"])

    async def has_failed_once() -> bool:
        return bool((await api.ok("GET", f"recalls/{recall}/firings"))["firings"][0]["delivery_error"])

    await until(has_failed_once)
    desk.failures = 1
    await api("POST", "notify/desk/test")
    assert len(desk.paths) == 2
    assert "k3yk3yk3y" in desk.paths[0], "it was used"
    paths = ("notify", "recalls", f"recalls/{recall}/firings", f"sessions/{sid}/events", f"sessions/{sid}/export")
    shown = b"".join([(await api("GET", path)).body for path in paths])
    assert b"503" in shown
    rows = stored(tmp_path / "own.db")
    assert b"503" in rows
    for where in (shown, rows, caplog.text.encode()):
        assert b"k3yk3yk3y" not in where


async def test_what_a_recall_did_is_unread_until_it_is_seen(api: Api) -> None:
    sid = await api.session()
    assert await unread(api, sid) == 0
    await fired(api, sid)
    await fired(api, sid)
    assert await unread(api, sid) == 2
    head = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    assert await api.ok("POST", f"sessions/{sid}/read", {"seq": head}) == {"seq": head, "unread": 0}
    assert await unread(api, sid) == 0
    events = (await api.ok("GET", f"sessions/{sid}/events", after=head))["events"]
    (event,) = [each["event"]["value"] for each in events if each["event"].get("name") == "navi.session"]
    assert event["changed"] == ["read"]
    assert event["read"] == {"seq": head, "unread": 0}


async def test_a_mark_never_goes_back_nor_beyond_the_end_and_notifies_no_client_twice(api: Api) -> None:
    sid = await api.session()
    await fired(api, sid)
    head = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    assert (await api.ok("POST", f"sessions/{sid}/read", {"seq": head + 1000}))["seq"] == head
    after = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    assert after == head + 1
    assert await api.ok("POST", f"sessions/{sid}/read", {"seq": 0}) == {"seq": head, "unread": 0}
    await api.ok("POST", f"sessions/{sid}/read", {"seq": after})
    assert (await api.ok("GET", f"sessions/{sid}"))["head_seq"] == after, "nothing new was seen, no client is notified"
    await fired(api, sid)
    assert await unread(api, sid) == 1, "what comes later is new, although the mark was set beyond the end"


async def test_only_what_had_come_before_the_mark_is_seen(api: Api) -> None:
    sid = await api.session()
    await fired(api, sid)
    between = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    await fired(api, sid)
    assert (await api.ok("POST", f"sessions/{sid}/read", {"seq": between}))["unread"] == 1
    assert (await api.ok("POST", f"sessions/{sid}/read", {"seq": 1}))["unread"] == 1


async def test_what_the_user_asked_for_is_unread_only_when_no_client_followed(api: Api) -> None:
    sid = await api.session()
    async with api.socket(sid) as socket:
        accepted = await socket.answer({"type": "prompt", "text": "hello"})
        await socket.until_run_ends(accepted["accepted"]["run_id"])
        assert await unread(api, sid) == 0

    await api.ok("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "hello"})

    async def is_unread() -> bool:
        return await listed_unread(api, sid) == 1

    await until(is_unread)
    assert await unread(api, sid) == 1


@pytest.mark.parametrize("body", [{}, {"seq": -1}, {"seq": "1"}, {"seq": 1, "at": 2}, {"seq": 2**60}])
async def test_a_bad_mark_is_refused_and_names_its_field(api: Api, body: dict[str, Any]) -> None:
    sid = await api.session()
    answer = await api("POST", f"sessions/{sid}/read", body)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["field"] in ("seq", "at")
    assert (await api("POST", "sessions/s_nowhere/read", {"seq": 1})).json["code"] == "session_not_found"


async def test_seeing_a_session_ends_the_recalls_that_were_to_end_then(api: Api) -> None:
    sid = await api.session()
    body = {"session_id": sid, "message": "hello", "schedule": TOMORROW, "policy": {"cancel_on": ["read"]}}
    recall = await api.ok("POST", "recalls", body)
    await api.ok("POST", f"sessions/{sid}/read", {"seq": 0})
    assert (await api.ok("GET", f"recalls/{recall['id']}"))["status"] == "cancelled"


async def test_other_peoples_sessions_have_no_marks_of_ours(api: Api, navi: NaviExtension) -> None:
    sid = await api.session()
    assert navi.lifecycle is not None
    services = await navi.lifecycle.ready()
    marks = services.sessions.read_marks
    with pytest.raises(Exception, match="There is no session"):
        await marks.mark(sid, owner="somebody else", seq=1, at=datetime.now(UTC))
    assert await marks.unread([sid, "s_nowhere"], owner="somebody else") == {sid: 0}


ADDRESSES = {
    "what it binds to": ({}, "", "http://127.0.0.1:8888/user/ada/", "http://127.0.0.1:8888/user/ada/"),
    "nothing when that is everywhere": ({}, "", "http://0.0.0.0:8888/", None),
    "the administrator's word": ({}, "https://x.example/user/ada/?token=s3cret", "http://0.0.0.0/", "https://x.example/user/ada/"),
    "with the base url where it has no path": ({}, "https://x.example", "http://0.0.0.0/", "https://x.example/user/ada/"),
    "JupyterHub's": ({"JUPYTERHUB_PUBLIC_URL": "https://ada.hub.example/user/ada/"}, "", "http://0.0.0.0/", "https://ada.hub.example/user/ada/"),
    "nothing when only this machine can reach it": ({}, "", "http+unix://%2Frun%2Fx.sock/", None),
    "and no password": ({}, "https://me:s3cret@x.example:8443/y", "http://0.0.0.0/", "https://x.example:8443/y"),
    "that of the hub": ({"JUPYTERHUB_PUBLIC_HUB_URL": "https://hub.example/hub/"}, "", "http://0.0.0.0/", "https://hub.example/user/ada/"),
}  # fmt: skip


@pytest.mark.parametrize("case", ADDRESSES)
def test_links_lead_to_the_address_that_users_know_and_carry_no_token(
    monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    variables, custom, connection, wanted = ADDRESSES[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    app: Any = SimpleNamespace(base_url="/user/ada/", custom_display_url=custom, connection_url=connection)
    assert server_address(app) == wanted
