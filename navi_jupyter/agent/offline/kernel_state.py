"""Answers about the kernel's state, as Markdown: its variables, one of them, the last error. Pure: tool results in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest

from ...text import code_block, one_line, plural, strip_ansi
from .replies import Outcome, failure

_TEXTS = ("head", "text", "items", "describe", "traceback", "signature", "source")
"""Parts of a description that are shown as blocks of code, in this order; where there is a traceback, it alone."""


def variables(outcome: Outcome) -> str:
    """Which variables there are."""
    if error := failure(outcome):
        return f"I could not look: {error}"
    found, count = outcome["variables"], outcome["count"]
    if not found:
        return "There are no such variables in the kernel."
    rows = "\n".join(f"- `{one['name']}`: {_about(one)}" for one in found)
    more = f"\n\n({count - len(found)} more; ask for some by `variables like x*`.)" if count > len(found) else ""
    return f"{plural(count, 'variable')} in the kernel:\n\n{rows}{more}"


def variable(outcome: Outcome) -> str:
    """What a variable holds."""
    if error := failure(outcome):
        more = "Ask `what variables are there`; for all else I need a language model."
        return f"I could not show that: {error}\n\n{more}"
    parts = [f"**`{outcome['name']}`**: {_about(outcome)}"]
    for name in _TEXTS:
        value = outcome.get(name)
        if isinstance(value, Mapping):
            value = "\n".join(f"{key}: {item}" for key, item in value.items())
        elif isinstance(value, list):
            value = "\n".join(map(str, value))
        if value and str(value) != outcome.get("preview"):
            parts.append(code_block(strip_ansi(str(value))))
    if missing := outcome.get("missing"):
        listed = missing if not isinstance(missing, Mapping) else ", ".join(f"{key} {n}" for key, n in missing.items())
        parts.append(f"Missing values: {listed}")
    return "\n\n".join(parts)


def _about(one: Outcome) -> str:
    """``pandas.DataFrame (3 × 2)``, ``int 3``."""
    shape = f" ({' × '.join(map(str, one['shape']))})" if one.get("shape") else ""
    preview = one_line(str(one.get("preview") or ""), 80)
    return f"{one['type']}{shape}" + (f" `{preview.replace('`', chr(39))}`" if preview else "")


_CELL = re.compile(r"^--- \[(\d+)\] code In\[(\d+| )\]", re.MULTILINE)
_FAILED = re.compile(r"Traceback \(most recent call last\)|^\w*(?:Error|Exception|Interrupt)\b.*", re.MULTILINE)


def last_error(error: Outcome, notebook: Outcome | None = None) -> str:
    """The last error of the kernel, else that of the cell of the notebook that failed last."""
    if traceback := error.get("traceback"):
        kind = str(error.get("type") or "an error").rpartition(".")[2]
        return f"The last error in the kernel was `{kind}`:\n\n{code_block(strip_ansi(str(traceback)))}"
    if error.get("error") == "tool_denied":
        return f"I could not look: {error['message']}"
    text = str((notebook or {}).get("text", ""))
    starts = [*_CELL.finditer(text)]
    failed: list[tuple[int, str, str]] = []
    for cell, following in zip_longest(starts, starts[1:]):
        _, has_output, output = text[cell.end() : following.start() if following else len(text)].partition("--- output")
        if has_output and _FAILED.search(output):
            failed.append((int(cell[2]) if cell[2].strip() else 0, cell[1], output.strip()))
    if failed:
        count, index, output = max(failed)
        return f"Cell {index} (In[{count}]) of the notebook failed:\n\n{code_block(strip_ansi(output))}"
    unreadable = failure(error) if error.get("error") == "kernel_unavailable" else failure(notebook or {})
    return f"I found nothing that failed in this notebook.{f' ({unreadable})' if unreadable else ''}"
