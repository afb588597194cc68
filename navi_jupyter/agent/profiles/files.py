"""The user's profiles: ``navi/profiles/<name>.toml`` in every directory of Jupyter's configuration path, the user's
first.

Looked at when a profile is asked for: a changed file counts from the next run on, without a restart. A file that got
broken leaves its last good version in use, and says with file and line what is wrong. A file with the name of a
built-in profile takes its place, and may extend it.
Not responsible for what a profile means (``profiles``). Synchronous: a few ``stat`` calls unless something changed.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StrictBool, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ...config_files import line_of, lines_of
from ...errors import InvalidRequest, NaviError
from ...log_setup import get_logger
from ...model.base import ModelName, ProfileName, Value
from ...model.runs import Permission, RunLimits
from .definitions import PROFILES, Profile, describe

log = get_logger("agent")

FOLDER = Path("navi", "profiles")
"""Below each directory of the configuration path."""
T = TypeVar("T")

MAX_BYTES = 262_144
_MAX_PROBLEMS = 5

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=200)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100_000)]


class ProfileForm(Value):
    """What a file can say. What it does not say comes from the profile that it extends."""

    extends: ProfileName | None = None
    """A built-in profile, or that of another file. Default: ``assistant``."""
    description: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] | None = None
    model: ModelName | None = None
    instructions: Text | None = None
    """Instead of those of the extended profile."""
    more_instructions: Text | None = None
    """Besides those of the extended profile."""
    tools: Patterns | None = None
    permissions: Annotated[dict[Pattern, Permission], Field(max_length=500, default_factory=dict)]
    """Besides those of the extended profile."""
    headless: Literal["queue", "deny"] | None = None
    mcp: Patterns | None = None
    context: Annotated[dict[Pattern, StrictBool], Field(default_factory=dict)]
    """Besides those of the extended profile."""
    workers: Patterns | None = None
    limits: RunLimits = RunLimits()
    """Besides those of the extended profile."""

    def over(self, name: str, extended: Profile, path: str) -> Profile:
        """The profile: what is said here, else what the extended one says."""
        parts = (extended.instructions if self.instructions is None else self.instructions, self.more_instructions)
        limits = {field: getattr(self.limits, field) for field in self.limits.model_fields_set}
        return replace(
            extended,
            name=name,
            description=self.description or f"{name} (extends {extended.name})",
            instructions="\n\n".join(part for part in parts if part),
            tools=_own(self.tools, extended.tools),
            permissions={**extended.permissions, **self.permissions},
            headless_asks=_own(self.headless, extended.headless_asks),
            model=_own(self.model, extended.model),
            mcp=_own(self.mcp, extended.mcp),
            context={**extended.context, **self.context},
            workers=_own(self.workers, extended.workers),
            limits=extended.limits.model_copy(update=limits),
            builtin=False,
            path=path,
        )


def _own(said: T | None, extended: T) -> T:
    return extended if said is None else said


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A file as it was last read."""

    path: Path
    stamp: tuple[int, int, int]
    """When it was changed (ns), its size, its inode."""
    form: ProfileForm | None
    """None when it is broken."""
    lines: Mapping[tuple[str | int, ...], int]
    problem: str | None

    def at(self, *where: str | int) -> str:
        """``file:line`` of a key."""
        return f"{self.path}:{line_of(where, self.lines)}"


class _Broken(Exception):
    """With what is wrong, where."""


CheckModel = Callable[[str], object]
"""Raises a NaviError for a model that can not be."""


def _any_model(name: str) -> object:
    return name


class ProfileBook:
    """The built-in profiles and those of files."""

    def __init__(self, folders: Sequence[Path] = (), *, check_model: CheckModel = _any_model) -> None:
        self._folders = tuple(folders)
        """The first that has a file of a name wins."""
        self._check_model = check_model
        self._files: dict[str, _File] = {}
        self._good: dict[str, Profile] = {}
        """The last good version of each file's profile."""
        self._problems: dict[str, str] = {}
        """Of files that are broken now, or extend what is."""

    def get(self, name: str) -> Profile:
        """The profile. Raises InvalidRequest: for a broken one with file and line, else with the known names."""
        self._look()
        if name in self._good:
            return self._good[name]
        if name in self._problems:
            raise InvalidRequest(f"The profile {name!r} can not be used. {self._problems[name]}", field="profile")
        if name in PROFILES:
            return PROFILES[name]
        raise InvalidRequest(f"There is no profile {name!r}. There is: {', '.join(self._names())}.", field="profile")

    def model_of(self, name: str) -> str | None:
        """The model of new sessions with this profile; None when it names none or is none."""
        try:
            return self.get(name).model
        except InvalidRequest:
            return None

    def limits_of(self, name: str) -> RunLimits:
        """The profile's own limits. Raises InvalidRequest as :meth:`get` does."""
        return self.get(name).limits

    def describe(self) -> list[dict[str, Any]]:
        """For ``GET profiles``: ``definitions.describe`` with ``available`` and ``why`` each."""
        self._look()
        described = []
        for name in self._names():
            why = self._problems.get(name)
            known = self._good.get(name) or (None if why else PROFILES[name])
            if known is None:
                path = str(self._files[name].path)
                known = Profile(name=name, description="", instructions="", builtin=False, path=path)
            elif why:
                why += "\nUntil then its last good version is used."
            described.append(describe(known) | {"available": why is None, "why": why})
        return described

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*PROFILES, *sorted(self._files)]))

    # --- files

    def _look(self) -> None:
        """Read what has changed since the last look."""
        present: dict[str, tuple[Path, tuple[int, int, int]]] = {}
        for folder in self._folders:
            for name, path, stamp in _toml_files(folder):
                present.setdefault(name, (path, stamp))
        if {name: (file.path, file.stamp) for name, file in self._files.items()} == present:
            return
        for gone in self._files.keys() - present.keys():
            self._good.pop(gone, None)
        before, self._files = self._files, {}
        for name, (path, stamp) in present.items():
            old = before.get(name)
            self._files[name] = old if old and (old.path, old.stamp) == (path, stamp) else self._read(path, stamp)
        self._resolve_all()

    def _read(self, path: Path, stamp: tuple[int, int, int]) -> _File:
        lines: Mapping[tuple[str | int, ...], int] = {}
        form, problem = None, None
        try:
            TypeAdapter(ProfileName).validate_python(path.stem)
            text = _text_of(path)
            content = tomllib.loads(text)
            lines = lines_of(text)
            form = ProfileForm.model_validate(content)
            self._check(form)
        except tomllib.TOMLDecodeError as error:
            problem = f"{path}:{_toml_line(error)}: {error}"
        except ValidationError as error:
            problem = "\n".join(_problems(error, path, lines))
        except NaviError as error:
            problem = f"{path}:{line_of(('model',), lines)}: model: {error.message}"
        except (OSError, UnicodeDecodeError, RecursionError, _Broken) as error:
            problem = f"{path}:1: {error}"
        return _File(path=path, stamp=stamp, form=None if problem else form, lines=lines, problem=problem)

    def _check(self, form: ProfileForm) -> None:
        if form.model is not None:
            self._check_model(form.model)

    def _resolve_all(self) -> None:
        told, self._problems = self._problems, {}
        done: dict[str, Profile] = {}
        for name in self._files:
            try:
                done[name] = self._resolve(name, done, ())
            except _Broken as error:
                self._problems[name] = str(error)
                if told.get(name) != str(error):
                    log.warning("profile_broken", profile=name, problem=str(error))
        self._good |= done

    def _resolve(self, name: str, done: Mapping[str, Profile], trail: tuple[str, ...]) -> Profile:
        """The profile of a file with all that it extends. Raises _Broken."""
        if name in done:
            return done[name]
        file = self._files[name]
        if file.form is None:
            raise _Broken(file.problem)
        extends = file.form.extends or "assistant"
        if extends in PROFILES and (extends == name or extends not in self._files):
            extended = PROFILES[extends]  # a file may extend the built-in one that it replaces
        elif extends == name or extends in trail:
            circle = " extends ".join((*trail, name, extends))
            raise _Broken(f"{file.at('extends')}: extends: it extends itself ({circle})")
        elif extends not in self._files:
            known = ", ".join(self._names())
            raise _Broken(f"{file.at('extends')}: extends: there is no profile {extends!r}; there is: {known}")
        else:
            extended = self._extended(file, extends, done, (*trail, name))
        return file.form.over(name, extended, str(file.path))

    def _extended(self, file: _File, extends: str, done: Mapping[str, Profile], trail: tuple[str, ...]) -> Profile:
        try:
            return self._resolve(extends, done, trail)
        except _Broken as error:
            if extends in self._good and self._files[extends].form is None:
                return self._good[extends]
            raise _Broken(f"{file.at('extends')}: extends: {extends!r} is broken: {error}") from None


def _toml_files(folder: Path) -> Iterator[tuple[str, Path, tuple[int, int, int]]]:
    """Name, path and stamp of each; nothing for a folder that is not there or can not be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".toml") and not entry.name.startswith(".") and entry.is_file():
                    facts = entry.stat()
                    stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
                    yield entry.name.removesuffix(".toml"), Path(entry.path), stamp
    except OSError:
        return


def _text_of(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise _Broken(f"the file is larger than {MAX_BYTES // 1024} KiB")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def _toml_line(error: tomllib.TOMLDecodeError) -> int:
    """Before Python 3.14 the line is in the message only."""
    line: int | None = getattr(error, "lineno", None)
    if line is not None:
        return line
    _, _, place = str(error).rpartition("(at line ")
    number = place.partition(",")[0]
    if number.isdigit():
        return int(number)
    return 1


def _problems(error: ValidationError, path: Path, lines: Mapping[tuple[str | int, ...], int]) -> Iterator[str]:
    """``file:line: key: what is wrong``, in the order of the file."""
    found = [(line_of(_plain(one["loc"]), lines), one) for one in error.errors(include_url=False)[:50]]
    problems = sorted(found, key=lambda each: each[0])
    for line, one in problems[:_MAX_PROBLEMS]:
        where = ".".join(str(part) for part in _plain(one["loc"])) or "the name of the file"
        yield f"{path}:{line}: {where}: {_said(one)}"
    if len(problems) > _MAX_PROBLEMS:
        yield f"{path}: and {len(problems) - _MAX_PROBLEMS} more."


def _plain(location: Sequence[str | int]) -> tuple[str | int, ...]:
    """As the file has it: pydantic adds ``[key]`` for what is wrong with a key itself."""
    return tuple(part for part in location if part != "[key]")


def _said(error: ErrorDetails) -> str:
    if error["type"] != "extra_forbidden":
        given = error["input"]
        shown = f", not {given!r}" if isinstance(given, str | int | float) and len(repr(given)) <= 60 else ""
        return f"{error['msg']}{shown}"
    known = RunLimits if error["loc"][0] == "limits" and len(error["loc"]) > 1 else ProfileForm
    near = get_close_matches(str(error["loc"][-1]), known.model_fields, n=1)
    return (
        f"there is no such setting; did you mean {near[0]}?"
        if near
        else (f"there is no such setting; there are: {', '.join(known.model_fields)}")
    )
