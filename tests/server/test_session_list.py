"""The list of sessions over HTTP: search, titles, archive, delete and restore, fork, share; on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jupyter_server.auth import Authorizer, IdentityProvider, User
from tornado.httpclient import HTTPClientError
from tornado.web import RequestHandler
from traitlets.config import Config

from navi_jupyter.orchestrator.session_list import service
from navi_jupyter.orchestrator.session_list.titles import title_from_words
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.rest import ROUTES
from tests.conftest import Answer, Api
from tests.support.providers import Reply, ScriptedProvider

IN_AN_HOUR = {"kind": "once", "in": "1h"}
EVERY_HOUR = {"kind": "every", "every": "1h"}
ASKED = "what can you do?"


async def asked(api: Api, sid: str, text: str = ASKED) -> str:
    """A run that is over; its id."""
    run_id = str((await api.prompt(sid, text))["run_id"])
    await api.until_run_ends(sid, run_id)
    return run_id


async def until(api: Api, path: str, holds: Callable[[Any], bool], **query: Any) -> Any:
    """The answer once it is so: what goes on beside everything else takes a moment."""
    for _ in range(200):
        answer = await api.ok("GET", path, **query)
        if holds(answer):
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(answer)


def ids(page: dict[str, Any]) -> list[str]:
    return [session["id"] for session in page["sessions"]]


async def listed(api: Api, **query: Any) -> list[str]:
    return ids(await api.ok("GET", "sessions", **query))


# --- search


async def test_a_session_is_found_by_what_was_asked_and_answered_in_it(api: Api) -> None:
    sid = await api.session(title="Losses")
    other = await api.session(title="Gains")
    await asked(api, sid, "what does the word Überraschung mean?")
    page = await until(api, "sessions", lambda page: page["sessions"], query="uberraschung")
    (session,) = page["sessions"]
    assert (session["id"], session["hits"], page["complete"]) == (sid, 1, True)
    assert session["hit"]["role"] == "user"
    assert [part["text"] for part in session["hit"]["snippet"] if part["match"]] == ["Überraschung"]
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    assert session["hit"]["message_id"] == messages[0]["id"]
    assert await listed(api, query="gains") == [other], "titles are searched, too"
    inside = await api.ok("GET", f"sessions/{sid}/search", query="überrasch")
    assert [hit["message_id"] for hit in inside["hits"]] == [messages[0]["id"]]
    assert (await api.ok("GET", f"sessions/{other}/search", query="überrasch"))["hits"] == []


@pytest.mark.parametrize("query", ['"', "AND OR NOT", "NEAR(a b)", "text:*", "a\x00b", "^-*()", "%", "会"])
async def test_what_is_typed_into_the_search_is_never_an_error(api: Api, query: str) -> None:
    sid = await api.session()
    assert (await api("GET", "sessions", query=query)).status == 200
    assert (await api("GET", f"sessions/{sid}/search", query=query)).status == 200


async def test_a_list_says_what_each_session_is_doing(api: Api) -> None:
    sid = await api.session()
    await asked(api, sid)
    (session,) = (await api.ok("GET", "sessions"))["sessions"]
    assert (session["activity"], session["access"], session["hit"], session["hits"]) == ("idle", "owner", None, 0)


# --- titles


async def test_a_new_session_is_titled_by_the_words_of_its_first_prompt(api: Api) -> None:
    sid = (await api.ok("POST", "sessions", {}))["id"]
    await asked(api, sid, "@data.csv What can you do? And then some more.")
    session = await until(api, f"sessions/{sid}", lambda session: session["title_source"] == "words")
    assert session["title"] == "What can you do?"
    events = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
    assert events[-1]["event"]["name"] == "navi.session"
    assert events[-1]["event"]["value"]["session"]["title"] == "What can you do?"
    await asked(api, sid, "and what about tomorrow?")
    assert (await api.ok("GET", f"sessions/{sid}"))["title"] == "What can you do?"


async def test_a_title_of_the_users_own_stays(api: Api) -> None:
    for made, patched in (({"title": "Mine"}, None), ({}, {"title": "Mine"})):
        sid = (await api.ok("POST", "sessions", made))["id"]
        if patched:
            await api.ok("PATCH", f"sessions/{sid}", patched)
        await asked(api, sid)
        await until(api, "sessions", lambda page, sid=sid: sid in ids(page), query="mine")  # type: ignore[misc]
        session = await api.ok("GET", f"sessions/{sid}")
        assert (session["title"], session["title_source"]) == ("Mine", "user")


# --- archive


async def test_an_archived_session_leaves_the_list_and_its_recalls_pause_until_it_is_back(api: Api) -> None:
    sid = await api.session(title="Old work")
    recalls = [
        (await api.ok("POST", "recalls", {"session_id": sid, "message": text, "schedule": EVERY_HOUR}))["id"]
        for text in ("one", "two")
    ]
    await api.ok("POST", f"recalls/{recalls[1]}/pause")
    archived = await api.ok("POST", f"sessions/{sid}/archive")
    assert archived["archived_at"] is not None
    assert (await listed(api), await listed(api, show="archived")) == ([], [sid])
    states = [await api.ok("GET", f"recalls/{recall}") for recall in recalls]
    assert [(state["status"], state["reason"]) for state in states] == [
        ("paused", "session archived"),
        ("paused", None),
    ]
    assert (await until(api, "sessions", lambda page: page["sessions"], query="old work"))["sessions"][0]["id"] == sid
    assert (await api.ok("POST", f"sessions/{sid}/archive"))["archived_at"] == archived["archived_at"]
    assert (await api.ok("POST", f"sessions/{sid}/unarchive"))["archived_at"] is None
    states = [await api.ok("GET", f"recalls/{recall}") for recall in recalls]
    assert [(state["status"], state["reason"]) for state in states] == [("pending", None), ("paused", None)]
    assert await listed(api) == [sid]


async def test_who_writes_in_an_archived_session_has_it_back(api: Api) -> None:
    sid = await api.session()
    recall = (await api.ok("POST", "recalls", {"session_id": sid, "message": "look", "schedule": EVERY_HOUR}))["id"]
    await api.ok("POST", f"sessions/{sid}/archive")
    await asked(api, sid)
    assert await listed(api) == [sid]
    assert (await api.ok("GET", f"recalls/{recall}"))["status"] == "pending"


# --- delete and restore


async def test_a_deleted_session_is_gone_and_comes_back_with_everything(api: Api) -> None:
    sid = await api.session(title="Precious")
    await asked(api, sid)
    before = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    recalls = [
        (await api.ok("POST", "recalls", {"session_id": sid, "message": text, "schedule": EVERY_HOUR}))["id"]
        for text in ("one", "two")
    ]
    await api.ok("POST", f"recalls/{recalls[1]}/pause")
    await until(api, "sessions", lambda page: page["sessions"], query="precious")
    assert (await api("DELETE", f"sessions/{sid}")).status == 204
    for operation in ROUTES.operations:
        if operation.method == "GET" and "sessions/{sid}" in operation.path and "{rid}" not in operation.path:
            path = operation.path.format(sid=sid, iid="i_1", nid="n_1")
            assert (await api("GET", path)).json["code"] == "session_not_found", path
    prompt = {"type": "prompt", "text": "hello"}
    assert (await api("POST", f"sessions/{sid}/commands", prompt)).json["code"] == "session_not_found"
    assert (await api("DELETE", f"sessions/{sid}")).status == 404
    with pytest.raises(HTTPClientError):
        async with api.socket(sid):
            pass
    assert (await listed(api), await listed(api, query="precious"), await listed(api, show="all")) == ([], [], [])
    assert await listed(api, show="deleted") == [sid]
    states = [await api.ok("GET", f"recalls/{recall}") for recall in recalls]
    assert [(state["status"], state["reason"]) for state in states] == [("cancelled", "session deleted")] * 2

    restored = await api.ok("POST", f"sessions/{sid}/restore")
    assert (restored["title"], restored["deleted_at"]) == ("Precious", None)
    assert (await api.ok("GET", f"sessions/{sid}/messages"))["messages"] == before
    assert (await listed(api), await listed(api, query="precious")) == ([sid], [sid])
    states = [await api.ok("GET", f"recalls/{recall}") for recall in recalls]
    assert [(state["status"], state["reason"]) for state in states] == [("pending", None), ("paused", None)]
    assert states[0]["next_at"] is not None
    await asked(api, sid, "and after all that?")
    assert (await api("POST", f"sessions/{sid}/restore")).json["code"] == "session_not_found"


async def test_a_run_that_a_deletion_stops_is_over_when_the_session_is_back(api: Api) -> None:
    sid = await api.session()
    first = (await api.prompt(sid, ASKED))["run_id"]
    await api.prompt(sid, "and then?")
    assert (await api("DELETE", f"sessions/{sid}")).status == 204
    restored = await api.ok("POST", f"sessions/{sid}/restore")
    assert (restored["run"], restored["queue"]) == (None, [])
    runs = (await api.ok("GET", f"sessions/{sid}/runs"))["runs"]
    assert {run["status"] for run in runs} <= {"stopped", "completed"}
    assert first in {run["id"] for run in runs}
    await asked(api, sid)


async def test_deleted_for_ever_it_does_not_come_back(api: Api) -> None:
    sid = await api.session()
    await api.ok("DELETE", f"sessions/{sid}", forever="true")
    assert await listed(api, show="deleted") == []
    assert (await api("POST", f"sessions/{sid}/restore")).json["code"] == "session_not_found"


async def test_what_was_deleted_long_ago_is_removed(
    api: Api, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid, kept = await api.session(), await api.session()
    await api.ok("DELETE", f"sessions/{sid}")
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    session_list = navi.lifecycle.services.sessions.session_list
    assert await session_list.purge() == 0
    monkeypatch.setattr(service, "KEPT_FOR", service.KEPT_FOR * -1)
    assert await session_list.purge() == 1
    assert (await api("POST", f"sessions/{sid}/restore")).status == 404
    assert await listed(api) == [kept]


async def test_a_notebook_that_got_another_session_meanwhile_keeps_it(api: Api, jp_root_dir: Any) -> None:
    (jp_root_dir / "a.ipynb").write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    find = {"notebook_path": "a.ipynb", "create": True}
    first = (await api.ok("POST", "sessions/find", find))["session"]["id"]
    await api.ok("DELETE", f"sessions/{first}")
    second = (await api.ok("POST", "sessions/find", find))["session"]["id"]
    assert second != first
    restored = await api.ok("POST", f"sessions/{first}/restore")
    assert restored["notebook_link"] == "earlier"
    assert (await api.ok("POST", "sessions/find", find))["session"]["id"] == second


# --- fork


async def test_a_fork_has_the_conversation_up_to_its_message_and_goes_its_own_way(api: Api) -> None:
    sid = await api.session(title="Trunk")
    await asked(api, sid)
    await asked(api, sid, "what can you do at noon?")
    await api.ok("POST", "recalls", {"session_id": sid, "message": "look", "schedule": IN_AN_HOUR})
    before = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    answer = next(message for message in before if message["role"] == "assistant")
    made = await api("POST", f"sessions/{sid}/fork", {"message_id": answer["id"]})
    assert made.status == 201
    fork = made.json
    assert (fork["title"], fork["notebook_path"], fork["usage"]["requests"]) == ("Trunk (fork)", None, 0)
    assert made.headers["Location"].endswith(fork["id"])
    after = (await api.ok("GET", f"sessions/{fork['id']}/messages"))["messages"]
    until_answer = before[: before.index(answer) + 1]
    assert [(m["role"], m["content"]) for m in after] == [(m["role"], m["content"]) for m in until_answer]
    assert not {m["run_id"] for m in after} & {m["run_id"] for m in before}, "its runs are its own"
    assert (await api.ok("GET", "recalls", session_id=fork["id"]))["recalls"] == []
    assert (await api.ok("GET", f"sessions/{fork['id']}"))["unread"] == 0
    await asked(api, fork["id"], "and in the fork?")
    assert (await api.ok("GET", f"sessions/{sid}/messages"))["messages"] == before, "the trunk is as it was"


async def test_the_log_of_a_fork_is_whole_and_can_be_followed(api: Api) -> None:
    sid = await api.session()
    await asked(api, sid)
    await asked(api, sid, "what can you do at noon?")
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    for message_id in (messages[0]["id"], messages[-1]["id"], None):
        body = {} if message_id is None else {"message_id": message_id}
        fork = (await api.ok("POST", f"sessions/{sid}/fork", body))["id"]
        page = await api.ok("GET", f"sessions/{fork}/events", after=0, limit=1000)
        seqs = [envelope["seq"] for envelope in page["events"]]
        assert seqs == list(range(1, page["head_seq"] + 1))
        assert {envelope["session_id"] for envelope in page["events"]} == {fork}
        kinds = [envelope["event"]["type"] for envelope in page["events"]]
        assert (
            kinds.count("RUN_STARTED") == kinds.count("RUN_FINISHED") == (1 if message_id == messages[0]["id"] else 2)
        )
        threads = {e["event"]["threadId"] for e in page["events"] if "threadId" in e["event"]}
        assert threads == {fork}
        async with api.socket(fork) as socket:
            snapshot = (await socket.envelopes())[0]
            assert snapshot["event"]["type"] == "MESSAGES_SNAPSHOT"
    whole = (await api.ok("GET", f"sessions/{fork}/messages"))["messages"]
    assert [m["content"] for m in whole] == [m["content"] for m in messages]


async def test_only_messages_that_are_there_can_be_forked_from(api: Api) -> None:
    sid = await api.session()
    await asked(api, sid)
    refused = await api("POST", f"sessions/{sid}/fork", {"message_id": "m_nothing"})
    assert (refused.status, refused.json["code"]) == (404, "message_not_found")


# --- download


async def test_a_session_is_downloaded_as_a_page_that_asks_for_nothing(api: Api) -> None:
    sid = await api.session(title="<script>alert(1)</script>")
    await asked(api, sid, "<img src=x onerror=alert(1)> **what** can you do? [a](javascript:alert(1))")
    page = await api("GET", f"sessions/{sid}/export", format="html")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "attachment" in page.headers["Content-Disposition"]
    text = page.body.decode()
    assert "<strong>what</strong>" in text
    assert "&lt;script&gt;" in text
    for live in ("<script", "<img", 'href="javascript', "http-equiv=refresh"):
        assert live not in text.lower(), live
    assert "default-src &#x27;none&#x27;" in text


# --- sharing


async def test_where_everybody_is_one_person_there_is_nothing_to_share(api: Api) -> None:
    refused = await api("POST", f"sessions/{await api.session()}/share", {"user": "bob"})
    assert (refused.status, refused.json["field"]) == (400, "user")


class People(IdentityProvider):
    """People with a token each."""

    async def get_user(self, handler: RequestHandler) -> User | None:
        name = handler.request.headers.get("Authorization", "").removeprefix("token of-")
        if name not in ("ann", "bob", "carl"):
            return None
        handler._token_authenticated = True  # type: ignore[attr-defined]
        return User(username=name)


class NoSharingForCarl(Authorizer):
    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:
        return not (user.username == "carl" and resource == "navi-sharing")


ANN, BOB, CARL = ({"Authorization": f"token of-{name}"} for name in ("ann", "bob", "carl"))
Ask = Callable[..., Awaitable[Answer]]
READ = {"events", "messages", "transcript", "runs", "runs/{rid}", "export", "search", "ws", ""}
"""What a reader may do with ``sessions/{sid}/…``: get these."""


class TestTwoPeople:
    """A server with people of their own names."""

    @pytest.fixture
    def jp_server_config(self, navi_config: dict[str, Any]) -> Config:
        return Config(
            {
                "ServerApp": {
                    "jpserver_extensions": {"navi_jupyter": True},
                    "identity_provider_class": People,
                    "authorizer_class": NoSharingForCarl,
                },
                "NaviExtension": navi_config,
            }
        )

    async def shared(self, api: Api) -> tuple[str, str]:
        """A session of Ann's with a run, which Bob may read."""
        sid = (await api("POST", "sessions", {"title": "Ours"}, headers=ANN)).json["id"]
        prompt = {"type": "prompt", "text": ASKED}
        run_id = (await api("POST", f"sessions/{sid}/commands", prompt, headers=ANN)).json["run_id"]
        for _ in range(200):
            run = (await api("GET", f"sessions/{sid}/runs/{run_id}", headers=ANN)).json
            if run["ended_at"]:
                break
            await asyncio.sleep(0.05)
        answer = await api("POST", f"sessions/{sid}/share", {"user": "bob"}, headers=ANN)
        assert answer.json == {"readers": ["bob"]}
        return sid, run_id

    async def test_a_reader_sees_follows_and_exports_and_nothing_else(self, api: Api) -> None:
        sid, run_id = await self.shared(api)
        (session,) = (await api("GET", "sessions", headers=BOB)).json["sessions"]
        assert (session["id"], session["owner"], session["access"], session["unread"]) == (sid, "ann", "reader", 0)
        detail = (await api("GET", f"sessions/{sid}", headers=BOB)).json
        assert (detail["access"], detail["readers"]) == ("reader", [])
        assert (await api("GET", f"sessions/{sid}", headers=ANN)).json["readers"] == ["bob"]
        messages = [(await api("GET", f"sessions/{sid}/messages", headers=who)).body for who in (ANN, BOB)]
        assert messages[0] == messages[1]
        for kind in ("md", "ipynb", "html", "json"):
            files = [(await api("GET", f"sessions/{sid}/export", format=kind, headers=who)) for who in (ANN, BOB)]
            assert (files[1].status, files[0].body) == (200, files[1].body)
        events = [(await api("GET", f"sessions/{sid}/events", after=0, headers=who)).body for who in (ANN, BOB)]
        assert events[0] == events[1], "the events are those of the owner, redacted alike"
        bodies = {
            "PATCH ": {"title": "mine"},
            "POST commands": {"type": "prompt", "text": ASKED},
            "POST read": {"seq": 1},
            "POST share": {"user": "carl"},
            "POST unshare": {"user": "bob"},
            "POST notebook-requests/{nid}/claim": {"unsaved": True},
            "POST notebook-requests/{nid}/report": {},
        }
        tried = 0
        for operation in ROUTES.operations:
            rest = operation.path.removeprefix("sessions/{sid}").strip("/")
            if not operation.path.startswith("sessions/{sid}"):
                continue
            path = operation.path.format(sid=sid, rid=run_id, iid="i_1", nid="n_1")
            answer = await api(operation.method, path, bodies.get(f"{operation.method} {rest}"), headers=BOB)
            if operation.method == "GET" and rest in READ:
                assert answer.status == 200, (operation.path, answer.body)
            else:
                assert answer.status in (403, 404), (operation.method, operation.path, answer.body)
                assert answer.json["code"] in ("session_read_only", "session_not_found"), answer.body
                tried += 1
        assert tried > 8
        recall = {"session_id": sid, "message": "look", "schedule": IN_AN_HOUR}
        assert (await api("POST", "recalls", recall, headers=BOB)).status in (403, 404)
        assert (await api("GET", "recalls", session_id=sid, headers=BOB)).json["recalls"] == []
        assert (await api("GET", "tools", session_id=sid, headers=BOB)).status in (400, 403, 404)
        assert (await api("GET", f"sessions/{sid}", headers=ANN)).json["title"] == "Ours"
        assert (await api("GET", f"sessions/{sid}", headers=CARL)).json["code"] == "session_not_found"

    async def test_a_reader_follows_live_and_every_command_is_refused(self, api: Api) -> None:
        sid, _ = await self.shared(api)
        async with api.socket(sid, headers=BOB) as reader, api.socket(sid, headers=ANN) as owner:
            for command in (
                {"type": "prompt", "text": "hello"},
                {"type": "stop"},
                {"type": "answer", "interrupt_id": "i", "status": "cancelled"},
            ):
                answer = await reader.answer(command)
                assert answer["rejected"]["code"] == "session_read_only"
                assert "ann" in answer["rejected"]["message"]
            accepted = await owner.answer({"type": "prompt", "text": ASKED})
            seen = await reader.until_run_ends(accepted["accepted"]["run_id"])
            assert any(envelope["event"]["type"] == "TEXT_MESSAGE_START" for envelope in seen)

    async def test_after_it_is_taken_back_nothing_more_is_seen(self, api: Api) -> None:
        sid, _ = await self.shared(api)
        async with api.socket(sid, headers=BOB) as reader:
            await reader.envelopes()
            answer = await api("POST", f"sessions/{sid}/unshare", {"user": "bob"}, headers=ANN)
            assert answer.json == {"readers": []}
            await api("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": ASKED}, headers=ANN)
            assert await reader.close_code() == 4404
        assert (await api("GET", "sessions", headers=BOB)).json["sessions"] == []
        assert (await api("GET", f"sessions/{sid}/messages", headers=BOB)).status == 404

    async def test_pictures_of_a_shared_session_are_shown_to_its_readers(self, api: Api) -> None:
        sid, _ = await self.shared(api)
        file = (await api("POST", "attachments", raw=b"a,b\n1,2\n", headers=ANN)).json["id"]
        assert (await api("GET", f"attachments/{file}", headers=BOB)).status == 404
        prompt = {"type": "prompt", "text": ASKED, "files": [{"id": file}]}
        assert (await api("POST", f"sessions/{sid}/commands", prompt, headers=ANN)).status == 202
        assert (await api("GET", f"attachments/{file}", headers=BOB)).body == b"a,b\n1,2\n"
        assert (await api("GET", f"attachments/{file}", headers=CARL)).status == 404

    async def test_who_may_share_is_for_the_authorizer(self, api: Api) -> None:
        sid = (await api("POST", "sessions", {}, headers=CARL)).json["id"]
        refused = await api("POST", f"sessions/{sid}/share", {"user": "bob"}, headers=CARL)
        assert (refused.status, refused.json["code"]) == (403, "forbidden")
        own = (await api("POST", "sessions", {}, headers=ANN)).json["id"]
        itself = await api("POST", f"sessions/{own}/share", {"user": "ann"}, headers=ANN)
        assert (itself.status, itself.json["field"]) == (400, "user")

    async def test_search_finds_what_is_shared(self, api: Api) -> None:
        sid, _ = await self.shared(api)
        for _ in range(200):
            found = (await api("GET", "sessions", query="what can", headers=BOB)).json["sessions"]
            if found:
                break
            await asyncio.sleep(0.05)
        assert [session["id"] for session in found] == [sid]
        assert (await api("GET", "sessions", query="what can", headers=CARL)).json["sessions"] == []


# --- titles by the model


async def test_the_model_writes_a_title_after_the_first_exchange_and_its_cost_is_counted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("The learning rate is too low.")) as provider:
        provider.point(monkeypatch)
        provider.title = Reply('"Flat loss\u202e of the new model."', usage=(30, 5))
        sid = (await api.ok("POST", "sessions", {"model": "openai-chat:scripted"}))["id"]
        await asked(api, sid, "why is the loss flat?")
        session = await until(api, f"sessions/{sid}", lambda session: session["title_source"] == "model")
        assert session["title"].startswith("Flat loss")
        assert "\u202e" not in session["title"]
        assert not session["title"].endswith(('"', "."))
        assert (session["usage"]["input_tokens"], session["usage"]["requests"]) == (11 + 30, 2)
        await asked(api, sid, "and now?")
        await asked(api, sid, "and then?")
        assert len(provider.title_requests) == 1, "once"
        body = json.dumps(provider.title_requests[0].body)
        assert "why is the loss flat?" in body
        assert "tools" not in provider.title_requests[0].body


@pytest.mark.parametrize("title", [None, Reply(""), Reply("```"), Reply(cut_first=True)])
async def test_where_the_model_gives_no_title_the_words_of_the_prompt_do(
    api: Api, monkeypatch: pytest.MonkeyPatch, title: Reply | None
) -> None:
    async with ScriptedProvider(Reply("It is.")) as provider:
        provider.point(monkeypatch)
        provider.title = title
        sid = (await api.ok("POST", "sessions", {"model": "openai-chat:scripted"}))["id"]
        run_id = await asked(api, sid, "why is the loss flat?")
        session = await until(api, f"sessions/{sid}", lambda session: session["title_source"] != "default")
        assert (session["title"], session["title_source"]) == ("why is the loss flat?", "words")
        assert (await api.ok("GET", f"sessions/{sid}/runs/{run_id}"))["status"] == "completed"


async def test_a_title_never_holds_a_run_up_and_that_of_the_user_wins(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("It is.")) as provider:
        provider.point(monkeypatch)
        provider.title = Reply("Made by the model", hold_first=True)
        sid = (await api.ok("POST", "sessions", {"model": "openai-chat:scripted"}))["id"]
        await asked(api, sid, "why is the loss flat?")
        await asked(api, sid, "a second run does not wait for it")
        await api.ok("PATCH", f"sessions/{sid}", {"title": "Mine"})
        provider.title.release.set()
        await asyncio.sleep(0.3)
        assert (await api.ok("GET", f"sessions/{sid}"))["title"] == "Mine"


class TestTitlesOfWords:
    """A server on which models write no titles."""

    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"title_by_model": False}

    async def test_no_model_is_asked(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        async with ScriptedProvider(Reply("It is.")) as provider:
            provider.point(monkeypatch)
            sid = (await api.ok("POST", "sessions", {"model": "openai-chat:scripted"}))["id"]
            await asked(api, sid, "why is the loss flat?")
            await until(api, f"sessions/{sid}", lambda session: session["title_source"] == "words")
            assert provider.title_requests == []


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Why is the loss flat? It was fine yesterday.", "Why is the loss flat?"),
        ('@train.py @"my data.csv" compare these', "compare these"),
        ("# Heading\n\n- **plot** the `loss`", "Heading"),
        ("```python\nprint(1)\n```\nexplain this", "explain this"),
        ("为什么损失不下降?请看第三个单元格。", "为什么损失不下降?请看第三个单元格"),
        ("明天开会。请提醒我。", "明天开会"),
        ("Use 3.5 as the rate", "Use 3.5 as the rate"),
        ("x" * 100, "x" * 59 + "…"),
        ("word " * 30, ("word " * 11).strip() + "…"),
        ("   \n???", ""),
        ("write to ada@example.org", "write to ada@example.org"),
    ],
)
def test_the_words_of_a_prompt_as_a_title(prompt: str, title: str) -> None:
    assert title_from_words(prompt) == title
