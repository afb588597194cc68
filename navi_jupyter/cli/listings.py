"""``navi sessions``, ``navi recalls`` and ``navi follow``: sessions and recalls listed, found, changed, watched."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..handles import is_full_id, short_handle
from ..kernel.client.client import using
from ..kernel.display.listing import Listing
from ..kernel.display.render import transcript_plain, usage_words
from ..kernel.display.time_text import moment, schedule_words
from ..kernel.errors import Refused, UsageError
from ..kernel.grammar.notebook_job import job_of
from ..kernel.grammar.recall_command import RECALL_HELP, read_recall
from ..kernel.programs.aio import AsyncSession
from ..kernel.programs.recall_line import plan_of
from ..kernel.programs.server import NaviServer
from ..kernel.recall_keywords import policy_from
from ..kernel.recalls import Recall, find_recall, new_recall
from ..kernel.session import sessions_listing
from ..kernel.session_list import search_sessions
from ..text import plural, printable
from .arguments import INTERRUPTED
from .ask import last_session
from .run_printer import SessionPrinter
from .server_command import print_facts, print_json


def sessions(server: NaviServer, given: argparse.Namespace) -> int:
    """Do what is asked for; the exit status. Raises UsageError, NoSuchItem, Refused."""
    match given.action:
        case "list":
            _list_sessions(server, given)
        case "search":
            _search(server, given)
        case "show":
            _show_session(server, given)
        case "export":
            _export(server, given)
        case _:
            _delete(server, given)
    return 0


def _list_sessions(server: NaviServer, given: argparse.Namespace) -> None:
    found = server.service.pages("sessions", "sessions", most=given.most, query={"show": given.which})
    listed = sessions_listing(server.service, found)
    _print(listed, listed, given)


def _search(server: NaviServer, given: argparse.Namespace) -> None:
    found = search_sessions(server.service, " ".join(given.words))
    _print(found, found, given)


def _show_session(server: NaviServer, given: argparse.Namespace) -> None:
    session = server.session(given.session)
    state, messages = session.state, session.messages
    if given.json:
        print_json({**state, "messages": messages})
        return
    facts = [
        ("session", state["id"]),
        ("title", state["title"]),
        ("notebook", state["notebook_path"] or "none"),
        ("model", f"{state['model']}, profile {state['profile']}"),
        ("now", _now(state)),
        ("used", ", ".join(filter(None, (moment(state["updated_at"]), usage_words(state.get("usage") or {}))))),
    ]
    print_facts(facts)
    print(f"\n{transcript_plain(messages)}")


def _now(state: Mapping[str, Any]) -> str:
    run = state["run"]
    waiting = [plural(len(state["queue"]), "prompt") + " waiting"] if state["queue"] else []
    asked = [plural(len(state["approvals"]), "open question")] if state["approvals"] else []
    return ", ".join([str(run["status"]) if run else "idle", *asked, *waiting])


def _export(server: NaviServer, given: argparse.Namespace) -> None:
    session = server.session(given.session)
    if given.output is not None:
        if given.output.exists() and given.output.is_file() and not given.force:
            raise UsageError(f"{given.output} is there already: add --force to replace it.")
        session.export(given.output, format=given.format)
        if given.json:
            print_json({"session_id": session.id, "file": str(given.output)})
        return
    text = session.export(format=given.format or ("json" if given.json else "md"))
    # A file gets it as it is; on a terminal nothing in it may act.
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.write("" if text.endswith("\n") else "\n")


def _delete(server: NaviServer, given: argparse.Namespace) -> None:
    session = server.session(given.session)
    state = session.state
    known = (state["id"], short_handle(state["id"]), state["title"].casefold())
    # The beginning of a title may be another session's by tomorrow: what is deleted is named whole.
    if not is_full_id(given.session) and given.session.casefold() not in known:
        raise UsageError(
            f"To delete {state['title']!r}, give its id or its whole title: "
            f"navi sessions delete {short_handle(state['id'])}"
        )
    server.request("DELETE", f"sessions/{session.id}")
    if given.json:
        print_json({"deleted": session.id})
    else:
        print(printable(f"Deleted: {state['title']!r}. Its recalls are cancelled. It can be restored for seven days."))


def recalls(server: NaviServer, given: argparse.Namespace) -> int:
    """Do what is asked for; the exit status. Raises UsageError, NoSuchItem, Refused."""
    with using(server.service):
        match given.action:
            case "list":
                _list(server, given)
            case "add":
                _show(server, _add(server, given), given)
            case "ledger":
                firings = _named(server, given).firings
                _print(firings, firings, given)
            case "show":
                _show(server, _named(server, given), given)
            case "fire":
                _show(server, _named(server, given).fire(allow=given.allow), given)
            case _:
                change: Callable[[], Recall] = getattr(_named(server, given), given.action)
                _show(server, change(), given)
    return 0


def _list(server: NaviServer, given: argparse.Namespace) -> None:
    session = server.session(given.session).id if given.session else None
    listed = server.recalls(session=session, over=given.over)
    if not given.json:
        print(listed.plain(numbered=False))
        return
    shown = {recall.id for recall in listed}
    items = server.service.pages("recalls", "recalls", most=1000, query={"session_id": session})
    _print(listed, (item for item in items if item["id"] in shown), given)


def _named(server: NaviServer, given: argparse.Namespace) -> Recall:
    return find_recall(server.service, given.recall, session_id="")


def _print(listed: Listing[Any], items: Iterable[dict[str, Any]], given: argparse.Namespace) -> None:
    if given.json:
        for item in items:
            print_json(item)
    else:
        print(listed.plain(numbered=False))


def _add(server: NaviServer, given: argparse.Namespace) -> Recall:
    line = " ".join(_quoted(given.words))
    request = read_recall(line)
    if request is None:
        raise UsageError(f"There is no time in it. {RECALL_HELP}")
    session = server.session(given.session or request.session)
    service = server.service

    def say(text: str) -> None:
        print(printable(text), file=sys.stderr)

    try:
        schedule, policy, message = plan_of(service, request, session_id=session.id, say=say)
    except Refused as refused:
        if request.sentence and refused.server_code == "invalid_request":
            raise UsageError(f"{refused.message} {RECALL_HELP}") from None
        raise
    policy = policy_from(service, policy, tz=request.tz, session_id=session.id)
    run = job_of(message, request.job, lambda: session.state["notebook_path"])
    return new_recall(
        service, session.id, message, schedule, title=request.title, policy=policy, allow=request.allow, run=run
    )


def _quoted(words: Sequence[str]) -> list[str]:
    """The words as a line of ``%navi recall`` has them: what was one word of the shell stays one."""
    if len(words) == 1:
        return list(words)
    return [f'"{word}"' if any(blank in word for blank in " \t\n") and '"' not in word else word for word in words]


def _show(server: NaviServer, recall: Recall, given: argparse.Namespace) -> None:
    wire = server.request("GET", f"recalls/{recall.id}")
    if given.json:
        print_json(wire)
        return
    rows = [
        ("recall", recall.id),
        ("message", recall.message),
        ("schedule", schedule_words(recall.schedule)),
        ("status", ": ".join(filter(None, (str(wire["status"]), wire.get("reason"))))),
        ("next", moment(wire["next_at"], zone=recall.schedule.get("tz"))),
        ("last", moment(wire["last_at"])),
        ("session", recall.session_id),
        ("may", ", ".join(recall.allowed) or "ask"),
        ("fired", str(wire["fired"])),
    ]
    print_facts(rows)


def follow(server: NaviServer, given: argparse.Namespace) -> int:
    """Follow until Ctrl-C; the exit status. Raises NoSuchItem, Refused, Unreachable."""
    session_id = server.session(given.session).id if given.session else last_session(server)
    return asyncio.run(_follow(AsyncSession(server.service, session_id), given))


async def _follow(session: AsyncSession, given: argparse.Namespace) -> int:
    await session.state()  # one that is not there is an error, not an empty session
    printer = SessionPrinter(sys.stdout, session.id)
    async with session.follow(given.after) as events:
        try:
            async for envelope in events:
                if given.json:
                    print_json(envelope)
                else:
                    printer.show(envelope)
        except asyncio.CancelledError:
            if not given.json:
                printer.end()
                if events.cursor is not None and sys.stderr.isatty():
                    print(f"To go on from here: navi follow {session.id} --after {events.cursor}", file=sys.stderr)
            return INTERRUPTED
    return 0
