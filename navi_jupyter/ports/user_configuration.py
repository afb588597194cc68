"""What users have configured for themselves, kept in the database beside the files of the server.

Profiles, MCP servers and notification targets, each an entry with a name. An entry is JSON text: what it means is
known to the part that uses it (``agent.profiles``, ``agent.mcp``, ``notifications``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

EntryKind = Literal["profile", "mcp", "notify"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UserConfiguration:
    """The entries of one user as of one instant: JSON texts by name. What a run works with does not change under it."""

    owner: str = ""
    profiles: Mapping[str, str] = field(default_factory=dict)
    mcp_servers: Mapping[str, str] = field(default_factory=dict, repr=False)  # with keys of the user's
    targets: Mapping[str, str] = field(default_factory=dict, repr=False)  # by their names in lower case; the same
    order: int = 0
    """Grows in this process with every read that begins: one with a smaller number may be the older one."""

    def with_profile(self, name: str, entry: str) -> UserConfiguration:
        """As it would be with another profile in it."""
        return replace(self, profiles={**self.profiles, name: entry})


NOTHING_CONFIGURED = UserConfiguration()


class UserConfigurations(Protocol):
    """The entries of all users. Implemented by ``store``."""

    async def read(self, owner: str) -> UserConfiguration:
        """All entries of a user: one statement."""

    async def put(self, owner: str, kind: EntryKind, name: str, entry: str) -> None:
        """Store an entry, durable on return; one of the same name is replaced. Raises LimitReached."""

    async def remove(self, owner: str, kind: EntryKind, name: str) -> bool:
        """Remove an entry, durable on return; whether there was one."""
