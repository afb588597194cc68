"""English times: a table of phrases, what they mean, and what is left as the message."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.model.recalls import EverySpec, When
from navi_jupyter.scheduling.schedules import resolve
from navi_jupyter.timetext.days import read_past
from navi_jupyter.timetext.format import say
from navi_jupyter.timetext.instants import Timed
from navi_jupyter.timetext.parse import read
from navi_jupyter.timetext.phrases import read_when

ZONE = "Europe/Berlin"
NOW = datetime(2026, 11, 23, 18, 0, tzinfo=ZoneInfo(ZONE))  # a Monday


def shown(timed: Timed) -> str:
    """``at 2026-11-24 08:30``, ``in 10m``, ``every 1h``, ``cron 0 9 * * 1-5``."""
    spec: dict[str, Any] = timed.schedule.model_dump(mode="json", by_alias=True, exclude_none=True)
    match spec["kind"]:
        case "once" if "in" in spec:
            return f"in {spec['in']}"
        case "once":
            return f"at {datetime.fromisoformat(spec['at']).astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M}"
        case "every":
            start = datetime.fromisoformat(spec["start"]).astimezone(ZoneInfo(ZONE)) if "start" in spec else None
            return f"every {spec['every']}" + (f" from {start:%Y-%m-%d %H:%M}" if start else "")
        case _:
            assert spec["tz"] == ZONE
            return f"cron {spec['expr']}"


TABLE = [
    # elapsed time
    ("remind me in 10 minutes to check the loss", "in 10m", "remind me to check the loss"),
    ("in 10 minutes check the loss", "in 10m", "check the loss"),
    ("remind me to check the loss in 10 minutes", "in 10m", "remind me to check the loss"),
    ("In 10 Minutes, check the loss!", "in 10m", "check the loss!"),
    ("in 1h30m check it", "in 1h30m", "check it"),
    ("in 1 hour and 30 minutes check it", "in 1h30m", "check it"),
    ("in an hour and a half check it", "in 1h30m", "check it"),
    ("in two and a half hours", "in 2h30m", ""),
    ("in half an hour call Bob", "in 30m", "call Bob"),
    ("in an hour", "in 1h", ""),
    ("in a minute", "in 1m", ""),
    ("in a couple of hours", "in 2h", ""),
    ("in 90s", "in 1m30s", ""),
    ("in 30 sec beep", "in 30s", "beep"),
    ("in 2 hours and 15 minutes", "in 2h15m", ""),
    ("in twenty minutes", "in 20m", ""),
    ("after 5 minutes look again", "in 5m", "look again"),
    ("15 minutes from now look", "in 15m", "look"),
    ("in 1.5 hours", "in 1h30m", ""),
    ("remind me in 10 minutes about the friday meeting", "in 10m", "remind me about the friday meeting"),
    # a day, with and without a time of day
    ("tomorrow at 8:30 write the report", "at 2026-11-24 08:30", "write the report"),
    ("at 8:30 tomorrow", "at 2026-11-24 08:30", ""),
    ("tomorrow", "at 2026-11-24 09:00", ""),
    ("tomorrow morning run", "at 2026-11-24 09:00", "run"),
    ("tomorrow evening at 8", "at 2026-11-24 20:00", ""),
    ("tomorrow 9am", "at 2026-11-24 09:00", ""),
    ("the day after tomorrow at 10", "at 2026-11-25 10:00", ""),
    ("next friday at noon lunch", "at 2026-11-27 12:00", "lunch"),
    ("on friday at 16:15", "at 2026-11-27 16:15", ""),
    ("at 10 on friday", "at 2026-11-27 10:00", ""),
    ("next monday at 9", "at 2026-11-30 09:00", ""),
    ("call Bob friday", "at 2026-11-27 09:00", "call Bob"),
    ("on 3 december at 14:00 taxes", "at 2026-12-03 14:00", "taxes"),
    ("remind me on 3 december at 14:00 about taxes", "at 2026-12-03 14:00", "remind me about taxes"),
    ("december 24th at 6pm", "at 2026-12-24 18:00", ""),
    ("on the 5th at 10", "at 2026-12-05 10:00", ""),
    ("on 24 december 2027 at 18:00", "at 2027-12-24 18:00", ""),
    ("on 2026-12-01 at 9", "at 2026-12-01 09:00", ""),
    ("12.12. at 10", "at 2026-12-12 10:00", ""),
    ("2026-12-01 09:00 start", "at 2026-12-01 09:00", "start"),
    ("2026-12-01T09:00:00Z start", "at 2026-12-01 10:00", "start"),
    ("in 2 days", "at 2026-11-25 18:00", ""),
    ("in 3 days at 9 do it", "at 2026-11-26 09:00", "do it"),
    ("in two weeks at 10am check the model", "at 2026-12-07 10:00", "check the model"),
    ("next week", "at 2026-11-30 18:00", ""),
    ("tonight water the plants", "at 2026-11-23 20:00", "water the plants"),
    ("tonight at 10", "at 2026-11-23 22:00", ""),
    ("today at 21:30", "at 2026-11-23 21:30", ""),
    # a time of day
    ("at 5pm leave", "at 2026-11-24 17:00", "leave"),
    ("at 19:00", "at 2026-11-23 19:00", ""),
    ("at noon", "at 2026-11-24 12:00", ""),
    ("at midnight", "at 2026-11-24 00:00", ""),
    ("remind me at 5 to leave", "at 2026-11-24 05:00", "remind me to leave"),
    ("at 05:00 leave", "at 2026-11-24 05:00", "leave"),
    ("at 7", "at 2026-11-24 07:00", ""),
    ("half past seven tea", "at 2026-11-24 07:30", "tea"),
    ("at quarter to nine", "at 2026-11-24 08:45", ""),
    ("at 5 o'clock tea", "at 2026-11-24 05:00", "tea"),
    ("in the morning run", "at 2026-11-24 09:00", "run"),
    ("at 20:00 UTC call", "at 2026-11-23 21:00", "call"),
    # again and again
    ("every 2 hours look", "every 2h", "look"),
    ("every hour", "every 1h", ""),
    ("check back every hour on the training", "every 1h", "check back on the training"),
    ("hourly ping", "every 1h", "ping"),
    ("every 15 minutes", "every 15m", ""),
    ("every 90 seconds", "every 1m30s", ""),
    ("every half hour", "every 30m", ""),
    ("every 30s beat", "every 30s", "beat"),
    ("every other day at 9 water", "every 2d from 2026-11-24 09:00", "water"),
    ("every hour starting at 20:00 look", "every 1h from 2026-11-23 20:00", "look"),
    ("every day at 9 say hello", "cron 0 9 * * *", "say hello"),
    ("each day at 6pm", "cron 0 18 * * *", ""),
    ("daily at 7 news", "cron 0 7 * * *", "news"),
    ("every day", "cron 0 18 * * *", ""),
    ("every weekday at 9 standup", "cron 0 9 * * 1-5", "standup"),
    ("on weekdays at 9:15", "cron 15 9 * * 1-5", ""),
    ("every weekday at 9 and 17", "cron 0 9,17 * * 1-5", ""),
    ("at 9 every weekday standup", "cron 0 9 * * 1-5", "standup"),
    ("every monday and thursday at 14:30 sync", "cron 30 14 * * 1,4", "sync"),
    ("every mon, wed and fri at 8", "cron 0 8 * * 1,3,5", ""),
    ("every mon-fri at 8", "cron 0 8 * * 1,2,3,4,5", ""),
    ("on mondays at 10", "cron 0 10 * * 1", ""),
    ("every tuesday", "cron 0 9 * * 2", ""),
    ("every monday morning", "cron 0 9 * * 1", ""),
    ("every evening at 8", "cron 0 20 * * *", ""),
    ("every night backup", "cron 0 22 * * *", "backup"),
    ("every weekend at 10", "cron 0 10 * * 0,6", ""),
    ("weekly on friday at 16:00 report", "cron 0 16 * * 5", "report"),
    ("every month on the 1st at 10 rent", "cron 0 10 1 * *", "rent"),
    ("on the 15th of every month pay", "cron 0 9 15 * *", "pay"),
    ("every year on 24 december at 18:00", "cron 0 18 24 12 *", ""),
    # rhythms
    ("every other friday at 16:00 check the loss", "every 14d from 2026-11-27 16:00", "check the loss"),
    ("every second tuesday", "every 14d from 2026-11-24 09:00", ""),
    ("every monday", "cron 0 9 * * 1", ""),
    ("every other monday at 9", "every 14d from 2026-11-30 09:00", ""),
    ("every 3 weeks on thursday at noon", "every 21d from 2026-11-26 12:00", ""),
    ("biweekly on sunday", "every 14d from 2026-11-29 09:00", ""),
    ("weekdays at 9 standup", "cron 0 9 * * 1-5", "standup"),
    ("mondays and thursdays at 14:30 sync", "cron 30 14 * * 1,4", "sync"),
    ("first monday of the month retro", "cron 0 9 * * 1#1", "retro"),
    ("on the last friday of every month at 17:00", "cron 0 17 * * 5L", ""),
    ("every second tuesday of the month at 10", "cron 0 10 * * 2#2", ""),
    ("the last weekday of the month at 18:00 report", "cron 0 18 LW * *", "report"),
    ("last day of the month", "cron 0 9 L * *", ""),
    ("first business day of each month at 8:15", "cron 15 8 1W * *", ""),
    ("every 3 hours between 9 and 17 drink", "cron 0 9-17/3 * * *", "drink"),
    ("every hour from 9 to 5 on weekdays", "cron 0 9-17 * * 1-5", ""),
    ("every 15 minutes between 9 and 17 on mondays", "cron */15 9-16 * * 1", ""),
]


@pytest.mark.parametrize(("text", "meaning", "message"), TABLE)
def test_a_phrase_means_its_time_and_leaves_the_message(text: str, meaning: str, message: str) -> None:
    timed = read(text, NOW, ZONE)
    assert timed is not None
    assert (shown(timed), timed.message) == (meaning, message)


@pytest.mark.parametrize(
    "text",
    [
        "in my opinion this is nice", "every time it happens", "at all", "at least one", "in general", "in 5 pieces",
        "may I ask you", "check the loss at 500 steps", "at 5 nodes", "on time", "everything is fine", "5 times",
        "version 3.10.2", "10.0.0.1", "the loss is 0.5", "why is the loss flat", "in the notebook", "march on",
        "remind me about the friday meeting", "at 50%", "second try", "in a moment of weakness", "",
    ],
)  # fmt: skip
def test_a_sentence_without_a_time_has_none(text: str) -> None:
    assert read(text, NOW, ZONE) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yesterday at 5", "in the past"),
        ("2 hours ago", "in the past"),
        ("in -5 minutes", "in the past"),
        ("on 3 december 2020 at 9", "in the past"),
        ("today at 9am", "in the past"),
        ("at 17:00 UTC on 2026-11-01", "in the past"),
        ("tomorrow at 25:00", "hours go to 23"),
        ("at 13pm", "am and pm go with 1 to 12"),
        ("february 30 at 9", "no date that exists"),
        ("in 0 minutes", "no time at all"),
        ("every 0 minutes", "say for example every 10 minutes"),
        ("in 9999999 weeks", "longer than a century"),
        ("on the 32nd of every month", "no day 32"),
        ("at 9 EST", "name one like Europe/Berlin"),
        ("every day at 9 and 10:30", "two recalls"),
    ],
)
def test_a_time_that_can_not_be_is_explained(text: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        read(text, NOW, ZONE)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("at 5", "05:00 is in the morning; write 17:00 for the afternoon"),
        ("at 5pm", ""),
        ("at 05:00", ""),
        ("every day at 5", "05:00 is in the morning; write 17:00 for the afternoon"),
        ("on friday", "no time of day given, so 09:00"),
        ("on 31/01/2027", "I read 31/01/2027 as 31 January 2027"),
    ],
)
def test_what_was_assumed_is_said(text: str, note: str) -> None:
    timed = read(text, NOW, ZONE)
    assert timed is not None
    assert timed.note == note


def test_weeks_that_are_counted_stay_at_their_time_of_day() -> None:
    timed = read("every other friday at 16:00", NOW, ZONE)
    assert timed is not None
    assert isinstance(timed.schedule, EverySpec)
    assert timed.schedule.tz == ZONE
    days = read("every other day at 9", NOW, ZONE)
    hours = read("every 2 hours", NOW, ZONE)
    assert days is not None
    assert hours is not None
    assert isinstance(days.schedule, EverySpec)
    assert isinstance(hours.schedule, EverySpec)
    assert (days.schedule.tz, hours.schedule.tz) == (ZONE, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("every 7 minutes between 9 and 17", "divides the hour"),
        ("every 15 minutes between 9:10 and 17", "whole hours"),
        ("every hour between 22:00 and 6:00", "over midnight"),
        ("every other friday at 9 and 17", "two recalls"),
    ],
)
def test_a_rhythm_that_no_schedule_can_say_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        read(text, NOW, ZONE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("every other friday at 16:00", "every other Friday at 16:00 Europe/Berlin, counted from Fri 27 Nov 2026"),
        ("every 3 days at 9", "every 3 days at 09:00 Europe/Berlin, counted from Tue 24 Nov 2026"),
        ("first monday of the month", "the first Monday of each month at 09:00 Europe/Berlin"),
        ("last friday of the month at 17", "the last Friday of each month at 17:00 Europe/Berlin"),
        ("last weekday of the month", "the last weekday of each month at 09:00 Europe/Berlin"),
        ("every 3 hours between 9 and 17", "every 3 hours from 09:00 to 15:00 Europe/Berlin"),
        (
            "every 15 minutes between 9 and 17 on weekdays",
            "every 15 minutes from 09:00 to 16:45, weekdays Europe/Berlin",
        ),
        ("every weekday at 9 and 17", "weekdays at 09:00 and 17:00 Europe/Berlin"),
        ("every year on 24 december at 18:00", "day 24 of December at 18:00 Europe/Berlin"),
        ("every 90 minutes", "every 1 h 30 min"),
        ("every 24h", "every 24 h"),
        ("every 1 day", "every day at 18:00 Europe/Berlin"),
        ("cron */7 * * * *", "cron `*/7 * * * *` Europe/Berlin"),
        ("cron 0 */6 * * *", "every 6 hours Europe/Berlin"),
    ],
)
def test_a_schedule_is_said_in_words_before_it_is_saved(text: str, words: str) -> None:
    timed = read_when(text, NOW, ZONE)
    schedule = resolve(timed.schedule, now=NOW, zone=ZONE)
    assert say(schedule) == words
    assert say(schedule, reader=ZONE) == words.replace(f" {ZONE}", "")
    assert say(schedule, reader="Asia/Tokyo") == words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"event": "cell_done", "cell": "running"}, "when the running cell is done"),
        ({"event": "cell_slow", "cell": "any", "longer_than": "10m"}, "when any cell runs for longer than 10 min"),
        ({"event": "kernel_idle", "longer_than": "5m"}, "when the kernel has been idle for 5 min"),
        (
            {"event": "file_changed", "path": "a.csv", "repeat": "each", "cooldown": "1h"},
            "each time a.csv changes, at most once in 1 h",
        ),
        ({"event": "expression", "expr": "x > 1"}, "when `x > 1` turns true in the kernel"),
    ],
)
def test_an_event_is_said_in_words(event: dict[str, str], words: str) -> None:
    assert say(When.model_validate(event)) == words


def test_a_recurring_phrase_may_say_when_it_ends() -> None:
    timed = read("every 10 minutes until 9pm check", NOW, ZONE)
    assert timed is not None
    assert timed.policy.until == datetime(2026, 11, 23, 21, tzinfo=ZoneInfo(ZONE))
    assert timed.message == "check"
    times = read("every 5 minutes 3 times check", NOW, ZONE)
    assert times is not None
    assert times.policy.max_fires == 3
    lasting = read("every hour for 2 days check", NOW, ZONE)
    assert lasting is not None
    assert lasting.policy.until == NOW + timedelta(days=2)


def test_elapsed_time_is_elapsed_across_a_change_of_the_clocks() -> None:
    before = datetime(2026, 10, 25, 1, 30, tzinfo=ZoneInfo(ZONE))
    timed = read("in 3 hours look", before, ZONE)
    assert timed is not None
    assert shown(timed) == "in 3h"


def test_a_wall_clock_time_in_the_spring_gap_is_moved_on() -> None:
    timed = read("tomorrow at 02:30", datetime(2026, 3, 28, 12, tzinfo=ZoneInfo(ZONE)), ZONE)
    assert timed is not None
    assert shown(timed) == "at 2026-03-29 03:30"


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("10m", "in 10m"),
        ("1h30m", "in 1h30m"),
        ("2026-12-01T09:00:00+01:00", "at 2026-12-01 09:00"),
        ("2026-12-01T09:00", "at 2026-12-01 09:00"),
        ("2026-12-01", "at 2026-12-01 09:00"),
        ("0 9 * * 1-5", "cron 0 9 * * 1-5"),
        ("cron: */5 * * * *", "cron */5 * * * *"),
        ("@hourly", "cron @hourly"),
        ("'tomorrow at 8:30'", "at 2026-11-24 08:30"),
        ("every weekday at 9", "cron 0 9 * * 1-5"),
        ("10 minutes", "in 10m"),
    ],
)
def test_a_text_that_is_all_time_may_be_exact(text: str, meaning: str) -> None:
    assert shown(read_when(text, NOW, ZONE)) == meaning


@pytest.mark.parametrize("text", ["soon", "when it is done", "", "check the loss in 10 minutes"])
def test_a_text_that_is_not_all_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InvalidSchedule, match="every weekday at 9"):
        read_when(text, NOW, ZONE)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    with suppress(InvalidSchedule):
        read(text, NOW, ZONE)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "in",
                "at",
                "on",
                "every",
                "next",
                "10",
                "5pm",
                "25:00",
                "minutes",
                "hours",
                "day",
                "monday",
                "friday",
                "tomorrow",
                "and",
                "until",
                "noon",
                "31",
                "december",
                "the",
                "of",
                "0",
                "half",
                "an",
                "hour",
                "past",
                "1st",
                "-",
                ",",
                "weekday",
                "twice",
                "for",
                "2026-13-45",
                "UTC",
            ]
        ),
        max_size=8,
    )
)
def test_no_heap_of_time_words_makes_it_fail_otherwise(words: list[str]) -> None:
    with suppress(InvalidSchedule):
        read(" ".join(words), NOW, ZONE)


async def test_it_reads_off_the_event_loop_too() -> None:
    timed = await asyncio.to_thread(read, "tomorrow at 8:30", NOW, ZONE)
    assert timed is not None
    assert shown(timed) == "at 2026-11-24 08:30"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("yesterday", "2026-11-22 00:00"),
        ("since yesterday at 14:00", "2026-11-22 14:00"),
        ("the last hour", "2026-11-23 17:00"),
        ("last 2 hours", "2026-11-23 16:00"),
        ("30 minutes ago", "2026-11-23 17:30"),
        ("an hour ago", "2026-11-23 17:00"),
        ("this morning", "2026-11-23 06:00"),
        ("today", "2026-11-23 00:00"),
        ("last night", "2026-11-22 18:00"),
        ("monday", "2026-11-16 00:00"),
        ("friday", "2026-11-20 00:00"),
        ("noon", "2026-11-23 12:00"),
        ("at 9", "2026-11-23 09:00"),
        ("2026-11-20T10:00", "2026-11-20 10:00"),
        ("3 november", "2026-11-03 00:00"),
        ("last week", "2026-11-16 18:00"),
    ],
)
async def test_a_time_in_the_past_is_read_for_the_history(text: str, start: str) -> None:
    at = await read_past(text, NOW, ZONE)
    assert at is not None
    assert f"{at.astimezone(ZoneInfo(ZONE)):%Y-%m-%d %H:%M}" == start


@pytest.mark.parametrize("text", ["the big bang theory", "tomorrow", "xyzzy"])
async def test_what_is_no_time_in_the_past_is_none(text: str) -> None:
    assert await read_past(text, NOW, ZONE) is None
