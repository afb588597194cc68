"""Agent programs in the component: chosen like a model; their options, commands, plans, calls and own answers.

In a real browser, against the scripted server of the playground. Screenshots go to ``js/playground/out``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect
from test_accessibility import fill
from views import OUT, Chat

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
Open = Callable[..., Chat]

SIZES = [(420, 900), (1400, 1000)]


def look(chat: Chat, name: str) -> None:
    """What axe-core finds, and a picture, in light and dark."""
    for scheme in ("light", "dark"):
        chat.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        width = chat.page.viewport_size["width"] if chat.page.viewport_size else 0
        OUT.mkdir(exist_ok=True)
        chat.page.screenshot(path=str(OUT / f"agents-{name}-{width}-{scheme}.png"))
        assert chat.violations() == []
    overflow = """chat => [...chat.querySelectorAll('.navi-log, .navi-overlay-body, .navi-ask')]
        .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.className)"""
    assert chat.views[0].evaluate(overflow) == []


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_an_agent_is_chosen_asks_with_its_own_answers_and_shows_its_plan_and_calls(
    open_chat: Open, address: str, width: int, height: int
) -> None:
    chat = open_chat(f"agents{width}", viewport={"width": width, "height": height})
    fill(chat.page)
    agents = chat.find("model-setup").locator("[data-navi=agents]")
    expect(agents.locator("[data-navi=agent-missing]")).to_have_count(1)
    agents.locator("summary").click()
    expect(agents.locator("[data-navi=agent-missing] code")).to_have_text(
        "npm install -g @agentclientprotocol/claude-agent-acp"
    )
    expect(agents.locator("[data-navi=agent-copy]")).to_be_visible()
    look(chat, "choice")
    agents.locator("[data-navi=agent-use]").click()
    expect(chat.find("model")).to_have_text("opencode")

    chat.say("agent")
    options = chat.find("ask-option")
    expect(options).to_have_count(3)
    assert options.evaluate_all("all => all.map(one => one.dataset.kind)") == [
        "allow_once",
        "allow_always",
        "reject_once",
    ]
    expect(options.first).to_be_enabled()
    expect(chat.find("ask-options-note")).to_contain_text("rule of the agent")
    expect(chat.find("plan-entry", "[data-status=in_progress]")).to_contain_text("learning rate")
    expect(chat.find("agent-mode-name")).to_have_text("Build")
    look(chat, "question")
    options.first.focus()
    chat.page.keyboard.press("Tab")
    expect(options.nth(1)).to_be_focused()
    chat.page.keyboard.press("Enter")
    chat.answered("It is done (always).")
    expect(chat.find("ask")).to_contain_text("Allowed (Always allow edits in this folder) by ada")
    expect(chat.find("plan")).to_have_count(1)
    expect(chat.find("plan-done")).to_have_text("3 of 3 done")
    expect(chat.find("agent-notice")).to_have_text("The conversation was given to the agent again, as text.")
    lines = chat.find("tool-line").all_inner_texts()
    assert lines == ["Read train.py", "Changed train.py", "Ran a command"]
    expect(chat.find("outputs")).to_contain_text("12 passed")
    edit = chat.tool("acp__edit")
    edit.locator("summary").click()
    expect(edit.locator("[data-navi=diff]")).to_contain_text("0.1 if step < 50 else 0.01")
    places = edit.locator("[data-navi=call-place]")
    expect(places.first).to_have_attribute("data-path", "src/train.py")
    assert places.last.evaluate("place => place.tagName") == "SPAN", "what is outside of the server's folder is no link"
    look(chat, "answer")
    chat.find("plan").scroll_into_view_if_needed()
    look(chat, "plan")

    before = order(chat)
    chat.page.reload()
    chat.find("plan").wait_for()
    assert order(chat) == before, "a view that joins later shows the same in the same order"


def order(chat: Chat) -> list[str]:
    script = "chat => chat.state.items.filter(i => i.kind !== 'reasoning' && i.kind !== 'notice').map(i => i.kind)"
    kinds: list[str] = chat.views[0].evaluate(script)
    return kinds


@pytest.mark.parametrize("language", ["en", "de", "zh-CN"])
def test_the_options_and_commands_of_an_agent_are_where_one_looks_for_them(open_chat: Open, language: str) -> None:
    chat = open_chat(f"offer-{language}", query=f"language={language}", viewport={"width": 420, "height": 900})
    fill(chat.page)
    chat.find("agent-use").click()
    chat.say("agent")
    chat.find("ask-option", "[data-kind=reject_once]").click()
    chat.answered("Then I leave the file as it is.")
    expect(chat.tool("acp__edit")).to_have_attribute("data-status", "denied")

    chat.find("input").press_sequentially("/")
    suggestions = chat.find("suggestion")
    own = {"en": "Command of the agent", "de": "Befehl des Agenten", "zh-CN": "代理程序的命令"}[language]
    expect(suggestions.filter(has_text=own)).to_have_count(2)
    chat.find("input").press_sequentially("ini")
    expect(suggestions.first).to_contain_text("/init what to stress")
    chat.find("input").press("Enter")
    expect(chat.find("input")).to_have_value("/init ")
    chat.find("input").fill("")

    chat.find("settings-toggle").click()
    mode = chat.find("agent-mode")
    expect(mode).to_have_value("build")
    expect(chat.find("agent-options")).to_contain_text("OpenCode 1.18")
    look(chat, f"settings-{language}")
    mode.select_option("plan")
    expect(chat.find("agent-mode-name")).to_have_text("Plan")
    chat.page.reload()
    expect(chat.find("agent-mode-name")).to_have_text("Plan")


def test_a_name_that_is_no_word_of_ours_breaks_nothing(open_chat: Open) -> None:
    chat = open_chat("narrow-agent", viewport={"width": 320, "height": 800})
    chat.find("agent-use").click()
    chat.say("agent")
    long: Any = "x" * 190
    chat.find("ask-option").first.wait_for()
    chat.find("ask-option").first.locator("span").evaluate("(span, text) => (span.textContent = text)", long)
    card = chat.find("ask").bounding_box()
    button = chat.find("ask-option").first.bounding_box()
    assert card is not None
    assert button is not None
    assert button["x"] + button["width"] <= card["x"] + card["width"]
