"""Attachments: upload, download. What is downloaded never runs in the page's origin."""

from __future__ import annotations

from urllib.parse import quote

from ...errors import AttachmentNotFound, AttachmentRefused, LimitReached
from ...model.attachments import Attachment
from ..http import Query, Reply
from .routing import Call, OperationTable, reply

TABLE = OperationTable()

_SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
"""Types that may be shown in place. SVG too: as an image, and sandboxed when opened by itself."""


@TABLE.add(
    "POST attachments",
    "Upload an image or a file, to name it in a prompt. The body is its content.",
    action="write",
    answers="Attachment",
    status=201,
    upload=True,
    query=(Query(name="name", help="Its file name."),),
    errors=(AttachmentRefused, LimitReached),
)
async def add_attachment(call: Call) -> Reply:
    attachment = await call.sessions.attachments.add(
        call.request.body,
        name=call.string("name"),
        media_type=call.request.content_type.partition(";")[0].strip().lower() or None,
        owner=call.owner,
    )
    return reply(attachment, 201, Location=f"attachments/{attachment.id}")


@TABLE.add(
    "GET attachments/{id}",
    "The content of an attachment.",
    action="read",
    answers=None,
    errors=(AttachmentNotFound,),
    other_types=("application/octet-stream", *_SHOWN),
)
async def get_attachment(call: Call) -> Reply:
    attachment = await call.sessions.attachments.find(call.parameters["id"], owner=call.owner)
    content = await call.sessions.attachments.read(attachment.id, owner=call.owner)
    return Reply(
        content=content,
        content_type=attachment.media_type if attachment.media_type in _SHOWN else "application/octet-stream",
        headers=_guards(attachment),
    )


@TABLE.add(
    "GET attachments/{id}/info",
    "What an attachment is.",
    action="read",
    answers="Attachment",
    errors=(AttachmentNotFound,),
)
async def describe_attachment(call: Call) -> Reply:
    return reply(await call.sessions.attachments.find(call.parameters["id"], owner=call.owner))


def _guards(attachment: Attachment) -> dict[str, str]:
    """Nothing that somebody uploaded, or a kernel printed, may run as this server's own page."""
    how = "inline" if attachment.media_type in _SHOWN else "attachment"
    return {
        "Content-Disposition": f"{how}; filename*=UTF-8''{quote(attachment.name, safe='')}",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
