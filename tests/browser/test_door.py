"""The panel in JupyterLab where something is in its way, and where its pin is kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.hosts import Host, shot

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("lab", tmp_path_factory.mktemp("lab"))
    yield host
    host.server.stop()


@pytest.fixture
def page(browser: Browser, host: Host) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.goto(f"{host.server.url}lab?reset&token={host.server.token}")
    icon(page).wait_for(timeout=60_000)
    yield page
    context.close()


def icon(page: Page) -> Locator:
    return page.locator("[data-navi=panel-tab]:visible")


def note(page: Page) -> Locator:
    return page.locator("[data-navi=panel-note]")


def input_of(page: Page) -> Locator:
    return page.locator("navi-panel [data-navi=input]")


def test_the_panel_says_what_is_in_its_way_and_goes_on_when_that_is_over(page: Page) -> None:
    statuses = {"now": 404}
    ours = ("**/static/navi/**", "**/navi/api/**")
    for url in ours:
        page.route(url, lambda route: route.fulfill(status=statuses["now"], json={"message": "Not Found"}))
    icon(page).click()
    expect(note(page)).to_contain_text("This server has no Navi")
    shot(page, "door-no-extension")
    statuses["now"] = 403
    expect(note(page)).to_contain_text("not logged in", timeout=15_000)
    expect(note(page).locator("a")).to_have_attribute("href", re.compile("/navi$"))
    page.unroute(ours[0])
    page.unroute(ours[1])
    expect(input_of(page)).to_be_enabled(timeout=30_000)


def test_a_login_that_expires_before_anything_is_shown_leads_to_the_login_page(page: Page) -> None:
    page.route("**/navi/api/**", lambda route: route.fulfill(status=403, json={"message": "Forbidden"}))
    icon(page).click()
    expect(note(page)).to_contain_text("not logged in", timeout=15_000)
    shot(page, "door-logged-out")
    cookies = page.context.cookies()
    page.context.clear_cookies()
    with page.context.expect_page() as opened:
        note(page).locator("a").click()
    opened.value.wait_for_url("**/login?next=*")
    page.context.add_cookies([{**each} for each in cookies])  # type: ignore[typeddict-item]
    page.unroute("**/navi/api/**")
    expect(input_of(page)).to_be_enabled(timeout=30_000)


def test_the_pin_is_there_where_the_workspace_is_opened_in_another_window(
    page: Page, host: Host, browser: Browser
) -> None:
    session = host.server.request("POST", "navi/api/sessions", {"title": "kept"})["id"]
    icon(page).click()
    expect(input_of(page)).to_be_enabled(timeout=30_000)
    expect(page.locator("navi-panel navi-chat")).to_have_attribute("session", session)  # the last one
    page.locator("[data-navi=panel-pin]").click()
    expect(page.locator("[data-navi=panel-pin]")).to_have_attribute("aria-pressed", "true")
    host.server.request("POST", "navi/api/sessions", {"title": "newer"})
    page.wait_for_timeout(2_000)  # JupyterLab saves its workspace a second after a change
    page.context.close()
    other = browser.new_context(viewport={"width": 1400, "height": 900})
    again = other.new_page()
    again.goto(f"{host.server.url}lab?token={host.server.token}")
    expect(again.locator("navi-panel navi-chat")).to_have_attribute("session", session, timeout=60_000)
    expect(again.locator("[data-navi=panel-pin]")).to_have_attribute("aria-pressed", "true")
    other.close()
