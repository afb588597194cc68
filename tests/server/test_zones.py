"""Whose clock the words of a person are read by: the client's, the session's, and the one rule between them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.conftest import Api

TOKYO, BERLIN, LIMA = "Asia/Tokyo", "Europe/Berlin", "America/Lima"
WORDS = "remind me tomorrow at 9 to call the lab"


def _nine(zone: str) -> datetime:
    """Tomorrow at nine on the clock of that zone."""
    tomorrow = datetime.now(ZoneInfo(zone)) + timedelta(days=1)
    return tomorrow.replace(hour=9, minute=0, second=0, microsecond=0)


async def _asked(api: Api, sid: str, text: str = WORDS, **client: str) -> datetime:
    """When the recall is due that a prompt of this client makes."""
    before = {recall["id"] for recall in (await api.ok("GET", "recalls", session_id=sid))["recalls"]}
    fields = {"client": client} if client else {}
    await api.until_run_ends(sid, (await api.prompt(sid, text, **fields))["run_id"])
    made = [each for each in (await api.ok("GET", "recalls", session_id=sid))["recalls"] if each["id"] not in before]
    assert len(made) == 1
    return datetime.fromisoformat(made[0]["next_at"])


async def _zone(api: Api, sid: str) -> tuple[str, str]:
    session = await api.ok("GET", f"sessions/{sid}")
    return session["timezone"], session["timezone_source"]


async def _previewed(api: Api, sid: str, text: str = "tomorrow at 9", **fields: Any) -> datetime:
    read = await api.ok("POST", "recalls/preview", {"text": text, "session_id": sid, **fields})
    return datetime.fromisoformat(read["times"][0])


async def test_the_words_of_a_prompt_are_read_by_the_clock_of_the_client_that_sent_it(api: Api) -> None:
    sid = await api.session(timezone=BERLIN)
    assert await _asked(api, sid) == _nine(BERLIN)
    assert await _asked(api, sid, tz=TOKYO) == _nine(TOKYO)


async def test_the_agents_clock_is_the_askers(api: Api) -> None:
    sid = await api.session()
    run = (await api.prompt(sid, "what time is it?", client={"tz": LIMA}))["run_id"]
    await api.until_run_ends(sid, run)
    messages = (await api.ok("GET", f"sessions/{sid}/messages"))["messages"]
    (result,) = [each["content"] for each in messages if each["role"] == "tool"]
    assert LIMA in result


async def test_a_session_keeps_where_its_zone_came_from(api: Api) -> None:
    assert await _zone(api, await api.session()) == ("UTC", "default")
    sid = await api.session(timezone=BERLIN)
    assert await _zone(api, sid) == (BERLIN, "kernel"), "of the program that made it"
    assert await _zone(api, await api.session(timezone=BERLIN, timezone_source="browser")) == (BERLIN, "browser")
    changed = await api.ok("PATCH", f"sessions/{sid}", {"timezone": LIMA})
    assert (changed["timezone"], changed["timezone_source"]) == (LIMA, "chosen")
    changed = await api.ok("PATCH", f"sessions/{sid}", {"timezone": TOKYO, "timezone_source": "browser"})
    assert (changed["timezone"], changed["timezone_source"]) == (TOKYO, "browser")
    for wrong in ({"timezone": None}, {"timezone": "Mars/Olympus"}, {"timezone_source": "guess"}):
        answer = await api("PATCH", f"sessions/{sid}", wrong)
        assert (answer.status, answer.json["field"]) == (400, next(iter(wrong)))


async def test_a_browsers_zone_replaces_a_kernels_and_every_door_then_has_one_answer(api: Api) -> None:
    sid = await api.session(timezone="UTC", timezone_source="kernel")
    kernel = {"tz": "UTC", "source": "kernel"}
    assert await _asked(api, sid, **kernel) == _nine("UTC"), "the last resort: no browser was here"
    assert await _asked(api, sid, tz=TOKYO, source="browser") == _nine(TOKYO)
    assert await _zone(api, sid) == (TOKYO, "browser")
    assert await _asked(api, sid, **kernel) == _nine(TOKYO), "a cell"
    assert await _asked(api, sid) == _nine(TOKYO), "a program that names no zone"
    assert await _previewed(api, sid, client=kernel) == _nine(TOKYO), "a cell's recall"
    assert await _previewed(api, sid) == _nine(TOKYO)
    body = {"session_id": sid, "message": "look", "schedule": {"kind": "cron", "expr": "0 9 * * *"}, "client": kernel}
    assert (await api.ok("POST", "recalls", body))["schedule"]["tz"] == TOKYO
    assert await _zone(api, sid) == (TOKYO, "browser")


async def test_the_zone_that_the_user_chose_wins_over_every_machines(api: Api) -> None:
    sid = await api.session(timezone=BERLIN)
    await api.ok("PATCH", f"sessions/{sid}", {"timezone": LIMA})
    for source in ("browser", "kernel"):
        client = {"tz": TOKYO, "source": source}
        assert await _asked(api, sid, **client) == _nine(LIMA)
        assert await _previewed(api, sid, client=client) == _nine(LIMA)
    # Seen to fail before: a program's zone for one request was dropped where the user had chosen one.
    assert await _asked(api, sid, tz=TOKYO) == _nine(TOKYO)
    assert await _previewed(api, sid, client={"tz": TOKYO}) == _nine(TOKYO)
    assert await _zone(api, sid) == (LIMA, "chosen")
    assert await _previewed(api, sid, tz=BERLIN) == _nine(BERLIN), "but a zone that goes with the words goes before"


async def test_a_preview_without_a_session_is_by_the_clients_clock_and_stores_nothing(api: Api) -> None:
    read = await api.ok("POST", "recalls/preview", {"text": "tomorrow at 9", "client": {"tz": TOKYO}})
    assert datetime.fromisoformat(read["times"][0]) == _nine(TOKYO)
    sid = await api.session()
    assert await _previewed(api, sid, client={"tz": TOKYO}) == _nine(TOKYO)
    assert await _zone(api, sid) == ("UTC", "default")
    answer = await api("POST", "recalls/preview", {"text": "tomorrow at 9", "session_id": "s_other"})
    assert (answer.status, answer.json["code"]) == (404, "session_not_found")


async def test_a_prompt_that_waits_keeps_its_own_clock(api: Api) -> None:
    sid = await api.session()
    first = (await api.prompt(sid, "count to 20 every 0.05 seconds", client={"tz": BERLIN}))["run_id"]
    runs = [
        (await api.prompt(sid, f"remind me tomorrow at 9 to call {zone}", client={"tz": zone}))["run_id"]
        for zone in (TOKYO, LIMA)
    ]
    for run in (first, *runs):
        await api.until_run_ends(sid, run)
    recalls = (await api.ok("GET", "recalls", session_id=sid))["recalls"]
    due = {recall["message"].split()[-1]: datetime.fromisoformat(recall["next_at"]) for recall in recalls}
    assert due == {TOKYO: _nine(TOKYO), LIMA: _nine(LIMA)}
    assert [(await api.ok("GET", f"sessions/{sid}/runs/{run}"))["timezone"] for run in runs] == [TOKYO, LIMA]
    assert await _zone(api, sid) == (LIMA, "browser"), "the last that asked"


async def test_collected_prompts_of_two_clocks_are_two_runs(api: Api) -> None:
    sid = await api.session()
    await api.prompt(sid, "count to 30 every 0.05 seconds")
    runs = [
        (await api.prompt(sid, "tomorrow?", mode="collect", client={"tz": zone}))["run_id"]
        for zone in (TOKYO, TOKYO, LIMA)
    ]
    assert runs[0] == runs[1]
    assert runs[2] != runs[0]


async def test_followers_read_of_a_new_zone(api: Api) -> None:
    sid = await api.session()
    await _asked(api, sid, tz=TOKYO)
    await _asked(api, sid, tz=TOKYO)
    log = (await api.ok("GET", f"sessions/{sid}/events"))["events"]
    changes = [each["event"]["value"] for each in log if each["event"].get("name") == "navi.session"]
    assert [each["changed"] for each in changes] == [["timezone", "timezone_source"]], "once: the second is the same"
    assert changes[0]["session"]["timezone"] == TOKYO
    assert changes[0]["session"]["timezone_source"] == "browser"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "localtime", ""])
async def test_a_zone_that_is_not_known_is_refused_with_its_field(api: Api, zone: str) -> None:
    sid = await api.session()
    answer = await api("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "hi", "client": {"tz": zone}})
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", "client.tz")
    answer = await api("POST", "recalls/preview", {"text": "at 9", "client": {"tz": zone}})
    assert (answer.status, answer.json["field"]) == (400, "client.tz")
