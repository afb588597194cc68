"""JSON-RPC messages of MCP servers, from bytes: also from such as are not quite JSON-RPC.

An answer that cannot be read is an error answer to the same request where its id can be found, so that its caller does
not wait until the time-out.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

import mcp_types as types
from pydantic import ValidationError
from pydantic_core import from_json

from ...input.json_input import decoded, well_formed_json

Message = types.JSONRPCMessage
# In quotes of either kind: some write Python's form of a value.
_ID = re.compile(rb"""["']id["']\s*:\s*(\d{1,15}|"[^"\\]{1,100}"|'[^'\\]{1,100}')""")
_OUTCOME = re.compile(rb"""["'](?:result|error)["']\s*:""")
_OURS = re.compile(rb"""["'](?:jsonrpc|result|error)["']\s*:""")
_METHOD = re.compile(rb"""["']method["']""")
_LONE_ID = re.compile(rb"""\s*["']id["']\s*:\s*(\d{1,15}|"[^"\\]{1,100}")\s*,?\s*""")  # a message over several lines
_MOST_CONTAINERS = 200_000  # lists and objects of a message: reading as many takes some 0.3 s of the event loop
_MAX_DEPTH = 200  # of a message: about as deep as the strict reader goes


def read(line: bytes) -> list[Message | Exception]:
    """The messages of a line or body: one, or those of a batch. An exception for what is none, and answers none."""
    line = line.removeprefix(codecs.BOM_UTF8)
    if line.count(b"[") + line.count(b"{") > _MOST_CONTAINERS:
        why = ValueError(f"it has more than {_MOST_CONTAINERS:,} lists and objects")
        failed = unreadable(line, line, f"The server's answer is not read: {why}.")
        return [failed if failed is not None else why]
    try:
        return [strict(well_formed_json(decoded(line)))]
    except ValueError as error:
        return _mended(line, error)


def strict(text: str | bytes) -> Message:
    """The message that this is, exactly as the protocol says. Raises ValueError.

    In two steps: pydantic's own reading of JSON copies the whole value for each mistake that it reports, which held the
    event loop for half a minute when an answer of 10 MB had no ``jsonrpc``.
    """
    return types.jsonrpc_message_adapter.validate_python(from_json(text), by_name=False)


def unreadable(head: bytes, tail: bytes, why: str) -> Message | None:
    """An error answer to the request that this was the answer to; None when it was none, or its id is not found."""
    lone = _LONE_ID.fullmatch(head)
    if lone is None and (_METHOD.search(head[:200]) or not (_OURS.search(head) or _OURS.search(tail))):
        return None  # a request or notification of the server, or a line of its log
    outcome = _OUTCOME.search(head)
    before = _ID.search(head, 0, outcome.start() if outcome else len(head))
    # An id that comes after the result is the last one of the line: those before it are in the result.
    found = before or next(reversed(list(_ID.finditer(tail))), None)
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace")
    request: int | str = text[1:-1] if text[0] in "\"'" else int(text)
    error = types.ErrorData(code=types.PARSE_ERROR, message=why)
    return types.JSONRPCError(jsonrpc="2.0", id=request, error=error)


def _mended(line: bytes, wrong: ValueError) -> list[Message | Exception]:
    try:
        # Bytes that are no UTF-8 are taken here, and NaN.
        value = json.loads(well_formed_json(line.decode("utf-8", "replace")), parse_constant=str)
        found = [_message(one) for one in (value if isinstance(value, list) else [value])]
        messages = [one for one in found if one is not None]
    except (ValueError, RecursionError) as error:
        why = wrong.errors()[0]["msg"] if isinstance(wrong, ValidationError) else str(error)
        failed = unreadable(line, line, f"The server's answer cannot be read: {why}")
        return [failed if failed is not None else wrong]
    if not messages and isinstance(value, dict):
        failed = unreadable(line, line, "The server's answer has neither a result nor an error.")
        return [failed if failed is not None else wrong]
    return [*messages] or [wrong]


def _message(value: Any) -> Message | None:
    """A message; None for a value that is none. Raises ValidationError."""
    if not isinstance(value, dict) or not value.keys() & {"method", "result", "error"}:
        return None
    raw = _pruned(value)
    raw["jsonrpc"] = "2.0"
    if isinstance(raw.get("id"), float) and raw["id"].is_integer():
        raw["id"] = int(raw["id"])
    if "method" not in raw:
        # Both are there in JSON-RPC 1.0, and one of them is null.
        if raw.get("error") is None:
            raw.pop("error", None)
        elif "result" in raw:
            del raw["result"]
        if "error" in raw:
            raw["error"] = _error(raw["error"])
        elif not isinstance(raw.get("result"), dict):
            raw["result"] = {"content": raw.get("result")}  # of a call: it is shown as text
    elif raw.get("id", 0) is None:
        del raw["id"]
    return types.jsonrpc_message_adapter.validate_python(raw, by_name=False)


def _error(value: Any) -> dict[str, Any]:
    error = dict(value) if isinstance(value, dict) else {"message": value}
    if not isinstance(error.get("code"), int):
        error["code"] = types.INTERNAL_ERROR
    if not isinstance(error.get("message"), str):
        error["message"] = json.dumps(error.get("message"), ensure_ascii=False)
    return error


def _pruned(value: Any, depth: int = _MAX_DEPTH) -> Any:
    """The value without what is nested too deeply, so that the rest of a listing can be read."""
    if not isinstance(value, list | dict):
        return value
    if depth == 0:
        return "(nested too deeply)"
    if isinstance(value, list):
        return [_pruned(one, depth - 1) for one in value]
    return {name: _pruned(one, depth - 1) for name, one in value.items()}
