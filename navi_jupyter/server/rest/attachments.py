"""Attachments: upload and download. What is downloaded never runs in the origin of the page."""

from __future__ import annotations

from urllib.parse import quote

from ...errors import AttachmentNotFound, AttachmentRefused, LimitReached
from ...model.attachments import Attachment
from ...text import IMAGE_TYPES
from ..http import Query, Reply
from .routing import Call, OperationTable, reply

TABLE = OperationTable()

_INLINE = (*IMAGE_TYPES, "image/svg+xml")
"""Types that may be shown inline. SVG, too: its scripts do not run in an image, and opened alone it is sandboxed."""


@TABLE.add(
    "POST attachments",
    "write",
    answers="Attachment",
    status=201,
    upload=True,
    query=(Query(name="name", help="Its file name."),),
    errors=(AttachmentRefused, LimitReached),
)
async def add_attachment(call: Call) -> Reply:
    """Upload an image or a file, to be named in a prompt. The body is its content."""
    attachment = await call.sessions.attachments.add(
        call.request.body,
        name=call.string("name"),
        media_type=call.request.content_type.partition(";")[0].strip().lower() or None,
        owner=call.owner,
    )
    return reply(attachment, 201, Location=f"attachments/{attachment.id}")


@TABLE.add(
    "GET attachments/{id}", "read", errors=(AttachmentNotFound,), other_types=("application/octet-stream", *_INLINE)
)
async def get_attachment(call: Call) -> Reply:
    """The content of an attachment."""
    attachment = await call.sessions.attachments.find(call.parameters["id"], owner=call.owner)
    content = await call.sessions.attachments.read(attachment.id, owner=call.owner)
    return Reply(
        content=content,
        content_type=attachment.media_type if attachment.media_type in _INLINE else "application/octet-stream",
        headers=_protecting_headers(attachment),
    )


@TABLE.add("GET attachments/{id}/info", "read", answers="Attachment", errors=(AttachmentNotFound,))
async def describe_attachment(call: Call) -> Reply:
    """Name, media type and size of an attachment."""
    return reply(await call.sessions.attachments.find(call.parameters["id"], owner=call.owner))


def _protecting_headers(attachment: Attachment) -> dict[str, str]:
    """Headers that keep an upload, or what a kernel printed, from running as a page of this server."""
    disposition = "inline" if attachment.media_type in _INLINE else "attachment"
    return {
        "Content-Disposition": f"{disposition}; filename*=UTF-8''{quote(attachment.name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
