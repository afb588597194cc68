"""Prompts by name: built-in ones, and those of ``navi/prompts/<name>.md`` in every directory of Jupyter's configuration
path, the user's first.

A prompt that begins with ``/name`` is sent as the text of that name, with what is at hand in the place of its
placeholders. Read when one is asked for; a file with a mistake leaves its last good version in use. A file with the
name of a built-in prompt takes its place. Not responsible for where a selection or an error comes from: that is in what
the prompt carries. Synchronous: a few ``stat`` calls unless something changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...config_files import STILL_USED, ConfigError, ConfigFile, Document, WatchedFiles
from ...log_setup import get_logger
from ...text import fenced

log = get_logger("agent")

PROMPTS_FOLDER = Path("navi", "prompts")  # below each directory of the configuration path
MAX_BYTES = 65_536
MAX_FILES = 500  # in one folder
RESERVED = ("recall", "model", "profile", "new", "export")  # commands of the chat itself
_NAME = re.compile(r"[^\W_][\w-]{0,63}")
_COMMAND = re.compile(r"/([^\W_][\w-]{0,63})(?:\s+|$)")
_PLACEHOLDER = re.compile(r"\$ARGUMENTS\b|\{(input|selection|cell|error)\}")
_FRONT_MATTER_LINES = 20

PageParts = Mapping[str, str]
"""What a page shows, by placeholder: ``selection``, ``cell``, ``error``. What is not there is left out."""

_MISSING = {
    "selection": "(nothing is selected)",
    "cell": "(which cell is meant is not known: look at the notebook)",
    "error": "(the error in what is attached; without that, the last one in the notebook: look there)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedPrompt:
    """A prompt with a name and placeholders."""

    name: str
    description: str
    text: str
    path: str | None = None  # the file that it comes from; None for a built-in one
    why: str | None = None  # what is wrong with its file now; None when nothing is
    usable: bool = True

    def takes(self, part: str) -> bool:
        """Whether it has a place for ``selection``, ``cell`` or ``error``."""
        return f"{{{part}}}" in self.text

    def filled(self, words: str, page: PageParts) -> str:
        """The text to send: ``words`` are those behind the name.

        What comes from the page was not written to Navi: it is fenced, so that it counts as foreign text.
        """
        takes_words = False

        def value(match: re.Match[str]) -> str:
            nonlocal takes_words
            name = match[1] or "input"
            if name == "input":
                takes_words = True
                return words
            return f"\n{fenced(page[name])}\n" if page.get(name) else _MISSING[name]

        text = _PLACEHOLDER.sub(value, self.text).strip()
        return text if takes_words or not words else f"{text}\n\n{words}"


def _builtin(name: str, description: str, text: str) -> NamedPrompt:
    return NamedPrompt(name=name, description=description, text=text)


BUILTIN = (
    _builtin(
        "fix",
        "Find the cause of the last error and repair it",
        "Find the cause of this error and repair the cell that raises it. Change no more than is needed, say in a"
        " sentence what was wrong, and run the cell again to see that it works.\n{error}",
    ),
    _builtin(
        "explain",
        "Explain what is selected, or the active cell",
        "Explain what is selected, else the cell, step by step and briefly, and name what may surprise.\nSelected:"
        " {selection}\nThe cell: {cell}",
    ),
    _builtin(
        "document",
        "Write docstrings and comments for the active cell",
        "Document this code: docstrings with what it does, its arguments and what it returns, and comments where the"
        " reason is not obvious. Change nothing of what it does.\n{cell}",
    ),
    _builtin(
        "test",
        "Write tests for the active cell",
        "Write tests for this code in a new cell below it: the usual case, the limits, and what must fail. Run"
        " them.\n{cell}",
    ),
)


class PromptBook:
    """All prompts by name: the built-in ones and those of files."""

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = tuple(folders)  # the first that has a file of a name wins
        self._watched = WatchedFiles(_read, max_bytes=MAX_BYTES)
        self._reported: set[str] = set()

    def all(self) -> list[NamedPrompt]:
        """The built-in ones first, then those of files by their names; also those of files with a mistake."""
        self._refresh()
        found = {prompt.name: prompt for prompt in BUILTIN}
        for path, file in sorted(self._watched.files.items(), key=lambda one: one[0].stem):
            found[path.stem] = _of_file(path, file)
        return list(found.values())

    def expanded(self, text: str, page: PageParts) -> str | None:
        """What is sent for a prompt that begins with ``/name``; None where no usable prompt has that name.

        Paths and other words that only begin with a slash stay what they are.
        """
        found = self.find(text)
        return None if found is None else found[0].filled(found[1], page)

    def find(self, text: str) -> tuple[NamedPrompt, str] | None:
        """The usable prompt that ``text`` begins with as ``/name``, and the words behind the name."""
        match = _COMMAND.match(text)
        if match is None:
            return None
        named = next((prompt for prompt in self.all() if prompt.name == match[1] and prompt.usable), None)
        return None if named is None else (named, text[match.end() :].strip())

    def _refresh(self) -> None:
        paths: dict[str, Path] = {}
        for folder in self._folders:
            for path in _markdown_files(folder):
                paths.setdefault(path.stem, path)
        if self._watched.refresh(paths.values()):
            for problem in self._watched.problems:
                if problem.message not in self._reported:
                    log.warning("prompt_broken", file=problem.file, problem=problem.message)
            self._reported = {problem.message for problem in self._watched.problems}


def _of_file(path: Path, file: ConfigFile[NamedPrompt]) -> NamedPrompt:
    why = file.problem
    if file.content is None:
        return NamedPrompt(name=path.stem, description="", text="", path=str(path), why=why, usable=False)
    good = file.content
    return NamedPrompt(
        name=good.name,
        description=good.description,
        text=good.text,
        path=str(path),
        why=None if why is None else f"{why}\n{STILL_USED}",
    )


def _read(document: Document) -> NamedPrompt:
    """The prompt in a file. Raises ConfigError."""
    name = document.path.stem
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{str(document.path)!r}: the name of the file has to be a name: letters, digits, - and _, at most 64."
        )
    if name in RESERVED:
        raise ConfigError(f"{document.path}: /{name} is a command of the chat itself. Give the file another name.")
    settings, text, first = _front_matter(document)
    if not text.strip():
        raise ConfigError(f"{document.path}:{first}: the prompt is empty")
    return NamedPrompt(
        name=name,
        description=settings.get("description", _first_line(text)),
        text=text.strip(),
        path=str(document.path),
    )


def _front_matter(document: Document) -> tuple[dict[str, str], str, int]:
    """The settings between two lines of ``---`` at the top, the text behind them, and its first line's number."""
    lines = document.text.split("\n")
    if lines[0].rstrip() != "---":
        return {}, document.text, 1
    settings: dict[str, str] = {}
    for number, line in enumerate(lines[1 : _FRONT_MATTER_LINES + 1], 2):
        if line.rstrip() == "---":
            return settings, "\n".join(lines[number:]), number + 1
        key, colon, value = line.partition(":")
        if not line.strip():
            continue
        if not colon or key.strip() != "description":
            raise ConfigError(
                f"{document.path}:{number}: {key.strip()[:60]!r} is no setting of a prompt; there is: description"
            )
        settings["description"] = value.strip().strip("\"'")[:500]
    raise ConfigError(f"{document.path}:1: the settings at the top do not end: a line with --- is missing")


def _first_line(text: str) -> str:
    line = next((line for line in text.splitlines() if line.strip()), "").strip("# ")
    return line if len(line) <= 100 else f"{line[:99]}…"


def _markdown_files(folder: Path) -> Iterator[Path]:
    """In the order of their names; none for a folder that does not exist or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".md") and entry.is_file())
    except OSError:
        return
    for name in [name for name in names if not name.startswith(".")][:MAX_FILES]:
        yield Path(folder, name)
