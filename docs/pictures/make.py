"""Makes the pictures of the README, from a real JupyterLab with a scripted model: ``python docs/pictures/make.py``.

Needs the test extra, the built JavaScript and Chromium, as the browser tests do. Writes ``lab-light.png`` and
``lab-dark.png`` (a session beside a notebook) and ``recall.webp`` (ten seconds of a recall that comes back) beside this
file. ``--only light``, ``dark`` or ``recall`` makes one of them; ``--to FOLDER`` writes them elsewhere.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # the helpers of the tests are not installed

from tests.browser.conftest import ARGUMENTS  # noqa: E402
from tests.browser.hosts import Host, run_cell  # noqa: E402
from tests.kernel.test_control import provider_of  # noqa: E402
from tests.support.needs import chromium  # noqa: E402
from tests.support.providers import KEY, Call, Reply, ScriptedProvider  # noqa: E402

MODEL = "openai-chat:gpt-6.1-sol"
ZONE = "Europe/Berlin"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
THEME_FILE = "lab-settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
PATIENCE = 60_000  # milliseconds

DATA = """\
import matplotlib.pyplot as plt
import numpy as np

rng = np.random.default_rng(7)
epochs = np.arange(1, 41)
train = 0.9 * np.exp(-epochs / 9) + 0.08 + rng.normal(0, 0.008, 40)
rise = np.clip(epochs - 22, 0, None) * 0.006
val = 0.85 * np.exp(-epochs / 9) + 0.16 + rise + rng.normal(0, 0.01, 40)"""
PLOT = """\
plt.figure(figsize=(6.4, 3.2))
plt.plot(epochs, train, label="train")
plt.plot(epochs, val, label="validation")
plt.xlabel("epoch")
plt.ylabel("loss")
plt.legend();"""
ANSWER = (
    "The validation loss is lowest at **epoch 24** (0.219) and rises from there, while the training loss still falls: "
    "the model begins to overfit.\n\nStop there, and keep the best weights:\n\n"
    "```python\nbest = int(np.argmin(val)) + 1\nprint(f'best epoch: {best}, loss {val.min():.3f}')\n```\n"
)
COMES_BACK = (
    "The validation loss is **0.293** at epoch 40, up from 0.219 at epoch 24. It has not improved for sixteen epochs: "
    "I would stop here and take the weights of epoch 24."
)


def lab(home: Path, provider: ScriptedProvider, theme: str) -> Host:
    """A JupyterLab with this theme, whose new sessions have the scripted model."""
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL, "TZ": ZONE}
    host = Host("lab", home, env=env)
    (home / THEME_FILE).write_text(f'{{"theme": "{THEMES[theme]}"}}')  # read when a page is loaded
    return host


def warm_up(host: Host) -> None:
    """The first run imports what calls models, which takes a moment that is no part of the story."""
    sid = host.server.request("POST", "navi/api/sessions", {"title": "Warm-up"})["id"]
    host.server.request("POST", f"navi/api/sessions/{sid}/commands", {"type": "prompt", "text": "Are you there?"})
    while host.server.get(f"navi/api/sessions/{sid}/runs")["runs"][0]["ended_at"] is None:
        time.sleep(0.1)
    host.server.request("DELETE", f"navi/api/sessions/{sid}?forever=true")


def notebook_page(browser: Browser, host: Host, theme: str, width: int, height: int, *, scale: float = 1) -> Page:
    """A page with the notebook, its cells executed, and the panel beside it."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        device_scale_factor=scale,
        color_scheme=theme,  # type: ignore[arg-type]
        timezone_id=ZONE,
        locale="en-GB",
    )
    context.set_default_timeout(PATIENCE)
    host.write("training", DATA, PLOT)
    page = host.open(context, "training")
    page.evaluate("() => { jupyterapp.shell.collapseLeft(); return null; }")
    for index in range(2):
        run_cell(page, index)
    page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output img").first.wait_for()
    page.locator("[data-navi=panel-tab]:visible").first.click()
    expect(chat_of(page).locator("[data-navi=input]")).to_be_enabled(timeout=PATIENCE)
    handle = page.locator("#jp-main-split-panel > .lm-SplitPanel-handle:not(.lm-mod-hidden)").last.bounding_box()
    if handle is None:
        raise RuntimeError("There is no handle between the notebook and the panel.")
    at = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 3
    page.mouse.move(*at)
    page.mouse.down()
    page.mouse.move(width - max(400, round(width * 0.42)), at[1], steps=5)
    page.mouse.up()
    return page


def chat_of(page: Page) -> Locator:
    return page.locator("navi-panel navi-chat")


def write(page: Page, text: str, *, delay: float = 0) -> None:
    """Write a prompt as a person does, and send it."""
    chat_of(page).locator("[data-navi=input]").press_sequentially(text, delay=delay)
    page.keyboard.press("Enter")


def wait_for_answers(page: Page, count: int) -> None:
    done = chat_of(page).locator("[data-navi=message][data-role=assistant][data-status=done]")
    expect(done).to_have_count(count, timeout=PATIENCE)


def remembered(when: str, title: str, message: str) -> Reply:
    """The model makes a recall."""
    return Reply(calls=(Call("create_recall", {"when": when, "title": title, "message": message}),))


def still(browser: Browser, provider: ScriptedProvider, theme: str, target: Path) -> None:
    """A question that is answered with code, and a recall for each morning."""
    provider.restart(
        Reply(ANSWER), remembered("every weekday at 9", "Check the training", "Check the training"),
        Reply("I look at it **every weekday at 9**, also with every browser closed. You find here what I find."),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        host = lab(Path(home), provider, theme)
        try:
            page = notebook_page(browser, host, theme, 1400, 860, scale=1.5)
            write(page, "Why does the validation loss rise?")
            wait_for_answers(page, 1)
            write(page, "Check the training every weekday at 9")
            wait_for_answers(page, 2)
            page.mouse.move(5, 5)
            page.wait_for_timeout(1500)  # what fades has faded
            page.screenshot(path=target)
            page.context.close()
        finally:
            host.server.stop()
    squeeze(target)


def squeeze(target: Path) -> None:
    """256 colours are enough for an interface, and a third of the bytes."""
    with Image.open(target) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)


class Film:
    """Frames of a page with the time that each is to be seen."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[float, bytes]] = []

    def roll(self, until: Callable[[], bool], *, at_most: float) -> None:
        """Take frames until something is seen, or for so many seconds."""
        end = time.monotonic() + at_most
        while time.monotonic() < end and not until():
            self._frames.append((time.monotonic(), self._page.screenshot(type="png", animations="allow")))
            self._page.wait_for_timeout(60)

    def save(self, target: Path, *, seconds: float) -> None:
        """As an animation that lasts so long at most; frames that show the same are one."""
        kept: list[tuple[float, bytes]] = []
        for at, frame in self._frames:
            if not kept or frame != kept[-1][1]:
                kept.append((at, frame))
        ends = [at for at, _ in kept[1:]] + [self._frames[-1][0] + 1.0]
        lengths = [max(0.05, min(end - at, 1.2)) for (at, _), end in zip(kept, ends, strict=True)]
        pace = min(1.0, (seconds - 1.5) / max(sum(lengths), 0.1))
        durations = [round(1000 * length * pace) for length in lengths]
        durations[-1] += 1500  # the end is what is to be read
        pictures = [Image.open(io.BytesIO(frame)).convert("RGB") for _, frame in kept]
        pictures[0].save(
            target, save_all=True, append_images=pictures[1:], duration=durations, loop=0, quality=82, method=4
        )


def recall(browser: Browser, provider: ScriptedProvider, target: Path) -> None:
    """A prompt, its recall, and how it comes back by itself."""
    provider.restart(
        Reply("Yes."),
        remembered("in 5 seconds", "Check the loss", "Check the loss"),
        Reply("I check the loss in five seconds, and tell you what I find."),
        Reply(*(f"{word} " for word in COMES_BACK.split(" ")), delay=0.03),
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        host = lab(Path(home), provider, "light")
        try:
            warm_up(host)
            page = notebook_page(browser, host, "light", 1000, 620)
            film = Film(page)
            done = chat_of(page).locator("[data-navi=message][data-role=assistant][data-status=done]")
            film.roll(lambda: False, at_most=0.5)
            for part in ("In 5 seconds, ", "check ", "the loss"):
                chat_of(page).locator("[data-navi=input]").press_sequentially(part)
                film.roll(lambda: False, at_most=0.2)
            page.keyboard.press("Enter")
            film.roll(lambda: done.count() >= 2, at_most=30)
            film.roll(lambda: False, at_most=1.0)
            film.save(target, seconds=10)
            page.context.close()
        finally:
            host.server.stop()


def main() -> None:
    options = argparse.ArgumentParser(description="Make the pictures of the README.")
    options.add_argument("--only", choices=("light", "dark", "recall"))
    options.add_argument("--to", type=Path, default=HERE)
    given = options.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    with provider_of(Reply("unscripted")) as provider, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        for theme in THEMES:
            if given.only in (None, theme):
                still(browser, provider, theme, given.to / f"lab-{theme}.png")
        if given.only in (None, "recall"):
            recall(browser, provider, given.to / "recall.webp")
        browser.close()
    for picture in sorted(given.to.glob("*.*")):
        if picture.suffix in (".png", ".webp"):
            sys.stdout.write(f"{picture.name}: {picture.stat().st_size / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
