"""What users have configured for themselves: kept, replaced, removed, bounded; never anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import pytest

from navi_jupyter.clock import now
from navi_jupyter.errors import LimitReached
from navi_jupyter.ports.user_configuration import EntryKind, UserConfiguration
from navi_jupyter.store.database import Transaction
from navi_jupyter.store.notices import StoredNotices
from navi_jupyter.store.user_configuration import MAX_CHARACTERS, MAX_ENTRIES, UserConfigurationStore
from tests.support.database import open_store

KINDS: tuple[EntryKind, ...] = get_args(EntryKind)


@asynccontextmanager
async def configurations(folder: Path) -> AsyncIterator[UserConfigurationStore]:
    store = await open_store(folder / "navi.db")
    try:
        yield UserConfigurationStore(store)
    finally:
        await store.close()


def entries(found: UserConfiguration) -> dict[str, dict[str, str]]:
    """All of them, by kind."""
    return {"profile": dict(found.profiles), "mcp": dict(found.mcp_servers), "notify": dict(found.targets)}


async def test_an_entry_is_there_after_the_database_was_closed_and_opened_again(tmp_path: Path) -> None:
    async with configurations(tmp_path) as kept:
        for kind in KINDS:
            await kept.put("ada", kind, "mine", f'{{"of": "{kind}"}}')
    async with configurations(tmp_path) as kept:
        found = await kept.read("ada")
    assert entries(found) == {kind: {"mine": f'{{"of": "{kind}"}}'} for kind in KINDS}
    assert found.owner == "ada"


@pytest.mark.parametrize("kind", KINDS)
async def test_each_user_has_and_changes_their_own_alone(tmp_path: Path, kind: EntryKind) -> None:
    async with configurations(tmp_path) as kept:
        await kept.put("ada", kind, "mine", "1")
        await kept.put("bob", kind, "mine", "2")
        await kept.put("ada", kind, "mine", "3")
        assert entries(await kept.read("ada"))[kind] == {"mine": "3"}
        assert entries(await kept.read("bob"))[kind] == {"mine": "2"}
        assert entries(await kept.read("ad")) == {"profile": {}, "mcp": {}, "notify": {}}
        assert await kept.remove("ada", kind, "mine")
        assert not await kept.remove("ada", kind, "mine")
        assert entries(await kept.read("ada"))[kind] == {}
        assert entries(await kept.read("bob"))[kind] == {"mine": "2"}
        for other in set(KINDS) - {kind}:
            assert not await kept.remove("bob", other, "mine")
        assert entries(await kept.read("bob"))[kind] == {"mine": "2"}


async def test_what_another_server_stores_is_read_the_next_time(tmp_path: Path) -> None:
    async with configurations(tmp_path) as one, configurations(tmp_path) as other:
        await one.put("ada", "profile", "mine", "1")
        before = await other.read("ada")
        await one.put("ada", "profile", "mine", "2")
        after = await other.read("ada")
    assert (before.profiles, after.profiles) == ({"mine": "1"}, {"mine": "2"})
    assert after.order > before.order


async def test_many_requests_at_once_do_not_pass_the_limits_together(tmp_path: Path) -> None:
    async with configurations(tmp_path) as kept:
        puts = (kept.put("ada", "mcp", f"n{number}", "{}") for number in range(MAX_ENTRIES + 20))
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert sum(isinstance(one, LimitReached) for one in results) == 20
        assert len((await kept.read("ada")).mcp_servers) == MAX_ENTRIES
        await kept.put("ada", "notify", "n", "{}")
        await kept.put("bob", "mcp", "n", "{}")
        half = "x" * (MAX_CHARACTERS // 2)
        halves = (kept.put("ada", "profile", f"n{number}", half) for number in range(3))
        results = await asyncio.gather(*halves, return_exceptions=True)
        assert sum(isinstance(one, LimitReached) for one in results) == 1
        await kept.put("ada", "profile", next(iter((await kept.read("ada")).profiles)), half)  # in place of itself


def test_nothing_that_is_printed_shows_an_address() -> None:
    assert "key" not in repr(UserConfiguration(owner="ada", mcp_servers={"a": "key"}, targets={"b": "key"}))


async def test_what_has_ended_goes_to_the_targets_of_all_and_to_those_of_its_own_user(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "navi.db")
    kept, notices = UserConfigurationStore(store), StoredNotices(store)

    async def end(owner: str, number: int) -> None:
        """A run of this user is over."""

        async def unit(tx: Transaction) -> None:
            await tx.change(
                "INSERT INTO sessions (id, owner, title, profile, model, timezone, created_at, updated_at)"
                " VALUES (?, ?, 't', 'p', 'm', 'UTC', 1, 1) ON CONFLICT DO NOTHING",
                (f"s_{owner}", owner),
            )
            await tx.change(
                "INSERT INTO runs (id, session_id, command_id, status, origin_kind, user_id, model, prompt, first_seq,"
                " created_at, ended_at) VALUES (?, ?, ?, 'completed', 'user', ?, 'm', 'p', 1, 1, 1)",
                (f"r_{owner}_{number}", f"s_{owner}", f"c_{number}", owner),
            )
            await tx.change("DELETE FROM ended")
            await tx.change("INSERT INTO ended (kind, id) SELECT 'run', id FROM runs")

        await store.write(unit)

    async def made(*, most: int = 9) -> set[tuple[str, str, str]]:
        """The notices that are made of all of it: (owner, target, status)."""
        last = await notices.last_ended()
        await notices.add_ended(
            {"run": ["house", "mine"]},
            own=lambda entries: {"run": [name for name, text in entries.items() if text == "wants"]},
            up_to=last or 0,
            now=now(),
            limit=99,
            most=most,
        )
        rows = await store.fetch_all("SELECT owner, target, status FROM notices ORDER BY number")
        return {(row["owner"], row["target"], row["status"]) for row in rows}

    try:
        await kept.put("ada", "notify", "mine", "wants")
        await kept.put("bob", "notify", "hook", "wants")
        await kept.put("cid", "notify", "mine", "does not")  # in place of that of all: it gets nothing either
        await kept.put("ada", "mcp", "hook", "wants")
        for owner in ("ada", "bob", "cid", "dan"):
            await end(owner, 1)
        assert await made() == {
            *((owner, "house", "pending") for owner in ("ada", "bob", "cid", "dan")),
            *((owner, "mine", "pending") for owner in ("ada", "bob", "dan")),
            ("bob", "hook", "pending"),
        }
        # What waits for the own target of one user takes no room of the others' with its name, nor of that of all.
        await store.write(lambda tx: tx.change("DELETE FROM notices"))
        await kept.put("dan", "notify", "mine", "wants")
        for number in range(2, 5):
            await end("ada", number)
        found = await made(most=3)
        assert {status for owner, target, status in found if (owner, target) == ("ada", "mine")} == {
            "pending",
            "failed",
        }
        assert {status for owner, target, status in found if (owner, target) == ("dan", "mine")} == {"pending"}
        await end("bob", 9)
        found = await made(most=3)
        assert {status for owner, target, status in found if (owner, target) == ("bob", "mine")} == {"pending"}
    finally:
        await store.close()
