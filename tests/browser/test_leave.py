"""A recall that computes, as its user meets it: leave given in the form or missing, with every page closed.

The model is scripted, behind a real provider protocol; server, kernel, notebook and browser are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import AXE, Host, answers, chat_of, kernel_is, run_cell, save, shot
from tests.browser.test_recalls import MODEL, part, violations
from tests.kernel.test_control import provider_of
from tests.support.needs import needed
from tests.support.providers import KEY, Call, Reply, ScriptedProvider

PATIENCE = 40_000
CHAT = "%load_ext navi_jupyter\nimport navi_jupyter as navi\nbase = 40\nnavi.chat()"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def patient() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as provider:
        yield provider


@pytest.fixture(scope="module")
def host(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    host = Host("lab", tmp_path_factory.mktemp("leave"), env=env)
    yield host
    host.server.stop()


def play(provider: ScriptedProvider, *script: Reply) -> None:
    """What the model answers from now on, request by request."""
    provider.requests.clear()
    provider._turn = 0
    provider.script = list(script)


def pages(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1200, "height": 1000})
    context.set_default_timeout(PATIENCE)
    return context


def opened(host: Host, context: BrowserContext, name: str) -> tuple[Page, Locator]:
    """A saved notebook with its chat, whose kernel has the variable ``base``."""
    host.write(name, CHAT)
    page = host.open(context, name)
    run_cell(page, 0)
    chat = chat_of(page)
    kernel_is(page, "idle")
    save(page)
    return page, chat


def session_in(host: Host, notebook: str) -> str:
    sessions = host.server.get("navi/api/sessions")["sessions"]
    (found,) = [session["id"] for session in sessions if session["notebook_path"] == f"{notebook}.ipynb"]
    return str(found)


def make(chat: Locator, message: str, when: str, *leave: str) -> None:
    """By the form."""
    if part(chat, "recalls-toggle").get_attribute("aria-expanded") != "true":
        part(chat, "recalls-toggle").click()
    part(chat, "recall-new").click()
    part(chat, "recall-message").fill(message)
    part(chat, "recall-when").fill(when)
    for name in leave:
        part(chat, "recall-may", f"[value='{name}']").check()
    expect(part(chat, "recall-parsed")).to_be_visible()
    part(chat, "recall-save").click()
    expect(part(chat, "recall-form")).to_have_count(0)


def firing_of(host: Host, sid: str) -> dict[str, Any] | None:
    """The newest row of the ledger of the session's only recall, once it is over."""
    (recall,) = host.server.get(f"navi/api/recalls?session_id={sid}")["recalls"]
    rows = host.server.get(f"navi/api/recalls/{recall['id']}/firings")["firings"]
    return rows[0] if rows and rows[0]["ended_at"] else None


def test_a_recall_with_leave_computes_with_every_page_closed_and_its_output_is_there_later(
    host: Host, browser: Browser, provider: ScriptedProvider
) -> None:
    play(provider, Reply(calls=(Call("run_code", {"code": "print(base + 2)"}),)), Reply("It is 42."))
    context = pages(browser)
    page, chat = opened(host, context, "given")
    make(chat, "compute it", "in 12 seconds", "effect:run")
    expect(part(chat, "recall-leave")).to_contain_text("may run code without asking")
    shot(page, "leave-given")
    context.close()
    sid = session_in(host, "given")
    host.server.wait_for(lambda: firing_of(host, sid) is not None, within=90)
    firing = firing_of(host, sid)
    assert firing is not None
    assert (firing["status"], firing["reason"]) == ("succeeded", None), firing

    context = pages(browser)
    page = context.new_page()
    page.goto(f"{host.server.url}navi?session={sid}&token={host.server.token}")
    chat = chat_of(page)
    expect(answers(chat)).to_contain_text("It is 42.")
    card = part(chat, "tool", "[data-tool-name=run_code][data-status=done]")
    card.locator("summary").first.click()
    expect(card).to_contain_text("42")
    shot(page, "leave-given-later")
    context.close()


def test_a_recall_without_leave_says_what_it_needed_and_one_button_gives_it_and_runs_it(
    host: Host, browser: Browser, provider: ScriptedProvider
) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    compute = Reply(calls=(Call("run_code", {"code": "print(base + 2)"}),))
    play(provider, compute, compute, Reply("It is 42."))
    context = pages(browser)
    page, chat = opened(host, context, "missing")
    make(chat, "compute it", "in 12 seconds")
    expect(part(chat, "recall-leave")).to_have_count(0)
    context.close()
    sid = session_in(host, "missing")
    host.server.wait_for(lambda: firing_of(host, sid) is not None, within=90)
    firing = firing_of(host, sid)
    assert firing is not None
    assert (firing["status"], firing["reason"]) == ("failed", "needed approval: run_code"), firing

    context = pages(browser)
    page = context.new_page()
    page.goto(f"{host.server.url}navi?session={sid}&token={host.server.token}")
    chat = chat_of(page)
    end = part(chat, "error", "[data-code=needed_approval]")
    expect(end).to_contain_text("It needed your approval")
    if part(chat, "recalls-toggle").get_attribute("aria-expanded") != "true":
        part(chat, "recalls-toggle").click()
    chat.locator(".navi-past summary").click()
    expect(part(chat, "recall-lacking")).to_contain_text("needed approval: run_code")
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        shot(page, f"leave-missing-{scheme}")
        assert violations(page) == []
    part(chat, "overlay-close").click()  # the panel lies over the conversation
    expect(part(chat, "overlay-close")).to_have_count(0)  # and gives the focus back when it is gone
    end.locator("[data-navi=allow-again]").press("Enter")
    expect(answers(chat).last).to_contain_text("It is 42.")
    (recall,) = host.server.get(f"navi/api/recalls?session_id={sid}")["recalls"]
    assert recall["allow"] == ["run_code"]
    host.server.wait_for(lambda: (firing_of(host, sid) or {}).get("status") == "succeeded", within=60)
    expect(part(chat, "recall-lacking")).to_have_count(0)
    shot(page, "leave-again")
    context.close()


def test_leave_is_taken_back_by_a_button_in_the_list(host: Host, browser: Browser) -> None:
    context = pages(browser)
    page, chat = opened(host, context, "revoked")
    make(chat, "compute it", "every day at 9", "effect:run", "effect:write")
    expect(part(chat, "recall-leave")).to_contain_text("may run code, change notebook and files without asking")
    part(chat, "recall-revoke").focus()
    page.keyboard.press("Enter")
    expect(part(chat, "recall-leave")).to_have_count(0)
    (recall,) = host.server.get(f"navi/api/recalls?session_id={session_in(host, 'revoked')}")["recalls"]
    assert recall["allow"] == []
    context.close()
