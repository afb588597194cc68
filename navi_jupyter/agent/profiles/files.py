"""The user's profiles: ``navi/profiles/<name>.toml`` in every directory of Jupyter's configuration path, the user's
first.

Read when a profile is asked for: a changed file counts from the next run on, without a restart. A file with a mistake
leaves its last good version in use. A file with the name of a built-in profile takes its place, and may extend it.
Not responsible for what a profile means (``definitions``). Synchronous: a few ``stat`` calls unless something changed.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ...config_files import STILL_USED, ConfigError, ConfigFile, Document, WatchedFiles
from ...errors import InvalidRequest, NaviError
from ...log_setup import get_logger
from ...model.base import ModelName, ProfileName, Value
from ...model.runs import Permission, RunLimits
from .definitions import PROFILES, Profile, describe

log = get_logger("agent")

FOLDER = Path("navi", "profiles")  # below each directory of the configuration path
MAX_BYTES = 262_144

Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=200)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=100_000)]


class ProfileForm(Value):
    """A profile as a file has it. What it leaves out comes from the profile that it extends.

    ``more_instructions``, ``permissions``, ``context`` and ``limits`` add to those of the extended profile.
    """

    extends: ProfileName | None = None  # A built-in profile, or another one. Default: `assistant`.
    description: Annotated[str, StringConstraints(strip_whitespace=True, max_length=500)] | None = None
    model: ModelName | None = None
    instructions: Text | None = None
    more_instructions: Text | None = None
    tools: Patterns | None = None
    permissions: Annotated[dict[Pattern, Permission], Field(max_length=500, default_factory=dict)]
    headless: Literal["queue", "deny"] | None = None
    mcp: Patterns | None = None
    context: Annotated[dict[Pattern, StrictBool], Field(default_factory=dict)]
    workers: Patterns | None = None
    limits: RunLimits = RunLimits()

    def over(self, name: str, extended: Profile, path: str | None) -> Profile:
        """The profile: what is set here, else what the extended one has. ``path``: None for a user's own."""
        parts = (extended.instructions if self.instructions is None else self.instructions, self.more_instructions)
        limits = {field: getattr(self.limits, field) for field in self.limits.model_fields_set}
        own: dict[str, Any] = {"tools": self.tools, "headless_asks": self.headless, "model": self.model}
        own |= {"mcp": self.mcp, "subagents": self.workers}
        return replace(
            extended,
            name=name,
            description=self.description or f"{name} (extends {extended.name})",
            instructions="\n\n".join(part for part in parts if part),
            permissions={**extended.permissions, **self.permissions},
            context={**extended.context, **self.context},
            limits=extended.limits.model_copy(update=limits),
            builtin=False,
            own=path is None,
            path=path,
            **{field: value for field, value in own.items() if value is not None},
        )


class Profiles(ABC):
    """The profiles that somebody can choose from."""

    @abstractmethod
    def get(self, name: str) -> Profile:
        """The profile. Raises InvalidRequest, for one that is not there with the known names."""

    @abstractmethod
    def names(self) -> list[str]:
        """In the order they are shown, also of those with a mistake."""

    @abstractmethod
    def describe(self) -> list[dict[str, Any]]:
        """For ``GET profiles``: each as ``definitions.describe`` has it, with ``available`` and ``why`` it is not."""

    def model_of(self, name: str) -> str | None:
        """The model of new sessions with this profile; None when it names none or does not exist."""
        try:
            return self.get(name).model
        except InvalidRequest:
            return None

    def limits_of(self, name: str) -> RunLimits:
        """The profile's own limits. Raises InvalidRequest as :meth:`get` does."""
        return self.get(name).limits


class ProfileBook(Profiles):
    """The profiles of everybody: the built-in ones and those of files."""

    def __init__(self, folders: Sequence[Path] = (), *, check_model: Callable[[str], object] = str) -> None:
        """``check_model`` raises a NaviError for the name of a model that does not exist."""
        self._folders = tuple(folders)  # the first that has a file of a name wins
        self._check_model = check_model
        self._watched = WatchedFiles(self._form, max_bytes=MAX_BYTES)
        self._files: dict[str, tuple[Path, ConfigFile[ProfileForm]]] = {}
        self._good: dict[str, Profile] = {}  # the last good version of each file's profile, with all that it extends
        self._problems: dict[str, str] = {}  # of files that have a mistake now, or extend one that has

    def get(self, name: str) -> Profile:
        """The profile. Raises InvalidRequest: for a broken one with file and line, else with the known names."""
        self._refresh()
        if name in self._good:
            return self._good[name]
        if name in self._problems:
            raise InvalidRequest(f"The profile {name!r} cannot be used. {self._problems[name]}", field="profile")
        if name in PROFILES:
            return PROFILES[name]
        raise InvalidRequest(f"There is no profile {name!r}. There is: {', '.join(self._names())}.", field="profile")

    def names(self) -> list[str]:
        self._refresh()
        return self._names()

    def describe(self) -> list[dict[str, Any]]:
        self._refresh()
        described = []
        for name in self._names():
            why = self._problems.get(name)
            known = self._good.get(name) or (None if why else PROFILES[name])
            if known is None:
                path = str(self._files[name][0])
                known = Profile(name=name, description="", instructions="", builtin=False, path=path)
            elif why:
                why += f"\n{STILL_USED}"
            described.append(describe(known) | {"available": why is None, "why": why})
        return described

    def _names(self) -> list[str]:
        return list(dict.fromkeys([*PROFILES, *sorted(self._files)]))

    def _refresh(self) -> None:
        paths: dict[str, Path] = {}
        for folder in self._folders:
            for path in _toml_files(folder):
                paths.setdefault(path.stem, path)
        if self._watched.refresh(paths.values()):
            self._files = {path.stem: (path, file) for path, file in self._watched.files.items()}
            self._resolve_all()

    def _form(self, document: Document) -> ProfileForm:
        try:
            TypeAdapter(ProfileName).validate_python(document.path.stem)
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"]
            raise ConfigError(f"{document.at()}: the name of the file: {why}") from None
        try:
            form = ProfileForm.model_validate(document.content)
            self.check_model(form)
        except ValidationError as error:
            raise ConfigError("\n".join(document.mistakes(error, describe=_mistake))) from None
        except NaviError as error:
            raise ConfigError(f"{document.at('model')}: model: {error.message}") from None
        return form

    def check_model(self, form: ProfileForm) -> None:
        """Raises a NaviError for a model that does not exist."""
        if form.model is not None:
            self._check_model(form.model)

    def _resolve_all(self) -> None:
        reported, self._problems = self._problems, {}
        resolved: dict[str, Profile] = {}
        for name, (_, file) in self._files.items():
            problem = file.problem
            try:
                resolved[name] = self._resolve(name, resolved, ())
            except ConfigError as error:
                problem = problem or str(error)
            if problem is not None:
                self._problems[name] = problem
                if reported.get(name) != problem:
                    log.warning("profile_broken", profile=name, problem=problem)
        self._good = {name: self._good[name] for name in self._files if name in self._good} | resolved

    def _resolve(self, name: str, resolved: Mapping[str, Profile], trail: tuple[str, ...]) -> Profile:
        """The profile of a file with all that it extends. Raises ConfigError."""
        if name in resolved:
            return resolved[name]
        path, file = self._files[name]
        form, document = file.content, file.document
        if form is None or document is None:
            raise ConfigError(file.problem)
        extends = form.extends or "assistant"
        where = f"{document.at('extends')}: extends"
        if extends in PROFILES and (extends == name or extends not in self._files):
            # A file may extend the built-in one that it replaces.
            return form.over(name, PROFILES[extends], str(path))
        if extends == name or extends in trail:
            raise ConfigError(f"{where}: it extends itself ({' extends '.join((*trail, name, extends))})")
        if extends not in self._files:
            raise ConfigError(f"{where}: there is no profile {extends!r}; there is: {', '.join(self._names())}")
        try:
            return form.over(name, self._resolve(extends, resolved, (*trail, name)), str(path))
        except ConfigError as error:
            raise ConfigError(f"{where}: {extends!r} is broken: {error}") from None


def _toml_files(folder: Path) -> Iterator[Path]:
    """In the order of their names; none for a folder that does not exist or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.endswith(".toml") and not entry.name.startswith(".") and entry.is_file():
                    yield Path(entry.path)
    except OSError:
        return


def _mistake(error: ErrorDetails) -> str:
    """What is wrong, with what was given where that is short; for an unknown setting, what may have been meant."""
    if error["type"] != "extra_forbidden":
        given = error["input"]
        shown = f", not {given!r}" if isinstance(given, str | int | float) and len(repr(given)) <= 60 else ""
        return f"{error['msg']}{shown}"
    known = RunLimits if error["loc"][0] == "limits" and len(error["loc"]) > 1 else ProfileForm
    near = get_close_matches(str(error["loc"][-1]), known.model_fields, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known.model_fields)}"
    return f"there is no such setting; {hint}"
