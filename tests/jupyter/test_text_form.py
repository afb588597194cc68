"""A text file that is read and written back keeps its encoding, its line ends, its mark and its end."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from navi_jupyter.errors import FileRefused
from navi_jupyter.jupyter.files.service import LocalFiles

ENCODINGS = {
    "utf-8": b"",
    "utf-8 with a mark": b"\xef\xbb\xbf",
    "utf-16-le": b"\xff\xfe",
    "utf-16-be": b"\xfe\xff",
    "utf-32-le": b"\xff\xfe\0\0",
    "cp1252": b"",
}
ENDS = ("\n", "\r\n", "\r")
BEFORE = ("erste Zeile: Größe", "", "  zweite\t", "dritte – über")
# What is done with the lines that a model has read, and what it is then to be.
OPERATIONS = {
    "the same": BEFORE,
    "a line changed": ("erste Zeile: Größe", "", "  neu: ä", "dritte – über"),
    "the last line changed": (*BEFORE[:3], "Ende"),
    "a line added": (*BEFORE[:2], "dazu ö", *BEFORE[2:]),
    "added at the end": (*BEFORE, "am Schluss ß"),
    "a line removed": (BEFORE[0], *BEFORE[2:]),
    "all new": ("ganz", "anders"),
}
ROWS = list(itertools.product(ENCODINGS, ENDS, (True, False), OPERATIONS))


def as_bytes(lines: tuple[str, ...], name: str, end: str, *, last: bool) -> bytes:
    """A file that was written out by hand: not by what is tested."""
    text = end.join(lines) + (end if last else "")
    return ENCODINGS[name] + text.encode(name.removesuffix(" with a mark"))


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(str(tmp_path))


@pytest.mark.parametrize(("name", "end", "last", "operation"), ROWS)
async def test_what_is_read_and_written_back_keeps_its_form(
    files: LocalFiles, tmp_path: Path, name: str, end: str, last: bool, operation: str
) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(as_bytes(BEFORE, name, end, last=last))
    path.chmod(0o640)

    page = await files.page("file.txt")
    assert page.text.split("\n") == list(BEFORE)
    # A model ends its files with a newline, and knows no other line ends.
    changed = OPERATIONS[operation]
    content = "\n".join(changed) + "\n"
    if operation == "the same" and not last:  # else it would be what is asked for: a newline at the end
        content = content[:-1]
    await files.write("file.txt", content, expected_sha256=page.sha256)

    assert path.read_bytes() == as_bytes(changed, name, end, last=last)
    assert path.stat().st_mode & 0o777 == 0o640


def test_there_are_enough_rows() -> None:
    assert len(ROWS) >= 100


@pytest.mark.parametrize(
    ("before", "content", "after"),
    [
        # Mixed line ends: each line keeps its own, an added one ends as the one before it.
        (b"a\r\nb\nc\r\n", "a\nB\nc\n", b"a\r\nB\nc\r\n"),
        (b"a\r\nb\nc\r\n", "a\nnew\nb\nc\n", b"a\r\nnew\r\nb\nc\r\n"),
        (b"a\nb\r\nc", "a\nb\nnew\nc\n", b"a\nb\r\nnew\r\nc"),
        # Line ends in the content are made equal first.
        (b"a\nb\n", "a\r\nc\r\n", b"a\nc\n"),
        (b"a\r\nb\r\n", "a\r\nc\r\n", b"a\r\nc\r\n"),
        # Only the newline at the end differs: then that is wanted.
        (b"a\nb", "a\nb\n", b"a\nb\n"),
        (b"a\nb\n", "a\nb", b"a\nb"),
        (b"a\r\nb\r\n", "a\nb", b"a\r\nb"),
        # Overwritten text (a progress bar) is no line end.
        (b"10 %\r20 %\nend\n", "10 %\r20 %\nEND\n", b"10 %\r20 %\nEND\n"),
        # Bytes that are no UTF-8 stay where their line does.
        ("ä".encode() + b" \xff\xfe \nb\n", "ä \ufffd\ufffd \nc\n", "ä".encode() + b" \xff\xfe \nc\n"),
        (b"\xef\xbb\xbfa\n", "\ufeffb\n", b"\xef\xbb\xbfb\n"),
        (b"", "a\nb", b"a\nb"),
        (b"a\n", "", b""),
        (b"\0\1\2", "text\n", b"text\n"),
    ],
)
async def test_lines_that_were_not_changed_keep_their_bytes(
    files: LocalFiles, tmp_path: Path, before: bytes, content: str, after: bytes
) -> None:
    (tmp_path / "file.txt").write_bytes(before)

    await files.write("file.txt", content)

    assert (tmp_path / "file.txt").read_bytes() == after


async def test_a_character_that_the_encoding_does_not_have_is_refused_and_the_file_can_be_converted(
    files: LocalFiles, tmp_path: Path
) -> None:
    before = "größe\r\n".encode("latin-1")
    (tmp_path / "file.txt").write_bytes(before)

    with pytest.raises(FileRefused, match=r"cp1252, which has no '→' \(line 2\)"):
        await files.write("file.txt", "größe\na → b\n")
    assert (tmp_path / "file.txt").read_bytes() == before

    written = await files.write("file.txt", "größe\na → b\n", encoding="utf-8")
    assert (tmp_path / "file.txt").read_bytes() == "größe\r\na → b\r\n".encode()
    assert written["kept"] == "CRLF line ends"


async def test_it_is_said_what_was_kept_and_what_could_not_be(files: LocalFiles, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"a\r\nb")
    assert (await files.write("file.txt", "a\nc\n"))["kept"] == "CRLF line ends; no newline at the end"
    path.write_bytes(b"a\nb\n")
    assert (await files.write("file.txt", "a\nc"))["kept"] == "newline at the end"
    path.write_bytes(b"a\nb\n")
    assert "kept" not in await files.write("file.txt", "a\nc\n")
    path.write_bytes("ä".encode() + b"\xff\n")
    assert "1 line with bytes that were no UTF-8" in (await files.write("file.txt", "ä\ufffd!\n"))["kept"]


async def test_text_in_any_encoding_is_found(files: LocalFiles, tmp_path: Path) -> None:
    for name in ENCODINGS:
        (tmp_path / f"{name}.txt").write_bytes(as_bytes(BEFORE, name, "\r\n", last=True))
    (tmp_path / "mac.txt").write_bytes("a\rGröße\r".encode())

    found = await files.search("Größe")

    assert sorted(one.path for one in found.matches) == sorted([*(f"{name}.txt" for name in ENCODINGS), "mac.txt"])
    assert {one.text for one in found.matches} == {"erste Zeile: Größe", "Größe"}


async def test_a_file_that_changes_while_it_is_replaced_is_not_mixed_with_what_was_read(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"a\r\nb\r\n")
    read = files._before

    def changed_once(name: str) -> bytes | None:
        found = read(name)
        if found == b"a\r\nb\r\n":
            path.write_bytes(b"x\ny\n")  # another program, between our look and our write
        return found

    monkeypatch.setattr(files, "_before", changed_once)
    await files.write("file.txt", "a\nc\n")

    assert path.read_bytes() == b"a\nc\n"


def test_many_lines_are_compared_in_bounded_time(files: LocalFiles, tmp_path: Path) -> None:
    lines = [json.dumps({"n": number % 7}) for number in range(200_000)]
    (tmp_path / "file.txt").write_bytes("\r\n".join(lines).encode())

    files._write("file.txt", "\n".join([*lines[:50], "new", *reversed(lines)]) + "\n", None, None)

    assert (tmp_path / "file.txt").read_bytes().count(b"\r\n") == 200_050
