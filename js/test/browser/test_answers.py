"""How answers read: what they are made of, calls of tools in words, one line per error, approvals said once."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, expect
from views import Chat

OpenChat = Callable[..., Chat]


def box(found: Locator) -> dict[str, float]:
    where = found.bounding_box()
    assert where is not None
    return dict(where)


def test_an_answer_is_read_in_a_narrow_view_by_keyboard_too(open_chat: OpenChat) -> None:
    chat = open_chat("features", viewport=None)
    chat.page.set_viewport_size({"width": 420, "height": 900})
    chat.say("features")
    chat.settled()
    answer = chat.find("message", "[data-role=assistant]").last
    expect(answer.locator("[role=img][aria-label=done]")).to_have_count(1)
    expect(answer.locator("[role=img][aria-label='to do']")).to_have_count(2)
    loss = answer.locator("table").first.locator("td").nth(1)
    assert loss.evaluate("cell => getComputedStyle(cell).textAlign") == "end"
    wide = answer.locator(".navi-table").nth(1)
    assert wide.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    assert answer.evaluate("message => message.scrollWidth <= message.clientWidth"), "nothing but the table is wider"
    wide.focus()
    chat.page.keyboard.press("ArrowRight")
    expect(wide).not_to_have_js_property("scrollLeft", 0)
    reference = chat.find("note-reference").last
    reference.focus()
    chat.page.keyboard.press("Enter")
    expect(chat.find("note", "[data-note='2']")).to_be_focused()
    chat.find("note-back").last.press("Enter")
    expect(reference).to_be_focused()
    expect(answer).not_to_contain_text("[^")
    arabic = answer.get_by_text("مرحبا").locator("xpath=ancestor::div[@dir='auto'][1]")
    assert arabic.evaluate("block => getComputedStyle(block).direction") == "rtl"
    assert chat.violations() == []


def test_calls_of_tools_are_words(open_chat: OpenChat) -> None:
    chat = open_chat("calls")
    chat.say("calls")
    chat.settled()
    assert chat.find("tool-line").all_inner_texts() == [
        "Read cell 3",
        "Scheduled “check the loss”",
        "Was not allowed to write notes.md",
        "Used search_issues of github",
        "Could not read none.csv",
    ]
    expect(chat.tool("read_file").locator(".navi-gist")).to_have_text("There is no file data/none.csv.")


def test_an_approval_is_said_once_and_stays_with_who_gave_it(open_chat: OpenChat) -> None:
    chat = open_chat("approve")
    chat.say("many")
    chat.find("ask", "[data-status=open]").last.wait_for()
    for tool in ("write_file", "mcp__search"):
        expect(chat.tool(tool)).to_be_hidden()
    for count in (1, 0):
        chat.find("ask-approve").first.click()
        expect(chat.find("ask-approve")).to_have_count(count)
    chat.settled()
    expect(chat.find("tool")).to_have_count(2)
    given = chat.find("ask", "[data-approved=true]")
    expect(given.first).to_contain_text("Allowed by ada, ")
    chat.page.reload()
    expect(given).to_have_count(2)
    expect(given.first).to_contain_text("Allowed by ada, ")


def test_an_error_is_one_line_with_what_helps(open_chat: OpenChat) -> None:
    chat = open_chat("errors")
    chat.say("fail provider_auth")
    chat.settled()
    error = chat.find("error")
    expect(error.locator(".navi-end-line")).to_contain_text("The provider refused the key")
    expect(error.locator("button")).to_have_text(["Retry", "Check the key", "Switch model"])
    expect(error.get_by_text("50,312")).to_be_hidden()
    error.locator("summary").click()
    expect(error.get_by_text("50,312")).to_be_visible()
    chat.find("check-key").click()
    expect(chat.find("settings")).to_be_visible()


def test_a_plot_is_whole(open_chat: OpenChat) -> None:
    chat = open_chat("plots")
    chat.say("output 40 0")
    chat.settled()
    body = chat.find("outputs").locator(".navi-outputs-body")
    assert body.evaluate("body => body.scrollHeight <= body.clientHeight + 1"), "the frame of a figure is not scrolled"
    log = body.locator("pre").first
    assert log.evaluate("text => text.scrollHeight > text.clientHeight"), "a long text beside it is"


def test_what_can_be_done_with_a_message_takes_no_place(open_chat: OpenChat) -> None:
    chat = open_chat("actions")
    for text in ("usage", "usage"):
        chat.say(text)
        chat.settled()
    messages = chat.find("message")
    first = messages.nth(1)  # an answer that others follow
    actions = first.locator("[data-navi=message-actions]")
    gap = box(messages.nth(2))["y"] - box(first)["y"] - box(first)["height"]
    assert gap < 16, "there is no strip below it"
    before = box(messages.nth(3))
    first.hover()
    expect(actions).to_have_css("opacity", "1")
    assert box(messages.nth(3)) == before, "nothing moves for them"
    first.locator("[data-navi=copy-answer]").click(trial=True)
