"""Files under the server's root are listed, read, searched and replaced; nothing outside is ever touched."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from navi_jupyter.errors import FileConflict, FileRefused, InvalidRequest, NaviError, NotFound
from navi_jupyter.jupyter.files.search import SearchLimits, SearchQuery, glob_matches, search
from navi_jupyter.jupyter.files.service import LocalFiles
from navi_jupyter.jupyter.files.tree import Tree
from tests.support.event_loop import loop_watched

SECRET = "the family jewels"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the root, with something worth stealing."""
    folder = tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    (folder / "secret.txt").write_text(SECRET)
    (folder / "sub" / "deep.txt").write_text(SECRET)
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    """The server's root, with links that lead everywhere."""
    root = tmp_path / "root"
    (root / "data" / "deep").mkdir(parents=True)
    (root / "data" / "a.csv").write_text("x,y\n1,2\n3,4\n")
    (root / "notes.md").write_text("# Notes\nThe Quick brown fox\n")
    (root / ".secret").write_text(SECRET)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text(SECRET)
    (root / "out").symlink_to(outside)
    (root / "out_file").symlink_to(outside / "secret.txt")
    (root / "out_relative").symlink_to("../outside")
    (root / "data" / "up").symlink_to("../../outside/secret.txt")
    (root / "data" / "chain").symlink_to("../out_relative/secret.txt")
    (root / "sneaky").symlink_to(f"{root}/../outside/secret.txt")
    (root / "beside").symlink_to(f"{root}side")
    (root / "self").symlink_to("self")
    (root / "ping").symlink_to("pong")
    (root / "pong").symlink_to("ping")
    (root / "to_hidden").symlink_to(".secret")
    (root / "inside").symlink_to("data")
    (root / "inside_absolute").symlink_to(root / "data" / "a.csv")
    (tmp_path / "rootside").write_text(SECRET)
    os.mkfifo(root / "pipe")
    return root


@pytest.fixture
def files(root: Path) -> LocalFiles:
    return LocalFiles(str(root))


ESCAPES = [
    *("..", "../outside/secret.txt", "data/../../outside/secret.txt", "./../outside/secret.txt", "data/..", "a/../b"),
    *("/etc/passwd", "//etc/passwd", "/", "/../etc/passwd", "..//outside", "data/deep/../../../outside/secret.txt"),
    *("out/secret.txt", "out", "out/", "out/sub/deep.txt", "out/../outside/secret.txt", "out/./secret.txt"),
    *("out_file", "out_relative/secret.txt", "out_relative/sub/deep.txt", "data/up", "data/chain", "sneaky", "beside"),
    *("inside/up", "inside/chain", "inside/../../outside/secret.txt", "self", "ping", "pong/x", "to_hidden"),
    *(".secret", ".git/config", ".git", "data/.hidden/x", "./.secret", "inside/.x", "out/new/file.txt", "self/x"),
    *("secret\0.txt", "out_file\0", "\0", "../" * 40 + "etc/passwd", "out_file/", "data/up/", "pipe", "x" * 5000),
    *("\udcff/../..", "data/\udcff\ud800", "..\\..\\x/../../y", "....//....//etc/../../x"),
]


@pytest.mark.parametrize("path", ESCAPES)
async def test_no_path_leads_out_of_the_root_to_read_list_search_or_write(
    files: LocalFiles, outside: Path, tmp_path: Path, path: str
) -> None:
    before = {one: one.read_bytes() for one in outside.rglob("*") if one.is_file()}

    attempts: list[Awaitable[object]] = [
        files.page(path),
        files.read_bytes(path, limit=1000),
        files.write(path, "mine"),
        files.list(path, pattern="**/*.txt"),
        files.search("jewels", path=path),
    ]
    for attempt in attempts:
        try:
            got = await attempt
        except (FileRefused, NotFound, InvalidRequest):
            continue
        assert "jewels" not in str(got), f"{path!r} gave {got!r}"
        assert "secret.txt" not in str(got)

    assert {one: one.read_bytes() for one in outside.rglob("*") if one.is_file()} == before
    assert (tmp_path / "rootside").read_text() == SECRET
    assert not list(tmp_path.glob("*mine*"))


names = st.sampled_from(
    [
        "..",
        ".",
        "",
        "data",
        "out",
        "out_relative",
        "inside",
        "sneaky",
        "self",
        ".git",
        "secret.txt",
        "a.csv",
        "up",
        "chain",
    ]
)
free = st.text(st.characters(blacklist_characters="/"), max_size=6)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.one_of(names, free), max_size=8), lead=st.sampled_from(["", "/", "./", "//"]))
@example(parts=["inside", "..", "out"], lead="")
def test_whatever_the_path_a_file_that_is_opened_is_below_the_root(root: Path, parts: list[str], lead: str) -> None:
    path = lead + "/".join(parts)
    try:
        with Tree(str(root)).file(path) as (descriptor, _):
            opened = Path(f"/proc/self/fd/{descriptor}").readlink()
            content = os.read(descriptor, 100)
    except NaviError:
        return
    assert opened.is_relative_to(root.resolve())
    assert SECRET.encode() not in content


async def test_links_that_stay_inside_are_followed(files: LocalFiles) -> None:
    assert (await files.page("inside/a.csv")).total == 3
    assert (await files.page("inside_absolute")).text.startswith("x,y")
    await files.write("inside/new.txt", "here")
    assert (await files.page("data/new.txt")).text == "here"
    await files.write("inside_absolute", "z\n")
    assert (await files.page("data/a.csv")).text == "z"


def test_a_link_that_is_swapped_in_meanwhile_leads_nowhere(root: Path, outside: Path) -> None:
    """Two threads: one turns a folder into a link out and back, the other reads and writes through it."""
    tree = Tree(str(root))
    real, folder = root / "real", root / "turn"
    real.mkdir()
    (real / "secret.txt").write_text("ours")
    link = root / "turn_link"
    over = threading.Event()

    def turn() -> None:
        while not over.is_set():
            link.symlink_to(outside)
            link.replace(folder)
            folder.unlink()
            real.rename(folder)
            folder.rename(real)

    other = threading.Thread(target=turn)
    other.start()
    seen = 0
    try:
        begin = time.monotonic()
        # Two seconds; longer where two busy threads have not met.
        while (passed := time.monotonic() - begin) < 2 or (not seen and passed < 100):
            try:
                with tree.file("turn/secret.txt") as (descriptor, _):
                    assert os.read(descriptor, 100) != SECRET.encode()
                    seen += 1
            except NaviError:
                pass
            with suppress(NaviError):
                tree.write("turn/secret.txt", b"ours")
    finally:
        over.set()
        other.join()
    assert seen, "the test never met the folder while it was real"
    assert (outside / "secret.txt").read_text() == SECRET
    assert sorted(one.name for one in outside.iterdir()) == ["secret.txt", "sub"]


async def test_pipes_devices_sockets_and_folders_are_no_files(files: LocalFiles, root: Path) -> None:
    for path, kind in (("pipe", "a pipe"), ("data", "a folder"), ("", "a folder")):
        with pytest.raises(FileRefused, match=kind):
            await asyncio.wait_for(files.page(path), 5)
        with pytest.raises(FileRefused, match=kind):
            await files.write(path, "x")
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o600 | 0o020000, os.makedev(1, 5))
        with pytest.raises(FileRefused, match="a device"):
            await files.read_bytes("null", limit=10)


async def test_hidden_files_are_there_only_where_the_server_shows_them(root: Path) -> None:
    shy, open_ = LocalFiles(str(root)), LocalFiles(str(root), allow_hidden=True)

    assert (await open_.page(".secret")).text == SECRET
    assert ".secret" in [entry["path"] for entry in await open_.list()]
    assert ".secret" not in [entry["path"] for entry in await shy.list()]
    assert not (await shy.search("jewels")).matches
    await open_.write(".hidden/x", "y")
    with pytest.raises(FileRefused, match="hidden"):
        await shy.page(".hidden/x")


async def test_a_listing_says_what_there_is_folders_first(files: LocalFiles) -> None:
    entries = {entry["path"]: entry for entry in await files.list()}

    assert next(iter(entries)) == "data"
    assert entries["data"]["kind"] == "folder"
    assert entries["notes.md"]["kind"] == "file"
    assert entries["notes.md"]["size"] == 28
    assert entries["inside"]["kind"] == "folder"
    assert entries["out"]["kind"] == entries["pipe"]["kind"] == entries["self"]["kind"] == "other"
    assert entries["out_file"]["size"] is None, "the size of what is outside is nobody's business"
    assert [entry["path"] for entry in await files.list("data", pattern="*.csv")] == ["data/a.csv"]
    assert [entry["path"] for entry in await files.list(pattern="*.csv")] == ["data/a.csv"]
    assert len(await files.list(limit=2)) == 2
    with pytest.raises(NotFound):
        await files.list("nowhere")


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.py", "a/b/c.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("a/**/*.py", "a/b/c.py", True),
        ("a/**/*.py", "a/c.py", True),
        ("**/c.py", "c.py", True),
        ("**", "x/y", True),
        ("a/**", "a/b/c", True),
        ("a/?.py", "a/bb.py", False),
        ("a/[bc]/x", "a/c/x", True),
        ("./a/*", "a/b", True),
    ],
)
def test_patterns_mean_what_they_mean_in_a_shell(pattern: str, path: str, fits: bool) -> None:
    assert glob_matches(pattern, path) is fits


async def test_text_comes_in_pages_of_lines(files: LocalFiles, root: Path) -> None:
    (root / "long.txt").write_text("".join(f"line {n}\n" for n in range(1, 1001)))

    page = await files.page("long.txt", start=500, lines=2)

    assert (page.text, page.start, page.lines, page.total) == ("line 500\nline 501", 500, 2, 1000)
    assert page.sha256 == hashlib.sha256((root / "long.txt").read_bytes()).hexdigest()
    assert (await files.page("long.txt", start=1000, lines=5)).text == "line 1000"
    assert (await files.page("long.txt", start=2000)).text == ""
    with pytest.raises(InvalidRequest):
        await files.page("long.txt", start=0)


@pytest.mark.parametrize(
    ("raw", "text", "total", "note"),
    [
        (b"", "", 0, None),
        (b"a", "a", 1, "no newline at the end"),
        (b"a\n\nb\n", "a\n\nb", 3, None),
        (b"\n", "", 1, None),
        (b"a\r\nb\r\n", "a\nb", 2, "CRLF line ends"),
        (b"a\r\nb\nc\r\n", "a\nb\nc", 3, "line ends: 2 CRLF, 1 LF"),
        (b"a\rb\r", "a\nb", 2, "CR line ends"),
        (b"\xef\xbb\xbfa\n", "a", 1, "utf-8 with a byte order mark"),
        ("grüße\n".encode("utf-16"), "grüße", 1, "utf-16-le with a byte order mark"),
        ("grüße\n".encode("utf-32"), "grüße", 1, "utf-32-le with a byte order mark"),
        ("grüße\n".encode("latin-1"), "grüße", 1, "read as cp1252, which is a guess"),
        ("ü".encode() + b" \xff\n", "ü \ufffd", 1, "bytes that are no UTF-8"),
        ("\ufffd\n".encode(), "\ufffd", 1, None),
        (b"x" * 10_000 + b"\ny", "x" * 4000 + "\ny", 2, "cut after"),
    ],
)
async def test_what_is_no_plain_utf8_is_read_and_said(
    files: LocalFiles, root: Path, raw: bytes, text: str, total: int, note: str | None
) -> None:
    (root / "odd.txt").write_bytes(raw)

    page = await files.page("odd.txt")

    assert (page.text, page.total) == (text, total)
    assert (page.note is None) if note is None else (note in str(page.note))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text("ab é", max_size=5), max_size=30), start=st.integers(1, 35), count=st.integers(1, 35))
def test_pages_agree_with_the_lines_of_the_file(root: Path, lines: list[str], start: int, count: int) -> None:
    (root / "lines.txt").write_text("".join(f"{line}\n" for line in lines))
    page = LocalFiles(str(root))._page("lines.txt", start, count, threading.Event())

    assert page.total == len(lines)
    assert page.text.split("\n")[: page.lines] == (lines[start - 1 : start - 1 + count] or [""])[: page.lines]
    assert page.lines == len(lines[start - 1 : start - 1 + count])


async def test_binary_and_oversized_files_are_refused_clearly(files: LocalFiles, root: Path) -> None:
    (root / "plot.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(FileRefused, match=r"binary.*image/png"):
        await files.page("plot.png")
    (root / "late.txt").write_bytes(b"a\n" * 10_000 + b"\0\n")
    with pytest.raises(FileRefused, match="binary"):
        await files.page("late.txt", start=10_000)
    with pytest.raises(FileRefused, match="11 bytes; 5 are allowed"):
        await files.read_bytes("plot.png", limit=5)
    assert await files.read_bytes("plot.png", limit=11) == (root / "plot.png").read_bytes()
    (root / "huge.txt").touch()
    os.truncate(root / "huge.txt", (1 << 30) + 1)
    with pytest.raises(FileRefused, match="1024 MB"):
        await files.page("huge.txt")
    with pytest.raises(FileRefused, match="10 MB"):
        await files.write("big.txt", "x" * ((10 << 20) + 1))
    assert not (root / "big.txt").exists()


async def test_writing_replaces_the_whole_file_and_keeps_its_mode(files: LocalFiles, root: Path) -> None:
    script = root / "run.sh"
    script.write_text("echo old\n")
    script.chmod(0o750)

    told = await files.write("run.sh", "echo grüße\n")

    assert script.read_text() == "echo grüße\n"
    assert script.stat().st_mode & 0o777 == 0o750
    assert told == {
        "path": "run.sh",
        "size": 13,
        "sha256": hashlib.sha256(script.read_bytes()).hexdigest(),
        "created": False,
    }
    assert (await files.write("new/folder/x.txt", "1"))["created"] is True
    assert (root / "new" / "folder" / "x.txt").read_text() == "1"
    assert [one.name for one in root.rglob(".~*")] == []


async def test_with_an_expected_hash_only_that_file_is_replaced(files: LocalFiles, root: Path) -> None:
    digest = hashlib.sha256((root / "notes.md").read_bytes()).hexdigest()
    await files.write("notes.md", "second", expected_sha256=digest[:12].upper())

    with pytest.raises(FileConflict):
        await files.write("notes.md", "third", expected_sha256=digest)
    with pytest.raises(FileConflict):
        await files.write("gone.md", "third", expected_sha256=digest)
    with pytest.raises(InvalidRequest):
        await files.write("notes.md", "third", expected_sha256="ab")

    assert (root / "notes.md").read_text() == "second\n"
    assert not (root / "gone.md").exists()
    assert [one.name for one in root.rglob(".~*")] == []


async def test_a_notebook_is_not_written_over_and_a_new_one_must_be_one(files: LocalFiles, root: Path) -> None:
    empty = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    with pytest.raises(InvalidRequest):
        await files.write("new.ipynb", "no json")
    with pytest.raises(InvalidRequest):
        await files.write("new.ipynb", '{"cells": 3}')
    await files.write("new.ipynb", empty)
    with pytest.raises(FileRefused, match="cells"):
        await files.write("new.ipynb", empty)
    assert (root / "new.ipynb").read_text() == empty


KILLED = """
import sys
from navi_jupyter.jupyter.files.tree import Tree
tree, n = Tree(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    tree.write("big.txt", (b"%d" % (n % 10)) * 3_000_000)
"""


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_or_the_new_one_whole(root: Path) -> None:
    (root / "big.txt").write_bytes(b"0" * 3_000_000)
    for n in range(8):
        writer = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.02 + 0.013 * n)  # where in the write it hits is what varies
        writer.send_signal(signal.SIGKILL)
        writer.wait(20)
        writer.stdout.close()
        content = (root / "big.txt").read_bytes()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


async def test_search_finds_lines_in_files_and_in_the_sources_of_cells(files: LocalFiles, root: Path) -> None:
    notebook = {
        "cells": [
            {"id": "one", "cell_type": "markdown", "source": "text", "metadata": {}},
            {"id": "two", "cell_type": "code", "source": ["import os\n", "fox = 1"], "outputs": [{"text": "fox"}]},
        ]
    }
    (root / "data" / "nb.ipynb").write_text(json.dumps(notebook))
    (root / "broken.ipynb").write_text("fox {")
    (root / "bin.dat").write_bytes(b"\0fox")
    (root / "node_modules").mkdir()
    (root / "node_modules" / "x.js").write_text("fox")

    found = await files.search("fox")

    assert [(one.path, one.line, one.cell, one.text) for one in found.matches] == [
        ("notes.md", 2, None, "The Quick brown fox"),
        ("data/nb.ipynb", 2, "two", "fox = 1"),
    ]
    assert found.why_incomplete is None
    assert (await files.search("quick")).matches, "all lower case finds any case"
    assert not (await files.search("QUICK")).matches
    assert [one.path for one in (await files.search(r"^\d,\d$", regex=True)).matches] == ["data/a.csv"] * 2
    assert [one.line for one in (await files.search("fox", path="notes.md")).matches] == [2]
    assert (await files.search("fox", path="node_modules")).matches


async def test_search_stops_at_its_limits_and_says_so(files: LocalFiles, root: Path) -> None:
    (root / "many.txt").write_text("needle\n" * 1000 + "x" * 5000 + "needle" + "y" * 5000)

    found = await files.search("needle", limit=7)

    assert len(found.matches) == 7
    assert found.why_incomplete == "7 matches"
    long = (await files.search("xneedley", path="many.txt")).matches[0]
    assert len(long.text) < 250
    assert "needle" in long.text
    with pytest.raises(InvalidRequest):
        await files.search("")
    with pytest.raises(InvalidRequest, match="regular expression"):
        await files.search("(", regex=True)


# --- the event loop --------------------------------------------------------------------------------------------------


# Each takes `re` longer than anybody waits (nested repetition, overlapping alternatives), or is gigabytes compiled.
SLOW_EXPRESSIONS = [r"^(a|a|aa)+$", r"^(a+)+$", r"(a?){500}b", r"^(([a-z])+.)+[A-Z]$", r"(.*)*(.*)*(.*)*x$"]
HUGE_EXPRESSIONS = [r"(a{1000}){1000}", r"((((a{99}){99}){99}){99}){99}", "(" * 5000 + "a" + ")" * 5000]


@pytest.mark.parametrize("expression", SLOW_EXPRESSIONS)
async def test_no_expression_takes_long_or_holds_the_loop(files: LocalFiles, root: Path, expression: str) -> None:
    (root / "trap.txt").write_text(("a" * 2000 + "!\n") * 50)

    with loop_watched(0.2):
        found = await asyncio.wait_for(files.search(expression, regex=True, path="trap.txt"), 10)
    assert found.why_incomplete is None, "all lines were looked at"


@pytest.mark.parametrize("expression", [*HUGE_EXPRESSIONS, r"(?=a)b", r"(a)\1"])
async def test_an_expression_that_cannot_be_matched_in_linear_time_is_refused_at_once(
    files: LocalFiles, root: Path, expression: str
) -> None:
    (root / "trap.txt").write_text("a" * 2000 + "!\n")

    with loop_watched(0.2), pytest.raises(InvalidRequest, match="expression"):
        await asyncio.wait_for(files.search(expression[:500], regex=True, path="trap.txt"), 5)


async def test_after_a_stop_nothing_of_a_search_goes_on(files: LocalFiles, root: Path) -> None:
    (root / "trap.txt").write_text(("é" * 2400 + "\n") * 900)  # 4 MB, a quarter of a second for each line
    searching = asyncio.create_task(files.search(r"((.?){30}){30}q", regex=True, path="trap.txt"))
    await asyncio.sleep(0.5)
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    await asyncio.sleep(0.7)  # the line that it was at

    before = time.process_time()
    await asyncio.sleep(1.0)

    assert time.process_time() - before < 0.3, "a core goes on burning"


async def test_a_search_ends_with_its_seconds_whatever_the_expression(root: Path) -> None:
    (root / "trap.txt").write_text(("é" * 2400 + "\n") * 900)
    query, limits = SearchQuery.of(r"((.?){30}){30}q", regex=True), SearchLimits(seconds=0.5)

    began = time.monotonic()
    found = await asyncio.to_thread(search, Tree(str(root)), query, "", limits, threading.Event())

    assert found.why_incomplete == "0.5 seconds"
    assert time.monotonic() - began < 3


async def test_a_file_of_200_mb_is_paged_searched_and_refused_without_holding_the_loop(
    files: LocalFiles, root: Path
) -> None:
    block = b"".join(b"%d,some text of a row,1.25\n" % n for n in range(40_000))
    (root / "large.csv").write_bytes(block * (200_000_000 // len(block)))
    rows = (200_000_000 // len(block)) * 40_000
    await asyncio.sleep(0)

    with loop_watched(0.5):
        page = await files.page("large.csv", start=rows - 1, lines=10)
        found = await files.search("some text")
        with pytest.raises(FileRefused):
            await files.read_bytes("large.csv", limit=20 << 20)

    assert (page.total, page.lines) == (rows, 2)
    assert not found.matches, "too large to be searched"
