"""Lists of ids, as clients send them, are one parameter of a statement."""

from __future__ import annotations

from pathlib import Path

from navi_jupyter.store.notices import ResultStore
from tests.support.scheduler_world import world


async def test_an_id_that_no_text_can_have_is_not_found_and_does_not_hide_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        session_id = await here.add_session()
        recall_id = (await here.recall(session_id, {"kind": "once", "in": "10s"})).id
        for wrong in ("\ud800", "a\udfffb", "\x00"):
            assert [one.id for one in await here.store.sessions_of([wrong, session_id])] == [session_id]
            assert await here.store.interrupts([wrong]) == []
            assert await here.store.activities([wrong]) == {}
            assert await ResultStore(here.store).of_runs([wrong]) == {}
            found = await here.store.write(lambda tx, ids=(wrong, recall_id): tx.recall_states(ids))  # type: ignore[misc]
            assert list(found) == [recall_id]
