"""How times and tables read in a cell."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from navi_jupyter.kernel.display.listing import table_html
from navi_jupyter.kernel.display.time_text import distance, moment, schedule_words, without_own_zone


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "in 59s"),
        (118, "in 118s"),
        (119.99, "in 2m"),
        (5400, "in 90m"),
        (7199.9, "in 2h"),
        (-7199.9, "2h ago"),
        (-3600, "60m ago"),
        (2 * 86_400 - 5, "in 2d"),
    ],
)
def test_a_distance_has_the_unit_in_which_it_was_meant(seconds: float, words: str) -> None:
    assert distance(seconds) == words


NOW = datetime(2026, 11, 23, 12, 0, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("at", "zone", "words"),
    [
        ("2026-11-24T08:00:00Z", None, "Tue 24 Nov 09:00 (in 21h)"),
        ("2026-11-24T08:00:00Z", "Europe/Berlin", "Tue 24 Nov 09:00 (in 21h)"),
        ("2026-11-24T00:00:00Z", "Asia/Tokyo", "Tue 24 Nov 01:00 (in 13h; 09:00 Asia/Tokyo)"),
        ("2026-11-24T08:00:00Z", "Etc/UTC", "Tue 24 Nov 09:00 (in 21h; 08:00 UTC)"),
        ("2026-11-23T11:01:30Z", None, "Mon 23 Nov 12:01:30 (in 90s)"),
        ("2027-01-01T08:00:00.123Z", None, "Fri 1 Jan 2027 09:00 (in 39d)"),
        (None, None, "–"),
    ],
)
def test_a_time_is_on_the_readers_clock(
    at: str | None, zone: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert moment(at, zone=zone, now=NOW) == words


def test_a_schedule_names_its_zone_only_where_it_is_not_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    assert schedule_words({"kind": "cron", "expr": "0 9 * * *", "tz": "Etc/UTC"}) == "cron 0 9 * * *"
    assert schedule_words({"kind": "every", "every": "1d", "tz": "Asia/Tokyo"}) == "every 1d (Asia/Tokyo)"


@pytest.mark.parametrize(
    ("zone", "text", "shown"),
    [
        (
            "UTC",
            "Tomorrow, Tue 24 Nov 08:30 UTC, until Fri 1 Jan 2027 09:00 UTC",
            "Tomorrow, Tue 24 Nov 08:30, until Fri 1 Jan 2027 09:00",
        ),
        ("Etc/UTC", "weekdays at 09:00 Etc/UTC", "weekdays at 09:00"),
        (
            "Europe/Berlin",
            "every Friday at 16:00 Europe/Berlin, counted from 27 Nov",
            "every Friday at 16:00, counted from 27 Nov",
        ),
        ("Europe/Berlin", "every Friday at 16:00 Asia/Tokyo", "every Friday at 16:00 Asia/Tokyo"),
    ],
)
def test_the_words_of_the_server_lose_the_readers_own_zone(
    zone: str, text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    assert without_own_zone(text) == shown


def test_a_table_is_text_to_the_left_and_escaped() -> None:
    shown = table_html(["what"], [["<b>&"]], empty="none")
    assert "<td" in shown
    assert "text-align:left" in shown
    assert "&lt;b&gt;&amp;" in shown
    assert table_html(["what"], [], empty="none <yet>") == "<p>none &lt;yet&gt;</p>"
