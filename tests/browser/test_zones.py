"""Whose clock counts: a kernel in one zone, a browser in another, and a user who chooses a third, in real pages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, expect

from tests.browser.hosts import AXE, Host, asked, chat_of, kernel_is, run_cell, shot
from tests.browser.test_recalls import part, tab_to, violations
from tests.support.needs import needed

PATIENCE = 40_000
LIMA, BERLIN, TOKYO = "America/Lima", "Europe/Berlin", "Asia/Tokyo"
CHAT = "%load_ext navi_jupyter\nimport navi_jupyter as navi\nnavi.chat()"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Server and kernels are in Lima."""
    host = Host("lab", tmp_path_factory.mktemp("lima"), env={"TZ": LIMA})
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """The user is in Berlin."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, timezone_id=BERLIN)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


def session_in(host: Host, notebook: str) -> dict[str, Any]:
    sessions = host.server.get("navi/api/sessions")["sessions"]
    (found,) = [session for session in sessions if session["notebook_path"] == f"{notebook}.ipynb"]
    return dict(found)


def recalls_of(host: Host, sid: str) -> list[dict[str, Any]]:
    return list(host.server.get(f"navi/api/recalls?session_id={sid}&status=pending")["recalls"])


def is_nine(text: str, zone: str) -> bool:
    at = datetime.fromisoformat(text).astimezone(ZoneInfo(zone))
    return (at.hour, at.minute) == (9, 0)


def make_by_form(chat: Locator, message: str) -> None:
    if part(chat, "recalls-toggle").get_attribute("aria-expanded") != "true":
        part(chat, "recalls-toggle").click()
    part(chat, "recall-new").click()
    part(chat, "recall-message").fill(message)
    part(chat, "recall-when").fill("tomorrow at 9")
    expect(part(chat, "recall-parsed")).to_contain_text("09:00")
    part(chat, "recall-save").click()
    expect(part(chat, "recall-form")).to_have_count(0)


def test_cell_chat_form_and_api_have_one_answer_and_it_is_the_browsers(host: Host, context: BrowserContext) -> None:
    host.write("doors", CHAT, "_ = %navi recall tomorrow at 9 look", "%navi timezone")
    page = host.open(context, "doors")
    run_cell(page, 0)
    chat = chat_of(page)
    host.server.wait_for(lambda: session_in(host, "doors")["timezone_source"] == "browser", within=60)
    sid = session_in(host, "doors")["id"]
    assert session_in(host, "doors")["timezone"] == BERLIN, "the kernel's guess is replaced"

    asked(chat, "remind me tomorrow at 9 to chat", within=PATIENCE)
    make_by_form(chat, "form")
    kernel_is(page, "idle")
    run_cell(page, 1)
    host.server.wait_for(lambda: len(recalls_of(host, sid)) == 3, within=60)
    read = host.server.request("POST", "navi/api/recalls/preview", {"text": "tomorrow at 9", "session_id": sid})
    due = {each["message"]: each["next_at"] for each in recalls_of(host, sid)} | {"api": read["times"][0]}
    assert {name: is_nine(at, BERLIN) for name, at in due.items()} == dict.fromkeys(due, True), due
    assert len({datetime.fromisoformat(at) for at in due.values()}) == 1
    run_cell(page, 2)
    expect(page.locator(".jp-OutputArea-output").last).to_contain_text(f"{BERLIN}, the zone of your browser")
    shot(page, "zone-doors")


def test_the_zone_is_chosen_with_the_keyboard_counts_everywhere_and_is_given_up_again(
    host: Host, context: BrowserContext
) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    sid = str(host.server.request("POST", "navi/api/sessions", {"title": "Chosen"})["id"])
    page = context.new_page()
    page.goto(f"{host.server.url}navi?session={sid}&token={host.server.token}")
    chat = chat_of(page)
    tab_to(page, "settings-toggle")
    page.keyboard.press("Enter")
    expect(part(chat, "zone-source")).to_have_text("of your browser")
    expect(part(chat, "zone-name")).to_have_value(BERLIN)
    tab_to(page, "zone-name")
    page.keyboard.press("Control+A")
    page.keyboard.type("Asia/Atlantis")
    page.keyboard.press("Enter")
    expect(part(chat, "notice")).to_contain_text("not a known time zone")
    expect(part(chat, "zone-name")).to_have_value(BERLIN)
    page.keyboard.press("Control+A")
    page.keyboard.type(TOKYO)
    page.keyboard.press("Enter")
    expect(part(chat, "zone-source")).to_have_text("chosen by you")
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        shot(page, f"zone-settings-{scheme}")
        assert violations(page) == []

    make_by_form(chat, "form")
    asked(chat, "remind me tomorrow at 9 to chat", within=PATIENCE)
    found = recalls_of(host, sid)
    assert [is_nine(each["next_at"], TOKYO) for each in found] == [True, True], found

    part(chat, "settings-toggle").click()  # the form of the recall is in another panel, which took its place
    expect(part(chat, "zone-own")).to_contain_text(BERLIN)
    part(chat, "zone-own").focus()
    page.keyboard.press("Enter")
    expect(part(chat, "zone-source")).to_have_text("of your browser")
    session = host.server.get(f"navi/api/sessions/{sid}")
    assert (session["timezone"], session["timezone_source"]) == (BERLIN, "browser")
