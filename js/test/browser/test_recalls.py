"""The recalls panel, its form, its history and the card of what came, in a real browser; the server's answers are set
here, the log comes from the playground."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from views import AXE, OUT, Control

pytestmark = pytest.mark.browser

SLOT = "2026-11-22T09:00:00+00:00"
FIRING = {
    "id": "f", "recall_id": "x", "slot": SLOT, "kind": "auto", "status": "skipped", "reason": "its session was busy",
    "run_id": None, "attempt": 0, "attempts": [], "coalesced": 2, "not_before": SLOT, "started_at": None,
    "ended_at": SLOT, "lateness_ms": 65_000, "delivery": "failed", "delivery_error": "phone: 503",
}  # fmt: skip
POLICY = {"misfire": "latest", "grace": None, "busy": "defer", "retries": 0, "timeout": None, "until": None,
          "max_fires": None, "jitter": None, "cancel_on": [], "notify": [], "quiet": None}  # fmt: skip
AWAY = {
    "since": SLOT,
    "runs": [{"run_id": "r", "at": SLOT, "status": "completed", "origin": {"kind": "recall", "recall_id": "x"},
              "prompt": "check the loss", "answer": "It is 0.3.", "error": None}],
    "not_run": [{"recall_id": "x", "title": "daily", "slot": SLOT, "status": "missed", "reason": "the server was off",
                 "coalesced": 0}],
    "missed": 1, "failed": 0,
}  # fmt: skip
PREVIEW = {
    "times": ["2026-11-27T16:00:00+00:00"], "warnings": ["The clock is changed in between."], "policy": POLICY,
    "schedule": {"kind": "every", "every": "14d", "start": SLOT, "tz": "UTC"}, "meaning": "every 2 weeks on Friday",
}  # fmt: skip


TOOLS = [
    {"name": name, "effect": effect, "permission": "ask", "available": True, "description": "", "parameters": {},
     "source": "builtin", "why": None}
    for name, effect in (("run_code", "run"), ("insert_cell", "write"), ("edit_cell", "write"))
]  # fmt: skip


def answer(body: Any, status: int = 200) -> Any:
    def fulfil(route: Route) -> None:
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    return fulfil


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_panel_its_form_its_history_and_the_card_are_accessible(
    open_chat: Any, control: Control, scheme: str
) -> None:
    session = f"recalls-{scheme}"
    chat = open_chat(session, color_scheme=scheme)
    page = chat.page
    page.route("**/recalls/preview", answer(PREVIEW))
    page.route("**/firings*", answer({"firings": [FIRING], "next": "1:2"}))
    page.route("**/away*", answer(AWAY))
    page.route("**/navi/api/notify", answer({"notify": [{"name": "phone", "available": True}]}))
    page.route(f"**/navi/api/sessions/{session}", answer({"title": "t", "model": "m", "profile": "p", "unread": 2}))
    page.route("**/read", answer({"message": "no"}, 503))
    page.route("**/tools?*", answer({"tools": TOOLS, "next": None}))
    page.reload()
    control(f"recall?session={session}&in=90000&title=daily&cron=0%209%20*%20*%201-5&id={session}")
    chat.find("recalls-toggle").click()
    chat.find("recall").wait_for()
    chat.find("away").wait_for()
    assert "1 time nothing ran" in chat.find("away-summary").inner_text()
    assert chat.find("unread").inner_text() == "2 unread"
    chat.find("recall-history").click()
    chat.find("firing").wait_for()
    chat.find("recall-new").click()
    chat.find("recall-message").fill("check the loss")
    chat.find("recall-when").fill("every other friday at 16:00")
    assert chat.find("recall-save").is_disabled()
    chat.find("recall-parsed").wait_for()
    assert chat.find("recall-save").is_enabled()
    page.add_script_tag(path=str(AXE))
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / f"recalls-{scheme}.png"))
    result = page.evaluate("async () => await axe.run()")
    assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_leave_is_given_shown_and_taken_back_by_keyboard_and_accessible(
    open_chat: Any, control: Control, scheme: str
) -> None:
    session = f"leave-{scheme}"
    chat = open_chat(session, color_scheme=scheme)
    page = chat.page
    asked: list[tuple[str, str, Any]] = []
    last = {**FIRING, "recall_id": session, "status": "failed", "reason": "needed approval: run_code", "coalesced": 0}

    def keep(body: Any) -> Any:
        def fulfil(route: Route) -> None:
            asked.append((route.request.method, route.request.url.rpartition("/api/")[2], route.request.post_data_json))
            answer(body)(route)

        return fulfil

    control(f"recall?session={session}&in=90000&title=fit&cron=0%209%20*%20*%201-5&id={session}&allow=effect:write")
    chat.find("recalls-toggle").click()
    chat.find("recall").wait_for()
    recall = page.evaluate("id => document.querySelector('navi-chat').state.recalls[id].recall", session)
    page.route("**/recalls?session_id=*", answer({"recalls": [recall], "last": {session: last}, "next": None}))
    page.route("**/recalls/preview", answer(PREVIEW))
    page.route("**/tools?*", answer({"tools": TOOLS, "next": None}))
    page.route(f"**/recalls/{session}/fire", keep(recall))
    page.route(f"**/recalls/{session}", keep(recall))
    page.route("**/navi/api/recalls", keep(recall))
    page.route("**/firings*", answer({"firings": [last], "next": None}))
    page.reload()
    chat.find("recalls-toggle").click()
    chat.find("recall-lacking").wait_for()
    assert chat.find("recall-leave").first.inner_text() == "may change notebook and files without asking"
    chat.find("recall-history").click()
    chat.find("firing").wait_for()

    chat.find("recall-new").focus()
    page.keyboard.press("Enter")
    chat.find("recall-allow-tools").wait_for()
    page.keyboard.type("fit again")
    page.keyboard.press("Tab")
    page.keyboard.type("tomorrow at 9")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(chat.find("recall-may", "[value='effect:run']")).to_be_checked()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    chat.find("recall-may", "[value=edit_cell]").wait_for()
    page.add_script_tag(path=str(AXE))
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / f"leave-{scheme}.png"))
    result = page.evaluate("async () => await axe.run()")
    assert [(found["id"], found["nodes"][0]["html"]) for found in result["violations"]] == []
    chat.find("recall-parsed").wait_for()
    chat.find("recall-save").focus()
    page.keyboard.press("Enter")
    chat.find("recall-form").wait_for(state="detached")
    page.screenshot(path=str(OUT / f"leave-list-{scheme}.png"), clip={"x": 0, "y": 0, "width": 900, "height": 500})
    for name in ("recall-revoke", "allow-again"):
        chat.find(name).first.focus()
        with page.expect_response(lambda found: f"/recalls/{session}" in found.url and found.request.method != "GET"):
            page.keyboard.press("Enter")
    (made, revoked, again) = asked
    assert made[2]["allow"] == ["effect:run"]
    assert revoked == ("PATCH", f"recalls/{session}", {"allow": []})
    assert again == ("POST", f"recalls/{session}/fire", {"allow": ["run_code"]})


def test_permission_for_notifications_is_asked_by_the_button_alone(open_chat: Any) -> None:
    chat = open_chat("permission")
    page = chat.page
    page.evaluate(
        "() => { window.asked = 0; const real = Notification.requestPermission.bind(Notification);"
        " Notification.requestPermission = () => { window.asked += 1; return real(); }; }"
    )
    chat.find("recalls-toggle").click()
    chat.find("tell-here").wait_for()
    assert page.evaluate("window.asked") == 0
    if chat.find("tell-allow").count():
        chat.find("tell-allow").click()
        assert page.evaluate("window.asked") == 1
    else:
        assert chat.find("tell-here").get_attribute("data-permission") in ("denied", "on")
