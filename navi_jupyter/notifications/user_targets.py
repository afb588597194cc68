"""The notification targets that users have put into the database, each for the notifications of that user alone.

As in ``navi/notify.toml``, but for what belongs to the machine: nothing is taken from the server's environment. Secrets
are not remembered for redaction, which is the whole process's: users could choose what is hidden in the texts of
others, and find out what is. Not responsible for sending anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidRequest
from ..ports.notifications import EventKind, Wanted
from ..ports.user_configuration import UserConfigurations
from .targets import EVENT_KINDS, Check, SettingError, Target, Targets, webhook_of, wrong_name

SOURCE = "your own"


class UserTargets:
    """The targets of users. Their names are in lower case, as recalls name them."""

    def __init__(self, configurations: UserConfigurations, *, check: Check, check_webhook: Check) -> None:
        self._configurations = configurations
        self._check = check
        self._check_webhook = check_webhook

    async def over(self, files: Targets, owner: str) -> Targets:
        """What one user's notifications are sent to: the user's own targets go before those of files."""
        entries = (await self._configurations.read(owner)).targets
        return replace(files, targets={**files.targets, **self._read(entries)}) if entries else files

    def wanting(self, entries: Mapping[str, str]) -> Wanted:
        """The webhooks among the entries (name -> JSON) of one user that get every event of this user."""
        targets = Targets(targets=self._read(entries))
        return {kind: targets.wanting(kind) for kind in EVENT_KINDS}

    async def put(self, owner: str, name: str, entry: Mapping[str, Any]) -> Target:
        """Store a target of the user's. Raises InvalidRequest, LimitReached."""
        target = self._target(name.lower(), entry)
        await self._configurations.put(owner, "notify", target.name, json.dumps(dict(entry)))
        return target

    async def remove(self, owner: str, name: str) -> bool:
        """Remove a target of the user's; whether there was one."""
        return await self._configurations.remove(owner, "notify", name.lower())

    def _read(self, entries: Mapping[str, str]) -> dict[str, Target]:
        found: dict[str, Target] = {}
        for name, text in entries.items():
            try:
                found[name] = self._target(name, json.loads(text))
            except InvalidRequest as error:  # the administrator's rules have changed since it was stored
                found[name] = Target(name=name, source=SOURCE, own=True, wrong=error.message)
        return found

    def _target(self, name: str, entry: Mapping[str, Any]) -> Target:
        """The target that an entry describes. Raises InvalidRequest; no message shows any of its secrets."""
        if (wrong := wrong_name(name)) is not None:
            raise InvalidRequest(f"name: {wrong}", field="name")
        if "webhook" not in entry:
            url = entry.get("url")
            if unknown := sorted(set(entry) - {"url"}):
                raise InvalidRequest(f"{unknown[0]}: there is no such setting of a url", field=unknown[0])
            wrong = self._check(url) if isinstance(url, str) and url.strip() else "give url, or webhook and secret"
            if wrong is not None:
                raise InvalidRequest(f"url: {wrong}", field="url")
            return Target(name=name, url=str(url).strip(), source=SOURCE, own=True)
        try:
            webhook = webhook_of({"secret": None, **entry}, self._check_webhook)
        except SettingError as error:
            raise InvalidRequest(f"{error.key}: {error}", field=error.key) from None
        return Target(name=name, webhook=webhook, source=SOURCE, own=True)


def of_all(targets: Targets) -> dict[EventKind, list[str]]:
    """The webhooks of files that get the events of all users."""
    return {kind: list(targets.wanting(kind)) for kind in EVENT_KINDS}
