"""A user's server on a JupyterHub, as far as the service starts and stops it: its state, and how one follows another.

Pure: the time is an argument. Not responsible for what the Hub is asked (``hub``), nor for who may change a state when:
that is decided in the database (``store.hub``), with a lease for the replica that acts on a server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

FAILURES = 3  # in a row, after which a server is not started for a while
FAILURES_WITHIN = timedelta(minutes=10)
"""Of the one before, for a failure to count as one in a row; and for how long a server is not started after three."""
FAILURE_PAUSE = 5.0  # seconds from the first failure to the next attempt; twice as many after the second
REFUSED_FOR = timedelta(seconds=5)  # for which the Hub's refusal holds, so that all who wait for the server learn of it
LOOKED_AT = timedelta(seconds=15)
"""From when it was seen that a server runs until it is asked again, if somebody wants it who has no link to it."""
LONGEST_REASON = 500  # characters
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class ServerKey(NamedTuple):
    """A server: whose, and its name."""

    owner: str
    server: str = ""  # the default server

    def __str__(self) -> str:
        return f"{self.owner}/{self.server}" if self.server else self.owner


class UserServerState(StrEnum):
    """What is known of a server, or what is done with it."""

    WANTED = "wanted"  # in the queue of those that are to be started
    STARTING = "starting"  # it has one of the places; a replica has it started
    OURS = "ours"  # it runs, and the service has started it
    THEIRS = "theirs"  # it runs or starts, and somebody else has started it
    STOPPING = "stopping"  # a replica has it stopped
    FAILED = "failed"  # it did not start
    GONE = "gone"  # nothing is to be kept of it


@dataclass(frozen=True, kw_only=True, slots=True)
class UserServer:
    """One server, as the database has it."""

    key: ServerKey
    state: UserServerState
    wanted_at: datetime  # since when it waits: the order of the queue
    wanted_until: datetime = NEVER  # some replica has runs that wait for it until then, at least
    not_before: datetime = NEVER  # it is not looked at again for those who want it
    asked_at: datetime | None = None  # when the Hub was asked to start it
    started: str | None = None
    """When the Hub has started it, as the Hub writes it, of the last start that was the service's: distinguishes it
    from a later one."""
    used_at: datetime = NEVER  # when the last use of it ended, as far as is known
    look_at: datetime = NEVER  # it is not looked at before whether it is to be stopped
    attempts: int = 0  # in a row, that the Hub had no place for, or did not answer
    failures: int = 0  # in a row
    failed_at: datetime = NEVER
    refused: bool = False  # the Hub does not let the service start it
    reason: str = ""  # why it failed, or waits, for the user

    def is_wanted(self, now: datetime) -> bool:
        """Whether somebody waits for it."""
        return self.wanted_until >= now

    def is_given_up(self, now: datetime) -> bool:
        """Whether those who wait for it are to learn that it will not be there soon."""
        is_final = self.refused or self.failures >= FAILURES
        return self.state is UserServerState.FAILED and is_final and self.not_before > now

    def asked(self, now: datetime) -> UserServer:
        """The Hub is about to be asked to start it."""
        return replace(self, asked_at=now, started=None)

    def queued(self, now: datetime, delay: float, reason: str = "", *, asked: bool = False) -> UserServer:
        """It is in the queue again, at its place there, and is not tried before ``delay`` seconds are over.

        ``asked``: the Hub may have begun to start it.
        """
        return replace(
            self,
            state=UserServerState.WANTED,
            not_before=now + timedelta(seconds=delay),
            asked_at=self.asked_at if asked else None,
            attempts=self.attempts + 1,
            reason=_shortened(reason) or self.reason,
        )

    def ready(self, now: datetime, started: str) -> UserServer:
        """It runs, by the service's start of it."""
        return replace(
            self._settled(UserServerState.OURS, now), started=started, used_at=now, look_at=NEVER, failures=0, reason=""
        )

    def theirs(self, now: datetime) -> UserServer:
        """It runs, or starts, and not by the service."""
        return replace(self._settled(UserServerState.THEIRS, now), started=None, failures=0, reason="")

    def _settled(self, state: UserServerState, now: datetime) -> UserServer:
        return replace(self, state=state, not_before=now + LOOKED_AT, asked_at=None, attempts=0)

    def failed(self, now: datetime, reason: str) -> UserServer:
        """It did not start. After three times in a row it is left alone for a while, else tried again."""
        in_a_row = self.failures + 1 if now - self.failed_at <= FAILURES_WITHIN else 1
        pause = timedelta(seconds=FAILURE_PAUSE * 2 ** (in_a_row - 1)) if in_a_row < FAILURES else FAILURES_WITHIN
        return replace(
            self,
            state=UserServerState.FAILED,
            not_before=now + pause,
            asked_at=None,
            started=None,
            attempts=0,
            failures=in_a_row,
            failed_at=now,
            reason=_shortened(reason),
        )

    def refused_by_hub(self, now: datetime, reason: str) -> UserServer:
        """The Hub does not let the service start it: another attempt is the next one's who wants it."""
        return replace(
            self,
            state=UserServerState.FAILED,
            refused=True,
            not_before=now + REFUSED_FOR,
            asked_at=None,
            attempts=0,
            failed_at=now,
            reason=_shortened(reason),
        )

    def unwanted(self) -> UserServer:
        """No run waits for it any more: it is what it was before."""
        if self.started is not None:
            return replace(self, state=UserServerState.OURS, asked_at=None, attempts=0)
        return replace(self, state=UserServerState.GONE)

    def ended(self, now: datetime) -> UserServer:
        """It does not run any more, or is not the service's any more."""
        if not self.is_wanted(now):
            return replace(self, state=UserServerState.GONE)
        return replace(self, state=UserServerState.WANTED, started=None, asked_at=None, not_before=NEVER)

    def being_stopped(self) -> UserServer:
        """The Hub is about to be asked to stop it."""
        return replace(self, state=UserServerState.STOPPING)

    def kept(self, now: datetime, delay: float) -> UserServer:
        """It is not stopped now; that is looked at again after ``delay`` seconds."""
        return replace(self, state=UserServerState.OURS, look_at=now + timedelta(seconds=delay))


def _shortened(reason: str) -> str:
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 1] + "…"
