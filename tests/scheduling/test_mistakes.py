"""The check of the check: mistakes that are planted into the machine are all found by the model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.simulation import House

from .model import mistakes_around  # noqa: F401  plants its own
from .model.explorer import Told, explore
from .model.mistakes import MISTAKES

WITHIN = int(os.environ.get("NAVI_MISTAKE_HISTORIES", "700"))
"""Histories. Most are found within ten; that a server works on without its lease, in history 498."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(MISTAKES))
async def test_a_planted_mistake_is_found_by_the_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House.open(tmp_path, monkeypatch.setattr)
    MISTAKES[name](house, monkeypatch.setattr)
    try:
        for seed in range(WITHIN):
            try:
                await explore(house, seed, Told())
            except AssertionError as error:
                print(f"\n{name}: found in history {seed + 1}: {str(error).splitlines()[0][:160]}")
                return
    finally:
        await house.close()
    pytest.fail(f"{WITHIN} histories do not show it")
