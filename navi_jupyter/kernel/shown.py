"""What a tool showed while it worked, drawn in a cell: nbformat's outputs as HTML and as plain text. Pure.

The outputs come from code that ran for the agent: HTML of theirs is not drawn, everything is escaped.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from .run_view import attachment_of

_LONGEST = 4000
"""Characters of one output; its end is what counts."""
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def output_html(output: Mapping[str, Any], pictures: Mapping[str, tuple[str, bytes]]) -> str:
    """One output. ``pictures``: the content of attachments that are here."""
    data = output.get("data") or {}
    for kind in _PICTURES:
        content = data.get(kind)
        if content is None:
            continue
        found = pictures.get(attachment_of(content) or "")
        if isinstance(content, str):
            return _picture(kind, content)
        if found is not None:
            return _picture(found[0], base64.b64encode(found[1]).decode())
    text = output_plain(output)
    return f"<pre>{escape(text)}</pre>" if text.strip() else ""


def output_plain(output: Mapping[str, Any]) -> str:
    """One output as text, without colours; what has none is named."""
    match output.get("output_type"):
        case "stream":
            return _cut(_joined(output.get("text")))
        case "error":
            return f"{output.get('ename', 'Error')}: {_cut(str(output.get('evalue', '')))}\n"
        case _:
            data = output.get("data") or {}
            text = data.get("text/plain")
            if isinstance(text, (str, list)):
                return _cut(_joined(text)) + "\n"
            return f"[{', '.join(data)}]\n" if data else ""


def _picture(kind: str, content: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9+/=]", "", content)
    return f'<p><img src="data:{escape(kind, quote=True)};base64,{safe}" style="max-width:100%"></p>'


def _joined(text: Any) -> str:
    whole = "".join(map(str, text)) if isinstance(text, list) else str(text or "")
    return _COLOURS.sub("", whole)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else "…" + text[-_LONGEST:]
