"""What a server answers, as what a model reads: bounded, pictures apart."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mcp_types as types

from ..tools.base import Picture, ToolOutput

MAX_TEXT = 60_000
"""Characters of a result that a model gets."""
MAX_PICTURES = 8
MAX_PICTURE = 5 * 1024 * 1024
"""Bytes."""
SEEN = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The types of pictures that models take."""


def output_of(result: types.CallToolResult) -> ToolOutput:
    """A tool's result. Text and structured content are the content; pictures go beside; the rest is named."""
    collected = _Collected()
    for block in result.content:
        collected.add(block)
    text = "\n\n".join(collected.texts)
    content: Any = cut(text)
    if result.structured_content is not None and not _says_the_same(text, result.structured_content):
        content = _with_structure(text, result.structured_content)
    if content == "" and not collected.pictures:
        content = "It failed and does not say why." if result.is_error else "Done; it returned nothing."
    return ToolOutput(content=content, pictures=tuple(collected.pictures), failed=result.is_error)


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """``text`` with its middle left out if it is too long, and a word about that."""
    if len(text) <= limit:
        return text
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[… {left_out} of {len(text)} characters left out; ask the tool for less …]\n{text[-half:]}"


def _with_structure(text: str, structure: Any) -> Any:
    dumped = json.dumps(structure, ensure_ascii=False, default=str)
    if len(dumped) > MAX_TEXT:
        return cut(f"{text}\n\n{dumped}" if text else dumped)
    return {"text": cut(text), "structured": structure} if text else structure


def _says_the_same(text: str, structure: Any) -> bool:
    """Servers send structured content as text, too, for clients that know no better."""
    if isinstance(structure, dict) and list(structure) == ["result"]:
        if structure["result"] == text:
            return True
        structure = structure["result"]
    if len(text) > MAX_TEXT or text[:1] not in ("{", "["):
        return isinstance(structure, str | int | float | bool) and str(structure) == text
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(said == structure or said == {"result": structure})


class _Collected:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.pictures: list[Picture] = []

    def add(self, block: types.ContentBlock) -> None:
        match block:
            case types.TextContent(text=text):
                self.texts.append(text)
            case types.ImageContent(data=data, mime_type=kind):
                self._picture(data, kind, "picture")
            case types.AudioContent(data=data, mime_type=kind):
                self.texts.append(f"[audio, {kind}, {len(data) * 3 // 4} bytes: not shown]")
            case types.EmbeddedResource(resource=resource):
                self._resource(resource)
            case types.ResourceLink(uri=uri, name=name):
                self.texts.append(f"[resource {name}: {uri}]")

    def _resource(self, resource: types.TextResourceContents | types.BlobResourceContents) -> None:
        kind = resource.mime_type or "unknown type"
        if isinstance(resource, types.TextResourceContents):
            self.texts.append(f"[resource {resource.uri}, {kind}]\n{resource.text}")
        else:
            self._picture(resource.blob, kind, f"resource {resource.uri}")

    def _picture(self, data: str, kind: str, called: str) -> None:
        size = len(data) * 3 // 4
        if kind not in SEEN or size > MAX_PICTURE or len(self.pictures) >= MAX_PICTURES:
            self.texts.append(f"[{called}, {kind}, {size} bytes: not shown]")
            return
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            self.texts.append(f"[{called}, {kind}: not valid base64]")
            return
        self.pictures.append(Picture(media_type=kind, content=content))
