"""A notebook job of a ``%navi recall`` line or of ``navi.recall``, in the contract's form.

Looks at one file: whether a path is meant from the notebook's folder. ``run report.ipynb`` is read by
``timetext.notebook_jobs``, as on the server. Not responsible for judging it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...timetext.notebook_jobs import begins_as_job, read_job, take_parameter
from ..errors import UsageError

OPTIONS = ("kernel", "output", "then", "param")  # of a recall that executes a notebook
NotebookPath = Callable[[], str | None]  # of the notebook in whose cell something is written, from the server's root
JOB_HELP = "For example: %navi recall every weekday at 9 run report.ipynb -p n 7"


def add_parameter(options: dict[str, str], text: str) -> str:
    """Take ``n 7`` or ``n=7``, which follows ``-p``, into the options; the rest of the text. Raises UsageError."""
    taken = take_parameter(text)
    if taken is None:
        raise UsageError(f"-p takes a name and a value. {JOB_HELP}")
    name, value, rest = taken
    options["param"] = json.dumps({**json.loads(options.get("param", "{}")), name: value})
    return rest.lstrip()


def job_of(message: str, options: Mapping[str, str], notebook: NotebookPath) -> dict[str, Any] | None:
    """The job that a message and its options ask for; None where it is a prompt. Raises UsageError."""
    job = read_job(message)
    if job is None:
        if options:
            raise UsageError(f"--{next(iter(options))} goes with run <notebook>.ipynb. {JOB_HELP}")
        if path := begins_as_job(message):
            raise UsageError(
                f"What follows {path} is not understood. Write run {path} then … for a prompt about its result, "
                "-p name value for parameters, or begin a prompt with another word."
            )
        return None
    parameters = job.get("parameters", {}) | json.loads(options.get("param", "{}"))
    given = {name: text for name, text in options.items() if name != "param"}
    return job | given | {"path": from_root(job["path"], notebook)} | ({"parameters": parameters} if parameters else {})


def job_from(
    run: str | Mapping[str, Any], parameters: Mapping[str, Any] | None, given: Mapping[str, Any], notebook: NotebookPath
) -> dict[str, Any]:
    """The job of the keywords of ``navi.recall``. Raises UsageError."""
    if not isinstance(run, str):
        return dict(run)
    values = {} if parameters is None else dict(parameters)
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UsageError(f"parameters: only values of JSON can be stored: {error}.", field="parameters") from None
    return {
        "kind": "notebook",
        "path": from_root(run, notebook),
        "parameters": values,
        **{name: value for name, value in given.items() if value is not None},
    }


def from_root(path: str, notebook: NotebookPath) -> str:
    """A path as it is written in a cell, relative to the server's root: of the notebook's folder, if it is there.

    With a ``/`` before it, it is relative to the root already.
    """
    if path.startswith("/"):
        return path.lstrip("/")
    try:
        beside = Path(path).exists()  # the folder of a kernel is that of its notebook
    except (OSError, ValueError):
        beside = False
    own = notebook() if beside else None
    return path if own is None else posixpath.normpath(posixpath.join(posixpath.dirname(own), path))
