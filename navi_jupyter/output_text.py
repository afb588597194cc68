"""Outputs of cells, as nbformat has them: their text, their tracebacks, their images, and patches of them. Pure.

Not responsible for how much of the text a reader gets (``text.truncate_middle``). Decoding images takes milliseconds:
call it in a thread.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import unescape
from itertools import groupby
from typing import Any

from .text import IMAGE_TYPES, joined, terminal_text, truncate_middle

MAX_HTML = 50_000
"""Characters of HTML that are searched for text: a table of a thousand rows is 100 kB, and its beginning is enough."""
MAX_CAPTION = 200
"""Characters up to which the text beside an image only names it (``<Figure size 640x480 with 1 Axes>``)."""

_DRAWINGS = (*IMAGE_TYPES, "image/svg+xml")
_DEFAULT_REPR = re.compile(r"<[\w.]+(?: object)?(?: at 0x[0-9a-f]+)?>")
_HTML_TAG = re.compile(r"(<[^<>]*>)")
_HTML_BREAK = re.compile(r"</(?:tr|p|div|li|h[1-6]|table)\b|<br\b", re.IGNORECASE)
_HTML_HIDDEN = re.compile(r"<(/?)(?:script|style)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputImage:
    """An image that a cell displayed."""

    media_type: str
    content: bytes


def merge_streams(outputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Outputs with adjacent pieces of the same stream as one."""
    merged: list[dict[str, Any]] = []
    for key, group in groupby(outputs, key=_stream_key):
        pieces = [dict(output) for output in group]
        if key is not None:
            pieces = [pieces[0] | {"text": "".join(joined(output.get("text")) for output in pieces)}]
        merged += pieces
    return merged


def outputs_text(
    outputs: Iterable[Mapping[str, Any]], *, traceback_limit: int | None = None, name_images: bool = False
) -> str:
    """The text of outputs in order; each output begins on a line of its own.

    Errors are left out unless ``traceback_limit`` says how many characters each may have. ``name_images``: an image is
    named by its number (``[image 1]``), and an output without any text by its media types; else they add nothing.
    """
    pieces: list[str] = []
    images = 0
    # Merged first: a kernel flushes in the middle of lines and between the states of a progress bar.
    for output in merge_streams(outputs):
        data = output.get("data") or {}
        if output.get("output_type") == "stream":
            text = terminal_text(joined(output.get("text")))
        elif output.get("output_type") == "error":
            text = traceback_text(output, traceback_limit) if traceback_limit is not None else ""
        elif name_images and is_image(data):
            images += 1
            text = f"[image {images}] {_plain_text(data)}".rstrip()
        else:
            text = bundle_text(data) or (f"[{', '.join(data)}]" if name_images and data else "")
        pieces.append(text)
    lines = (f"{piece}\n" if not piece.endswith("\n") else piece for piece in pieces if piece)
    return "".join(lines).strip("\n")


_KINDS = {"pyout": "execute_result", "pyerr": "error"}  # what nbformat 3 calls them; also found in files of 4
_NAMES = {
    "text": "text/plain",
    "html": "text/html",
    "latex": "text/latex",
    "json": "application/json",
    "javascript": "application/javascript",
    "png": "image/png",
    "jpeg": "image/jpeg",
    "svg": "image/svg+xml",
}
"""Media types by the names that nbformat 3 has for them."""


def readable_outputs(outputs: object) -> tuple[list[dict[str, Any]], list[str]]:
    """Outputs of a file as nbformat 4 has them, whatever the file has; and what could not be read."""
    if outputs is None:
        return [], []
    if not isinstance(outputs, Sequence) or isinstance(outputs, str):
        return [], ["its outputs are no list"]
    found, unread = [], []
    for place, output in enumerate(outputs):
        one = _readable(output) if isinstance(output, Mapping) else None
        if one is None:
            unread.append(f"outputs[{place}]{_kind_words(output)}")
        else:
            found.append(one)
    return found, unread


def _kind_words(output: object) -> str:
    kind = output.get("output_type") if isinstance(output, Mapping) else None
    return f" ({str(kind)[:40]})" if kind else ""


def _readable(output: Mapping[str, Any]) -> dict[str, Any] | None:
    """None: nothing of it can be shown."""
    kind = output.get("output_type")
    kind = _KINDS.get(kind, kind) if isinstance(kind, str) else None
    if kind == "error":
        trace = output.get("traceback")
        lines = [trace] if isinstance(trace, str) else trace if isinstance(trace, Sequence) else ()
        names = {name: str(output.get(name) or "") for name in ("ename", "evalue")}
        return {**output, "output_type": kind, **names, "traceback": [str(line) for line in lines]}
    data = output.get("data")
    if not isinstance(data, Mapping):
        data = {media: output[name] for name, media in _NAMES.items() if output.get(name) is not None}
    if kind == "stream":
        text, name = output.get("text"), output.get("name")
        if not isinstance(text, str | list):
            return None
        return {**output, "text": joined(text), "name": name if isinstance(name, str) else "stdout"}
    # Of a kind that is not known: what it displays can be shown all the same.
    if not data:
        return dict(output) if kind in ("display_data", "execute_result") and data == output.get("data") else None
    kind = kind if kind in ("display_data", "execute_result") else "display_data"
    return {**output, "output_type": kind, "data": {str(name): value for name, value in data.items()}}


def _stream_key(output: Mapping[str, Any]) -> str | None:
    return str(output.get("name", "stdout")) if output.get("output_type") == "stream" else None


def bundle_text(data: Mapping[str, Any]) -> str:
    """The text of a MIME bundle; empty for an image with a short caption.

    Where the plain text is only the default ``repr`` of an object, its LaTeX, HTML or JSON says more.
    """
    text = _plain_text(data)
    if is_image(data) and len(text) < MAX_CAPTION:
        return ""
    if not text or _DEFAULT_REPR.fullmatch(text.strip()):
        html, value = joined(data.get("text/html"))[:MAX_HTML], data.get("application/json")
        rich = joined(data.get("text/latex")) or _html_text(html) or ("" if value is None else str(value))
        text = terminal_text(rich) or text
    return text


def _plain_text(data: Mapping[str, Any]) -> str:
    return terminal_text(joined(data.get("text/markdown") or data.get("text/plain")))


def _html_text(html: str) -> str:
    """The text of HTML, a line for each row or block, without scripts and styles."""
    pieces: list[str] = []
    visible = True
    for piece in _HTML_TAG.split(html):
        if not piece.startswith("<"):
            pieces.append(unescape(piece) if visible else "")
        elif hidden := _HTML_HIDDEN.match(piece):
            visible = bool(hidden[1])
        else:
            pieces.append("\n" if _HTML_BREAK.match(piece) else " ")
    lines = (" ".join(line.split()) for line in "".join(pieces).splitlines())
    return "\n".join(line for line in lines if line)


def error_line(error: Mapping[str, Any]) -> str:
    """``ZeroDivisionError: division by zero``, of an output of the type ``error``."""
    return terminal_text(f"{error.get('ename', 'Error')}: {error.get('evalue', '')}").strip()


def traceback_text(error: Mapping[str, Any], limit: int | None = None) -> str:
    """The traceback of an output of the type ``error``, at most about ``limit`` characters of it.

    Two thirds of what is kept are its end, which names the line.
    """
    summary = error_line(error)
    text = terminal_text("\n".join(map(str, error.get("traceback") or ()))).strip("\n")
    if limit is not None:
        text, summary = truncate_middle(text, limit, head=1 / 3), summary[:limit]
    # Some kernels send no traceback, others one without the error's own line.
    return text if str(error.get("ename", "Error")) in text else f"{text}\n{summary}".strip("\n")


def tracebacks_text(outputs: Iterable[Mapping[str, Any]]) -> str:
    """The tracebacks of all outputs of the type ``error``."""
    return "\n".join(traceback_text(output) for output in outputs if output.get("output_type") == "error")


def is_image(data: Mapping[str, Any]) -> bool:
    """Whether a MIME bundle has an image, be it one that only browsers can show (SVG)."""
    return any(kind in data for kind in _DRAWINGS)


def output_images(
    outputs: Sequence[Mapping[str, Any]], *, limit: int, max_bytes: int, last: bool = False
) -> tuple[list[OutputImage], int]:
    """At most ``limit`` images, the first ones (or the ``last``), and how many outputs displayed one.

    Left out are drawings (SVG), which models cannot see, images over ``max_bytes``, and content that is not base64.
    """
    bundles = [data for output in outputs if is_image(data := output.get("data") or {})]
    chosen: list[OutputImage] = []
    for data in bundles[-limit:] if last else bundles:
        image = _image(data, max_bytes)
        if image is not None and len(chosen) < limit:
            chosen.append(image)
    return chosen, len(bundles)


def _image(data: Mapping[str, Any], max_bytes: int) -> OutputImage | None:
    kind = next((kind for kind in IMAGE_TYPES if kind in data), None)
    encoded = joined(data[kind]) if kind is not None else ""
    # Measured before it is decoded: three bytes are four characters of base64.
    if kind is None or not encoded or len(encoded) > max_bytes * 4 / 3:
        return None
    try:
        return OutputImage(media_type=kind, content=base64.b64decode(encoded))
    except (binascii.Error, ValueError):
        return None


def patched(document: dict[str, Any], operations: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The content of a tool call's activity after a JSON Patch (RFC 6902), changed in place.

    An operation that does not fit is left out.
    """
    # Imported here: 13 ms that only a run with streaming tools costs, instead of every kernel that loads Navi.
    from jsonpatch import JsonPatch, JsonPatchException, JsonPointerException

    for operation in operations:
        # One at a time: another version's server may emit one that does not fit, and the others still count.
        with suppress(JsonPatchException, JsonPointerException, LookupError, TypeError, ValueError):
            result = JsonPatch([operation]).apply(document, in_place=True, atomic=True)
            if isinstance(result, dict):  # an operation on the whole document may make anything of it
                document = result
    return document
