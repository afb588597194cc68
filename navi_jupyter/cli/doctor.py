"""``navi doctor``: checks this installation piece by piece, and says how to repair what is wrong.

It changes nothing: the user's database is only read, and writing is tried on a file of its own in the same folder.
It shows the names of keys, never their values.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyter_core.paths import jupyter_config_path, jupyter_path

from .. import __version__
from ..installation import DISTRIBUTION, HOMES, has_distribution, install_command, reinstall_command, start_command
from ..kernel.client.client import Client
from ..kernel.client.connection import Connection, connection_files, find_server, read_connection_file
from ..kernel.errors import KernelError, ServerNotFound
from ..text import printable
from .backup import configured_settings
from .database_checks import attachments, database
from .findings import Finding, hub_service, notification_targets, spans

PACKAGE = Path(__file__).parent.parent
_NEEDED = ("jupyter_server", "ipykernel", "anywidget", "tornado", "pydantic", "pydantic-ai-slim", "aiosqlite")
_EXTRAS = ("jupyter-collaboration", "mcp", "apprise", "openai", "anthropic", "google-genai")
_BUILT = ("widget.js", "navi-chat.js")


def python() -> Iterator[Finding]:
    """The interpreter that runs this. An older one could not have imported it."""
    yield Finding("python", "ok", f"Python {platform.python_version()} at {sys.executable}")


def packages() -> Iterator[Finding]:
    """The packages that Navi needs or works in, with their versions."""
    found, missing = [f"navi-jupyter {__version__}"], []
    for name in (*_NEEDED, *HOMES, *_EXTRAS):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if name in _NEEDED:
                missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", install_command(DISTRIBUTION))


def extension() -> Iterator[Finding]:
    """Whether a server would load the extension: a configuration file enables it, and it can be imported."""
    fix = "jupyter server extension enable navi_jupyter"
    path, enabled = next(reversed(list(_switches())), (None, False))
    if enabled:
        yield Finding("extension", "ok", f"enabled in {path}")
    else:
        text = "no Jupyter configuration file enables navi_jupyter" if path is None else f"disabled in {path}"
        yield Finding("extension", "fail", text, fix)
    try:
        from .. import _jupyter_server_extension_points

        name = _jupyter_server_extension_points()[0]["app"].name
    except ImportError as problem:
        yield Finding("extension", "fail", f"it cannot be imported: {problem}", reinstall_command())
    else:
        yield Finding("extension", "ok", f"can be loaded as {name!r}")


def _switches() -> Iterator[tuple[Path, bool]]:
    """Each configuration file that switches the extension on or off; the last one decides."""
    for folder in reversed(jupyter_config_path()):
        drop_ins = sorted(Path(folder, "jupyter_server_config.d").glob("*.json"))
        for path in (*drop_ins, Path(folder, "jupyter_server_config.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                switch = content["ServerApp"]["jpserver_extensions"]["navi_jupyter"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield path, bool(switch)


def javascript() -> Iterator[Finding]:
    """The JavaScript bundle, which the wheel contains and a checkout builds."""
    missing = [name for name in _BUILT if not _has_content(PACKAGE / "static" / name)]
    if missing:
        in_checkout = install_command(".", options="--editable")
        fix = f"in a git checkout: {in_checkout} (without NAVI_SKIP_JS); otherwise: {reinstall_command()}"
        yield Finding("javascript", "fail", f"not built: {', '.join(missing)}", fix)
        return
    sizes = ", ".join(f"{name} {(PACKAGE / 'static' / name).stat().st_size // 1024} KB" for name in _BUILT)
    yield Finding("javascript", "ok", sizes)


def labextension() -> Iterator[Finding]:
    """The prebuilt extension that lets a chat survive a reload in JupyterLab and Notebook."""
    for folder in jupyter_path("labextensions"):
        manifest = Path(folder, "navi-jupyter", "package.json")
        if manifest.is_file():
            installed = json.loads(manifest.read_text(encoding="utf-8")).get("version")
            if installed == __version__:
                yield Finding("labextension", "ok", str(manifest.parent))
            else:
                text = f"{manifest.parent} is version {installed}, the package is {__version__}"
                yield Finding("labextension", "warn", text, reinstall_command())
            return
    homes = [HOMES[name].label for name in ("jupyterlab", "notebook") if has_distribution(name)]
    if not homes:
        yield Finding("labextension", "ok", "not needed: neither JupyterLab nor Notebook is installed here")
        return
    text = f"not installed: {' and '.join(homes)} will have no panel, and lose a chat when they are reloaded"
    yield Finding("labextension", "warn", text, reinstall_command())


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


_MOST_KERNELS = 8  # each costs the start of an interpreter
_PROBE = "import navi_jupyter, navi_jupyter.kernel.api as _; print(navi_jupyter.__version__)"


def kernels() -> Iterator[Finding]:
    """Whether ``%load_ext navi_jupyter`` works in every Python kernel."""
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    # Kernels of other languages cannot load a Python extension and are none of our business.
    python = {name: spec["spec"] for name, spec in specs.items() if spec["spec"]["language"] == "python"}
    if not python:
        yield Finding("kernels", "fail", "Jupyter has no Python kernel", install_command("ipykernel"))
    for name, spec in list(python.items())[:_MOST_KERNELS]:
        yield _kernel(name, _interpreter(spec["argv"][0]), spec.get("env") or {})


def _interpreter(program: str) -> str:
    """The program that Jupyter starts: a bare ``python`` in a kernel's description is the server's own."""
    return sys.executable if program in ("python", f"python{sys.version_info[0]}") else program


def _kernel(name: str, executable: str, env: dict[str, str]) -> Finding:
    # How packages get into another environment is not known; this works in each.
    fix = install_command(DISTRIBUTION) if executable == sys.executable else f"{executable} -m pip install navi-jupyter"
    try:
        done = subprocess.run(  # noqa: S603 - the kernel's own interpreter, as Jupyter would start it
            [executable, "-c", _PROBE],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Finding("kernels", "warn", f"{name}: {executable} cannot be run: {problem}", "install that kernel again")
    if done.returncode == 0:
        return Finding("kernels", "ok", f"{name}: has navi-jupyter {done.stdout.strip()}")
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("kernels", "warn", f"{name}: has no navi-jupyter ({last})", fix)


def server() -> Iterator[Finding]:
    """Whether the server of this kernel answers; in a terminal, every running server with the extension.

    In the environment of `navi hub`, whether that is ready: its own token is no user's.
    """
    if os.environ.get("JUPYTERHUB_SERVICE_NAME") and not os.environ.get("JUPYTERHUB_USER"):
        yield _service()
        return
    with contextlib.suppress(ServerNotFound):  # as usual in a terminal, which is not a kernel
        yield from _answers_of(find_server())
        return
    running = 0
    for path in connection_files():
        try:
            connection = read_connection_file(path, source=path.name)
        except ServerNotFound:
            continue  # left behind by a server that was killed
        running += 1
        yield from _answers_of(connection)
    if not running:
        yield Finding("server", "warn", "no Jupyter server with Navi is running", f"start one: {start_command()}")


def _service() -> Finding:
    """The process of `navi hub` that has this environment."""
    from ..hub.identity import service_prefix  # late: it needs JupyterHub

    url = urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
    every = url.hostname in (None, "", "0.0.0.0", "::")  # noqa: S104 - where it listens is no address to connect to
    place = f"http://{'127.0.0.1' if every else url.hostname}:{url.port or 80}{service_prefix(os.environ)}ready"
    try:
        with urllib.request.urlopen(place, timeout=5):
            return Finding("server", "ok", f"navi hub answers at {place}: it is ready")
    except urllib.error.HTTPError as error:
        state = error.read(100).decode(errors="replace")
        return Finding("server", "fail", f"navi hub answers at {place}: it is {state}", "read its log")
    except OSError as problem:
        text = f"navi hub does not answer at {place} ({problem})"
        return Finding("server", "warn", text, "start it; or read the log of the Hub, where that starts it")


def _answers_of(connection: Connection) -> Iterator[Finding]:
    """Whether the server answers, and what it says of its MCP servers."""

    async def asked() -> tuple[Any, Any]:
        client = Client(connection)
        return await client.request("GET", "health", timeout=5), await client.request("GET", "mcp", timeout=10)

    try:
        health, mcp = asyncio.run(asked())
    except KernelError as problem:
        yield Finding(
            "server",
            "fail",
            f"{connection.url} (from {connection.source}): {problem.message}",
            "read the log of that server",
        )
        return
    text = f"{connection.url} (from {connection.source}) answers: Navi {health['version']} is {health['status']}"
    yield Finding("server", "ok", f"{text}; {_pauses(health)}")
    for one in mcp["mcp"]:
        yield from _mcp_server(one)


def _pauses(health: Mapping[str, Any]) -> str:
    """How garbage is collected in the server's process, and how long that and anything else held it up of late."""
    return (
        f"garbage collection: {health.get('garbage_collection', 'unknown')}, longest pause"
        f" {health.get('gc_pause_ms', 0.0):.0f} ms; longest delay of the event loop {health['loop_lag_ms']:.0f} ms"
    )


def _mcp_server(one: Mapping[str, Any]) -> Iterator[Finding]:
    text = f"{one['name']}: {one['status']}, tools: {one['tools']}"
    if one["available"] or one["status"] == "disabled":
        yield Finding("mcp", "ok", text)
    else:
        yield Finding("mcp", "warn", text, one["why"])
    for note in one.get("notes", ()):
        yield Finding("mcp", "warn", f"{one['name']}: the tool {note['tool']}: {note['why']}")


def models() -> Iterator[Finding]:
    """Which providers of models are installed, and have a key: here, or stored by the user in the chat."""
    from ..agent.providers.catalog import PROVIDERS, first_step
    from ..agent.providers.stored_settings import STORED

    yield Finding("models", "ok", "offline: built in, needs neither key nor network; it is not a language model")
    stored, seen = STORED.values(), set[str]()
    for provider in PROVIDERS.values():
        names = (*provider.keys, *provider.instead)
        key = next((name for name in names if os.environ.get(name) or name in stored), None)
        if key is None or provider.label in seen:
            continue
        seen.add(provider.label)
        where = "is set" if os.environ.get(key) else "is stored"
        why = provider.missing()
        if why is None:
            yield Finding("models", "ok", f"{provider.label}: {key} {where}")
        else:
            yield Finding("models", "warn", f"{provider.label}: {key} {where}, but its package is not installed", why)
    if not seen:
        text = "no language model is set up, so only the offline model can be used"
        yield Finding("models", "warn", text, first_step())


def agents() -> Iterator[Finding]:
    """Which agent programs are here, and the one command that brings each of the others."""
    from ..agent.acp.agents import AgentCatalog

    for agent in AgentCatalog().all().values():  # one that is missing is no defect
        yield Finding("agents", "ok", f"{agent.model}: {agent.why or f'{agent.title}, {agent.command[0]}'}")


CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("python", python),
    ("packages", packages),
    ("extension", extension),
    ("javascript", javascript),
    ("labextension", labextension),
    ("database", database),
    ("attachments", attachments),
    ("kernels", kernels),
    ("server", server),
    ("models", models),
    ("agents", agents),
    ("notify", notification_targets),
    ("otel", spans),
)
OF_THE_SERVICE = frozenset(("database", "attachments", "models", "agents", "notify", "otel"))
"""Checks of what a server leaves to the service of a JupyterHub, where it sends everything to one."""


def _checks() -> Iterator[tuple[str, Callable[[], Iterator[Finding]]]]:
    try:
        uses_service = bool(configured_settings().hub_service_url)
    except Exception:  # noqa: BLE001 - the check of the database reports it
        uses_service = False
    for name, check in CHECKS:
        if not uses_service or name not in OF_THE_SERVICE:
            yield name, check
        if uses_service and name == "labextension":
            yield "service", hub_service


def doctor(*, as_json: bool = False) -> int:
    """Run all checks, print each finding; the exit status: 1 when something fails."""
    failed = False
    for name, check in _checks():
        for finding in _findings(name, check):
            failed = failed or finding.status == "fail"
            sys.stdout.write(printable(_line(finding, as_json=as_json)) + "\n")
            sys.stdout.flush()
    return 1 if failed else 0


def _findings(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as problem:  # noqa: BLE001 - one broken check must not hide the findings of the others
        yield Finding(
            name,
            "fail",
            f"the check itself failed: {type(problem).__name__}: {problem}",
            "report this as a bug of navi-jupyter",
        )


def _line(finding: Finding, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(finding))
    line = f"{finding.status:<5} {finding.check:<13} {finding.text}"
    return line if finding.fix is None else f"{line}\n{'':<20}-> {finding.fix}"
