"""What kind of file some bytes are, by looking at them. Pure."""

from __future__ import annotations

import codecs
import re

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_SVG = re.compile(r"\A\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg[\s>]", re.DOTALL)
_TEXT_BY_ENDING = {
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "md": "text/markdown",
    "html": "text/html",
    "htm": "text/html",
    "json": "application/json",
    "ipynb": "application/x-ipynb+json",
    "py": "text/x-python",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
}
_CONTROL = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that no text has; tabs, line and page breaks and terminals' escapes are text."""
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Those that models take and browsers show without running anything."""


def media_type_of(content: bytes, *, name: str | None = None) -> str | None:
    """The media type; None for a binary that is none of those that are taken. Text is UTF-8 without control codes."""
    for magic, kind in _MAGIC:
        if content.startswith(magic):
            return kind
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if not _is_text(content):
        return None
    if _SVG.match(content[:4096].decode("utf-8", "ignore")):
        return "image/svg+xml"
    ending = (name or "").rpartition(".")[2].lower()
    return _TEXT_BY_ENDING.get(ending, "text/plain")


def is_text(media_type: str) -> bool:
    """Whether the content of such a file is text that a model can read as it is."""
    return media_type.startswith("text/") or media_type in _TEXT_BY_ENDING.values() or media_type == "image/svg+xml"


def _is_text(content: bytes) -> bool:
    if _CONTROL.search(content):
        return False
    try:
        codecs.decode(content, "utf-8")
    except UnicodeDecodeError:
        return False
    return True
