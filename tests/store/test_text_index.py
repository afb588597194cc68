"""The words, hits and snippets of PostgreSQL's full-text search are those of SQLite's FTS5."""

from __future__ import annotations

import random
import sqlite3
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import pytest

from navi_jupyter.store.memory import query_words
from navi_jupyter.store.postgres.text_index import snippet, ts_query, ts_vector, words_of
from navi_jupyter.store.session_list.search import CLOSE, OPEN, indexed_text, query_terms
from navi_jupyter.store.sqlite.full_text import full_text_query, match_expression

PARTS = (
    "the mean of a column is not its median. It depends: on outliers, and weights. plots don't lie re-read e.g. x",
    "Über die größte Straße fahren Äpfel, Öl und Übermut: schöne Grüße. STRASSE ẞ ß",
    "café résumé naïve señor Ñandú crème brûlée Ångström façade cafe\u0301 n\u0303ino A\u030angstro\u0308m e\u0305x",
    "ế ǖ Ệ",
    "Ελληνικά άνθρωπος ΆΝΘΡΩΠΟΣ λόγος λόγου α\u0301λφα ϐ µ ὕδωρ ΐ",
    "Привет мир ёлка ЁЛКА й Й и\u0306 война Київ їжак",
    "İstanbul ISPARTA ışık IŞIK iyi ı çığ ŞEKER",
    "会议 数据分析 的 会 使用pandas读取文件 数据,分析。 第3章",
    "データを分析する カタカナ ひらがな ﾃﾞｰﾀ 日本語 テスト",
    "สวัสดีครับ ข้อมูล การวิเคราะห์ ที่นี่",
    "한국어 데이터를 분석합니다 데이터 회의 회의록",
    "0 1 42 3.14 1e-9 1_000 ½ ² Ⅷ ٣٤ 2026-12-02 v1.2.3",
    "df.head() snake_case camelCase __init__ x=1; a[0] C++ #tag @user foo/bar.py 'it''s' \\n \"q\" \\ a&b !c <-> d:*",
    "😀 ok🎉 🚀launch 👍 ❤️ 🇩🇪 a\u200db \ufe0f",
    "\u0301 \u0301a b\u0301\u0301 \u0345 x\u0345y \ue000 \U0001d400 \ufb01 ﬁne Ǆ ǆ ꙮ \u00a0 \u00ad so\u00adft",
)
PIECES = [piece for part in PARTS for piece in part.split(" ")]


def texts(count: int) -> list[str]:
    """Texts of one or several of the languages, with all kinds of separators."""
    chance = random.Random(20)
    found = []
    for _ in range(count):
        parts = chance.sample(PARTS, chance.choice((1, 1, 2, 14)))
        pieces = [piece for part in parts for piece in part.split(" ")]
        some = chance.choices(pieces, k=chance.choice((1, 3, 12, 40, 90)))
        found.append("".join(piece + chance.choice((" ", " ", " ", "\n", ". ", ": ", "-", "")) for piece in some))
    return found


TEXTS = texts(400)
INDEXED = [indexed_text(text) for text in TEXTS]


def queries(count: int) -> list[str]:
    """What users may type: words, phrases and beginnings, mostly of one text."""
    chance = random.Random(21)
    found = [
        '"',
        "-",
        "die größte",
        '"the mean of',
        "分析",
        "데이",
        "cafe",
        "ёл",
        "ISTANBUL",
        "df.he",
        "snake_",
        "--- a",
    ]
    while len(found) < count:
        text = chance.choice(TEXTS)
        terms = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            begin = chance.randrange(len(text))
            part = text[begin : begin + chance.choice((1, 2, 4, 8, 15))]
            terms.append(f'"{part}"' if chance.random() < 0.4 else part)
        found.append(" ".join(terms) + chance.choice(("", "", " ")))
        found.append(chance.choice(PIECES))
    return found


QUERIES = queries(500)


@pytest.fixture(scope="module")
def fts5() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')")
        db.execute("CREATE VIRTUAL TABLE words USING fts5vocab (texts, instance)")
        db.execute("CREATE VIRTUAL TABLE facts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')")
        db.executemany("INSERT INTO texts (rowid, text) VALUES (?, ?)", enumerate(INDEXED))
        db.executemany("INSERT INTO facts (rowid, text) VALUES (?, ?)", enumerate(TEXTS))
        yield db


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    asyncpg = pytest.importorskip("asyncpg")
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def matches(postgres: Any, text: str, query: str | None) -> bool:
    return bool(await postgres.fetchval("SELECT $1::text::tsvector @@ $2::text::tsquery", ts_vector(text), query))


async def fill(postgres: Any, texts: list[str]) -> None:
    await postgres.execute("CREATE TEMPORARY TABLE texts (number int, words tsvector)")
    await postgres.executemany(
        "INSERT INTO texts VALUES ($1, $2::text::tsvector)", [(n, ts_vector(text)) for n, text in enumerate(texts)]
    )


async def hits(postgres: Any, query: str | None) -> list[int]:
    found = await postgres.fetch("SELECT number FROM texts WHERE words @@ $1::text::tsquery ORDER BY number", query)
    return [row["number"] for row in found]


def hits_of_fts5(fts5: sqlite3.Connection, table: str, match: str | None) -> list[int]:
    if match is None:
        return []
    return [row[0] for row in fts5.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH ? ORDER BY rowid", (match,))]


def test_the_words_of_a_text_are_those_of_fts5(fts5: sqlite3.Connection) -> None:
    expected: list[list[str]] = [[] for _ in INDEXED]
    for number, word in fts5.execute("SELECT doc, term FROM words ORDER BY doc, offset"):
        expected[number].append(word)
    for text, words in zip(INDEXED, expected, strict=True):
        assert words_of(text) == words


def test_each_character_of_old_is_taken_as_fts5_takes_it(fts5: sqlite3.Connection) -> None:
    """Those of Unicode 3.2: FTS5 knows them all."""
    old = [chr(code) for code in range(1, 0x30000) if unicodedata.ucd_3_2_0.category(chr(code)) not in ("Cn", "Cs")]
    # Unicode has put some into another category since.
    same = [c for c in old if unicodedata.category(c)[0] == unicodedata.ucd_3_2_0.category(c)[0]]
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'unicode61 remove_diacritics 2')")
        db.execute("CREATE VIRTUAL TABLE words USING fts5vocab (texts, instance)")
        db.executemany("INSERT INTO texts VALUES (?)", [(f"x{c}y",) for c in same])
        expected: list[list[str]] = [[] for _ in same]
        for number, word in db.execute("SELECT doc, term FROM words ORDER BY doc, offset"):
            expected[number - 1].append(word)
    different = {c for c, words in zip(same, expected, strict=True) if words_of(f"x{c}y") != words}
    assert len(same) > 80_000
    assert different <= {"Ǡ", "ǡ"}, "FTS5 keeps the diacritics of this letter alone"


async def test_a_search_finds_the_same_texts(postgres_url: str, fts5: sqlite3.Connection) -> None:
    successful = 0
    async with connected(postgres_url) as postgres:
        await fill(postgres, INDEXED)
        for query in QUERIES:
            terms, is_open = query_terms(query) or ([], False)
            found = await hits(postgres, ts_query(terms, prefix="last" if is_open else "none"))
            assert found == hits_of_fts5(fts5, "texts", match_expression(query)), query
            successful += bool(found)
    assert successful > 300


async def test_a_search_of_facts_finds_the_same_texts(postgres_url: str, fts5: sqlite3.Connection) -> None:
    successful = 0
    async with connected(postgres_url) as postgres:
        await fill(postgres, TEXTS)
        for query in [*QUERIES, "__ the", "__"]:
            found = await hits(postgres, ts_query(query_words(query), prefix="all", any_of=True))
            assert found == hits_of_fts5(fts5, "facts", full_text_query(query)), query
            successful += bool(found)
    assert successful > 300


def test_a_snippet_is_that_of_fts5(fts5: sqlite3.Connection) -> None:
    count = 0
    for query in QUERIES:
        terms, is_open = query_terms(query) or ([], False)
        rows = fts5.execute(
            f"SELECT rowid, snippet(texts, 0, '{OPEN}', '{CLOSE}', '…', 24) FROM texts WHERE texts MATCH ?",
            (match_expression(query) or '""',),
        )
        for number, expected in rows:
            assert snippet(INDEXED[number], terms, prefix="last" if is_open else "none") == expected, query
            count += expected.count("…")
    assert count > 1000


def test_a_snippet_shows_where_the_most_terms_are_together() -> None:
    text = "needle " + "hay " * 40 + "a needle in a Haystack, " + "hay " * 40
    shown = snippet(text, ["needle", "haysta"], prefix="last")
    assert shown.startswith("…hay ")
    assert shown.endswith(" hay…")
    assert f"a {OPEN}needle{CLOSE} in a {OPEN}Haystack{CLOSE}, hay" in shown
    assert snippet("no word of it", ["needle"]) == "no word of it"
    assert snippet("", ["needle"]) == ""


def test_a_query_without_words_is_none() -> None:
    assert ts_query([]) is None
    assert ts_query(["--", "__"], any_of=True) is None
    assert ts_query(["a", "--"]) is None, "a required term without a word cannot be found"
    assert ts_query(["a", "--"], any_of=True) == "'a'"


async def test_a_very_long_word_is_found_by_its_beginning(postgres_url: str) -> None:
    async with connected(postgres_url) as postgres:
        text = "first " + "é" * 3000 + "z " + "你" * 3000 + " last"
        assert await matches(postgres, text, ts_query(["é" * 3000 + "z"]))
        assert await matches(postgres, text, ts_query(["你" * 3000]))
        assert await matches(postgres, text, ts_query(["e" * 9], prefix="last"))
        assert not await matches(postgres, text, ts_query(["e" * 9]))
        assert await matches(postgres, text, ts_query(["你" * 3000 + " la"], prefix="last"))


async def test_phrases_are_found_where_postgres_has_no_positions(postgres_url: str) -> None:
    async with connected(postgres_url) as postgres:
        often = "of the " * 300 + "of many words"
        far = " ".join(f"w{n}" for n in range(20_000))
        for text, phrase, absent in (
            (often, "of many wo", "many of"),
            (often, "the of many", "words of"),
            (far, "w16381 w16382 w16383 w1638", "w16381 w16383"),
            (far, "w19998 w1999", "w19999 w19998"),
            (indexed_text("的" * 300 + "会议"), indexed_text("的会"), indexed_text("议会")),
        ):
            assert await matches(postgres, text, ts_query([phrase], prefix="last"))
            assert not await matches(postgres, text, ts_query([absent]))


async def test_the_largest_texts_and_queries_are_taken(postgres_url: str) -> None:
    async with connected(postgres_url) as postgres:
        letters = "".join(chr(0x20000 + n % 40_000) for n in range(50_000))
        assert await matches(postgres, indexed_text(letters), ts_query([indexed_text(letters[49_000:49_010])]))
        long = " ".join(f"{n:050}" for n in range(30_000))
        assert await matches(postgres, long, ts_query([f"{0:050}"]))
        assert await matches(postgres, "a " * 1000, ts_query(["a " * 30_000], prefix="last"))


async def test_no_text_and_no_query_is_a_syntax_error(postgres_url: str) -> None:
    chance = random.Random(22)
    signs = "'\"\\:*&|!<->()%$ \x00\t\n\ud800\u200b\u0301aé会A1"
    async with connected(postgres_url) as postgres:
        for _ in range(300):
            text = "".join(chance.choice((chance.choice(signs), chr(chance.randrange(0x110000)))) for _ in range(30))
            for term in (text, *text.split(" "), *words_of(text)):
                query = ts_query([term], prefix=chance.choice(("none", "last", "all")))
                assert query is None or await matches(postgres, text, query), (text, term)
