"""The facts that the agent remembers about the user."""

from __future__ import annotations

from typing import Any

from ..handles import Named
from .client import Service
from .listing import Listing, find_id
from .time_text import moment

_COLUMNS = ("fact", "from", "changed")


def remember(service: Service, text: str) -> dict[str, Any]:
    """Store a fact; the same text again is the same fact."""
    return dict(service.call("POST", "memory", {"text": text}))


def forget(service: Service, fact: str | int) -> None:
    """Delete the fact that ``fact`` names: a number of the shown list, a beginning of its text, or its id.

    Raises NoSuchItem; UsageError for a text that names several.
    """
    fact_id = find_id("fact", fact, lambda: [memory(service).names], hint="%navi memory lists them.")
    service.call("DELETE", f"memory/{fact_id}")


def memory(service: Service, query: str | None = None) -> Listing[dict[str, Any]]:
    """The facts, newest first; with words to look for, the best match first. 200 at most."""
    found = service.pages("memory", "memory", most=200, query={"query": query or None})
    empty = "Nothing is remembered." if not query else "No fact has these words."
    return Listing(found, _COLUMNS, _row, empty=empty, kind="fact", named=lambda fact: Named(fact["id"], fact["text"]))


def _row(fact: dict[str, Any]) -> list[str]:
    return [fact["text"], "you" if fact["source"] == "user" else "Navi", moment(fact["updated_at"])]
