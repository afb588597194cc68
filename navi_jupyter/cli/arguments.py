"""The arguments of the commands that use a running server: ``ask``, ``follow``, ``sessions``, ``recalls``.

Imports nothing of the client, so that ``navi --help`` is quick. Not responsible for what the commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

MODES = ("enqueue", "reject", "interrupt", "rollback", "steer", "collect")
_FORMATS = ("md", "ipynb", "html", "json")
_SESSION = "its id, the end of that, or the beginning of its title"
_RECALL = "its id, the end of that, or the beginning of its text"
FAILED, USAGE, NEEDS_ANSWER, TIMED_OUT, INTERRUPTED, TERMINATED = 1, 2, 3, 124, 130, 143
NO_READER = 141  # as a program that SIGPIPE ends
_STATUS = (
    f"exit status: 0 it was done, {FAILED} it failed, {USAGE} the command cannot be understood or no server is meant, "
    f"{NEEDS_ANSWER} the run needs an answer, {TIMED_OUT} --timeout is over, {INTERRUPTED} Ctrl-C"
)


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """``--url`` and ``--token``, as every command for a running server has them."""
    parser.add_argument("--url", metavar="URL", help="the Jupyter server; else the one of this kernel, or the only one")
    parser.add_argument(
        "--token", metavar="TOKEN", help="its token; other users of this machine can see it, NAVI_TOKEN they cannot"
    )


def add_program_commands(commands: Any) -> None:
    """The commands, added to those of ``navi``."""
    _add_ask(_command(commands, "ask", "ask a session of the running server, and print the answer as it comes"))
    follow = _command(commands, "follow", "print what happens in a session, until Ctrl-C")
    follow.add_argument("session", nargs="?", metavar="SESSION", help=f"{_SESSION}; the default is the one used last")
    follow.add_argument("--after", type=int, metavar="SEQ", help="go on after that event; 0: from the beginning")
    _add_sessions(_group(commands, "sessions", "the sessions of the running server"))
    _add_recalls(_group(commands, "recalls", "the recalls of the running server"))


def with_defaults(words: Sequence[str]) -> list[str]:
    """``navi recalls`` and ``navi sessions`` alone, or with options, list what there is."""
    given = list(words)
    if given[:1] in (["recalls"], ["sessions"]) and (len(given) == 1 or given[1].startswith("-")):
        return given if given[1:] in (["-h"], ["--help"]) else [given[0], "list", *given[1:]]
    return given


def _command(commands: Any, name: str, text: str, **more: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, epilog=_STATUS, **more)
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    add_server_options(parser)
    return parser


def _group(commands: Any, name: str, text: str) -> Callable[..., argparse.ArgumentParser]:
    """Adds a command below ``navi <name>``."""
    group = commands.add_parser(name, help=text, description=text, epilog=_STATUS)
    below = group.add_subparsers(dest="action", required=True, metavar="ACTION")
    return lambda action, words, **more: _command(below, action, words, **more)


def _add_ask(ask: argparse.ArgumentParser) -> None:
    ask.add_argument(
        "words",
        nargs="*",
        metavar="TEXT",
        help="the prompt; - is what comes on standard input, beside a TEXT as a file",
    )
    whose = ask.add_mutually_exclusive_group()
    whose.add_argument("--session", metavar="SESSION", help=f"{_SESSION}; the default is a new one, or NAVI_SESSION")
    whose.add_argument("-c", "--continue", action="store_true", dest="last", help="the session that was used last")
    whose.add_argument("--notebook", metavar="PATH", help="the session of this notebook")
    whose.add_argument("--new", action="store_true", help="a new session, also where NAVI_SESSION names one")
    ask.add_argument("--title", help="of the new session; the default is made of the prompt")
    ask.add_argument("--profile", help="of the new session")
    ask.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="TOOL",
        help="a tool that the new session may use without asking",
    )
    ask.add_argument("--model", help="for this prompt")
    ask.add_argument(
        "--file", action="append", default=[], type=Path, metavar="FILE", help="goes along; may be repeated"
    )
    ask.add_argument("--mode", choices=MODES, help="what happens when the session is busy; enqueue is the default")
    ask.add_argument(
        "--approve",
        choices=("ask", "never", "wait"),
        default="ask",
        help="what happens when the run asks: ask at this terminal (without one: leave it waiting, and exit with 3), "
        "never allow it, or wait for the answer of a chat",
    )
    ask.add_argument("--timeout", metavar="TIME", help="stop the run after that: 90s, 10m, 1h30m")
    ask.add_argument("-b", "--background", action="store_true", help="do not wait for the answer")


def _add_sessions(add: Callable[..., argparse.ArgumentParser]) -> None:
    listed = add("list", "the sessions, the most recently used first")
    which = listed.add_mutually_exclusive_group()
    for name in ("archived", "deleted"):
        which.add_argument(f"--{name}", action="store_const", const=name, dest="which", help=f"those that are {name}")
    listed.add_argument("-n", "--most", type=int, default=20, metavar="N", help="how many; 20 is the default")
    search = add("search", "the sessions that have all of these words")
    search.add_argument("words", nargs="+", metavar="WORD")
    show = add("show", "the state and the conversation of a session")
    export = add("export", "the conversation as a file, or on standard output")
    export.add_argument("--format", choices=_FORMATS, help="the default is that of the file's name, else md")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="a file that exists is not replaced")
    export.add_argument("--force", action="store_true", help="replace the file if it exists")
    delete = add("delete", "delete a session; its recalls are cancelled")
    for one in (show, export, delete):
        one.add_argument("session", metavar="SESSION", help=_SESSION if one is not delete else "its id or whole title")


def _add_recalls(add: Callable[..., argparse.ArgumentParser]) -> None:
    listed = add("list", "the recalls that wait, the next one first")
    listed.add_argument("--session", metavar="SESSION", help=f"of this one alone: {_SESSION}")
    listed.add_argument("--over", action="store_true", help="those that have ended, too")
    made = add(
        "add",
        "make a recall, as %%navi recall does: navi recalls add --session report every weekday at 9 check the loss",
    )
    made.add_argument("--session", metavar="SESSION", help=f"{_SESSION}; the default is a new one, or NAVI_SESSION")
    made.add_argument("words", nargs=argparse.REMAINDER, metavar="WHEN MESSAGE", help="with options of %%navi recall")
    for name, text in (
        ("show", "what is known of a recall"),
        ("cancel", "end a recall"),
        ("pause", "let nothing fire until it is resumed"),
        ("resume", "go on with the next planned time"),
        ("fire", "run it now, besides its schedule"),
        ("ledger", "each planned time, and what became of it"),
    ):
        one = add(name, text)
        one.add_argument("recall", metavar="RECALL", help=_RECALL)
        if name == "fire":
            one.add_argument(
                "--allow", action="append", default=[], metavar="TOOL", help="may be used without asking from now on"
            )
