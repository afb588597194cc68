"""What came with a prompt, as a model takes it: images, documents, the text of files; or a clear refusal.

Imports pydantic_ai: only :mod:`.driver` and what it loads may import this module (it is loaded at the first run).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic_ai.messages import BinaryContent, UserContent
from pydantic_ai.models import Model

from ...errors import NaviError, RunFailed
from ...model.attachments import Attachment
from ...ports.agent import ToolContext
from ..tools.rendering import cut, readable

UNSUPPORTED = "attachment_unsupported"

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_TEXTUAL = re.compile(
    r"text/.*|image/svg\+xml|.*\+(?:json|xml|yaml)|"
    r"application/(?:json|x-ndjson|jsonl|xml|yaml|x-yaml|toml|javascript|x-python|x-sh|sql|x-ipynb\+json|csv)"
)
_TEXT_LIMIT = 60_000
"""Characters of one text file; of all together twice that."""

# Families that take text only, whatever pydantic-ai's profiles say (there, True means that nobody has checked).
_BLIND = re.compile(
    r"gpt-3\.5|gpt-4$|gpt-4-(?:0|1106|turbo-preview)|o1-(?:mini|preview)|o3-mini|davinci|babbage|"
    r"deepseek-(?:chat|reasoner|v3|r1)|claude-(?:2|instant)|llama-?(?:2|3(?:\.[13])?[-:](?!2))|mixtral|codestral|"
    r"command-r|qwen-?(?:2\.5-)?coder|gpt-oss",
    re.IGNORECASE,
)


def sees(model: Model) -> bool:
    """Whether images may be given to the model: yes, unless it is known to take none."""
    return bool(model.profile.get("supports_image_input", True)) and not _BLIND.search(model.model_name)


def reads_documents(model: Model) -> bool:
    """The same of PDF documents."""
    allowed = model.profile.get("supported_document_media_types")
    known = allowed is None or "application/pdf" in allowed
    return known and bool(model.profile.get("supports_document_input", True)) and not _BLIND.search(model.model_name)


async def content(
    text: str, attachments: Sequence[Attachment], context: ToolContext, model: Model
) -> str | list[UserContent]:
    """A prompt as the model gets it. Raises RunFailed ``attachment_unsupported`` before anything is sent."""
    if not attachments:
        return text
    for one in attachments:
        _check(one, model)
    parts: list[UserContent] = [text]
    room = 2 * _TEXT_LIMIT
    for one in attachments:
        raw = await _read(one, context)
        if is_text(one):
            shown = cut(
                readable(raw[: 4 * _TEXT_LIMIT].decode(errors="replace")), limit=max(min(_TEXT_LIMIT, room), 500)
            )
            room -= len(shown)
            parts.append(f'<file name="{one.name}" type="{one.media_type}">\n{shown}\n</file>')
        else:
            parts += [f"[{one.name}, {one.media_type}:]", BinaryContent(raw, media_type=one.media_type)]
    return parts


async def steered(
    text: str, attachments: Sequence[Attachment], context: ToolContext, model: Model
) -> str | list[UserContent]:
    """The same for a prompt that joins a run: what the model can not take is named, and the run goes on."""
    try:
        return await content(text, attachments, context, model)
    except NaviError as error:
        return f"{text}\n\n({error.message})"


def is_text(attachment: Attachment) -> bool:
    """Whether its content goes into the prompt as text."""
    return _TEXTUAL.fullmatch(attachment.media_type) is not None


def label(name: str, media_type: str) -> str:
    """How a later turn is told of something that was attached."""
    return f"[attached here: {name} ({media_type}); its content is not repeated]"


def _check(one: Attachment, model: Model) -> None:
    if is_text(one):
        return
    if one.media_type in _IMAGES:
        what = None if sees(model) else "images"
    elif one.media_type == "application/pdf":
        what = None if reads_documents(model) else "PDF documents"
    else:
        what = f"files of this kind ({one.media_type})"
    if what is not None:
        advice = f"remove {one.name}" if "kind" in what else f"switch to a model that can, or remove {one.name}"
        raise RunFailed(f"{model.model_name} can not read {what}: {advice}.", run_code=UNSUPPORTED)


async def _read(one: Attachment, context: ToolContext) -> bytes:
    if context.attachments is None:
        raise RunFailed(f"{one.name} can not be read here: there is no store for attachments.", run_code=UNSUPPORTED)
    try:
        return await context.attachments.read(one.id, owner=context.user_id)
    except RunFailed:
        raise
    except NaviError as error:
        raise RunFailed(f"{one.name}: {error.message}", run_code=UNSUPPORTED) from error
