"""Pages with chats on them, as the tests handle them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, expect

JS = Path(__file__).parents[2]
AXE = JS / "node_modules" / "axe-core" / "axe.min.js"
PLAYGROUND = JS / "playground"
OUT = PLAYGROUND / "out"

Control = Callable[[str], None]


class Chat:
    """A page with the chats of some sessions; the first one is meant unless told otherwise."""

    def __init__(self, page: Page, address: str, *sessions: str, query: str = "") -> None:
        self.page = page
        page.goto(f"{address}?sessions={','.join(sessions)}&{query}")
        self.views = [page.locator("navi-chat").nth(index) for index in range(len(sessions))]
        for view in self.views:
            view.locator("[data-navi=status][data-state=open]").wait_for(timeout=10_000, state="attached")
            view.locator("[data-navi=empty], [data-navi=message], [data-navi=session-read-only]").first.wait_for()

    def find(self, name: str, more: str = "", view: int = 0) -> Locator:
        return self.views[view].locator(f"[data-navi={name}]{more}")

    def say(self, text: str, view: int = 0) -> None:
        self.find("input", view=view).fill(text)
        self.find("input", view=view).press("Enter")

    def settled(self, view: int = 0) -> None:
        """Wait until what was said last has its answer, or an end without one, and the run is over."""
        last = (
            self.views[view]
            .locator("[data-navi=message]:not([data-status=queued]), [data-navi=error], [data-navi=run-end]")
            .last
        )
        expect(last).not_to_have_attribute("data-role", "user", timeout=20_000)
        self.find("stop", view=view).wait_for(state="detached", timeout=20_000)

    def state(self, name: str) -> None:
        self.find("status", f"[data-state={name}]").wait_for(timeout=15_000, state="attached")

    def _texts(self, view: int) -> Locator:
        return self.find("message", view=view).locator(".navi-text, .navi-markdown")

    def texts(self, view: int = 0) -> list[str]:
        return self._texts(view).all_inner_texts()

    def reads(self, texts: Sequence[str | re.Pattern[str]], view: int = 0) -> None:
        """Wait until these are the texts of all messages: they are drawn a frame or more after they have come."""
        expect(self._texts(view)).to_have_text(texts, use_inner_text=True)

    def ends_with(self, text: str, view: int = 0) -> None:
        expect(self._texts(view).last).to_have_text(text, use_inner_text=True)

    def tool(self, name: str, view: int = 0) -> Locator:
        return self.find("tool", f"[data-tool-name={name}]", view)

    def answered(self, text: str, view: int = 0) -> None:
        """Wait for a run that ends with this answer."""
        last = self.find("message", "[data-role=assistant]", view).last.locator(".navi-markdown")
        expect(last).to_have_text(text, timeout=20_000)
        self.find("stop", view=view).wait_for(state="detached")

    def items(self, view: int = 0) -> list[dict[str, Any]]:
        """The conversation of a view without what depends on when it came: thoughts' ids and clocks."""
        script = """chat => JSON.stringify(chat.state.items.filter(item => item.kind !== "reasoning")
            .map(item => ({...item, ts: "", startedAt: 0, endedAt: 0})))"""
        items: list[dict[str, Any]] = json.loads(self.views[view].evaluate(script))
        return items

    def violations(self) -> list[tuple[str, str]]:
        """What axe-core finds wrong."""
        if not self.page.evaluate("'axe' in window"):
            self.page.add_script_tag(path=str(AXE))
        found = self.page.evaluate("async () => (await axe.run()).violations")
        return [(one["id"], one["nodes"][0]["html"]) for one in found]
