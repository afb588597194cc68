"""Recalls that poll: files below the root, expressions in the kernel, and a kernel that rests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from navi_jupyter.errors import InvalidSchedule
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.model.recalls import RecallCreate, WhenSpec
from navi_jupyter.scheduling.event_triggers import resolve_when
from navi_jupyter.triggers import file_changes, polling
from navi_jupyter.triggers.file_changes import FileChange, FileObserver, UnreadablePath
from navi_jupyter.triggers.polling import Edge, expression_code
from tests.support.trigger_world import OWNER, Place, begun, finished, interrupted, opened, over, until

LONG_AGO = datetime.now(UTC) + timedelta(days=1)
"""Nothing is newer: what is there at the first poll is known."""


def settled(files: FileObserver) -> FileChange | None:
    """Look until it is quiet."""
    change = files.poll()
    return change or files.poll()


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_that_changes_is_reported_once_it_is_quiet(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1")
    files = FileObserver(tmp_path, "data.csv", since=LONG_AGO)
    assert files.poll() is None
    file.write_text("12")
    assert files.poll() is None, "it may still be written to"
    file.write_text("123")
    assert files.poll() is None
    assert files.unsettled
    change = files.poll()
    assert change is not None
    assert change.changed == ("data.csv",)
    assert change.key == f"file:data.csv:{file.stat().st_mtime_ns}:3"
    assert "`data.csv` changed; it has 3 bytes" in change.detail("data.csv")
    assert files.poll() is None


def test_a_file_that_is_written_anew_with_the_same_content_has_not_changed(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    file.write_text("same")
    files = FileObserver(tmp_path, "*.csv", since=LONG_AGO)
    assert files.poll() is None
    os.utime(file, ns=(1, file.stat().st_mtime_ns + 10**9))
    assert settled(files) is None
    file.write_text("else")
    assert settled(files) is not None


def test_files_that_come_and_go_are_changes_and_hidden_ones_are_not_seen(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    files = FileObserver(tmp_path, "a/**/*.txt", since=LONG_AGO)
    assert files.poll() is None
    (tmp_path / "a" / ".hidden.txt").write_text("x")
    assert settled(files) is None
    (tmp_path / "a" / "b" / "deep.txt").write_text("x")
    (tmp_path / "a" / "flat.txt").write_text("x")
    change = settled(files)
    assert change is not None
    assert change.created == ("a/b/deep.txt", "a/flat.txt")
    (tmp_path / "a" / "flat.txt").unlink()
    change = settled(files)
    assert change is not None
    assert change.deleted == ("a/flat.txt",)
    assert "deleted" in change.key


def test_what_was_written_before_the_first_look_but_after_the_recall_counts(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("x")
    os.utime(tmp_path / "old.txt", (1, 1))
    since = datetime.now(UTC) - timedelta(seconds=5)
    (tmp_path / "new.txt").write_text("x")
    change = settled(FileObserver(tmp_path, "*.txt", since=since))
    assert change is not None
    assert change.created == ("new.txt",)
    again = settled(FileObserver(tmp_path, "*.txt", since=since))
    assert again is not None
    assert again.key == change.key, "after a restart the ledger has it already"


def test_nothing_outside_the_root_is_polled(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    (root / "link.txt").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    for pattern in ("../outside.txt", "/etc/passwd", "~/x", "in/../../outside.txt", ""):
        with pytest.raises(UnreadablePath):
            FileObserver(root, pattern, since=LONG_AGO).poll()
    with pytest.raises(UnreadablePath, match="link"):
        FileObserver(root, "link.txt", since=LONG_AGO).poll()
    files = FileObserver(root, "**/*.txt", since=LONG_AGO)
    assert files.poll() is None
    outside.write_text("changed")
    assert settled(files) is None
    assert settled(FileObserver(root, "folder/outside.txt", since=LONG_AGO)) is None


def test_what_is_written_to_without_a_rest_is_reported_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "train.log"
    log.write_text("")
    files = FileObserver(tmp_path, "train.log", since=LONG_AGO)
    assert files.poll() is None
    for size in range(1, 6):
        log.write_text("x" * size)
        assert files.poll() is None, "it may be over in a moment"
    monkeypatch.setattr(file_changes, "MAX_UNSETTLED", 0.0)
    log.write_text("x" * 10)
    change = files.poll()
    assert change is not None
    assert (
        change.detail("train.log") == "The file `train.log` changed; it has 10 bytes now. It is still being written to."
    )


def test_a_file_that_is_replaced_or_comes_back_has_changed_and_one_that_goes_is_reported(tmp_path: Path) -> None:
    file, other = tmp_path / "a.csv", tmp_path / "new.tmp"
    file.write_text("old")
    files = FileObserver(tmp_path, "a.csv", since=LONG_AGO)
    assert files.poll() is None
    other.write_text("new")
    other.replace(file)
    change = settled(files)
    assert change is not None
    assert change.changed == ("a.csv",)
    file.unlink()
    change = settled(files)
    assert change is not None
    assert change.detail("a.csv") == "The file `a.csv` was deleted."
    file.write_text("back")
    change = settled(files)
    assert change is not None
    assert change.created == ("a.csv",)


def test_a_folder_means_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    files = FileObserver(tmp_path, "out", since=LONG_AGO)
    assert files.poll() is None
    (tmp_path / "out" / "deep" / "x.txt").write_text("x")
    change = settled(files)
    assert change is not None
    assert change.created == ("out/deep/x.txt",)


def test_a_file_that_claims_to_be_of_tomorrow_has_not_changed_for_that(tmp_path: Path) -> None:
    file = tmp_path / "unzipped.csv"
    file.write_text("x")
    tomorrow = datetime.now(UTC).timestamp() + 86_400
    os.utime(file, (tomorrow, tomorrow))
    assert settled(FileObserver(tmp_path, "*.csv", since=datetime.now(UTC) - timedelta(seconds=1))) is None


def test_no_more_is_read_than_needed_to_tell_a_touch_from_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_changes, "MAX_HASHED_BYTES", 10)
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("12345678")
    files = FileObserver(tmp_path, "*.txt", since=LONG_AGO)
    assert files.poll() is None
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").touch()
    change = settled(files)
    assert change is not None
    assert len(change.changed) == 1, "of the other one there was no room to know more than its time"


async def test_a_file_system_that_hangs_is_reported_and_holds_nothing_else_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    monkeypatch.setattr(polling, "SLOW_POLL", 0.1)
    looks = FileObserver.poll

    def hang(files: FileObserver) -> FileChange | None:
        gate.wait(60)
        return looks(files)

    monkeypatch.setattr(FileObserver, "poll", hang)
    try:
        request = RecallCreate(
            session_id=place.session_id,
            message="x",
            schedule=WhenSpec.model_validate({"kind": "when", "event": "file_changed", "path": "a.csv", "every": "1s"}),
        )
        recalls = [await place.services.recalls.service.create(request, owner=OWNER, zone="UTC") for _ in range(20)]
        assert "has not answered" in (await place.troubles(recalls[0]))[0]
        assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        gate.set()


def test_a_pattern_that_matches_too_much_is_refused(tmp_path: Path) -> None:
    for number in range(2001):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(UnreadablePath, match="2,000"):
        FileObserver(tmp_path, "*.txt", since=LONG_AGO).poll()


async def test_a_changed_file_wakes_its_recall_each_time(place: Place) -> None:
    file = Path(place.parts.root_dir) / "result.txt"
    recall = await place.when("file_changed", path="result.txt", every="1s", repeat="each", policy={"misfire": "all"})
    file.write_text("first")
    (row,) = await place.firings(recall)
    assert "`result.txt` was created; it has 5 bytes" in row["detail"]
    file.write_text("second")
    rows = await place.firings(recall, 2)
    assert rows[0]["key"] != rows[1]["key"]


async def test_two_servers_that_see_one_file_fire_once(parts: JupyterServices, place: Place, tmp_path: Path) -> None:
    recall = await place.when("file_changed", path="shared.txt", every="1s", repeat="each")
    async with opened(parts, tmp_path) as other:
        await until(lambda: other.services.recalls.watcher.watched == 1)
        (Path(parts.root_dir) / "shared.txt").write_text("x")
        await place.firings(recall)
        (Path(parts.root_dir) / "shared.txt").write_text("yz")
        await place.firings(recall, 2)
    keys = [row["key"] for row in place.rows(recall)]
    assert len(set(keys)) == len(keys) == 2


# --- expressions -----------------------------------------------------------------------------------------------------


def test_an_edge_is_from_false_to_true_and_an_error_is_reported_once() -> None:
    edge = Edge()
    assert [edge.saw(value, process="1") for value in (False, True, True, False, True)] == [0, 1, 0, 0, 1]
    assert edge.raised("NameError: x", process="1") == "NameError: x"
    assert edge.raised("NameError: x", process="1") is None
    assert edge.raised("NameError: y", process="1") == "NameError: y"
    assert edge.saw(True, process="1"), "it could not be looked at meanwhile: this is an edge"
    assert not edge.saw(True, process="1")
    assert edge.saw(True, process="2"), "another process of the kernel"


@pytest.mark.parametrize("expr", ["x = 1", "import os", "x; y", "", "x\ny"])
def test_only_an_expression_can_be_asked(expr: str) -> None:
    with pytest.raises(SyntaxError):
        expression_code(expr, seconds=1.0)


def test_an_expression_can_not_end_its_parentheses() -> None:
    with pytest.raises(SyntaxError):
        expression_code("1) or print('x'", seconds=1.0)


async def test_an_expression_that_turns_true_wakes_the_recall_and_leaves_nothing_behind(place: Place) -> None:
    async with place.browser() as browser:
        await finished(browser, "loss = 1.0\nbefore = set(globals())")
        recall = await place.when("expression", expr="(found := loss) < 0.1", every="1s")
        await finished(browser, "loss = 0.5")
        await finished(browser, "loss = 0.01")
        report = await place.report(recall)
        assert "(found := loss) < 0.1" in report
        done = await place.when("cell_done")
        await finished(browser, "print('new:', {name for name in set(globals()) - before if name[:2] != '_i'})")
        assert "new: {'before'}" in await place.report(done), "the rest is IPython's history"


async def test_an_expression_that_raises_is_reported_once_and_evaluated_again(place: Place) -> None:
    recall = await place.when("expression", expr="undefined_yet > 1", every="1s")
    assert "undefined_yet" in (await place.troubles(recall))[0]
    async with place.browser() as browser:
        await finished(browser, "x = 1")
        await finished(browser, "undefined_yet = 5")
        assert "undefined_yet > 1" in await place.report(recall)
    assert len(await place.troubles(recall)) == 1


async def test_an_expression_that_hangs_is_ended_and_reported(place: Place) -> None:
    async with place.browser() as browser:
        await finished(browser, "import time\ndef hang():\n    time.sleep(600)")
        recall = await place.when("expression", expr="hang()", every="1s")
        assert "1 s" in (await place.troubles(recall))[0]
        done = await place.when("cell_done")
        await finished(browser, "print('the kernel is free')")
        assert "the kernel is free" in await place.report(done)


DEEP = {
    "parentheses": "(" * 900 + "1" + ")" * 900,
    "signs": "-" * 1900 + "x",
    "attributes": "x" + ".a" * 900,
    "sums": "+".join(["x"] * 900),
    "subscripts": "x" + "[0]" * 600,
    "nots": "not " * 450 + "x",
}


@pytest.mark.parametrize("expr", DEEP.values(), ids=DEEP)
def test_an_expression_that_no_stack_holds_is_refused_when_it_is_given(expr: str) -> None:
    spec = WhenSpec.model_validate({"kind": "when", "event": "expression", "expr": expr})
    with pytest.raises(InvalidSchedule) as refused:
        resolve_when(spec)
    assert len(refused.value.message) < 200


def test_as_deep_as_is_allowed_is_evaluated() -> None:
    resolve_when(WhenSpec.model_validate({"kind": "when", "event": "expression", "expr": "x" + ".a" * 30}))
    assert "not not" in expression_code("x" + ".a" * 30, seconds=1.0)


def test_an_expression_that_will_not_heal_is_given_up_and_one_that_a_cell_heals_is_not() -> None:
    edge = Edge()
    assert edge.raised("E: " + "x" * 9000 + "\ntraceback\n", process="1") == "E: " + "x" * 296 + "…"
    assert edge.hopeless("RecursionError: too deep") == "cannot be evaluated"
    assert [edge.hopeless("NameError: loss") for _ in range(200)] == [None] * 200
    edge.saw(False, process="1")
    told = [edge.hopeless("TimeoutError: it takes longer than 1 s") for _ in range(polling.MAX_FAILURES)]
    assert told == [None] * (polling.MAX_FAILURES - 1) + [f"has failed {polling.MAX_FAILURES} times in a row"]


@pytest.mark.parametrize("repeat", ["once", "each"])
async def test_an_expression_that_exhausts_the_stack_ends_its_recall_with_one_line_and_leaves_the_kernel(
    place: Place, caplog: pytest.LogCaptureFixture, repeat: str
) -> None:
    async with place.browser() as browser:
        await finished(browser, "def deep():\n    return deep()")
        recall = await place.when("expression", expr="deep()", every="1s", repeat=repeat)
        (row,) = await place.firings(recall)
        assert row["status"] == "missed"
        assert row["reason"].startswith("the expression cannot be evaluated: RecursionError: ")
        assert "\n" not in row["reason"]
        assert len(row["reason"]) < 400
        state = await place.services.recalls.service.queries.get(recall.id, owner=OWNER)
        assert state.status == "expired"
        await finished(browser, "print('the kernel lives')")
    assert len(await place.troubles(recall)) == 1
    ours = [record for record in caplog.records if record.name.startswith("navi")]
    assert not [record for record in ours if "Traceback" in record.getMessage() or record.exc_info]
    assert len(place.rows(recall)) == 1


LIMITED = """
import contextlib, signal, time
from navi_jupyter.injected.time_limit import limited

def tell(work):
    try:
        with limited(0.05):
            work()
    except TimeoutError as error:
        return str(error)
    return "in time"

def swallow():
    for _ in range(3):
        with contextlib.suppress(BaseException):
            time.sleep(30)

print(tell(lambda: None))
print(tell(lambda: time.sleep(30)))
print(tell(swallow))
print(signal.getsignal(signal.SIGALRM) is signal.SIG_DFL, signal.getitimer(signal.ITIMER_REAL)[0])
rang = []
signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
signal.setitimer(signal.ITIMER_REAL, 0.2)
print(tell(signal.pause), rang)
"""


def test_a_limit_of_time_ends_what_hangs_and_leaves_the_process_and_its_own_alarms_as_they_were() -> None:
    # In a process of its own: the test runner may have an alarm set.
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=60)
    ended = "it takes longer than 0.05 s, and was ended"
    assert done.stdout.splitlines() == ["in time", ended, ended, "True 0.0", "in time [True]"]


async def test_the_limit_of_an_expression_never_ends_a_cell_of_the_user(place: Place) -> None:
    slowly = "import random, time\ndef slowly():\n    time.sleep(random.uniform(0.9, 1.1))"
    async with place.browser() as browser:
        await finished(browser, slowly)
        failed = await place.when("cell_failed", cell="any", repeat="each")
        for _ in range(3):
            recall = await place.when("expression", expr="slowly()", every="1s")
            for _ in range(3):
                await finished(browser, "for _ in range(20): time.sleep(0.01)")
            await place.services.recalls.service.cancel(recall.id, owner=OWNER)
    assert not place.rows(failed)


async def test_no_expression_is_asked_while_a_cell_runs(place: Place, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with place.browser() as browser:
        request = await begun(browser, f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)")
        recall = await place.when("expression", expr="bool(1)", every="1s")
        slow = await place.when("cell_slow", longer_than="2500ms")
        await place.firings(slow)
        assert not place.rows(recall), "two intervals have passed"
        gate.touch()
        await over(browser, request)
        await place.firings(recall)


# --- a kernel that rests ---------------------------------------------------------------------------------------------


async def test_a_kernel_that_rests_after_it_has_worked_is_reported_with_its_last_cell(place: Place) -> None:
    recall = await place.when("kernel_idle", longer_than="700ms")
    async with place.browser() as browser:
        requests = [browser.execute(f"print('cell', {number})") for number in range(3)]
        await over(browser, requests[-1])
        report = await place.report(recall)
    assert "is idle" in report
    assert "cell 2" in report
    assert len(place.rows(recall)) == 1


async def test_a_kernel_that_has_done_nothing_is_not_idle(place: Place) -> None:
    idle = await place.when("kernel_idle")
    done = await place.when("cell_slow", longer_than="1500ms")
    async with place.browser() as browser:
        request = await begun(browser, "import time\ntime.sleep(600)")
        await place.firings(done)
        assert not place.rows(idle), "it works"
        await interrupted(place, browser, request)
    assert "is idle" in await place.report(idle)
