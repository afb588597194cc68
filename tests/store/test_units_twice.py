"""A unit of work may run twice: stories of sessions and recalls in which each one does, first without effect."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.store.database import Database, Transaction
from tests.orchestrator import test_commands, test_follow, test_interrupted, test_modes, test_pauses
from tests.scheduling import test_edges, test_planning, test_policies, test_scheduler

from .test_writer import draft, opened

Unit = Callable[[Transaction], Awaitable[Any]]
STORIES = (
    test_commands.test_a_prompt_in_mode_interrupt_ends_the_run_and_goes_before_those_that_wait,
    test_commands.test_a_command_sent_twenty_times_at_once_happens_once_and_all_get_the_same_answer,
    test_follow.test_after_compaction_a_cursor_inside_a_message_gets_a_gap_and_others_the_same_text,
    test_interrupted.test_a_run_without_an_effect_is_repeated_for_its_recall_and_the_message_is_there_once,
    test_modes.test_a_steered_prompt_becomes_part_of_the_run_that_takes_it,
    test_pauses.test_a_run_waits_through_a_restart_and_goes_on_when_it_is_answered_afterwards,
    test_pauses.test_always_answers_the_other_open_questions_about_that_tool_too,
    test_pauses.test_a_question_from_within_a_run_expires_too,
    test_edges.test_a_slot_that_the_ledger_has_already_is_neither_run_nor_counted_again,
    test_planning.test_a_plan_made_ahead_gives_way_to_what_its_owner_did_since_and_others_fire,
    test_policies.test_two_servers_that_catch_up_together_tell_each_session_once_and_all_of_it,
    test_policies.test_pruning_keeps_the_last_rows_what_is_young_and_what_is_open,
    test_scheduler.test_two_servers_on_one_database_start_each_slot_once,
    test_scheduler.test_deleting_the_session_cancels_its_recalls_and_keeps_their_ledger,
)


def given(function: Any) -> Iterator[tuple[str, str]]:
    """What a unit has from around it and could change: its plain variables and collections, by name."""
    for name, value in inspect.getclosurevars(function).nonlocals.items() if inspect.isfunction(function) else ():
        if isinstance(value, list | dict | set | deque | str | int | float | bool | None):
            yield name, repr(value)
        yield from given(value)


def rehearsed(unit: Unit) -> Unit:
    """The unit, which runs once more before, without effect."""

    async def run_twice(tx: Transaction) -> Any:
        before, mark = list(given(unit)), len(tx.appended)
        await tx.db.execute("SAVEPOINT rehearsal")
        try:
            await unit(tx)
        except Exception:  # noqa: BLE001 - it raises the same the second time
            pass
        finally:
            await tx.db.execute("ROLLBACK TO rehearsal")
            await tx.db.execute("RELEASE rehearsal")
            del tx.appended[mark:]
        assert list(given(unit)) == before, f"{unit.__qualname__} changes what is outside of it"
        return await unit(tx)

    return run_twice


@pytest.fixture
def every_unit_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    once = Database.write

    async def write(self: Database, unit: Unit, *, durable: bool = False, on: str | None = None) -> Any:
        return await once(self, rehearsed(unit), durable=durable, on=on)

    monkeypatch.setattr(Database, "write", write)


@pytest.mark.usefixtures("every_unit_twice")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.removeprefix("test_"))
async def test_a_story_is_the_same_when_every_unit_runs_twice(
    story: Callable[..., Awaitable[None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixtures = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    await story(**{name: fixtures[name] for name in inspect.signature(story).parameters})


@pytest.mark.usefixtures("every_unit_twice")
async def test_a_unit_that_changes_something_outside_of_itself_is_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        taken, count = [1, 2, 3], 0

        async def takes(tx: Transaction) -> int:
            return await tx.append("s_1", [draft(taken.pop())])

        async def counts(tx: Transaction) -> None:
            nonlocal count
            count += 1

        for unit in (takes, counts, lambda tx: takes(tx)):
            with pytest.raises(AssertionError, match="changes what is outside of it"):
                await asyncio.wait_for(store.write(unit), 20)
        assert await store.head("s_1") == 0
