"""The component in a real browser, against the scripted server of the playground, which needs Node.

Screenshots of all its parts go to ``js/playground/out``, to be looked at.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, expect
from views import OUT, Chat, Control

pytestmark = pytest.mark.browser


def test_nothing_that_an_agent_wrote_runs_or_loads(open_chat: Any) -> None:
    chat = open_chat("evil")
    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(request.url))
    chat.say("evil")
    chat.settled()
    chat.page.wait_for_timeout(500)
    assert chat.page.evaluate("window.hacked") is None
    assert [url for url in asked if "evil.example" in url] == []
    markdown = chat.views[0].locator(".navi-markdown")
    assert markdown.locator("script, style, form, input, iframe, svg, video, [style], [id], .jp-Dialog").count() == 0
    assert "image not loaded" in markdown.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_run_that_waits_for_the_users_server_says_so_until_that_is_there(open_chat: Any, scheme: str) -> None:
    chat = open_chat(f"server-{scheme}", color_scheme=scheme)
    chat.say("server 2")
    expect(chat.find("working")).to_contain_text("Waiting for your server to start")
    OUT.mkdir(exist_ok=True)
    chat.page.screenshot(path=str(OUT / f"server-starting-{scheme}.png"))
    chat.settled()
    expect(chat.find("working")).to_have_count(0)
    expect(chat.views[0]).to_contain_text("It is there.")
    assert "Waiting for your server" not in chat.views[0].inner_text()


def test_a_text_that_nests_deep_or_would_take_long_is_drawn_once_and_affects_no_other(open_chat: Any) -> None:
    heavy = json.loads((Path(__file__).parents[3] / "tests/kernel/heavy_markdown.json").read_text(encoding="utf-8"))
    chat = open_chat("heavy")
    problems: list[str] = []
    chat.page.on("pageerror", lambda error: problems.append(str(error)))
    names = [
        "quotes",
        "nested emphasis",
        "open links",
        "nested fractions",
        "combining marks",
        "deep lists",
        "a long word",
    ]
    for name in names:
        chat.say(f"heavy {list(heavy).index(name)}")
        chat.settled()
    chat.say("evil")
    chat.settled()
    chat.find("message", "[data-role=assistant]").nth(len(names)).wait_for()
    # Each prompt and each answer is there once, and none is blank.
    assert chat.find("message").count() == 2 * (len(names) + 1)
    assert all(text.strip() for text in chat.texts())
    assert problems == []


def test_two_views_are_identical_also_when_one_joins_in_the_middle(open_chat: Any) -> None:
    chat = open_chat("twins", "twins")
    chat.say("tools")
    chat.find("tool").first.wait_for()
    joined = open_chat("twins")
    chat.say("and then?")
    chat.settled()
    chat.find("message", "[data-role=assistant]").nth(1).wait_for()
    chat.settled()
    joined.settled()
    texts = chat.texts()
    chat.reads(texts, view=1)
    joined.reads(texts)
    assert chat.items(0) == chat.items(1) == joined.items()


@pytest.mark.parametrize("code", ["", "1000", "1001", "1008", "1011", "1012", "4000"])
def test_a_cut_connection_loses_nothing(open_chat: Any, control: Control, code: str) -> None:
    chat = open_chat(f"cut{code}")
    chat.say("slow 12")
    chat.find("message", "[data-role=assistant]").wait_for()
    for _ in range(5):
        control(f"close?code={code}")
        chat.page.wait_for_timeout(300)
    chat.state("open")
    chat.settled()
    chat.reads(["slow 12", ("one two three four five six seven eight nine ten " * 12).strip()])


def test_what_is_sent_while_the_server_is_away_arrives_once_when_it_is_back(open_chat: Any, control: Control) -> None:
    chat = open_chat("away")
    control("mood?is=down")
    control("close")
    chat.state("reconnecting")
    chat.say("wait 0")
    chat.find("message", "[data-status=sending]").wait_for()
    chat.page.wait_for_timeout(1000)
    control("mood?is=ok")
    chat.state("open")
    chat.settled()
    chat.reads(["wait 0", "Done waiting."])


def test_unsent_text_and_draft_survive_a_reload(open_chat: Any, control: Control, address: str) -> None:
    chat = open_chat("reload")
    control("mood?is=down")
    control("close")
    chat.state("reconnecting")
    chat.say("wait 0")
    chat.find("input").fill("half a thou")
    control("mood?is=ok")
    again = Chat(chat.page, address, "reload")
    again.settled()
    again.reads(["wait 0", "Done waiting."])
    assert again.find("input").input_value() == "half a thou"


def test_offline_and_back(open_chat: Any) -> None:
    chat = open_chat("offline")
    chat.say("slow 10")
    chat.find("message", "[data-role=assistant]").wait_for()
    chat.page.context.set_offline(True)
    chat.state("offline")
    chat.page.wait_for_timeout(500)
    chat.page.context.set_offline(False)
    chat.state("open")
    chat.settled()
    chat.ends_with(("one two three four five six seven eight nine ten " * 10).strip())


def test_a_compacted_log_is_drawn_from_its_prelude(open_chat: Any, control: Control) -> None:
    chat = open_chat("gap")
    chat.say("wait 0")
    chat.settled()
    control("mood?is=down")
    control("close")
    chat.state("reconnecting")
    chat.views[0].evaluate("chat => chat.state")  # still there
    other = ["wait 0", "Done waiting."]
    chat.reads(other)
    control("compact?session=gap")
    control("mood?is=ok")
    chat.state("open")
    chat.reads(other)


@pytest.mark.parametrize(("mood", "text"), [("gone", "This session no longer exists"), ("auth", "Please log in again")])
def test_a_refusal_says_why(open_chat: Any, control: Control, mood: str, text: str) -> None:
    chat = open_chat(mood)
    control(f"mood?is={mood}")
    control("close")
    chat.find("status", f"[data-state=closed][data-reason={mood}]").wait_for(state="attached", timeout=10_000)
    assert text in chat.views[0].inner_text()
    if mood == "auth":
        control("mood?is=ok")
        chat.find("retry").click()
        chat.state("open")


def test_stop_and_queue(open_chat: Any) -> None:
    chat = open_chat("stop")
    chat.say("slow 100")
    chat.find("message", "[data-role=assistant]").wait_for()
    chat.say("wait 0")
    chat.find("withdraw").wait_for()
    chat.say("wait 1")
    chat.find("withdraw").nth(1).wait_for()
    chat.find("withdraw").first.click()
    chat.find("message", "[data-status=queued]").nth(1).wait_for(state="detached")
    chat.find("input").press("Escape")
    chat.find("run-end", "[data-code=cancelled]").wait_for(timeout=2000)
    chat.settled()
    chat.reads(["slow 100", re.compile("^one two three"), "wait 1", "Done waiting."])


def test_recalls_count_down_fire_and_can_be_cancelled(open_chat: Any, control: Control) -> None:
    chat = open_chat("recalls")
    control("recall?session=recalls&in=2&fire=1&title=check%20the%20loss&id=one")
    control("recall?session=recalls&in=600&title=later&id=two")
    chat.find("recalls-toggle").click()
    chat.find("recall", "[data-recall-id=two]").wait_for()
    assert re.search(r"\b(9:5\d|10:00)\b", chat.find("recall", "[data-recall-id=two]").inner_text())
    message = chat.find("message", "[data-role=user][data-origin=recall]")
    message.wait_for(timeout=5000)
    assert "Recall: check the loss" in message.inner_text()
    chat.find("recall", "[data-recall-id=two]").locator("[data-navi=recall-cancel]").click()
    chat.find("recall", "[data-recall-id=two][data-status=cancelled]").wait_for(state="attached")


def test_scrolling_up_stays_there_and_the_end_is_one_click_away(open_chat: Any) -> None:
    chat = open_chat("scroll")
    chat.say("long 10")
    chat.settled()
    chat.say("slow 60")
    chat.find("message", "[data-role=assistant]").nth(1).wait_for()
    top = "log => log.scrollTop"
    log = chat.find("log")
    gap = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    assert log.evaluate(gap) < 4
    log.hover()
    chat.page.mouse.wheel(0, -400)
    chat.find("jump").wait_for()
    before = log.evaluate(top)
    chat.page.wait_for_timeout(800)
    assert log.evaluate(top) == before
    chat.find("jump").click()
    chat.page.wait_for_timeout(300)
    assert log.evaluate(gap) < 4


def test_a_long_answer_streams_without_blocking_the_page(open_chat: Any) -> None:
    chat = open_chat("long")
    chat.page.evaluate(
        """() => {
            window.longest = 0;
            const observer = new PerformanceObserver(list => {
                for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
            });
            observer.observe({ type: "longtask" });
        }"""
    )
    chat.say("long 150")
    chat.settled()
    assert chat.views[0].locator(".navi-code-frame").count() == 150
    assert chat.page.evaluate("window.longest") < 400


def test_code_is_copied(open_chat: Any) -> None:
    chat = open_chat("copy", permissions=["clipboard-read", "clipboard-write"])
    chat.say("hello")
    chat.settled()
    chat.find("copy").first.click()
    try:
        copied = chat.page.evaluate("navigator.clipboard.readText()")
    except Error:
        pytest.skip("this browser gives no clipboard")
    assert copied.startswith("import torch")
