"""Attachments of a prompt: figures, PIL images, bytes and files of this kernel's disk, uploaded to the server.

Not responsible for which types and sizes the server accepts.
"""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..text import IMAGE_TYPES
from .client.client import Client, Service
from .client.io_thread import io_thread
from .errors import UsageError


@dataclass(frozen=True, kw_only=True)
class KernelAttachment:
    """A file to upload."""

    name: str
    content: bytes
    media_type: str = "application/octet-stream"

    @property
    def is_image(self) -> bool:
        """Whether it is an image that models read."""
        return self.media_type in IMAGE_TYPES


def attachment_from(thing: Any, *, number: int = 1) -> KernelAttachment:
    """``thing`` as a file. Raises UsageError for a type that is none of the above."""
    if isinstance(thing, KernelAttachment):
        return thing
    if isinstance(thing, (str, Path)):
        return _file(Path(thing))
    if isinstance(thing, (bytes, bytearray, memoryview)):
        content = bytes(thing)
        return KernelAttachment(name=f"data-{number}", content=content, media_type=_guess_type(content))
    if hasattr(thing, "savefig") or hasattr(thing, "get_figure"):  # a matplotlib figure, or its axes
        return _figure(thing if hasattr(thing, "savefig") else thing.get_figure(), number)
    if hasattr(thing, "save") and hasattr(thing, "mode") and hasattr(thing, "size"):  # a PIL image
        buffer = io.BytesIO()
        thing.save(buffer, format="PNG")
        return KernelAttachment(name=f"image-{number}.png", content=buffer.getvalue(), media_type="image/png")
    raise UsageError(
        f"{type(thing).__name__} cannot be attached: give a matplotlib figure, a PIL image, bytes or a path."
    )


def _file(path: Path) -> KernelAttachment:
    try:
        content = path.expanduser().read_bytes()
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}.") from None
    kind, _ = mimetypes.guess_type(path.name)
    return KernelAttachment(name=path.name, content=content, media_type=kind or _guess_type(content))


def _figure(figure: Any, number: int) -> KernelAttachment:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return KernelAttachment(name=f"figure-{number}.png", content=buffer.getvalue(), media_type="image/png")


def _guess_type(content: bytes) -> str:
    """Images by their first bytes, all else as bytes; the server checks the content itself."""
    for magic, kind in ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif")):
        if content.startswith(magic):
            return kind
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else "application/octet-stream"


def upload(service: Service, things: Iterable[Any]) -> list[dict[str, str]]:
    """Upload each; the references for the prompt. Raises UsageError, Refused, Unreachable."""
    return [io_thread().wait(upload_one(service.client, thing, number)) for number, thing in enumerate(things, start=1)]


async def upload_one(client: Client, thing: Any, number: int = 1) -> dict[str, str]:
    """Upload one; its reference. A client's own loop. Raises UsageError, Refused, Unreachable."""
    file = attachment_from(thing, number=number)
    stored = await client.upload(file.content, name=file.name, media_type=file.media_type)
    return {"id": str(stored["id"])}
