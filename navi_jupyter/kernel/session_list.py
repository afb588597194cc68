"""``%navi session``: this notebook's session, and the list of all: found, renamed, archived, deleted, restored.

Not responsible for what the words mean (``command_line``) or for a session by itself (``session``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..handles import Named, is_full_id, row_number, short_handle
from . import api, notebook
from .client.client import Service, current_service
from .display.listing import Listing, find_id
from .display.time_text import moment
from .errors import UsageError
from .session import Session, find_session, sessions_listing, sessions_table
from .shell import print_line, show

if TYPE_CHECKING:
    from .grammar.command_line import Action

_MOST_FOUND = 50  # sessions that a search shows


def session_action(action: Action) -> Session | Listing[dict[str, Any]] | None:
    """What ``%navi session …`` does, and what the cell shows of it. Raises UsageError, Refused."""
    service = current_service()
    word, *rest = action.args or ("",)
    act = _WORDS.get(word)
    if act is not None:
        return act(service, *rest)
    if word == "list":
        notebook.session_id(service)
        which = next(iter(action.options), None)
        return sessions_table(service) if which is None else _those(service, which)
    if word == "unlink":
        print_line(notebook.unlink(service))
        return None
    if word == "new":
        notebook.create(service)
    elif word == "use":
        # Read first: an id that does not exist must not become this notebook's.
        print_line(notebook.use(service, api.session(rest[0]).state, move="move" in action.options))
    elif not _describe(service):
        return None
    return api.session()


def _describe(service: Service) -> bool:
    """Print what is known of this notebook's session; whether there is one."""
    found = notebook.find(service, create=False)  # to look starts no session
    if found["session"] is None and notebook.is_named(service):
        found |= {"session": api.session().state}
    print_line(notebook.describe(found))
    if found["earlier"]:
        show(sessions_listing(service, found["earlier"]))
    return found["session"] is not None


def _those(service: Service, which: str) -> Listing[dict[str, Any]]:
    """The sessions that are ``archived``, or that were ``deleted`` and can be restored."""
    return sessions_listing(service, service.pages("sessions", "sessions", most=100, query={"show": which}))


def search_sessions(service: Service, words: str) -> Listing[dict[str, Any]]:
    """The sessions with all of these words in a message or in the title, the newest find first."""
    found = service.pages("sessions", "sessions", most=_MOST_FOUND, query={"query": words})

    def row(session: dict[str, Any]) -> list[str]:
        hit = session["hit"]
        snippet = " ".join("".join(part["text"] for part in hit["snippet"]).split())
        return [short_handle(session["id"]), session["title"], moment(hit["at"]), str(session["hits"]), snippet]

    return Listing(
        found,
        ("id", "title", "when", "places", "text"),
        row,
        empty="No session has all of these words.",
        kind="session",
        named=lambda session: Named(session["id"], session["title"]),
    )


def _rename(service: Service, handle: str, title: str) -> None:
    session_id = find_session(service, handle) if handle else api.session().id
    changed = service.call("PATCH", _path(session_id), {"title": title})
    print_line(f"The session is now called {changed['title']!r}.")


def _delete(service: Service, handle: str) -> None:
    session_id = find_session(service, handle)
    state = service.call("GET", _path(session_id))
    if not _is_exact(handle, state):
        raise UsageError(
            f"To delete {state['title']!r}, give its number, its id or its whole title: "
            f"%navi session delete {short_handle(session_id)}"
        )
    service.call("DELETE", _path(session_id))
    print_line(
        f"Deleted: {state['title']!r}. Its recalls are cancelled. To have it back within seven days: "
        f"%navi session restore {short_handle(session_id)}"
    )


def _is_exact(handle: str, state: Mapping[str, Any]) -> bool:
    """Whether it names this session and could name no other one by a change of the list: no beginning of a title."""
    text = handle.strip()
    known = (state["id"], short_handle(state["id"]), state["title"])
    return row_number(text) is not None or is_full_id(text) or text.casefold() in [str(one).casefold() for one in known]


def _archive(service: Service, handle: str = "") -> None:
    session_id = find_session(service, handle) if handle else api.session().id
    state = service.call("POST", f"{_path(session_id)}/archive")
    print_line(
        f"Archived: {state['title']!r}. Its recalls are paused. To have it back: "
        f"%navi session unarchive {short_handle(session_id)}"
    )


def _unarchive(service: Service, handle: str) -> None:
    state = service.call("POST", f"{_path(_find(service, handle, 'archived'))}/unarchive")
    print_line(f"Back in the list: {state['title']!r}. The recalls that had paused for this go on.")


def _restore(service: Service, handle: str) -> None:
    state = service.call("POST", f"{_path(_find(service, handle, 'deleted'))}/restore")
    print_line(f"Restored: {state['title']!r}, with its recalls.")


def _find(service: Service, handle: str, which: str) -> str:
    return find_id(
        "session", handle, lambda: [_those(service, which).names], hint=f"%navi session list --{which} shows them."
    )


def _path(session_id: str) -> str:
    return f"sessions/{quote(session_id, safe='')}"


_WORDS: Mapping[str, Callable[..., Listing[dict[str, Any]] | None]] = {
    "search": search_sessions,
    "rename": _rename,
    "delete": _delete,
    "archive": _archive,
    "unarchive": _unarchive,
    "restore": _restore,
}
