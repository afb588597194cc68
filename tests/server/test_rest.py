"""Every row of the contract's table of routes, over HTTP, on a real server."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
import pytest

from navi_jupyter import __version__
from navi_jupyter.server import metrics
from navi_jupyter.server.app import NaviExtension
from navi_jupyter.store.sqlite.database_file import notice
from tests.conftest import Api

IN_AN_HOUR = {"kind": "once", "in": "1h"}


async def test_health_says_ok_and_counts(api: Api) -> None:
    sid = await api.session()
    await api.ok("POST", "recalls", {"session_id": sid, "message": "look", "schedule": IN_AN_HOUR})
    health = await api.ok("GET", "health")
    assert (health["status"], health["version"], health["recalls"]) == ("ok", __version__, 1)
    assert health["loop_lag_ms"] >= 0
    assert {"sessions", "runs", "followers"} <= set(health)
    assert health["message"] is None


async def test_health_goes_on_saying_that_a_damaged_database_is_kept(api: Api, navi: NaviExtension) -> None:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    kept = navi.lifecycle.services.sessions.store.path
    navi.lifecycle.services.sessions.store.notice = notice_of(
        kept.with_name(f"{kept.name}.damaged-20261123T000000Z"), kept
    )
    assert "damaged-20261123T000000Z" in (await api.ok("GET", "health"))["message"]


def notice_of(damaged: Path, path: Path) -> str | None:
    """What a start beside a damaged file finds."""
    damaged.write_bytes(b"broken")
    return notice(path)


# --- sessions


async def test_a_session_is_created_read_changed_and_deleted(api: Api) -> None:
    created = await api("POST", "sessions", {"title": "Losses", "notebook_path": "a/b.ipynb"})
    assert created.status == 201
    sid = created.json["id"]
    assert created.headers["Location"].endswith(f"sessions/{sid}")
    got = await api.ok("GET", f"sessions/{sid}")
    assert got == created.json
    assert (got["title"], got["notebook_path"], got["head_seq"]) == ("Losses", "a/b.ipynb", 0)
    assert (got["run"], got["queue"], got["approvals"]) == (None, [], [])
    assert datetime.fromisoformat(got["created_at"]).tzinfo is not None

    changed = await api.ok("PATCH", f"sessions/{sid}", {"title": "Gains"})
    assert (changed["title"], changed["notebook_path"]) == ("Gains", "a/b.ipynb")
    assert changed["head_seq"] > 0, "followers are told"

    assert (await api("DELETE", f"sessions/{sid}")).status == 204
    assert (await api("GET", f"sessions/{sid}")).json["code"] == "session_not_found"


async def test_sessions_are_listed_page_by_page_the_last_used_first(api: Api) -> None:
    made = [await api.session(title=f"number {number}") for number in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = await api.ok("GET", "sessions", **query)
        seen += [session["id"] for session in page["sessions"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == made[::-1]


async def test_the_sessions_of_one_notebook_can_be_listed(api: Api) -> None:
    await api.session(notebook_path="other.ipynb")
    mine = await api.session(notebook_path="mine.ipynb")
    page = await api.ok("GET", "sessions", notebook_path="mine.ipynb")
    assert [session["id"] for session in page["sessions"]] == [mine]


async def test_deleting_a_session_stops_its_run_and_its_recalls(api: Api) -> None:
    sid = await api.session()
    await api.ok("POST", "recalls", {"session_id": sid, "message": "look", "schedule": IN_AN_HOUR})
    await api.prompt(sid, "what can you do?")
    assert (await api("DELETE", f"sessions/{sid}")).status == 204
    (recall,) = (await api.ok("GET", "recalls"))["recalls"]
    assert (recall["status"], recall["reason"]) == ("cancelled", "session deleted"), "its ledger stays readable"
    assert (await api.ok("GET", "health"))["runs"] == 0


# --- commands, log, conversation, runs


async def test_a_command_is_accepted_once_however_often_it_is_sent(api: Api) -> None:
    sid = await api.session()
    command = {"type": "prompt", "text": "what can you do?", "command_id": "mine-1"}
    first = await api("POST", f"sessions/{sid}/commands", command)
    assert first.status == 202
    assert first.json["command_id"] == "mine-1"
    assert set(first.json) == {"command_id", "seq", "run_id"}
    again = await api("POST", f"sessions/{sid}/commands", command)
    assert (again.status, again.json) == (202, first.json)
    events = await api.until_run_ends(sid, first.json["run_id"])
    prompts = [envelope for envelope in events if envelope["event"].get("role") == "user"]
    assert len(prompts) == 1


async def test_the_server_makes_the_command_id_that_is_missing(api: Api) -> None:
    accepted = await api.prompt(await api.session(), "hello")
    assert accepted["command_id"]


async def test_a_page_of_the_log_has_what_follows_the_cursor(api: Api) -> None:
    sid = await api.session()
    run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
    events = await api.until_run_ends(sid, run_id)
    seqs = [envelope["seq"] for envelope in events]
    assert seqs == sorted(set(seqs))
    middle = seqs[len(seqs) // 2]
    page = await api.ok("GET", f"sessions/{sid}/events", after=middle, limit=2)
    assert [envelope["seq"] for envelope in page["events"]] == [seq for seq in seqs if seq > middle][:2]
    assert page["head_seq"] == seqs[-1]


async def test_a_long_poll_answers_when_something_happens(api: Api) -> None:
    sid = await api.session()
    quiet = await api.ok("GET", f"sessions/{sid}/events", after=0, wait=0.05)
    assert quiet == {"events": [], "head_seq": 0}
    await api.prompt(sid, "hello")
    page = await api.ok("GET", f"sessions/{sid}/events", after=0, wait=20)
    assert page["events"]


async def test_the_conversation_is_folded_with_run_ids_and_usage(api: Api) -> None:
    sid = await api.session()
    run_id = (await api.prompt(sid, "what can you do?"))["run_id"]
    await api.until_run_ends(sid, run_id)
    page = await api.ok("GET", f"sessions/{sid}/messages")
    user, *_, assistant = page["messages"]
    assert (user["role"], user["content"], user["run_id"]) == ("user", "what can you do?", run_id)
    assert (assistant["role"], assistant["run_id"], assistant["partial"]) == ("assistant", run_id, False)
    assert assistant["content"]
    assert user["usage"] is None
    assert set(assistant["usage"]) == {"input_tokens", "output_tokens", "requests", "cost"}


async def test_runs_are_listed_newest_first_and_read_one_by_one(api: Api) -> None:
    sid = await api.session()
    run_ids = []
    for text in ("what can you do?", "what can you do now?"):
        run_ids.append((await api.prompt(sid, text))["run_id"])
        await api.until_run_ends(sid, run_ids[-1])
    page = await api.ok("GET", f"sessions/{sid}/runs", limit=1)
    assert [run["id"] for run in page["runs"]] == [run_ids[1]]
    rest = await api.ok("GET", f"sessions/{sid}/runs", limit=1, cursor=page["next"])
    assert [run["id"] for run in rest["runs"]] == [run_ids[0]]
    run = await api.ok("GET", f"sessions/{sid}/runs/{run_ids[0]}")
    assert run == rest["runs"][0]
    assert (run["status"], run["origin"]["kind"]) == ("completed", "user")
    assert run["ended_at"] >= run["started_at"] >= run["created_at"]
    other = await api.session()
    assert (await api("GET", f"sessions/{other}/runs/{run_ids[0]}")).json["code"] == "run_not_found"


@pytest.mark.parametrize("kind", ["md", "ipynb", "json"])
async def test_a_session_is_downloaded(api: Api, kind: str) -> None:
    sid = await api.session(title="Über/loss ../x")
    await api.until_run_ends(sid, (await api.prompt(sid, "what can you do?"))["run_id"])
    answer = await api("GET", f"sessions/{sid}/export", format=kind)
    assert answer.status == 200
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=utf-8''ber-loss-..-x.{kind}"
    text = answer.body.decode()
    assert "what can you do?" in text
    if kind == "ipynb":
        nbformat.validate(nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call]
    if kind == "json":
        assert json.loads(text)["messages"] == (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]


# --- recalls


async def test_a_recall_is_created_read_changed_paused_resumed_and_deleted(api: Api) -> None:
    sid = await api.session(timezone="Europe/Berlin")
    schedule = {"kind": "cron", "expr": "0 9 * * 1-5"}
    created = await api("POST", "recalls", {"session_id": sid, "message": "look", "schedule": schedule})
    assert created.status == 201
    recall = created.json
    rid = recall["id"]
    assert created.headers["Location"].endswith(f"recalls/{rid}")
    assert recall["schedule"] == {**schedule, "tz": "Europe/Berlin"}, "the user's zone, kept"
    assert recall["status"] == "pending"
    assert await api.ok("GET", f"recalls/{rid}") == recall
    assert [r["id"] for r in (await api.ok("GET", "recalls", session_id=sid, status="pending"))["recalls"]] == [rid]
    assert (await api.ok("GET", "recalls", status="fired"))["recalls"] == []

    changed = await api.ok("PATCH", f"recalls/{rid}", {"message": "look again"})
    assert (changed["message"], changed["next_at"]) == ("look again", recall["next_at"])
    assert (await api.ok("POST", f"recalls/{rid}/pause"))["status"] == "paused"
    assert (await api.ok("POST", f"recalls/{rid}/resume"))["status"] == "pending"
    assert (await api("DELETE", f"recalls/{rid}")).status == 204
    log = (await api.ok("GET", f"sessions/{sid}/events"))["events"]
    actions = [envelope["event"]["value"]["action"] for envelope in log if envelope["event"]["name"] == "navi.recall"]
    assert actions[0] == "created"
    assert actions[-1] == "cancelled"
    assert {"rescheduled", "paused", "resumed"} <= set(actions) or {"paused", "resumed"} <= set(actions)


async def test_a_recall_that_is_fired_by_hand_runs_and_is_in_the_ledger(api: Api) -> None:
    sid = await api.session()
    body = {"session_id": sid, "message": "what can you do?", "schedule": IN_AN_HOUR}
    rid = (await api.ok("POST", "recalls", body))["id"]
    await api.ok("POST", f"recalls/{rid}/fire")
    after, run_id = 0, None
    while run_id is None:
        page = await api.ok("GET", f"sessions/{sid}/events", after=after, wait=20)
        assert page["events"]
        after = page["events"][-1]["seq"]
        run_id = next((e["run_id"] for e in page["events"] if e["event"]["type"] == "RUN_STARTED"), None)
    events = await api.until_run_ends(sid, run_id)
    prompt = next(envelope for envelope in events if envelope["event"].get("role") == "user")
    assert prompt["origin"] == {"kind": "recall", "recall_id": rid}
    ledger = (await api.ok("GET", f"recalls/{rid}/firings"))["firings"]
    assert [(firing["kind"], firing["recall_id"]) for firing in ledger] == [("manual", rid)]
    assert ledger[0]["run_id"] == run_id


async def test_a_preview_tells_the_next_fires_in_the_schedules_zone(api: Api) -> None:
    request = {
        "schedule": {"kind": "cron", "expr": "30 2 * * *", "tz": "Europe/Berlin"},
        "n": 2,
        "after": "2026-03-27T12:00:00+00:00",
    }
    preview = await api.ok("POST", "recalls/preview", request)
    assert preview["times"][0] == "2026-03-28T02:30:00+01:00"
    assert len(preview["times"]) == 2
    odd = await api.ok("POST", "recalls/preview", {"schedule": {"kind": "cron", "expr": "*/90 * * * *"}})
    assert odd["warnings"]
    assert len(odd["times"]) == 5


# --- what can be used here


@pytest.mark.parametrize("what", ["profiles", "models", "tools", "mcp"])
async def test_what_can_be_used_is_listed_with_why_not(api: Api, what: str) -> None:
    page = await api.ok("GET", what)
    assert set(page) - {"problems"} == {what, "next"}
    for entry in page[what]:
        assert entry["name"]
        assert entry["available"] or entry["why"]


async def test_the_offline_model_can_always_be_used(api: Api) -> None:
    models = {model["name"]: model for model in (await api.ok("GET", "models"))["models"]}
    assert models["offline"]["available"]


async def test_head_is_get_without_a_body(api: Api) -> None:
    answer = await api("HEAD", "health")
    assert (answer.status, answer.body) == (200, b"")


async def test_metrics_are_in_jupyters_registry(api: Api, jp_fetch: Any) -> None:
    await api.session()
    text = (await jp_fetch("metrics")).body.decode()
    for name in metrics.NAMES:
        assert f"\n{name}" in text
