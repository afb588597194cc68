"""What goes with a prompt: pictures and files of the kernel, uploaded and named.

A figure, a PIL image, bytes, or a path on the kernel's own disk. Not responsible for what the server takes.
"""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import Service
from .errors import UsageError
from .io_thread import io_thread


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelAttachment:
    """A file on its way."""

    name: str
    content: bytes
    media_type: str = "application/octet-stream"

    @property
    def picture(self) -> bool:
        """Whether it is an image that models take."""
        return self.media_type in ("image/png", "image/jpeg", "image/gif", "image/webp")


def enclosure(thing: Any, *, number: int = 1) -> KernelAttachment:
    """``thing`` as a file. Raises UsageError for what can not be one."""
    if isinstance(thing, KernelAttachment):
        return thing
    if isinstance(thing, (str, Path)):
        return _file(Path(thing))
    if isinstance(thing, (bytes, bytearray, memoryview)):
        content = bytes(thing)
        return KernelAttachment(name=f"data-{number}", content=content, media_type=_guessed(content))
    if hasattr(thing, "savefig") or hasattr(thing, "get_figure"):  # a matplotlib figure, or its axes
        return _drawn(thing if hasattr(thing, "savefig") else thing.get_figure(), number)
    if hasattr(thing, "save") and hasattr(thing, "mode") and hasattr(thing, "size"):  # a PIL image
        buffer = io.BytesIO()
        thing.save(buffer, format="PNG")
        return KernelAttachment(name=f"image-{number}.png", content=buffer.getvalue(), media_type="image/png")
    raise UsageError(
        f"{type(thing).__name__} can not be attached: give a matplotlib figure, a PIL image, bytes or a path."
    )


def _file(path: Path) -> KernelAttachment:
    try:
        content = path.expanduser().read_bytes()
    except OSError as problem:
        raise UsageError(f"{path} can not be read: {problem.strerror}.") from None
    kind, _ = mimetypes.guess_type(path.name)
    return KernelAttachment(name=path.name, content=content, media_type=kind or _guessed(content))


def _drawn(figure: Any, number: int) -> KernelAttachment:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    return KernelAttachment(name=f"figure-{number}.png", content=buffer.getvalue(), media_type="image/png")


def _guessed(content: bytes) -> str:
    """Only to sort pictures from the rest; the server looks for itself."""
    for magic, kind in ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif")):
        if content.startswith(magic):
            return kind
    return "image/webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else "application/octet-stream"


def upload(service: Service, things: Iterable[Any]) -> list[dict[str, str]]:
    """Upload each; the references that a prompt names them by. Raises UsageError, Refused, Unreachable."""
    refs = []
    for number, thing in enumerate(things, start=1):
        file = enclosure(thing, number=number)
        stored = io_thread().wait(service.client.upload(file.content, name=file.name, media_type=file.media_type))
        refs.append({"id": str(stored["id"])})
    return refs
