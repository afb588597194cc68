"""The evaluation of code of the server in the user's kernel; sent there as source, and leaves no name behind."""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect as python_inspect
import json
from typing import Any

RESULT_TYPE = "application/vnd.navi.result"
MAX_RESULT = 4 * 1024 * 1024  # characters of JSON that a result may have


class Shown:
    """A result, as a MIME bundle of a type that no front end shows."""

    def __init__(self, value: Any) -> None:
        text = json.dumps(value, default=plain, ensure_ascii=True)
        if len(text) > MAX_RESULT:
            raise ValueError(f"the result is too large: {len(text)} characters of JSON, {MAX_RESULT} at most")
        self.text = text

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:  # noqa: ARG002
        return {RESULT_TYPE: self.text, "text/plain": ""}


def plain(value: Any) -> Any:
    """Values that JSON does not know as ones that it does: numbers of numpy, dates, sets; else the text."""
    for name in ("tolist", "isoformat", "item"):
        method = getattr(type(value), name, None)
        if method is not None:
            return method(value)
    return list(value) if isinstance(value, (set, frozenset, tuple)) else repr(value)[:1000]


def shell() -> Any:
    from IPython import get_ipython  # not at the top: this module is only ever source

    return get_ipython()


def evaluate(code: str, clean: bool = False) -> Shown:
    """Run statements; their ``_navi_result``. They see the user's names unless ``clean``; what they assign is gone."""
    names: dict[str, Any] = {"__name__": "navi"} if clean else dict(shell().user_ns)
    guard = shell().__dict__.get("_navi_guard")  # ``execution_guard``, which does not see what is evaluated here
    with contextlib.nullcontext() if guard is None else guard.execution():
        builtins.exec(compile(code, "<navi>", "exec"), names)  # noqa: S102 - what the server asks for
    return Shown(names.get("_navi_result"))


async def evaluate_async(code: str) -> None:
    """The same for code with ``await``; the result waits in the shell, for the user expression."""
    names = dict(shell().user_ns)  # a copy: what the code assigns is not left with the user
    compiled = compile(code, "<navi>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    waiting = builtins.eval(compiled, names)  # noqa: S307 - what the server asks for
    if python_inspect.isawaitable(waiting):
        await waiting
    shell().__dict__["_navi_shown"] = Shown(names.get("_navi_result"))
