"""Prompts of one word, over and over: none holds the event loop, which kernels share."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from navi_jupyter.agent.offline.intents import message_of, understand
from navi_jupyter.errors import NaviError
from navi_jupyter.timetext.days import _read_past
from navi_jupyter.timetext.events import read_event
from navi_jupyter.timetext.parse import read, read_leading

NOW = datetime(2026, 12, 1, 10, 0, tzinfo=ZoneInfo("Europe/Berlin"))
LENGTH = 994
MOST = 0.2
"""Seconds of processor time, with room for a loaded machine: the worst of these took 0.3, now 0.03."""
READERS: dict[str, Callable[[str], object]] = {
    "understand": understand,
    "read": lambda text: read(text, NOW, "Europe/Berlin"),
    "leading": lambda text: read_leading(text, NOW, "Europe/Berlin"),
    "message": message_of,
    "event": read_event,
    "past": lambda text: _read_past(text, NOW),
}
# The slowest of some 2,000 combinations of the words in the patterns, and each sign alone.
REPEATED = (
    "a day after ", "0 day after ", "9:00 on ", "each on ", "monday and a half ", "9:00 ", "1 ", "1/2 ", "monday ",
    "mon, ", "noon ", "twenty ", "in 1 ", "every ", "every 1 ", "the ", "in 10 minutes remind me ", "2027-01-01 ",
    "remind me to ", "hey ", "cancel all of ", "all of it ", "first monday of ", " ", "\n", ",", "-", "'", '"', "“",
    "a", "9", ".", "hour before the ", "until ", "from 9 to ", "no longer than ", "UTC ", "in new york ",
)  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "remind me ", "every "], ids=["alone", "remind me", "every"])
@pytest.mark.parametrize("words", REPEATED, ids=repr)
def test_a_long_repetitive_prompt_is_read_in_little_time(words: str, prefix: str) -> None:
    text = (prefix + words * LENGTH)[:LENGTH]
    for name, reader in READERS.items():
        took = []
        for _ in range(3):  # the best of three: another process has the same caches
            began = time.process_time()
            with suppress(NaviError):
                reader(text)
            took.append(time.process_time() - began)
            if took[-1] < MOST:
                break
        assert min(took) < MOST, f"{name}: {took}"


def test_a_time_without_an_end_is_refused_by_its_length() -> None:
    with pytest.raises(NaviError, match="too long for a time"):
        read("remind me " + "a day after " * 50 + "monday", NOW, "Europe/Berlin")
