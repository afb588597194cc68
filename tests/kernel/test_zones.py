"""Whose clock the times of a cell are of, in a real kernel on a real server."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow

LIMA, TOKYO, BERLIN = "America/Lima", "Asia/Tokyo", "Europe/Berlin"
DOORS = (
    "_ = %navi recall tomorrow at 9 look",
    '_ = %navi recall "tomorrow at 9" look',
    "_ = %navi remind me tomorrow at 9 to look",
    "_ = navi.recall('look', at='tomorrow at 9')",
    "_ = navi.ask('remind me tomorrow at 9 to look', show=False)",
    "_ = %navi recall at 2031-03-05T09:00 look",
    "_ = %navi recall on 2031-03-05 09:00 look",
    "_ = navi.recall('look', at='2031-03-05T09:00')",
    "_ = navi.recall('look', every='1h', start='2031-03-05T09:00')",
    "_ = navi.recall('look', cron='0 9 * * *')",
)


def _session(server: JupyterServer, kernel: NotebookKernel) -> dict[str, Any]:
    session_id = kernel.ok("print(navi.session().id)").stdout.strip()
    return dict(server.get(f"navi/api/sessions/{session_id}"))


def _made(server: JupyterServer, kernel: NotebookKernel, code: str) -> dict[str, Any]:
    before = {each["id"] for each in server.get("navi/api/recalls")["recalls"]}
    kernel.ok(code)
    (recall,) = [each for each in server.get("navi/api/recalls")["recalls"] if each["id"] not in before]
    return dict(recall)


def test_every_door_of_a_cell_reads_by_the_zone_of_the_browser_that_was_here(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    kernel.ok(f"import os; os.environ['TZ'] = {LIMA!r}")
    session = _session(server, kernel)
    server.request("PATCH", f"navi/api/sessions/{session['id']}", {"timezone": TOKYO, "timezone_source": "browser"})
    for code in DOORS:
        recall = _made(server, kernel, code)
        due = datetime.fromisoformat(recall["next_at"]).astimezone(ZoneInfo(TOKYO))
        assert f"{due:%H:%M}" == "09:00", (code, recall)
    told = _made(server, kernel, "_ = %navi recall tomorrow at 9 --tz Europe/Berlin look")
    assert f"{datetime.fromisoformat(told['next_at']).astimezone(ZoneInfo(BERLIN)):%H:%M}" == "09:00"


def test_a_kernels_own_zone_is_the_last_resort(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(f"import os; os.environ['TZ'] = {LIMA!r}")
    for code in DOORS:
        recall = _made(server, kernel, code)
        due = datetime.fromisoformat(recall["next_at"]).astimezone(ZoneInfo(LIMA))
        assert f"{due:%H:%M}" == "09:00", (code, recall)
    assert (_session(server, kernel)["timezone"], _session(server, kernel)["timezone_source"]) == (LIMA, "kernel")


def test_a_datetime_without_a_zone_is_by_the_kernels_clock(server: JupyterServer, kernel: NotebookKernel) -> None:
    session = _session(server, kernel)
    server.request("PATCH", f"navi/api/sessions/{session['id']}", {"timezone": TOKYO})
    kernel.ok("from datetime import datetime, timedelta\nat = datetime.now() + timedelta(hours=1)")
    recall = _made(server, kernel, "_ = navi.recall('look', at=at)")
    stamp = json.loads(kernel.ok("print(at.timestamp())").stdout)
    assert abs(datetime.fromisoformat(recall["next_at"]).timestamp() - stamp) < 1


def test_the_zone_is_shown_and_chosen_by_a_magic(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(f"import os; os.environ['TZ'] = {LIMA!r}")
    assert f"are in {LIMA}, the zone of a kernel's machine" in kernel.ok("%navi timezone").stdout
    assert f"are in {BERLIN}, the zone that you chose" in kernel.ok(f"%navi timezone {BERLIN}").stdout
    session = _session(server, kernel)
    assert (session["timezone"], session["timezone_source"]) == (BERLIN, "chosen")
    due = datetime.fromisoformat(_made(server, kernel, "_ = %navi recall tomorrow at 9 look")["next_at"])
    assert f"{due.astimezone(ZoneInfo(BERLIN)):%H:%M}" == "09:00"
    wrong = kernel.run("%navi timezone Mars/Olympus")
    assert "is no time zone" in (wrong.error or "")
    assert _session(server, kernel)["timezone"] == BERLIN
    assert LIMA in kernel.ok("%navi timezone auto").stdout
    assert _session(server, kernel)["timezone_source"] == "kernel"
    assert "%navi timezone [ZONE]" in kernel.ok("%navi help").stdout
    question = kernel.ok("%navi timezone of Tokyo please")
    assert "time zone" not in question.stdout, "a sentence is a prompt"


def test_a_cell_shows_times_by_the_clock_by_which_it_reads_them(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(f"import os; os.environ['TZ'] = {LIMA!r}")
    session = _session(server, kernel)
    server.request("PATCH", f"navi/api/sessions/{session['id']}", {"timezone": TOKYO, "timezone_source": "browser"})
    shown = kernel.ok("made = %navi recall tomorrow at 9 look\nprint(repr(made))").stdout
    assert "09:00" in shown.splitlines()[-1]
    assert TOKYO not in shown, "a zone is named only where it is not the reader's"
    assert "09:00" in kernel.ok("print(repr(navi.recalls()))").stdout
    told = kernel.ok("made = %navi recall tomorrow at 9 --tz Europe/Berlin look\nprint(repr(made))").stdout
    assert BERLIN in told
    assert "09:00" in kernel.ok("print(repr(navi.recalls()[1]))").stdout


def test_what_happened_since_a_time_is_by_the_sessions_clock(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(f"import os; os.environ['TZ'] = {LIMA!r}")
    session = _session(server, kernel)
    server.request("PATCH", f"navi/api/sessions/{session['id']}", {"timezone": TOKYO, "timezone_source": "browser"})
    kernel.ok("_ = navi.ask('hi', show=False)")
    since = datetime.now(ZoneInfo(TOKYO)).replace(tzinfo=None) - timedelta(hours=1)  # in Lima that is still to come
    assert kernel.ok(f"print(len(navi.session().away({since.isoformat()!r})))").stdout == "1\n"


def test_today_begins_at_midnight_of_the_sessions_clock(server: JupyterServer, kernel: NotebookKernel) -> None:
    session = _session(server, kernel)
    server.request("PATCH", f"navi/api/sessions/{session['id']}", {"timezone": TOKYO})
    kernel.ok("navi.session().state")
    asked = kernel.ok(
        "from navi_jupyter.kernel.client.client import current_service\n"
        "service, asked = current_service(), []\n"
        "real = service.call\n"
        "service.call = lambda *given, **more: (asked.append((given, more)), real(*given, **more))[1]\n"
        "%navi usage\n"
        "print([more for given, more in asked if given[1] == 'usage'])"
    ).stdout
    assert f"[{{'query': {{'tz': {TOKYO!r}}}}}]" in asked
