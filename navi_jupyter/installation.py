"""The environment that this runs in: how packages are installed there (pip, uv, conda, pipx), and where notebooks open.

Only commands are made here; nothing is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "navi-jupyter"


class Home(NamedTuple):
    """A package in which people open notebooks."""

    label: str
    command: str  # that starts it


HOMES = {
    "jupyterlab": Home("JupyterLab", "jupyter lab"),
    "notebook": Home("Notebook", "jupyter notebook"),
    "nbclassic": Home("the classic notebook", "jupyter nbclassic"),
}
"""By distribution, the usual one first. What is not installed is not to be named to the user."""


def has_distribution(name: str) -> bool:
    """Whether a distribution is installed here."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def start_command() -> str:
    """How a person starts a server with Navi here: in what is installed, else with Navi's own page alone."""
    return next((home.command for name, home in HOMES.items() if has_distribution(name)), "jupyter navi")


def server_name() -> str:
    """How people know the process that Navi runs in: their Jupyter server, or the service of a JupyterHub."""
    return "Navi service" if os.environ.get("JUPYTERHUB_SERVICE_NAME") else "Jupyter server"


def install_command(*requirements: str, options: str = "") -> str:
    """The command that installs these into this environment, to be shown to a person: ``pip install "a[b]"``.

    ``options`` are pip's. Correct for the environment of this process: a bare ``pip`` may be another environment's.
    """
    # Brackets are patterns in some shells; double quotes are understood by all of them, also by that of Windows.
    names = " ".join(f'"{name}"' if "[" in name else name for name in requirements)
    return " ".join(filter(None, [_installer(), options, names]))


def navi_command(*words: str) -> list[str]:
    """How another program starts ``navi`` of this environment: by its full path, as the PATH there may be another."""
    scripts = [Path(sys.executable).with_name(name) for name in ("navi", "navi.exe")]
    script = next((str(each) for each in scripts if each.exists()), None)
    return [script, *words] if script else [sys.executable, "-m", "navi_jupyter.cli", *words]


def upgrade_command() -> str:
    """The command that installs the newest version of this package."""
    return install_command(DISTRIBUTION, options="--upgrade")


def reinstall_command() -> str:
    """The command that installs this version again, with all its files."""
    return install_command(DISTRIBUTION, options="--force-reinstall --no-deps")


def has_package(module: str) -> bool:
    """Whether a package can be imported, without importing it (its parents are, for dotted names)."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _installer() -> str:
    prefix, python = Path(sys.prefix), _quoted(sys.executable)
    if {"pipx", "venvs"} <= set(prefix.parts):
        return f"pipx runpip {prefix.name} install"
    if (prefix / "conda-meta").is_dir():
        is_active = os.environ.get("CONDA_PREFIX") == sys.prefix
        return "python -m pip install" if is_active else f"conda run -p {_quoted(sys.prefix)} python -m pip install"
    if _made_by_uv(prefix) or (not has_package("pip") and shutil.which("uv")):
        is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
        return "uv pip install" if is_active else f"uv pip install --python {python}"
    found = shutil.which("pip")
    # Not resolved: the interpreter of a virtual environment is a link to that of the system.
    is_own = found is not None and Path(found).parent == Path(sys.executable).parent
    return "pip install" if is_own else f"{python} -m pip install"


def _made_by_uv(prefix: Path) -> bool:
    """Whether uv has made this virtual environment, which has no pip then."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return False
    return any(line.partition("=")[0].strip() == "uv" for line in lines) and not has_package("pip")


def _quoted(path: str) -> str:
    return f'"{path}"' if " " in path else path
