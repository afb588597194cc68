"""Recalls as people meet them: a long cell, a closed browser, and what is there when they come back.

The model is scripted, behind a real provider protocol; servers, kernels, notebooks and browsers are real.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.hosts import AXE, Host, answers, chat_of, kernel_is, run_cell, save, shot
from tests.e2e.client import until
from tests.kernel.test_control import provider_of
from tests.support.needs import needed
from tests.support.providers import KEY, Reply, ScriptedProvider
from tests.support.server import JupyterServer

MODEL = "openai-chat:gpt-6.1-sol"
PATIENCE = 40_000
"""Milliseconds that anything may take on a loaded machine."""
ZONE = "Europe/Berlin"
EPOCHS = 20
CHAT = "%load_ext navi_jupyter\nimport navi_jupyter as navi\nnavi.chat()"
ASK = "%navi recall when done summarize the output"
TRAIN = f"""import time
import matplotlib.pyplot as plt

losses = []
for epoch in range({EPOCHS}):
    time.sleep(1)
    losses.append(1 / (epoch + 1))
    print(f"epoch {{epoch}}: loss {{losses[-1]:.3f}}")
plt.plot(losses)
plt.show()"""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", autouse=True)
def patient() -> Iterator[None]:
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as provider:
        yield provider


def environment(provider: ScriptedProvider) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}


@pytest.fixture(scope="module")
def host(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("lab", tmp_path_factory.mktemp("lab"), env=environment(provider))
    yield host
    host.server.stop()


@pytest.fixture(scope="module")
def server(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """Without JupyterLab: its own page is enough."""
    with JupyterServer(tmp_path_factory.mktemp("bare"), env=environment(provider)).start() as server:
        yield server


def new_context(browser: Browser) -> BrowserContext:
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, timezone_id=ZONE)
    context.set_default_timeout(PATIENCE)
    return context


def look_at(page: Page) -> None:
    """Bring a tab to the front; all others of its browser have no focus, what Playwright hides from each new page."""
    for each in page.context.pages:
        page.context.new_cdp_session(each).send("Emulation.setFocusEmulationEnabled", {"enabled": False})
    page.bring_to_front()


def part(chat: Locator, name: str, more: str = "") -> Locator:
    return chat.locator(f"[data-navi={name}]{more}")


# --- the long cell ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Training:
    """A notebook whose last cell trains."""

    name: str
    cells: tuple[str, ...]
    mark: str
    """What only this notebook prints; the model's answer is told by it."""

    @property
    def path(self) -> str:
        return f"{self.name}.ipynb"


BEFORE = Training(name="before", cells=(CHAT, ASK, f"print('resnet')\n{TRAIN}"), mark="resnet")
INSIDE = Training(name="inside", cells=(CHAT, f"{ASK}\nprint('densenet')\n{TRAIN}"), mark="densenet")


def open_training(host: Host, context: BrowserContext, training: Training) -> Page:
    """The page, with all but the last cell run, and saved with the chat."""
    host.write(training.name, *training.cells)
    page = host.open(context, training.name)
    for index in range(len(training.cells) - 1):
        run_cell(page, index)
        chat_of(page)
        kernel_is(page, "idle")
    save(page)
    return page


def session_of(host: Host, training: Training) -> dict[str, Any]:
    sessions = host.server.get("navi/api/sessions")["sessions"]
    (found,) = [session for session in sessions if session["notebook_path"] == training.path]
    return dict(found)


def wait_for_unread(server: JupyterServer, sid: str) -> None:
    server.wait_for(lambda: bool(server.get(f"navi/api/sessions/{sid}")["unread"]), within=60)


def asked_of(provider: ScriptedProvider, training: Training) -> tuple[str, list[dict[str, Any]]]:
    """The text of the prompt that the model got when the cell was done, and the pictures that came with it."""
    (body,) = [each.body for each in provider.requests if training.mark in json.dumps(each.body)]
    contents = [each["content"] for each in body["messages"] if each["role"] == "user"]
    parts = [one for content in contents if isinstance(content, list) for one in content]
    texts = [one["text"] for one in parts if one["type"] == "text"] + [one for one in contents if isinstance(one, str)]
    return "\n".join(texts), [one for one in parts if one["type"] == "image_url"]


def test_a_cell_that_trains_is_summed_up_with_every_browser_closed_and_that_is_there_unread_later(
    host: Host, browser: Browser, provider: ScriptedProvider
) -> None:
    needed(find_spec("matplotlib"), "matplotlib")
    provider.requests.clear()
    provider.script = [
        Reply(f"The {each.mark} has converged: the loss fell to 0.050.", when=each.mark) for each in (BEFORE, INSIDE)
    ]
    context = new_context(browser)
    pages = {training.name: open_training(host, context, training) for training in (BEFORE, INSIDE)}
    for training in (BEFORE, INSIDE):
        run_cell(pages[training.name], len(training.cells) - 1)
    for name, page in pages.items():
        expect(page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")).to_contain_text("epoch 0: loss 1.000")
        shot(page, f"train-{name}")
        assert page.locator(f"text=epoch {EPOCHS - 1}:").count() == 0, "it still trains"
    context.close()
    assert [session_of(host, training)["unread"] for training in (BEFORE, INSIDE)] == [0, 0]

    for training in (BEFORE, INSIDE):
        sid = session_of(host, training)["id"]
        wait_for_unread(host.server, sid)
        text, pictures = asked_of(provider, training)
        for expected in (training.cells[-1], "epoch 0: loss 1.000", f"epoch {EPOCHS - 1}: loss 0.050"):
            assert expected in text
        assert "summarize the output" in text
        (took,) = re.findall(r"after (\d+(?:\.\d+)?) s", text)
        assert EPOCHS <= float(took) < EPOCHS * 3
        assert len(pictures) == 1
        assert pictures[0]["image_url"]["url"].startswith("data:image/png;base64,")

    context = new_context(browser)
    elsewhere, page, other = (context.new_page() for _ in range(3))
    page.goto(f"{host.server.url}lab/tree/{BEFORE.path}?reset&token={host.server.token}", wait_until="commit")
    look_at(elsewhere)
    chat = chat_of(page)
    is_summed_up(chat, BEFORE)
    tab = page.locator(".lm-TabBar-tab.navi-unread-1")
    expect(tab).to_have_count(1)
    expect(part(chat, "unread")).to_have_text("1 unread")
    shot(page, "back-1-unread")

    sid = session_of(host, BEFORE)["id"]
    other.goto(f"{host.server.url}navi?session={sid}&token={host.server.token}", wait_until="commit")
    look_at(elsewhere)
    there = chat_of(other)
    expect(other).to_have_title("(2) Navi")
    expect(part(there, "unread")).to_have_text("1 unread")
    look_at(page)
    chat.scroll_into_view_if_needed()
    for each in (chat, there):
        expect(part(each, "unread")).to_have_count(0)
    expect(tab).to_have_count(0)
    expect(other).to_have_title("(1) Navi")
    assert [session_of(host, training)["unread"] for training in (BEFORE, INSIDE)] == [0, 1]
    shot(page, "back-2-read")

    look_at(other)
    other.locator("[data-navi=session-open]").filter(has_text=INSIDE.path).click()
    is_summed_up(there, INSIDE)
    expect(other).to_have_title("Navi")
    shot(other, "back-3-other")
    context.close()


def is_summed_up(chat: Locator, training: Training) -> None:
    """The answer is there, and the plot is in the card of what was asked."""
    expect(answers(chat)).to_contain_text(f"The {training.mark} has converged")
    picture = part(chat, "message", "[data-role=user][data-origin=recall]").locator("img")
    expect(picture).to_have_count(1)
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => Math.min(image.naturalWidth, image.clientWidth)") > 200


# --- the panel, on the server's own page -----------------------------------------------------------------------------


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = new_context(browser)
    yield context
    context.close()


def new_session(server: JupyterServer, title: str) -> str:
    return str(server.request("POST", "navi/api/sessions", {"title": title, "timezone": ZONE})["id"])


def visit(server: JupyterServer, context: BrowserContext, sid: str) -> Locator:
    """The session's chat, by the link that notifications have."""
    page = context.new_page()
    page.goto(f"{server.url}navi?session={sid}&token={server.token}")
    return chat_of(page)


def new_recall(
    server: JupyterServer, sid: str, message: str, schedule: dict[str, Any], **policy: Any
) -> dict[str, Any]:
    body = {"session_id": sid, "message": message, "schedule": schedule, "policy": policy}
    return dict(server.request("POST", "navi/api/recalls", body))


def tab_to(page: Page, name: str) -> None:
    """Press Tab until it is reached."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.navi") == name:
            return
    raise AssertionError(f"{name} cannot be reached with the keyboard")


def violations(page: Page) -> list[tuple[str, str]]:
    page.add_script_tag(path=str(AXE))
    found = page.evaluate("async () => (await axe.run()).violations")
    return [(one["id"], one["nodes"][0]["html"]) for one in found]


def row(chat: Locator, text: str) -> Locator:
    return part(chat, "recall", f':has-text("{text}")')


def test_a_recall_is_made_in_words_with_the_keyboard_alone_and_lives_in_all_views(
    server: JupyterServer, context: BrowserContext, provider: ScriptedProvider, tmp_path: Path
) -> None:
    needed(AXE.exists(), "axe-core (npm ci in js/)")
    provider.script = [Reply("The report is written.")]
    sid = new_session(server, "By hand")
    here, there = visit(server, context, sid), visit(server, context, sid)
    page = here.page
    page.bring_to_front()
    part(there, "recalls-toggle").click()
    tab_to(page, "recalls-toggle")
    page.keyboard.press("Enter")
    expect(part(here, "recall-new")).to_be_focused()
    page.keyboard.press("Enter")
    expect(part(here, "recall-message")).to_be_focused()
    page.keyboard.type("write the report")
    page.keyboard.press("Tab")
    page.keyboard.type("*/90 9 * * *")
    expect(part(here, "recall-warning")).to_contain_text("90 minutes is longer than the hour")
    page.keyboard.press("Control+A")
    page.keyboard.type("every other Friday at 16:00")
    expect(part(here, "recall-parsed")).to_contain_text("every other Friday at 16:00")
    shot(page, "panel-1-form")
    times = [each.get_attribute("datetime") or "" for each in part(here, "recall-meaning").locator("time").all()]
    slots = [datetime.fromisoformat(each).astimezone(ZoneInfo(ZONE)) for each in times]
    assert [(slot.isoweekday(), slot.hour) for slot in slots] == [(5, 16)] * 3
    assert slots[1].date() - slots[0].date() == timedelta(days=14)
    page.keyboard.press("Enter")

    expect(part(here, "recall-new")).to_be_focused()
    for chat in (here, there):
        expect(row(chat, "write the report")).to_contain_text("every other Friday at 16:00")
    (recall,) = server.get(f"navi/api/recalls?session_id={sid}")["recalls"]
    assert datetime.fromisoformat(recall["next_at"]) == slots[0]
    tab_to(page, "recall-fire")
    page.keyboard.press("Enter")
    for chat in (here, there):
        expect(answers(chat)).to_contain_text("The report is written.")
    tab_to(page, "recall-pause")
    page.keyboard.press("Enter")
    expect(row(there, "write the report")).to_have_attribute("data-status", "paused")
    tab_to(page, "recall-history")
    page.keyboard.press("Enter")
    expect(part(here, "firing")).to_contain_text(re.compile("done.*run by hand", re.DOTALL))
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        page.emulate_media(color_scheme=scheme)
        shot(page, f"panel-2-{scheme}")
        assert violations(page) == []

    context.set_offline(True)
    expect(part(here, "status")).to_have_attribute("data-state", "offline")
    part(here, "recall-resume").click()
    expect(row(here, "write the report").locator("[role=alert]")).to_contain_text("server does not answer")
    server.request("POST", f"navi/api/recalls/{recall['id']}/resume")
    new_recall(server, sid, "made elsewhere", {"kind": "when", "when": "changed data.csv"})
    context.set_offline(False)
    expect(row(here, "write the report")).to_have_attribute("data-status", "pending")
    expect(row(here, "made elsewhere")).to_contain_text("waiting · when data.csv changes")

    with page.expect_download() as download:
        part(here, "recall-export").click()
    download.value.save_as(tmp_path / "mine.toml")
    other = visit(server, context, new_session(server, "Elsewhere"))
    part(other, "recalls-toggle").click()
    (tmp_path / "bad.toml").write_text('[[recall]]\nmessage = "x"\nwhn = 1\n')
    part(other, "recall-file").set_input_files(tmp_path / "bad.toml")
    expect(part(other, "recalls-problem").first).to_contain_text("whn")
    part(other, "recall-file").set_input_files(tmp_path / "mine.toml")
    expect(part(other, "recall-offer").locator("li")).to_have_count(2)
    shot(other.page, "panel-3-import")
    assert violations(other.page) == []
    part(other, "recall-import-make").click()
    expect(part(other, "recall")).to_have_count(2)
    expect(row(other, "write the report")).to_contain_text("every other Friday at 16:00")


def test_who_was_elsewhere_while_the_server_was_off_is_told_once_and_finds_what_ran_and_what_did_not(
    server: JupyterServer, context: BrowserContext, provider: ScriptedProvider
) -> None:
    provider.script = [Reply("Late, but **done**.")]
    sid = new_session(server, "Off")
    context.grant_permissions(["notifications"], origin=server.url.rstrip("/"))
    context.add_init_script(
        "window.told = []; const Real = Notification; window.Notification = class extends Real {"
        " constructor(title, options) { super(title, options); this.onshow = () => window.told.push(title); } };"
    )
    elsewhere = context.new_page()
    chats = [visit(server, context, sid) for _ in range(2)]
    look_at(elsewhere)
    new_recall(server, sid, "look at the loss", {"kind": "once", "in": "2s"})
    strict = new_recall(server, sid, "only on time", {"kind": "once", "in": "2s"}, grace="1s")
    server.kill9()
    expect(part(chats[0], "status")).to_have_attribute("data-state", "reconnecting")
    over = datetime.fromisoformat(strict["next_at"]) + timedelta(seconds=1.5)
    elsewhere.wait_for_function(f"() => Date.now() > {over.timestamp() * 1000}")
    server.start()

    for chat in chats:
        expect(part(chat, "unread")).to_have_text("1 unread")
        expect(answers(chat)).to_contain_text("Late, but done.")
    once = [[], ["look at the loss: done"]]
    until(lambda: sorted((chat.page.evaluate("told") for chat in chats), key=len) == once)
    shot(chats[0].page, "off-1-back")

    back = chats[1]
    look_at(back.page)
    expect(part(back, "away-run")).to_contain_text("look at the loss Late, but done.")
    expect(part(back, "away-slot")).to_contain_text("only on time")
    expect(part(back, "away-summary")).to_have_text("1 run · 1 time nothing ran")
    for chat in chats:
        expect(part(chat, "unread")).to_have_count(0)
    part(back, "recalls-toggle").click()
    back.locator(".navi-past summary").click()
    row(back, "look at the loss").locator("[data-navi=recall-history]").click()
    expect(part(back, "firing")).to_contain_text(re.compile(r"done.* late", re.DOTALL))
    shot(back.page, "off-2-back")
    part(back, "away-dismiss").click()
    expect(part(back, "away")).to_have_count(0)
    assert sorted((chat.page.evaluate("told") for chat in chats), key=len) == once, "one of two tabs tells of it"
    back.page.reload()
    expect(answers(chat_of(back.page))).to_contain_text("Late, but done.")
    expect(part(back, "away")).to_have_count(0)
