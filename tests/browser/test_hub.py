"""The page of ``navi hub`` in a browser: with the user's server off, and in it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.hosts import shot
from tests.support.hub import PASSWORD, Hub

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")).start() as started:
        yield started


def logged_in(context: BrowserContext, url: str, name: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.fill("#username_input", name)
    page.fill("#password_input", PASSWORD)
    page.click("#login_submit")
    expect(page.locator("navi-sessions")).to_be_visible(timeout=30_000)
    return page


def asked(page: Page, text: str) -> None:
    box = page.locator("[data-navi=input]")
    expect(box).to_be_enabled(timeout=30_000)
    box.fill(text)
    box.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_the_service_answers_while_the_users_server_is_off(hub: Hub, browser: Browser, scheme: str) -> None:
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = logged_in(context, f"{hub.url}services/navi/", f"user-{scheme}")
    asked(page, "what can you do")
    expect(page.get_by_text("as long as the server that keeps it runs")).to_be_visible(timeout=30_000)
    shot(page, f"hub-service-{scheme}")
    assert hub.user(f"user-{scheme}").servers() == {}
    context.close()


def test_a_session_goes_on_in_the_users_server_and_after_it_has_stopped_at_the_service(
    hub: Hub, browser: Browser
) -> None:
    user = hub.user("ada")
    user.start_server()
    context = browser.new_context()
    page = logged_in(context, f"{hub.url}user/ada/navi/", "ada")
    asked(page, "what can you do")
    expect(page.get_by_text("as long as the server that keeps it runs")).to_be_visible(timeout=30_000)
    user.stop_server()
    page.goto(f"{hub.url}services/navi/")
    expect(page.get_by_text("as long as the server that keeps it runs")).to_be_visible(timeout=30_000)
    asked(page, "what time is it")
    expect(page.get_by_text(re.compile(r"\bUTC\b|\d:\d\d"))).not_to_have_count(0, timeout=30_000)
    context.close()
