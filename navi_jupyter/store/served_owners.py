"""The owners whom a server serves, as a condition of the statements that look at more than one owner.

A statement about one owner, session, recall or run that it is given needs none: it is a request's, or follows from one
that was found by a statement with the condition. Not responsible for who may ask for what (``server``).
"""

from __future__ import annotations

from collections.abc import Collection

EVERYBODY = "*"


class ServedOwners:
    """Conditions that begin with ``AND``; empty where every owner is served, so that no statement costs more then.

    The names are literals and no parameters: they are the same for all of a process's time, so that statements stay
    prepared, and the number and order of a statement's parameters do not depend on them.
    Of what is found by a session or a recall, the owner is looked up by key for each row: the statement goes by the
    same index as without the condition.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        """``names`` None: every owner."""
        self._names = None if names is None else ", ".join(map(_literal, sorted(set(names))))

    @classmethod
    def of(cls, setting: str) -> ServedOwners:
        """``*``, or names with commas between them. Raises ValueError where it has no name."""
        names = {name.strip() for name in setting.split(",")} - {""}
        if EVERYBODY in names:
            return cls()
        if not names or "\x00" in setting:
            raise ValueError("serves must be `*`, or the names of owners with commas between them")
        return cls(names)

    def by(self, owner: str) -> str:
        """``owner``: the column that has the owner's name."""
        return "" if self._names is None else f" AND {owner} IN ({self._names})"

    def of_session(self, session_id: str) -> str:
        """``session_id``: the column that has the session's id, with its table: it is named within another one."""
        return self._where("sessions", session_id)

    def of_recall(self, recall_id: str) -> str:
        """``recall_id``: the column that has the recall's id, with its table."""
        return self._where("recalls", recall_id)

    def of_ended(self) -> str:
        """Of a row of ``ended``. One whose firing or run was deleted has no owner: any server may remove it."""
        if self._names is None:
            return ""
        others = f"AND served.owner NOT IN ({self._names})"
        return (
            " AND NOT EXISTS (SELECT 1 FROM firings f JOIN recalls AS served ON served.id = f.recall_id"
            f" WHERE ended.kind = 'firing' AND f.id = ended.id {others})"
            " AND NOT EXISTS (SELECT 1 FROM runs JOIN sessions AS served ON served.id = runs.session_id"
            f" WHERE ended.kind = 'run' AND runs.id = ended.id {others})"
        )

    def _where(self, table: str, key: str) -> str:
        if self._names is None:
            return ""
        return f" AND EXISTS (SELECT 1 FROM {table} AS served WHERE served.id = {key}{self.by('served.owner')})"


EVERY_OWNER = ServedOwners()


def _literal(name: str) -> str:
    quoted = name.replace("'", "''")
    return f"'{quoted}'"
