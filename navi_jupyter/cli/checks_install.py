"""Is all of it installed: Python, packages, the server extension, the built JavaScript, the lab extension."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from jupyter_core.paths import jupyter_config_path, jupyter_path

from .. import __version__
from .finding import Finding

PACKAGE = Path(__file__).parent.parent
REINSTALL = "pip install --force-reinstall --no-deps navi-jupyter"
_NEEDED = (
    "jupyter_server",
    "ipykernel",
    "anywidget",
    "tornado",
    "pydantic",
    "pydantic-ai-slim",
    "aiosqlite",
)
_OPTIONAL = ("jupyterlab", "notebook")
_BUILT = ("widget.js", "navi-chat.js")


def python() -> Iterator[Finding]:
    """The interpreter that runs this. (An older one could not have imported it.)"""
    yield Finding("python", "ok", f"Python {platform.python_version()} at {sys.executable}")


def packages() -> Iterator[Finding]:
    """What we stand on, with versions."""
    found, missing = [f"navi-jupyter {__version__}"], []
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            if name in _NEEDED:
                missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", "pip install navi-jupyter")


def extension() -> Iterator[Finding]:
    """Would a server load the extension: it is enabled in a configuration file, and can be imported."""
    said = list(_switches())
    if not said:
        fix = "jupyter server extension enable navi_jupyter"
        yield Finding("extension", "fail", "no Jupyter configuration enables navi_jupyter", fix)
    elif said[-1][1]:
        yield Finding("extension", "ok", f"enabled in {said[-1][0]}")
    else:
        fix = "jupyter server extension enable navi_jupyter"
        yield Finding("extension", "fail", f"disabled in {said[-1][0]}", fix)
    try:
        from .. import _jupyter_server_extension_points

        name = _jupyter_server_extension_points()[0]["app"].name
    except ImportError as problem:
        yield Finding("extension", "fail", f"it can not be imported: {problem}", REINSTALL)
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
    """The bundle that the wheel brings."""
    missing = [name for name in _BUILT if not _filled(PACKAGE / "static" / name)]
    if missing:
        fix = "in a git checkout: pip install -e . (without NAVI_SKIP_JS); else: " + REINSTALL
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
                yield Finding("labextension", "warn", text, REINSTALL)
            return
    text = "not installed: in JupyterLab a chat will not survive a reload while its kernel is busy or gone"
    yield Finding("labextension", "warn", text, REINSTALL)


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
