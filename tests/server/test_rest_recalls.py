"""Recalls as a whole over HTTP, on a real server: all at once, copies, TOML, English times, what happened meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.conftest import Api

HOURLY = {"kind": "every", "every": "1h"}


async def recall(api: Api, sid: str, schedule: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    body = {"session_id": sid, "message": "look", "schedule": schedule or HOURLY, **more}
    made: dict[str, Any] = await api.ok("POST", "recalls", body)
    return made


async def test_all_recalls_are_paused_and_resumed(api: Api) -> None:
    one, two = await api.session(), await api.session()
    first, second = await recall(api, one), await recall(api, two)
    assert await api.ok("POST", "recalls/pause", {}, session_id=one) == {"changed": 1}
    assert await api.ok("POST", "recalls/pause", {}) == {"changed": 1}
    assert {(await api.ok("GET", f"recalls/{r['id']}"))["status"] for r in (first, second)} == {"paused"}
    assert await api.ok("POST", "recalls/resume", {}) == {"changed": 2}


async def test_a_recall_is_cloned_with_changes(api: Api) -> None:
    sid = await api.session()
    first = await recall(api, sid, policy={"retries": 2})
    copy = await api("POST", f"recalls/{first['id']}/clone", {"message": "look again"})
    assert copy.status == 201
    assert copy.headers["Location"].endswith(f"recalls/{copy.json['id']}")
    assert (copy.json["message"], copy.json["policy"]["retries"]) == ("look again", 2)
    missing = await api("POST", "recalls/rec_none/clone", {})
    assert (missing.status, missing.json["code"]) == (404, "recall_not_found")


async def test_recalls_go_out_as_toml_and_come_back(api: Api) -> None:
    sid, other = await api.session(), await api.session()
    await recall(api, sid, {"kind": "cron", "expr": "0 9 * * 1-5", "tz": "Europe/Berlin"}, title="standup")
    await recall(api, sid, {"kind": "when", "when": "changed data.csv"})
    out = await api("GET", "recalls/export")
    assert out.status == 200
    assert out.headers["Content-Type"].startswith("text/toml")
    text = out.body.decode()
    dry = await api("POST", "recalls/import", {"toml": text}, session_id=other, dry_run="true")
    assert (dry.status, dry.json["dry_run"], len(dry.json["recalls"])) == (200, True, 2)
    assert (await api.ok("GET", "recalls", session_id=other))["recalls"] == []
    assert sorted(dry.json["words"]) == sorted(one["id"] for one in dry.json["recalls"])
    as_toml = {"Content-Type": "text/toml"}
    taken = await api("POST", "recalls/import", raw=text.encode(), headers=as_toml, session_id=other)
    assert taken.status == 201
    assert [one["title"] for one in taken.json["recalls"]] == ["standup", "look"]
    bad = await api("POST", "recalls/import", {"toml": text.replace("0 9 * * 1-5", "0 9 * *")})
    assert (bad.status, bad.json["code"]) == (400, "invalid_schedule")
    assert "recall 1 (“standup”), line 3" in bad.json["message"]


@pytest.fixture
def notebook(jp_root_dir: Path) -> str:
    """The path of a notebook."""
    (jp_root_dir / "work").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), jp_root_dir / "work" / "r.ipynb")
    return "work/r.ipynb"


async def test_a_notebook_job_goes_out_as_toml_and_comes_back(api: Api, notebook: str) -> None:
    sid = await api.session()
    run = {"kind": "notebook", "path": notebook, "parameters": {"n": 7, "x": None, "l": [1, "ü"]}, "then": "look"}
    made = await recall(api, sid, run=run)
    assert (made["message"], made["last_result"]) == ("look", None)
    text = (await api("GET", "recalls/export")).body.decode()
    (back,) = (await api.ok("POST", "recalls/import", {"toml": text}))["recalls"]
    assert back["run"] == made["run"] == {**run, "output": None, "kernel": None}
    table = text.replace("parameters = ", "# ") + "[recall.run.parameters]\nn = 8\n"
    (again,) = (await api.ok("POST", "recalls/import", {"toml": table}))["recalls"]
    assert again["run"]["parameters"] == {"n": 8}
    gone = await api("POST", "recalls/import", {"toml": text.replace(notebook, "gone.ipynb")})
    assert (gone.status, gone.json["code"]) == (404, "notebook_not_found")
    assert "recall 1 (“look”), line" in gone.json["message"]
    copy = await api("POST", f"recalls/{made['id']}/clone", {})
    assert copy.json["run"] == made["run"]
    changed = await api.ok("PATCH", f"recalls/{made['id']}", {"run": {"kind": "prompt"}})
    assert changed["run"] == {"kind": "prompt"}
    assert await api.ok("GET", f"recalls/{made['id']}/results") == {"results": [], "next": None}
    none = await api("GET", f"recalls/{made['id']}/results/diff")
    assert (none.status, none.json["code"]) == (404, "run_not_found")


async def test_a_sentence_about_a_notebook_is_read_as_a_job(api: Api) -> None:
    read = await api.ok(
        "POST", "recalls/preview", {"text": "every weekday at 9 run r.ipynb with n=7 then look", "sentence": True}
    )
    assert read["schedule"]["expr"] == "0 9 * * 1-5"
    assert read["run"] == {
        "kind": "notebook", "path": "r.ipynb", "parameters": {"n": 7}, "output": None, "kernel": None, "then": "look",
    }  # fmt: skip
    assert (await api.ok("POST", "recalls/preview", {"text": "in 10m run the tests", "sentence": True}))["run"] is None


@pytest.mark.parametrize(
    ("text", "meaning", "schedule"),
    [
        (
            "every other Friday at 16:00",
            "every other Friday at 16:00 Europe/Berlin, counted from Fri ",
            {"kind": "every", "every": "14d", "tz": "Europe/Berlin"},
        ),
        ("weekdays at 9", "weekdays at 09:00 Europe/Berlin", {"kind": "cron", "expr": "0 9 * * 1-5"}),
        ("every 10 minutes 3 times", "every 10 min, 3 times", {"kind": "every", "every": "10m"}),
    ],
)
async def test_a_time_in_english_is_shown_before_it_is_saved(
    api: Api, text: str, meaning: str, schedule: dict[str, Any]
) -> None:
    shown = await api.ok("POST", "recalls/preview", {"text": text, "tz": "Europe/Berlin", "n": 2})
    assert shown["meaning"].startswith(meaning)
    assert {name: shown["schedule"][name] for name in schedule} == schedule
    assert len(shown["times"]) == 2
    saved = await recall(api, await api.session(), shown["schedule"], policy=shown["policy"])
    assert saved["schedule"] == shown["schedule"]
    assert datetime.fromisoformat(saved["next_at"]) == datetime.fromisoformat(shown["times"][0])


async def test_an_event_in_english_is_shown_before_it_is_saved_and_listed_in_words(api: Api) -> None:
    shown = await api.ok("POST", "recalls/preview", {"text": "each time data.csv changes"})
    assert (shown["meaning"], shown["times"]) == ("each time data.csv changes", [])
    sid = await api.session()
    saved = await recall(api, sid, shown["schedule"])
    assert saved["schedule"] == shown["schedule"]
    page = await api.ok("GET", "recalls", session_id=sid)
    assert page["words"] == {saved["id"]: "each time data.csv changes"}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "invalid_request", "schedule"),
        ({"text": "tomorrow", "schedule": HOURLY}, "invalid_request", "text"),
        ({"text": "whenever you like"}, "invalid_schedule", "schedule.when"),
        ({"text": "the day we meet"}, "invalid_schedule", "when"),
        ({"text": "when"}, "invalid_schedule", "text"),
        ({"text": "tomorrow", "tz": "Mars/Base"}, "invalid_schedule", "schedule.tz"),
        ({"schedule": {"kind": "when", "when": "slow"}}, "invalid_schedule", "schedule.longer_than"),
        ({"text": "in 1h", "after": "9999-12-31T23:59:59Z"}, "invalid_request", "after"),
        ({"text": "at 9", "after": "0001-01-01T00:00:00+14:00", "tz": "America/New_York"}, "invalid_request", "after"),
        ({"text": "on fridays at 9 until 8:00", "after": "2026-11-23T07:00:00Z"}, "invalid_schedule", None),
    ],
)
async def test_a_preview_that_can_not_be_says_why(api: Api, body: dict[str, Any], code: str, field: str) -> None:
    answer = await api("POST", "recalls/preview", body)
    assert (answer.status, answer.json["code"], answer.json.get("field")) == (400, code, field)


@pytest.mark.parametrize(("text", "count"), [("every day at 9, 3 times", 3), ("every day at 9 until wednesday", 2)])
async def test_a_preview_ends_where_the_text_does(api: Api, text: str, count: int) -> None:
    shown = await api.ok("POST", "recalls/preview", {"text": text, "after": "2026-11-23T18:00:00Z", "n": 9})
    assert len(shown["times"]) == count


async def test_utc_has_its_usual_name(api: Api) -> None:
    shown = await api.ok("POST", "recalls/preview", {"text": "every day at 9", "tz": "Etc/UTC"})
    assert shown["meaning"] == "every day at 09:00 UTC"


async def test_a_prompt_ends_the_recalls_that_say_so(api: Api) -> None:
    sid = await api.session()
    ends, stays = await recall(api, sid, policy={"cancel_on": ["user_message"]}), await recall(api, sid)
    await api.ok("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "hello"})
    assert (await api.ok("GET", f"recalls/{ends['id']}"))["status"] == "cancelled"
    assert (await api.ok("GET", f"recalls/{stays['id']}"))["status"] == "pending"


async def fired(api: Api, recall_id: str) -> dict[str, Any]:
    """The newest row of the ledger, once it is over."""
    async with asyncio.timeout(20):
        while True:
            rows = (await api.ok("GET", f"recalls/{recall_id}/firings"))["firings"]
            if rows and rows[0]["ended_at"]:
                row: dict[str, Any] = rows[0]
                return row
            await asyncio.sleep(0.05)


async def test_what_happened_while_one_was_away_is_one_answer(api: Api) -> None:
    sid = await api.session()
    since = datetime.now(UTC).isoformat()
    made = await recall(api, sid, {"kind": "once", "in": "1s"}, message="say hello to me")
    row = await fired(api, made["id"])
    assert (row["status"], row["kind"], row["delivery"]) == ("succeeded", "auto", "none")
    assert row["lateness_ms"] >= 0
    away = await api.ok("GET", f"sessions/{sid}/away")
    assert [(run["run_id"], run["status"], run["origin"]["kind"]) for run in away["runs"]] == [
        (row["run_id"], "completed", "recall")
    ]
    assert away["runs"][0]["prompt"] == "say hello to me"
    assert away["runs"][0]["answer"]
    assert (away["not_run"], away["missed"], away["failed"]) == ([], 0, 0)
    assert (await api.ok("GET", f"sessions/{sid}/away", since=since))["runs"] == away["runs"]
    later = (datetime.now(UTC)).isoformat().replace("+00:00", "Z")
    assert (await api.ok("GET", f"sessions/{sid}/away", since=later))["runs"] == []
    listed = await api.ok("GET", "recalls", session_id=sid)
    assert listed["last"][made["id"]]["id"] == row["id"]


@pytest.mark.parametrize("since", ["yesterday", "2026-01-01T00:00:00", "2999-01-01T00:00:00Z"])
async def test_since_when_one_was_away_is_a_past_instant(api: Api, since: str) -> None:
    sid = await api.session()
    answer = await api("GET", f"sessions/{sid}/away", since=since)
    assert (answer.status, answer.json["field"]) == (400, "since")


async def test_somebody_elses_session_has_nothing_to_tell(api: Api) -> None:
    answer = await api("GET", "sessions/s_none/away")
    assert (answer.status, answer.json["code"]) == (404, "session_not_found")


class TestALongerInterval:
    """With ``min_recall_interval``."""

    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"min_recall_interval": 60.0}

    async def test_an_administrator_may_set_the_smallest_interval(self, api: Api) -> None:
        sid = await api.session()
        body = {"session_id": sid, "message": "m", "schedule": {"kind": "every", "every": "30s"}}
        answer = await api("POST", "recalls", body)
        assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_schedule", "schedule.every")
        assert "at least 1m" in answer.json["message"]
        await recall(api, sid, {"kind": "every", "every": f"{timedelta(minutes=1).seconds}s"})


async def test_a_sentence_is_previewed_with_the_message_that_is_left(api: Api) -> None:
    body = {"text": "every other friday at 16:00 check the loss", "sentence": True, "tz": "Europe/Berlin"}
    shown = await api.ok("POST", "recalls/preview", body)
    assert (shown["message"], shown["phrase"]) == ("check the loss", "every other friday at 16:00")
    assert shown["meaning"].startswith("every other Friday at 16:00 Europe/Berlin")
    assert len(shown["times"]) == 5


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("in a nutshell what did we do", "invalid_request", "There is no time in"),
        ("tomorrow at noon and at 6pm look", "invalid_schedule", "in quotation marks"),
        ("twice a day look", "invalid_schedule", "leaves open when"),
    ],
)
async def test_a_sentence_without_a_time_is_told_from_one_that_can_not_be_said(
    api: Api, text: str, code: str, says: str
) -> None:
    answer = await api("POST", "recalls/preview", {"text": text, "sentence": True})
    assert (answer.status, answer.json["code"]) == (400, code)
    assert says in answer.json["message"]


async def test_a_recall_may_act_without_asking_as_far_as_it_was_allowed(api: Api) -> None:
    sid = await api.session()
    made = await recall(api, sid, allow=["run_code", "write", "run_code"])
    assert made["allow"] == ["run_code", "effect:write"]
    listed = await api.ok("GET", "recalls", session_id=sid, status="all")
    assert listed["recalls"][0]["allow"] == ["run_code", "effect:write"]
    plain = await recall(api, sid)
    assert plain["allow"] == []
    path = f"recalls/{plain['id']}"
    assert (await api.ok("PATCH", path, {"allow": ["run"]}))["allow"] == ["effect:run"]
    assert (await api.ok("PATCH", path, {"title": "another"}))["allow"] == ["effect:run"]
    assert (await api.ok("POST", f"{path}/clone", {}))["allow"] == ["effect:run"]
    assert (await api.ok("POST", f"{path}/clone", {"allow": []}))["allow"] == []
    assert (await api.ok("POST", f"{path}/fire", {"allow": ["run_code", "run"]}))["allow"] == ["effect:run", "run_code"]
    assert (await api.ok("PATCH", path, {"allow": []}))["allow"] == []
    events = await api.ok("GET", f"sessions/{sid}/events", after=0)
    values = [e["event"]["value"] for e in events["events"] if e["event"].get("name") == "navi.recall"]
    said = [(value["action"], value.get("reason")) for value in values if value["recall"]["id"] == plain["id"]]
    assert [one for one in said if one[0] in ("allowed", "revoked")] == [
        ("allowed", "effect:run"), ("allowed", "run_code"), ("revoked", "effect:run, run_code"),
    ]  # fmt: skip
    text = (await api("GET", "recalls/export")).body.decode()
    assert 'allow = ["run_code", "effect:write"]' in text
    assert (await api.ok("POST", "recalls/import", {"toml": text}, dry_run="true"))["recalls"][0]["allow"] == [
        "run_code", "effect:write",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "hint"),
    [("run_cod", "'run_code'"), ("runs", "'run'"), ("effect:rn", "'run'"), ("*", "Effects are"), ("effect:*", "")],
)
async def test_what_cannot_be_allowed_is_refused_with_the_nearest_name_that_can(api: Api, name: str, hint: str) -> None:
    sid = await api.session()
    body = {"session_id": sid, "message": "look", "schedule": HOURLY, "allow": [name]}
    answer = await api("POST", "recalls", body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "invalid_request", "allow")
    assert repr(name) in answer.json["message"]
    assert hint in answer.json["message"]
    made = await recall(api, sid)
    for method, path in (("PATCH", ""), ("POST", "/fire"), ("POST", "/clone")):
        assert (await api(method, f"recalls/{made['id']}{path}", {"allow": [name]})).status == 400
    toml = f'[[recall]]\nmessage = "look"\nallow = ["{name}"]\nschedule = {{kind = "every", every = "1h"}}\n'
    refused = await api("POST", "recalls/import", {"toml": toml}, session_id=sid)
    assert refused.json["message"].startswith("recall 1, line 3: ")


async def test_the_recalls_of_a_deleted_session_stay_as_cancelled_ones_with_their_ledger(api: Api) -> None:
    sid = await api.session()
    made = await recall(api, sid)
    await api.ok("POST", f"recalls/{made['id']}/fire", {})
    assert (await api("DELETE", f"sessions/{sid}")).status == 204
    listed = await api.ok("GET", "recalls", status="all")
    assert [(one["id"], one["status"], one["reason"]) for one in listed["recalls"]] == [
        (made["id"], "cancelled", "session deleted")
    ]
    firings = (await api.ok("GET", f"recalls/{made['id']}/firings"))["firings"]
    assert [one["status"] for one in firings] in (["cancelled"], ["succeeded"])
    assert (await api("PATCH", f"recalls/{made['id']}", {"title": "x"})).json["code"] == "recall_over"
    assert (await api("POST", f"recalls/{made['id']}/clone", {})).json["code"] == "session_not_found"
