"""Facts about users: kept, found by words, changed, forgotten; never anybody else's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navi_jupyter.errors import FactNotFound, InvalidRequest, LimitReached
from navi_jupyter.store.memory import FactStore
from navi_jupyter.store.sqlite.full_text import full_text_query
from tests.support.database import open_store


@asynccontextmanager
async def memory_of(folder: Path, *, limit: int = 1000) -> AsyncIterator[FactStore]:
    store = await open_store(folder / "navi.db")
    try:
        yield FactStore(store, max_facts_per_user=limit)
    finally:
        await store.close()


async def texts(memory: FactStore, owner: str = "ada", query: str | None = None) -> list[str]:
    facts, _ = await memory.facts(owner, query=query)
    return [fact.text for fact in facts]


async def test_a_fact_is_there_after_the_database_was_closed_and_opened_again(tmp_path: Path) -> None:
    async with memory_of(tmp_path) as memory:
        added = await memory.add("  Prefers polars.  ", owner="ada", source="agent", session_id="s_1")
    async with memory_of(tmp_path) as memory:
        (fact,), following = await memory.facts("ada")
    assert fact == added
    assert (fact.text, fact.source, fact.session_id, following) == ("Prefers polars.", "agent", "s_1", None)


async def test_facts_are_found_by_any_word_the_best_first_also_by_beginnings_and_without_accents(
    tmp_path: Path,
) -> None:
    async with memory_of(tmp_path) as memory:
        for text in (
            "Lives in Besançon",
            "Uses the sales data of 2024",
            "The sales data has duplicate rows",
            "Likes tea",
        ):
            await memory.add(text, owner="ada", source="user")
        assert await texts(memory, query="besancon") == ["Lives in Besançon"]
        assert set(await texts(memory, query="sale dat")) == {
            "Uses the sales data of 2024",
            "The sales data has duplicate rows",
        }
        assert (await texts(memory, query="duplicate sales rows"))[0] == "The sales data has duplicate rows"
        assert await texts(memory, query="coffee") == []


async def test_what_is_changed_or_forgotten_is_not_found_any_more(tmp_path: Path) -> None:
    async with memory_of(tmp_path) as memory:
        fact = await memory.add("Works in Berlin", owner="ada", source="user")
        changed = await memory.change(fact.id, "Works in Lisbon", owner="ada")
        assert changed.updated_at > fact.updated_at
        assert await texts(memory, query="berlin") == []
        assert await texts(memory, query="lisbon") == ["Works in Lisbon"]
        await memory.forget(fact.id, owner="ada")
        assert await texts(memory, query="lisbon") == await texts(memory) == []
        with pytest.raises(FactNotFound):
            await memory.forget(fact.id, owner="ada")


async def test_nobody_sees_changes_or_forgets_another_ones_facts(tmp_path: Path) -> None:
    async with memory_of(tmp_path) as memory:
        fact = await memory.add("Salary is secret", owner="ada", source="user")
        assert await texts(memory, "eve") == await texts(memory, "eve", "salary") == []
        for attempt in (memory.change(fact.id, "x", owner="eve"), memory.forget(fact.id, owner="eve")):
            with pytest.raises(FactNotFound):
                await attempt
        assert await memory.forget_all("eve") == 0
        assert await texts(memory) == ["Salary is secret"]


async def test_the_same_text_is_the_same_fact_and_the_limit_holds(tmp_path: Path) -> None:
    async with memory_of(tmp_path, limit=2) as memory:
        first = await memory.add("one", owner="ada", source="user")
        assert await memory.add("one", owner="ada", source="agent") == first
        await memory.add("two", owner="ada", source="user")
        with pytest.raises(LimitReached):
            await memory.add("three", owner="ada", source="user")
        with pytest.raises(InvalidRequest):
            await memory.change(first.id, "two", owner="ada")
        assert (await memory.add("three", owner="eve", source="user")).text == "three"
        assert await memory.forget_all("ada") == 2


async def test_pages_hold_every_fact_once_listed_or_searched(tmp_path: Path) -> None:
    async with memory_of(tmp_path) as memory:
        for number in range(25):
            await memory.add(f"fact number {number}", owner="ada", source="user")
        for query in (None, "fact"):
            seen: list[str] = []
            cursor = None
            while True:
                facts, cursor = await memory.facts("ada", query=query, limit=7, cursor=cursor)
                seen += [fact.text for fact in facts]
                if cursor is None:
                    break
            assert len(seen) == len(set(seen)) == 25
        with pytest.raises(InvalidRequest):
            await memory.facts("ada", cursor="-1")


HOSTILE = ('"', "a OR", "NOT x", "text:x", "*", "(", "a NEAR/2 b", "^x", "{a b}:c", "';--", "é" * 3000, "\x00", "a-b+c")


@pytest.mark.parametrize("query", HOSTILE)
async def test_no_query_is_a_syntax_error(tmp_path: Path, query: str) -> None:
    async with memory_of(tmp_path) as memory:
        await memory.add("a plain fact", owner="ada", source="user")
        await memory.facts("ada", query=query)


@given(st.text(max_size=200))
def test_a_query_is_quoted_words_only(text: str) -> None:
    query = full_text_query(text)
    if query is not None:
        for word in query.split(" OR "):
            assert word.startswith('"')
            assert word.endswith('"*')
            assert '"' not in word[1:-2]


async def test_texts_that_say_nothing_or_too_much_are_refused(tmp_path: Path) -> None:
    async with memory_of(tmp_path) as memory:
        for text in ("", "  \n", "x" * 4001, "a\x00b"):
            with pytest.raises(InvalidRequest):
                await memory.add(text, owner="ada", source="user")
