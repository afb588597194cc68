"""The recalls panel, its form, its history and the card of what came, in a real browser; the server's answers are set
here, the log comes from the playground."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Route
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
    page.reload()
    control(f"recall?session={session}&in=90000&title=daily&cron=0%209%20*%20*%201-5&id={session}")
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
