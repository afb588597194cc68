"""The zone of a kernel's machine, by each form of ``TZ`` that a system may have, in a process that has it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = (
    "from datetime import datetime; from navi_jupyter.kernel.grammar.times import instant_text, local_zone;"
    "print(local_zone(), instant_text(datetime(2026, 7, 1, 12)), instant_text(datetime(2026, 12, 1, 12)))"
)


def zone_in_process(tz: str | None) -> list[str]:
    env = {name: value for name, value in os.environ.items() if name != "TZ"} | ({} if tz is None else {"TZ": tz})
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("tz", "zone", "summer", "winter"),
    [
        ("UTC0", "UTC", "+00:00", "+00:00"),
        ("", "UTC", "+00:00", "+00:00"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", "CET", "+02:00", "+01:00"),
        ("EST5EDT,M3.2.0,M11.1.0", "EST5EDT", "-04:00", "-05:00"),
        ("<-03>3", "Etc/GMT+3", "-03:00", "-03:00"),
        ("Europe/Berlin", "Europe/Berlin", "+02:00", "+01:00"),
        (":Europe/Berlin", "Europe/Berlin", "+02:00", "+01:00"),
    ],
)
def test_a_zone_a_rule_and_an_empty_variable_are_the_zone_that_the_clock_shows(
    tz: str, zone: str, summer: str, winter: str
) -> None:
    assert zone_in_process(tz) == [zone, f"2026-07-01T12:00:00{summer}", f"2026-12-01T12:00:00{winter}"]


def test_a_rule_of_half_hours_is_a_zone_that_has_them() -> None:
    zone, summer, winter = zone_in_process("<+0530>-5:30")
    assert zone in ("Asia/Kolkata", "Asia/Calcutta", "Asia/Colombo")
    assert (summer[-6:], winter[-6:]) == ("+05:30", "+05:30")


def test_the_file_of_the_machine_is_the_same_by_name_and_by_default() -> None:
    assert zone_in_process(":/etc/localtime") == zone_in_process("/etc/localtime") == zone_in_process(None)


def test_what_is_no_zone_names_none() -> None:
    assert zone_in_process("nonsense")[0] == "None"
