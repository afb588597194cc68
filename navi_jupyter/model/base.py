"""The nouns: sessions, runs, recalls, firings. Frozen values, their wire form, their JSON schema.

Not responsible for how they are stored (``store``) or changed (``orchestrator``, ``recalls``).
All instants are timezone-aware; on the wire ISO 8601 with an offset. All durations are :class:`datetime.timedelta`;
on the wire ``90s``, ``10m``, ``1h30m``, ``2d``.
"""

from __future__ import annotations

import os
import time
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from ..clock import Period, find_zone, format_duration, parse_duration


def new_id(prefix: str) -> str:
    """A fresh identifier: ``prefix`` + ``_`` + 96 random bits in hex, e.g. ``s_5f0c…``."""
    return f"{prefix}_{os.urandom(12).hex()}"


def ordered_id(prefix: str) -> str:
    """:func:`new_id` for rows that come in masses: a microsecond, then 44 random bits.

    What is made together lies together in every index, so that thousands of rows dirty few of its pages.
    """
    return f"{prefix}_{time.time_ns() // 1000:013x}{os.urandom(6).hex()[:11]}"


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    return parse_duration(_text(value))


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("a duration is a string like 90s, 10m, 1h30m or 2d")


_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|[dhms]))+$", "examples": ["10m", "1h30m"]}
)
Duration = Annotated[
    timedelta, BeforeValidator(_read_duration), PlainSerializer(format_duration, return_type=str), _DURATION_SCHEMA
]


def _read_period(value: object) -> Period:
    if isinstance(value, Period):
        return value
    return Period(elapsed=value) if isinstance(value, timedelta) else Period.parse(_text(value))


CalendarPeriod = Annotated[
    Period, PlainValidator(_read_period), PlainSerializer(str, return_type=str), _DURATION_SCHEMA
]
"""A :class:`~navi_jupyter.clock.Period`: like a duration on the wire, but its days are calendar days."""
Instant = Annotated[AwareDatetime, PlainSerializer(lambda at: at.isoformat(), return_type=str, when_used="json")]


def _known_zone(name: str) -> str:
    if find_zone(name) is None:
        raise ValueError(f"{name[:64]!r} is not a known time zone; use a name like Europe/Berlin")
    return name


ZoneName = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_zone)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ModelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
ProfileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Names = tuple[Annotated[str, StringConstraints(min_length=1, max_length=128)], ...]
CommandId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,128}$")]


class Value(BaseModel):
    """Base of every value here: frozen, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_timedelta="iso8601")

    def wire(self) -> dict[str, Any]:
        """The JSON form as Python objects."""
        return self.model_dump(mode="json", by_alias=True)

    @classmethod
    def trusted(cls, **fields: Any) -> Self:
        """A value of fields that are known to be valid: all of them, none is checked or left to its default.

        What ``model_construct`` does for this case, at a quarter of its cost: a burst of recalls makes thousands.
        """
        value = cls.__new__(cls)
        _fill(value, fields, _all_fields(cls))
        return value

    def but(self, **changes: Any) -> Self:
        """This value with some fields changed, unchecked: ``model_copy(update=...)`` at a fraction of its cost."""
        value = self.__class__.__new__(self.__class__)
        given = self.__pydantic_fields_set__
        _fill(value, {**self.__dict__, **changes}, given if changes.keys() <= given else given | changes.keys())
        return value


@lru_cache(maxsize=256)
def _all_fields(model: type[Value]) -> set[str]:
    """Shared by the values that have them all: pydantic copies the set before it changes it."""
    return set(model.model_fields)


_set = object.__setattr__  # our values are frozen


def _fill(value: Value, fields: dict[str, Any], given: set[str]) -> None:
    """What pydantic's own ``__copy__`` sets on a fresh instance."""
    _set(value, "__dict__", fields)
    _set(value, "__pydantic_fields_set__", given)
    _set(value, "__pydantic_extra__", None)
    _set(value, "__pydantic_private__", None)
