"""Recalls for a cell of which nobody can hear the end: what is said then, and that nothing waits for ever."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from socket import socket
from typing import Any

import pytest
from jupyter_server.gateway.managers import GatewayMappingKernelManager

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.observer import why_not_watched
from navi_jupyter.jupyter.kernels.transport import address_answers
from navi_jupyter.model.recalls import Recall, RecallCreate, RecallStatus, When, WhenEvent, WhenSpec
from navi_jupyter.orchestrator.upkeep.servers import OtherServers
from navi_jupyter.ports.transactions import Server
from navi_jupyter.scheduling.service import RecallService
from navi_jupyter.triggers import watch, watcher
from tests.support.trigger_world import OWNER, Place, begun, finished, interrupted, until


async def of_another_server(place: Place, event: str, cell: str | None) -> Recall:
    """A recall that names a kernel which this server does not have."""
    spec = {"kind": "when", "event": event, "kernel_id": "0123-of-another-server", **({"cell": cell} if cell else {})}
    request = RecallCreate(session_id=place.session_id, message="x", schedule=WhenSpec.model_validate(spec))
    return await place.services.recalls.service.create(request, owner=OWNER, zone="UTC")


async def status(place: Place, recall: Recall) -> RecallStatus:
    return (await place.services.recalls.service.queries.get(recall.id, owner=OWNER)).status


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not answer counts as gone without waiting."""
    monkeypatch.setattr(watcher, "GONE_AFTER", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_a_cell_whose_server_is_gone_is_reported_as_lost(place: Place) -> None:
    recall = await of_another_server(place, "cell_done", "request:abc")
    report = await place.report(recall)
    assert "The kernel is gone, and so is the Jupyter server that ran it" in report
    assert "work.ipynb" in report
    assert place.rows(recall)[0]["key"] == "0123-of-another-server:abc:cell_done", "whoever tells it, it fires once"


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("event", "cell"), [("cell_finished", "request:abc"), ("kernel_idle", None), ("kernel_restarted", None)]
)
async def test_what_can_not_happen_any_more_expires_and_says_why(place: Place, event: str, cell: str | None) -> None:
    recall = await of_another_server(place, event, cell)
    (row,) = await place.firings(recall)
    assert (row["status"], "kernel that it waits for is gone" in row["reason"]) == ("missed", True)
    assert await status(place, recall) is RecallStatus.EXPIRED
    assert not place.services.recalls.watcher.watched or await _unwatched(place)


async def _unwatched(place: Place) -> bool:
    await until(lambda: not place.services.recalls.watcher.watched)
    return True


@pytest.mark.usefixtures("at_once")
async def test_the_next_cell_is_then_one_of_the_notebooks_next_kernel(place: Place) -> None:
    recall = await of_another_server(place, "cell_done", "after:abc")
    assert "waits for a cell in the notebook's next kernel" in (await place.troubles(recall))[0]
    await until(lambda: place.services.recalls.watcher.kernels == 1)
    async with place.browser() as browser:
        await finished(browser, "print('of the next kernel')")
        assert "of the next kernel" in await place.report(recall)


async def test_a_kernel_that_may_be_another_servers_is_left_to_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "GONE_AFTER", 0.0)

    async def elsewhere(_kernel_id: str, _known: bool) -> bool:
        return True

    monkeypatch.setattr(place.services.recalls.watcher, "_elsewhere", elsewhere)
    recall = await of_another_server(place, "cell_done", "request:abc")
    assert await place.services.recalls.watcher.listening(recall.id)
    await place.services.recalls.watcher.refresh()
    assert not place.rows(recall)
    assert await status(place, recall) is RecallStatus.PENDING


async def test_other_servers_count_while_their_process_lives() -> None:
    here = Server(id="a", host="here", pid=os.getpid(), pid_started=0.0)
    dead = Server(id="b", host="here", pid=2**22 + 1, pid_started=0.0)
    far = Server(id="c", host="there", pid=1, pid_started=0.0)

    async def known(*servers: Server) -> tuple[Server, ...]:
        return servers

    assert not await OtherServers(lambda: known(here, dead), here)(False)
    assert await OtherServers(lambda: known(here, far), here)(True)


async def test_whether_a_kernel_answers_is_reported_by_the_connection_file(tmp_path: Path) -> None:
    file = tmp_path / "kernel-x.json"
    assert await address_answers(file) is None
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = {"ip": "127.0.0.1", "transport": "tcp", "shell_port": listening.getsockname()[1]}
        file.write_text(json.dumps(address))
        assert await address_answers(file) is True
    assert await address_answers(file) is False
    file.write_text("torn")
    assert await address_answers(file) is None


async def test_an_execution_that_is_over_already_is_reported_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MISSING_AFTER", 0.1)
    done = await place.when("cell_done", cell="request:long-ago", kernel_id=place.kernel_id)
    fine = await place.when("cell_finished", cell="request:long-ago", kernel_id=place.kernel_id)
    assert "It ended while it was not watched" in await place.report(done)
    (row,) = await place.firings(fine)
    assert (row["status"], row["reason"]) == ("missed", "the cell ended while it was not watched")


async def test_which_cell_is_meant_is_stored_while_it_runs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REMEMBER_AFTER", 0.0)
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        request = await begun(browser, "import time\ntime.sleep(600)")
        async with asyncio.timeout(20):
            while True:
                schedule = (await place.services.recalls.service.queries.get(recall.id, owner=OWNER)).schedule
                assert isinstance(schedule, When)
                if schedule.cell == f"request:{request}":
                    break
                await asyncio.sleep(0.01)
        assert schedule.kernel_id == place.kernel_id
        await interrupted(place, browser, request)
        assert "was interrupted" in await place.report(recall), "it is still watched"
    assert len(place.rows(recall)) == 1


async def test_a_restart_that_interrupts_first_is_reported_as_a_restart(place: Place) -> None:
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        await begun(browser, "import time\ntime.sleep(600)")
        await place.parts.kernel_manager.restart_kernel(place.kernel_id)
    report = await place.report(recall)
    assert "The kernel was restarted while the cell ran" in report
    assert len(place.rows(recall)) == 1


async def test_what_a_thread_prints_after_its_cell_is_no_cell(place: Place) -> None:
    gate = Path(place.parts.root_dir) / "gate"
    code = (
        "import os, threading, time\ndef late():\n    n = 0\n"
        f"    while not os.path.exists({str(gate)!r}): n += 1; print('late', n, flush=True); time.sleep(0.02)\n"
        "threading.Thread(target=late).start()"
    )
    async with place.browser() as browser:
        await finished(browser, code)
        await until(lambda: place.manager.execution_state == "idle")
        recall, each = await place.when("cell_done"), await place.when("cell_done", repeat="each", cell="any")
        await finished(browser, "print('the next cell')")
        gate.touch()
        report, (row,) = await place.report(recall), await place.firings(each)
    assert "print('the next cell')" in report
    assert "print('the next cell')" in row["detail"]


async def test_of_very_many_pictures_the_last_ones_go_along(place: Place) -> None:
    recall = await place.when("cell_done")
    code = (
        "from IPython.display import Image, display\n"
        "for n in range(130):\n"
        "    display(Image(b'\\x89PNG\\r\\n\\x1a\\n' + bytes([n]) * 300_000, format='png'))\n"
        "    print('plot', n)\n"
        "raise ValueError('at last')"
    )
    async with place.browser() as browser:
        await finished(browser, code)
        (row,) = await place.firings(recall)
    assert "It showed 130 images (the last 3 attached)" in row["detail"]
    assert "ValueError: at last" in row["detail"], "after so many displays there is still room for the error"
    kept = [await place.services.sessions.attachments.read(one, owner=OWNER) for one in row["attachments"].split()]
    assert [content[8] for content in kept] == [127, 128, 129]


async def test_the_end_of_an_endless_traceback_and_the_words_of_html_are_reported(place: Place) -> None:
    recall = await place.when("cell_done")
    table = "<style>td {color: red}</style><table><tr><td>loss</td><td>0.1 &lt; 0.2</td></tr></table>"
    code = f"from IPython.display import HTML, display\ndisplay(HTML({table!r}))\ndef f(n): f(n + 1)\nf(0)"
    async with place.browser() as browser:
        await finished(browser, code)
        report = await place.report(recall)
    assert "RecursionError: maximum recursion depth exceeded" in report
    assert "loss 0.1 < 0.2" in report
    assert "color: red" not in report.split("Output:")[1]


async def test_streams_begin_on_lines_of_their_own(place: Place) -> None:
    recall = await place.when("cell_done")
    code = "import sys\nsys.stderr.write('\\r99%|####| 99/100'); sys.stderr.flush()\nprint('done')"
    async with place.browser() as browser:
        await finished(browser, code)
        assert "99%|####| 99/100\ndone" in await place.report(recall)


async def test_behind_a_gateway_only_files_can_be_waited_for(parts: JupyterServices, place: Place) -> None:
    gateway = GatewayMappingKernelManager.__new__(GatewayMappingKernelManager)
    remote = JupyterServices(**{**_fields(parts), "kernel_manager": gateway})
    recalls = RecallService(place.services.sessions.store, why_not_watched=why_not_watched(remote))

    async def create(**schedule: Any) -> Recall:
        spec = WhenSpec.model_validate({"kind": "when", **schedule})
        request = RecallCreate(session_id=place.session_id, message="x", schedule=spec)
        return await recalls.create(request, owner=OWNER, zone="UTC")

    with pytest.raises(InvalidSchedule, match="behind a gateway"):
        await create(event="cell_done")
    with pytest.raises(InvalidSchedule, match="behind a gateway"):
        await create(event="expression", expr="x > 1")
    assert (await create(event="file_changed", path="a.csv")).status is RecallStatus.PENDING
    assert why_not_watched(parts)(When(event=WhenEvent.CELL_DONE)) is None


def _fields(parts: JupyterServices) -> dict[str, Any]:
    return {name: getattr(parts, name) for name in parts.__dataclass_fields__}
