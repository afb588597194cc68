"""What users have configured for themselves: kept, replaced, removed, bounded; never anybody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import get_args

import pytest

from navi_jupyter.errors import LimitReached
from navi_jupyter.ports.user_configuration import EntryKind, UserConfiguration
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
