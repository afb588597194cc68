"""Results of MCP servers' tools as outputs of tools: text, structured content, images.

Not responsible for results that are not as the protocol says (``answers``).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import mcp_types as types

from ...input.json_input import load_json
from ...output_text import OutputImage
from ...text import IMAGE_TYPES, truncate_middle
from ..tools.base import ToolOutput

MAX_TEXT = 60_000  # characters of a result that a model gets
MAX_IMAGES = 8
MAX_IMAGE_BYTES = 5 * 1024 * 1024
_NOTE = "ask the tool for less"


def output_of(result: types.CallToolResult) -> ToolOutput:
    """A tool's result. Text and structured content are the content; images go beside; other content is only named."""
    texts: list[str] = []
    images: list[OutputImage] = []
    for block in result.content:
        _add_block(block, texts, images)
    text = "\n\n".join(texts)
    content: Any = truncate_middle(text, MAX_TEXT, note=_NOTE)
    if result.structured_content is not None and not _repeats(text, result.structured_content):
        content = _with_structure(text, result.structured_content)
    if content == "" and not images:
        content = "It failed without a message." if result.is_error else "Done; it returned nothing."
    return ToolOutput(content=content, images=tuple(images), failed=result.is_error)


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
        parsed = load_json(text)
    except ValueError:
        return False
    return bool(parsed == structure or parsed == {"result": structure})


def _add_block(block: types.ContentBlock, texts: list[str], images: list[OutputImage]) -> None:
    match block:
        case types.TextContent(text=text):
            texts.append(text)
        case types.ImageContent(data=data, mime_type=kind):
            _add_image(data, kind, "image", texts, images)
        case types.AudioContent(data=data, mime_type=kind):
            texts.append(f"[audio, {kind}, {len(data) * 3 // 4} bytes: not shown]")
        case types.EmbeddedResource(resource=types.TextResourceContents() as resource):
            texts.append(f"[resource {resource.uri}, {resource.mime_type or 'unknown type'}]\n{resource.text}")
        case types.EmbeddedResource(resource=types.BlobResourceContents() as resource):
            kind = resource.mime_type or "unknown type"
            _add_image(resource.blob, kind, f"resource {resource.uri}", texts, images)
        case types.ResourceLink(uri=uri, name=name):
            texts.append(f"[resource {name}: {uri}]")


def _add_image(data: str, kind: str, name: str, texts: list[str], images: list[OutputImage]) -> None:
    size = len(data) * 3 // 4  # four characters of base64 are three bytes
    if kind not in IMAGE_TYPES or size > MAX_IMAGE_BYTES or len(images) >= MAX_IMAGES:
        texts.append(f"[{name}, {kind}, {size} bytes: not shown]")
        return
    try:
        images.append(OutputImage(media_type=kind, content=base64.b64decode(data, validate=True)))
    except (binascii.Error, ValueError):
        texts.append(f"[{name}, {kind}: not valid base64]")
