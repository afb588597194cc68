"""The list of sessions in a real browser, by mouse and by keyboard alone; the server's answers are the playground's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from views import AXE, OUT, Control

pytestmark = pytest.mark.browser


class List:
    """A page with the list alone."""

    def __init__(self, page: Page, address: str, *, width: int = 420) -> None:
        self.page = page
        page.goto(f"{address}?sessions=beside-the-list")
        page.evaluate(
            """async width => {
              await (await import("/static/navi/navi-chat.js")).loadSessionList();
              const list = document.createElement("navi-sessions");
              list.session = "s_00001";
              const box = document.createElement("div");
              box.style = `position: fixed; inset: 0 auto 0 0; width: ${width}px; z-index: 9`;
              box.append(list);
              document.body.append(box);
              window.opened = [];
              const note = (name, act) =>
                document.addEventListener(name, event => window.opened.push(act(event.detail)));
              note("navi-session-open", detail => detail);
              note("navi-session-gone", ({ session }) => ({ gone: session }));
            }""",
            width,
        )
        self.root = page.locator("navi-sessions")
        self.find("session-row").first.wait_for()

    def find(self, name: str, more: str = "") -> Locator:
        return self.root.locator(f"[data-navi={name}]{more}")

    def row(self, number: int) -> Locator:
        return self.root.locator(f"[data-session-id=s_{number:05}]")

    def opened(self) -> Any:
        return self.page.evaluate("window.opened")

    def focused(self, session: str) -> None:
        """Wait until the entry of this session has the focus."""
        self.page.wait_for_function(
            "session => document.activeElement.closest('[data-session-id]')?.dataset.sessionId === session", arg=session
        )


@pytest.fixture
def open_list(browser: Browser, address: str, control: Control) -> Iterator[Callable[..., List]]:
    contexts = []

    def open_(count: int = 12, width: int = 420, height: int = 800, **options: Any) -> List:
        control(f"seed?count={count}")
        contexts.append(browser.new_context(viewport={"width": max(width, 420), "height": height}, **options))
        return List(contexts[-1].new_page(), address, width=width)

    yield open_
    for context in contexts:
        context.close()


def test_sessions_are_shown_by_day_with_what_they_do_and_what_is_unread(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    assert sessions.find("sessions-day").all_inner_texts()[:2] == ["Today", "Yesterday"]
    first = sessions.row(0)
    expect(first).to_have_attribute("data-unread", "2")
    expect(first).to_contain_text("loss curves of the new model.ipynb")
    expect(sessions.row(1)).to_have_attribute("data-activity", "running")
    expect(sessions.row(1).locator("[aria-current=true]")).to_have_count(1)
    expect(sessions.row(2)).to_have_attribute("data-activity", "waiting")
    expect(sessions.row(3)).to_contain_text("shared by grace")
    sessions.row(0).locator("[data-navi=session-open]").click()
    assert sessions.opened() == [{"session": "s_00000", "message": None, "run": None, "words": []}]


def test_a_search_shows_where_it_was_found_as_text_and_leads_there(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    sessions.find("sessions-search").fill("curves")
    snippet = sessions.find("session-snippet").first
    expect(snippet.locator("mark")).to_have_text("curves")
    expect(snippet).to_contain_text("<b>this</b>")
    sessions.page.keyboard.press("ArrowDown")
    sessions.page.keyboard.press("Enter")
    (opened,) = sessions.opened()
    assert opened == {"session": "s_00000", "message": "m_s_00000", "run": "r", "words": ["curves"]}
    sessions.find("sessions-search").fill("no such words at all")
    expect(sessions.find("sessions-none")).to_be_visible()
    sessions.find("sessions-search").fill("")
    expect(sessions.find("session-row")).to_have_count(12)


def test_everything_goes_by_keyboard_alone(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    keys = sessions.page.keyboard
    sessions.find("sessions-search").focus()
    keys.press("ArrowDown")
    sessions.focused("s_00000")
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    keys.press("ArrowUp")
    sessions.focused("s_00001")
    keys.press("F2")
    expect(sessions.find("session-title-input")).to_be_focused()
    keys.type("A better title")
    keys.press("Enter")
    expect(sessions.row(1)).to_contain_text("A better title")
    expect(sessions.row(1).locator("[data-navi=session-open]")).to_be_focused()
    keys.press("F2")
    keys.press("Escape")
    expect(sessions.find("session-title-input")).to_have_count(0)
    sessions.focused("s_00001")
    keys.press("Delete")
    expect(sessions.row(1)).to_have_count(0)
    expect(sessions.find("sessions-undo")).to_contain_text("A better title")
    sessions.focused("s_00002")  # the focus is on the next one, not lost
    assert sessions.opened() == [{"gone": "s_00001"}]
    sessions.find("session-undo").focus()
    keys.press("Enter")
    expect(sessions.row(1)).to_be_visible()
    expect(sessions.row(1).locator("[data-navi=session-open]")).to_be_focused()
    keys.press("Tab")
    expect(sessions.row(1).locator("[data-navi=session-actions]")).to_be_focused()
    keys.press("Enter")
    expect(sessions.find("session-rename")).to_be_focused()
    keys.press("Escape")
    keys.press("End")
    sessions.focused("s_00011")
    keys.press("Enter")
    assert sessions.opened()[-1] == {"session": "s_00011", "message": None, "run": None, "words": []}


def test_the_list_is_two_tab_stops_and_its_bar_whatever_its_length(open_list: Callable[..., List]) -> None:
    sessions = open_list(80)
    assert sessions.root.locator("button:not([tabindex='-1']), input, select").count() == 3 + 2


def test_archive_and_delete_can_be_undone_at_once_and_later(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    for name, shown, back in (("archive", "archived", "unarchive"), ("delete", "deleted", "restore")):
        row = sessions.row(4)
        row.locator("[data-navi=session-actions]").click()
        row.locator(f"[data-navi=session-{name}]").click()
        expect(sessions.row(4)).to_have_count(0)
        sessions.find("session-undo").click()
        expect(sessions.row(4)).to_be_visible()
        row.locator("[data-navi=session-actions]").click()
        row.locator(f"[data-navi=session-{name}]").click()
        expect(sessions.row(4)).to_have_count(0)
        sessions.find("sessions-show").select_option(shown)
        expect(sessions.find("session-row")).to_have_count(1)
        row.locator("[data-navi=session-actions]").click()
        row.locator(f"[data-navi=session-{back}]").click()
        expect(sessions.find("sessions-none")).to_be_visible()
        sessions.find("sessions-show").select_option("active")
        expect(sessions.row(4)).to_be_visible()


def test_sharing_says_with_whom_and_why_it_is_refused(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    sessions.row(0).locator("[data-navi=session-actions]").click()
    sessions.find("session-share").click()
    reader = sessions.find("session-reader")
    expect(reader).to_be_focused()
    reader.fill("grace")
    reader.press("Enter")
    expect(sessions.find("session-unshare")).to_have_count(1)
    reader.fill("nobody-allowed")
    reader.press("Enter")
    expect(sessions.find("sessions-problem")).to_contain_text("not allowed")
    sessions.find("session-unshare").click()
    expect(sessions.find("session-unshare")).to_have_count(0)


def test_a_session_is_saved_as_a_file_of_each_kind(open_list: Callable[..., List]) -> None:
    sessions = open_list()
    sessions.row(1).locator("[data-navi=session-actions]").click()
    for kind in ("md", "ipynb", "html", "json"):
        with sessions.page.expect_download() as download:
            sessions.find("session-export", f"[data-format={kind}]").click()
        assert download.value.suggested_filename == f"明天的会议记录-1.{kind}"


def test_what_changes_on_the_server_changes_in_the_list(open_list: Callable[..., List], control: Control) -> None:
    sessions = open_list()
    sessions.row(5).locator("[data-navi=session-open]").focus()
    fields = {"title": "Titled by its model", "unread": 1, "updated_at": "2099-01-01T00:00:00+00:00"}
    control(f"listed?id=s_00005&fields={quote(json.dumps(fields))}")
    expect(sessions.row(5)).to_contain_text("Titled by its model", timeout=8_000)
    assert sessions.find("session-row").first.get_attribute("data-session-id") == "s_00005"
    sessions.focused("s_00005"), "it has moved with the focus"


def test_a_thousand_sessions_are_read_page_by_page(open_list: Callable[..., List]) -> None:
    sessions = open_list(1000)
    expect(sessions.find("session-row")).to_have_count(100)
    for _ in range(30):
        if sessions.find("session-row").count() == 1000:
            break
        sessions.find("sessions-list").evaluate("list => list.scrollTo(0, list.scrollHeight)")
        sessions.page.wait_for_timeout(120)
    expect(sessions.find("session-row")).to_have_count(1000)
    assert len(set(sessions.find("session-row").evaluate_all("rows => rows.map(row => row.dataset.sessionId)"))) == 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [300, 1400])
def test_it_is_accessible_in_each_state(open_list: Callable[..., List], scheme: str, width: int) -> None:
    sessions = open_list(width=width, color_scheme=scheme)
    page = sessions.page
    page.add_script_tag(path=str(AXE))

    def check(name: str) -> None:
        OUT.mkdir(exist_ok=True)
        page.screenshot(path=OUT / f"sessions-{name}-{scheme}-{width}.png")
        found = page.evaluate("axe.run('navi-sessions', { rules: { region: { enabled: false } } })")
        problems = [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found["violations"]]
        assert problems == [], name
        assert sessions.root.evaluate("list => list.scrollWidth <= list.clientWidth"), f"{name}: it is cut off"

    check("list")
    sessions.row(0).locator("[data-navi=session-actions]").click()
    check("actions")
    sessions.find("session-share").click()
    sessions.find("session-reader").fill("grace")
    sessions.find("session-reader").press("Enter")
    sessions.find("session-unshare").wait_for()
    check("share")
    page.keyboard.press("Escape")
    sessions.row(1).locator("[data-navi=session-open]").focus()
    page.keyboard.press("Delete")
    sessions.find("session-undo").wait_for()
    check("undo")
    sessions.find("sessions-search").fill("loss")
    sessions.find("session-snippet").first.wait_for()
    check("search")


def test_in_a_chat_the_list_opens_over_the_conversation_and_leads_to_another_session(
    open_chat: Any, control: Control
) -> None:
    control("seed?count=12")
    chat = open_chat("in-a-chat")
    chat.say("hello")
    chat.settled()
    page = chat.page
    chat.find("sessions-toggle").click()
    row = page.locator("[data-session-id=s_00002] [data-navi=session-open]")
    row.wait_for()
    page.screenshot(path=OUT / "sessions-in-chat.png")
    row.click()
    expect(chat.views[0]).to_have_attribute("session", "s_00002")
    expect(chat.find("session-list")).to_have_count(0)


def test_a_session_goes_on_from_a_message_in_one_of_its_own(open_chat: Any, control: Control) -> None:
    control("seed?count=3")
    chat = open_chat("s_00001")
    chat.say("hello")
    chat.settled()
    chat.find("session-fork-here").last.click()
    expect(chat.views[0]).to_have_attribute("session", "s_00001f")


def test_a_reader_reads_that_the_session_is_somebody_elses(open_chat: Any, control: Control) -> None:
    control("seed?count=4")
    chat = open_chat("s_00003")
    expect(chat.find("session-read-only")).to_contain_text("grace")
    assert chat.find("session-fork-here").count() == 0


def test_a_reader_of_a_shared_session_is_offered_nothing_that_they_may_not_do(open_chat: Any, control: Control) -> None:
    chat = open_chat("shared-by-grace")
    for prompt in ("hello", "fail provider_auth"):
        chat.say(prompt)
        chat.settled()
    chat.say("question")
    chat.find("ask").last.wait_for()
    chat.say("wait for your turn")
    chat.find("queue-edit").wait_for()
    control("shared?session=shared-by-grace&by=grace")
    chat.page.reload()
    note = chat.find("session-read-only")
    expect(note).to_contain_text("grace")
    expect(chat.find("input")).to_be_disabled()
    expect(chat.find("input")).to_have_attribute("placeholder", "You can read this session, not write in it")
    expect(chat.find("ask-of-owner")).to_have_text("Only grace can answer this.")
    not_theirs = (
        "edit-message regenerate remind session-fork-here retry choose-model ask-approve ask-deny ask-answer ask-choice"
        " ask-decline stop mode queue-edit withdraw settings-toggle recalls-toggle asks-line"
    )
    for name in not_theirs.split():
        expect(chat.find(name)).to_have_count(0)
    assert chat.find("copy-answer").count() > 0
    expect(chat.find("queue")).to_contain_text("wait for your turn")
    chat.page.evaluate(
        """() => {
            const dropped = new DataTransfer();
            dropped.items.add(new File(["a,b"], "sales.csv", {type: "text/csv"}));
            const init = {dataTransfer: dropped, bubbles: true, cancelable: true};
            document.querySelector("[data-navi=input]").dispatchEvent(new DragEvent("drop", init));
        }"""
    )
    expect(chat.find("attachment")).to_have_count(0)
    OUT.mkdir(exist_ok=True)
    chat.page.screenshot(path=OUT / "shared-reader.png")
    assert chat.violations() == []


def marked(chat: Any) -> list[str]:
    """The words that are marked, in the one message that is marked."""
    script = """() => [...(CSS.highlights.get("navi-found") ?? [])].map(range =>
        [range.toString(), range.startContainer.parentElement.closest("[data-found]")?.dataset.messageId ?? ""])"""
    found = chat.page.evaluate(script)
    assert len({message for _, message in found}) <= 1
    return [f"{word} in {message}" for word, message in found]


def in_sight(chat: Any, message: str) -> bool:
    script = """id => {
        const box = document.querySelector(`[data-message-id="${id}"]`)?.getBoundingClientRect();
        const view = document.querySelector("[data-navi=log]").getBoundingClientRect();
        return box !== undefined && box.top >= view.top - 2 && box.top < view.bottom;
    }"""
    return bool(chat.page.evaluate(script, message))


@pytest.mark.parametrize("width", [420, 1400])
def test_control_f_searches_the_whole_session_and_leads_from_place_to_place(
    open_chat: Any, control: Control, width: int
) -> None:
    session = f"find-{width}"
    control(f"fill?session={session}&count=4000")
    chat = open_chat(session, color_scheme="dark" if width == 420 else "light")
    page = chat.page
    page.set_viewport_size({"width": width, "height": 800})
    chat.find("input").fill("a draft")
    chat.find("input").press("Control+f")
    box = chat.find("find-input")
    expect(box).to_be_focused()
    page.keyboard.type("question 3998")
    place = chat.find("find-place")
    expect(place).to_have_text("1 of 1")
    expect(box).to_be_focused()
    assert marked(chat) == ["Question 3998 in past_3998"]
    box.fill("question 12")
    expect(place).to_have_text("1 of 56")
    expect(chat.find("message", "[data-message-id=past_1298]")).to_have_attribute("data-found", "", timeout=20_000)
    assert in_sight(chat, "past_1298")
    expect(box).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Enter")
    expect(place).to_have_text("3 of 56")
    expect(chat.find("message", "[data-message-id=past_1294]")).to_have_attribute("data-found", "")
    page.keyboard.press("Shift+Enter")
    expect(place).to_have_text("2 of 56")
    expect(chat.find("message", "[data-message-id=past_1296]")).to_have_attribute("data-found", "")
    assert marked(chat) == ["Question 12 in past_1296"]
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=OUT / f"find-{width}.png")
    assert chat.violations() == []
    box.fill("answer")
    expect(place).to_have_text("1 of more than 100")
    box.fill("nothing of the kind")
    expect(place).to_have_text("No message has all of these words")
    assert marked(chat) == []
    page.keyboard.press("Escape")
    expect(chat.find("find")).to_have_count(0)
    expect(chat.find("input")).to_be_focused()
    assert chat.find("input").input_value() == "a draft"


def test_what_was_found_in_another_session_is_shown_there(open_list: Callable[..., List], control: Control) -> None:
    sessions = open_list()
    control("fill?session=elsewhere&count=1000")
    page = sessions.page
    page.locator("navi-chat [data-navi=status][data-state=open]").wait_for(state="attached")
    page.evaluate(
        """() => document.querySelector("navi-chat").dispatchEvent(new CustomEvent("navi-show-run", {
            detail: {session: "elsewhere", runId: "past_r10", messageId: "past_21", words: ["Answer 21"]} }))"""
    )
    page.evaluate("() => { document.querySelector('navi-chat').session = 'elsewhere'; }")
    found = page.locator("navi-chat [data-message-id=past_21]")
    expect(found).to_have_attribute("data-found", "", timeout=20_000)
    expect(found).to_be_focused()
    assert page.evaluate("[...CSS.highlights.get('navi-found')].map(String)") == ["Answer 21"]
