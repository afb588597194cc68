"""Every phrase that the project knows, through every door: they read it alike, or all refuse it.

The doors: a cell (``%navi recall``, the time quoted and bare, options before, between and behind), ``POST
recalls/preview`` (a text, a sentence), the agent's tool ``create_recall``, and the offline backend.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from navi_jupyter.agent.offline import answers
from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.tools import recalls as recall_tools
from navi_jupyter.agent.tools.recalls import create_recall
from navi_jupyter.errors import NaviError
from navi_jupyter.kernel import api, magics
from navi_jupyter.kernel.errors import Refused, UsageError
from navi_jupyter.kernel.grammar.command_line import Prompt, parse_line
from navi_jupyter.kernel.grammar.recall_command import NewRecall
from navi_jupyter.model.recalls import Policy, RecallCreate, Schedule, ScheduleSpec
from navi_jupyter.ports.agent import tool_context
from navi_jupyter.scheduling.schedules import preview, resolve
from navi_jupyter.server.rest.recalls import previewed
from navi_jupyter.server.wire.recalls import PreviewRequest
from navi_jupyter.timetext.parse import read
from navi_jupyter.timetext.phrases import read_when
from tests.support import agent_world
from tests.support.agent_world import Bench

from .test_phrases import EXPLAINED, NOT_UNDERSTOOD, UNDERSTOOD
from .test_times import TABLE

MORE = [
    "9pm", "at 9:00", "at 2:30", "9 in the evening", "at 9 at night", "this evening at 9", "in 1 day", "in 1d",
    "in 24h", "in 1d12h", "2 days",
    "in 2 weeks", "in 1 week", "in 36 hours", "in 1 month", "every 1d", "every 1 day", "every 24h",
    "every 2 days", "in 1 day at 9",
    "every 2 weeks", "every 7d", "tomorrow 8:30", "at tomorrow 18:30", "at 2:30 tomorrow", "at 18:30", "18:30", "9:00",
    "at 9 every day", "at 7:05 on fridays",
    "every friday at 16:00", "2027-01-31T18:30", "2027-01-31 18:30", "at 2027-01-31T18:30+00:00", "at 12am", "at 12pm",
    "in 90 seconds", "in 1h 30 minutes", "on 24 december", "at noon on friday", "friday at noon", "tonight at 11",
    "every day at 6 in the morning", "every morning at 6", "every hour until 18:00", "every 2 hours until tomorrow",
    "every day for 3 days", "every hour, 3 times", "in 10 minutes", "after 2 days", "2 days later", "in half a day",
    "in three quarters of an hour", "the first monday of the month at 8", "next month", "next week", "at 25:00",
]  # fmt: skip
PHRASES = sorted({*(text for text, _ in UNDERSTOOD), *NOT_UNDERSTOOD, *(text for text, _ in EXPLAINED), *MORE})
SENTENCES = sorted({text for text, _, _ in TABLE})
ALL_MOMENTS = [
    ("2026-11-23T18:00:00", "Europe/Berlin"),
    ("2026-10-24T02:30:00", "Europe/Berlin"),  # at the same time tomorrow the clocks go back
    ("2026-03-28T02:30:12.345", "Europe/Berlin"),  # there is no such time tomorrow
    ("2026-10-31T09:00:00", "America/New_York"),
    ("2026-10-03T23:45:00", "Australia/Lord_Howe"),  # a change by half an hour
    ("2027-02-28T08:59:59", "Asia/Kolkata"),
]
# Each moment takes ten to forty seconds. NAVI_DOORS=all is the long form.
MOMENTS = ALL_MOMENTS if os.environ.get("NAVI_DOORS") == "all" else ALL_MOMENTS[:2]
TOKYO = "Asia/Tokyo"
MESSAGE = "look at the plot"
OPTIONS = {"title": "the loss", "notify": ["phone", "mail"], "max_fires": 7}


@dataclass(frozen=True)
class Outcome:
    """What a door made of a line: a recall, or none."""

    schedule: Mapping[str, Any] | None = None
    message: str = ""
    until: datetime | None = None
    title: str | None = None
    notify: tuple[str, ...] = ()
    max_fires: int | None = None


NOTHING = Outcome()
"""Refused, or for the agent to read."""


def wire(schedule: Schedule) -> dict[str, Any]:
    """As JSON, with instants in UTC."""
    fields = {"at", "start"}
    body = schedule.model_dump(mode="json")
    return {
        name: str(datetime.fromisoformat(value).astimezone(ZoneInfo("UTC"))) if name in fields else value
        for name, value in body.items()
    }


class Doors:
    """All of them at one instant."""

    def __init__(self, at: datetime, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = at
        self.zone = zone
        self._stored: dict[str, Any] = {}
        self.note: str | None = None
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setattr(magics, "current_service", lambda: self)
        monkeypatch.setattr(api, "session", lambda _=None: SimpleNamespace(id="s_1", approvals=()))
        monkeypatch.setattr(magics.NaviMagics, "_filled", lambda _, text: text)
        monkeypatch.setattr(magics.NaviMagics, "_ask", lambda *_: None)
        for module in (recall_tools, agent_world):
            monkeypatch.setattr(module, "now", lambda: self.at)
        monkeypatch.setattr(answers, "_CHUNK_DELAY", 1e-9)

    # --- as the server's scheduling service, and as the kernel's connection to the server

    async def foresee(
        self, spec: ScheduleSpec, *, n: int, after: datetime | None, as_of: datetime | None, zone: str
    ) -> tuple[Schedule, Sequence[datetime], Sequence[str]]:
        schedule = resolve(spec, now=as_of or self.at, zone=zone)
        return schedule, preview(schedule, n=n, after=after or self.at, zone=zone), ()

    def call(self, _method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "recalls":
            self._stored = body
            return {
                "policy": {},
                **body,
                "id": "r_1",
                "title": body.get("title") or "t",
                "next_at": None,
                "status": "pending",
            }
        try:
            found = asyncio.run(previewed(PreviewRequest.model_validate(body), self, self.at))  # type: ignore[arg-type]
        except NaviError as error:
            raise Refused(error.message, server_code=error.code, server_status=400, field=error.field) from None
        except ValidationError as error:
            raise Refused(str(error), server_code="invalid_request", server_status=400) from None
        return found.model_dump(mode="json")

    # --- the doors

    def cell(self, line: str) -> Outcome:
        self._stored = {}
        try:
            request = parse_line(f"recall {line}")
            assert isinstance(request, NewRecall | Prompt)
            if isinstance(request, Prompt):
                return NOTHING
            magics.NaviMagics._recall(SimpleNamespace(_filled=str, _ask=lambda _: None), request)  # type: ignore[arg-type]
        except (UsageError, Refused):
            return NOTHING
        if not self._stored:
            return NOTHING
        create = RecallCreate.model_validate(self._stored)
        return self._made(create, self.zone)

    def rest(self, text: str, zone: str, *, sentence: bool = False) -> Outcome:
        try:
            found = self.call("POST", "recalls/preview", {"text": text, "tz": zone, "sentence": sentence})
        except Refused:
            return NOTHING
        request = {"session_id": "s_1", "message": found["message"] or MESSAGE}
        create = RecallCreate.model_validate({**request, "schedule": found["schedule"], "policy": found["policy"]})
        return self._made(create, self.zone)

    def tool(self, when: str) -> Outcome:
        bench = Bench(OfflineBackend())
        bench.session = bench.session.but(timezone=self.zone)
        token = tool_context.set(bench.turn("x")[1])
        try:
            asyncio.run(create_recall(MESSAGE, when))
        except NaviError:
            return NOTHING
        finally:
            tool_context.reset(token)
        return self._first(bench)

    def offline(self, prompt: str) -> Outcome:
        bench = Bench(OfflineBackend())
        bench.session = bench.session.but(timezone=self.zone)
        asyncio.run(bench.run(prompt))
        found = self._first(bench)
        return Outcome(schedule=found.schedule, message=found.message.lower(), until=found.until)

    def _first(self, bench: Bench) -> Outcome:
        for recall in bench.desk.recalls.values():
            return Outcome(
                schedule=wire(recall.schedule), message=recall.message, until=recall.policy.until,
                max_fires=recall.policy.max_fires,
            )  # fmt: skip
        return NOTHING

    def _made(self, create: RecallCreate, zone: str) -> Outcome:
        policy: Policy = create.policy
        return Outcome(
            schedule=wire(resolve(create.schedule, now=self.at, zone=zone)), message=create.message, until=policy.until,
            title=create.title, notify=policy.notify, max_fires=policy.max_fires,
        )  # fmt: skip

    def meant(self, phrase: str, zone: str) -> Outcome:
        """What the reader itself makes of it."""
        try:
            timed = read_when(phrase, self.at, zone)
        except NaviError:
            return NOTHING
        return Outcome(
            schedule=wire(resolve(timed.schedule, now=self.at, zone=zone)), message=MESSAGE,
            until=timed.policy.until, max_fires=timed.policy.max_fires,
        )  # fmt: skip


@pytest.fixture(params=MOMENTS, ids=lambda moment: "/".join(moment))
def doors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Doors:
    at, zone = request.param
    return Doors(datetime.fromisoformat(at).replace(tzinfo=ZoneInfo(zone)), zone, monkeypatch)


def differences(doors: Doors, check: Callable[[Doors, str], Iterator[str]]) -> list[str]:
    return [difference for phrase in PHRASES for difference in check(doors, phrase)]


def quoted_lines(phrase: str) -> list[str]:
    """With and without options, in every place."""
    return [f'"{phrase}" {MESSAGE}', f"'{phrase}' '{MESSAGE}'" if "'" not in phrase else f'"{phrase}" "{MESSAGE}"']


def option_lines(time: str) -> list[str]:
    tz, title, notify = f"--tz {TOKYO}", '--title "the loss"', "--notify phone,mail"
    return [
        f"{tz} {title} {notify} --max-fires 7 {time} {MESSAGE}",
        f"{time} {tz} --title 'the loss' {notify} --max-fires=7 {MESSAGE}",
        f"{time} {MESSAGE} {notify} {title} {tz} --max-fires 7",
        f"--tz={TOKYO} {time} {title} {MESSAGE} --notify phone --notify mail --max-fires 7",
        f"{time} {title} look {tz} at --max-fires 7 the plot {notify}",
        f'--title="the loss" {time} --max-fires 7 {notify} "{MESSAGE}" {tz}',
    ]


def with_options(meant: Outcome) -> Outcome:
    if meant is NOTHING or meant.schedule is None:
        return NOTHING
    return Outcome(
        schedule=meant.schedule, message=meant.message, until=meant.until, title="the loss",
        notify=("phone", "mail"), max_fires=7,
    )  # fmt: skip


def test_a_quoted_time_is_read_alike_through_every_door(doors: Doors) -> None:
    def check(doors: Doors, phrase: str) -> Iterator[str]:
        meant = doors.meant(phrase, doors.zone)
        if phrase.startswith("when "):
            return
        for door, found in (
            ("text of a preview", doors.rest(phrase, doors.zone)),
            ("tool", doors.tool(phrase)),
            *(("cell: " + line, doors.cell(line)) for line in quoted_lines(phrase)),
        ):
            if found != meant:
                yield f"{phrase!r} by {door}: {found} instead of {meant}"

    found = differences(doors, check)
    assert not found, "\n".join(found)


def test_a_bare_time_is_read_as_the_quoted_one_or_refused_and_alike_in_a_cell_and_a_sentence(doors: Doors) -> None:
    agreed: list[str] = []

    def check(doors: Doors, phrase: str) -> Iterator[str]:
        meant = doors.meant(phrase, doors.zone)
        sentence = doors.rest(f"{phrase} {MESSAGE}", doors.zone, sentence=True)
        cell = doors.cell(f"{phrase} {MESSAGE}")
        if sentence not in (meant, NOTHING) and not phrase.startswith(("when ", "once ")):
            yield f"{phrase!r} in a sentence: {sentence} instead of {meant}"
        if cell != sentence and not phrase.startswith("when "):
            yield f"{phrase!r} in a cell: {cell}, in a sentence: {sentence}"
        if sentence == meant != NOTHING:
            agreed.append(phrase)

    found = differences(doors, check)
    assert not found, "\n".join(found)
    understood = [phrase for phrase in PHRASES if doors.meant(phrase, doors.zone) != NOTHING]
    assert len(agreed) > 0.9 * len(understood), sorted(set(understood) - set(agreed))


def test_options_stand_anywhere_and_change_nothing_else(doors: Doors) -> None:
    def check(doors: Doors, phrase: str) -> Iterator[str]:
        if phrase.startswith("when "):
            return
        quoted = with_options(doors.meant(phrase, TOKYO))
        bare = with_options(doors.rest(f"{phrase} {MESSAGE}", TOKYO, sentence=True))
        for time, meant in ((f'"{phrase}"', quoted), (phrase, bare)):
            for line in option_lines(time):
                if (found := doors.cell(line)) != meant:
                    yield f"{line!r}: {found} instead of {meant}"

    found = differences(doors, check)
    assert not found, "\n".join(found)


def test_the_offline_backend_reads_the_same(doors: Doors) -> None:
    def check(doors: Doors, phrase: str) -> Iterator[str]:
        meant = doors.meant(phrase, doors.zone)
        if meant is NOTHING or meant.schedule is None:
            return
        in_sentence = read(phrase, doors.at, doors.zone)
        if in_sentence is None or in_sentence.message:
            return  # all by itself it is a time (10m, five cron fields), in a sentence it is none
        for prompt in (f"remind me to {MESSAGE} {phrase}", f"{phrase} remind me to {MESSAGE}"):
            found = doors.offline(prompt)
            if (found.schedule, found.message, found.until) != (meant.schedule, meant.message, meant.until):
                yield f"{prompt!r}: {found} instead of {meant}"

    found = differences(doors, check)
    assert not found, "\n".join(found)


def test_the_known_sentences_are_read_alike_in_a_cell_and_by_the_server(doors: Doors) -> None:
    different = [
        text
        for text in SENTENCES
        if doors.cell(text) != (by_server := doors.rest(text, doors.zone, sentence=True))
        and not (by_server.message == MESSAGE and doors.cell(text) == NOTHING)  # all time, without a message
    ]
    assert not different


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_heaps_of_options_in_odd_places_leave_time_and_message(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        doors = Doors(datetime(2026, 11, 23, 18, 0, tzinfo=ZoneInfo("Europe/Berlin")), "Europe/Berlin", patch)
        phrase = data.draw(
            st.sampled_from(["in 1d", "at 9:00", "tomorrow 8:30", "every friday at 16:00", "in 2 weeks"])
        )
        words = [phrase, "look", "at", "Bob's", "plot", "now"]
        title = data.draw(st.sampled_from(["--title x", "--title 'x'", '--title="x"', "--title=x"]))
        for option in [title, f"--tz {TOKYO}", "--notify phone", "--retries 2"]:
            words.insert(data.draw(st.integers(0, len(words))), option)
        found = doors.cell(" ".join(words))
        meant = doors.meant(phrase, TOKYO)
        assert (found.schedule, found.message) == (meant.schedule, "look at Bob's plot now"), words
        assert (found.title, found.notify) == ("x", ("phone",))


@pytest.mark.parametrize(
    ("schedule", "local", "meaning"),
    [
        ({"kind": "once", "in": "1d"}, "25 12:00", "1 calendar day from now"),
        ({"kind": "once", "in": "24h"}, "25 11:00", "24 h from now"),
        ({"kind": "once", "in": "1d12h"}, "26 00:00", "1 calendar day and 12 h from now"),
        ({"kind": "every", "every": "1d"}, "25 12:00", "every day at 12:00 Europe/Berlin"),
        ({"kind": "every", "every": "24h"}, "25 11:00", "every 24 h"),
        ("in 1 day", "25 12:00", "1 calendar day from now"),
        ("in 24 hours", "25 11:00", "24 h from now"),
        ("every 1 day", "25 12:00", "every day at 12:00 Europe/Berlin"),
        ("every 24 hours", "25 11:00", "every 24 h"),
        ("tomorrow at noon", "25 12:00", "Tomorrow, Sun 25 Oct 12:00 Europe/Berlin"),
    ],
)
def test_a_day_is_a_calendar_day_and_24_hours_are_elapsed_time_and_the_echo_says_which(
    schedule: Any, local: str, meaning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 10, 24, 12, tzinfo=ZoneInfo("Europe/Berlin"))  # the clocks go back in the coming night
    doors = Doors(noon, "Europe/Berlin", monkeypatch)
    name = "text" if isinstance(schedule, str) else "schedule"
    found = doors.call("POST", "recalls/preview", {name: schedule, "tz": doors.zone})
    first = found["times"][0] if found["times"] else found["schedule"]["at"]
    assert f"{datetime.fromisoformat(first).astimezone(ZoneInfo(doors.zone)):%d %H:%M}" == local
    assert meaning in found["meaning"]


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ("friday", "2026-11-27 23:59:59"),
        ("'friday at 9'", "2026-11-27 09:00:00"),
        ("18:30", "2026-11-23 18:30:00"),
        ("2026-12-24T18:00", "2026-12-24 18:00:00"),
        ("'in 2 days'", "2026-11-25 23:59:59"),
    ],
)
def test_an_end_is_read_by_the_same_reader(until: str, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monday = datetime(2026, 11, 23, 18, tzinfo=ZoneInfo("Europe/Berlin"))
    found = Doors(monday, "Europe/Berlin", monkeypatch).cell(f"every hour look --until {until}")
    assert found.until is not None
    assert f"{found.until.astimezone(monday.tzinfo):%Y-%m-%d %H:%M:%S}" == end
