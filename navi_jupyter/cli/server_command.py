"""A command for the running server: its server, what it prints as JSON, and its exit status.

Not responsible for what each command does (``ask``, ``listings``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..errors import NaviError
from ..kernel.client.client import Service
from ..kernel.errors import NoSuchItem, ServerNotFound, UsageError
from ..kernel.programs.server import NaviServer
from ..text import one_line, printable
from .arguments import FAILED, INTERRUPTED, NO_READER, USAGE
from .running_server import SeveralServers, running_server

Act = Callable[[NaviServer, argparse.Namespace], int]

_VALUE = 2000  # characters of a value that are shown on its line

# What errors of the client call the commands of cells, and what they are here.
_COMMANDS = (
    (r"%navi recalls", "navi recalls"),
    (r"%navi recall ", "navi recalls add "),
    (r"%navi session list", "navi sessions"),
    (r"%navi session (?=search|delete)", "navi sessions "),
)


def run_command(act: Act, given: argparse.Namespace) -> int:
    """Run the command; its exit status. An error is one line on standard error, and a line of ``--json``, too."""
    try:
        return act(NaviServer(Service(running_server(given.url, given.token))), given)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes standard output at its end, and would complain of the same again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except NaviError as error:
        return report(error, as_json=given.json)


def report(error: NaviError, *, as_json: bool) -> int:
    """Print an error; the exit status that it stands for."""
    message = error.message
    for cell, shell in _COMMANDS:
        message = re.sub(cell, shell, message)
    if as_json:
        print_json({"error": {"code": error.code, "message": message}})
    print(f"navi: {printable(message)}", file=sys.stderr)
    if isinstance(error, NoSuchItem):
        return FAILED
    return USAGE if isinstance(error, UsageError | ServerNotFound | SeveralServers) else FAILED


def print_json(value: Mapping[str, Any]) -> None:
    """One line. Control characters are escaped in it, so it can be printed to a terminal as it is."""
    print(json.dumps(value), flush=True)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Names and values of one thing, a line each."""
    for name, value in facts:
        print(printable(f"{name:<9} {one_line(value, _VALUE)}"))
