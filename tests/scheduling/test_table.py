"""The table of what recalls survive names tests that exist, for every row that there is to be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
IDS = (
    "M1 M2 M3 M4 M5 M6 M7 M8 M9 M10 O1-O6 F1 F2 F3 B1 B2 B3 B4 S1 S2 S3 S4 S5 S6 S7 R1 R2 R3 J1 C1 C2 C3 C4 C5 V1-V3"
    " E1 E2 L1 A1"
)
ROW = re.compile(r"^\| ([A-Z]\d[-\dA-Z]*) \| [^|]+ \| `([^`]+)` \|$", re.MULTILINE)


def _tests_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_row_of_the_table_has_a_test_that_exists() -> None:
    rows = ROW.findall((ROOT / "docs" / "recalls.md").read_text())
    assert sorted({row for row, _ in rows}) == sorted(IDS.split())
    for row, named in rows:
        file, _, test = named.partition("::")
        assert (ROOT / file).is_file(), (row, file)
        assert not test or test in _tests_of(ROOT / file), (row, named)
