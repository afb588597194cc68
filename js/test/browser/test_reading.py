"""Reading a conversation in a real browser: long ones, by keyboard alone, and with panels over it.

Screenshots go to ``js/playground/out``, to be looked at.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from views import OUT, Chat, Control

pytestmark = pytest.mark.browser

NARROW = {"width": 420, "height": 700}
WIDE = {"width": 1400, "height": 900}

FIRING = {
    "id": "f",
    "slot": "2026-11-22T09:00:00+00:00",
    "kind": "auto",
    "status": "succeeded",
    "reason": None,
    "attempt": 1,
    "attempts": [],
    "coalesced": 0,
    "not_before": "2026-11-22T09:00:00+00:00",
    "started_at": None,
    "ended_at": None,
    "lateness_ms": None,
    "delivery": "none",
    "delivery_error": None,
}


def scrolled(chat: Chat) -> list[float]:
    """How far each box of the chat but the log is scrolled: none ever is."""
    script = """chat => [chat, ...chat.querySelectorAll("*")]
        .filter(box => !box.closest("[data-navi=log], .navi-overlay-body") && box.tagName !== "TEXTAREA")
        .map(box => box.scrollTop).filter(top => top !== 0)"""
    found: list[float] = chat.views[0].evaluate(script)
    return found


def fits(page: Page, part: Locator) -> bool:
    """Whether a part is on the screen as a whole."""
    box, size = part.bounding_box(), page.viewport_size
    assert size is not None
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= size["height"] and box["x"] >= 0


def focused(page: Page) -> str:
    """The ``data-navi`` of what has the focus."""
    found: str = page.evaluate("document.activeElement?.closest('[data-navi]')?.dataset.navi ?? ''")
    return found


def tall(chat: Chat) -> Locator:
    """The log of a session with ten thousand messages, at its end."""
    chat.find("message", "[data-message-id=past_9999]").wait_for()
    return chat.find("log")


@pytest.mark.parametrize(("size", "run"), [(NARROW, "past_r100"), (WIDE, "past_r10")])  # in sight, and not loaded yet
def test_show_in_the_history_of_a_recall_leads_to_the_run_and_leaves_the_view_whole(
    open_chat: Any, control: Control, size: dict[str, int], run: str
) -> None:
    session = f"show-{size['width']}"
    control(f"fill?session={session}&count=300")
    chat = open_chat(session)
    page = chat.page
    page.set_viewport_size(size)
    page.route(
        "**/firings*",
        lambda route: route.fulfill(json={"firings": [{**FIRING, "recall_id": session, "run_id": run}], "next": None}),
    )
    control(f"recall?session={session}&in=90000&title=daily&cron=0%209%20*%20*%201-5&id={session}")
    chat.find("recalls-toggle").click()
    chat.find("recall-history").click()
    chat.find("firing").wait_for()
    chat.find("firing").get_by_role("button").click()
    message = chat.find("message", f"[data-run-id={run}]").first
    expect(message).to_be_focused()
    expect(chat.find("recalls")).to_be_hidden()
    assert scrolled(chat) == []
    assert fits(page, chat.find("input"))
    box, log = message.bounding_box(), chat.find("log").bounding_box()
    assert box is not None
    assert log is not None
    assert log["y"] <= box["y"] < log["y"] + log["height"]


def test_panels_lie_over_the_conversation_and_never_push_the_composer_away(open_chat: Any, control: Control) -> None:
    control("recall?session=panels&in=90000&title=daily&id=panels")
    chat = open_chat("panels")
    page = chat.page
    page.set_viewport_size(NARROW)
    expect(chat.find("recalls")).to_be_hidden()  # there is a recall, and it does not open by itself
    composer = chat.find("input").bounding_box()
    OUT.mkdir(exist_ok=True)
    for name in ("settings", "recalls"):
        chat.find(f"{name}-toggle").focus()
        page.keyboard.press("Enter")
        expect(chat.find(name)).to_be_visible()
        assert chat.find("input").bounding_box() == composer
        page.screenshot(path=str(OUT / f"overlay-{name}-420.png"))
        inside = f"chat => chat.querySelector('[data-navi={name}]').contains(document.activeElement)"
        assert chat.views[0].evaluate(inside)
        page.keyboard.press("Escape")
        expect(chat.find(name)).to_be_hidden()
        expect(chat.find(f"{name}-toggle")).to_be_focused()
    chat.find("settings-toggle").click()
    chat.find("recalls-toggle").click()
    expect(chat.find("settings")).to_be_hidden()
    assert chat.violations() == []
    chat.find("overlay-close").click()
    expect(chat.find("recalls")).to_be_hidden()


def test_earlier_messages_come_as_the_user_scrolls_and_what_is_read_stays_where_it_is(
    open_chat: Any, control: Control
) -> None:
    control("fill?session=tall&count=10000")
    chat = open_chat("tall")
    page, log = chat.page, tall(chat)
    assert chat.views[0].evaluate("chat => chat.state.items.length") == 150
    log.hover()
    seen: set[str] = set()
    for _ in range(12):
        page.mouse.wheel(0, -4000)
        page.wait_for_timeout(150)
        seen |= set(chat.find("message").evaluate_all("found => found.map(each => each.dataset.messageId)"))
        assert chat.find("message").count() <= 301
    assert len(seen) > 400
    # Now a page is put before what is read: not one pixel of it moves.
    before = """log => { const top = log.getBoundingClientRect().top;
        const first = [...log.children].find(each => each.getBoundingClientRect().bottom > top);
        window.read = first; return first.getBoundingClientRect().top; }"""
    log.evaluate("log => { log.scrollTop = 700; }")
    page.wait_for_timeout(300)
    log.evaluate("log => { log.scrollTop = 500; }")
    top = log.evaluate(before)
    count = chat.views[0].evaluate("chat => chat.state.items.length")
    page.wait_for_timeout(600)
    assert log.evaluate("() => window.read.isConnected")
    assert log.evaluate("() => window.read.getBoundingClientRect().top") == top
    assert chat.views[0].evaluate("chat => chat.state.items.length") >= count
    chat.find("jump").click()
    chat.find("message", "[data-message-id=past_9999]").wait_for()
    assert log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") < 4


def test_the_beginning_of_a_long_conversation_is_reached_by_keyboard_alone(open_chat: Any, control: Control) -> None:
    control("fill?session=keys&count=1000")
    chat = open_chat("keys")
    page = chat.page
    chat.find("message", "[data-message-id=past_999]").focus()
    for _ in range(60):
        page.keyboard.press("Home")
        page.wait_for_timeout(60)
        if chat.find("message", "[data-message-id=past_0]").count():
            break
    page.keyboard.press("Home")
    expect(chat.find("message", "[data-message-id=past_0]")).to_be_focused()
    expect(chat.find("earlier")).to_have_count(0)
    page.keyboard.press("ArrowDown")
    expect(chat.find("message", "[data-message-id=past_1]")).to_be_focused()


def test_the_keyboard_passes_a_long_conversation_in_a_few_stops(open_chat: Any, control: Control) -> None:
    control("fill?session=stops&count=1000")
    chat = open_chat("stops")
    page = chat.page
    chat.say("hello")
    chat.settled()
    page.evaluate("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    page.locator("h1").click()
    stops: list[str] = []
    while "input" not in stops and len(stops) < 40:
        page.keyboard.press("Tab")
        stops.append(focused(page))
    assert stops[0] == "skip"
    # the log is one stop; what can be pressed in its last message follows: two pieces of code, a table, six buttons
    assert len(stops) <= 18, " ".join(stops)
    chat.find("skip").focus()
    page.keyboard.press("Enter")
    expect(chat.find("input")).to_be_focused()


def test_what_can_be_pressed_in_a_message_is_reached_from_it_and_escape_leads_back(open_chat: Any) -> None:
    chat = open_chat("inside")
    page = chat.page
    chat.say("hello")
    chat.settled()
    chat.say("wait 0")
    chat.settled()
    answer = chat.find("message", "[data-role=assistant]").first
    chat.find("message").last.focus()
    for _ in range(6):
        page.keyboard.press("ArrowUp")
        if answer.evaluate("answer => document.activeElement === answer"):
            break
    expect(answer).to_be_focused()
    assert answer.get_attribute("aria-label")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.activeElement.parentElement.closest('[data-navi=message][data-role=assistant]')"
    )
    page.keyboard.press("Escape")
    expect(answer).to_be_focused()
    page.keyboard.press("Escape")
    expect(chat.find("input")).to_be_focused()


def test_the_focus_stays_with_a_question_that_is_answered(open_chat: Any) -> None:
    chat = open_chat("focus")
    chat.say("question")
    chat.find("ask", "[data-status=open]").wait_for()
    page = chat.page
    page.wait_for_timeout(700)
    button = chat.find("ask", "[data-status=open]").first.locator(
        "[data-navi=ask-approve], [data-navi=ask-answer], [data-navi=ask-decline]"
    )
    for _ in range(3):
        if not chat.find("ask", "[data-status=open]").count():
            break
        button.last.focus()
        page.keyboard.press("Enter")
        page.wait_for_timeout(900)
        assert page.evaluate("document.activeElement !== document.body"), "the focus was lost"
        assert focused(page) in ("ask", "message")


def test_twenty_chats_of_four_sessions_have_four_sockets(open_chat: Any, control: Control) -> None:
    sessions = [f"many-{index % 4}" for index in range(20)]
    for session in sessions[:4]:
        control(f"fill?session={session}&count=10")
    count_sockets = """window.sockets ??= 0;
        const Real = WebSocket;
        window.WebSocket = class extends Real { constructor(...given) { super(...given); window.sockets += 1; } };"""
    chat = open_chat("blank")
    page = chat.page
    page.add_init_script(count_sockets)
    many = Chat(page, page.url.split("?")[0], *sessions)
    assert page.evaluate("window.sockets") == 4
    many.say("wait 0", view=0)
    for view in (0, 4, 8, 12, 16):
        expect(many.find("message", "[data-role=user]", view).last).to_contain_text("wait 0")
    assert many.find("message", "[data-role=user]:has-text('wait 0')", 1).count() == 0
    page.evaluate("document.querySelectorAll('navi-chat')[0].remove()")
    page.wait_for_timeout(2_500)
    page.evaluate("document.querySelectorAll('navi-chat')[3].stop()")  # another view of it is still connected
    assert page.evaluate("document.querySelectorAll('navi-chat')[3].status.state") == "open"
    assert page.evaluate("window.sockets") == 4


def test_the_first_load_is_small_and_the_rest_comes_when_it_is_needed(open_chat: Any) -> None:
    static = OUT.parents[2] / "navi_jupyter" / "static"
    first = json.loads((static / "bundle.json").read_text())["first"]
    for form in ("gz", "br"):
        assert sum((static / f"{name}.{form}").stat().st_size for name in first) <= 80_000
    assert all(gzip.decompress((static / f"{n}.gz").read_bytes()) == (static / n).read_bytes() for n in first)
    chat = open_chat("parts")
    loaded: list[str] = []
    chat.page.on("request", lambda request: loaded.append(request.url.rpartition("/")[2]))
    chat.page.reload()
    chat.find("model-setup").wait_for()  # of an empty chat without a model: with it, too, it is small
    scripts = {name.split("?")[0] for name in loaded if name.split("?")[0].endswith(".js")}
    assert scripts >= set(first)
    assert sum((static / f"{name}.br").stat().st_size for name in scripts) <= 80_000
    loaded.clear()
    chat.say("hello")
    chat.settled()
    expect(chat.views[0].locator("code [class^=hljs-]").first).to_be_visible()
    assert any(name.startswith("chunk-") for name in loaded)
