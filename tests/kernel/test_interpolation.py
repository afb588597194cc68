"""``{name}`` in prompts."""

from __future__ import annotations

from typing import Any

import pytest

from navi_jupyter.kernel.grammar.command_line import MAX_VALUE, interpolate


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no")


NAMES: dict[str, Any] = {"x": 41, "name": "Ada", "broken": Broken(), "curly": "{x}", "big": "a" * 10_000}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("x is {x}", "x is 41"),
        ("{name} has {x}", "Ada has 41"),
        ("{unknown} stays", "{unknown} stays"),
        ("{{x}} is an escape", "{x} is an escape"),
        ("{{unknown}}", "{unknown}"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("{x.real} {x!r} {x:>3} {x+1} {}", "{x.real} {x!r} {x:>3} {x+1} {}"),
        ("{curly}", "{x}"),
        ("{broken}", "<Broken that cannot be shown: RuntimeError>"),
    ],
)
def test_only_plain_names_are_replaced(text: str, result: str) -> None:
    assert interpolate(text, NAMES) == result


def test_a_large_value_is_cut() -> None:
    assert interpolate("{big}", NAMES) == "a" * MAX_VALUE + "… (cut: 10,000 characters in all)"
