"""What the quick servers of a test's Hub have done, and links to them as a process of the service would have them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path

from navi_jupyter.errors import ToolUnavailable

QUICK = {"JupyterHub": {"spawner_class": "tests.support.quick_spawner.QuickSpawner"}}
"""The Hub's settings for such servers, by class."""


@dataclass(frozen=True, slots=True)
class SpawnEvent:
    """A line of the file that the servers write."""

    event: str
    user: str
    server: str
    at: float
    token: str = ""


class SpawnFile:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._events: list[SpawnEvent] = []

    def events(self, *prefixes: str) -> list[SpawnEvent]:
        """All until now, of users whose names begin so."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
            self._read += len(whole) + bool(whole)
            self._events += [SpawnEvent(**json.loads(line)) for line in whole.splitlines() if line]
        return [each for each in self._events if each.user.startswith(prefixes)]

    def count(self, event: str, user: str) -> int:
        return sum(each.event == event and each.user == user for each in self.events(user))

    def is_up(self, user: str, server: str = "") -> bool:
        last = [each for each in self.events(user) if (each.user, each.server) == (user, server)][-1:]
        return bool(last) and last[0].event == "up"

    def most_at_once(self, *prefixes: str) -> int:
        """Servers that were starting at the same time, at most."""
        most = now = 0
        for each in self.events(*prefixes):
            now += {"starting": 1, "up": -1, "failed": -1}.get(each.event, 0)
            most = max(most, now)
        return most


@dataclass
class FileLinks:
    """A link to each server that is up; implements ``ReachedServers``."""

    file: SpawnFile
    used_by_user: set[str] = field(default_factory=set)
    """Owners who use their servers themselves."""
    lost: set[str] = field(default_factory=set)
    """Owners whose servers have no link, although they are up."""

    def linked(self, owner: str, server: str) -> bool:
        return owner not in self.lost and self.file.is_up(owner, server)

    async def wait(self, owner: str, server: str) -> None:
        while not self.linked(owner, server):  # noqa: ASYNC110 - a file has no events
            await asyncio.sleep(0.1)

    async def in_use(self, owner: str, server: str) -> bool:
        if not self.linked(owner, server):
            raise ToolUnavailable("The link is lost.")
        return owner in self.used_by_user
