"""A prompt of an editor: content blocks of the Agent Client Protocol in, the fields of a `prompt` command out.

Source: https://agentclientprotocol.com/protocol/content. Texts become the text; images, embedded resources and files of
this machine are uploaded; a file below the server's root is mentioned, and read by the server. Not responsible for
which types and sizes the server takes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from acp import RequestError, schema

from ...kernel.client.client import Client
from .folders import path_below

Block = (
    schema.TextContentBlock
    | schema.ImageContentBlock
    | schema.AudioContentBlock
    | schema.ResourceContentBlock
    | schema.EmbeddedResourceContentBlock
)

CAPABILITIES = schema.PromptCapabilities(image=True, audio=False, embedded_context=True)
"""What a prompt may have, as `initialize` reports it."""

MOST_FILES = 20  # attachments of a prompt, as the server takes them
_LARGEST_LINKED = 5 * 2**20  # bytes of a file of this machine that is read because a prompt links to it


class PromptReader:
    """Reads the prompts of one session. ``root``: the server's folder, where that is on this machine."""

    def __init__(self, client: Client, root: Path | None) -> None:
        self._client = client
        self._root = root
        self._texts: list[str] = []
        self._references: dict[str, list[dict[str, str]]] = {"images": [], "files": []}
        self._mentions: list[str] = []

    async def read(self, blocks: Sequence[Block]) -> dict[str, Any]:
        """``text``, and ``images``, ``files``, ``mentions`` where there are any.

        Raises RequestError for what cannot be taken, and the client's KernelErrors.
        """
        for number, block in enumerate(blocks, start=1):
            match block:
                case schema.TextContentBlock():
                    self._texts.append(block.text)
                case schema.ImageContentBlock():
                    name = _name(block.uri) or f"image-{number}{mimetypes.guess_extension(block.mime_type) or ''}"
                    await self._upload("images", _decoded(block.data), name, block.mime_type)
                case schema.EmbeddedResourceContentBlock():
                    await self._resource(block.resource, number)
                case schema.ResourceContentBlock():
                    await self._link(block)
                case _:
                    raise refused("Sound is not taken: send text, images or files.")
        text = "".join(self._texts).strip()
        if not text:
            if not any(self._references.values()):
                raise refused("The prompt is empty.")
            text = "Look at what is attached."
        lists: dict[str, Any] = {**self._references, "mentions": list(dict.fromkeys(self._mentions))}
        return {"text": text, **{name: items for name, items in lists.items() if items}}

    async def _resource(self, resource: schema.TextResourceContents | schema.BlobResourceContents, number: int) -> None:
        name = _name(resource.uri) or f"resource-{number}"
        if isinstance(resource, schema.TextResourceContents):
            # As text, whatever the editor calls it: "application/x-python" is nothing that models are given.
            await self._upload("files", resource.text.encode(), name, "text/plain")
        else:
            await self._upload("files", _decoded(resource.blob), name, _media_type(name, resource.mime_type))
        self._texts.append(f"`{name}`")

    async def _link(self, block: schema.ResourceContentBlock) -> None:
        """A link to a file: by the server where that has it, by its content where only this machine has it."""
        path = _local_path(block.uri)
        if path is None:
            self._texts.append(f"[{block.name}]({block.uri})")
            return
        below = path_below(path, self._root)
        if below and not any(character in below for character in '"\n'):
            self._mentions.append(f'@file:"{below}"')
            self._texts.append(self._mentions[-1])
            return
        content = await asyncio.to_thread(_content, path)
        if content is not None:
            await self._upload("files", content, path.name, _media_type(path.name, block.mime_type))
        self._texts.append(f"`{path}`")

    async def _upload(self, kind: str, content: bytes, name: str, media_type: str) -> None:
        if sum(map(len, self._references.values())) >= MOST_FILES:
            raise refused(f"A prompt takes at most {MOST_FILES} images and files.")
        stored = await self._client.upload(content, name=name[-200:], media_type=media_type)
        self._references[kind].append({"id": str(stored["id"])})


def refused(words: str, **data: Any) -> RequestError:
    """JSON-RPC's error for parameters that cannot be taken."""
    return RequestError(-32602, words, data or None)


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        return None
    path = unquote(parts.path)
    # A drive of Windows stands behind a slash in a URL: file:///C:/notes.md.
    return Path(path[1:] if path[2:3] == ":" else path)


def _content(path: Path) -> bytes | None:
    """The content of a regular file that is not too large; None: it is only named."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_LINKED:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise refused("The data of an image or a resource is not base64.") from None


def _name(uri: str | None) -> str:
    return unquote(urlsplit(uri or "").path).rstrip("/").rpartition("/")[2]


def _media_type(name: str, given: str | None) -> str:
    return given or mimetypes.guess_type(name)[0] or "application/octet-stream"
