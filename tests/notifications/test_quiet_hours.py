"""Quiet hours, across midnight and where the clock is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navi_jupyter.clock import zone_or_utc
from navi_jupyter.notifications.quiet_hours import quiet_until, read_quiet

BERLIN = "Europe/Berlin"

TABLE = {
    "in the evening": ("22:00-07:00", "2026-11-22T23:30+01:00", "2026-11-23T07:00+01:00"),
    "after midnight": ("22:00-07:00", "2026-11-23T03:00+01:00", "2026-11-23T07:00+01:00"),
    "its first instant": ("22:00-07:00", "2026-11-22T22:00+01:00", "2026-11-23T07:00+01:00"),
    "its end is over": ("22:00-07:00", "2026-11-23T07:00+01:00", None),
    "just before it": ("22:00-07:00", "2026-11-22T21:59:59+01:00", None),
    "at noon": ("22:00-07:00", "2026-11-22T12:00+01:00", None),
    "within one day": ("12:00-13:00", "2026-11-22T12:30+01:00", "2026-11-22T13:00+01:00"),
    "not the next day's": ("12:00-13:00", "2026-11-22T23:00+01:00", None),
    "until midnight": ("18:00-00:00", "2026-11-22T23:59+01:00", "2026-11-23T00:00+01:00"),
    "a short night, clock put forward": ("22:00-07:00", "2027-03-28T01:30+01:00", "2027-03-28T07:00+02:00"),
    "a long night, clock put back": ("22:00-07:00", "2026-10-25T02:30+02:00", "2026-10-25T07:00+01:00"),
    "an end that does not exist is the jump": ("22:00-02:30", "2027-03-28T01:59+01:00", "2027-03-28T03:00+02:00"),
    "and then it is over": ("22:00-02:30", "2027-03-28T03:00+02:00", None),
    "a start that does not exist is the jump": ("02:30-05:00", "2027-03-28T03:00+02:00", "2027-03-28T05:00+02:00"),
    "and not before it": ("02:30-05:00", "2027-03-28T01:59+01:00", None),
    "an end that exists twice is the second": ("22:00-02:30", "2026-10-25T02:29+02:00", "2026-10-25T02:30+01:00"),
    "also between the two": ("22:00-02:30", "2026-10-25T02:45+02:00", "2026-10-25T02:30+01:00"),
    "a start that exists twice is the first": ("02:30-05:00", "2026-10-25T02:30+02:00", "2026-10-25T05:00+01:00"),
}


@pytest.mark.parametrize("case", TABLE)
def test_quiet_hours_in_berlin(case: str) -> None:
    window, at, until = TABLE[case]
    found = quiet_until(read_quiet(window), datetime.fromisoformat(at), ZoneInfo(BERLIN))
    assert found == (None if until is None else datetime.fromisoformat(until))


@given(
    start=st.times().map(lambda at: at.replace(second=0, microsecond=0, fold=0)),
    end=st.times().map(lambda at: at.replace(second=0, microsecond=0, fold=0)),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    zone=st.sampled_from([BERLIN, "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "UTC", "Pacific/Apia"]),
)
def test_it_is_quiet_until_the_end_and_not_at_the_end(start: object, end: object, at: datetime, zone: str) -> None:
    if start == end:
        return
    window = read_quiet(f"{start:%H:%M}-{end:%H:%M}")
    until = quiet_until(window, at, ZoneInfo(zone))
    if until is None:
        return
    assert at < until <= at + timedelta(hours=26)
    assert quiet_until(window, until - timedelta(microseconds=1), ZoneInfo(zone)) == until
    following = quiet_until(window, until, ZoneInfo(zone))
    assert following is None or following > until


@pytest.mark.parametrize("text", ["", "22-7", "24:00-07:00", "22:60-07:00", "22:00", "22:00-22:00", "22:00–07:00"])
def test_what_are_no_quiet_hours_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="quiet hours"):
        read_quiet(text)


def test_a_zone_that_is_not_known_here_is_utc() -> None:
    assert zone_or_utc("Mars/Olympus").key == "UTC"
    assert zone_or_utc("../../etc/passwd").key == "UTC"
