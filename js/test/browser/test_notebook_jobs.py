"""Recalls that run notebooks, in a real browser: the form, the results, what has changed. The server's answers about
notebooks are set here, the log comes from the playground."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Page, Request, Route, expect
from views import OUT, Chat, Control

PATHS = ["reports/weekly.ipynb", "reports/größe 日.ipynb", "plain.ipynb"]
KERNELS = [{"name": "python3", "title": "Python 3 (ipykernel)"}, {"name": "ir", "title": "R"}]
PARAMETERS = [{"name": "days", "default": "7"}, {"name": "region", "default": "'north'"}]
FOLDER = "reports/weekly-results/weekly-2026-12-0"
SLOT = "2026-12-01T09:00:00+00:00"


def reply(route: Route, body: Any, status: int = 200) -> None:
    route.fulfill(status=status, content_type="application/json", body=json.dumps(body))


def notebooks(page: Page) -> None:
    """What the server knows of its notebooks."""

    def listed(route: Route) -> None:
        query = parse_qs(urlsplit(route.request.url).query).get("query", [""])[0]
        reply(route, {"notebooks": [{"path": path} for path in PATHS if query in path], "next": None})

    def described(route: Route) -> None:
        path = parse_qs(urlsplit(route.request.url).query)["path"][0]
        if path not in PATHS:
            return reply(route, {"message": f"There is no notebook {path}. Did you mean {PATHS[0]}?"}, 404)
        known = None if path == "plain.ipynb" else PARAMETERS
        return reply(route, {"path": path, "parameters": known, "kernel": "python3", "kernels": KERNELS})

    page.route("**/recalls/notebooks?*", listed)
    page.route("**/recalls/notebook?*", described)


def sent(page: Page, method: str, act: Callable[[], None]) -> Any:
    """The body of the request about recalls that ``act`` makes the page send."""

    def matches(request: Request) -> bool:
        return request.method == method and urlsplit(request.url).path.rpartition("/navi/api/")[2].startswith("recalls")

    with page.expect_request(lambda request: matches(request) and "preview" not in request.url) as found:
        act()
    return found.value.post_data_json


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 452)])
def test_a_notebook_is_run_every_morning_by_keyboard_alone_with_what_its_parameters_are_to_be(
    open_chat: Callable[..., Chat], scheme: str, width: int
) -> None:
    chat = open_chat(f"job-form-{scheme}", color_scheme=scheme)
    page = chat.page
    page.set_viewport_size({"width": width, "height": 900})
    notebooks(page)
    chat.find("recalls-toggle").press("Enter")
    chat.find("recall-new").press("Enter")
    expect(chat.find("recall-message")).to_be_focused()
    chat.find("recall-kind", "[value=prompt]").press("ArrowDown")
    expect(chat.find("recall-kind", "[value=notebook]")).to_be_checked()
    expect(chat.find("recall-message")).to_have_count(0)
    page.keyboard.press("Tab")
    expect(chat.find("job-path")).to_be_focused()
    page.keyboard.type("weekli.ipynb")
    expect(chat.find("job-problem")).to_contain_text(f"Did you mean {PATHS[0]}?")
    chat.find("recall-when").fill("in 10m")
    chat.find("recall-parsed").wait_for()
    expect(chat.find("recall-save")).to_be_disabled()
    chat.find("job-path").fill("reports/")
    expect(chat.find("recall-form").locator("datalist option")).to_have_count(2)
    chat.find("job-path").fill(PATHS[0])
    days = chat.find("job-parameter", "[data-name=days]")
    expect(days).to_have_attribute("placeholder", "7")
    expect(chat.find("job-problem")).to_be_empty()
    days.fill("[1, 2")
    expect(chat.find("job-parameter-problem")).to_contain_text("days")
    expect(chat.find("recall-save")).to_be_disabled()
    days.fill("14")
    chat.find("job-parameter", "[data-name=region]").fill("south west")
    expect(chat.find("recall-allow")).to_have_count(0)
    chat.find("job-then").fill("Compare it with the one before")
    expect(chat.find("recall-allow")).to_have_count(1)
    chat.find("job-more").locator("summary").press("Enter")
    chat.find("job-kernel").select_option("ir")
    expect(chat.find("job-output")).to_have_attribute("placeholder", "weekly-results")
    chat.find("job-timeout").fill("30m")
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / f"job-form-{scheme}-{width}.png"))
    assert chat.violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is beside the view"
    body = sent(page, "POST", lambda: chat.find("recall-when").press("Enter"))
    assert "message" not in body
    assert body["policy"]["timeout"] == "30m"
    assert body["run"] == {
        "kind": "notebook",
        "path": PATHS[0],
        "parameters": {"days": 14, "region": "south west"},
        "output": None,
        "kernel": "ir",
        "then": "Compare it with the one before",
    }


def test_a_notebook_without_a_tagged_cell_takes_lines_and_a_message_that_names_one_leads_to_the_form(
    open_chat: Callable[..., Chat],
) -> None:
    chat = open_chat("job-plain")
    notebooks(chat.page)
    chat.find("recalls-toggle").click()
    chat.find("recall-new").click()
    chat.find("recall-message").fill("please run plain.ipynb")
    chat.find("job-offer").locator("button").click()
    expect(chat.find("job-path")).to_have_value("plain.ipynb")
    chat.find("job-free").fill("days = 7\nwhat")
    expect(chat.find("job-parameter-problem")).to_contain_text("what")
    chat.find("job-free").fill("days = 7\nname = '7'")
    chat.find("recall-when").fill("in 10m")
    chat.find("recall-parsed").wait_for()
    body = sent(chat.page, "POST", lambda: chat.find("recall-save").click())
    assert body["run"]["parameters"] == {"days": 7, "name": "7"}


@pytest.fixture
def job(open_chat: Callable[..., Chat], control: Control) -> Chat:
    """A chat with a recall that has run a notebook twice, one of them without an end."""
    chat = open_chat("job-results")
    page = chat.page
    recall = "job-results-daily"
    run = {
        "kind": "notebook",
        "path": PATHS[0],
        "parameters": {"days": 7},
        "output": None,
        "kernel": None,
        "then": None,
    }
    control(f"recall?session=job-results&in=90000&title=Run%20weekly&cron=0%209%20*%20*%20*&id={recall}")
    fields = {"run": run, "last_result": f"{FOLDER}2-0900.ipynb"}
    control("change?" + urlencode({"session": "job-results", "id": recall, "fields": json.dumps(fields)}))

    def result(run_id: str, day: int, exists: bool = True) -> dict[str, Any]:
        return {"run_id": run_id, "path": f"{FOLDER}{day}-0900.ipynb", "created_at": f"2026-12-0{day}T09:00:00+00:00",
                "status": "completed", "reason": None, "exists": exists}  # fmt: skip

    def firing(run_id: str, status: str = "succeeded", reason: str | None = None) -> dict[str, Any]:
        return {"id": f"f-{run_id}", "recall_id": recall, "slot": SLOT, "kind": "auto", "status": status,
                "reason": reason, "run_id": run_id, "attempt": 0, "attempts": [], "coalesced": 0, "not_before": SLOT,
                "started_at": SLOT, "ended_at": SLOT, "lateness_ms": 0, "delivery": "none",
                "delivery_error": None}  # fmt: skip

    firings = [firing("r3"), firing("r2", "failed", "In [2], `1 / 0`: ZeroDivisionError"), firing("r1")]
    page.route("**/firings?*", lambda route: reply(route, {"firings": firings, "next": None}))
    results = [result("r3", 3), result("r2", 2, exists=False), result("r1", 1)]
    page.route("**/results?*", lambda route: reply(route, {"results": results, "next": None}))
    head = "--- output before\n+++ output now\n"
    source = "--- source before\n+++ source now\n@@ -1 +1 @@\n-n = 1\n+n = 2\n"
    both = f"{source}{head}@@ -1,2 +1,2 @@\n same\n-loss 0.31\n+loss 0.29"
    gone = f"{head}@@ -1 +0,0 @@\n-gone"
    cells = [
        {"cell": "c-2", "number": 2, "source": "loss(days)", "diff": both, "omitted": 0},
        {"cell": "c-9", "number": None, "source": "old()", "diff": gone, "omitted": 3},
    ]
    page.route(
        "**/results/diff?*",
        lambda route: reply(route, {"old": results[2], "new": results[0], "cells": cells, "unchanged": 4}),
    )
    return chat


@pytest.mark.parametrize(("scheme", "width"), [("light", 1400), ("dark", 452)])
def test_a_result_is_opened_and_compared_with_the_one_before_that_is_still_there(
    job: Chat, scheme: str, width: int
) -> None:
    page = job.page
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    job.find("recalls-toggle").click()
    expect(job.find("recall-job")).to_contain_text("runs reports/weekly.ipynb")
    last = job.find("recall-result")
    assert last.get_attribute("href").endswith("/lab/tree/reports/weekly-results/weekly-2026-12-02-0900.ipynb")
    page.evaluate(
        "addEventListener('navi-open-file', event => { event.preventDefault(); window.opened = event.detail; })"
    )
    last.click()
    assert page.evaluate("window.opened") == {"path": f"{FOLDER}2-0900.ipynb", "cell": None}
    assert len(page.context.pages) == 1, "the page has opened it itself"
    job.find("recall-history").click()
    rows = job.find("firing")
    expect(rows).to_have_count(3)
    expect(rows.nth(1).locator("[data-navi=result-gone]")).to_have_count(1)
    expect(rows.nth(2).locator("[data-navi=result-changes]")).to_have_count(0)
    with page.expect_request("**/results/diff?*") as asked:
        rows.nth(0).locator("[data-navi=result-changes]").click()
    assert parse_qs(urlsplit(asked.value.url).query) == {"new": ["r3"], "old": ["r1"]}, "that of r2 is not there"
    diff = job.find("result-diff")
    expect(diff).to_contain_text("2 cells differ")
    expect(diff.locator(".navi-diff-added")).to_have_text(["added: + n = 2\n", "added: + loss 0.29\n"])
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / f"job-results-{scheme}-{width}.png"))
    assert job.violations() == []
    diff.locator("[data-navi=result-cell]").click()
    assert page.evaluate("window.opened") == {"path": f"{FOLDER}3-0900.ipynb", "cell": "c-2"}
    rows.nth(0).locator("[data-navi=result-changes]").click()
    expect(diff).to_have_count(0)


def test_a_job_is_changed_and_only_what_was_changed_is_sent(job: Chat) -> None:
    notebooks(job.page)
    job.find("recalls-toggle").click()
    job.find("recall-edit").click()
    expect(job.find("job-path")).to_be_focused()
    days = job.find("job-parameter", "[data-name=days]")
    expect(days).to_have_value("7")
    days.fill("8")
    body = sent(job.page, "PATCH", lambda: job.find("recall-save").click())
    assert list(body) == ["run"]
    assert body["run"]["parameters"] == {"days": 8}


def test_below_an_answer_of_a_notebook_are_its_result_the_failed_cell_and_what_has_changed(
    open_chat: Callable[..., Chat], control: Control
) -> None:
    chat = open_chat("job-answer")
    page = chat.page
    notebooks(page)
    control("recall?session=job-answer&in=0.1&fire=1&title=notebook%20fails&id=job-answer-daily")
    chat.settled()
    page.evaluate(
        "addEventListener('navi-open-file', event => { event.preventDefault(); window.opened = event.detail; })"
    )
    chat.find("result-open").click()
    assert page.evaluate("window.opened.path").startswith("reports/weekly-results/")
    chat.find("result-cell").click()
    assert page.evaluate("window.opened.cell") == "c-2"
    page.route("**/recalls/job-answer-daily/results?*", lambda route: reply(route, {"results": [], "next": None}))
    chat.find("result-changes").press("Enter")
    expect(chat.find("result-diff")).to_contain_text("no result before this one")
    assert chat.violations() == []
    chat.find("remind").last.click()
    chat.find("remind-item", "[data-when=daily]").click()
    expect(chat.find("job-path")).to_have_value(PATHS[0])
    expect(chat.find("job-parameter", "[data-name=days]")).to_have_value("7")


def test_a_recall_that_runs_is_stopped_from_the_view_of_all_sessions(
    open_chat: Callable[..., Chat], control: Control
) -> None:
    control("fresh")
    control("title?session=job-other&is=Weekly")
    control("firing?session=job-other&recall=job-x&title=Run%20weekly&status=running&run=r_7")
    chat = open_chat("job-stop")
    chat.page.route("**/commands", lambda route: route.continue_())  # without it the body of a request is not seen
    chat.find("today").click()
    row = chat.find("overview-firing", "[data-recall-id=job-x]")
    with chat.page.expect_request("**/sessions/job-other/commands") as asked:
        row.locator("[data-navi=overview-stop]").click()
    assert asked.value.post_data_json == {"type": "stop", "run_id": "r_7"}
