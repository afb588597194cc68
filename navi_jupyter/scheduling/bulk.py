"""Many recalls at once, all or none: pause and resume, export and import as TOML."""

from __future__ import annotations

import asyncio
import json
import re
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from ..errors import InvalidRequest, NaviError, SessionNotFound
from ..input.json_input import load_json
from ..model.recalls import NotebookJob, Recall, RecallCreate, RecallStatus
from ..ports.recalls import RecallState
from .ledger import SESSION_ARCHIVED, SESSION_DELETED, append_notices, by_recall
from .mutations import Change, Mutations, check_targets, paused, resumed
from .notices import RecallNotice
from .outcomes import first_due, with_status
from .schedules import load_cron_reader

if TYPE_CHECKING:
    from ..ports.recalls import FiringState, RecallTx
    from ..ports.transactions import SessionTx

T = TypeVar("T")


class BulkChanges:
    """Changes of all recalls of an owner, or of one session of theirs."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations
        self._store = mutations.store
        self._clock = mutations.clock

    async def pause_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Pause what is not over and not paused, in one transaction; how many."""
        return await self._change_all(owner, session_id, paused, RecallNotice(action="paused"))

    async def resume_all(self, *, owner: str, session_id: str | None = None) -> int:
        """Resume what is paused, in one transaction; how many. Missed times: as for each by itself."""
        return await self._change_all(owner, session_id, resumed, RecallNotice(action="resumed"))

    async def _change_all(self, owner: str, session_id: str | None, change: Change, notice: RecallNotice) -> int:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> list[RecallState]:
            return await self._change_in(tx, owner, session_id, change, notice, now)

        moved = await self._store.write(unit, durable=True)
        self._mutations.notify(*moved)
        return len(moved)

    async def pause_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], *, owner: str) -> T:
        """See ``ports.store.RecallsOfSession``, which this class implements."""

        def archived(state: RecallState, opens: Sequence[FiringState]) -> RecallState | None:
            moved = paused(state, opens)
            return None if moved is None else replace(moved, recall=moved.recall.but(reason=SESSION_ARCHIVED))

        notice = RecallNotice(action="paused", reason=SESSION_ARCHIVED)
        return await self._change_with(owner, session_id, archived, notice, change)

    async def resume_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], *, owner: str) -> T:
        """See ``ports.store.RecallsOfSession``."""

        def unarchived(state: RecallState, opens: Sequence[FiringState]) -> RecallState | None:
            return resumed(state, opens) if state.recall.reason == SESSION_ARCHIVED else None

        return await self._change_with(owner, session_id, unarchived, RecallNotice(action="resumed"), change)

    async def restore_with(self, session_id: str, change: Callable[[SessionTx], Awaitable[T]], since: datetime) -> T:
        """See ``ports.store.RecallsOfSession``."""
        now = self._clock.now()

        async def unit(tx: RecallTx) -> tuple[T, list[RecallState]]:
            result = await change(tx)
            ended = await tx.cancelled_with(session_id, SESSION_DELETED)
            await load_cron_reader([state.recall.schedule for state, _ in ended])
            back = [_brought_back(state, status, since) for state, status in ended]
            await tx.save_recalls(back)
            await append_notices(tx, [(state, [RecallNotice(action="resumed")]) for state in back], now)
            return result, back

        result, back = await self._store.write(unit, durable=True)
        self._mutations.notify(*back)
        return result

    async def _change_with(
        self,
        owner: str,
        session_id: str,
        change_recall: Change,
        notice: RecallNotice,
        change: Callable[[SessionTx], Awaitable[T]],
    ) -> T:
        now = self._clock.now()

        async def unit(tx: RecallTx) -> tuple[T, list[RecallState]]:
            result = await change(tx)
            return result, await self._change_in(tx, owner, session_id, change_recall, notice, now)

        result, moved = await self._store.write(unit, durable=True)
        self._mutations.notify(*moved)
        return result

    async def _change_in(
        self, tx: RecallTx, owner: str, session_id: str | None, change: Change, notice: RecallNotice, now: datetime
    ) -> list[RecallState]:
        states = await tx.open_recalls_of(owner, session_id=session_id)
        opens = by_recall(await tx.open_firings([state.recall.id for state in states]))
        moved = [new for state in states if (new := change(state, opens[state.recall.id])) is not None]
        await tx.save_recalls(moved)
        await append_notices(tx, [(state, [notice]) for state in moved], now)
        return moved

    async def export(self, *, owner: str, session_id: str | None = None) -> str:
        """The owner's recalls that are not over, as TOML."""
        now = self._clock.now()
        states = await self._store.write(lambda tx: tx.open_recalls_of(owner, session_id=session_id))
        return await asyncio.to_thread(write_recalls, [state.recall for state in states], now)

    async def take_in(
        self, text: str, *, owner: str, session_id: str | None = None, dry_run: bool = False
    ) -> Sequence[Recall]:
        """Make the recalls of a TOML text, all or none; with ``session_id`` in that session whatever they say.

        ``dry_run``: check and return what would be made. Raises InvalidRequest, InvalidSchedule, LimitReached,
        SessionNotFound, naming the recall and its line.
        """
        now = self._clock.now()
        entries = await asyncio.to_thread(read_recalls, text, session_id=session_id)
        notify = (name for entry in entries for name in entry.request.policy.notify)
        known = await self._mutations.known_targets(notify, owner)
        for entry in entries:
            await self._check(entry, owner)
        zones = await self._zones({entry.request.session_id for entry in entries}, owner)

        states = await asyncio.to_thread(  # a thousand schedules are hundreds of milliseconds
            lambda: [self._entry_state(entry, owner, zones, now, known) for entry in entries]
        )
        if not dry_run:
            await self._store.write(lambda tx: self._mutations.add(tx, states, owner, now), durable=True)
            self._mutations.notify(*states)
        return [state.recall for state in states]

    async def _check(self, entry: Entry, owner: str) -> None:
        """Its leave and its notebook: what has to be asked before a transaction."""
        request, session_id = entry.request, entry.request.session_id
        key = "allow"
        try:
            await self._mutations.check_leave(request.allow, session_id=session_id, owner=owner)
            key = "run"
            await self._mutations.check_job(request.run, session_id=session_id, owner=owner)
        except NaviError as error:
            raise type(error)(f"{entry.place.name(key)}: {error.message}", field=error.field) from error

    async def _zones(self, session_ids: Iterable[str], owner: str) -> dict[str, str]:

        async def unit(tx: RecallTx) -> dict[str, str]:
            sessions = [await tx.session(session_id) for session_id in session_ids]
            return {each.id: each.timezone for each in sessions if each is not None and each.owner == owner}

        return await self._store.write(unit)

    def _entry_state(
        self, entry: Entry, owner: str, zones: Mapping[str, str], now: datetime, known: Sequence[str] | None
    ) -> RecallState:
        wanted = entry.request.session_id
        try:
            if wanted not in zones:
                raise SessionNotFound(f"There is no session {wanted[:100]}; pass session_id= to choose another.")
            check_targets(entry.request.policy.notify, known)
            state = self._mutations.made(entry.request, owner=owner, zone=zones[wanted], now=now)
        except NaviError as error:
            raise type(error)(f"{entry.place.name()}: {error.message}", field=error.field) from error
        if entry.paused:
            return replace(state, recall=state.recall.but(status=RecallStatus.PAUSED, next_at=None))
        return state


MAX_RECALLS = 1000  # Of one file.
_HEAD = re.compile(r"^[ \t]*\[\[[ \t]*recall[ \t]*\]\]", re.MULTILINE)
_DEEP = re.compile(
    r"""(?<![\w.-])(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')(?:[ \t]*\.[ \t]*(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')){12}"""
)
"""A dotted key takes tomllib the third power of its length; no key of ours, and no prose, has so many parts."""
_KINDS = (
    "once",
    "every",
    "cron",
    "when",
    "prompt",
    "notebook",
)  # pydantic names the variant of a union; that is no field.
_KNOWN = {"session", "title", "message", "paused", "allow", "schedule", "policy", "run"}


def _brought_back(state: RecallState, status: RecallStatus, since: datetime) -> RecallState:
    """A recall that was cancelled at ``since`` as it was before, but for the firings that ended then."""
    status = RecallStatus.PAUSED if status is RecallStatus.PAUSED else RecallStatus.PENDING
    opened = replace(state, recall=state.recall.but(status=status, reason=None))
    return with_status(replace(opened, due_at=first_due(opened, after=since)), ())


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the text a recall is, found out when it is asked for."""

    text: str
    heads: Sequence[int]
    number: int
    title: object

    def name(self, key: str = "") -> str:
        """``recall 2 (“standup”), line 14``: the line of the recall, or of one of its keys."""
        called = f" (“{self.title[:40]}”)" if isinstance(self.title, str) else ""
        line = self._line(key)
        return f"recall {self.number + 1}{called}" + (f", line {line}" if line else "")

    def _line(self, key: str) -> int | None:
        if not self.heads:
            return None
        start = self.heads[self.number]
        end = self.heads[self.number + 1] if self.number + 1 < len(self.heads) else len(self.text)
        # A key of a table begins its line; one of an inline table does not.
        forms = (rf"^[ \t]*[\w.]*\b{re.escape(key)}[ \t]*=", rf"^[^#\n]*\b{re.escape(key)}[ \t]*=") if key else ()
        matches = (re.compile(form, re.MULTILINE).search(self.text, start, end) for form in forms)
        found = next((match for match in matches if match), None)
        return self.text.count("\n", 0, found.start() if found else start) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One recall of a file."""

    request: RecallCreate
    paused: bool
    place: Place


def write_recalls(recalls: Sequence[Recall], now: datetime) -> str:
    """A file that :func:`read_recalls` reads back."""
    head = f"# Recalls of navi-jupyter, {now.astimezone(UTC):%Y-%m-%d %H:%M} UTC\n"
    return head + "".join(f"\n{line}" for recall in recalls for line in _lines(recall)) + "\n"


def _lines(recall: Recall) -> Iterator[str]:
    yield "[[recall]]"
    yield f"session = {_value(recall.session_id)}"
    yield f"title = {_value(recall.title)}"
    yield f"message = {_value(recall.message)}"
    if recall.status is RecallStatus.PAUSED:
        yield "paused = true"
    if recall.allow:
        yield f"allow = {_value(recall.allow)}"
    yield "[recall.schedule]"
    yield from _pairs(recall.schedule.model_dump(mode="json", by_alias=True, exclude_none=True))
    if policy := recall.policy.model_dump(mode="json", exclude_defaults=True):
        yield "[recall.policy]"
        yield from _pairs(policy)
    if isinstance(recall.run, NotebookJob):
        yield "[recall.run]"
        yield from _pairs(recall.run.model_dump(mode="json", exclude_none=True, exclude={"parameters"}))
        if recall.run.parameters:
            # As JSON: TOML has no null, and no lists of different things before 1.0.
            yield f"parameters = {_value(json.dumps(recall.run.parameters, ensure_ascii=False))}"
    yield ""


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name} = {_value(value)}" for name, value in values.items())


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case _:
            return f'"{"".join(map(_character, str(value)))}"'


def _character(one: str) -> str:
    if one in _ESCAPES:
        return _ESCAPES[one]
    return f"\\u{ord(one):04x}" if ord(one) < 32 or ord(one) == 127 else one


def read_recalls(text: str, *, session_id: str | None = None) -> list[Entry]:
    """The recalls of a file, checked as far as that is possible without a store.

    Raises InvalidRequest, naming the recall and its line.
    """
    if _DEEP.search(text):
        raise InvalidRequest("A key of a file of recalls has no more than three parts.", field="toml")
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers with more digits than Python reads
        raise InvalidRequest(f"This is not TOML: {error}.", field="toml") from None
    tables = content.pop("recall", None)
    if content or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        extra = f" and nothing else (there is {next(iter(content))!r})" if content else ""
        raise InvalidRequest(f"A file of recalls has [[recall]] tables{extra}.", field="toml")
    if len(tables) > MAX_RECALLS:
        raise InvalidRequest(f"A file has at most {MAX_RECALLS} recalls.", field="toml")
    heads = [match.start() for match in _HEAD.finditer(text)]
    if len(heads) != len(tables):  # written in another way, or in the text of a message: no lines then
        heads = []
    places = (Place(text, heads, number, table.get("title")) for number, table in enumerate(tables))
    return [_entry(table, place, session_id) for table, place in zip(tables, places, strict=True)]


def _entry(table: dict[str, Any], place: Place, session_id: str | None) -> Entry:
    number = place.number
    if unknown := table.keys() - _KNOWN:
        key = min(unknown)
        raise InvalidRequest(f"{place.name(key)}: there is no {key!r}.", field=f"recall.{number}.{key}")
    paused = table.get("paused", False)
    if not isinstance(paused, bool):
        raise InvalidRequest(f"{place.name('paused')}: paused is true or false.", field=f"recall.{number}.paused")
    fields = {name: table[name] for name in _KNOWN - {"session", "paused"} if name in table}
    run = fields.get("run")
    if isinstance(run, dict) and isinstance(run.get("parameters"), str):
        try:
            fields["run"] = {**run, "parameters": load_json(run["parameters"])}
        except ValueError:
            why = f"{place.name('parameters')}: run.parameters: that is no JSON."
            raise InvalidRequest(why, field=f"recall.{number}.run.parameters") from None
    wanted = session_id or table.get("session")
    if wanted is None:
        raise InvalidRequest(f"{place.name()}: it has no session.", field=f"recall.{number}.session")
    try:
        request = RecallCreate.model_validate({**fields, "session_id": wanted})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        *outer, last = first["loc"] or ("",)
        path = ".".join([*(str(part) for part in outer if part not in _KINDS), str(last)])
        why = f"{place.name(str(last))}: {path}: {first['msg'].removeprefix('Value error, ')}."
        raise InvalidRequest(why, field=f"recall.{number}.{path}") from None
    return Entry(request=request, paused=paused, place=place)
