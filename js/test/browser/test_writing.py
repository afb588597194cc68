"""Writing in the component, as a person does: suggestions, commands, earlier prompts, actions on messages."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import expect
from views import OUT, Chat

pytestmark = pytest.mark.browser


def sent(chat: Chat) -> dict[str, Any]:
    """The last prompt that the page has sent."""
    return dict(chat.page.evaluate("() => window.sent.at(-1)"))


@pytest.fixture
def chat(open_chat: Any, request: pytest.FixtureRequest) -> Chat:
    made: Chat = open_chat(re.sub(r"\W", "-", request.node.name))
    made.page.evaluate(
        """() => {
            window.sent = [];
            const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (text) {
                const frame = JSON.parse(text);
                if (frame.type === "prompt") window.sent.push(frame);
                return send.call(this, text);
            };
        }"""
    )
    return made


def options(chat: Chat) -> list[str]:
    return chat.find("suggestion").locator(".navi-suggestion-label").all_inner_texts()


def has_value(chat: Chat, text: str) -> None:
    expect(chat.find("input")).to_have_value(text)


def test_an_at_sign_completes_by_keyboard_and_the_mention_goes_along(chat: Chat) -> None:
    box = chat.find("input")
    box.press_sequentially("compare @")
    expect(chat.find("suggestion").first).to_be_visible()
    assert options(chat)[:4] == ["In [3]", "The last error", "df", "data/sales.csv"]
    active = chat.views[0].locator("[data-navi=suggestion][aria-selected=true]")
    assert box.get_attribute("aria-activedescendant") == active.get_attribute("id")
    box.press("ArrowDown")
    box.press("ArrowDown")
    expect(active.locator(".navi-suggestion-label")).to_have_text("df")
    box.press("ArrowUp")
    box.press("ArrowUp")
    box.press("ArrowUp")
    expect(active.locator(".navi-suggestion-label")).to_have_text("var_19")
    box.press_sequentially("sal")
    expect(chat.find("suggestion")).to_have_count(2)
    box.press("Tab")
    expect(box).to_be_focused()
    has_value(chat, "compare @data/sales.csv ")
    expect(chat.find("suggestions")).to_be_hidden()
    assert box.get_attribute("aria-activedescendant") is None
    box.press_sequentially("and @cell")
    expect(chat.find("suggestion")).to_have_count(1)
    box.press("Enter")
    has_value(chat, "compare @data/sales.csv and @cell:In[3] ")
    box.press("Enter")
    chat.settled()
    assert sent(chat)["mentions"] == ["@data/sales.csv", "@cell:In[3]"]


def test_escape_closes_the_list_and_stops_no_run(chat: Chat) -> None:
    chat.say("slow 40")
    chat.find("stop").wait_for()
    box = chat.find("input")
    box.press_sequentially("@d")
    expect(chat.find("suggestion").first).to_be_visible()
    box.press("Escape")
    expect(chat.find("suggestions")).to_be_hidden()
    box.press_sequentially("f")
    chat.page.wait_for_timeout(400)
    expect(chat.find("suggestions")).to_be_hidden()
    assert "Stopping" not in chat.find("stop").inner_text()
    box.press_sequentially(" @")
    expect(chat.find("suggestion").first).to_be_visible()


def test_a_click_takes_a_suggestion_and_the_focus_stays_in_the_text(chat: Chat) -> None:
    chat.find("input").press_sequentially("look at @loss")
    chat.find("suggestion").filter(has_text="Why is the loss flat?").click()
    has_value(chat, 'look at @session:"Why is the loss flat?" ')
    expect(chat.find("input")).to_be_focused()


def test_an_address_or_code_is_no_mention(chat: Chat) -> None:
    chat.say("write to me@example.com about `@df`")
    chat.settled()
    assert "mentions" not in sent(chat)


def test_a_slash_lists_commands_and_the_users_prompts_with_their_mistakes(chat: Chat) -> None:
    box = chat.find("input")
    box.press("/")
    expect(chat.find("suggestion").first).to_be_visible()
    shown = options(chat)
    assert {"/fix", "/explain", "/document", "/test", "/weekly", "/new"} <= set(shown)
    assert "/broken" not in shown
    expect(chat.find("suggestions")).to_contain_text("broken.md:2: 'modell' is no setting")
    box.press_sequentially("wee")
    expect(chat.find("suggestion")).to_have_count(1)
    box.press("Enter")
    has_value(chat, "/weekly ")
    box.press_sequentially("short")
    box.press("Enter")
    chat.settled()
    assert sent(chat)["text"] == "/weekly short"


def test_model_and_profile_are_chosen_by_a_command(chat: Chat) -> None:
    box = chat.find("input")
    box.press_sequentially("/model ")
    expect(chat.find("suggestion")).to_have_count(3)
    assert "openai-chat:gpt-5" not in options(chat), "one that cannot be used cannot be chosen"
    box.press_sequentially("claude")
    expect(chat.find("suggestion")).to_have_count(1)
    box.press("Enter")
    has_value(chat, "/model anthropic:claude-sonnet-5 ")
    box.press("Enter")
    expect(chat.find("notice")).to_contain_text("The model of this conversation is now anthropic:claude-sonnet-5")
    expect(chat.find("settings-toggle")).to_contain_text("claude-sonnet-5")
    has_value(chat, "")


def test_recall_shows_what_will_be_made_and_keeps_a_line_that_has_no_time(chat: Chat) -> None:
    box = chat.find("input")
    box.fill("/recall in 10m check the loss")
    box.press("Enter")
    expect(chat.find("recall-message")).to_have_value("check the loss")
    expect(chat.find("recall-when")).to_have_value("in 10m")
    expect(chat.find("recall-when")).to_be_focused()
    expect(chat.find("recall-parsed")).to_have_text("in 10m")
    assert chat.find("recall").count() == 0, "nothing is made before it was seen"
    chat.find("recall-when").press("Enter")
    expect(chat.find("recall-form")).to_have_count(0)
    expect(chat.find("recalls")).to_contain_text("check the loss")
    chat.page.keyboard.press("Escape")
    expect(box).to_be_focused()
    expect(chat.find("message", "[data-role=user]")).to_have_count(0)
    box.fill("/recall someday")
    box.press("Enter")
    expect(chat.find("notice")).to_contain_text("has no time in it")
    has_value(chat, "/recall someday")
    box.fill("/recall")
    box.press("Enter")
    expect(chat.find("notice")).to_contain_text("/recall in 10m")


def test_new_shows_another_conversation_and_export_saves_this_one(chat: Chat) -> None:
    chat.say("hello there")
    chat.settled()
    box = chat.find("input")
    box.fill("/export md")
    with chat.page.expect_download() as download:
        box.press("Enter")
    assert download.value.suggested_filename == "Training-run.md"
    box.fill("/export pdf")
    box.press("Enter")
    expect(chat.find("notice")).to_contain_text("/export md")
    box.fill("/new")
    box.press("Enter")
    expect(chat.views[0]).to_have_attribute("session", re.compile("s_new"))
    expect(chat.find("message")).to_have_count(0)


def test_the_up_key_calls_up_earlier_prompts_and_down_leads_back(chat: Chat) -> None:
    box = chat.find("input")
    for text in ("first", "second\nwith two lines"):
        box.fill(text)
        box.press("Enter")
        chat.settled()
    box.press("ArrowUp")
    has_value(chat, "second\nwith two lines")
    box.press("ArrowUp")
    has_value(chat, "first")
    box.press("ArrowDown")
    has_value(chat, "second\nwith two lines")
    box.press("ArrowDown")
    has_value(chat, "")
    box.press_sequentially("my draft")
    box.press("ArrowUp")
    has_value(chat, "my draft")


def test_the_last_message_is_changed_in_place_of_the_old_one_and_escape_gives_the_draft_back(chat: Chat) -> None:
    chat.say("what is the loss?")
    chat.settled()
    chat.find("input").fill("a draft")
    mine = chat.find("message", "[data-role=user]").first
    mine.hover()
    mine.locator("[data-navi=edit-message]").click()
    has_value(chat, "what is the loss?")
    expect(chat.find("edit-bar")).to_be_visible()
    chat.find("input").press("Escape")
    has_value(chat, "a draft")
    expect(chat.find("edit-bar")).to_have_count(0)
    mine.hover()
    mine.locator("[data-navi=edit-message]").click()
    chat.find("input").fill("what is the accuracy?")
    chat.find("input").press("Enter")
    chat.settled()
    frame = sent(chat)
    assert frame["text"] == "what is the accuracy?"
    assert frame["replaces"]
    expect(chat.views[0].locator(".navi-forgotten").first).to_be_visible()
    # The first one is not the last one any more: it is sent anew.
    mine.hover()
    mine.locator("[data-navi=edit-message]").click()
    chat.find("input").press("Enter")
    chat.settled()
    assert "replaces" not in sent(chat)


def test_an_answer_is_copied_whole_and_made_again(chat: Chat) -> None:
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.say("slow 2")
    chat.settled()
    answer = chat.find("message", "[data-role=assistant]").last
    answer.hover()
    answer.locator("[data-navi=copy-answer]").click()
    answer_text = ("one two three four five six seven eight nine ten " * 2).strip()
    chat.page.wait_for_function("async text => (await navigator.clipboard.readText()) === text", arg=answer_text)
    formatted = """async () => {
        const [item] = await navigator.clipboard.read();
        return (await item.getType("text/html")).text();
    }"""
    page = chat.page.evaluate(formatted)
    assert "<p" in page
    assert "button" not in page
    answer.locator("[data-navi=regenerate]").click()
    chat.find("stop").wait_for()
    chat.settled()
    frame = sent(chat)
    assert (frame["text"], frame["again"]) == ("slow 2", True)
    assert frame["replaces"]


def test_a_failed_run_is_tried_again_with_one_click(chat: Chat) -> None:
    chat.say("error")
    chat.settled()
    chat.find("error").locator("[data-navi=retry]").click()
    chat.page.wait_for_function("() => window.sent.length === 2")
    assert sent(chat)["again"] is True


def test_files_are_dropped_and_pictures_pasted(chat: Chat) -> None:
    chat.page.evaluate(
        """() => {
            const box = document.querySelector("[data-navi=input]");
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array([137, 80, 78, 71])], "", {type: "image/png"}));
            box.dispatchEvent(new ClipboardEvent("paste", {clipboardData: files, bubbles: true, cancelable: true}));
            const dropped = new DataTransfer();
            dropped.items.add(new File(["a,b"], "sales.csv", {type: "text/csv"}));
            box.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped, bubbles: true, cancelable: true}));
        }"""
    )
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(2)
    chat.say("look")
    chat.settled()
    frame = sent(chat)
    assert (len(frame["images"]), len(frame["files"])) == (1, 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_suggestions_and_the_edit_bar_are_accessible_at_any_width(open_chat: Any, scheme: str, width: int) -> None:
    chat: Chat = open_chat(f"look-{scheme}-{width}", color_scheme=scheme)
    chat.page.set_viewport_size({"width": width, "height": 700})
    chat.say("slow 2")
    chat.settled()
    mine = chat.find("message", "[data-role=user]").first
    mine.hover()
    mine.locator("[data-navi=edit-message]").click()
    chat.find("input").press("End")
    chat.find("input").press_sequentially(" and @")
    expect(chat.find("suggestion").first).to_be_visible()
    OUT.mkdir(exist_ok=True)
    chat.page.screenshot(path=str(OUT / f"writing-{scheme}-{width}.png"))
    assert chat.violations() == []
    box, view = chat.find("suggestions").bounding_box(), chat.views[0].bounding_box()
    assert box
    assert view
    assert box["x"] >= view["x"]
    assert box["x"] + box["width"] <= view["x"] + view["width"]
    chat.find("input").fill("")
    chat.find("input").press("/")
    expect(chat.find("suggestion").first).to_be_visible()
    chat.page.screenshot(path=str(OUT / f"commands-{scheme}-{width}.png"))
    assert chat.violations() == []


def test_files_of_the_servers_own_browser_are_attached_by_their_paths(chat: Chat) -> None:
    chat.page.evaluate(
        """() => {
            const box = document.querySelector("[data-navi=input]");
            const kind = "application/x-jupyter-icontents";
            const drag = (type, paths, kinds = [kind]) => {
                const event = new CustomEvent(type, {bubbles: true, cancelable: true});
                Object.assign(event, {proposedAction: "move", dropAction: "none"});
                event.mimeData = {hasData: one => kinds.includes(one), getData: () => paths};
                return [box.dispatchEvent(event), event.dropAction];
            };
            window.other = drag("lm-drop", ["a"], ["application/vnd.jupyter.cells"]);
            window.over = drag("lm-dragenter", ["RTC:data/sales.csv"]);
            window.marked = document.querySelector("navi-chat").classList.contains("navi-dropping");
            drag("lm-drop", ["RTC:data/sales.csv", "plots/loss.png"]);
        }"""
    )
    assert chat.page.evaluate("[window.other, window.over, window.marked]") == [[True, "none"], [False, "move"], True]
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(2)
    assert chat.find("attachment").first.get_attribute("title") == "data/sales.csv"
    assert "uploading" not in chat.find("tray").inner_text()
    expect(chat.find("input")).to_be_focused()
    chat.say("look")
    frame = chat.page.wait_for_function("() => window.sent.at(-1)").json_value()
    assert frame["files"] == [{"path": "data/sales.csv"}]
    assert frame["images"] == [{"path": "plots/loss.png"}]


def test_a_draft_survives_a_reload_and_an_input_method_keeps_its_enter(chat: Chat) -> None:
    box = chat.find("input")
    box.fill("half a thought")
    chat.page.reload()
    expect(box).to_have_value("half a thought")
    client = chat.page.context.new_cdp_session(chat.page)
    box.focus()
    client.send("Input.imeSetComposition", {"text": "ni", "selectionStart": 2, "selectionEnd": 2})
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    client.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **enter})
    client.send("Input.insertText", {"text": "你"})
    chat.page.wait_for_timeout(200)
    expect(chat.find("message", "[data-role=user]")).to_have_count(0)
    expect(chat.find("input")).to_have_value(re.compile("你"))


def test_a_text_of_five_megabytes_that_is_pasted_becomes_a_file(chat: Chat) -> None:
    took = chat.page.evaluate(
        """async () => {
            const box = document.querySelector("[data-navi=input]");
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", "0123456789 abcdef\\n".repeat(280_000));
            const begun = performance.now();
            box.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true}));
            await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
            return performance.now() - begun;
        }"""
    )
    assert took < 5_000
    expect(chat.find("attachment", "[data-status=ready]")).to_contain_text("pasted.txt")
    has_value(chat, "")
    chat.say("what is this?")
    chat.settled()
    assert len(sent(chat)["files"]) == 1
