"""The language of the interface: its texts are in a catalogue, have room for longer words, and follow the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect
from test_overview import fill, some_recalls
from test_recalls import AWAY, FIRING, PREVIEW, TOOLS, answer
from views import JS, OUT, Chat, Control

Open = Callable[..., Chat]

STATIC = JS.parent / "navi_jupyter" / "static"
LOOK_FOR = (Path(__file__).parent / "marked_texts.js").read_text(encoding="utf-8")


def test_all_that_is_shown_is_in_the_catalogue_and_has_room_for_longer_words(
    open_chat: Open, control: Control, tmp_path: Path
) -> None:
    (tmp_path / "plot.csv").write_text("a,b\n1,2\n")
    (tmp_path / "program.exe").write_text("no")
    some_recalls(control, "marked", "marked-2")
    control("seed?count=5")
    control("facts")
    control("mcp?server=files&status=ready")
    chat = open_chat("marked", query="marked", viewport={"width": 420, "height": 900})
    page = chat.page
    page.route("**/recalls/preview", answer(PREVIEW))
    page.route("**/firings*", answer({"firings": [FIRING], "next": "1:2"}))
    page.route("**/away*", answer(AWAY))
    page.route("**/tools?*", answer({"tools": TOOLS, "next": None}))
    page.reload()
    fill(page)
    found: dict[str, list[str]] = {}
    seen = set()

    def look(state: str) -> None:
        hits = page.evaluate(
            f"(() => {{ const look = {LOOK_FOR}; return [...look.unmarked(), ...look.overflow()]; }})()"
        )
        problems = [one for one in hits if one not in seen]
        seen.update(problems)
        if problems:
            found[state] = problems
        OUT.mkdir(exist_ok=True)
        page.screenshot(path=str(OUT / f"marked-{state.replace(' ', '-')}.png"))

    def close() -> None:
        if chat.find("overlay-close").count():
            chat.find("overlay-close").first.click()

    chat.find("empty").wait_for()
    look("nothing yet")
    for prompt in ("tools", "rich"):
        chat.say(prompt)
        chat.settled()
    look("an answer")
    for prompt in ("code", "cell"):
        chat.say(prompt)
        chat.find("ask-approve").last.wait_for()
        look(f"a question {prompt}")
        chat.find("ask-deny").last.click()
        chat.settled()
    chat.say("question")
    chat.find("ask", "[data-kind=question]").wait_for()
    look("a form")
    chat.find("ask-decline").click()
    chat.settled()
    for prompt in ("output 8 10", "usage", "fail provider_auth", "error"):
        chat.say(prompt)
        chat.settled()
        look(prompt)
    chat.say("workers")
    chat.find("ask-approve").last.wait_for()
    chat.say("and then")
    chat.find("queue-edit").first.click()
    chat.find("mode").click()
    look("a queue")
    page.keyboard.press("Escape")
    chat.find("stop").click()
    chat.find("stop").wait_for(state="detached")
    chat.find("file-input").set_input_files([tmp_path / "plot.csv"])
    chat.find("attachment").first.wait_for()
    chat.find("file-input").set_input_files([tmp_path / "program.exe"])
    look("files")
    for written in ("@", "/", "/model "):
        chat.find("input").fill("")
        chat.find("input").press_sequentially(written)
        chat.find("suggestion").first.wait_for()
        look(f"completion of {'at' if written == '@' else written.strip('/ ') or 'commands'}")
    chat.find("input").fill("")
    chat.find("remind").last.click()
    chat.find("remind-menu").wait_for()
    look("remind")
    page.keyboard.press("Escape")
    chat.find("edit-message").last.evaluate("button => button.click()")  # it appears with the pointer
    look("editing")
    chat.find("edit-cancel").click()
    for name in ("settings", "recalls", "sessions"):
        chat.find(f"{name}-toggle").click()
        chat.find(f"{name}").first.wait_for()
        page.wait_for_timeout(300)
        look(name)
        if name == "recalls":
            chat.find("recall-history").first.click()
            chat.find("firing").first.wait_for()
            chat.find("recall-new").click()
            chat.find("recall-message").fill("check the loss")
            chat.find("recall-when").fill("every other friday at 16:00")
            chat.find("recall-parsed").wait_for()
            look("a recall")
        close()
    chat.find("today").click()
    chat.find("overview-group").first.wait_for()
    look("overview")
    page.set_viewport_size({"width": 1400, "height": 900})
    look("overview wide")
    close()
    control("mood?is=down")
    control("close")
    chat.find("status", "[data-state=reconnecting]").wait_for()
    chat.say("later")
    look("no server")
    control("mood?is=auth")
    chat.find("retry").first.click()
    chat.find("status", "[data-reason=auth]").wait_for()
    look("logged out")
    assert found == {}


@pytest.mark.parametrize(
    ("tag", "send", "hours"), [("de-DE", "Senden", "1 Tg. 1 Std."), ("zh-CN", "发送", "1天 1小时")]
)
def test_a_chat_is_in_the_language_of_its_page_from_its_first_picture_on(
    open_chat: Open, control: Control, tag: str, send: str, hours: str
) -> None:
    chat = open_chat(tag, query=f"language={tag}", locale="en-US", timezone_id="UTC")
    page = chat.page
    expect(chat.find("send")).to_have_attribute("aria-label", send)
    assert chat.views[0].get_attribute("lang") == ("de" if tag == "de-DE" else tag)
    chat.say("tools")
    chat.settled()
    expect(chat.find("message", "[data-role=assistant]").locator(".navi-markdown").last).to_have_attribute("lang", "")
    control(f"recall?session={tag}&in=90000&title=later&id={tag}")
    expect(chat.find("recalls-toggle")).to_contain_text(hours)
    # Nothing is drawn before the texts are there: the element is defined after them.
    held: list[Route] = []
    page.route(f"**/{catalogue(send)}", lambda route: held.append(route))
    page.reload(wait_until="commit")
    for _ in range(200):
        if held:
            break
        page.wait_for_timeout(50)
    assert held
    page.wait_for_timeout(500)
    assert page.locator("navi-chat [data-navi]").count() == 0
    held[0].continue_()
    expect(chat.find("send")).to_have_attribute("aria-label", send)


def catalogue(text: str) -> str:
    """The script that has this text of a language."""
    return next(file.name for file in STATIC.glob("chunk-*.js") if text in file.read_text(encoding="utf-8"))


def test_a_chat_is_in_english_where_the_texts_of_its_language_cannot_be_loaded(open_chat: Open) -> None:
    chat = open_chat("lost", query="language=de")
    page = chat.page
    page.route(f"**/{catalogue('Senden')}", lambda route: route.abort())
    page.reload()
    expect(chat.find("send")).to_have_attribute("aria-label", "Send")
    assert chat.views[0].get_attribute("lang") == "en"
