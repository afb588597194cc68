"""The check of the check: mistakes that are planted into the machine are all found by the model.

A history is the same for its seed, so one that shows a mistake is looked at first. Where the machine has changed since,
it may not show it any more: then histories are searched from the first on, and the one that was found is printed.
``NAVI_MISTAKE_HISTORIES`` says how many, and that the search is to be done for every mistake.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.database import URL
from tests.support.simulation import House

from .model import mistakes_around  # noqa: F401  plants its own
from .model.explorer import Told, explore
from .model.mistakes import MISTAKES
from .model.mistakes_postgres import ON_POSTGRES

SEARCHED = "NAVI_MISTAKE_HISTORIES" in os.environ
WITHIN = int(os.environ.get("NAVI_MISTAKE_HISTORIES", "700"))
"""Histories that are searched. Most mistakes are in one of the first fifty."""
SHOWN_BY: dict[str, tuple[int, ...]] = {
    "a_cooldown_counts_only_what_has_started": (2,),
    "a_message_that_did_not_go_counts_as_told": (25,),
    "a_pause_is_not_looked_at_on_delivery": (30,),
    "a_prompt_in_the_queue_counts_as_started": (11,),
    "a_report_counts_after_the_firing_was_rescued": (24,),
    "a_retry_after_the_recall_was_cancelled": (116, 144, 125),
    "a_run_ends_although_others_have_closed_it": (264, 397, 529),
    "a_run_that_had_done_something_is_started_again": (48,),
    "a_run_writes_on_after_others_have_closed_it": (55,),
    "an_event_that_ran_and_waits_for_its_next_attempt_is_coalesced": (269,),
    "an_interrupted_run_is_never_started_again": (31,),
    "cancelled_without_looking_for_the_prompt": (144, 116, 125),
    "catching_up_starts_all_at_once": (2,),
    "delivered_without_looking_at_the_lease": (21,),
    "max_fires_counts_what_has_started": (33,),
    "no_limit_of_attempts": (34,),
    "no_self_fence": (529, 651, 497),
    "no_unique_slot_and_no_version": (3,),
    "nobody_is_told_of_a_failure_that_a_later_slot_brought": (25,),
    "people_are_told_of_every_missed_slot": (4,),
    "put_back_without_looking_for_the_prompt": (2,),
    "rescued_twenty_seconds_early": (2,),
    "slots_are_forgotten_while_all_seem_to_be_planned": (88,),
    "taken_before_its_time": (16,),
    "that_the_user_came_is_looked_at_only_before_the_delivery": (30,),
    "the_event_is_written_after_the_row": (8,),
    "the_message_of_an_interrupted_run_is_sent_again": (17,),
    "what_came_of_it_is_taken_from_anybody": (24,),
    "what_needed_approval_is_tried_again": (8,),
    "what_one_server_sends_another_takes_too": (31,),
    "what_the_user_stopped_counts_as_interrupted": (21,),
}
"""Histories that show a mistake: several where few do. Where none is named, the first one does."""


PLANTED = MISTAKES if URL not in os.environ else MISTAKES | ON_POSTGRES if SEARCHED else ON_POSTGRES
"""On PostgreSQL only its own, unless all are searched for: a history takes a second there."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(PLANTED))
async def test_a_planted_mistake_is_found_by_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = SHOWN_BY.get(name, (0,))
    house = await House.open(tmp_path, monkeypatch.setattr)
    (MISTAKES | ON_POSTGRES)[name](house, monkeypatch.setattr)
    await house.drop_indexes()
    try:
        for seed in range(WITHIN) if SEARCHED else (*known, *range(WITHIN)):
            try:
                await explore(house, seed, Told(), overlaps=name in ON_POSTGRES)
            except AssertionError as error:
                note = "" if seed in known else f" (SHOWN_BY names {known})"
                print(f"\n{name}: found in history {seed}{note}: {str(error).splitlines()[0][:160]}")
                return
    finally:
        await house.close()
    pytest.fail(f"{WITHIN} histories do not show it")


def test_a_history_that_shows_a_mistake_is_named_for_mistakes_that_there_are() -> None:
    assert SHOWN_BY.keys() <= (MISTAKES | ON_POSTGRES).keys()
