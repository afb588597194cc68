"""How many clicks, and how many keys, what people do most takes: the table in docs/notebooks.md, counted.

Only what a person presses counts: events that the page trusts, and of the keys those that are not the text itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import PANEL, Host, answers, run_cell, shot
from tests.e2e.client import until
from tests.kernel.test_control import provider_of
from tests.support.providers import KEY, Reply

PATIENCE = 40_000
"""Milliseconds that anything may take on a loaded machine."""
ANSWER = "Do this:\n\n```python\ntotal = 6 * 7\n```\n"
COUNTED = """() => {
    const silent = ['Shift', 'Alt', 'AltGraph', 'Control', 'Meta'];
    window.pressed = {clicks: 0, keys: 0};
    addEventListener('click', ({isTrusted, detail}) => { if (isTrusted && detail > 0) pressed.clicks += 1; }, true);
    addEventListener('keydown', ({isTrusted, key, altKey, ctrlKey}) => {
        const isText = key.length === 1 && !altKey && !ctrlKey;
        if (isTrusted && !isText && !silent.includes(key)) pressed.keys += 1;
    }, true);
}"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A server with one recall that is to come, and one that has said something yesterday."""
    with provider_of(Reply(ANSWER)) as provider:
        environment = {
            "OPENAI_BASE_URL": f"{provider.url}/v1",
            "OPENAI_API_KEY": KEY,
            "NAVI_DEFAULT_MODEL": "openai-chat:gpt-6.1-sol",
        }
        host = Host(request.param, tmp_path_factory.mktemp(request.param), env=environment)
        session = host.server.request("POST", "navi/api/sessions", {"title": "Weekly report"})["id"]
        for message, after in (("look at the numbers", "1s"), ("send the report", "2h")):
            recall = {"session_id": session, "message": message, "schedule": {"kind": "once", "in": after}}
            host.server.request("POST", "navi/api/recalls", recall)
        assert until(lambda: sorted(each["status"] for each in recalls(host)) == ["fired", "pending"])
        yesterday(host)
        yield host
        host.server.stop()


def recalls(host: Host) -> list[dict[str, str]]:
    found: list[dict[str, str]] = host.server.get("navi/api/recalls")["recalls"]
    return found


def yesterday(host: Host) -> None:
    """Puts what was fired a day back: no test waits so long."""
    (path,) = host.server.home.glob("**/navi.db")
    with closing(sqlite3.connect(path, timeout=30)) as database:
        for column in ("slot", "started_at", "ended_at"):
            database.execute(f"UPDATE firings SET {column} = {column} - 86400000")
        database.commit()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    expect.set_options(timeout=PATIENCE)
    yield context
    expect.set_options(timeout=5_000)
    context.close()


class Person:
    """Does things by mouse or by keyboard alone, and is counted."""

    def __init__(self, page: Page, way: str) -> None:
        self.page = page
        self.is_at_keys = way == "keys"
        page.evaluate(COUNTED)

    def press(self, key: str, place: Locator) -> None:
        """One key, or one click on a place."""
        if self.is_at_keys:
            self.page.keyboard.press(key)
        else:
            place.click()

    def counted(self) -> int:
        """What was pressed since the last time; nothing of the other kind."""
        pressed = self.page.evaluate(
            "() => { const all = {...pressed}; pressed.clicks = pressed.keys = 0; return all; }"
        )
        assert pressed["clicks" if self.is_at_keys else "keys"] == 0
        return int(pressed["keys" if self.is_at_keys else "clicks"])


def sources(page: Page) -> list[str]:
    found: list[str] = page.evaluate(f"{PANEL}.content.widgets.map(({{model}}) => model.sharedModel.getSource())")
    return found


@pytest.mark.parametrize("way", ["mouse", "keys"])
def test_what_people_do_most_takes_as_few_clicks_or_keys_as_the_table_says(
    host: Host, context: BrowserContext, way: str
) -> None:
    host.write(way, "a = 1", "1 / 0")
    page = host.open(context, way)
    person = Person(page, way)
    chat = page.locator("navi-panel navi-chat")

    # The first chat in a fresh notebook.
    person.press("Alt+Shift+N", page.locator("[data-navi=panel-tab]:visible, [data-navi=panel-open]:visible"))
    expect(chat.locator("[data-navi=input]")).to_be_focused()
    page.keyboard.type("how much is it")
    person.press("Enter", chat.locator("[data-navi=send]"))
    expect(answers(chat)).to_have_count(1)
    assert person.counted() == 2

    # Code of an answer into a cell.
    button = chat.locator("[data-navi=insert-below]")
    button.wait_for()
    person.press("Alt+Shift+V", button)
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 3")
    assert "total = 6 * 7" in sources(page)
    assert person.counted() == 1

    # About an error.
    run_cell(page, sources(page).index("1 / 0"))
    explain = page.locator("[data-navi=explain]")
    explain.wait_for()
    person.press("Alt+Shift+E", explain)
    expect(answers(chat)).to_have_count(2)
    expect(chat.locator("[data-navi=message][data-role=user]").last).to_contain_text("Explain the error")
    assert person.counted() == 1

    # The next recall, over all sessions.
    today = chat.locator("[data-navi=today]")
    today.wait_for()
    person.press("Alt+Shift+R", today)
    row = chat.locator("[data-group=next] [data-navi=overview-recall]").first
    expect(row).to_contain_text("send the report")
    expect(row).to_be_in_viewport()
    assert person.counted() == 1
    shot(page, f"counts-{host.app}-{way}")
    page.keyboard.press("Escape")
    expect(row).to_have_count(0)
    page.evaluate("() => { pressed.clicks = pressed.keys = 0; }")

    # What yesterday's recall has said.
    person.press("Alt+Shift+R", today)
    result = chat.locator("[data-navi=overview-firing]").filter(has_text="look at the numbers")
    expect(result.locator("time")).to_have_count(1)
    if person.is_at_keys:
        expect(result.locator("[data-navi=overview-show]")).to_be_focused()
    person.press("Enter", result.locator("[data-navi=overview-show]"))
    message = chat.locator("[data-navi=message][data-origin=recall]").first
    expect(message).to_be_focused()
    expect(message).to_contain_text("look at the numbers")
    assert person.counted() == 2
