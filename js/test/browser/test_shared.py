"""Many views of few sessions in one page: one connection each, through cuts, and nothing left of closed views."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect
from views import Chat, Control

pytestmark = pytest.mark.browser

SESSIONS = 3
VIEWS = 7
COUNT_SOCKETS = """window.opened = []; const Real = WebSocket;
    window.WebSocket = class extends Real { constructor(...given) { super(...given); window.opened.push(this); } };"""
LIVING = "window.opened.filter(socket => socket.readyState <= 1).length"


@pytest.fixture
def many(open_chat: Any, control: Control, request: pytest.FixtureRequest) -> Chat:
    """Seven views of each of three sessions, in turn."""
    sessions = [f"{request.node.name[:20]}-{index % SESSIONS}" for index in range(SESSIONS * VIEWS)]
    for session in sessions[:SESSIONS]:
        control(f"fill?session={session}&count=20")
    page = open_chat("blank").page
    page.add_init_script(COUNT_SOCKETS)
    return Chat(page, page.url.split("?")[0], *sessions)


def conversations(page: Page) -> list[str]:
    """What each view has of its conversation."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("navi-chat")].map(chat =>
            JSON.stringify([chat.session, chat.state.items.map(({id, text, status}) => [id, text, status])]))"""
    )
    return found


def test_views_that_share_a_session_agree_when_the_first_is_closed_and_when_the_socket_is_cut(
    many: Chat, control: Control
) -> None:
    page = many.page
    assert page.evaluate(LIVING) == SESSIONS
    # The view that made the connection goes, and the others do not notice.
    page.evaluate(f"for (const chat of [...document.querySelectorAll('navi-chat')].slice(0, {SESSIONS})) chat.remove()")
    page.wait_for_timeout(2_500)
    many.say("slow 12", view=0)
    for view in (0, 3, 15):
        many.find("message", "[data-status=streaming]", view).wait_for()
    control("close")  # in the middle of an answer
    page.wait_for_function(f"() => {LIVING} === {SESSIONS}", timeout=15_000)
    many.find("stop", view=0).wait_for(state="detached", timeout=30_000)
    page.wait_for_timeout(300)
    assert len(set(conversations(page))) == SESSIONS
    expect(many.find("message", "[data-role=assistant]", 0).last).to_contain_text("nine ten")
    # Without a server for a while; what is written meanwhile arrives once.
    control("mood?is=down")
    control("close")
    many.state("reconnecting")
    many.say("while it is off", view=0)
    control("mood?is=ok")
    last = many.find("message", "[data-role=user]:has-text('while it is off')", 6)
    expect(last).to_have_count(1, timeout=20_000)
    page.wait_for_function(f"() => {LIVING} === {SESSIONS}", timeout=15_000)
    # A session that is deleted: each of its views says so, and none of the others.
    control("mood?is=gone")
    control("close")
    for view in range(3):
        expect(many.find("status", view=view)).to_have_attribute("data-reason", "gone", timeout=15_000)
    assert page.evaluate(LIVING) == 0


def test_a_page_that_was_hidden_for_an_hour_has_everything_when_it_is_seen_again(many: Chat, control: Control) -> None:
    page = many.page
    # A browser holds the timers of such a page back: here until it is seen again.
    hide = """hidden => {
        const define = (name, value) => Object.defineProperty(document, name, {configurable: true, get: () => value});
        define('hidden', hidden);
        define('visibilityState', hidden ? 'hidden' : 'visible');
        if (hidden) {
            window.held = [];
            window.real = window.setTimeout;
            window.setTimeout = (run, after, ...given) => window.held.push(() => run(...given));
        } else {
            window.setTimeout = window.real;
            for (const run of window.held) run();
        }
        document.dispatchEvent(new Event('visibilitychange')); }"""
    page.evaluate(hide, True)
    control("close")
    session = page.evaluate("document.querySelector('navi-chat').session")
    control(f"recall?session={session}&in=0.2&fire=1&title=while%20hidden")
    page.wait_for_timeout(1_500)
    page.evaluate(hide, False)
    expect(many.find("message", "[data-origin=recall]", 0).first).to_be_visible(timeout=15_000)
    page.wait_for_function(f"() => {LIVING} === {SESSIONS}", timeout=15_000)
    assert len(set(conversations(page))) == SESSIONS


def test_nothing_is_left_of_views_that_were_closed(many: Chat) -> None:
    page = many.page
    many.say("tools", view=0)
    many.find("stop", view=0).wait_for(state="detached", timeout=30_000)
    for view in range(3):
        many.find("settings-toggle", view=view).click()
        many.find("settings", view=view).wait_for()
    count = "document.querySelectorAll('navi-chat').length"
    assert page.evaluate(count) == SESSIONS * VIEWS
    page.evaluate("for (const chat of document.querySelectorAll('navi-chat')) chat.remove()")
    page.wait_for_timeout(3_000)
    assert page.evaluate(LIVING) == 0
    tools = page.context.new_cdp_session(page)
    for _ in range(3):
        tools.send("HeapProfiler.collectGarbage")
        page.wait_for_timeout(100)
    prototype = tools.send("Runtime.evaluate", {"expression": "customElements.get('navi-chat').prototype"})
    left = tools.send("Runtime.queryObjects", {"prototypeObjectId": prototype["result"]["objectId"]})
    number = tools.send(
        "Runtime.callFunctionOn",
        {"objectId": left["objects"]["objectId"], "functionDeclaration": "function() { return this.length; }"},
    )
    assert number["result"]["value"] == 0
