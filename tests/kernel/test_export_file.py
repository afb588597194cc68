"""The file that an export writes: whole or not at all."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from navi_jupyter.kernel.errors import UsageError
from navi_jupyter.kernel.session import write_whole


def test_an_export_replaces_a_file_and_keeps_its_mode_and_a_link_to_it(tmp_path: Path) -> None:
    (tmp_path / "talk.md").write_text("older")
    (tmp_path / "talk.md").chmod(0o640)
    (tmp_path / "link.md").symlink_to("talk.md")
    write_whole(tmp_path / "link.md", "newer")
    assert (tmp_path / "talk.md").read_text() == "newer"
    assert (tmp_path / "talk.md").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link.md").is_symlink()
    assert {each.name for each in tmp_path.iterdir()} == {"talk.md", "link.md"}


def test_an_export_that_does_not_fit_leaves_the_older_one_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "talk.md").write_text("older")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UsageError, match=r"talk.md cannot be written: File too large"):
            write_whole(tmp_path / "talk.md", "x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "talk.md").read_text() == "older"
    assert [each.name for each in tmp_path.iterdir()] == ["talk.md"]


def test_an_export_into_a_pipe_goes_through_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writing = threading.Thread(target=write_whole, args=(tmp_path / "pipe", "all of it"))
    writing.start()
    assert (tmp_path / "pipe").read_text() == "all of it"
    writing.join()
    assert not (tmp_path / "pipe").is_file()
