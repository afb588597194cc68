"""The folders in which editors have opened sessions, on this machine: `session/list` shows them, and is asked for one.

A folder is of the editor's machine, so it is kept there and not with the session: a file for each session, with the
path. Where none is known, it is the folder of the session's notebook, else the server's. Losing a file loses no more
than that. Not responsible for sessions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_MOST = 1000  # sessions whose folders are kept; the oldest go
_LONGEST = 4096  # characters of a path


def path_below(path: str | Path, root: Path | None) -> str | None:
    """A path of this machine below the server's root, as the server names it; None where it is elsewhere."""
    if root is None:
        return None
    try:
        below = Path(path).resolve().relative_to(root.resolve()).as_posix()
    except (ValueError, OSError, RuntimeError):
        return None
    return "" if below == "." else below


def folder_here(root: str | None) -> Path | None:
    """The server's folder, where it is on this machine."""
    return Path(root) if root and Path(root).is_dir() else None


class EditorFolders:
    """The folders by session; ``home`` is for tests."""

    def __init__(self, home: Path | None = None) -> None:
        self._home = home

    def keep(self, session_id: str, folder: str) -> None:
        """A session was opened in a folder. Where it cannot be stored, it is not kept."""
        if len(folder) > _LONGEST:
            return
        with suppress(OSError):
            home = self._folder()
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = home / f".{session_id}.{os.getpid()}"
            draft.write_text(folder, encoding="utf-8", errors="replace")
            draft.replace(home / session_id)  # at once: another editor may write the same
            self._tidy(home)

    def of(self, session: Mapping[str, Any], root: str | None) -> str:
        """The folder of a session (one of ``GET sessions``), an absolute path."""
        with suppress(OSError, ValueError):
            kept = (self._folder() / str(session["id"])).read_text(encoding="utf-8")[:_LONGEST]
            if kept:
                return kept
        start = Path(root) if root else Path("/")
        return str((start / session["notebook_path"]).parent if session.get("notebook_path") else start)

    def _folder(self) -> Path:
        if self._home is not None:
            return self._home
        from jupyter_core.paths import jupyter_data_dir  # late: pulls in platformdirs

        return Path(jupyter_data_dir()) / "navi" / "editor-folders"

    def _tidy(self, home: Path) -> None:
        files = [entry for entry in os.scandir(home) if entry.is_file()]
        if len(files) <= _MOST + 100:
            return
        for entry in sorted(files, key=lambda one: one.stat().st_mtime)[: len(files) - _MOST]:
            Path(entry.path).unlink(missing_ok=True)
