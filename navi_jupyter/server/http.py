"""A request and its answer as values: what operations are given, what they return, what a query string may hold.

Not responsible for tornado (``handler``) or for bodies (``bodies``). Imported at extension load: no pydantic.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import InvalidRequest
from ..input.json_input import well_formed
from ..text import join_words, plain_number, truncate, with_article
from .kernel_caller import KernelCaller

Action = Literal["read", "write", "execute"]
JSON = "application/json"
RESOURCE = "navi"
"""What Jupyter's authorizer is asked for, with each action."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The part of an HTTP request that operations may use."""

    owner: str  # whose sessions and recalls it can see
    body: bytes
    content_type: str
    accept: str
    last_event_id: str | None
    idempotency_key: str | None
    query: Mapping[str, str]
    kernel: KernelCaller | None = None  # who sends it with the kernels' token; None: the user's page or program


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpReply:
    """An answer, ready to be written."""

    content: str | bytes | None
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    filename: str | None = None  # set for a download


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer that goes on: pages of ``(seq, envelope as JSON)``, written as server-sent events."""

    pages: AsyncGenerator[Sequence[tuple[int, str]]]


NOTHING = HttpReply(content=None, status=204)


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One parameter of the query string."""

    name: str
    help: str
    kind: Literal["integer", "number", "string"] = "string"
    default: float | str | None = None
    minimum: float = 0
    maximum: float = 2**53
    """The default: the largest that JSON readers hold exactly, far below the largest integer of SQLite."""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> float | str:
        """The value of ``text``. Raises InvalidRequest."""
        if self.kind == "string":
            return self._read_string(text)
        value = self._read_number(text)
        if not self.minimum <= value <= self.maximum:
            limits = f"from {plain_number(self.minimum)} to {plain_number(self.maximum)}"
            raise InvalidRequest(f"{self.name} must be {limits}.", field=self.name)
        return value

    def _read_string(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise InvalidRequest(f"{self.name} must be one of: {', '.join(self.choices)}.", field=self.name)
        if len(text) > 500:
            raise InvalidRequest(f"{self.name} is longer than 500 characters.", field=self.name)
        return well_formed(text)

    def _read_number(self, text: str) -> float:
        try:
            # Longer than any number in range: int() of very long texts is slow, or raises another error.
            if len(text) > 40 or not text.isascii() or "_" in text:
                raise ValueError
            value = int(text) if self.kind == "integer" else float(text)
        except ValueError:
            raise InvalidRequest(f"{self.name} must be {with_article(self.kind)}.", field=self.name) from None
        if not math.isfinite(value):
            raise InvalidRequest(f"{self.name} must be {with_article(self.kind)}.", field=self.name)
        return value


LIMIT = Query(name="limit", kind="integer", default=50, minimum=1, maximum=1000, help="How many at most.")
AFTER = Query(name="after", kind="integer", help="The last `seq` you have.")
CURSOR = Query(name="cursor", help="`next` of the page before.")


_OF_JUPYTER = frozenset(("token", "_xsrf", "_"))
"""Query parameters that Jupyter reads itself, and ``_``, by which clients keep caches out."""


def check_query(given: Iterable[str], known: Sequence[str]) -> None:
    """Refuse a parameter that nothing reads: a filter with a typing error would answer with everything.

    Raises InvalidRequest with its name. A number as a name is JupyterLab's way to keep caches out.
    """
    unknown = sorted(name for name in given if name not in known and name not in _OF_JUPYTER and not name.isdecimal())
    if unknown:
        name = truncate(well_formed(unknown[0]), 100)
        known_here = f"known here: {join_words(sorted(known))}" if known else "there are none here"
        raise InvalidRequest(f"There is no query parameter {name!r}; {known_here}.", field=name)


def read_cursor(text: str, name: str = "after") -> int:
    """A ``seq``. Raises InvalidRequest."""
    return int(replace(AFTER, name=name).read(text))
