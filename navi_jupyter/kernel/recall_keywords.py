"""The keywords of ``navi.recall`` in the contract's form, and the server's reading of times in words.

Not responsible for reading them: the server has the one reader.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from .client.client import Service
from .errors import UsageError
from .grammar.times import duration_text, instant_text, kernel_client, take_instant

_DURATIONS = ("grace", "timeout", "jitter")
_WAYS = "in_='10m', at='tomorrow 18:30', every='1h', cron='0 9 * * 1-5' or when='done'"


def read_words(
    service: Service, words: str, *, tz: str | None = None, session_id: str | None = None, **how: bool
) -> dict[str, Any]:
    """A time in English as the server reads it, in ``tz``, else by the clock that counts in that session.

    It has ``schedule``, ``policy``, ``meaning``, ``times``, ``warnings``; of a ``sentence`` also ``message``, the rest
    of it, and ``phrase``, the words of the time. ``end``: of a recurrence. Raises Refused.
    """
    return _preview(service, {"text": words, **{name: True for name in how if how[name]}}, tz, session_id)


def foresee(
    service: Service, schedule: Mapping[str, Any], *, tz: str | None = None, session_id: str | None = None
) -> dict[str, Any]:
    """What a schedule would do; as :func:`read_words`."""
    return _preview(service, {"schedule": dict(schedule)}, tz, session_id)


def _preview(service: Service, asked: dict[str, Any], tz: str | None, session_id: str | None) -> dict[str, Any]:
    session_id = session_id or service.session_id
    named = {"tz": tz} if tz else kernel_client() | ({"session_id": session_id} if session_id else {})
    return dict(service.call("POST", "recalls/preview", asked | named))


def schedule_from(
    service: Service,
    *,
    in_: str | float | timedelta | None,
    at: str | datetime | None,
    every: str | float | timedelta | None,
    cron: str | None,
    when: Any,
    tz: str | None,
    start: str | datetime | None,
    session_id: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contract's form of the keywords, and the policy that their words have (``every day until friday``).

    The server reads what is in English. Raises UsageError, Refused.
    """
    ways = {"in_": in_, "at": at, "every": every, "cron": cron, "when": when}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise UsageError(f"Say when, in exactly one way: {_WAYS}.", field="schedule")
    if at is not None:
        return {"kind": "once", "at": _read_instant(service, at, tz, "at", session_id)}, {}
    if cron is not None:
        return {"kind": "cron", "expr": cron, **({} if tz is None else {"tz": tz})}, {}
    if when is not None:
        return {"kind": "when", **(when if isinstance(when, Mapping) else {"when": str(when)})}, {}
    anchor = {} if start is None else {"start": _read_instant(service, start, tz, "start", session_id)}
    words = in_ if in_ is not None else every
    if isinstance(words, str) and _IS_ENGLISH.search(duration_text(words)):
        return _from_words(service, words, "in" if every is None else "every", anchor, tz=tz, session_id=session_id)
    if in_ is not None:
        return _in_zone(service, {"kind": "once", "in": duration_text(in_)}, tz), {}
    return _in_zone(service, {"kind": "every", "every": duration_text(every or 0), **anchor}, tz), {}


_IS_ENGLISH = re.compile(r"[A-Za-z]{3}|\s|:|/")
"""More than a duration in short form, right or wrong: ``friday at 16:00``."""


def _from_words(
    service: Service, words: str, word: str, anchor: Mapping[str, Any], *, tz: str | None, session_id: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``every="friday at 16:00"``, ``in_="an hour and a half"``: the time with its preposition, as in a cell."""
    begins = re.match(rf"{word}\b|each\b", words.strip(), re.IGNORECASE)
    read = read_words(service, words if begins else f"{word} {words}", tz=tz, session_id=session_id)
    schedule = dict(read["schedule"])
    if (schedule["kind"] == "once") is (word == "every"):
        raise UsageError(f"{word}: {words[:60]!r} is no such time; write it like '10m' or use at=.", field=word)
    if anchor and schedule["kind"] != "every":
        raise UsageError("start goes with a duration, as in every='1h'.", field="start")
    return {**schedule, **anchor}, {
        name: value for name, value in read["policy"].items() if name in ("until", "max_fires")
    }


def _in_zone(service: Service, schedule: dict[str, Any], tz: str | None) -> dict[str, Any]:
    """With its calendar days counted in that zone, where one is named; else the server takes the session's."""
    return schedule if tz is None else dict(foresee(service, schedule, tz=tz)["schedule"])


def _read_instant(
    service: Service, value: str | datetime, tz: str | None, name: str, session_id: str | None = None
) -> str:
    """An instant's wire form: of a datetime, ISO 8601, or a single time in English that the server reads.

    A datetime without a zone is by this machine's clock, as everywhere in Python; text by the session's.
    """
    if isinstance(value, datetime):
        return instant_text(value, tz)
    if not isinstance(value, str):
        raise UsageError(f"{name}: {value!r} is not a time: write it like 'tomorrow 18:30', or a datetime.", field=name)
    taken = take_instant(value.strip(), tz)
    if taken is not None and not taken[1]:
        return taken[0]
    schedule = read_words(service, value, tz=tz, session_id=session_id, end=name == "until")["schedule"]
    if schedule["kind"] != "once":
        raise UsageError(f"{name}: {value[:60]!r} is more than one time; use every= or cron=.", field=name)
    return str(schedule["at"])


def policy_from(
    service: Service, given: Mapping[str, Any], *, tz: str | None = None, session_id: str | None = None
) -> dict[str, Any]:
    """Policy keywords in the contract's form; durations and instants may be Python's. The server judges them."""
    policy = dict(given)
    for name in ("cancel_on", "notify"):
        if isinstance(policy.get(name), str):
            policy[name] = [policy[name]]
    for name in _DURATIONS:
        if isinstance(policy.get(name), (int, float, timedelta)) and not isinstance(policy[name], bool):
            policy[name] = duration_text(policy[name])
    if policy.get("until") is not None:
        policy["until"] = _read_instant(service, policy["until"], tz, "until", session_id)
    return policy
