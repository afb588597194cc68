"""The tables of the store, in an order in which each row's references are there before it; and what of each belongs to
one user, for an import.

Not responsible for how rows are read or written.
"""

from __future__ import annotations

from dataclasses import dataclass

WANTED_SESSIONS, WANTED_RECALLS = "wanted_sessions", "wanted_recalls"
"""Tables with the ids of what an import is to take; in the connection that reads the source alone."""
EVERY = "1"
_OF_SESSION = f"session_id IN (SELECT id FROM {WANTED_SESSIONS})"
_OF_RUN = f"run_id IN (SELECT id FROM runs WHERE {_OF_SESSION})"
_OF_RECALL = f"recall_id IN (SELECT id FROM {WANTED_RECALLS})"
_RUN_IS_LIVE = "run_id IN (SELECT id FROM runs WHERE ended_at IS NULL)"
_LIVE_FIRING = "(status IN ('pending', 'claimed', 'running') OR delivery = 'pending')"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: which of its rows an import takes, by conditions of SQLite."""

    name: str
    owned: str | None = None  # of one user (``:owner``); None: an import takes none
    live: str = "0"  # those that servers act upon, or that refer to such: they come last, all at once
    users: tuple[str, ...] = ()  # columns that may name the user
    numbered: bool = False  # rows get a number of the database that they are in

    @property
    def columns_left_out(self) -> frozenset[str]:
        """What an import does not take over."""
        return frozenset({"number"} if self.numbered else ())

    def of_import(self, *, live: bool) -> str:
        """The rows that an import takes, in their order."""
        is_live = f"coalesce({self.live}, 0)"
        order = " ORDER BY number" if self.numbered else ""
        return f"SELECT * FROM {self.name} WHERE ({self.owned}) AND {'' if live else 'NOT '}{is_live}{order}"


TABLES = (
    Table("sessions", f"id IN (SELECT id FROM {WANTED_SESSIONS})", users=("owner",)),
    Table("events", _OF_SESSION),
    Table("commands", _OF_SESSION, users=("user_id",)),
    Table("runs", _OF_SESSION, "ended_at IS NULL", users=("user_id",), numbered=True),
    Table("compactions", _OF_SESSION),
    Table("interrupts", _OF_SESSION, "status = 'open'", users=("answered_by",), numbered=True),
    # One that no session uses is removed by the next sweep.
    Table(
        "attachments",
        f"owner = :owner AND id IN (SELECT attachment_id FROM attachment_uses WHERE {_OF_SESSION})",
        users=("owner",),
    ),
    Table("attachment_uses", f"{_OF_SESSION} AND attachment_id IN (SELECT id FROM attachments WHERE owner = :owner)"),
    Table("facts", "owner = :owner", users=("owner",), numbered=True),
    Table("recalls", f"id IN (SELECT id FROM {WANTED_RECALLS})", users=("owner",), numbered=True),
    Table("firings", _OF_RECALL, _LIVE_FIRING, numbered=True),
    Table("reads", _OF_SESSION, users=("user_id",)),
    Table(
        "notices",
        f"firing_id IN (SELECT id FROM firings WHERE {_OF_RECALL}) OR {_OF_RUN}",
        f"status = 'pending' OR firing_id IN (SELECT id FROM firings WHERE {_LIVE_FIRING}) OR {_RUN_IS_LIVE}",
        users=("owner",),
        numbered=True,
    ),
    Table("absences", _OF_SESSION, EVERY),
    Table("notebook_edits", _OF_RUN, _RUN_IS_LIVE),
    Table("shown_notebooks", _OF_RUN, _RUN_IS_LIVE),
    Table("results", _OF_RECALL, numbered=True),
    Table("shares", _OF_SESSION, EVERY),
    # The index of the search is made anew.
    Table("message_texts"),
    Table("preferences", "owner = :owner", EVERY, users=("owner",)),
    Table("user_entries", "owner = :owner", EVERY, users=("owner",)),
    # What webhooks of the servers of the source were still to be sent.
    Table("ended", numbered=True),
    Table("user_servers"),
    Table("user_server_wakes"),
)
"""Not ``servers`` and ``user_server_uses``: the servers of the source have ended."""
BY_NAME = {table.name: table for table in TABLES}
