"""What an agent with tools needs of the component: approvals, the queue, outputs, workers, attachments, settings.

In a real browser, against the scripted server of the playground. Screenshots go to ``js/playground/out``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect
from views import Chat, Control

pytestmark = pytest.mark.browser

Open = Callable[..., Chat]

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfz0AEYBxVSF+FABJADveWkH6oAAAAAElFTkSuQmCC"
)


# --- questions -------------------------------------------------------------------------------------------------------


def test_an_approval_shows_the_code_and_runs_it_when_approved(open_chat: Open) -> None:
    chat = open_chat("approve")
    chat.say("code")
    card = chat.find("ask", "[data-kind=approval]")
    expect(card).to_contain_text("Navi wants to run this code")
    expect(card.locator("code .hljs-keyword").first).to_have_text("import")
    expect(card.locator(".navi-countdown")).to_contain_text("59:")
    expect(chat.find("asks-count")).to_have_text("1 question")
    expect(chat.find("working")).to_have_count(0)
    chat.find("ask-approve").click()
    chat.settled()
    expect(chat.find("ask", "[data-approved=true]")).to_contain_text("Allowed by ada, ")
    expect(chat.find("outputs")).to_contain_text("ran 4 lines")
    expect(chat.find("asks-line")).to_have_count(0)
    chat.ends_with("Done.")


def test_a_denial_tells_the_reason(open_chat: Open) -> None:
    chat = open_chat("deny")
    chat.say("code")
    chat.find("ask-reason").fill("use the cached file")
    chat.find("ask-reason").press("Enter")
    chat.settled()
    expect(chat.find("ask", "[data-approved=false]")).to_contain_text("use the cached file")
    chat.ends_with("Then I will not. use the cached file")
    expect(chat.tool("run_code")).to_have_attribute("data-status", "denied")


def test_edited_code_is_what_runs(open_chat: Open) -> None:
    chat = open_chat("edit")
    chat.say("code")
    chat.find("ask-edit").click()
    area = chat.find("ask-edit-fields").locator("textarea[data-field=code]")
    area.fill("one = 1")
    area.press("End")
    area.press("Enter")  # a new line, and no answer
    area.press_sequentially("two = 2")
    expect(chat.find("ask")).to_have_attribute("data-status", "open")
    chat.find("ask-approve").click()
    chat.settled()
    expect(chat.find("outputs")).to_contain_text("ran 2 lines")
    expect(chat.find("ask")).to_contain_text("Allowed with changes by ada")


def test_what_is_always_allowed_does_not_ask_again(open_chat: Open) -> None:
    chat = open_chat("always")
    chat.say("code")
    chat.find("ask-always").check()
    chat.find("ask-approve").click()
    chat.answered("Done, and I will not ask again.")
    expect(chat.find("ask")).to_contain_text("Allowed for this session by ada")
    chat.say("code")
    chat.answered("Done, and I will not ask again.")
    expect(chat.find("ask")).to_have_count(1)


def test_open_questions_survive_a_reload(open_chat: Open, address: str) -> None:
    chat = open_chat("reload-ask")
    chat.say("many")
    expect(chat.find("ask", "[data-status=open]")).to_have_count(2)
    before = chat.items()
    again = Chat(chat.page, address, "reload-ask")
    expect(again.find("ask", "[data-status=open]")).to_have_count(2)
    assert again.items() == before
    expect(again.find("asks-count")).to_have_text("2 questions")
    again.find("ask-deny").first.click()
    expect(again.find("asks-count")).to_have_text("1 question")
    again.find("ask-approve").click()
    again.settled()
    expect(again.tool("write_file")).to_have_attribute("data-status", "denied")
    expect(again.tool("mcp__search")).to_have_attribute("data-status", "done")


def test_an_answer_from_another_view_shows_at_once_and_the_first_one_counts(open_chat: Open) -> None:
    chat = open_chat("second", "second")
    chat.say("code")
    expect(chat.find("ask-approve", view=1)).to_be_visible()
    chat.find("ask-approve", view=1).click()
    expect(chat.find("ask", "[data-approved=true]", view=0)).to_contain_text("by ada")
    chat.settled()
    assert chat.items(0) == chat.items(1)
    chat.find("settings-toggle").click()  # another part of the view still works
    expect(chat.find("settings")).to_be_visible()


def test_an_expired_question_is_said_to_be(open_chat: Open, control: Control) -> None:
    chat = open_chat("expire")
    chat.say("expire 90")
    expect(chat.find("ask-expiry")).to_contain_text("1:")
    control("expire?session=expire")
    chat.find("stop").wait_for(state="detached")
    expect(chat.find("ask")).to_contain_text("Expired without an answer")
    expect(chat.find("ask-approve")).to_have_count(0)


def test_a_change_of_a_cell_is_shown_as_a_diff(open_chat: Open) -> None:
    chat = open_chat("diff")
    chat.say("cell")
    diff = chat.find("ask").locator("[data-navi=ask-detail][data-kind=diff]")
    added = ["added: + optimizer.zero_grad()", "added: + torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)"]
    expect(diff.locator(".navi-diff-added")).to_have_count(2)
    assert [text.strip() for text in diff.locator(".navi-diff-added").all_text_contents()] == added
    expect(diff.locator(".navi-diff-removed")).to_have_count(0)
    expect(chat.find("ask").locator(".navi-args")).to_contain_text("analysis.ipynb")


def test_a_question_is_a_form_that_checks_its_values(open_chat: Open) -> None:
    chat = open_chat("question")
    chat.say("question")
    form = chat.find("ask", "[data-kind=question]")
    expect(form.locator("[data-field=shuffle]")).to_be_checked()
    expect(form.locator("[data-field=rows]")).to_have_value("100")
    form.locator("[data-field=rows]").fill("5000")
    form.locator("[data-field=name]").fill("x")
    chat.find("ask-answer").click()
    expect(form).to_have_attribute("data-status", "open")  # too short, too many
    form.locator("[data-field=name]").fill("penguins")
    form.locator("[data-field=rows]").fill("50")
    form.locator("[data-field=split]").select_option(label="test")
    chat.find("ask-answer").click()
    chat.settled()
    said = '{"name":"penguins","split":"test","rows":50,"shuffle":true}'
    chat.ends_with(f"You answered: resolved {said}")


def test_a_question_can_be_declined(open_chat: Open) -> None:
    chat = open_chat("decline")
    chat.say("question")
    chat.find("ask-decline").click()
    chat.settled()
    expect(chat.find("ask")).to_contain_text("Declined")
    chat.ends_with("You answered: cancelled null")


def test_the_line_above_the_composer_leads_to_the_question_by_keyboard(open_chat: Open) -> None:
    chat = open_chat("jump")
    chat.say("long 8")
    chat.settled()
    chat.say("code")
    chat.find("ask").wait_for()
    chat.find("log").evaluate("log => log.scrollTop = 0")
    chat.find("asks-jump").focus()
    chat.page.keyboard.press("Enter")
    expect(chat.find("ask")).to_be_focused()
    expect(chat.find("ask")).to_be_in_viewport()
    expect(chat.find("ask-approve")).to_be_enabled()  # half a second after it was drawn
    for _ in range(3):  # past what of it can be focused
        if not chat.find("ask-approve").evaluate("button => button === document.activeElement"):
            chat.page.keyboard.press("Tab")
    expect(chat.find("ask-approve")).to_be_focused()
    chat.page.keyboard.press("Enter")
    chat.answered("Done.")


def test_an_answer_that_was_given_while_the_server_was_away_arrives(open_chat: Open, control: Control) -> None:
    chat = open_chat("late-answer")
    chat.say("code")
    chat.find("ask-approve").wait_for()
    control("mood?is=down")
    control("close")
    chat.state("reconnecting")
    chat.find("ask-approve").click()
    expect(chat.find("ask")).to_have_attribute("data-status", "sending")
    control("mood?is=ok")
    chat.state("open")
    chat.answered("Done.")


def test_stopping_a_run_that_waits_closes_its_questions_and_says_what_was_reached(open_chat: Open) -> None:
    chat = open_chat("stop-ask")
    chat.say("code")
    chat.find("ask-approve").wait_for()
    chat.find("stop").click()
    chat.settled()
    expect(chat.find("ask")).to_contain_text("Not answered")
    expect(chat.find("run-end").locator("[data-navi=reached]")).to_have_text("the request to the model was ended")


# --- the queue and the modes -----------------------------------------------------------------------------------------


def test_waiting_prompts_are_listed_and_can_be_changed_and_withdrawn(open_chat: Open) -> None:
    chat = open_chat("queue")
    chat.say("slow 40")
    chat.find("stop").wait_for()
    chat.say("wait 1")
    chat.say("wait 2")
    rows = chat.find("queue").locator("[data-status=queued]")
    expect(rows).to_have_count(2)
    rows.nth(0).locator("[data-navi=queue-edit]").click()
    expect(chat.find("queue-input")).to_be_focused()
    chat.find("queue-input").fill("wait 0")
    chat.find("queue-input").press("Enter")
    expect(rows.nth(0)).to_contain_text("wait 0")
    rows.nth(1).locator("[data-navi=withdraw]").click()
    expect(rows).to_have_count(1)
    chat.find("input").press("Escape")
    chat.settled()
    expect(chat.find("queue")).to_have_count(0)
    chat.reads(["slow 40", re.compile("^one two three"), "wait 0", "Done waiting."])


def choose(chat: Chat, mode: str) -> None:
    chat.find("mode").click()
    chat.find("mode-menu").locator(f"[data-mode={mode}]").click()
    expect(chat.find("mode")).to_have_attribute("data-mode", mode)
    expect(chat.find("input")).to_be_focused()


def steered(chat: Chat, text: str) -> None:
    """Wait until the run goes on behind a message that has joined it; then end it."""
    message = chat.find("log").locator("article[data-role=user]", has_text=text)
    message.locator("xpath=following-sibling::article[@data-role='assistant']").first.wait_for(timeout=30_000)
    chat.find("stop").click()
    chat.settled()


def test_a_steered_message_appears_where_it_was_told(open_chat: Open) -> None:
    chat = open_chat("steer")
    chat.say("steps 60")
    chat.find("message", "[data-role=assistant]").first.wait_for()
    choose(chat, "steer")
    chat.say("look at the tail, too")
    expect(chat.find("mode")).to_have_attribute("data-mode", "enqueue")  # for the next one it is chosen again
    steered(chat, "look at the tail, too")
    texts = chat.texts()  # whatever the run had said by then; it is over
    place = texts.index("look at the tail, too")
    assert 1 < place < len(texts) - 1
    joined = open_chat("steer")
    joined.reads(texts)


def test_control_enter_steers(open_chat: Open) -> None:
    chat = open_chat("steer-key")
    chat.say("steps 60")  # more than a slow machine needs to press two keys
    chat.find("message", "[data-role=assistant]").first.wait_for()
    chat.find("input").fill("quick")
    chat.find("input").press("Control+Enter")
    steered(chat, "quick")
    assert 1 < chat.texts().index("quick") < len(chat.texts()) - 1


def test_a_rolled_back_turn_is_dimmed_and_says_so(open_chat: Open, address: str) -> None:
    chat = open_chat("rollback")
    chat.say("slow 60")
    chat.find("message", "[data-role=assistant]").wait_for()
    choose(chat, "rollback")
    chat.say("wait 0")
    chat.find("message", "[data-role=assistant]").nth(1).wait_for()
    chat.settled()
    expect(chat.find("rolled-back")).to_have_text("The model does not see this turn any more")
    assert chat.views[0].locator(".navi-forgotten [data-navi=message]").count() == 2
    assert chat.texts()[2:] == ["wait 0", "Done waiting."]
    again = Chat(chat.page, address, "rollback")
    expect(again.find("rolled-back")).to_have_count(1)


def test_interrupt_and_collect(open_chat: Open) -> None:
    chat = open_chat("modes")
    chat.say("slow 60")
    chat.find("message", "[data-role=assistant]").wait_for()
    for text in ("wait 0", "and this"):
        choose(chat, "collect")
        chat.say(text)
    expect(chat.find("queue").locator("[data-mode=collect]")).to_have_count(2)
    choose(chat, "interrupt")
    chat.say("wait 0")
    chat.find("run-end", "[data-code=cancelled]").wait_for()
    expect(chat.find("message", "[data-role=assistant]")).to_have_count(3)
    chat.answered("Done waiting.")
    rest = ["wait 0", "Done waiting.", "wait 0", "and this", "Done waiting."]
    chat.reads(["slow 60", re.compile("^one two three"), *rest])


def test_the_mode_menu_works_by_keyboard_and_closes(open_chat: Open) -> None:
    chat = open_chat("menu")
    chat.say("slow 60")
    chat.find("mode").focus()
    chat.page.keyboard.press("ArrowUp")
    expect(chat.find("mode-menu")).to_be_visible()
    expect(chat.find("mode-menu").locator("[data-mode=enqueue]")).to_be_focused()
    chat.page.keyboard.press("ArrowDown")
    expect(chat.find("mode-menu").locator("[data-mode=steer]")).to_be_focused()
    chat.page.keyboard.press("Escape")
    expect(chat.find("mode-menu")).to_be_hidden()
    expect(chat.find("input")).to_be_focused()
    chat.find("mode").click()
    chat.find("log").click()
    expect(chat.find("mode-menu")).to_be_hidden()
    expect(chat.find("stop")).to_be_enabled()  # Escape in the menu stopped nothing


# --- tools and workers -----------------------------------------------------------------------------------------------


def test_outputs_stream_into_their_card_and_nothing_of_them_runs(open_chat: Open) -> None:
    chat = open_chat("output")
    chat.say("output 30 30")
    expect(chat.find("progress").locator("[role=progressbar]")).to_have_attribute(
        "aria-valuenow", re.compile("[2-9][0-9]")
    )
    outputs = chat.find("outputs")
    expect(outputs).to_contain_text("row 10:")
    expect(chat.tool("run_code")).to_have_attribute("data-status", "running")
    chat.settled()
    expect(outputs.locator(".navi-ansi-green")).to_have_text("started")
    expect(outputs.locator("pre").first).to_contain_text("<b>not bold</b>")
    assert "10 %" not in outputs.inner_text().replace("100 %", "")  # written over
    expect(outputs.locator("tbody td").first).to_have_text("2.31")
    expect(outputs.locator("style, script")).to_have_count(0)
    expect(outputs.locator("[data-navi=picture] img")).to_have_attribute("alt", "<Figure size 640x480>")
    expect(outputs.locator(".navi-traceback")).to_contain_text("division by zero")
    expect(chat.tool("run_code")).to_have_attribute("data-status", "failed")
    expect(chat.find("duration")).to_contain_text(" s")
    assert chat.page.evaluate("window.hacked") is None
    assert outputs.locator("pre").first.evaluate("text => text.clientHeight") <= 260
    chat.find("outputs-toggle").click()
    assert outputs.locator("pre").first.evaluate("text => text.clientHeight") > 400


def test_ten_thousand_pieces_of_output_do_not_slow_typing(open_chat: Open) -> None:
    chat = open_chat("flood")
    chat.page.evaluate(
        """() => {
            window.longest = 0;
            const observer = new PerformanceObserver(list => {
                for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
            });
            observer.observe({ type: "longtask" });
        }"""
    )
    chat.say("output 10000 0")
    chat.find("input").press_sequentially("typed meanwhile", delay=5)
    assert chat.find("input").input_value() == "typed meanwhile"
    chat.settled()
    text = chat.find("outputs").locator("pre").first
    expect(text).to_contain_text("row 9999:")
    assert len(text.inner_text()) < 60_000
    expect(text).to_contain_text("characters before this are not shown")
    # Drawn anew with each piece it would be tens of seconds; a busy machine makes half a second of 100 ms.
    assert chat.page.evaluate("window.longest") < 2000


def test_a_joiner_in_the_middle_of_an_output_sees_the_same(open_chat: Open) -> None:
    chat = open_chat("join-output")
    chat.say("output 60 30")
    expect(chat.find("outputs")).to_contain_text("row 5:")
    joined = open_chat("join-output")
    chat.settled()
    joined.settled()
    assert joined.items() == chat.items()
    assert joined.find("outputs").inner_text() == chat.find("outputs").inner_text()


def test_workers_are_nested_live_and_can_ask(open_chat: Open) -> None:
    chat = open_chat("workers")
    chat.say("workers")
    workers = chat.find("worker")
    expect(workers).to_have_count(2)
    expect(workers.nth(1)).to_contain_text("Looking at the columns")
    expect(workers.nth(1)).to_have_attribute("open", "")
    ask = workers.nth(0).locator("[data-navi=ask]")
    expect(ask).to_contain_text("asked by analyst")
    expect(chat.tool("delegate")).to_have_count(0)
    joined = open_chat("workers")
    assert joined.items() == chat.items()
    ask.locator("[data-navi=ask-approve]").click()
    chat.settled()
    expect(workers.nth(0)).to_have_attribute("data-status", "done")
    expect(workers.nth(1)).to_have_attribute("data-status", "failed")
    expect(workers.nth(1)).to_contain_text("It asked the model too often.")
    expect(workers.nth(0).locator("[data-tool-name=run_code]")).to_be_hidden()
    workers.nth(0).locator("summary").first.click()
    expect(workers.nth(0).locator("[data-tool-name=run_code]")).to_be_visible()
    chat.ends_with("One of my workers found the odd rows.")


# --- attachments -----------------------------------------------------------------------------------------------------


def test_files_are_uploaded_shown_and_sent(open_chat: Open, tmp_path: Path, address: str) -> None:
    (tmp_path / "plot.png").write_bytes(PNG)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    chat = open_chat("attach")
    chat.find("file-input").set_input_files([tmp_path / "plot.png", tmp_path / "data.csv"])
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(2)
    expect(chat.find("attachment").first.locator("img")).to_be_visible()
    chat.find("attachment-remove").nth(1).click()
    expect(chat.find("attachment")).to_have_count(1)
    chat.find("file-input").set_input_files([tmp_path / "data.csv"])
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(2)
    chat.say("wait 0")
    expect(chat.find("attachment")).to_have_count(0)
    chat.settled()
    shown = chat.find("attached")
    expect(shown).to_have_count(2)
    expect(shown.nth(0).locator("img")).to_have_attribute("alt", "plot.png")
    expect(shown.nth(1)).to_contain_text("data.csv")
    again = Chat(chat.page, address, "attach")
    expect(again.find("attached").nth(0).locator("img")).to_be_visible()


def test_what_the_server_or_the_limit_refuses_is_said(open_chat: Open, tmp_path: Path) -> None:
    chat = open_chat("refused")
    (tmp_path / "evil.exe").write_bytes(b"MZ")
    chat.find("file-input").set_input_files([tmp_path / "evil.exe"])
    expect(chat.find("notice")).to_contain_text("evil.exe was not attached: Programs are not taken.")
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(21 * 1024 * 1024)
    chat.find("file-input").set_input_files([tmp_path / "huge.bin"])
    expect(chat.find("notice")).to_contain_text("huge.bin is too large")
    (tmp_path / "empty.txt").touch()
    chat.find("file-input").set_input_files([tmp_path / "empty.txt"])
    expect(chat.find("notice")).to_contain_text("empty.txt is empty")
    expect(chat.find("attachment")).to_have_count(0)


TRANSFER = """(element, [type, encoded]) => {
    const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "shot.png", { type: "image/png" }));
    const init = { bubbles: true, cancelable: true };
    const event = type === "paste"
        ? new ClipboardEvent(type, { ...init, clipboardData: transfer })
        : new DragEvent(type, { ...init, dataTransfer: transfer });
    return element.dispatchEvent(event);
}"""


def test_images_can_be_pasted_and_dropped(open_chat: Open) -> None:
    chat = open_chat("paste")
    encoded = base64.b64encode(PNG).decode()
    assert chat.find("input").evaluate(TRANSFER, ["paste", encoded]) is False  # taken
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(1)
    chat.find("log").evaluate(TRANSFER, ["dragover", encoded])
    assert "navi-dropping" in (chat.views[0].get_attribute("class") or "")
    chat.find("log").evaluate(TRANSFER, ["drop", encoded])
    assert "navi-dropping" not in (chat.views[0].get_attribute("class") or "")
    expect(chat.find("attachment", "[data-status=ready]")).to_have_count(2)


def test_nothing_is_sent_before_the_files_are_there(open_chat: Open, tmp_path: Path) -> None:
    (tmp_path / "plot.png").write_bytes(PNG)
    chat = open_chat("upload-slow")
    held: list[Route] = []
    chat.page.route("**/attachments?*", lambda route: held.append(route))
    chat.find("file-input").set_input_files([tmp_path / "plot.png"])
    expect(chat.find("attachment", "[data-status=uploading]")).to_have_count(1)
    chat.say("wait 0")
    expect(chat.find("send")).to_be_disabled()
    chat.reads([])
    held[0].continue_()
    expect(chat.find("send")).to_be_enabled()
    chat.find("input").press("Enter")
    expect(chat.find("attached")).to_have_count(1)


# --- around the conversation -----------------------------------------------------------------------------------------


def test_the_model_is_chosen_among_those_that_can_be_used(open_chat: Open) -> None:
    chat = open_chat("model", "model")
    chat.find("settings-toggle").click()
    picker = chat.find("model-picker")
    unusable = picker.locator("optgroup:not([label=Agents])")  # with the reason, once for all models that it holds for
    expect(unusable).to_have_attribute("label", "set OPENAI_API_KEY in the server's environment")
    expect(unusable.locator("option[disabled]")).to_have_text("openai-chat:gpt-5")
    picker.select_option("anthropic:claude-sonnet-5")
    expect(chat.find("model", view=1)).to_have_text("anthropic:claude-sonnet-5")
    expect(chat.find("profile-picker").locator("optgroup")).to_have_attribute("label", re.compile("mine.toml:3"))
    chat.find("profile-picker").select_option("analyst")
    expect(chat.find("settings-toggle", view=1)).to_contain_text("analyst")
    picker.select_option(label="Another…")
    chat.find("model-name").fill("groq:llama")
    chat.find("model-name").press("Enter")
    expect(chat.find("model", view=1)).to_have_text("groq:llama")


def test_usage_is_shown_while_it_grows_and_after_a_reload(open_chat: Open, address: str) -> None:
    chat = open_chat("usage")
    for _ in range(2):
        chat.say("usage")
        chat.settled()
        chat.find("stop").wait_for(state="detached")
    expect(chat.find("spent")).to_have_text("$0.08")
    chat.find("settings-toggle").click()
    expect(chat.find("usage")).to_contain_text("24,690 in, 1,356 out, 4 requests")
    expect(chat.find("usage")).to_contain_text("Last run")
    expect(Chat(chat.page, address, "usage").find("spent")).to_have_text("$0.08")


def test_mcp_servers_show_how_they_are(open_chat: Open, control: Control) -> None:
    chat = open_chat("mcp")
    control("mcp?server=files&status=starting")
    expect(chat.find("mcp-toggle")).to_have_attribute("data-status", "starting")
    control("mcp?server=files&status=ready")
    control("mcp?server=web&status=failed&why=npx:%20not%20found")
    expect(chat.find("mcp-toggle")).to_have_attribute("data-status", "failed")
    chat.find("mcp-toggle").click()
    expect(chat.find("mcp-server", "[data-server=web]")).to_contain_text("npx: not found")
    expect(chat.find("mcp-server", "[data-server=files]")).to_have_attribute("data-status", "ready")


def test_memory_is_listed_added_to_changed_and_forgotten(open_chat: Open, control: Control) -> None:
    control("facts")
    chat = open_chat("memory")
    chat.find("settings-toggle").click()
    expect(chat.find("fact")).to_contain_text("Prefers polars to pandas")
    chat.find("memory-new").fill("Works on penguins")
    chat.find("memory-new").press("Enter")
    expect(chat.find("fact")).to_have_count(2)
    chat.find("fact").nth(0).locator("[data-navi=fact-edit]").click()
    chat.find("fact-input").fill("Works on whales")
    chat.find("fact-input").press("Enter")
    expect(chat.find("fact").nth(0)).to_contain_text("Works on whales")
    chat.find("fact").nth(1).locator("[data-navi=fact-forget]").click()
    expect(chat.find("fact")).to_have_count(1)


@pytest.mark.parametrize(
    ("code", "title", "todo"),
    [
        ("budget_exceeded", "Stopped: the budget is used up", "Raise run_token_budget"),
        ("provider_auth", "The provider refused the key", "Switch model"),
        ("unheard_of", "This run has used", "50,312"),
    ],
)
def test_a_failed_run_says_what_went_wrong_and_what_to_do(open_chat: Open, code: str, title: str, todo: str) -> None:
    chat = open_chat(f"fail-{code}")
    chat.say(f"fail {code}")
    error = chat.find("error", f"[data-code={code}]")
    expect(error).to_contain_text(title)
    expect(error).to_contain_text(todo)
    expect(error.locator("code")).to_have_text(code)
    if code == "provider_auth":
        chat.find("choose-model").click()
        expect(chat.find("model-picker")).to_be_visible()
