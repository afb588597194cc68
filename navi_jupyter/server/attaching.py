"""From what a prompt says of its images and files to attachments that are stored.

Not responsible for what a model can take: the run finds that out.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..commands import Command, Prompt
from ..errors import AttachmentRefused, InvalidRequest, NaviError
from ..model.attachments import Attachment, AttachmentRef
from ..ports.agent import Attachments
from ..ports.jupyter import Files

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


async def attach(
    command: Command,
    *,
    session_id: str,
    owner: str,
    attachments: Attachments,
    files: Files | None,
    max_bytes: int,
) -> Sequence[Attachment]:
    """What a prompt brings along, stored and kept by its session; nothing for other commands.

    Raises InvalidRequest, AttachmentRefused, AttachmentNotFound, FileRefused, LimitReached, naming the field.
    """
    if not isinstance(command, Prompt):
        return ()
    stored = []
    wanted = [("images", n, ref) for n, ref in enumerate(command.images)]
    wanted += [("files", n, ref) for n, ref in enumerate(command.files)]
    for kind, number, ref in wanted:
        field = f"{kind}.{number}"
        try:
            attachment = await _stored(ref, owner=owner, attachments=attachments, files=files, max_bytes=max_bytes)
            if kind == "images" and attachment.media_type not in _IMAGES:
                raise AttachmentRefused(
                    f"{attachment.name} is no image that models take (PNG, JPEG, GIF, WebP): send it under files."
                )
        except NaviError as error:
            error.field = field
            raise
        stored.append(attachment)
    unique = list({attachment.id: attachment for attachment in stored}.values())
    await attachments.keep([attachment.id for attachment in unique], session_id=session_id)
    return unique


async def _stored(
    ref: AttachmentRef, *, owner: str, attachments: Attachments, files: Files | None, max_bytes: int
) -> Attachment:
    if ref.id is not None:
        return await attachments.find(ref.id, owner=owner)
    if ref.data is not None:
        return await attachments.add(ref.data, name=ref.name, media_type=ref.media_type, owner=owner)
    if files is None or ref.path is None:
        raise InvalidRequest("path: this server has no files that can be named; upload it instead")
    content = await files.read_bytes(ref.path, limit=max_bytes)
    return await attachments.add(content, name=ref.name or ref.path, media_type=ref.media_type, owner=owner)
