"""The ``navi`` command: ``demo``, ``doctor``, ``serve``, ``backup``, ``restore``, ``db``; ``ask`` and its like.

Each subcommand's module is imported when it is called, so that ``navi --help`` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from .arguments import add_program_commands, add_server_options, with_defaults

CLIENTS = ("claude-desktop", "cursor", "vscode", "claude-code")
"""Of the Model Context Protocol, whose configuration is printed."""
WAKE_ONLY = "--wake-only"
"""Of ``navi hub``: see ``hub.wake``."""


def parser() -> argparse.ArgumentParser:
    """The command line; also read by the reference."""
    top = argparse.ArgumentParser(prog="navi", description="Navi: an agent that lives in your Jupyter server.")
    top.add_argument("--version", action="version", version=f"navi-jupyter {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="watch it work: a private server, a kernel, a prompt, a recall (under 30 s)"
    )
    demo.add_argument("--json", action="store_true", help="one JSON object per line")
    doctor = commands.add_parser("doctor", help="check this installation, and show how to repair what is wrong")
    doctor.add_argument("--json", action="store_true", help="one JSON object per line")
    backup = commands.add_parser("backup", help="the database and its attachments as one file, while servers run")
    backup.add_argument("file", type=Path, help="the file to write; one that exists is not replaced")
    backup.add_argument("--force", action="store_true", help="replace the file if it exists")
    restore = commands.add_parser("restore", help="put a backup in the place of the database; no server may use it")
    restore.add_argument("file", type=Path, help="a file that `navi backup` has written")
    for each in (backup, restore):
        each.add_argument("--database", metavar="URL", help="another database than the configured one: a path or URL")
    _add_database_commands(commands)
    editor = commands.add_parser("acp", help="Navi's sessions for editors that speak the Agent Client Protocol")
    editor.add_argument("--notebook", metavar="PATH", help="new sessions are this notebook's; below the server's root")
    add_server_options(editor)
    bridge = commands.add_parser("mcp", help="the server's MCP tools for desktop clients that speak stdio")
    bridge.add_argument(
        "--config", metavar="CLIENT", choices=CLIENTS, help=f"print its configuration: {', '.join(CLIENTS)}"
    )
    add_server_options(bridge)
    add_program_commands(commands)
    serve = commands.add_parser(
        "serve", help="a Jupyter server with Navi alone, as `jupyter navi`; takes its options", add_help=False
    )
    hub = commands.add_parser(
        "hub",
        help="Navi as a service of a JupyterHub; takes the options of a Jupyter server. --wake-only: without an agent,"
        " it starts users' servers for their recalls",
        add_help=False,
    )
    for each in (serve, hub):
        each.add_argument("arguments", nargs=argparse.REMAINDER)
    return top


def _add_database_commands(commands: Any) -> None:
    actions = commands.add_parser("db", help="check, upgrade, copy or import a database").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for name, text in (
        ("check", "whether it can be used, and what is in it"),
        ("upgrade", "bring its tables to this version, as the first start of a server does"),
    ):
        one = actions.add_parser(name, help=text, description=text)
        one.add_argument("url", nargs="?", metavar="URL", help="the default is the one that is configured")
    copy = actions.add_parser("copy", help="copy a SQLite database into an empty PostgreSQL database")
    copy.add_argument("source", metavar="FROM", help="sqlite:////<path>, whose servers are stopped; or a backup")
    copy.add_argument("target", metavar="TO", help="postgresql://<user>@<host>/<name>")
    take = actions.add_parser("import", help="bring what one user has in a SQLite database into one that is in use")
    take.add_argument("source", metavar="FROM", help="sqlite:////<path>, whose servers are stopped; or a backup")
    take.add_argument("target", metavar="TO", help="sqlite:////<path> or postgresql://<user>@<host>/<name>")
    take.add_argument("--owner", metavar="NAME", required=True, help="the user who gets it there")
    take.add_argument("--from-owner", metavar="NAME", help="whose data it is in FROM, where several users have some")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script. Ends the process with the command's status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["serve"], ["hub"]):  # all that follows belongs to the server, also what begins with a dash
        sys.exit((_serve if words[0] == "serve" else _hub)(words[1:]))
    given = parser().parse_args(with_defaults(words))
    match given.command:
        case "demo":
            sys.exit(_demo(given.json))
        case "doctor":
            sys.exit(_doctor(given.json))
        case "acp":
            sys.exit(_editor(given))
        case "mcp":
            sys.exit(_bridge(given))
        case "db":
            sys.exit(_database(given))
        case "backup" | "restore":
            sys.exit(_archive(given))
        case _:
            sys.exit(_server_command(given))


def _demo(as_json: bool) -> int:
    from .demo import demo  # late: `navi --help` imports no Jupyter

    return demo(as_json=as_json)


def _doctor(as_json: bool) -> int:
    from .doctor import doctor  # late: as above

    return doctor(as_json=as_json)


def _editor(given: argparse.Namespace) -> int:
    from ..errors import NaviError  # late: as above

    try:
        from .editor import serve
    except ModuleNotFoundError as problem:
        if problem.name is None or problem.name.partition(".")[0] != "acp":
            raise
        from ..installation import DISTRIBUTION, install_command

        print(f"navi acp needs the extra acp: {install_command(f'{DISTRIBUTION}[acp]')}", file=sys.stderr)
        return 2
    try:
        return serve(url=given.url, token=given.token, notebook=given.notebook)
    except NaviError as problem:
        print(f"navi acp: {problem.message}", file=sys.stderr)
        return 1


def _bridge(given: argparse.Namespace) -> int:
    from .mcp_bridge import print_configuration, serve  # late: as above

    if given.config is not None:
        return print_configuration(given.config, url=given.url, token=given.token)
    return serve(url=given.url, token=given.token)


def _archive(given: argparse.Namespace) -> int:
    from ..store.sqlite.location import database_path  # late: as above
    from .backup import back_up, configured_database, configured_settings, reported
    from .restoration import restore

    def work() -> str:
        path = configured_database()[0] if given.database is None else database_path(given.database).absolute()
        if given.command == "backup":
            in_bucket = bool(configured_settings().blobs_url)
            return back_up(path, given.file, force=given.force, in_bucket=in_bucket)
        return restore(given.file, path)

    return reported(work)


def _database(given: argparse.Namespace) -> int:
    from .database import run  # late: as above

    return run(given)


def _server_command(given: argparse.Namespace) -> int:
    from . import listings  # late: as above
    from .ask import ask
    from .server_command import run_command

    acts = {"ask": ask, "follow": listings.follow, "sessions": listings.sessions, "recalls": listings.recalls}
    return run_command(acts[given.command], given)


def _serve(arguments: list[str]) -> int:
    from ..server.app import NaviExtension  # late: as above

    NaviExtension.launch_instance(arguments)  # type: ignore[no-untyped-call]  # Jupyter's
    return 0


def _hub(arguments: list[str]) -> int:
    from ..installation import DISTRIBUTION, has_distribution, install_command  # late: as above

    if not has_distribution("jupyterhub"):
        print(f"navi hub needs the extra hub: {install_command(f'{DISTRIBUTION}[hub]')}", file=sys.stderr)
        return 2
    from ..hub.service import HubExtension, missing_variables  # late: it needs JupyterHub

    if missing := missing_variables(os.environ):
        print(
            f"navi hub is started by a JupyterHub, as one of its services: {', '.join(missing)} must be set. See"
            " docs/jupyterhub.md.",
            file=sys.stderr,
        )
        return 2
    if WAKE_ONLY in arguments:
        from ..hub.wake.service import WakeExtension  # late: as above

        others = [word for word in arguments if word != WAKE_ONLY]
        WakeExtension.launch_instance(others)  # type: ignore[no-untyped-call]  # Jupyter's
        return 0
    HubExtension.launch_instance(arguments)  # type: ignore[no-untyped-call]  # Jupyter's
    return 0
