"""``GET recalls/overview`` on a real server: one request for the recalls of all sessions."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import Api

# About half a day away, at whatever time of day the tests run: what is due in an hour comes first.
HOUR = (datetime.now(ZoneInfo("Europe/Berlin")).hour + 12) % 24
DAILY = {"kind": "cron", "expr": f"0 {HOUR} * * *", "tz": "Europe/Berlin"}


async def recall(api: Api, sid: str, schedule: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"session_id": sid, "message": "what time is it?", "schedule": schedule, **more}
    made: dict[str, Any] = await api.ok("POST", "recalls", body)
    return made


async def until_ran(api: Api, count: int) -> dict[str, Any]:
    """The overview once so many firings have ended today."""
    for _ in range(200):
        found: dict[str, Any] = await api.ok("GET", "recalls/overview")
        if found["past"][0]["ran"] >= count and not found["active"]:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(found)


async def test_one_request_says_what_ran_what_comes_and_where(api: Api) -> None:
    one, two = await api.session(title="Training"), await api.session(title="Report")
    fired = await recall(api, one, DAILY, title="loss")
    await recall(api, two, {"kind": "once", "in": "1h"}, title="soon")
    await recall(api, two, {"kind": "when", "when": "done"}, title="event")
    await api.ok("POST", f"recalls/{fired['id']}/fire", {})
    found = await until_ran(api, 1)
    assert (found["open"], found["paused"]) == (3, 0)
    assert (found["next"]["title"], found["next"]["session_title"]) == ("soon", "Report")
    today = found["past"][0]
    assert (today["ran"], today["failed"], today["missed"], len(found["past"])) == (1, 0, 0, 7)
    (entry,) = today["firings"]
    assert (entry["title"], entry["session_id"], entry["session_title"]) == ("loss", one, "Training")
    assert (entry["unseen"], entry["asks"]) == (True, False)
    run = await api.ok("GET", f"sessions/{one}/runs/{entry['firing']['run_id']}")
    assert run["origin"]["recall_id"] == fired["id"]
    assert [each["title"] for each in found["recalls"]] == ["soon", "loss", "event"]
    assert found["words"][fired["id"]] == f"every day at {HOUR:02}:00 Europe/Berlin"
    assert found["sessions"] == {one: "Training", two: "Report"}
    assert len(found["coming"]) == 14
    assert sum(day["count"] for day in found["coming"]) in (14, 15, 16)
    await api.ok("POST", f"sessions/{one}/read", {"seq": (await api.ok("GET", f"sessions/{one}"))["head_seq"]})
    (seen,) = (await api.ok("GET", "recalls/overview"))["past"][0]["firings"]
    assert seen["unseen"] is False


async def test_the_brief_form_has_today_and_the_next_time_alone(api: Api) -> None:
    sid = await api.session()
    await recall(api, sid, DAILY)
    found = await api.ok("GET", "recalls/overview", brief="true", tz="Asia/Tokyo")
    assert (found["recalls"], found["coming"], found["words"], len(found["past"])) == ([], [], {}, 1)
    assert found["next"]["at"]
    assert found["timezone"] == "Asia/Tokyo"
    assert datetime.fromisoformat(found["now"]).utcoffset() == timedelta(hours=9)
    assert found["past"][0]["date"] == datetime.fromisoformat(found["now"]).date().isoformat()


async def test_what_failed_needs_the_user_until_the_session_was_seen(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sid = await api.session()
    made = await recall(api, sid, DAILY, message="/model none:none", title="broken", policy={"timeout": "1s"})
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-0123456789")
    await api.ok("PATCH", f"sessions/{sid}", {"model": "openai-chat:gpt-5"})
    monkeypatch.delenv("OPENAI_API_KEY")
    await api.ok("POST", f"recalls/{made['id']}/fire", {})
    for _ in range(200):
        found = await api.ok("GET", "recalls/overview")
        if found["needs"]:
            break
        await asyncio.sleep(0.1)
    (entry,) = found["needs"]
    assert (entry["title"], entry["firing"]["status"], entry["failed"]) == ("broken", "failed", 1)
    assert entry["firing"]["reason"]
    head = (await api.ok("GET", f"sessions/{sid}"))["head_seq"]
    await api.ok("POST", f"sessions/{sid}/read", {"seq": head})
    after = await api.ok("GET", "recalls/overview")
    assert (after["needs"], after["past"][0]["failed"]) == ([], 1)


async def test_a_zone_that_there_is_not_is_refused(api: Api) -> None:
    answer = await api("GET", "recalls/overview", tz="Mars/Olympus")
    assert (answer.status, answer.json["code"]) == (400, "invalid_schedule")
    assert "Mars/Olympus" in answer.json["message"]
