"""The recalls of all sessions in front of a chat: line, view, calendar, toasts; and recalls made from an answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect
from views import OUT, Chat, Control

WIDE, NARROW = {"width": 1400, "height": 900}, {"width": 452, "height": 900}


def fill(page: Page) -> None:
    """The chat is as large as the page, as in the panel and on the page of the server."""
    page.evaluate(
        """() => {
            document.body.style.cssText = 'margin:0;max-width:none;padding:0;height:100vh';
            document.querySelector('h1').remove();
            document.querySelector('main').style.cssText = 'height:100vh;display:grid;grid-template-rows:1fr;gap:0';
            document.querySelectorAll('navi-chat').forEach(chat => chat.setAttribute('fill', ''));
        }"""
    )


def some_recalls(control: Control, one: str, two: str) -> None:
    """What a week of recalls leaves behind, in two sessions; and nothing else."""
    control("fresh")
    control(f"title?session={one}&is=Training")
    control(f"title?session={two}&is=Weekly%20report")
    control(f"recall?session={one}&in=5400&title=Check%20the%20loss&cron=0%209%20*%20*%20*&id={one}-daily")
    control(f"recall?session={two}&in=3600&title=Send%20the%20report&id={two}-once")
    control(f"recall?session={two}&in=200000&title=Look%20for%20new%20data&id={two}-later")
    control(f"firing?session={one}&recall={one}-daily&title=Check%20the%20loss&ago=60&run={one}-run&seen=1")
    control(
        f"firing?session={two}&recall={two}-x&title=Fit%20again&ago=120&status=failed&reason=needed%20approval:%20run_code"
    )
    control(f"firing?session={two}&recall={two}-y&title=Summarise&ago=86400&run=r_9&seen=1")


@pytest.fixture
def opened(open_chat: Callable[..., Chat], control: Control, request: pytest.FixtureRequest) -> Chat:
    """A chat on the first of two sessions with recalls."""
    name = request.node.name.partition("[")[0][-24:]
    some_recalls(control, f"{name}-1", f"{name}-2")
    chat: Chat = open_chat(f"{name}-1")
    chat.find("today").wait_for()
    return chat


def test_the_line_says_what_ran_today_and_what_comes_next_and_one_click_shows_it_over_all_sessions(
    opened: Chat,
) -> None:
    text = opened.find("today-text").inner_text()
    assert "1 failed" in text
    assert ", next at " in text
    clicks = 0
    opened.find("today").click()
    clicks += 1
    first = opened.find("overview-group", "[data-group=next]").locator("[data-navi=overview-recall]").first
    first.wait_for()
    assert "Send the report" in first.inner_text()
    assert "Weekly report" in first.inner_text(), "it is of another session than the one that is shown"
    assert clicks == 1


def test_yesterdays_result_is_two_clicks_away(opened: Chat, control: Control) -> None:
    session = opened.page.locator("navi-chat").first.get_attribute("session") or ""
    opened.say("hello from yesterday")
    opened.settled()
    run = opened.page.evaluate("document.querySelector('navi-chat').state.items[0].runId")
    control(f"firing?session={session}&recall=old&title=Yesterday%27s%20summary&ago=86400&run={run}&seen=1")
    opened.page.reload()
    opened.find("today").wait_for()
    clicks = 0
    opened.find("today").click()
    clicks += 1
    row = opened.find("overview-firing", "[data-recall-id=old]")
    row.locator("[data-navi=overview-show]").click()
    clicks += 1
    message = opened.page.locator(f"[data-navi=message][data-run-id='{run}']").first
    expect(message).to_be_focused()
    expect(opened.find("overview-content")).to_have_count(0)
    assert clicks == 2


def test_the_notebook_that_a_recall_made_yesterday_is_two_clicks_away(opened: Chat, control: Control) -> None:
    session = opened.page.locator("navi-chat").first.get_attribute("session") or ""
    result = "weekly-results/weekly-2026-12-01-0900.ipynb"
    control(f"firing?session={session}&recall=job&title=Run%20weekly&ago=86400&run=r_1&seen=1&result={result}")
    opened.page.evaluate(
        "addEventListener('navi-open-file', event => { event.preventDefault(); window.opened = event.detail.path; })"
    )
    clicks = 0
    opened.find("today").click()
    clicks += 1
    opened.find("overview-firing", "[data-recall-id=job]").locator("[data-navi=overview-result]").click()
    clicks += 1
    assert opened.page.evaluate("window.opened") == result
    assert clicks == 2


def test_what_needs_the_user_stands_first_and_can_be_run_again(opened: Chat) -> None:
    asked: list[str] = []

    def refuse_then_take(route: Route) -> None:
        asked.append(route.request.url.rpartition("/api/")[2])
        over = {"message": "It is over.", "code": "recall_over"}
        route.fulfill(status=409 if route.request.url.endswith("/fire") else 201, json=over)

    opened.page.route("**/recalls/*-x/*", refuse_then_take)
    assert opened.find("today-needs").inner_text() == "1 needs you"
    opened.find("today").click()
    group = opened.find("overview-group").first
    assert group.get_attribute("data-group") == "needs"
    assert "needed approval: run_code" in group.inner_text()
    group.locator("[data-navi=overview-again]").click()
    expect(opened.find("overview-message")).to_have_text("“Fit again” was started.")
    assert [path.rpartition("/")[2] for path in asked] == ["fire", "clone"], "one that is over is run as a copy"


def test_a_recall_of_another_session_is_paused_resumed_and_its_history_is_read_here(opened: Chat) -> None:
    opened.find("today").click()
    row = opened.find("overview-recall").filter(has_text="Send the report")
    row.locator("[data-navi=overview-pause]").click()
    paused = opened.find("overview-group", "[data-group=waiting]").locator("[data-navi=overview-recall]")
    paused.locator("[data-navi=overview-resume]").click()
    expect(paused).to_have_count(0)
    opened.page.route("**/firings*", lambda route: route.fulfill(json={"firings": [], "next": None}))
    row.locator("[data-navi=overview-history]").click()
    expect(row.locator("[data-navi=ledger]")).to_contain_text("It has not fired yet.")


def test_a_recall_of_another_session_is_changed_here(opened: Chat) -> None:
    bodies: list[Any] = []

    def keep(route: Route) -> None:
        bodies.append(route.request.post_data_json)
        route.continue_()

    opened.page.route("**/recalls/*-once", keep)
    opened.find("today").click()
    row = opened.find("overview-recall").filter(has_text="Send the report")
    row.locator("[data-navi=overview-edit]").click()
    row.locator("[data-navi=recall-message]").fill("Send the report to Ada")
    row.locator("[data-navi=recall-save]").click()
    opened.page.wait_for_function("() => true")
    expect(row.locator("[data-navi=recall-form]")).to_have_count(0)
    assert bodies == [{"message": "Send the report to Ada"}]


def test_going_to_another_session_shows_it_where_the_chat_fills_its_place(opened: Chat) -> None:
    fill(opened.page)
    opened.find("today").click()
    row = opened.find("overview-recall").filter(has_text="Send the report")
    row.locator("[data-navi=overview-session]").click()
    title = opened.page.locator("navi-chat .navi-title")
    expect(title).to_have_text("Weekly report")
    expect(opened.find("overview-content")).to_have_count(0)


def test_a_host_that_shows_sessions_itself_is_asked_to(opened: Chat) -> None:
    opened.page.evaluate(
        """() => document.addEventListener('navi-open-session', (event) => {
            event.preventDefault();
            window.place = event.detail;
        })"""
    )
    opened.find("today").click()
    row = opened.find("overview-firing").filter(has_text="Summarise")
    row.locator("[data-navi=overview-show]").click()
    place = opened.page.evaluate("window.place")
    assert place["session"].endswith("-2")
    assert place["runId"] == "r_9"


def test_the_coming_two_weeks_are_a_grid_for_the_keyboard_where_there_is_room(opened: Chat) -> None:
    page = opened.page
    page.set_viewport_size(WIDE)
    fill(page)
    opened.find("today").click()
    cells = opened.find("calendar-day")
    expect(cells).to_have_count(14)
    assert cells.first.get_attribute("aria-current") == "date"
    assert opened.find("calendar").locator("tbody tr").count() == 2
    assert not opened.find("agenda").is_visible()
    today = datetime.fromisoformat(cells.first.get_attribute("data-date") or "")
    cells.first.focus()
    for key, days in (
        ("ArrowRight", 1),
        ("ArrowDown", 8),
        ("ArrowLeft", 7),
        ("End", 13),
        ("Home", 7),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
    ):
        page.keyboard.press(key)
        at = page.evaluate("document.activeElement.dataset.date")
        assert at == f"{today + timedelta(days=days):%Y-%m-%d}", key
    assert opened.page.locator("[data-navi=calendar-day][tabindex='0']").count() == 1, "one stop of the Tab key"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(opened.find("calendar-shown")).to_contain_text("Check the loss")


def test_a_narrow_view_lists_the_days_that_have_something(opened: Chat) -> None:
    opened.page.set_viewport_size(NARROW)
    opened.find("today").click()
    opened.find("agenda").wait_for()
    assert not opened.find("calendar").locator("table").is_visible()
    assert opened.find("agenda-day").count() >= 13  # of fourteen: late in the evening nothing is left of today
    view = opened.page.locator("navi-chat").first
    assert view.evaluate("chat => chat.scrollWidth <= chat.clientWidth + 1")
    body = opened.page.locator(".navi-overview .navi-overlay-body")
    assert body.evaluate("body => body.scrollWidth <= body.clientWidth + 1")


def test_a_recall_that_fires_in_a_session_out_of_view_shows_one_toast_that_leads_there(
    open_chat: Callable[..., Chat], control: Control
) -> None:
    control("recall?session=toast-2&in=7000&title=Backup&id=toast-daily")
    control("title?session=toast-2&is=Nightly")
    chat = open_chat("toast-1", "toast-3")
    chat.find("today").wait_for()
    control("firing?session=toast-2&recall=toast-daily&title=Backup&run=r_1")
    control("firing?session=toast-1&recall=mine&title=Mine&run=r_2")
    control("recall?session=toast-1&in=9000&title=Changes&id=toast-change")  # the log of a session in view has a change
    toasts = chat.page.locator("[data-navi=toast]")
    expect(toasts).to_have_count(1, timeout=10_000)
    expect(toasts).to_contain_text("Backup: done")
    expect(toasts).to_contain_text("in “Nightly”")
    region = chat.page.locator("[data-navi=toasts]")
    assert region.get_attribute("role") == "status"
    assert chat.violations() == []
    with chat.page.expect_popup() as opened:
        toasts.locator("[data-navi=toast-show]").click()
    assert "session=toast-2" in opened.value.url, "a chat of a notebook stays with its notebook"
    expect(toasts).to_have_count(0)


def test_remind_me_under_an_answer_makes_a_recall_with_one_more_click(
    open_chat: Callable[..., Chat], control: Control
) -> None:
    chat = open_chat("remind")
    page = chat.page
    made: list[Any] = []
    at = (datetime.now().astimezone() + timedelta(minutes=10)).isoformat()
    preview = {
        "times": [at], "warnings": [], "schedule": {"kind": "once", "at": at}, "policy": {}, "meaning": "in 10 minutes",
        "message": "", "phrase": "in 10 minutes", "timezone": "UTC",
    }  # fmt: skip

    def create(route: Route) -> None:
        made.append(route.request.post_data_json)
        control("recall?session=remind&in=600&title=Again&id=remind-1")
        recall = {
            "id": "remind-1", "session_id": "remind", "title": "Again", "message": "m", "policy": {}, "origin": "user",
            "schedule": preview["schedule"], "status": "pending", "next_at": at, "last_at": None, "fired": 0,
            "created_at": at, "allow": [], "reason": None,
        }  # fmt: skip
        route.fulfill(status=201, json=recall)

    page.route("**/recalls/preview", lambda route: route.fulfill(json=preview))
    page.route("**/navi/api/recalls", create)
    chat.say("is the loss flat?")
    chat.settled()
    chat.find("remind").last.click()
    items = chat.find("remind-item")
    items.first.wait_for()
    assert [item.get_attribute("data-when") for item in items.all()] == [
        "soon",
        "hour",
        "tomorrow",
        "daily",
        "cell",
        "custom",
    ]
    items.first.click()
    chat.find("recall-parsed").wait_for()
    assert chat.find("recall-message").input_value() == "Again: is the loss flat?"
    assert chat.find("recall-when").input_value() == "in 10 minutes"
    expect(chat.find("recall-when")).to_be_focused()
    chat.find("recall-save").click()
    expect(chat.find("recalls-said")).to_contain_text("The recall is made. Navi comes back at")
    assert made[0]["message"] == "Again: is the loss flat?"
    assert made[0]["schedule"] == preview["schedule"]


def test_the_menu_of_an_answer_works_by_keyboard_and_gives_the_focus_back(open_chat: Callable[..., Chat]) -> None:
    chat = open_chat("remind-keys")
    chat.say("hello")
    chat.settled()
    chat.find("remind").last.focus()
    chat.page.keyboard.press("Enter")
    expect(chat.find("remind-item").first).to_be_focused()
    chat.page.keyboard.press("ArrowUp")
    expect(chat.find("remind-item").last).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(chat.find("remind-menu")).to_have_count(0)
    expect(chat.find("remind").last).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_the_view_is_accessible(open_chat: Callable[..., Chat], control: Control, scheme: str, width: int) -> None:
    name = f"look-{scheme}-{width}"
    some_recalls(control, f"{name}-1", f"{name}-2")
    chat = open_chat(f"{name}-1", color_scheme=scheme)
    chat.page.set_viewport_size({"width": width, "height": 900})
    fill(chat.page)
    chat.find("today").wait_for()
    OUT.mkdir(exist_ok=True)
    chat.page.screenshot(path=str(OUT / f"today-{scheme}-{width}.png"))
    chat.find("today").click()
    chat.find("overview-group").first.wait_for()
    chat.page.screenshot(path=str(OUT / f"overview-{scheme}-{width}.png"))
    assert chat.violations() == []
    chat.find("calendar").scroll_into_view_if_needed()
    chat.page.screenshot(path=str(OUT / f"overview-calendar-{scheme}-{width}.png"))
