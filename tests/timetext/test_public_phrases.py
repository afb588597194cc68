"""Times as people and the test suites of other readers write them: each is read as worked out by hand, or refused.

``phrases.csv`` has texts that are all time, each at a moment: a Monday evening, the end of a month, the nights in which
the clocks change, a leap day. ``sentences.csv`` has sentences with their message, on that Monday. ``meaning`` is
``at`` an instant in the zone (with its offset where the clocks show it twice), ``in`` a duration, ``every`` an
interval, ``cron`` fields, what bounds it (``until``, ``x3``), ``refused``, or ``none``: there is no time in it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.timetext.instants import Timed
from navi_jupyter.timetext.parse import read, read_leading
from navi_jupyter.timetext.phrases import read_when

from .test_doors import MESSAGE, NOTHING, Doors
from .test_times import NOW, ZONE

HERE = Path(__file__).parent


def rows(name: str) -> list[list[str]]:
    with (HERE / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


PHRASES = rows("phrases.csv")
SENTENCES = rows("sentences.csv")
GROUPS = [(moment, list(group)) for moment, group in groupby(PHRASES, key=lambda row: (row[1], row[2]))]


def moment_of(now: str, zone: str) -> datetime:
    at = datetime.fromisoformat(now)
    return at.astimezone(ZoneInfo(zone)) if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone))


def instant_text(text: str | datetime, zone: str) -> str:
    at = (datetime.fromisoformat(text) if isinstance(text, str) else text).astimezone(ZoneInfo(zone))
    is_twice = at.replace(fold=0).utcoffset() != at.replace(fold=1).utcoffset()
    return f"{at:%Y-%m-%d %H:%M}" + (f"{at:%z}" if is_twice else "")


def meaning_of(timed: Timed, zone: str) -> str:
    spec: dict[str, Any] = timed.schedule.model_dump(mode="json", by_alias=True, exclude_none=True)
    match spec:
        case {"kind": "once", "in": period}:
            words = f"in {period}"
        case {"kind": "once", "at": at}:
            words = f"at {instant_text(at, zone)}"
        case {"kind": "every", "every": period}:
            words = f"every {period}" + (f" from {instant_text(spec['start'], zone)}" if "start" in spec else "")
        case _:
            words = f"cron {spec['expr']}"
    words += f" until {instant_text(timed.policy.until, zone)}" if timed.policy.until else ""
    return words + (f" x{timed.policy.max_fires}" if timed.policy.max_fires else "")


@pytest.mark.parametrize(("phrase", "now", "zone", "meaning"), PHRASES)
def test_a_phrase_means_what_was_worked_out_or_is_refused(phrase: str, now: str, zone: str, meaning: str) -> None:
    try:
        found = meaning_of(read_when(phrase, moment_of(now, zone), zone), zone)
    except InvalidSchedule:
        found = "refused"
    assert found == meaning


@pytest.mark.parametrize(("sentence", "meaning", "message"), SENTENCES)
def test_a_sentence_leaves_its_message_and_no_part_of_its_time(sentence: str, meaning: str, message: str) -> None:
    try:
        timed = read(sentence, NOW, ZONE)
        found = (meaning_of(timed, ZONE), timed.message) if timed else ("none", "")
    except InvalidSchedule:
        found = ("refused", "")
    assert found == (meaning, message)


def test_there_are_three_hundred_phrases() -> None:
    assert len({row[0] for row in PHRASES}) >= 300


@pytest.mark.parametrize(("moment", "group"), GROUPS, ids=["/".join(moment) for moment, _ in GROUPS])
def test_every_door_reads_a_phrase_alike(
    moment: tuple[str, str], group: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    doors = Doors(moment_of(*moment), moment[1], monkeypatch)
    different = [difference for row in group for difference in differences(doors, row[0])]
    assert not different, "\n".join(different)


def differences(doors: Doors, phrase: str) -> Iterator[str]:
    meant = doors.meant(phrase, doors.zone)
    sentence = doors.rest(f"{phrase} {MESSAGE}", doors.zone, sentence=True)
    if sentence not in (meant, NOTHING):
        yield f"{phrase!r} before a message: {sentence} instead of {meant}"
    for door, found, wanted in (
        ("form", doors.rest(phrase, doors.zone), meant),
        ("tool", doors.tool(phrase), meant),
        ("cell", doors.cell(f'"{phrase}" {MESSAGE}' if '"' not in phrase else f"'{phrase}' {MESSAGE}"), meant),
        ("bare cell", doors.cell(f"{phrase} {MESSAGE}"), sentence),
    ):
        if found != wanted:
            yield f"{phrase!r} by {door}: {found} instead of {wanted}"
    in_chat = doors.offline(f"remind me to {MESSAGE} {phrase}")
    if (in_chat.schedule, in_chat.until) not in ((meant.schedule, meant.until), (None, None)):
        yield f"{phrase!r} in the chat: {in_chat} instead of {meant}"


@pytest.mark.parametrize(("sentence", "meaning", "message"), SENTENCES)
def test_a_sentence_that_begins_with_its_time_is_read_alike_in_a_cell(
    sentence: str, meaning: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        leading = read_leading(sentence, NOW, ZONE)
    except InvalidSchedule:
        leading = None
    found = Doors(NOW, ZONE, monkeypatch).cell(sentence)
    if leading is None:
        assert found == NOTHING
    else:
        assert (meaning_of(leading, ZONE), leading.message) == (meaning, message)
        assert " ".join(found.message.split()) == message
