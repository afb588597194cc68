"""Histories of several servers on one database, drawn by lot: whatever dies, stalls or jumps, the invariants hold.

``NAVI_HISTORIES`` says how many (default 120; 10 on PostgreSQL, where one takes a second), ``NAVI_SEED`` where they
begin. A failure prints its seed. On PostgreSQL each second history has transactions that overlap and connections that
are lost; those others are the same as on SQLite.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.database import URL
from tests.support.simulation import House

from .model.explorer import Told, explore

HISTORIES = int(os.environ.get("NAVI_HISTORIES", "10" if URL in os.environ else "120"))
SEED = int(os.environ.get("NAVI_SEED", "0"))


@pytest.mark.timeout(180 + 10 * HISTORIES)
async def test_whatever_dies_stalls_or_jumps_every_slot_is_accounted_for_and_runs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await House.open(tmp_path, monkeypatch.setattr)
    told, began = Told(), time.monotonic()
    try:
        for seed in range(SEED, SEED + HISTORIES):
            await explore(house, seed, told, overlaps=seed % 2 == 1)
    finally:
        await house.close()
    print(f"\n{told} in {time.monotonic() - began:.1f} s")
    assert told.kills > HISTORIES / 10
    assert told.firings > HISTORIES
