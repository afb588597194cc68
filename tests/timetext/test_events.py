"""What people write who wait for something to happen, and what is understood; all else is a time, or refused."""

from __future__ import annotations

import pytest

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.scheduling.event_triggers import resolve_when
from navi_jupyter.timetext.events import read_event
from navi_jupyter.timetext.format import say


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("when the cell is done", "when the running cell is done"),
        ("As soon as the cell is done.", "when the running cell is done"),
        ("when it is over", "when the running cell is done"),
        ("when done", "when the running cell is done"),
        ("when my cell has finished", "when the running cell finishes without an error"),
        ("whenever a cell fails", "each time any cell fails"),
        ("when the running cell raises an error", "when the running cell fails"),
        ("when the cell takes longer than 10 minutes", "when the running cell runs for longer than 10 min"),
        ("when it runs for more than an hour and a half", "when the running cell runs for longer than 1 h 30 min"),
        ("when slow 10m", "when the running cell runs for longer than 10 min"),
        ("when the kernel is idle for 5 minutes", "when the kernel has been idle for 5 min"),
        ("when the kernel restarts", "when the kernel restarts"),
        ("when the kernel crashes", "when the kernel dies"),
        ("when data/results.csv changes", "when data/results.csv changes"),
        ("when the file 'my data.csv' changes, each time", "each time my data.csv changes"),
        ("every time out/*.png is written", "each time out/*.png changes"),
        ("when loss < 0.1", "when `loss < 0.1` turns true in the kernel"),
        ("when `model.trained` is true", "when `model.trained` turns true in the kernel"),
    ],
)
def test_a_sentence_is_understood_as_what_it_says(text: str, meaning: str) -> None:
    spec = read_event(text)
    assert spec is not None
    assert say(resolve_when(spec)) == meaning


@pytest.mark.parametrize("text", ["every other Friday at 16:00", "in 10 minutes", "once a day", "after lunch", ""])
def test_what_does_not_begin_like_that_is_left_to_those_who_read_times(text: str) -> None:
    assert read_event(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("when", "when the cell is done"),
        ("when we meet", "use done, finished, failed"),
        ("when ../secrets.csv changes", "relative to the server's root"),
        ("when 1 <", "no Python expression"),
        ("when the cell takes longer than 0 seconds", "no time at all"),
        ("when " + "x " * 10_000 + "< 1", "too long"),
    ],
)
def test_what_can_not_be_waited_for_is_refused_with_what_can(text: str, why: str) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        resolve_when(read_event(text) or pytest.fail("it is no time"))
    assert why in str(refused.value)
