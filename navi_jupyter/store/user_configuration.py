"""SQL for what users have configured for themselves: profiles, MCP servers, notification targets.

Not responsible for what an entry means, nor for whether it is valid: it is text with a kind and a name.
"""

from __future__ import annotations

from itertools import count

from ..errors import LimitReached
from ..ports.user_configuration import EntryKind, UserConfiguration
from .database import Database, Transaction

MAX_ENTRIES = 100  # of one kind and user
MAX_CHARACTERS = 1_000_000
"""Of all entries of one kind and user together: they are read at each start of a run."""
_PUT = (
    "INSERT INTO user_entries (owner, kind, name, entry) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (owner, kind, name) DO UPDATE SET entry = excluded.entry"
)
_OTHERS = (
    "SELECT count(*) AS entries, coalesce(sum(length(entry)), 0) AS characters FROM user_entries"
    " WHERE owner = ? AND kind = ? AND name <> ?"
)
_NAMES = {"profile": "profiles", "mcp": "MCP servers", "notify": "notification targets"}


class UserConfigurationStore:
    """Implements :class:`navi_jupyter.ports.user_configuration.UserConfigurations`."""

    def __init__(self, store: Database) -> None:
        self._store = store
        self._reads = count(1)

    async def read(self, owner: str) -> UserConfiguration:
        order = next(self._reads)
        rows = await self._store.fetch_all(
            "SELECT kind, name, entry FROM user_entries WHERE owner = ? ORDER BY kind, name", (owner,)
        )
        entries: dict[str, dict[str, str]] = {"profile": {}, "mcp": {}, "notify": {}}
        for row in rows:
            entries.setdefault(row["kind"], {})[row["name"]] = row["entry"]
        return UserConfiguration(
            owner=owner, profiles=entries["profile"], mcp_servers=entries["mcp"], targets=entries["notify"], order=order
        )

    async def put(self, owner: str, kind: EntryKind, name: str, entry: str) -> None:
        async def unit(tx: Transaction) -> None:
            # Counted inside the transaction, so that two requests at once cannot pass the limits together.
            others = await tx.one(_OTHERS, (owner, kind, name))
            if others is not None and others["entries"] >= MAX_ENTRIES:
                raise LimitReached(f"You have {MAX_ENTRIES} {_NAMES[kind]} of your own; remove one first.")
            if others is not None and others["characters"] + len(entry) > MAX_CHARACTERS:
                raise LimitReached(
                    f"Your {_NAMES[kind]} would have more than {MAX_CHARACTERS:,} characters together; remove some."
                )
            await tx.change(_PUT, (owner, kind, name, entry))

        await self._store.write(unit, durable=True)

    async def remove(self, owner: str, kind: EntryKind, name: str) -> bool:
        async def unit(tx: Transaction) -> int:
            return await tx.change(
                "DELETE FROM user_entries WHERE owner = ? AND kind = ? AND name = ?", (owner, kind, name)
            )

        return await self._store.write(unit, durable=True) > 0
