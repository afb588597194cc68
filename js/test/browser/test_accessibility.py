"""Accessibility (WCAG 2.2 AA) in a real browser, against the scripted server.

Each view and state is checked by axe-core in light and dark, narrow and wide; what no program can see from outside (the
keyboard, where the focus goes, a page from right to left, one at 400 %, the system's colours) is done as a person does.
Screenshots of all states go to ``js/playground/out``, to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect
from views import AXE, OUT, Chat, Control

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
Open = Callable[..., Chat]

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
    "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
CHANGE = {"cell": "c1", "kind": "edited", "before": "a = 1\nb = 2\nprint(a)", "after": "a = 1\nb = 3\nprint(a + b)"}
PROVIDERS = {
    "providers": [
        {"name": "anthropic", "title": "Anthropic", "stored": False, "usable": False, "kind": "key", "models": []}
    ],
    "local": [],
    "forbidden": None,
    "next": None,
}


def fill(page: Page) -> None:
    """The chat is as large as the page, as in the panel and on the page of the server."""
    page.evaluate(
        """() => {
            document.body.style.cssText = 'margin:0;max-width:none;padding:0;height:100vh';
            document.querySelector('h1').style.cssText = 'position:absolute;clip-path:inset(50%)';
            document.querySelector('main').style.cssText = 'height:100vh;display:grid;grid-template-rows:1fr;gap:0';
            document.querySelectorAll('navi-chat').forEach(chat => chat.setAttribute('fill', ''));
        }"""
    )


IN_LOG = "target => document.querySelector(target)?.closest('[data-navi=log]') != null"


def found(page: Page, rules: list[str] | None = None) -> list[str]:
    """What axe-core finds wrong: the rule and the element.

    The conversation is one stop of the key Tab, and what scrolls in a message is one while the focus is in that message
    (a test below does that); axe-core knows of no such way, and would have each block of code for a stop.
    """
    if not page.evaluate("'axe' in window"):
        page.add_script_tag(path=str(AXE))
    only = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": TAGS}
    result = page.evaluate("async runOnly => (await axe.run(document, {runOnly})).violations", only)
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:300] if rules else ''}"
        for one in result
        for node in one["nodes"]
        if one["id"] != "scrollable-region-focusable" or not page.evaluate(IN_LOG, node["target"][0])
    ]


class States:
    """Looks at a page in one state after the other; all that is wrong is said at the end."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name
        self.wrong: list[str] = []
        OUT.mkdir(exist_ok=True)

    def look(self, state: str) -> None:
        self.page.screenshot(path=str(OUT / f"a11y-{self.name}-{state}.png"))
        self.wrong += [f"{state}: {problem}" for problem in found(self.page)]
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            self.wrong.append(f"{state}: the page is {wide} px too wide")

    def hovered(self, state: str) -> None:
        """The contrast of what is pointed at, and of what has the focus, of all controls at once."""
        client = self.page.context.new_cdp_session(self.page)
        client.send("DOM.enable")
        client.send("CSS.enable")
        root = client.send("DOM.getDocument")["root"]["nodeId"]
        selector = "button, summary, a, input, select, textarea, li, td, .navi-message, .navi-session-line"
        nodes = client.send("DOM.querySelectorAll", {"nodeId": root, "selector": selector})["nodeIds"]
        for pseudo in (["hover"], ["focus", "focus-visible"]):
            for node in nodes:
                client.send("CSS.forcePseudoState", {"nodeId": node, "forcedPseudoClasses": pseudo})
            self.page.wait_for_timeout(200)  # what fades in has faded in
            self.page.screenshot(path=str(OUT / f"a11y-{self.name}-{state}-{pseudo[0]}.png"))
            self.wrong += [f"{state} {pseudo[0]}: {problem}" for problem in found(self.page, ["color-contrast"])]
        for node in nodes:
            client.send("CSS.forcePseudoState", {"nodeId": node, "forcedPseudoClasses": []})
        client.detach()


@pytest.fixture
def recalls(control: Control) -> Callable[[str], None]:
    def make(name: str) -> None:
        control(f"title?session={name}&is=Training%20of%20the%20large%20model,%20second%20try")
        control(f"recall?session={name}&in=90000&title=Check%20the%20loss&cron=0%209%20*%20*%201-5&id={name}")
        control(f"recall?session={name}&in=5000&title=Send%20the%20report&id={name}-once&allow=run_code")
        control(f"firing?session={name}&recall={name}&title=Check%20the%20loss&ago=60&run=r_1&seen=1")
        control(
            f"firing?session={name}&recall=x&title=Fit%20again&ago=90&status=failed&reason=needed%20approval:%20run_code"
        )
        control(f"firing?session={name}&recall=y&title=Summarise&ago=86400&run=r_9&seen=1")

    return make


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [420, 1400])
def test_each_view_and_state_is_accessible_narrow_and_wide_in_light_and_dark(
    open_chat: Open, control: Control, recalls: Callable[[str], None], tmp_path: Path, scheme: str, width: int
) -> None:
    name = f"{scheme}-{width}"
    (tmp_path / "plot.png").write_bytes(PNG)
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    control("fresh")
    control("facts")
    control("mcp?server=files&status=ready")
    control("mcp?server=web&status=failed&why=npx:%20not%20found")
    control("seed?count=12")
    recalls(name)
    chat = open_chat(name, color_scheme=scheme)
    page = chat.page
    page.route("**/navi/api/providers*", lambda route: route.fulfill(json=PROVIDERS))
    page.set_viewport_size({"width": width, "height": 900})
    fill(page)
    states = States(page, name)
    chat.find("today").wait_for()
    states.look("empty")

    chat.say("Why is the loss flat?")
    chat.settled()
    states.look("answer")
    states.hovered("answer")
    chat.say("tools")
    chat.settled()
    for details in chat.views[0].locator("details > summary").all():
        details.click()
    states.look("tools")
    chat.say("code")
    chat.find("ask-approve").wait_for()
    page.wait_for_timeout(600)  # its buttons take an answer now
    states.look("approval")
    chat.find("ask-edit").click()
    chat.find("ask-approve").click()
    chat.settled()
    chat.say("cell")
    chat.find("ask-approve").wait_for()
    states.look("cell")
    page.wait_for_timeout(600)
    chat.find("ask-deny").click()
    chat.settled()
    chat.say("question")
    chat.find("ask", "[data-kind=question]").wait_for()
    states.look("question")
    page.wait_for_timeout(600)
    chat.find("ask-decline").click()
    chat.settled()
    chat.say("output 8 0")
    chat.settled()
    states.look("output")
    chat.say("workers")
    chat.find("ask-approve").wait_for()
    states.look("workers")
    page.wait_for_timeout(600)
    chat.find("ask-approve").click()
    chat.settled()
    chat.say("fail provider_auth")
    chat.settled()
    states.look("failed")

    chat.say("slow 1000")
    chat.find("stop").wait_for()
    chat.say("reject me")
    chat.find("notice").wait_for()
    chat.find("input").fill("")
    chat.say("the first that waits")
    chat.say("the second that waits")
    chat.find("withdraw").nth(1).wait_for()
    chat.find("queue-edit").first.click()
    chat.find("file-input").set_input_files([tmp_path / "plot.png", tmp_path / "data.csv"])
    chat.find("attachment").nth(1).wait_for()
    chat.find("mode").click()
    states.look("writing")
    states.hovered("writing")
    page.keyboard.press("Escape")
    chat.find("queue-input").press("Escape")
    for left in (1, 0):
        chat.find("withdraw").last.click()
        expect(chat.find("withdraw")).to_have_count(left)
    chat.find("input").press("Escape")
    chat.find("run-end", "[data-code=cancelled]").wait_for()
    chat.find("input").fill("")
    chat.find("input").press_sequentially("see @")
    chat.find("suggestion").first.wait_for()
    states.look("mention")
    page.keyboard.press("Escape")
    chat.find("input").fill("")

    chat.find("settings-toggle").click()
    chat.find("fact").first.wait_for()
    chat.find("fact-edit").first.click()
    states.look("settings")
    states.hovered("settings")
    page.route("**/firings*", lambda route: route.fulfill(json={"firings": [], "next": None}))
    chat.find("recalls-toggle").click()
    chat.find("recall").first.wait_for()
    chat.find("recall-history").first.click()
    chat.find("recall-new").click()
    chat.find("recall-message").fill("check the loss")
    chat.find("recall-when").fill("in 10m")
    states.look("recalls")
    chat.find("sessions-toggle").click()
    chat.find("session-row").first.wait_for()
    chat.find("session-actions").first.click()
    states.look("sessions")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    chat.find("today").click()
    chat.find("overview-group").first.wait_for()
    states.look("overview")
    states.hovered("overview")
    page.keyboard.press("Escape")

    control("title?session=other&is=Nightly")
    control(f"firing?session=other&recall={name}-b&title=Backup&run=r_1")
    control(f"firing?session=other&recall={name}-c&title=Restore&status=failed&reason=no%20space")
    control(f"recall?session={name}&in=9000&title=Changes&id={name}-change")  # a view reads what is new after a change
    page.locator("[data-navi=toast]").nth(1).wait_for()
    states.look("toasts")
    page.locator("[data-navi=toast-dismiss]").first.click()
    page.locator("[data-navi=toast-dismiss]").first.click()
    control("mood?is=down")
    control("close")
    chat.state("reconnecting")
    page.wait_for_timeout(1_000)
    states.look("reconnecting")
    control("mood?is=ok")
    assert not states.wrong, "\n".join(states.wrong)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_stands_outside_of_a_chat_is_accessible_too(
    open_chat: Open, control: Control, recalls: Callable[[str], None], scheme: str
) -> None:
    name = f"around-{scheme}"
    control("fresh")
    recalls(name)
    chat = open_chat(name, color_scheme=scheme)
    page = chat.page
    chat.say("code")
    chat.find("ask-approve").wait_for()
    interrupt = chat.find("ask").get_attribute("data-interrupt-id")
    page.set_viewport_size({"width": 420, "height": 900})
    page.evaluate(
        """async ([session, interrupt, change]) => {
            const { loadElement } = await import('/static/navi/navi-chat.js');
            for (const name of ['navi-question', 'navi-cell-edit', 'navi-panel']) await loadElement(name);
            document.querySelector('navi-chat').remove();
            const main = document.querySelector('main');
            const question = document.createElement('navi-question');
            Object.assign(question, {session, interrupt});
            const edit = document.createElement('navi-cell-edit');
            Object.assign(edit, {change, current: change.after, count: 2});
            const box = document.createElement('div');
            box.style.height = '420px';
            const panel = document.createElement('navi-panel');
            Object.assign(panel, {session, notebook: 'analysis.ipynb', page: '/navi'});
            box.append(panel);
            main.append(question, edit, box);
        }""",
        [name, interrupt, CHANGE],
    )
    page.locator("navi-question [data-navi=ask-approve]").wait_for()
    page.locator("navi-panel [data-navi=message]").first.wait_for()
    page.wait_for_timeout(600)
    states = States(page, name)
    states.look("narrow")
    states.hovered("narrow")
    page.locator("[data-navi=panel-sessions]").click()
    page.locator("navi-panel navi-sessions [data-navi=session-list]").wait_for()
    page.set_viewport_size({"width": 1400, "height": 900})
    states.look("wide")
    assert not states.wrong, "\n".join(states.wrong)


# --- the keyboard ----------------------------------------------------------------------------------------------------

FOCUS = """() => {
    let at = document.activeElement;
    if (!at || at === document.body) return null;
    const box = at.getBoundingClientRect();
    const style = getComputedStyle(at);
    const isWritten = at.closest('form')?.matches('.navi-composer'); // its frame says so
    const visible = style.outlineStyle !== 'none' || style.boxShadow !== 'none' || isWritten;
    // Some of it can be seen: in the middle, or near an edge.
    const places = [[.5, .5], [.05, .5], [.95, .5], [.5, .1], [.5, .9]];
    const seen = places.some(([x, y]) => {
        const top = document.elementFromPoint(box.left + box.width * x, box.top + box.height * y);
        return top !== null && at.contains(top);
    });
    const name = at.dataset.navi ?? (at.className || at.localName);
    return {name, visible: Boolean(visible), seen, inside: Boolean(at.closest('navi-chat'))};
}"""


def stops(page: Page, most: int = 120) -> list[str]:
    """Every place that the key Tab leads to, from the beginning of the page to its end; each can be seen."""
    page.evaluate("document.activeElement.blur(); getSelection().removeAllRanges()")
    page.locator("h1").evaluate("h1 => { h1.tabIndex = -1; h1.focus(); }")
    names: list[str] = []
    for _ in range(most):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        if at is None or not at["inside"]:
            return names
        assert at["visible"], f"one cannot see that {at['name']} has the focus (after {names})"
        assert at["seen"], f"{at['name']} has the focus and is covered (after {names})"
        names.append(at["name"])
    raise AssertionError(f"the key Tab does not lead out of the view: {names[-20:]}")


def test_the_key_tab_leads_to_everything_and_out_again_and_what_has_the_focus_is_seen(
    open_chat: Open, control: Control, recalls: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    control("fresh")
    control("facts")
    control("fill?session=tab&count=60")
    recalls("tab")
    chat = open_chat("tab")
    page = chat.page
    fill(page)
    chat.say("code")
    chat.find("ask-approve").wait_for()
    page.wait_for_timeout(600)
    chat.say("and then the test set")
    chat.find("withdraw").wait_for()
    chat.find("file-input").set_input_files([tmp_path / "data.csv"])
    chat.find("attachment").wait_for()
    chat.find("input").fill("a draft")
    whole = stops(page)
    assert whole[0] == "skip"
    for name in ("settings-toggle", "recalls-toggle", "today", "ask-approve", "ask-deny", "asks-jump"):
        assert name in whole, f"{name} is not reached: {whole}"
    for name in ("queue-edit", "withdraw", "attach", "input", "stop", "mode", "send"):
        assert name in whole, f"{name} is not reached: {whole}"
    for name, inside in (("settings", "fact-forget"), ("recalls", "recall-cancel"), ("overview", "overview-history")):
        chat.find("today" if name == "overview" else f"{name}-toggle").click()
        chat.find(inside).first.wait_for()
        covered = stops(page)
        assert inside in covered, f"{inside} is not reached: {covered}"
        assert "overlay-close" in covered
        assert "input" in covered, "an overlay holds the keyboard"
        page.keyboard.press("Escape")
        chat.find("input").focus()
        page.keyboard.press("Escape")
        expect(chat.find(name)).to_be_hidden()


def test_code_that_is_too_wide_is_scrolled_by_keyboard(open_chat: Open) -> None:
    chat = open_chat("wide-code")
    page = chat.page
    page.set_viewport_size({"width": 420, "height": 900})
    chat.say("Why is the loss flat?")
    chat.settled()
    answer = chat.find("message", "[data-role=assistant]")
    answer.focus()
    page.keyboard.press("Enter")
    code = answer.locator("pre").first
    for _ in range(8):
        if code.evaluate("code => document.activeElement === code"):
            break
        page.keyboard.press("Tab")
    expect(code).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement.scrollLeft > 0")
    page.keyboard.press("Escape")
    expect(answer).to_be_focused()


def test_escape_closes_what_is_on_top_and_nothing_else(open_chat: Open) -> None:
    chat = open_chat("escape")
    page = chat.page
    chat.say("slow 1000")
    chat.find("stop").wait_for()
    chat.find("settings-toggle").click()
    expect(chat.find("settings")).to_be_visible()
    chat.find("input").click()
    chat.find("input").press_sequentially("see @")
    chat.find("suggestion").first.wait_for()
    page.keyboard.press("Escape")
    expect(chat.find("suggestion")).to_have_count(0)
    expect(chat.find("settings")).to_be_visible()
    page.keyboard.press("Escape")
    expect(chat.find("settings")).to_be_hidden()
    expect(chat.find("input")).to_be_focused()
    assert chat.find("stop").is_enabled(), "the run goes on"
    chat.find("recalls-toggle").click()
    expect(chat.find("recalls")).to_be_visible()
    chat.find("recalls-toggle").focus()
    page.keyboard.press("Escape")
    expect(chat.find("recalls")).to_be_hidden()
    expect(chat.find("recalls-toggle")).to_be_focused()
    chat.find("mode").click()
    page.keyboard.press("Escape")
    expect(chat.find("mode-menu")).to_be_hidden()
    expect(chat.find("input")).to_be_focused()
    assert chat.find("stop").is_enabled()
    page.keyboard.press("Escape")
    chat.find("run-end", "[data-code=cancelled]").wait_for()


def name_of_focus(page: Page) -> str:
    return str(page.evaluate("document.activeElement.dataset.navi ?? document.activeElement.localName"))


def test_the_focus_is_kept_when_what_has_it_goes_away(open_chat: Open, control: Control, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("a\n1\n")
    (tmp_path / "two.csv").write_text("a\n1\n")
    control("fresh")
    control("facts")
    for number in (1, 2):
        control(f"recall?session=kept&in={number}000&title=number%20{number}&id=kept-{number}")
    chat = open_chat("kept")
    page = chat.page

    def press(place: Locator) -> None:
        place.focus()
        page.keyboard.press("Enter")

    chat.say("slow 1000")
    chat.find("stop").wait_for()
    chat.say("the first that waits")
    chat.say("the second that waits")
    chat.find("withdraw").nth(1).wait_for()
    press(chat.find("withdraw").first)
    expect(chat.find("withdraw")).to_have_count(1)
    expect(chat.find("withdraw")).to_be_focused()
    press(chat.find("withdraw"))
    expect(chat.find("withdraw")).to_have_count(0)
    expect(chat.find("input")).to_be_focused()
    press(chat.find("stop"))
    chat.find("stop").wait_for(state="detached")
    expect(chat.find("input")).to_be_focused()
    chat.find("file-input").set_input_files([tmp_path / "one.csv", tmp_path / "two.csv"])
    chat.find("attachment").nth(1).wait_for()
    press(chat.find("attachment").first.locator("button"))
    expect(chat.find("attachment")).to_have_count(1)
    expect(chat.find("attachment").locator("button")).to_be_focused()
    press(chat.find("attachment").locator("button"))
    expect(chat.find("attachment")).to_have_count(0)
    assert name_of_focus(page) in ("input", "attach")
    press(chat.find("edit-message").last)
    press(chat.find("edit-cancel"))
    expect(chat.find("input")).to_be_focused()
    press(chat.find("settings-toggle"))
    chat.find("memory-new").fill("Works on penguins")
    page.keyboard.press("Enter")
    expect(chat.find("fact")).to_have_count(2)
    press(chat.find("fact-forget").first)
    expect(chat.find("fact")).to_have_count(1)
    expect(chat.find("fact-forget")).to_be_focused()
    press(chat.find("fact-forget"))
    expect(chat.find("fact")).to_have_count(0)
    assert chat.find("settings").evaluate("panel => panel.contains(document.activeElement)")
    press(chat.find("recalls-toggle"))
    chat.find("recall-cancel").nth(1).wait_for()
    press(chat.find("recall-cancel").first)
    expect(chat.find("recall-cancel")).to_have_count(1)
    expect(chat.find("recall-cancel")).to_be_focused()
    press(chat.find("recall-cancel"))
    expect(chat.find("recall-cancel")).to_have_count(0)
    assert chat.find("recalls").evaluate("panel => panel.contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(chat.find("recalls-toggle")).to_be_focused()


def test_a_toast_waits_for_whoever_points_at_it_and_gives_the_focus_back(open_chat: Open, control: Control) -> None:
    control("fresh")
    control("recall?session=toast-b&in=7000&title=Backup&id=t-daily")
    control("title?session=toast-b&is=Nightly")
    chat = open_chat("toast-a")
    page = chat.page
    page.clock.install()
    chat.find("today").wait_for()
    for number in (1, 2):
        control(f"firing?session=toast-b&recall=t-{number}&title=Backup%20{number}&run=r_{number}")
    control("recall?session=toast-a&in=9000&title=Changes&id=t-change")
    page.clock.run_for(3_000)
    toasts = page.locator("[data-navi=toast]")
    expect(toasts).to_have_count(2, timeout=10_000)
    chat.find("input").focus()
    page.locator("[data-navi=toast-dismiss]").first.focus()
    page.clock.run_for(60_000)
    expect(toasts).to_have_count(2)
    page.keyboard.press("Enter")
    expect(toasts).to_have_count(1)
    expect(page.locator("[data-navi=toast-dismiss]")).to_be_focused()
    page.keyboard.press("Escape")
    expect(toasts).to_have_count(0)
    expect(chat.find("input")).to_be_focused()
    control("firing?session=toast-b&recall=t-3&title=Backup%203&run=r_3")
    control("recall?session=toast-a&in=9500&title=More&id=t-change-2")
    page.clock.run_for(3_000)
    expect(toasts).to_have_count(1, timeout=10_000)
    page.clock.run_for(25_000)
    expect(toasts).to_have_count(0)


# --- other pages -----------------------------------------------------------------------------------------------------

LEFT = "name => document.querySelector(`[data-navi=${name}]`).getBoundingClientRect().x"


def test_a_page_from_right_to_left_is_mirrored_and_each_text_has_its_own_direction(
    open_chat: Open, control: Control, recalls: Callable[[str], None]
) -> None:
    control("fresh")
    recalls("rtl")
    chat = open_chat("rtl")
    page = chat.page
    page.evaluate("document.documentElement.dir = 'rtl'")
    fill(page)
    chat.say("Why is the loss flat?")
    chat.settled()
    chat.say("code")
    chat.find("ask-approve").wait_for()
    chat.find("input").fill("لماذا الخسارة ثابتة؟")
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / "a11y-rtl.png"))

    def left_of(one: str, other: str) -> bool:
        return bool(page.evaluate(LEFT, one) < page.evaluate(LEFT, other))

    assert left_of("send", "input")
    assert left_of("status", "settings-toggle")
    own, log = chat.find("message", "[data-role=user]").first, chat.find("log")
    box, frame = own.bounding_box(), log.bounding_box()
    assert box is not None
    assert frame is not None
    assert box["x"] - frame["x"] < 30, "what the user says stands at the end of the line: at the left"
    direction = "element => getComputedStyle(element).direction"
    assert chat.find("input").evaluate(direction) == "rtl"
    assert chat.find("input").evaluate("input => getComputedStyle(input).textAlign") in ("start", "right")
    answer = chat.find("message", "[data-role=assistant]").first
    assert answer.locator(".navi-block").first.evaluate(direction) == "ltr", "English, from left to right"
    assert answer.locator("pre").first.evaluate(direction) == "ltr"
    assert chat.find("ask").locator("pre").first.evaluate(direction) == "ltr"
    chat.find("input").fill("")
    page.wait_for_timeout(600)
    chat.find("ask-deny").click()
    chat.settled()
    for name in ("settings", "recalls", "overview"):
        chat.find("today" if name == "overview" else f"{name}-toggle").click()
        expect(chat.find(name)).to_be_visible()
        page.wait_for_timeout(200)
        page.screenshot(path=str(OUT / f"a11y-rtl-{name}.png"))
        panel = chat.find(name).bounding_box()
        assert panel is not None
        assert panel["x"] == 0, "what opens at the end of the line opens at the left"
    assert chat.violations() == []


CUT = """() => {
    const view = document.documentElement.clientWidth;
    // What scrolls by itself (code, tables) may be wider; what is cut with an ellipsis is named in full elsewhere.
    const own = 'pre .navi-table .navi-output-html .navi-hidden .navi-skip svg math .navi-outputs-body'.split(' ');
    return [...document.querySelectorAll('navi-chat *')]
        .filter(each => !each.closest(own.join()) && each.getClientRects().length)
        .filter(each => { const box = each.getBoundingClientRect(); return box.right > view + 1 || box.left < -1; })
        .map(each => `${each.localName}.${each.className.baseVal ?? each.className} ${each.dataset.navi ?? ''}`);
}"""
SPACED = """* { line-height: 1.5 !important; letter-spacing: 0.12em !important; word-spacing: 0.16em !important; }
p { margin-bottom: 2em !important; }"""
CLIPPED = """() => [...document.querySelectorAll('navi-chat :is(button, label, h3, p, summary, .navi-text)')]
    .filter(each => each.getClientRects().length && !each.closest('.navi-hidden, .navi-skip, pre'))
    .filter(each => each.scrollHeight > each.clientHeight + 2 && getComputedStyle(each).overflowY === 'hidden')
    .map(each => `${each.localName}.${each.className} ${each.textContent.trim().slice(0, 40)}`)"""


@pytest.mark.parametrize(("percent", "width", "height"), [(200, 640, 512), (400, 320, 256)])
def test_at_400_percent_and_with_wide_text_nothing_is_lost_and_one_scrolls_in_one_direction(
    open_chat: Open,
    control: Control,
    recalls: Callable[[str], None],
    tmp_path: Path,
    percent: int,
    width: int,
    height: int,
) -> None:
    """A window of 1,280 by 1,024 pixels at that zoom."""
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    name = f"zoom-{percent}"
    control("fresh")
    control("facts")
    control("mcp?server=web&status=failed&why=npx:%20not%20found")
    recalls(name)
    chat = open_chat(name)
    page = chat.page
    page.set_viewport_size({"width": width, "height": height})
    fill(page)
    OUT.mkdir(exist_ok=True)
    wrong: list[str] = []

    def look(state: str) -> None:
        page.screenshot(path=str(OUT / f"a11y-{percent}-{state}.png"))
        wrong.extend(f"{state}: {one} is out of the page" for one in page.evaluate(CUT))
        box = chat.find("input").bounding_box()
        if box is None or box["y"] < 0 or box["y"] + box["height"] > height + 1:
            wrong.append(f"{state}: the message field is out of sight: {box}")
        log = chat.find("log").bounding_box()
        if log is None or log["height"] < 60:
            wrong.append(f"{state}: the conversation has no room: {log}")

    for text in ("Why is the loss flat?", "tools"):
        chat.say(text)
        chat.settled()
    look("answer")
    chat.say("code")
    chat.find("ask-approve").wait_for()
    chat.say("and then the test set, and the whales, and whatever else there is in the data")
    chat.find("withdraw").wait_for()
    chat.find("file-input").set_input_files([tmp_path / "data.csv"])
    chat.find("attachment").wait_for()
    look("waiting")
    chat.find("mode").click()
    menu = chat.find("mode-menu").bounding_box()
    assert menu is not None
    assert menu["y"] >= 0, "the menu begins in sight, and scrolls"
    page.keyboard.press("Escape")
    chat.find("input").press_sequentially("@")
    chat.find("suggestion").first.wait_for()
    suggestions = chat.find("suggestions").bounding_box()
    assert suggestions is not None
    assert suggestions["y"] >= 0, "the list begins in sight, and scrolls"
    look("mention")
    page.keyboard.press("Escape")
    chat.find("input").fill("")
    for panel in ("settings", "recalls", "sessions", "overview"):
        chat.find("today" if panel == "overview" else f"{panel}-toggle").click()
        expect(chat.find(panel)).to_be_visible()
        page.wait_for_timeout(300)
        look(panel)
        close = chat.find(panel).locator("[data-navi=overlay-close]")
        close.click(timeout=3_000)
    page.add_style_tag(content=SPACED)
    look("spaced")
    wrong.extend(f"spaced: {one} is clipped" for one in page.evaluate(CLIPPED))
    assert not wrong, "\n".join(wrong)


def test_in_the_systems_colours_borders_focus_and_states_can_be_seen(
    open_chat: Open, control: Control, recalls: Callable[[str], None]
) -> None:
    control("fresh")
    recalls("forced")
    chat = open_chat("forced", forced_colors="active")
    page = chat.page
    chat.say("output 40 60")
    chat.find("progress").wait_for()
    OUT.mkdir(exist_ok=True)
    page.screenshot(path=str(OUT / "a11y-forced-progress.png"))
    colour = "element => getComputedStyle(element).backgroundColor"
    bar = chat.find("progress").locator(".navi-bar")
    assert bar.locator("span").evaluate(colour) != bar.evaluate(colour), "how far it is can be seen"
    dot = chat.find("status").locator(".navi-status-dot")
    assert dot.evaluate(colour) != chat.find("status").evaluate(colour)
    border = "element => getComputedStyle(element).borderStyle"
    for name in ("send", "attach", "settings-toggle", "recalls-toggle"):
        assert chat.find(name).evaluate(border) == "solid", f"{name} has an edge"
    chat.find("settings-toggle").click()
    expect(chat.find("settings")).to_be_visible()
    page.keyboard.press("Tab")
    page.wait_for_function("() => getComputedStyle(document.activeElement).outlineStyle === 'solid'")
    page.screenshot(path=str(OUT / "a11y-forced-settings.png"))
    page.keyboard.press("Escape")
    chat.find("today").click()
    chat.find("overview-group").first.wait_for()
    page.screenshot(path=str(OUT / "a11y-forced-overview.png"))


MOVES = """() => document.getAnimations()
    .filter(each => each.playState === 'running' && each.effect.getComputedTiming().activeDuration > 50)
    .map(each => `${each.animationName ?? each.transitionProperty} of ${each.effect.target.className}`)"""


def test_nothing_moves_for_those_who_do_not_want_that(open_chat: Open, control: Control) -> None:
    control("fresh")
    chat = open_chat("still", reduced_motion="reduce")
    chat.say("output 40 30")
    chat.find("progress").wait_for()
    for _ in range(5):
        assert chat.page.evaluate(MOVES) == []
        chat.page.wait_for_timeout(60)
    chat.find("settings-toggle").click()
    assert chat.page.evaluate(MOVES) == []
    views = "[...document.querySelectorAll('navi-chat, navi-chat *')]"
    assert chat.page.evaluate(f"{views}.every(each => getComputedStyle(each).scrollBehavior === 'auto')")
