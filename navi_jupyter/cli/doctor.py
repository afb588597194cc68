"""``navi doctor``: looks at this installation piece by piece, and says what to do about what is wrong.

Changes nothing: the user's database is only read, and what has to be tried out is tried on a file of its own beside it.
Shows the names of keys, never their values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from . import checks_database, checks_install, checks_reach
from .finding import Finding

CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
    ("python", checks_install.python),
    ("packages", checks_install.packages),
    ("extension", checks_install.extension),
    ("javascript", checks_install.javascript),
    ("labextension", checks_install.labextension),
    ("database", checks_database.database),
    ("kernels", checks_reach.kernels),
    ("server", checks_reach.server),
    ("models", checks_reach.models),
)


def doctor(*, as_json: bool = False) -> int:
    """Run all checks, print each finding; the exit status: 1 when something fails."""
    failed = False
    for name, check in CHECKS:
        for finding in _found(name, check):
            failed = failed or finding.status == "fail"
            sys.stdout.write(_line(finding, as_json=as_json) + "\n")
            sys.stdout.flush()
    return 1 if failed else 0


def _found(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as problem:  # noqa: BLE001 - one broken piece must not hide the findings about the others
        yield Finding(name, "fail", f"the check itself failed: {type(problem).__name__}: {problem}", "report this")


def _line(finding: Finding, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(asdict(finding))
    line = f"{finding.status:<5} {finding.check:<13} {finding.text}"
    return line if finding.fix is None else f"{line}\n{'':<20}-> {finding.fix}"
