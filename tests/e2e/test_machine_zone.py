"""Times in words on servers whose machine has an unusual zone: it is never asked."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from tests.support.server import JupyterServer

from .client import new_session, ok

pytestmark = pytest.mark.slow


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("tz", ["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", ":/etc/localtime", ""])
def test_a_preview_is_by_the_asked_zone_whatever_the_machines_is(tz: str, tmp_path: Path) -> None:
    with JupyterServer(tmp_path, env={"TZ": tz}).start() as server:
        session = new_session(server, timezone="Europe/Berlin")
        for text, at in (
            ("tomorrow at 9", "2026-11-24T08:00:00Z"),
            ("on 3 december at 14:00", "2026-12-03T13:00:00Z"),
            ("monday at 23:30", "2026-11-23T22:30:00Z"),
            ("in 2 hours", "2026-11-23T23:00:00Z"),
        ):
            body = {"text": text, "tz": "Europe/Berlin", "after": "2026-11-23T22:00:00+01:00"}
            found = ok(server, "POST", "recalls/preview", body)
            assert instant(found["schedule"]["at"]) == instant(at), (tz, text)
        schedule = ok(server, "POST", "recalls/preview", {"text": "tomorrow at 9", "tz": "Europe/Berlin"})["schedule"]
        recall = ok(server, "POST", "recalls", {"session_id": session, "message": "look", "schedule": schedule})
        assert instant(recall["next_at"]) == instant(schedule["at"])
