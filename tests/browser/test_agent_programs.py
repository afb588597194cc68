"""An agent program in a real server and browser: chosen, its plan, its question with its own answers, its modes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.hosts import shot
from tests.browser.test_recalls import part, violations
from tests.support.needs import needed
from tests.support.server import JupyterServer

SCRIPT = Path(__file__).parents[1] / "support" / "acp_agent.py"
PATIENCE = 60_000
WORK = "think The loss is flat.\nplan Read the loop|Fix the rate\nedit src/loss.py\nask rm -r build\nsay It is done."

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[JupyterServer]:
    """A server on whose machine are a scripted agent, and one without a login."""
    try:
        import acp  # noqa: F401
    except ImportError:
        needed(False, "the package agent-client-protocol")
    server = JupyterServer(tmp_path)
    agents = {
        name: {"command": sys.executable, "args": [str(SCRIPT), str(tmp_path / name)], "env": {"ACP_AGENT": how}}
        for name, how in (("scripted", "{}"), ("claude", '{"login": true}'))
    }
    folder = server.home / "config" / "navi"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acp.json").write_text(json.dumps({"agents": agents}))
    server.start()
    yield server
    server.stop()


def opened(browser: Browser, server: JupyterServer, sid: str, *, scheme: str = "light", width: int = 1400) -> Page:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{server.url}navi?session={sid}&token={server.token}")
    return page


def say(chat: Locator, text: str) -> None:
    part(chat, "input").fill(text)
    part(chat, "input").press("Enter")


def answered(chat: Locator, text: str) -> None:
    expect(part(chat, "message", "[data-role=assistant]").last).to_contain_text(text, timeout=PATIENCE)
    expect(part(chat, "stop")).to_have_count(0, timeout=PATIENCE)


def test_an_agent_is_chosen_shows_its_plan_asks_in_its_own_words_and_takes_its_modes_from_the_settings(
    browser: Browser, server: JupyterServer
) -> None:
    sid = server.request("POST", "navi/api/sessions", {})["id"]
    page = opened(browser, server, sid)
    chat = page.locator("navi-chat")
    use = part(chat, "agent-use", "[data-model='acp:scripted']")
    expect(use).to_be_visible(timeout=PATIENCE)
    missing = part(chat, "agent-missing")
    assert missing.count() > 0
    assert all("npm install" in text or "install" in text for text in missing.locator("code").all_text_contents())
    shot(page, "agents-1-choice")
    use.click()
    expect(part(chat, "model")).to_have_text("scripted")

    say(chat, WORK)
    options = part(chat, "ask-option")
    expect(options).to_have_count(3, timeout=PATIENCE)
    assert options.evaluate_all("all => all.map(one => one.dataset.option)") == ["once", "always", "no"]
    expect(part(chat, "ask")).to_contain_text("rm -r build")
    small = opened(browser, server, sid, scheme="dark", width=420)
    joined = small.locator("navi-chat")
    for view, one, name in ((page, chat, "1400-light"), (small, joined, "420-dark")):
        expect(part(one, "plan-entry")).to_have_count(2, timeout=PATIENCE)
        expect(part(one, "ask-option").first).to_be_enabled()
        shot(view, f"agents-2-question-{name}")
        assert violations(view) == []
    part(joined, "ask-option", "[data-kind=allow_always]").click()
    answered(chat, "It is done.")
    expect(part(chat, "ask")).to_contain_text("Allowed (Yes, always) by you")
    assert part(chat, "tool-line").all_inner_texts() == ["Changed loss.py", "Ran a command"]
    edit = part(chat, "tool", "[data-tool-name=acp__edit]")
    edit.locator("summary").click()
    expect(edit.locator("[data-navi=diff]")).to_contain_text("+ new")
    expect(edit.locator("[data-navi=call-place]")).to_have_attribute("data-path", "src/loss.py")
    shot(page, "agents-3-answer")
    order = "chat => chat.state.items.map(item => item.kind)"
    before = chat.evaluate(order)
    page.reload()
    part(chat, "plan").wait_for()
    assert chat.evaluate(order) == before

    part(chat, "input").press_sequentially("/rev")
    expect(part(chat, "suggestion").first).to_contain_text("Command of the agent", timeout=PATIENCE)
    part(chat, "input").fill("")
    part(chat, "settings-toggle").click()
    part(chat, "agent-mode").select_option("plan")
    expect(part(joined, "settings-toggle")).to_contain_text("scripted")
    page.keyboard.press("Escape")
    say(chat, "mode")
    answered(chat, "mode: plan")
    exported = server.download(f"navi/api/sessions/{sid}/export?format=md").decode()
    assert "- [ ] Read the loop" in exported
    assert "**Changed loss.py**" in exported

    say(chat, "die")
    end = part(chat, "error", "[data-code=agent_ended]")
    expect(end).to_contain_text("The agent program has ended", timeout=PATIENCE)
    expect(end.locator("[data-navi=retry]")).to_be_visible()
    say(chat, "say It is here again.")
    answered(chat, "It is here again.")
    assert violations(page) == []
    page.context.close()
    small.context.close()


def test_an_agent_that_nobody_is_logged_in_to_says_so_with_the_command(browser: Browser, server: JupyterServer) -> None:
    sid = server.request("POST", "navi/api/sessions", {"model": "acp:claude"})["id"]
    page = opened(browser, server, sid, width=420)
    chat = page.locator("navi-chat")
    say(chat, "hello")
    expect(part(chat, "login-command")).to_contain_text("claude /login", timeout=PATIENCE)
    expect(part(chat, "error")).to_contain_text("The agent needs a login")
    shot(page, "agents-4-login-420")
    assert violations(page) == []
    part(chat, "choose-model").click()
    rows = part(chat, "agent-missing", "[data-model='acp:claude']")
    expect(rows).to_contain_text("claude /login", timeout=PATIENCE)
    page.context.close()
