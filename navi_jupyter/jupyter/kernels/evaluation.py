"""Code that makes a kernel evaluate something with nothing left behind, and the value in its reply.

What runs in the kernel is in ``injected``, and sent as source. A request to evaluate is silent; the value comes back as
a user expression, so that no front end shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import InvalidRequest
from ...injected import source
from ...input.json_input import load_json
from ...navi_cells import AGENT_USER
from .outputs import Outputs, error_of
from .requests import PATIENCE, until_ended
from .transport import ports_of, process_of

if TYPE_CHECKING:
    from .connection import KernelConnection

RESULT = "navi"  # the name of the user expression that gives the value
_RESULT_TYPE = "application/vnd.navi.result"


def evaluation(code: str, *, clean: bool) -> tuple[str, str]:
    """A cell and a user expression that together evaluate ``code``, which leaves its value in ``_navi_result``.

    ``clean``: it sees none of the user's names.
    """
    if clean or "await " not in code:
        return "", _call("evaluate", code, clean)
    # Only a cell may await. The value waits in the shell for the expression, under no name of the user's.
    taken = "__import__('IPython').get_ipython().__dict__.pop('_navi_shown')"
    return f"await {_call('evaluate_async', code)}", taken


def inspection(call: str) -> str:
    """Code to evaluate: the value of a call of a function in ``injected/inspect.py``."""
    return f"{source('time_limit', 'safe_values', 'library_values', 'inspect')}\n_navi_result = {call}\n"


async def guard(connection: KernelConnection, path: str | None) -> None:
    """Have the kernel's process, of this machine, end our code when this server may not act any more: once for each.

    ``path``: of the file that says so (``lease_file``). Called by the holder of the lock, while nothing runs.
    """
    process = process_of(connection.manager)
    local = ports_of(connection.manager) is not None and process is not None and connection.guarded != process
    if path is None or not local or connection.language.get("name") != "python":
        return
    expressions = guard_expressions(path)
    request = connection.send("", Outputs(), silent=True, store_history=False, expressions=expressions)
    if await until_ended(connection, request, PATIENCE) == "ok":
        connection.guarded = process


def guard_expressions(path: str) -> dict[str, str]:
    """The user expressions of a silent request that makes a kernel guard our code: see :func:`guard`."""
    return {RESULT: _call_of("execution_guard", "guard", path, AGENT_USER)}


def value_of(reply: Mapping[str, Any]) -> Any:
    """The value in the reply to an evaluation. Raises InvalidRequest with the error when there is none."""
    shown = (reply.get("user_expressions") or {}).get(RESULT) or {}
    if reply.get("status") != "ok" or shown.get("status") != "ok":
        failed = error_of(shown if shown.get("status") == "error" else reply)
        raise InvalidRequest(f"{failed['ename'] or 'Error'}: {failed['evalue']}"[:2000])
    # NaN and the infinities are Python's, not JSON's.
    return load_json(shown["data"][_RESULT_TYPE], parse_constant=lambda _: None)


def _call(function: str, *given: Any) -> str:
    """An expression that calls a function of ``injected/evaluate.py``, whatever the user has named like a builtin."""
    return _call_of("evaluate", function, *given)


def _call_of(module: str, function: str, *given: Any) -> str:
    run = f"(b.exec({source(module)!r}, g), g[{function!r}]({', '.join(map(repr, given))}))[1]"
    return f"(lambda b, g: {run})(__import__('builtins'), {{'__name__': 'navi'}})"
