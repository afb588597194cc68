"""A model to begin with: a person without one pastes a key, tries it, and asks; on the server's own page."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.hosts import Host, shot
from tests.browser.test_recalls import part, violations
from tests.kernel.test_control import provider_of
from tests.support.providers import Reply, ScriptedProvider
from tests.support.server import JupyterServer

PATIENCE = 40_000
KEY = "sk-ant-planted-0123456789"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of() as provider:
        yield provider


@pytest.fixture
def server(provider: ScriptedProvider, tmp_path: Path) -> Iterator[JupyterServer]:
    server = JupyterServer(tmp_path, env={"ANTHROPIC_BASE_URL": provider.url}).start()
    yield server
    server.stop()


def empty_chat(browser: Browser, server: JupyterServer, *, scheme: str = "light", width: int = 1400) -> Page:
    sid = server.request("POST", "navi/api/sessions", {})["id"]
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(f"{server.url}navi?session={sid}&token={server.token}")
    part(page.locator("navi-chat"), "setup-form").wait_for()
    return page


def test_a_key_that_is_pasted_is_tried_and_its_model_answers_the_next_prompt(
    browser: Browser, server: JupyterServer, provider: ScriptedProvider
) -> None:
    provider.restart(Reply("OK"), Reply("I am here."))
    page = empty_chat(browser, server)
    chat = page.locator("navi-chat")
    shot(page, "models-1-card")
    assert violations(page) == []
    assert part(chat, "setup-provider").input_value() == "anthropic"
    part(chat, "setup-value").fill(KEY)
    page.keyboard.press("Enter")
    expect(part(chat, "setup-outcome")).to_contain_text("is used from now on", timeout=PATIENCE)
    shot(page, "models-2-answered")
    part(chat, "input").fill("hello")
    page.keyboard.press("Enter")
    expect(part(chat, "message", "[data-role=assistant]").last).to_contain_text("I am here.", timeout=PATIENCE)
    assert KEY in str(provider.requests[-1].headers)
    stored = server.home / "data" / "navi" / "providers.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    files = [path for path in server.home.rglob("*") if path.is_file() and path != stored]
    assert not [path for path in files if KEY.encode() in path.read_bytes()], "it is nowhere else"
    assert KEY not in page.content()
    page.context.close()


def test_a_key_that_is_refused_is_not_kept_and_the_reason_stands_beside_it(
    browser: Browser, server: JupyterServer, provider: ScriptedProvider
) -> None:
    provider.restart(Reply(status=401))
    page = empty_chat(browser, server, scheme="dark", width=420)
    chat = page.locator("navi-chat")
    shot(page, "models-3-dark-420")
    part(chat, "setup-value").fill(KEY)
    part(chat, "setup-save").click()
    expect(part(chat, "setup-outcome")).to_contain_text("The key is not kept", timeout=PATIENCE)
    shot(page, "models-4-refused")
    assert violations(page) == []
    assert server.get("navi/api/providers")["providers"][0] is not None
    assert not [one for one in server.get("navi/api/providers")["providers"] if one["source"] == "stored"]
    part(chat, "setup-dismiss").click()
    expect(part(chat, "model-setup")).to_have_count(0)
    page.context.close()


@pytest.fixture
def ollama(provider: ScriptedProvider) -> Iterator[None]:
    """The scripted model at the port where Ollama listens."""
    target = urlsplit(provider.url)
    try:
        door = socket.create_server(("127.0.0.1", 11434))
    except OSError:
        pytest.skip("something listens at Ollama's port")

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = door.accept()
                server = socket.create_connection((target.hostname or "", target.port or 0))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield
    door.close()


@pytest.mark.usefixtures("ollama")
def test_in_a_fresh_notebook_a_server_of_this_machine_is_used_with_one_click_and_remembered(
    browser: Browser, provider: ScriptedProvider, tmp_path: Path
) -> None:
    provider.restart(Reply("OK"), Reply("I run on this machine."))
    host = Host("lab", tmp_path)
    try:
        context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="dark")
        context.set_default_timeout(PATIENCE)
        host.write("fresh", "a = 1")
        page = host.open(context, "fresh")
        page.locator("[data-navi=panel-tab]:visible").click()
        chat = page.locator("navi-panel navi-chat")
        offer = part(chat, "setup-local", "[data-server=ollama]")
        expect(offer).to_contain_text("Ollama, found on this machine", timeout=PATIENCE)
        shot(page, "models-5-panel")
        assert host.server.get("navi/api/sessions")["sessions"] == [], "there is no session yet"
        offer.locator("[data-navi=setup-use]").first.click()
        expect(part(chat, "setup-outcome")).to_contain_text("is used from now on", timeout=PATIENCE)
        shot(page, "models-6-panel-answered")
        part(chat, "input").fill("hello")
        page.keyboard.press("Enter")
        expect(part(chat, "message", "[data-role=assistant]").last).to_contain_text("on this machine", timeout=PATIENCE)
        (session,) = host.server.get("navi/api/sessions")["sessions"]
        assert session["model"] == "ollama:qwen3:8b"
        assert host.server.request("POST", "navi/api/sessions", {})["model"] == "ollama:qwen3:8b"
        page.locator("[data-navi=panel-new]").click()
        part(chat, "empty").wait_for()
        expect(part(chat, "model-setup")).to_have_count(0)
        context.close()
    finally:
        host.server.stop()
