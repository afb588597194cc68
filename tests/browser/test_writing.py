"""Writing in JupyterLab: a cell is mentioned, a picture pasted, a file dragged from the file browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.hosts import Host, answers, run_cell, shot

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PATIENCE = 40_000
COPY_PICTURE = """async () => {
    const canvas = Object.assign(document.createElement("canvas"), {width: 40, height: 30});
    canvas.getContext("2d").fillRect(5, 5, 20, 10);
    const picture = await new Promise(done => canvas.toBlob(done, "image/png"));
    await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
}"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("lab", tmp_path_factory.mktemp("lab"))
    yield host
    host.server.stop()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


def drag(page: Page, start: Any, end: Any) -> None:
    """By the mouse, in steps, as a hand does."""
    begin, target = start.bounding_box(), end.bounding_box()
    page.mouse.move(begin["x"] + 30, begin["y"] + begin["height"] / 2)
    page.mouse.down()
    for share in (0.1, 0.4, 0.7, 1.0):
        x = begin["x"] + 30 + share * (target["x"] + target["width"] / 2 - begin["x"] - 30)
        y = begin["y"] + share * (target["y"] + target["height"] / 2 - begin["y"])
        page.mouse.move(x, y, steps=4)
    page.mouse.up()


def test_a_cell_a_picture_and_a_file_of_the_file_browser_go_along(host: Host, context: BrowserContext) -> None:
    host.server.request("PUT", "api/contents/data", {"type": "directory"})
    file = {"type": "file", "format": "text", "content": "month,sales\n1,7\n"}
    host.server.request("PUT", "api/contents/sales.csv", file)
    host.write("writing", "import math\nanswer = math.sqrt(1764)\nanswer")
    page = host.open(context, "writing")
    run_cell(page, 0)
    page.locator(".jp-OutputArea-output", has_text="42.0").wait_for()
    page.locator("[data-navi=panel-tab]").click()
    chat = page.locator("navi-panel navi-chat")
    box = chat.locator("[data-navi=input]")
    expect(box).to_be_focused(timeout=PATIENCE)

    page.keyboard.type("compare @cell")
    option = chat.locator("[data-navi=suggestion]").first
    expect(option).to_contain_text("In [1]")
    shot(page, "writing-mention")
    page.keyboard.press("Enter")
    expect(box).to_have_value("compare @cell:In[1] ")

    page.evaluate(COPY_PICTURE)
    box.focus()
    page.keyboard.press("Control+v")
    ready = chat.locator("[data-navi=attachment][data-status=ready]")
    expect(ready).to_have_count(1)

    drag(page, page.locator(".jp-DirListing-item", has_text="sales.csv"), chat.locator("[data-navi=log]"))
    expect(ready).to_have_count(2)
    expect(box).to_be_focused()
    shot(page, "writing-dragged")

    page.keyboard.type("with these")
    page.keyboard.press("Enter")
    answers(chat).first.wait_for()
    sid = chat.get_attribute("session")
    messages = host.server.get(f"navi/api/sessions/{sid}/messages")["messages"]
    (mine,) = [one for one in messages if one["role"] == "user"]
    assert mine["content"] == "compare @cell:In[1] with these"
    attached = {one["name"]: one for one in mine["attachments"]}
    assert {"sales.csv", "@cell:In[1]"} < set(attached)
    assert [one["media_type"] for one in attached.values()].count("image/png") == 1
    cell = host.server.download(f"navi/api/attachments/{attached['@cell:In[1]']['id']}").decode()
    assert "math.sqrt(1764)" in cell
    assert "42.0" in cell
    assert host.server.download(f"navi/api/attachments/{attached['sales.csv']['id']}") == b"month,sales\n1,7\n"
