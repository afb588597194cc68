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
    expect(page.get_by_text("as long as I run")).to_be_visible(timeout=30_000)
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
    expect(page.get_by_text("as long as I run")).to_be_visible(timeout=30_000)
    user.stop_server()
    page.goto(f"{hub.url}services/navi/")
    expect(page.get_by_text("as long as I run")).to_be_visible(timeout=30_000)
    asked(page, "what time is it")
    expect(page.get_by_text(re.compile(r"\bUTC\b|\d:\d\d"))).not_to_have_count(0, timeout=30_000)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_a_server_that_was_stopped_leads_to_its_start_and_goes_on(
    hub: Hub, browser: Browser, scheme: str
) -> None:
    user = hub.user("grace")
    user.start_server()
    context = browser.new_context(color_scheme="dark" if scheme == "dark" else "light")
    page = logged_in(context, f"{hub.url}user/grace/navi/", "grace")
    asked(page, "what can you do")
    expect(page.get_by_text("as long as I run").last).to_be_visible(timeout=30_000)
    user.stop_server()
    line = page.locator(".navi-status-line")
    expect(line).to_contain_text("Your server is off", timeout=30_000)
    expect(line).to_have_css("opacity", "1")  # it appears slowly
    shot(page, f"hub-server-off-{scheme}")
    with context.expect_page() as opened:
        line.get_by_text("Start it").click()
    opened.value.locator("#start").click(timeout=30_000)
    expect(opened.value.locator("navi-sessions")).to_be_visible(timeout=60_000)
    page.bring_to_front()
    line.get_by_text("Try again").click()
    expect(line).to_have_count(0, timeout=30_000)
    asked(page, "what time is it")
    expect(page.get_by_text(re.compile(r"\bUTC\b|\d:\d\d"))).not_to_have_count(0, timeout=30_000)
    context.close()


def test_a_page_of_another_users_server_gets_no_socket_for_its_visitor(hub: Hub, browser: Browser) -> None:
    context = browser.new_context()
    page = logged_in(context, f"{hub.url}services/navi/", "visitor")
    asked(page, "what can you do")
    expect(page.get_by_text("as long as I run")).to_be_visible(timeout=30_000)
    foreign = context.new_page()
    foreign.goto(f"{hub.url}hub/home")  # as good as one below /user/mallory/: of the same domain, at another path
    opens = """url => new Promise(done => {
        const socket = new WebSocket(url);
        socket.onopen = () => done(true);
        socket.onclose = () => done(false);
    })"""
    service = f"{hub.url.replace('http', 'ws')}services/navi/navi/api/notebooks/ws"
    assert not foreign.evaluate(opens, service)
    own = page.evaluate("document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)[1]")
    assert own not in foreign.evaluate("document.cookie")
    assert page.evaluate(opens, f"{service}?_xsrf={own}")
    context.close()
