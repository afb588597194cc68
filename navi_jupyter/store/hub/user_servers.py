"""SQL for the servers of a JupyterHub's users: which are wanted, which replica starts or stops one, who uses one.

A replica acts on a server under a claim, a lease on its row; where it dies, another one takes over what the row says.
Each replica renews what it wants, claims and uses; what is not renewed is over. Times are the database's
(:func:`navi_jupyter.clock.now`). Not responsible for how a state follows another (``model.user_servers``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ...model.user_servers import ServerKey, UserServer, UserServerState
from ..database import Database, Transaction
from ..rows import from_micros, optional_instant, optional_micros, to_micros
from ..statements import Row, json_list

LEASE = timedelta(seconds=15)
MOST_DUE = 500  # servers of one look for those to be stopped

_AGAIN = (
    "user_servers.state IN ('ours', 'theirs', 'failed') AND user_servers.not_before <= excluded.wanted_at"
    " AND user_servers.lease_until < excluded.wanted_at"
)
_WANT = (
    "INSERT INTO user_servers (owner, server, state, wanted_at, wanted_until) VALUES {rows}"
    " ON CONFLICT (owner, server) DO UPDATE SET"
    f" refused = CASE WHEN {_AGAIN} THEN 0 ELSE user_servers.refused END,"
    f" wanted_at = CASE WHEN {_AGAIN} OR (user_servers.state = 'wanted'"
    " AND user_servers.wanted_until < excluded.wanted_at) THEN excluded.wanted_at ELSE user_servers.wanted_at END,"
    f" state = CASE WHEN {_AGAIN} THEN 'wanted' ELSE user_servers.state END,"
    " wanted_until = max(user_servers.wanted_until, excluded.wanted_until)"
)
_USE = (
    "INSERT INTO user_server_uses (owner, server, replica, lease_until) VALUES {rows}"
    " ON CONFLICT (owner, server, replica) DO UPDATE SET lease_until = excluded.lease_until"
)
_USED = "UPDATE user_servers SET used_at = ? WHERE owner = ? AND server = ?"
_STARTING = "SELECT count(*) AS n FROM user_servers WHERE state = 'starting' AND lease_until >= ?"
_TO_START = (
    "SELECT * FROM user_servers WHERE ((state = 'wanted' AND not_before <= :now"
    " AND (wanted_until >= :now OR asked_at IS NOT NULL))"
    " OR (state = 'starting' AND lease_until < :now)){served} ORDER BY wanted_at, owner, server LIMIT :free"
)
_TO_STOP = (
    "SELECT s.* FROM user_servers s WHERE s.lease_until < :now AND (s.state = 'stopping' OR (s.state = 'ours'"
    " AND s.used_at <= :ended AND s.look_at <= :now AND s.wanted_until < :now AND NOT EXISTS (SELECT 1"
    " FROM user_server_uses u WHERE u.owner = s.owner AND u.server = s.server AND u.lease_until > :ended))){served}"
    f" ORDER BY s.used_at LIMIT {MOST_DUE}"
)
_IN_USE = "SELECT 1 AS found FROM user_server_uses WHERE owner = ? AND server = ? AND lease_until >= ?"
_OF_OWNERS = "SELECT * FROM user_servers WHERE owner IN (SELECT value FROM json_each(?))"
_ONE = "SELECT * FROM user_servers WHERE owner = ? AND server = ?"
_STORE = (
    "UPDATE user_servers SET state = ?, not_before = ?, asked_at = ?, started = ?, used_at = ?, look_at = ?,"
    " attempts = ?, failures = ?, failed_at = ?, refused = ?, reason = ?, replica = ?, lease_until = ?"
    " WHERE owner = ? AND server = ?"
)
_REMOVE = "DELETE FROM user_servers WHERE owner = ? AND server = ?"
_CLAIM = "UPDATE user_servers SET state = ?, replica = ?, lease_until = ? WHERE owner = ? AND server = ?"
_RENEW = "UPDATE user_servers SET lease_until = ? WHERE owner = ? AND server = ? AND replica = ?"
_PENDING = "SELECT 1 AS found FROM user_servers WHERE state IN ('wanted', 'starting'){served} LIMIT 1"
# Of no more use: no run waits for it, and what it says of failures is over.
_FORGET = (
    "DELETE FROM user_servers WHERE wanted_until < :now AND lease_until < :now AND not_before < :now AND"
    " ((state = 'wanted' AND started IS NULL AND asked_at IS NULL) OR state = 'theirs'"
    " OR (state = 'failed' AND failed_at < :forgotten))"
)
_UNWANTED = (
    "UPDATE user_servers SET state = 'ours', asked_at = NULL, attempts = 0"
    " WHERE state = 'wanted' AND started IS NOT NULL AND wanted_until < ?"
)
_FORGET_USES = "DELETE FROM user_server_uses WHERE lease_until < ?"

Decision = Callable[[UserServer, bool], UserServer | None]
"""From a server, and whether runs use it on any replica, to what it is from now on; None: it stays as it is.
Called in a unit of work, so perhaps twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerTurn:
    """What one turn of a replica has found."""

    wanted: Mapping[ServerKey, UserServer]  # those that were watched, as they are
    claimed: Sequence[UserServer]  # that it is to start from now on
    lost: Collection[ServerKey]  # whose claims were taken over by another replica


class UserServerStore:
    """The table as one replica uses it."""

    def __init__(self, store: Database, replica: str) -> None:
        """``replica``: a name that no other process ever has."""
        self._store = store
        self._replica = replica

    async def turn(
        self,
        *,
        wants: Collection[ServerKey],
        watched: Collection[ServerKey],
        renewed: Collection[ServerKey],
        uses: Collection[ServerKey],
        places: int,
        now: datetime,
    ) -> ServerTurn:
        """Renew what this replica ``wants``, has claimed (``renewed``) and ``uses``; claim what is to be started; read
        those ``watched``.

        At most ``places`` servers are starting at once over all replicas; the one that waits longest comes first.
        Raises StoreError.
        """
        at, until = to_micros(now), to_micros(now + LEASE)

        async def unit(tx: Transaction) -> ServerTurn:
            await tx.change_many(_WANT, [(*key, "wanted", at, until) for key in wants])
            await tx.change_many(_USE, [(*key, self._replica, until) for key in uses])
            lost = [key for key in renewed if not await tx.change(_RENEW, (until, *key, self._replica))]
            starting = await tx.one(_STARTING, (at,))
            free = max(0, places - (starting["n"] if starting else 0))
            claimed = []
            if free:
                sql = _TO_START.format(served=tx.served.by("owner"))
                for row in await tx.all(sql, {"now": at, "free": free}):
                    found = replace(_server_of(row), state=UserServerState.STARTING)
                    await tx.change(_CLAIM, (UserServerState.STARTING.value, self._replica, until, *found.key))
                    claimed.append(found)
            owners = sorted({key.owner for key in watched})
            rows = await tx.all(_OF_OWNERS, (json_list(owners),)) if owners else []
            found_all = {server.key: server for server in map(_server_of, rows)}
            return ServerTurn(
                wanted={key: found_all[key] for key in watched if key in found_all}, claimed=claimed, lost=lost
            )

        return await self._store.write(unit, durable=True)

    async def is_any_pending(self) -> bool:
        """Whether any server waits or is starting: then there may be something to take over. Raises StoreError."""
        return await self._store.fetch_one(_PENDING.format(served=self._store.served.by("owner"))) is not None

    async def of(self, keys: Collection[ServerKey]) -> Mapping[ServerKey, UserServer]:
        """These servers, as far as there are rows of them. Raises StoreError."""
        rows = await self._store.fetch_all(_OF_OWNERS, (json_list(sorted({key.owner for key in keys})),))
        return {server.key: server for server in map(_server_of, rows) if server.key in keys}

    async def to_stop(self, *, idle: timedelta, now: datetime) -> Sequence[UserServer]:
        """Those of ours whose last use ended ``idle`` ago or earlier, and those whose stop was begun by a replica that
        is gone. Raises StoreError."""
        sql = _TO_STOP.format(served=self._store.served.by("s.owner"))
        rows = await self._store.fetch_all(sql, {"now": to_micros(now), "ended": to_micros(now - idle)})
        return [_server_of(row) for row in rows]

    async def claim(self, key: ServerKey, *, state: UserServerState, now: datetime) -> UserServer | None:
        """Claim a server that is in this state and that no replica has claimed; None: it is not so any more."""

        async def unit(tx: Transaction) -> UserServer | None:
            row = await tx.one(_ONE, key)
            if row is None or row["state"] != state.value or row["lease_until"] >= to_micros(now):
                return None
            await tx.change(_CLAIM, (state.value, self._replica, to_micros(now + LEASE), *key))
            return _server_of(row)

        return await self._store.write(unit, durable=True)

    async def change(self, key: ServerKey, decide: Decision, *, now: datetime, keep: bool = False) -> UserServer | None:
        """Replace a server that this replica has claimed by what is decided; ``keep``: with the claim, unless that is
        over.

        The server as it is from now on; None where the claim was lost, or nothing is changed. Raises StoreError.
        """

        async def unit(tx: Transaction) -> UserServer | None:
            row = await tx.one(_ONE, key)
            if row is None or row["replica"] != self._replica or (keep and row["lease_until"] < to_micros(now)):
                return None
            used = await tx.one(_IN_USE, (*key, to_micros(now))) is not None
            decided = decide(_server_of(row), used)
            if decided is None:
                return None
            if decided.state is UserServerState.GONE:
                await tx.change(_REMOVE, key)
            else:
                claim = (self._replica, to_micros(now + LEASE)) if keep else ("", 0)
                await tx.change(_STORE, (*_values_of(decided), *claim, *key))
            return decided

        return await self._store.write(unit, durable=True)

    async def hold(self, key: ServerKey, *, now: datetime) -> UserServer | None:
        """This replica uses the server from now on: it is not stopped. As it is; None: there is no row of it."""

        async def unit(tx: Transaction) -> UserServer | None:
            await tx.change_many(_USE, [(*key, self._replica, to_micros(now + LEASE))])
            await tx.change(
                "UPDATE user_servers SET used_at = ? WHERE owner = ? AND server = ?", (to_micros(now), *key)
            )
            row = await tx.one(_ONE, key)
            return None if row is None else _server_of(row)

        return await self._store.write(unit, durable=True)

    async def release(self, key: ServerKey, *, now: datetime) -> None:
        """This replica does not use the server any more, and has until now. Raises StoreError."""

        async def unit(tx: Transaction) -> None:
            await tx.change(
                "DELETE FROM user_server_uses WHERE owner = ? AND server = ? AND replica = ?", (*key, self._replica)
            )
            await tx.change(
                "UPDATE user_servers SET used_at = ? WHERE owner = ? AND server = ?", (to_micros(now), *key)
            )

        await self._store.write(unit, durable=True)

    async def tidy(self, *, now: datetime, forgotten: timedelta) -> None:
        """Remove what is of no use any more. ``forgotten``: after this, failures, and uses of replicas that are gone.

        Raises StoreError.
        """
        at, before = to_micros(now), to_micros(now - forgotten)

        async def unit(tx: Transaction) -> None:
            await tx.change(_UNWANTED, (at,))
            await tx.db.execute(_FORGET, {"now": at, "forgotten": before})
            await tx.change(_FORGET_USES, (before,))

        await self._store.write(unit)


def _server_of(row: Row) -> UserServer:
    return UserServer(
        key=ServerKey(row["owner"], row["server"]),
        state=UserServerState(row["state"]),
        wanted_at=from_micros(row["wanted_at"]),
        wanted_until=from_micros(row["wanted_until"]),
        not_before=from_micros(row["not_before"]),
        asked_at=optional_instant(row["asked_at"]),
        started=row["started"],
        used_at=from_micros(row["used_at"]),
        look_at=from_micros(row["look_at"]),
        attempts=row["attempts"],
        failures=row["failures"],
        failed_at=from_micros(row["failed_at"]),
        refused=bool(row["refused"]),
        reason=row["reason"],
    )


def _values_of(server: UserServer) -> tuple[object, ...]:
    """As :data:`_STORE` takes them. What is wanted is changed by those who want it alone."""
    return (
        server.state.value,
        to_micros(server.not_before),
        optional_micros(server.asked_at),
        server.started,
        to_micros(server.used_at),
        to_micros(server.look_at),
        server.attempts,
        server.failures,
        to_micros(server.failed_at),
        int(server.refused),
        server.reason,
    )
