"""Notification targets: ``navi/notify.toml`` in Jupyter's config path, and ``NAVI_NOTIFY_<NAME>_URL``.

A target is a service that people read, by Apprise (``url``), or a webhook of a program (``webhook``, ``secret``).
A target's address is a secret (it contains the service's key): it is in no log line, event, answer or ``repr``.
A mistake in one target disables that one alone; its message names the file, the line and the key.
Not responsible for sending anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config_files import ConfigError, Document, FileProblem, WatchedFiles
from ..ports.notifications import EventKind
from ..redaction import remember
from .quiet_hours import QuietHours, read_quiet
from .webhook_sender import Webhook, read_secret

FILE_NAME = "navi/notify.toml"
MAX_FILE = 100_000
MAX_TARGETS = 100
PER_HOUR = 20
MAX_SECRETS = 5  # of one webhook
EVENT_KINDS: tuple[EventKind, ...] = ("firing", "run")
BROWSER = "browser"  # not a target of ours: open pages show their notifications themselves (`js`)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"NAVI_NOTIFY_([A-Z0-9_]{1,64})_URL")

Check = Callable[[str], str | None]  # what is wrong with a URL, without asking the network; None when nothing is


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """An address that messages are sent to."""

    name: str
    url: str = field(default="", repr=False)  # empty for a webhook
    webhook: Webhook | None = None
    source: str  # the file, or the environment variable
    own: bool = False  # whether it is one user's, and for that user alone
    wrong: str | None = None  # why it cannot be used


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """All files and variables together: of two with the same name the first file's counts, a variable before any."""

    targets: Mapping[str, Target] = field(default_factory=dict)
    quiet: QuietHours | None = None
    quiet_text: str | None = None
    per_hour: int = PER_HOUR  # messages to each target and user within an hour
    public_url: str | None = None  # the server's address as its users open it
    problems: Sequence[FileProblem] = ()

    def wanting(self, kind: EventKind) -> Sequence[str]:
        """The webhooks that get every event of this kind."""
        return [name for name, each in self.targets.items() if each.webhook is not None and kind in each.webhook.events]


class TargetFiles:
    """The files, read again when one of them or a variable has changed. Blocks on the disk: call it in a thread."""

    def __init__(
        self, config_path: Callable[[], Sequence[str]], *, check: Check, check_webhook: Check = lambda _: None
    ) -> None:
        self._config_path = config_path
        self._check = check
        self._check_webhook = check_webhook
        self._watched = WatchedFiles(self._file, max_bytes=MAX_FILE)
        self._variables: dict[str, str] = {}
        self._targets = Targets()

    def read(self) -> Targets:
        """What is configured now. Never raises."""
        variables = {name: url for name, url in sorted(os.environ.items()) if _VARIABLE.fullmatch(name) and url}
        changed = self._watched.refresh(Path(directory, FILE_NAME) for directory in self._config_path())
        if changed or variables != self._variables:
            self._variables = variables
            self._targets = self._merged()
        return self._targets

    def _merged(self) -> Targets:
        targets: dict[str, Target] = {}
        for variable, url in self._variables.items():
            name = variable.removeprefix("NAVI_NOTIFY_").removesuffix("_URL").lower()
            targets[name] = self._checked(name, url, variable, f"the environment variable {variable}")
        settings: dict[str, Any] = {}
        problems = self._watched.problems
        for file in self._watched.files.values():
            if file.content is not None:
                targets = file.content.targets | targets
                settings = file.content.settings | settings
                problems += file.content.problems
        return Targets(targets=targets, problems=tuple(problems), **settings)

    def _file(self, document: Document) -> _FileContent:
        """What one file has. Raises ConfigError for a mistake that concerns all of it."""
        found = _FileContent()
        _check_mode(document.path, found)
        content = dict(document.content)
        targets = content.pop("targets", {})
        for key, value in content.items():
            try:
                found.settings.update(_settings(key, value))
            except ValueError as error:
                found.add_problem(document.path, f"{document.at(key)}: {_shown(key)}: {error}")
        if not isinstance(targets, dict):
            raise ConfigError(f'{document.at("targets")}: targets must be tables like [targets.phone] with url = "…"')
        for name, entry in list(targets.items())[:MAX_TARGETS]:
            found.targets.setdefault(_shown(name).lower(), self._target(name, entry, document))
        return found

    def _target(self, name: str, entry: object, document: Document) -> Target:
        shown = _shown(name)
        where = f"{document.at('targets', name)}: targets.{shown}"
        url = entry.get("url") if isinstance(entry, dict) else None
        if isinstance(entry, dict) and "webhook" in entry:
            return self._webhook(name, entry, document, where)
        if not isinstance(entry, dict):
            wrong = f'{where}: must be a table with url = "…"'
        elif unknown := sorted(set(entry) - {"url"}):
            key = unknown[0]
            wrong = f"{document.at('targets', name, key)}: targets.{shown}.{_shown(key)}: there is no such setting"
        elif not isinstance(url, str) or not url.strip():
            variable = f"NAVI_NOTIFY_{shown.upper().replace('-', '_')}_URL"
            wrong = f"{where}: url is missing; write it here or set the environment variable {variable}"
        else:
            return self._checked(name, url, str(document.path), where)
        return Target(name=shown, source=str(document.path), wrong=wrong)

    def _webhook(self, name: str, entry: Mapping[str, Any], document: Document, where: str) -> Target:
        source = str(document.path)
        variable = f"NAVI_NOTIFY_{name.upper().replace('-', '_')}_SECRET"
        try:
            if (wrong := wrong_name(name)) is not None:
                raise ValueError(wrong)
            given = entry if "secret" in entry else {**entry, "secret": os.environ.get(variable) or None}
            webhook = webhook_of(given, self._check_webhook, variable)
            for one in given["secret"] if isinstance(given["secret"], list) else [given["secret"]]:
                remember(one.strip().removeprefix("whsec_"))
            return Target(name=name, webhook=webhook, source=source)
        except SettingError as error:
            at = document.at("targets", name, error.key) if error.key in entry else document.at("targets", name)
            return Target(
                name=_shown(name), source=source, wrong=f"{at}: targets.{_shown(name)}.{_shown(error.key)}: {error}"
            )
        except ValueError as error:
            return Target(name=_shown(name), source=source, wrong=f"{where}: {error}")

    def _checked(self, name: str, url: str, source: str, where: str) -> Target:
        wrong = wrong_name(name) or self._check(url)
        if wrong is not None:
            return Target(name=_shown(name), source=source, wrong=f"{where}: {wrong}")
        return Target(name=name, url=url.strip(), source=source)


class SettingError(ValueError):
    """What is wrong with one setting of a target."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def wrong_name(name: str) -> str | None:
    """Why a target cannot have this name; None when it can."""
    if _NAME.fullmatch(name) and name.lower() != BROWSER:
        return None
    return f'a name has at most 64 letters, digits, dashes and underscores, and is not "{BROWSER}"'


def webhook_of(entry: Mapping[str, Any], check: Check, variable: str | None = None) -> Webhook:
    """The webhook that a table describes; ``variable``: which has its secret where the table has none.

    Raises SettingError.
    """
    if unknown := sorted(set(entry) - {"webhook", "secret", "events", "content"}):
        raise SettingError(unknown[0], "there is no such setting of a webhook")
    url = entry["webhook"]
    if not isinstance(url, str) or (why := check(url.strip())) is not None:
        raise SettingError("webhook", why if isinstance(url, str) and why else 'must be text like "https://…"')
    given = entry["secret"] if isinstance(entry["secret"], list) else [entry["secret"]]
    if entry["secret"] is None:
        elsewhere = "" if variable is None else f" or set the environment variable {variable}"
        raise SettingError("secret", f"is missing; write it here{elsewhere}")
    if not 1 <= len(given) <= MAX_SECRETS or not all(isinstance(one, str) for one in given):
        raise SettingError("secret", f"must be text, or a list of at most {MAX_SECRETS}")
    try:
        secrets = tuple(read_secret(one) for one in given)
    except ValueError as error:
        raise SettingError("secret", str(error)) from None
    events = entry.get("events", [])
    if not isinstance(events, list) or not all(isinstance(one, str) and one in EVENT_KINDS for one in events):
        raise SettingError("events", f"must be a list with some of {', '.join(EVENT_KINDS)}")
    content = entry.get("content", True)
    if not isinstance(content, bool):
        raise SettingError("content", "must be true or false")
    return Webhook(url=url.strip(), secrets=secrets, events=frozenset(events), content=content)


@dataclass(frozen=True, kw_only=True, slots=True)
class _FileContent:
    targets: dict[str, Target] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # fields of :class:`Targets`
    problems: list[FileProblem] = field(default_factory=list)

    def add_problem(self, path: Path, message: str) -> None:
        self.problems.append(FileProblem(file=str(path), message=message))


def _check_mode(path: Path, found: _FileContent) -> None:
    """The user's own file has keys that others should not read. Those of the machine are its administrator's."""
    if os.name != "posix":
        return
    try:
        stat = path.stat()
    except OSError:
        return  # removed since it was read
    if stat.st_uid == os.getuid() and stat.st_mode & 0o077:
        message = f"{path}: others on this machine can read the keys in it; chmod 600 keeps them private"
        found.add_problem(path, message)


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
            raise ValueError("there is no such setting; there are quiet, per_hour, public_url and [targets.NAME]")
