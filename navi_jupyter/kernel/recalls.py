"""Recalls from a cell: create, list, change; and what happened while the user was away.

A recall on a cell that is made in a cell means the same one, or the next: a line alone in its cell (``%navi recall when
done …``) means the next cell that runs; among other code, that cell. Not responsible for when anything fires, nor for
observing the cell: that is the server's, with or without this kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any

from ..handles import Named, short_handle
from ..navi_cells import only_makes_recalls
from ..text import printable
from .client.client import Service
from .display.listing import Listing, find_id
from .display.time_text import clock_words, moment, schedule_words
from .errors import Refused, UsageError
from .grammar.times import instant_text, kernel_client, reader_zone
from .recall_keywords import policy_from
from .shell import current_kernel, current_request, kernel_id, seconds_running

CELL_WORDS = ("done", "finished", "succeeded", "failed", "fails", "slow", "slower")
CELL_EVENTS = ("cell_done", "cell_finished", "cell_failed", "cell_slow")
AFTER = "after:"  # prefix of a request's id: the cell that begins next after the one that this request runs
REQUEST = "request:"  # prefix of a request's id: the cell that it runs, in this execution

COMM = "navi.cell"
LONGEST_SOURCE = 20_000


class Recall:
    """A recall: a message that the session is sent at a time or an event.

    What the user gave is kept as it was read last; what the scheduler changes is read again at each access.
    """

    id: str
    handle: str  # the short form of ``id``, which every ``%navi`` command takes
    session_id: str
    title: str
    message: str
    schedule: dict[str, Any]  # when it fires, in the contract's form
    policy: dict[str, Any]  # what happens when it cannot simply run on time
    allowed: tuple[str, ...]  # what its runs may do without asking: names of tools, effects as ``effect:run``

    def __init__(self, service: Service, content: Mapping[str, Any], last: Mapping[str, Any] | None = None) -> None:
        self._service = service
        self._last = last  # the latest row of its ledger, where a list brought it along
        self._update(content)

    def _update(self, content: Mapping[str, Any]) -> Recall:
        self._content = content
        self.id = str(content["id"])
        self.handle = short_handle(self.id)
        self.session_id = str(content["session_id"])
        self.title, self.message = str(content["title"]), str(content["message"])
        self.schedule, self.policy = dict(content["schedule"]), dict(content["policy"])
        self.allowed = tuple(content.get("allow") or ())
        return self

    @property
    def status(self) -> str:
        """``pending``, ``running``, ``paused``, then ``fired``, ``failed``, ``cancelled`` or ``expired``."""
        return str(self._read("status"))

    @property
    def next_at(self) -> datetime | None:
        """When it fires next, in this machine's zone; None when it is over or paused."""
        return _local(self._read("next_at"))

    @property
    def last_at(self) -> datetime | None:
        """The planned time that was started last."""
        return _local(self._read("last_at"))

    @property
    def fired(self) -> int:
        """How often it has been started."""
        return int(self._read("fired"))

    @property
    def firings(self) -> Listing[dict[str, Any]]:
        """The ledger, newest first: each planned time, its outcome and the reason, its lateness, the notification."""
        items = self._service.pages(f"recalls/{self.id}/firings", "firings", most=1000)
        return Listing(items, _FIRING_COLUMNS, _firing_row, empty="It has not fired yet.")

    def refresh(self) -> Recall:
        """Read it again; returns itself."""
        return self._update(self._service.call("GET", f"recalls/{self.id}"))

    def pause(self) -> Recall:
        """Let nothing fire until it is resumed."""
        return self._post("pause")

    def resume(self) -> Recall:
        """Continue with the next planned time."""
        return self._post("resume")

    def fire(self, *, allow: str | Sequence[str] = ()) -> Recall:
        """Run it now, in addition to its schedule; ``allow``: with leave to use that without asking from now on."""
        names = names_in(allow)
        return self._post("fire", {"allow": names} if names else {})

    def allow(self, *names: str) -> Recall:
        """Let its runs use these tools (``"run_code"``) or effects (``"run"``) without asking, too."""
        return self._change({"allow": [*self.refresh().allowed, *names]})

    def revoke(self, *names: str) -> Recall:
        """Let its runs ask again before they use these; without names, before all. Counts for a run in progress."""
        gone = {each for name in names for each in (name, f"effect:{name}")}
        return self._change({"allow": [name for name in self.refresh().allowed if names and name not in gone]})

    def cancel(self) -> Recall:
        """End it. Does nothing when it is over."""
        self._service.call("DELETE", f"recalls/{self.id}")
        return self.refresh()

    def clone(
        self,
        message: str | None = None,
        *,
        title: str | None = None,
        schedule: Mapping[str, Any] | None = None,
        allow: str | Sequence[str] | None = None,
        **policy: Any,
    ) -> Recall:
        """A new recall like this one, with what is given in place of its own. This one may be over.

        ``schedule`` is in the contract's form; policy keywords as for ``recall`` change that part of its policy.
        """
        body: dict[str, Any] = {"message": message, "title": title, "schedule": schedule}
        body["allow"] = None if allow is None else names_in(allow)
        if policy:
            body["policy"] = {**self.policy, **policy_from(self._service, policy, session_id=self.session_id)}
        given = {name: value for name, value in body.items() if value is not None}
        return Recall(self._service, self._service.call("POST", f"recalls/{self.id}/clone", given))

    def _post(self, action: str, body: Mapping[str, Any] | None = None) -> Recall:
        return self._update(self._service.call("POST", f"recalls/{self.id}/{action}", body or {}))

    def _change(self, body: Mapping[str, Any]) -> Recall:
        return self._update(self._service.call("PATCH", f"recalls/{self.id}", body))

    def _read(self, field: str) -> Any:
        return self.refresh()._content[field]  # noqa: SLF001 - itself

    def row(self) -> list[str]:
        """Its line in a table, from what was read last."""
        content, last = self._content, self._last
        return [
            self.handle,
            _label(self),
            schedule_words(self.schedule),
            str(content["status"]),
            self._next(),
            moment(last["slot"] if last else content["last_at"]),
            _outcome(last) or str(content.get("reason") or ""),
            ", ".join(name.removeprefix("effect:") for name in self.allowed),
            str(content["fired"]),
        ]

    def _next(self) -> str:
        content = self._content
        if self.schedule.get("kind") == "when" and content["status"] == "pending" and not content["next_at"]:
            return "when it happens"
        return moment(content["next_at"], zone=self.schedule.get("tz"))

    def __repr__(self) -> str:
        following = f", next {self._next()}" if self._content["next_at"] else ""
        words = schedule_words(self.schedule)
        may = f", may {', '.join(self.allowed)}" if self.allowed else ""
        return printable(f"<Recall {self.handle} {self._content['status']}: {self.message!r} {words}{following}{may}>")

    def _repr_html_(self) -> str:
        handle, message, schedule, status, following, *_, may, _fired = map(escape, self.row())
        leave = f", may use without asking: {may}" if may else ""
        last_result = self._content.get("last_result")
        result = f", last result: <code>{escape(last_result)}</code>" if last_result else ""
        return (
            f"<div>Recall: <strong>{message}</strong> — {schedule}, {status}, next: {following}{leave}{result} "
            f"<small><code>{handle}</code></small></div>"
        )


def names_in(allow: str | Sequence[str]) -> list[str]:
    """The names in an ``allow=``: one, several with commas, or a sequence of them."""
    return allow.replace(",", " ").split() if isinstance(allow, str) else list(allow)


def new_recall(service: Service, session_id: str, message: str, schedule: Mapping[str, Any], **rest: Any) -> Recall:
    """Store a recall; ``schedule`` and ``rest`` (title, policy, allow) in the contract's form."""
    # In the kernel, since only it knows which cell is running.
    schedule = with_cell(schedule)
    named = {"message": message} if message or not rest.get("run") else {}
    body = {"session_id": session_id, "schedule": schedule, **named, **kernel_client()}
    given = {name: value for name, value in rest.items() if value}
    try:
        made = Recall(service, service.call("POST", "recalls", body | given))
        report_cell(schedule)
    except Refused as refused:
        # a server without events answers with the kinds that it has, in the words of its validator.
        if schedule["kind"] == "when" and refused.server_code == "invalid_request" and refused.field == "schedule":
            text = "Recalls on events (when …) are not available yet: use in, at, every or cron."
            raise UsageError(text, field="schedule") from None
        raise
    return made


def list_recalls(service: Service, *, session_id: str | None, over: bool = False) -> Listing[Recall]:
    """The recalls of one session or all of the user's; ``over`` includes those that have ended."""
    last: dict[str, Any] = {}
    items = service.pages("recalls", "recalls", most=1000, query={"session_id": session_id}, beside={"last": last})
    found = (Recall(service, item, last.get(item["id"])) for item in items if over or item["status"] in _OPEN)
    return Listing(found, _COLUMNS, Recall.row, empty="No recalls are waiting.", kind="recall", named=_name)


def find_recall(service: Service, text: str | int, *, session_id: str) -> Recall:
    """The recall that ``text`` names: in that session, else in the user's others, else among those that are over.

    Raises NoSuchItem; UsageError for a text that names several.
    """

    def scopes() -> list[list[Named]]:
        items = [Recall(service, item) for item in service.pages("recalls", "recalls", most=1000)]
        still_open = [item for item in items if item._content["status"] in _OPEN]  # noqa: SLF001 - of this module
        # By nearness: a title of this notebook's must not be ambiguous because another notebook has it too.
        here = [item for item in still_open if item.session_id == session_id]
        return [[_name(item) for item in scope] for scope in (here, still_open, items)]

    recall_id = find_id("recall", text, scopes, hint="%navi recalls lists them.")
    return Recall(service, service.call("GET", f"recalls/{recall_id}"))


def _name(recall: Recall) -> Named:
    return Named(recall.id, _label(recall))


def _label(recall: Recall) -> str:
    """What a list shows: the message, behind a title that somebody gave. Both are what a person may type of it."""
    # Without one, the server takes the beginning of the message.
    made = " ".join(recall.message.split()).startswith(recall.title.rstrip("… "))
    return recall.message if made else f"{recall.title}: {recall.message}"


def change_all(service: Service, action: str, *, session_id: str | None = None) -> int:
    """``pause`` or ``resume`` all of the user's recalls, or those of a session; how many."""
    query = {"session_id": session_id} if session_id else None
    return int(service.call("POST", f"recalls/{action}", {}, query=query)["changed"])


_OPEN = ("pending", "running", "paused")
_COLUMNS = ("id", "message", "schedule", "status", "next", "last", "last one", "may", "fired")
_FIRING_COLUMNS = ("planned", "kind", "status", "reason", "late", "try", "notified", "run")


def _outcome(firing: Mapping[str, Any] | None) -> str:
    """``skipped: the session is busy``."""
    if firing is None:
        return ""
    return str(firing["status"]) + (f": {firing['reason']}" if firing.get("reason") else "")


def _firing_row(firing: dict[str, Any]) -> list[str]:
    late = firing.get("lateness_ms")
    coalesced = f" (and {firing['coalesced']} before it)" if firing.get("coalesced") else ""
    delivery = firing.get("delivery") or "none"
    return [
        moment(firing["slot"]),
        firing.get("kind") or "auto",
        firing["status"] + coalesced,
        firing.get("reason") or "",
        "" if late is None else f"{late / 1000:.1f}s",
        str(len(firing["attempts"]) or ""),
        "" if delivery == "none" else ": ".join(filter(None, (delivery, firing.get("delivery_error")))),
        short_handle(firing["run_id"]) if firing.get("run_id") else "",
    ]


def _local(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone() if text else None


_AWAY_COLUMNS = ("when", "what", "became", "answer or reason")


def read_away(service: Service, session_id: str, since: datetime | str | None = None) -> Listing[dict[str, Any]]:
    """What happened since then, or since the user was last there; oldest first. Raises UsageError, Refused.

    A row has ``at``, ``what``, ``status`` and ``told`` (the answer or the reason); those of runs also ``run_id``.
    Planned times of one recall that did not run for one reason are one row, with their count (``slots``).
    """
    query = {} if since is None else {"since": _instant(since)}
    found = service.call("GET", f"sessions/{session_id}/away", query=query)
    rows = sorted([*map(_ran, found["runs"]), *not_run(found["not_run"])], key=lambda row: row["at"])
    empty = f"Nothing happened since {moment(found['since'])}."
    return Listing(rows, _AWAY_COLUMNS, _away_row, empty=empty)


def _instant(since: datetime | str) -> str:
    try:
        at = datetime.fromisoformat(since) if isinstance(since, str) else since
    except ValueError:
        raise UsageError(f"{since!r} is not a time in ISO 8601, such as 2026-11-24T09:00.", field="since") from None
    return instant_text(at, reader_zone() if isinstance(since, str) else None)


def _ran(run: Mapping[str, Any]) -> dict[str, Any]:
    what = f"Recall: {run['prompt']}" if run["origin"]["kind"] == "recall" else run["prompt"]
    needed = run.get("reason") if (run["error"] or "").startswith("needed_") else None
    text = needed or run["answer"] or (run["error"] or "").replace("_", " ")
    return {"at": run["at"], "what": what, "status": run["status"], "told": text, "run_id": run["run_id"]}


def not_run(slots: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each recall and reason; ``at`` is its first slot."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for slot in slots:
        reason = str(slot["reason"] or "")
        key = (slot["recall_id"], slot["status"], reason)
        row = groups.setdefault(
            key, {"at": slot["slot"], "what": slot["title"], "status": slot["status"], "told": reason, "slots": 0}
        )
        row["slots"] += 1 + slot["coalesced"]
    yield from groups.values()


def _away_row(row: Mapping[str, Any]) -> list[str]:
    times = f" ({row['slots']} times)" if row.get("slots", 1) > 1 else ""
    return [moment(row["at"]), row["what"], f"{row['status'].replace('_', ' ')}{times}", _plain(row["told"])]


def _plain(text: str) -> str:
    """A reason in which the server names an instant, on the reader's clock."""
    head, into, at = text.partition("coalesced into ")
    if head or not into:
        return text
    try:
        return f"made up for by the run of {clock_words(at)}"
    except ValueError:
        return text


def with_cell(schedule: Mapping[str, Any]) -> dict[str, Any]:
    """``schedule`` with the cell that it refers to, where it waits for a cell and names none."""
    given = dict(schedule)
    if given.get("kind") != "when" or given.get("cell") or not _of_a_cell(given):
        return given
    if given.get("repeat") == "each":
        return given
    parent = current_request()
    request_id = str((parent.get("header") or {}).get("msg_id") or "")
    if not request_id:
        return given
    alone = only_makes_recalls(str((parent.get("content") or {}).get("code") or ""))
    given["cell"] = f"{AFTER if alone else REQUEST}{request_id}"
    here = kernel_id()
    if here and "kernel_id" not in given:
        given["kernel_id"] = here
    return given


def report_cell(schedule: Mapping[str, Any]) -> None:
    """Report the running cell to the server's observer of this kernel, if ``schedule`` refers to it.

    The observer has subscribed when the recall was created, after the cell began, so it has not seen the beginning.
    A recall on each cell needs the report, too: a cell that only talks to Navi does not count as one.
    """
    request = current_request()
    request_id = (request.get("header") or {}).get("msg_id")
    if schedule.get("kind") != "when" or request_id is None or not _of_a_cell(schedule):
        return
    if schedule.get("cell") != f"{REQUEST}{request_id}" and schedule.get("repeat") != "each":
        return
    kernel = current_kernel()
    code = str((request.get("content") or {}).get("code") or "")[:LONGEST_SOURCE]
    data = {"code": code, "seconds": seconds_running(request)}
    # a message of a comm that does not exist: front ends ignore that silently, but warn of an unknown message type.
    kernel.send_response(kernel.iopub_socket, "comm_msg", {"comm_id": COMM, "data": data})


def _of_a_cell(schedule: Mapping[str, Any]) -> bool:
    if schedule.get("event") is not None:
        return str(schedule["event"]) in CELL_EVENTS
    text = re.sub(r"^(?:the\s+)?cell\s+(?:is\s+)?", "", str(schedule.get("when") or "").strip(), flags=re.IGNORECASE)
    word = text.partition(" ")[0].lower()
    return word in CELL_WORDS or word in CELL_EVENTS
