"""The shared SQL as PostgreSQL takes it. A statement is rewritten once per process; what else differs are functions and
aggregates that the first migration makes (``migrations/0001_navi.sql``).

Rewritten are: parameters (``?``, ``?2``, ``:name``), ``IS`` and ``IS NOT`` between values, ``CROSS JOIN … ON`` and
``INDEXED BY``, with which SQLite is given the order of a plan, and lists of rows (``in_bulk``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .migrations import all_scripts

_TOKENS = re.compile(
    r"'(?:[^']|'')*'"  # a literal, as it is
    r"|\?(?P<number>\d*)"
    r"|(?<![:\w]):(?P<name>[a-z_]+)"
    r"|\s+INDEXED BY \w+"
    r"|\bCROSS JOIN (?P<joined>\w+(?: \w+)?) ON\b"
    r"|\bIS (?P<differs>NOT )?(?!NOT\b|NULL\b|DISTINCT\b|TRUE\b|FALSE\b)(?=[\w?:'])"
)
_ASSIGNED = re.compile(
    r"(\w+) = v\.column(\d+)\b|v\.column(\d+) = (?:\w+\.)?(\w+)\b|\w+\.(\w+) (?:<=|=) v\.column(\d+)\b"
)
_INSERTED = re.compile(r"INSERT INTO \w+ \(([^)]*)\)\s+VALUES \{rows\}")
_COLUMN = re.compile(r"^    (\w+) (TEXT|BIGINT|BYTEA|DOUBLE PRECISION)\b", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Translated:
    """A statement of PostgreSQL, and which parameters it takes in which order."""

    sql: str
    order: tuple[int | str, ...]  # places in the list that is given, or names

    def values(self, given: Sequence[object] | Mapping[str, object]) -> list[object]:
        """The parameters as the statement takes them."""
        return [storable(given[key]) for key in self.order]  # type: ignore[index]


def storable(value: object) -> object:
    """PostgreSQL's text has no NUL."""
    return value.replace("\x00", "\ufffd") if isinstance(value, str) and "\x00" in value else value


@lru_cache(maxsize=4096)
def translated(sql: str) -> Translated:
    """A statement of the shared SQL."""
    order: list[int | str] = []
    highest = 0

    def place(key: int | str) -> str:
        if key not in order:
            order.append(key)
        return f"${order.index(key) + 1}"

    def replace(found: re.Match[str]) -> str:
        nonlocal highest
        text = found[0]
        if text.startswith("?"):
            # As SQLite counts: one without a number has the one after the highest before it.
            number = int(found["number"]) if found["number"] else highest + 1
            highest = max(highest, number)
            return place(number - 1)
        if text.startswith(":"):
            return place(found["name"])
        if "INDEXED BY" in text:
            return ""
        if found["joined"]:
            return f"JOIN {found['joined']} ON"
        if text.startswith("IS "):
            return "IS DISTINCT FROM " if found["differs"] else "IS NOT DISTINCT FROM "
        return text

    return Translated(_TOKENS.sub(replace, sql), tuple(order))


@lru_cache(maxsize=1)
def types() -> dict[str, str]:
    """The type of each column, by its name: one of a name has the same type in all tables."""
    found: dict[str, str] = {}
    for script in all_scripts():
        found |= dict(_COLUMN.findall(script))
    return found


@lru_cache(maxsize=256)
def in_bulk(sql: str, width: int) -> str:
    """A statement with ``{rows}`` as one that takes a list for each of its columns, whatever the number of rows."""
    inserted = _INSERTED.search(sql)
    if inserted is not None:
        names = inserted[1].split(", ")
        lists = ", ".join(f"CAST(${n} AS {types()[name]}[])" for n, name in enumerate(names, 1))
        return (
            translated(sql[: inserted.end() - len("VALUES {rows}")]).sql
            + f"SELECT * FROM unnest({lists})"
            + sql[inserted.end() :]
        )
    kinds = ["TEXT"] * width
    for match in _ASSIGNED.finditer(sql):
        name, column = match[1] or match[4] or match[5], match[2] or match[3] or match[6]
        kinds[int(column) - 1] = types().get(name, "TEXT")
    lists = ", ".join(f"CAST(${n} AS {kind}[])" for n, kind in enumerate(kinds, 1))
    columns = ", ".join(f"column{n}" for n in range(1, width + 1))
    return sql.replace("(VALUES {rows}) AS v", f"unnest({lists}) AS v ({columns})")
