"""What the agent remembers about the user, as a notebook sees it."""

from __future__ import annotations

from typing import Any

from .client import Service
from .listing import Listing
from .render import moment

_COLUMNS = ("id", "fact", "from", "changed")


def remember(service: Service, text: str) -> dict[str, Any]:
    """Store a fact; the same text again is the same fact."""
    return dict(service.call("POST", "memory", {"text": text}))


def forget(service: Service, fact_id: str) -> None:
    """Raises Refused when there is no such fact."""
    service.call("DELETE", f"memory/{fact_id}")


def memory(service: Service, query: str | None = None) -> Listing[dict[str, Any]]:
    """The facts, newest first; with words to look for, the best match first. 200 at most."""
    found = service.pages("memory", "memory", most=200, query={"query": query or None})
    return Listing(found, _COLUMNS, _row, empty="Nothing is remembered." if not query else "Nothing of that kind.")


def _row(fact: dict[str, Any]) -> list[str]:
    return [fact["id"], fact["text"], "you" if fact["source"] == "user" else "Navi", moment(fact["updated_at"])]
