"""Results of MCP tools as tool outputs: text of bounded size, images apart."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mcp_types as types

from ...output_text import OutputImage
from ...text import IMAGE_TYPES, truncate_middle
from ..tools.base import ToolOutput

MAX_TEXT = 60_000  # characters of a result that a model gets
MAX_IMAGES = 8
MAX_IMAGE_BYTES = 5 * 1024 * 1024
_NOTE = "ask the tool for less"


def output_of(result: types.CallToolResult) -> ToolOutput:
    """A tool's result. Text and structured content are the content; images go beside; other content is only named."""
    collected = _Blocks()
    for block in result.content:
        collected.add(block)
    text = "\n\n".join(collected.texts)
    content: Any = truncate_middle(text, MAX_TEXT, note=_NOTE)
    if result.structured_content is not None and not _repeats(text, result.structured_content):
        content = _with_structure(text, result.structured_content)
    if content == "" and not collected.images:
        content = "It failed without a message." if result.is_error else "Done; it returned nothing."
    return ToolOutput(content=content, images=tuple(collected.images), failed=result.is_error)


def _with_structure(text: str, structure: Any) -> Any:
    dumped = json.dumps(structure, ensure_ascii=False, default=str)
    if len(dumped) > MAX_TEXT:
        return truncate_middle(f"{text}\n\n{dumped}" if text else dumped, MAX_TEXT, note=_NOTE)
    return {"text": truncate_middle(text, MAX_TEXT, note=_NOTE), "structured": structure} if text else structure


def _repeats(text: str, structure: Any) -> bool:
    """Whether a text is the structured content again, which servers send for older clients."""
    if isinstance(structure, dict) and list(structure) == ["result"]:
        if structure["result"] == text:
            return True
        structure = structure["result"]
    if len(text) > MAX_TEXT or text[:1] not in ("{", "["):
        return isinstance(structure, str | int | float | bool) and str(structure) == text
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(parsed == structure or parsed == {"result": structure})


class _Blocks:
    """The texts and images of content blocks."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.images: list[OutputImage] = []

    def add(self, block: types.ContentBlock) -> None:
        match block:
            case types.TextContent(text=text):
                self.texts.append(text)
            case types.ImageContent(data=data, mime_type=kind):
                self._add_image(data, kind, "image")
            case types.AudioContent(data=data, mime_type=kind):
                self.texts.append(f"[audio, {kind}, {len(data) * 3 // 4} bytes: not shown]")
            case types.EmbeddedResource(resource=resource):
                self._add_resource(resource)
            case types.ResourceLink(uri=uri, name=name):
                self.texts.append(f"[resource {name}: {uri}]")

    def _add_resource(self, resource: types.TextResourceContents | types.BlobResourceContents) -> None:
        kind = resource.mime_type or "unknown type"
        if isinstance(resource, types.TextResourceContents):
            self.texts.append(f"[resource {resource.uri}, {kind}]\n{resource.text}")
        else:
            self._add_image(resource.blob, kind, f"resource {resource.uri}")

    def _add_image(self, data: str, kind: str, name: str) -> None:
        size = len(data) * 3 // 4  # four characters of base64 are three bytes
        if kind not in IMAGE_TYPES or size > MAX_IMAGE_BYTES or len(self.images) >= MAX_IMAGES:
            self.texts.append(f"[{name}, {kind}, {size} bytes: not shown]")
            return
        try:
            content = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            self.texts.append(f"[{name}, {kind}: not valid base64]")
            return
        self.images.append(OutputImage(media_type=kind, content=content))
