"""What runs work with and leave behind: attachments, questions to the user, facts, what a tool may do.

The second half of the nouns: sessions, runs and recalls are in ``model``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Base64Bytes, StringConstraints, model_validator

from .base import Instant, Value


class AttachmentRef(Value):
    """An image or a file that goes with a prompt: exactly one of ``id``, ``data`` and ``path``."""

    id: Annotated[str, StringConstraints(max_length=64)] | None = None  # uploaded before (``POST attachments``)
    data: Base64Bytes | None = None
    """The content itself, base64; small ones only (``max_message_bytes`` bounds the whole command)."""
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None  # under the server's root
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=255)] | None = None
    media_type: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[A-Za-z0-9.+-]{1,100}$")] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> AttachmentRef:
        if sum(value is not None for value in (self.id, self.data, self.path)) != 1:
            raise ValueError("give exactly one of id, data and path")
        return self


class Attachment(Value):
    """A stored file. Its content is immutable; the same content is stored once per owner."""

    id: str
    owner: str
    name: str
    media_type: str
    size: int  # bytes
    sha256: str
    created_at: Instant


class AttachmentInfo(Value):
    """An attachment as messages show it."""

    id: str
    name: str
    media_type: str
    size: int


FactText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class Fact(Value):
    """Something that the agent remembers about a user, over all sessions."""

    id: str
    owner: str
    text: str
    source: Literal["user", "agent"]
    session_id: str | None = None  # where it was learned
    created_at: Instant
    updated_at: Instant


class FactCreate(Value):
    """Body of ``POST memory``."""

    text: FactText
    session_id: Annotated[str, StringConstraints(max_length=64)] | None = None


class FactPatch(Value):
    """Body of ``PATCH memory/{id}``."""

    text: FactText
