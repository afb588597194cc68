"""The functions of ``import navi_jupyter as navi``, for notebooks and programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..handles import Named
from . import notebook
from .client.client import current_service
from .display.listing import Listing, find_id
from .display.painters import NoPainter, painter_here
from .display.time_text import moment
from .errors import UsageError
from .grammar.notebook_job import job_from
from .recall_keywords import policy_from, schedule_from
from .recalls import Recall, list_recalls, names_in, new_recall
from .reply import Reply
from .session import Session, find_session

if TYPE_CHECKING:
    from .display.widget import Chat


def session(session: str | int | Session | None = None) -> Session:
    """This notebook's session (found again after a kernel restart), or the one that is named.

    By its number in the list shown last, a beginning of its title, or its id. Raises NaviError.
    """
    if isinstance(session, Session):
        return session
    service = current_service()
    return Session(service, find_session(service, session) if session else notebook.session_id(service))


def ask(
    text: str,
    *,
    session: str | int | Session | None = None,
    model: str | None = None,
    mode: str | None = None,
    images: Sequence[Any] = (),
    files: Sequence[Any] = (),
    show: bool = True,
) -> Reply:
    """Ask, stream the answer into the cell, and return it when it is complete.

    ``images`` and ``files``: matplotlib figures, PIL images, bytes or paths of this kernel's disk. ``mode`` is what
    happens when the session is busy (default ``enqueue``). Ctrl-C stops the run, unless it waits for your answer.
    Raises NaviError.
    """
    # Chosen here, in the thread of the cell: the io thread has no shell to ask.
    painter = painter_here() if show else NoPainter()
    return _session(session).ask(text, show=painter, model=model, mode=mode, images=images, files=files)


async def ask_async(
    text: str,
    *,
    session: str | int | Session | None = None,
    model: str | None = None,
    mode: str | None = None,
    images: Sequence[Any] = (),
    files: Sequence[Any] = (),
    show: bool = True,
) -> Reply:
    """As :func:`ask`, for ``await`` in a cell: the kernel's other tasks continue meanwhile."""
    painter = painter_here() if show else NoPainter()
    return await _session(session).asking(text, show=painter, model=model, mode=mode, images=images, files=files).run()


def recall(
    message: str = "",
    *,
    in_: str | float | timedelta | None = None,
    at: str | datetime | None = None,
    every: str | float | timedelta | None = None,
    cron: str | None = None,
    when: Any = None,
    tz: str | None = None,
    start: str | datetime | None = None,
    title: str | None = None,
    session: str | int | Session | None = None,
    allow: Sequence[str] = (),
    run: str | Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    kernel: str | None = None,
    output: str | None = None,
    then: str | None = None,
    **policy: Any,
) -> Recall:
    """Schedule ``message`` for the session: once, at a time, regularly, by cron, or when something happens.

    ``when`` is ``"done"`` (the running cell), ``"failed"``, ``"slow 10m"``, ``"idle"``, ``"changed data.csv"``,
    ``"true loss < 0.1"``, or a mapping with the fields of the schedule.

    ``at`` is ISO 8601, a datetime or English (``"tomorrow at 9"``), in ``tz``, else the session's zone (a datetime:
    this machine's). ``every`` is a duration or English (``"friday at 16:00"``). A time of day without am or pm is the
    next one on the 24-hour clock. Durations are text (``"1h30m"``), seconds or timedelta: ``"1d"`` is a calendar day,
    ``"24h"``, numbers and timedeltas are elapsed time.

    ``allow`` names tools (``"run_code"``) or effects (``"run"``) that its runs may use without asking.

    ``run`` is the path of a notebook that is executed instead, without a model; its outputs go into a dated copy in the
    folder ``output``. ``parameters`` are variables that are set after its cell with the tag ``parameters``; ``kernel``
    names another kernel than its own; ``then`` is a prompt about its result.

    Further keywords are the recall's policy: ``misfire``, ``grace``, ``busy``, ``retries``, ``timeout``, ``until``,
    ``max_fires``, ``jitter``, ``cancel_on``, ``notify``, ``quiet``, ``needs``. Raises NaviError.
    """
    service = current_service()
    target = _session(session)
    schedule, bounds = schedule_from(
        service, in_=in_, at=at, every=every, cron=cron, when=when, tz=tz, start=start, session_id=target.id
    )
    limits = bounds | policy_from(service, policy, tz=tz, session_id=target.id)
    given = {"kernel": kernel, "output": output, "then": then}
    if run is None and (wrong := next((name for name in given if given[name] is not None), None)):
        raise UsageError(f"{wrong} goes with run='notebook.ipynb'.", field=wrong)
    job = None if run is None else job_from(run, parameters, given, lambda: target.state["notebook_path"])
    return new_recall(service, target.id, message, schedule, title=title, policy=limits, allow=names_in(allow), run=job)


def recalls(*, session: str | int | Session | None = None, all: bool = False, over: bool = False) -> Listing[Recall]:  # noqa: A002
    """The recalls of this notebook's session; ``all`` of your sessions; ``over`` includes those that have ended."""
    return list_recalls(current_service(), session_id=None if all else _session(session).id, over=over)


def remember(text: str) -> dict[str, Any]:
    """Have the agent remember a fact about you in all your sessions; returns the fact as it is stored.

    The same text again is the same fact.
    """
    return dict(current_service().call("POST", "memory", {"text": text}))


def memory(query: str | None = None) -> Listing[dict[str, Any]]:
    """What the agent remembers about you, newest first, 200 at most; with a query, the best match first."""
    found = current_service().pages("memory", "memory", most=200, query={"query": query or None})
    empty = "Nothing is remembered." if not query else "No fact has these words."
    return Listing(
        found,
        ("fact", "from", "changed"),
        lambda fact: [fact["text"], "you" if fact["source"] == "user" else "Navi", moment(fact["updated_at"])],
        empty=empty,
        kind="fact",
        named=lambda fact: Named(fact["id"], fact["text"]),
    )


def forget(fact: str | int) -> None:
    """Forget a fact: its number in the list shown last, a beginning of its text, or its id. Raises NaviError."""
    fact_id = find_id("fact", fact, lambda: [memory().names], hint="%navi memory lists them.")
    current_service().call("DELETE", f"memory/{fact_id}")


def chat(session: str | int | Session | None = None, *, profile: str | None = None) -> Chat:
    """The chat widget on this notebook's session (or that one)."""
    from .display.widget import (
        Chat,  # imported here: ipywidgets costs a kernel a third of a second, and only this needs it
    )

    target = _session(session)
    if profile is not None:
        target.change(profile=profile)
    return Chat(current_service(), target.id)


# Functions above have a parameter ``session``, which hides the function of this name.
_session = session
