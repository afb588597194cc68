"""Recalls in front, in a real JupyterLab: from the menu of a cell, from one that runs; and that one has run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import Host, kernel_is, run_cell, shot
from tests.e2e.client import until

PATIENCE = 40_000
"""Milliseconds that anything may take on a loaded machine."""
SLOW = "import time\n\n# fit\nfor epoch in range(14):\n    time.sleep(1)\nprint('fitted')"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("lab", tmp_path_factory.mktemp("lab"))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1400, "height": 900}, timezone_id="Europe/Berlin")
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


def recalls(host: Host) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.server.get("navi/api/recalls")["recalls"]
    return found


def notification(page: Page, text: str) -> Locator:
    return page.locator(".jp-toast-message, .Toastify__toast").filter(has_text=text).first


def test_a_cell_that_runs_for_some_seconds_offers_to_come_back_and_lab_says_when_it_has(
    host: Host, context: BrowserContext
) -> None:
    host.write("slow", SLOW)
    page = host.open(context, "slow")
    run_cell(page, 0)
    button = page.locator("[data-navi=cell-when-done]")
    button.wait_for()
    shot(page, "cell-offers")
    button.click()
    expect(button).to_contain_text("Navi comes back when")
    notification(page, "Navi comes back when").wait_for()
    (made,) = recalls(host)
    assert (made["schedule"]["event"], made["schedule"]["cell"][:7]) in (
        ("cell_done", "running"),
        ("cell_done", "request"),
    )
    kernel_is(page, "idle")
    expect(button).to_have_count(0, timeout=PATIENCE)
    done = notification(page, "for epoch in range(14): done")
    done.wait_for()
    shot(page, "toast-in-lab")
    page.locator(".Toastify__toast button, .jp-toast-button").filter(has_text="Show").first.click()
    panel = page.locator("navi-panel navi-chat")
    expect(panel.locator("[data-navi=message]").first).to_be_focused()
    (after,) = recalls(host)
    assert after["status"] == "fired"
    sessions = host.server.get("navi/api/sessions")["sessions"]
    assert [each["notebook_path"] for each in sessions] == ["slow.ipynb"], "its session was made, without a cell"


def test_the_menu_of_a_cell_waits_for_the_next_time_it_runs_and_can_be_undone(
    host: Host, context: BrowserContext
) -> None:
    host.write("menu", "1 + 1", "print('fitted')")
    page = host.open(context, "menu")
    before = {each["id"] for each in recalls(host)}

    def choose() -> dict[str, Any]:
        known = {each["id"] for each in recalls(host)}
        page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").nth(1).click(button="right")
        item = page.locator(".lm-Menu-item").filter(has_text="Come Back When This Cell Is Done")
        item.wait_for()
        shot(page, "cell-menu")
        item.click()
        assert until(lambda: len(recalls(host)) > len(known))
        return next(each for each in recalls(host) if each["id"] not in known)

    first = choose()
    assert first["schedule"]["cell"] == "c1"
    page.locator(".Toastify__toast button, .jp-toast-button").filter(has_text="Undo").first.click()
    assert until(lambda: {each["id"]: each["status"] for each in recalls(host)}[first["id"]] == "cancelled")
    second = choose()
    assert second["id"] not in before
    run_cell(page, 0)
    kernel_is(page, "idle")
    run_cell(page, 1)
    assert until(lambda: {each["id"]: each["status"] for each in recalls(host)}[second["id"]] == "fired")


def test_a_notebook_is_run_on_a_schedule_from_the_interface_alone_and_its_result_is_one_click_away(
    host: Host, context: BrowserContext
) -> None:
    host.write("report", "n = 1", "print('total', n * 21)")
    tagged = host.server.get("api/contents/report.ipynb")["content"]
    tagged["cells"][0]["metadata"] = {"tags": ["parameters"]}
    host.server.request("PUT", "api/contents/report.ipynb", {"type": "notebook", "content": tagged})
    page = host.open(context, "report")
    page.locator(".jp-DirListing-item").filter(has_text="report.ipynb").click(button="right")
    page.locator(".lm-Menu-item").filter(has_text="Run This Notebook on a Schedule").click()
    panel = page.locator("navi-panel navi-chat")

    def part(name: str, more: str = "") -> Locator:
        return panel.locator(f"[data-navi={name}]{more}")

    expect(part("job-path")).to_have_value("report.ipynb")
    expect(part("recall-when")).to_be_focused()
    part("job-parameter", "[data-name=n]").fill("2")
    part("recall-when").fill("in 2 seconds")
    part("recall-parsed").wait_for()
    shot(page, "job-form")
    part("recall-when").press("Enter")
    expect(part("recalls-said")).to_contain_text("Navi comes back at")
    part("overlay-close").click()
    opened = part("result-open")
    opened.wait_for()
    shot(page, "job-result")
    opened.click()
    result = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    expect(result).to_contain_text("total 42")
