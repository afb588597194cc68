"""Do the parts find each other: kernels have the package, running servers answer their kernels, models have keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from ..kernel.client import Client
from ..kernel.connection import Connection, connection_files, find_server, read_connection_file
from ..kernel.errors import KernelError, ServerNotFound
from .finding import Finding

_MOST_KERNELS = 8
_PROBE = "import navi_jupyter, navi_jupyter.kernel.api as _; print(navi_jupyter.__version__)"


def kernels() -> Iterator[Finding]:
    """Every Python kernel can ``%load_ext navi_jupyter``."""
    # Late: only this check needs it.
    from jupyter_client.kernelspec import KernelSpecManager

    specs = KernelSpecManager().get_all_specs()
    python = {name: spec["spec"] for name, spec in specs.items() if spec["spec"]["language"] == "python"}
    if not python:
        yield Finding("kernels", "fail", "there is no Python kernel", "pip install ipykernel")
    for name, spec in list(python.items())[:_MOST_KERNELS]:
        yield _kernel(name, _interpreter(spec["argv"][0]), spec.get("env") or {})


def _interpreter(program: str) -> str:
    """The program that Jupyter starts: a bare ``python`` in a kernel's description is the server's own."""
    return sys.executable if program in ("python", f"python{sys.version_info[0]}") else program


def _kernel(name: str, executable: str, env: dict[str, str]) -> Finding:
    fix = f"{executable} -m pip install navi-jupyter"
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
        return Finding("kernels", "warn", f"{name}: {executable} does not run: {problem}", "reinstall that kernel")
    if done.returncode == 0:
        return Finding("kernels", "ok", f"{name}: has navi-jupyter {done.stdout.strip()}")
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("kernels", "warn", f"{name}: has no navi-jupyter ({last})", fix)


def server() -> Iterator[Finding]:
    """What a kernel started here would find, and every running server with the extension, asked as its kernels ask."""
    with contextlib.suppress(ServerNotFound):  # the usual case in a terminal: this is no kernel
        yield _answers(find_server())
        return
    running = 0
    for path in connection_files():
        try:
            connection = read_connection_file(path, source=path.name)
        except ServerNotFound:
            continue  # a server that was killed left it
        running += 1
        yield _answers(connection)
    if not running:
        yield Finding("server", "warn", "no Jupyter server with Navi is running", "start one: jupyter lab")


def _answers(connection: Connection) -> Finding:
    try:
        health = asyncio.run(Client(connection).request("GET", "health", timeout=5))
    except KernelError as problem:
        return Finding(
            "server", "fail", f"{connection.url} (from {connection.source}): {problem.message}", "see its log"
        )
    text = f"{connection.url} (from {connection.source}) answers: Navi {health['version']} is {health['status']}"
    return Finding("server", "ok", text)


def models() -> Iterator[Finding]:
    """Which providers have a key in this environment. Names only."""
    # Late: the catalogue belongs to the agent's side.
    from ..agent.providers.catalog import PROVIDERS

    yield Finding("models", "ok", "offline: built in, needs no key and no network; it is no language model")
    seen: set[str] = set()
    for provider in PROVIDERS.values():
        key = next((name for name in (*provider.keys, *provider.instead) if os.environ.get(name)), None)
        if key is None or provider.label in seen:
            continue
        seen.add(provider.label)
        why = provider.missing()
        if why is None:
            yield Finding("models", "ok", f"{provider.label}: {key} is set")
        else:
            yield Finding("models", "warn", f"{provider.label}: {key} is set, but its package is missing", why)
    if not seen:
        fix = "for a language model, set for example ANTHROPIC_API_KEY and: pip install 'navi-jupyter[anthropic]'"
        yield Finding("models", "warn", "no provider's key is set", fix)
