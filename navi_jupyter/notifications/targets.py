"""Where people can be reached: ``navi/notify.toml`` in Jupyter's config path, and ``NAVI_NOTIFY_<NAME>_URL``.

A target's URL is a secret (it holds the service's key): it is in no log line, event, answer or ``repr``.
What is wrong in one target disables that one alone, and says the file, the line and the key.
Not responsible for sending anything.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .quiet_hours import QuietHours, read_quiet

FILE_NAME = "navi/notify.toml"
MAX_FILE = 100_000
MAX_TARGETS = 100
PER_HOUR = 20
BROWSER = "browser"
"""No target: the pages themselves tell (``js``)."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"NAVI_NOTIFY_([A-Z0-9_]{1,64})_URL")

Check = Callable[[str], str | None]
"""What is wrong with a URL, without asking the network; None when nothing is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Somewhere a message can be sent."""

    name: str
    url: str = field(default="", repr=False)
    source: str
    """The file, or the environment variable."""
    wrong: str | None = None
    """Why it can not be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something wrong with a file as a whole, or with a setting in it."""

    file: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """All files and variables together: of two with the same name the first file's counts, a variable before any."""

    targets: Mapping[str, Target] = field(default_factory=dict)
    quiet: QuietHours | None = None
    quiet_text: str | None = None
    per_hour: int = PER_HOUR
    """Messages to each target and user within an hour."""
    public_url: str | None = None
    """The server's address as its users know it."""
    problems: Sequence[Problem] = ()


class TargetFiles:
    """The files, read again when one of them or a variable has changed. Blocks on the disk: call it in a thread."""

    def __init__(self, config_path: Callable[[], Sequence[str]], *, check: Check) -> None:
        self._config_path = config_path
        self._check = check
        self._seen: object = None
        self._targets = Targets()

    def read(self) -> Targets:
        """What is configured now. Never raises."""
        paths = list(dict.fromkeys(Path(directory, FILE_NAME) for directory in self._config_path()))
        variables = {name: url for name, url in os.environ.items() if _VARIABLE.fullmatch(name) and url}
        seen = (tuple(map(_fingerprint, paths)), variables)
        if seen != self._seen:
            self._targets = _Reading(self._check).all(paths, variables)
            self._seen = seen
        return self._targets


def _fingerprint(path: Path) -> tuple[object, ...]:
    try:
        stat = path.stat()
    except OSError as error:
        return (str(path), error.errno)
    return (str(path), stat.st_mtime_ns, stat.st_size, stat.st_ino)


class _Reading:
    """One reading of all of it."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._targets: dict[str, Target] = {}
        self._settings: dict[str, Any] = {}
        self._problems: list[Problem] = []

    def all(self, paths: Sequence[Path], variables: Mapping[str, str]) -> Targets:
        for variable, url in sorted(variables.items()):
            name = variable.removeprefix("NAVI_NOTIFY_").removesuffix("_URL").lower()
            self._add(name, url, variable, f"the environment variable {variable}")
        for path in paths:
            try:
                self._file(path)
            except ValueError as error:
                self._problems.append(Problem(file=str(path), message=str(error)))
        return Targets(targets=self._targets, problems=tuple(self._problems), **self._settings)

    def _file(self, path: Path) -> None:
        """Raises ValueError that says what is wrong with the file as a whole, and where."""
        text = _text(path)
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # TOMLDecodeError, or a number beyond all bounds
            raise ValueError(f"{path}: not TOML: {error}") from None
        self._look_at_mode(path)
        targets = content.pop("targets", {})
        for key, value in content.items():
            self._setting(key, value, path, _line_of(text, key))
        if not isinstance(targets, dict):
            line = _line_of(text, "targets")
            raise ValueError(f'{path}, line {line}: targets must be tables like [targets.phone] with url = "…"')  # noqa: TRY004  it is about the file
        for name, entry in list(targets.items())[:MAX_TARGETS]:
            self._target(name, entry, path, text)

    def _look_at_mode(self, path: Path) -> None:
        """Our own file has keys that others should not read. Those of the machine are its administrator's business."""
        if os.name != "posix":
            return
        try:
            stat = path.stat()
        except OSError:
            return  # there is none, or no more
        if stat.st_uid == os.getuid() and stat.st_mode & 0o077:
            message = f"{path}: others on this machine can read the keys in it; chmod 600 keeps them private"
            self._problems.append(Problem(file=str(path), message=message))

    def _setting(self, key: str, value: object, path: Path, line: int) -> None:
        try:
            found = _settings(key, value)
        except ValueError as error:
            self._problems.append(Problem(file=str(path), message=f"{path}, line {line}: {_shown(key)}: {error}"))
            return
        for name, setting in found.items():
            self._settings.setdefault(name, setting)

    def _target(self, name: str, entry: object, path: Path, text: str) -> None:
        if name.lower() in self._targets:
            return
        line = _line_of(text, "targets", name)
        where = f"{path}, line {line}: targets.{_shown(name)}"
        wrong = None
        url = entry.get("url") if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            wrong = f'{where}: must be a table with url = "…"'
        elif unknown := sorted(set(entry) - {"url"}):
            line = _line_of(text, "targets", name, unknown[0])
            wrong = f"{path}, line {line}: targets.{_shown(name)}.{_shown(unknown[0])}: not known"
        elif not isinstance(url, str) or not url.strip():
            variable = f"NAVI_NOTIFY_{_shown(name).upper().replace('-', '_')}_URL"
            wrong = f"{where}: url is missing; write it here or set the environment variable {variable}"
        if wrong is not None:
            self._targets[_shown(name).lower()] = Target(name=_shown(name), source=str(path), wrong=wrong)
            return
        self._add(name, str(url), str(path), where)

    def _add(self, name: str, url: str, source: str, where: str) -> None:
        wrong = None
        if not _NAME.fullmatch(name) or name.lower() == BROWSER:
            wrong = f'a name has at most 64 letters, digits, dashes and underscores, and is not "{BROWSER}"'
        else:
            wrong = self._check(url)
        target = Target(
            name=_shown(name), url="" if wrong else url.strip(), source=source, wrong=wrong and f"{where}: {wrong}"
        )
        self._targets.setdefault(_shown(name).lower(), target)


def _shown(key: str) -> str:
    """A key as it may be shown: a URL that got into its place by mistake may not."""
    return key if _NAME.fullmatch(key) else "(odd name)"


def _settings(key: str, value: object) -> dict[str, Any]:
    """A setting as fields of :class:`Targets`. Raises ValueError."""
    match key, value:
        case "quiet", str():
            return {"quiet": read_quiet(value), "quiet_text": value.strip()}
        case "per_hour", int() if not isinstance(value, bool) and 1 <= value <= 1000:
            return {"per_hour": value}
        case "per_hour", _:
            raise ValueError("must be a whole number from 1 to 1000")
        case "public_url", str() if re.fullmatch(r"https?://[^\s?#]+", value):
            return {"public_url": value}
        case (("public_url" | "quiet"), _):
            raise ValueError("must be text" + (' like "https://…"' if key == "public_url" else ""))
        case _:
            raise ValueError("not known; there are quiet, per_hour, public_url and [targets.NAME]")


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"{path}: larger than {MAX_FILE} bytes")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8") from None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


def _line_of(text: str, *keys: str) -> int:
    """The line, from one, of a key in a TOML text that is written the usual way; of what is above it otherwise."""
    line, rest = 1, list(keys)
    table: list[str] = []
    for number, source in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[([^\[\]]+)\]", source)
        key = re.match(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""", source)
        path = [*([] if header else table), *_parts((header or key or _NOTHING)[1])]
        if header:
            table = path
        if (header or key) and path[: len(rest)] == rest:
            return number
        if (header or key) and path and path == rest[: len(path)]:
            line = number
    return line


_NOTHING = ("", "")


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".") if part.strip()]
