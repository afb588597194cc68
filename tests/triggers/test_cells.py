"""Recalls that wait for cells: the right cell, all that is to be known of it, once, soon; whatever becomes of it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from navi_jupyter.clock import now
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.model.recalls import RecallStatus
from navi_jupyter.model.sessions import SessionPatch
from navi_jupyter.ports.recalls import Happened
from tests.support.providers import Reply, ScriptedProvider
from tests.support.trigger_world import OWNER, Place, begun, finished, interrupted, opened, over, until

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="  # one pixel


async def test_the_next_cell_that_runs_is_reported_with_source_output_and_duration(place: Place) -> None:
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        await finished(browser, "import time\nfor n in range(3):\n    print('epoch', n)\ntime.sleep(0.3)")
        report = await place.report(recall)
        await finished(browser, "print('another')")
    assert "finished without an error after 0." in report
    assert "import time\nfor n in range(3):" in report
    assert "epoch 0\nepoch 1\nepoch 2" in report
    assert "work.ipynb" in report
    assert len(place.rows(recall)) == 1


async def test_the_cell_that_runs_when_the_recall_is_made_is_meant(place: Place, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with place.browser() as browser:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('through')"
        request = await begun(browser, code)
        recall = await place.when("cell_done")
        gate.touch()
        await over(browser, request)
        (row,) = await place.firings(recall)
    assert row["key"] == f"{place.kernel_id}:{request}:cell_done"
    assert "through" in row["detail"]
    assert "had begun before it was watched" in row["detail"], "what is not known is said to be not known"


async def test_a_cell_that_fails_is_reported_with_its_traceback(place: Place) -> None:
    done, failed, fine = [await place.when(event) for event in ("cell_done", "cell_failed", "cell_finished")]
    async with place.browser() as browser:
        await finished(browser, "print('so far')\nlosses = []\nlosses[-1]")
        for recall in (done, failed):
            report = await place.report(recall)
            assert "The cell failed after" in report
            assert "IndexError: list index out of range" in report
            assert "----> 3 losses[-1]" in report
            assert "so far" in report
            assert "\x1b" not in report
        (row,) = await place.firings(fine)
    assert (row["status"], row["reason"]) == ("missed", "the cell did not finish: it failed")
    ended = await place.services.recalls.service.queries.get(fine.id, owner=OWNER)
    assert ended.status is RecallStatus.EXPIRED, "it would wait for ever"


async def test_what_fails_in_code_that_an_agent_runs_in_a_waiting_cell_is_no_failure_of_the_cell(place: Place) -> None:
    failed, fine = [await place.when(event) for event in ("cell_failed", "cell_finished")]
    lent = """
import sys
from navi_jupyter.navi_cells import LENT_ERROR
kernel = get_ipython().kernel
content = {"ename": "ValueError", "evalue": "of the agent", "traceback": ["ValueError: of the agent"]}
kernel.session.send(
    kernel.iopub_socket, "error", content, parent=kernel.get_parent("shell"), metadata={LENT_ERROR: True})
print("the cell goes on")
"""
    async with place.browser() as browser:
        await finished(browser, lent)
        report = await place.report(fine)
        assert "ValueError: of the agent" in report  # it is an output of the cell
        assert "the cell goes on" in report
        (row,) = await place.firings(failed)
    assert (row["status"], row["reason"]) == ("missed", "the cell did not fail: it finished without an error")


async def test_a_cell_that_is_interrupted_is_reported(place: Place) -> None:
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        request = await begun(browser, "import time\ntime.sleep(600)")
        await interrupted(place, browser, request)
    report = await place.report(recall)
    assert "was interrupted" in report
    assert "time.sleep(600)" in report


async def test_a_kernel_that_is_killed_in_mid_cell_is_reported_with_what_was_seen(place: Place) -> None:
    recalls = [await place.when(event) for event in ("cell_done", "cell_failed", "kernel_died")]
    async with place.browser() as browser:
        await begun(browser, "print('half of it', flush=True)\nimport time\ntime.sleep(600)")
        pid = place.pid
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        for recall in recalls:
            report = await place.report(recall)
            assert "died" in report
            assert "half of it" in report
            assert "time.sleep(600)" in report
        assert time.monotonic() - killed < 5.0
    assert [len(place.rows(recall)) for recall in recalls] == [1, 1, 1]


async def test_a_restart_in_mid_cell_is_reported_and_is_no_death(place: Place) -> None:
    done, died, restarted = [await place.when(event) for event in ("cell_done", "kernel_died", "kernel_restarted")]
    async with place.browser() as browser:
        await begun(browser, "import time\ntime.sleep(600)")
        await place.parts.kernel_manager.restart_kernel(place.kernel_id, now=True)
        assert "restarted while the cell ran" in await place.report(done)
        assert "restarted" in await place.report(restarted)
    async with place.browser() as browser:
        again = await place.when("cell_done")
        await finished(browser, "print('the new one speaks')")
        assert "the new one speaks" in await place.report(again)
    assert not place.rows(died)


async def test_a_kernel_that_is_shut_down_in_mid_cell_is_reported(place: Place) -> None:
    done, died = await place.when("cell_done"), await place.when("kernel_died")
    async with place.browser() as browser:
        await begun(browser, "import time\ntime.sleep(600)")
        await place.parts.kernel_manager.shutdown_kernel(place.kernel_id, now=True)
        assert "shut down while the cell ran" in await place.report(done)
    assert not place.rows(died)


async def test_no_client_needs_to_be_connected_when_the_cell_ends(place: Place, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('end')"
        await begun(browser, code)
    gate.touch()
    assert "\nend\n" in await place.report(recall)


async def test_the_run_begins_within_300_ms_of_the_end_of_the_cell(place: Place) -> None:
    took = []
    async with place.browser() as browser:
        for number in range(7):
            recall = await place.when("cell_done")
            await finished(browser, f"print({number})")
            ended = time.time()
            await place.firings(recall)
            await until(lambda recall=recall: place.rows(recall)[0]["started_at"])
            (row,) = place.rows(recall)
            took.append(row["started_at"] / 1e6 - ended)
            # The session is free again before the next one.
            await until(lambda recall=recall: place.rows(recall)[0]["status"] == "succeeded")
    print(f"from the end of the cell to its run, ms: {sorted(round(one * 1000) for one in took)}")
    assert sorted(took)[len(took) // 2] < 0.3


async def test_pictures_go_along_the_last_three_of_many(place: Place) -> None:
    recall = await place.when("cell_done")
    image = f"Image(base64.b64decode('{PNG}'))"
    code = f"from IPython.display import Image\nimport base64\nfor n in range(5): display({image})"
    async with place.browser() as browser:
        await finished(browser, code)
        (row,) = await place.firings(recall)
    assert "It showed 5 images (the last 3 attached)" in row["detail"]
    attachments = row["attachments"].split()
    assert len(attachments) == 3
    for attachment in attachments:
        assert await place.services.sessions.attachments.read(attachment, owner=OWNER) == base64.b64decode(PNG)


async def test_each_cell_can_be_reported_and_an_agents_own_code_is_none_of_them(place: Place) -> None:
    recall = await place.when("cell_done", cell="any", repeat="each", policy={"misfire": "all", "busy": "queue"})
    kernels = place.services.sessions.jupyter_of("local").kernels
    session = await place.services.sessions.store.session(place.session_id)
    assert kernels is not None
    assert session is not None
    async with place.browser() as browser:
        await finished(browser, "print('mine one')")
        await place.firings(recall, 1)
        await kernels.execute(session, "print('of the agent')")
        await kernels.evaluate(session, "_navi_result = 1")
        await finished(browser, "print('mine two')")
        rows = await place.firings(recall, 2)
    details = [row["detail"] or "" for row in rows]
    assert len(rows) == 2
    assert "mine one" in details[0]
    assert not any("of the agent" in detail for detail in details)


async def test_silent_requests_are_no_cells(place: Place) -> None:
    recall = await place.when("cell_done")
    async with place.browser() as browser:
        request = browser.execute("1 + 1", silent=True)
        await over(browser, request)
        await finished(browser, "print('a cell')")
    assert "a cell" in await place.report(recall)
    assert len(place.rows(recall)) == 1


async def test_a_cell_of_the_notebook_is_found_by_its_id(place: Place, parts: JupyterServices) -> None:
    cells = [
        {"cell_type": "code", "id": name, "source": source, "metadata": {}, "outputs": [], "execution_count": None}
        for name, source in (("load", "x = 1"), ("train", "print('trained', x)"))
    ]
    content = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    await parts.contents_manager.save({"type": "notebook", "format": "json", "content": content}, "work.ipynb")
    recall = await place.when("cell_done", cell="train")
    async with place.browser() as browser:
        await finished(browser, "x = 1")
        await finished(browser, "print('trained', x)")
        assert "trained 1" in await place.report(recall)


async def test_a_slow_cell_is_reported_while_it_runs(place: Place) -> None:
    recall = await place.when("cell_slow", longer_than="400ms", cell="any", repeat="each")
    async with place.browser() as browser:
        await finished(browser, "print('quick')")
        request = await begun(browser, "import time\ntime.sleep(600)")
        (row,) = await place.firings(recall)
        assert "still runs" in row["detail"]
        assert "time.sleep(600)" in row["detail"]
        assert "begun" in row["detail"]
        await interrupted(place, browser, request)
    assert row["key"] == f"{place.kernel_id}:{request}:cell_slow"
    assert len(place.rows(recall)) == 1


async def test_progress_bars_and_floods_are_reported_in_little_room(place: Place) -> None:
    recall = await place.when("cell_done")
    code = (
        "import sys\nfor n in range(2000): sys.stdout.write(f'\\r{n:5} of 2000')\n"
        "print()\nfor n in range(200_000): print('line', n)"
    )
    async with place.browser() as browser:
        await finished(browser, code)
        report = await place.report(recall)
    assert len(report) <= 20_000
    assert "characters left out" in report
    assert "line 199999" in report
    assert report.count("of 2000") < 5


async def test_a_kernel_that_is_started_later_is_picked_up(parts: JupyterServices, tmp_path: Path) -> None:
    async with opened(parts, tmp_path) as place:
        recall = await place.when("cell_done")
        assert place.services.recalls.watcher.kernels == 0
        await place.open_kernel()
        await until(lambda: place.services.recalls.watcher.kernels == 1)
        async with place.browser() as browser:
            await finished(browser, "print('picked up')")
            assert "picked up" in await place.report(recall)


async def test_nothing_is_watched_when_nothing_waits(place: Place) -> None:
    watcher = place.services.recalls.watcher
    assert (watcher.watched, watcher.kernels) == (0, 0)
    before = set(threading.enumerate())
    recalls = [await place.when("cell_done") for _ in range(20)]
    assert (watcher.watched, watcher.kernels) == (20, 1), "one subscription for all"
    for recall in recalls:
        await place.services.recalls.service.cancel(recall.id, owner=OWNER)
    await until(lambda: not watcher.watched and not watcher.kernels)
    await until(lambda: not {thread.name for thread in threading.enumerate() if thread not in before} & {"navi-iopub"})


async def test_two_servers_and_a_second_telling_fire_once(place: Place) -> None:
    recall = await place.when("cell_done", cell="any", repeat="each")
    async with place.browser() as browser:
        await finished(browser, "print(1)")
        (row,) = await place.firings(recall)
    again = Happened(recall_id=recall.id, key=row["key"], at=now(), detail="the same, reported by another server")
    assert not await place.services.recalls.service.occurrences.record(again)
    assert len(place.rows(recall)) == 1


async def test_a_recall_that_was_paused_is_not_fired_and_goes_on_when_resumed(place: Place) -> None:
    recall = await place.when("cell_done", cell="any", repeat="each")
    await place.services.recalls.service.pause(recall.id, owner=OWNER)
    await until(lambda: not place.services.recalls.watcher.watched)
    async with place.browser() as browser:
        await finished(browser, "print('while paused')")
        await place.services.recalls.service.resume(recall.id, owner=OWNER)
        assert await place.services.recalls.watcher.listening(recall.id)
        await finished(browser, "print('resumed')")
        assert "resumed" in await place.report(recall)
    assert (await place.services.recalls.service.queries.get(recall.id, owner=OWNER)).status in (
        RecallStatus.PENDING,
        RecallStatus.RUNNING,
    )


async def test_a_kernel_that_is_killed_while_idle_is_reported_once(place: Place) -> None:
    died, restarted = await place.when("kernel_died"), await place.when("kernel_restarted")
    os.kill(place.pid, signal.SIGKILL)
    assert "It ran nothing then" in await place.report(died)
    assert "restarted" in await place.report(restarted), "Jupyter's watchdog started it again"
    assert len(place.rows(died)) == 1


async def test_the_model_reads_what_happened_and_sees_the_picture(
    parts: JupyterServices, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("It failed.")) as provider, opened(parts, tmp_path) as place:
        provider.point(monkeypatch)
        change = SessionPatch(model="openai-chat:gpt-6-luna")
        await place.services.sessions.orchestrator.sessions.change(place.session_id, change, owner=OWNER)
        await place.open_kernel()
        recall = await place.when("cell_done")
        image = f"display(Image(base64.b64decode('{PNG}')))"
        async with place.browser() as browser:
            await finished(browser, f"from IPython.display import Image\nimport base64\n{image}\nprint('loss 7')\n1/0")
        async with asyncio.timeout(30):
            sent = json.dumps((await provider.request()).body)
    for expected in ("on cell_done", "loss 7", "ZeroDivisionError", "from IPython.display import Image", "1/0"):
        assert expected in sent
    assert PNG in sent, "the picture itself"
    assert place.rows(recall)[0]["key"].endswith(":cell_done")
