"""The agent's Markdown, made safe to show in a notebook.

It is not trusted: it may repeat what the agent read in a file or on a page. In a trusted notebook a front end renders
Markdown *with* its HTML, scripts included, and a remote image leaks data in its URL. So a cell gets HTML made here (raw
HTML escaped, images as links, script links disabled), and beside it Markdown with the same constructs disabled.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_FENCE = re.compile(r"(`{3,}|~{3,})([^`]*)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])(?!(?:https?:|mailto:)[^<>\s]*>)")
_SCHEME = re.compile(r"(javascript|vbscript|data)(?=[\s\\]*:)", re.IGNORECASE)  # a backslash may stand before the colon
_ENTITY = re.compile(r"&(?=#|colon|tab|newline)", re.IGNORECASE)
_BREAK = "\u200b"  # invisible; between two characters it breaks a construct


def defused(text: str) -> str:
    """Markdown with images, HTML tags, entities and script links disabled, outside of fenced code.

    Only a fence at the left margin counts, and none behind anything that another parser of Markdown could take for a
    fence (in a list, in a quote): what may be outside of code is treated as outside.
    """
    lines, fence, clear = [], "", True
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            lines.append(line)
            continue
        if clear and mark and mark.end() == len(line):
            fence = mark[1]
        elif "```" in line or "~~~" in line:
            clear = False
        lines.append(_defused_line(line))
    return "\n".join(lines)


def _defused_line(line: str) -> str:
    line = _TAG.sub("<" + _BREAK, line).replace("![", "!" + _BREAK + "[")
    return _ENTITY.sub("&" + _BREAK, _SCHEME.sub(rf"\1{_BREAK}", line))


def closed(text: str) -> str:
    """``text`` with a fence at its left margin closed if it is still open, so that what follows is not swallowed."""
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not mark[2].strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


def literal(text: str) -> str:
    """Markdown that shows ``text`` literally."""
    return re.sub(r"([\\`*_\[\]<>!#|~&$])", r"\\\1", text)


def to_html(text: str) -> str | None:
    """``text`` as HTML that is safe in a page; None in a kernel without mistune (it comes with Jupyter's nbconvert)."""
    converter = _converter()
    return None if converter is None else str(converter(text))


@lru_cache(maxsize=1)
def _converter() -> Callable[[str], Any] | None:
    try:
        import mistune  # imported here: needed by the first answer, not by the import of this package
    except ImportError:
        return None

    class Renderer(mistune.HTMLRenderer):
        """Images become links: nothing is loaded before a click."""

        def link(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002
            return f'<a href="{self.safe_url(url)}" target="_blank" rel="noopener noreferrer">{text}</a>'

        def image(self, text: str, url: str, title: str | None = None) -> str:  # noqa: ARG002
            return self.link(mistune.escape(text) or "image", url)

    return mistune.create_markdown(renderer=Renderer(escape=True), plugins=["strikethrough", "table", "math"])
