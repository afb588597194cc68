"""The attachments of a prompt as a model takes them: images, documents, the text of files; or a clear refusal.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic_ai.messages import BinaryContent, UserContent
from pydantic_ai.models import Model

from ...errors import NaviError, RunFailed
from ...input.json_input import well_formed
from ...model.attachments import Attachment
from ...model.notebooks import ShownNotebook
from ...ports.agent import ToolContext
from ...text import IMAGE_TYPES, fenced, inert_line
from ..profiles.page_context import with_page
from ..tools.result_text import cut

UNSUPPORTED = "attachment_unsupported"

_TEXT_TYPES = re.compile(
    r"text/.*|image/svg\+xml|.*\+(?:json|xml|yaml)|"
    r"application/(?:json|x-ndjson|jsonl|xml|yaml|x-yaml|toml|javascript|x-python|x-sh|sql|x-ipynb\+json|csv)"
)
_TEXT_LIMIT = 60_000  # characters of one text file; of all together twice that

# Families that take text only, whatever pydantic-ai's profiles say: there, True also means that it was never checked.
_TEXT_ONLY_MODELS = re.compile(
    r"gpt-3\.5|gpt-4$|gpt-4-(?:0|1106|turbo-preview)|o1-(?:mini|preview)|o3-mini|davinci|babbage|"
    r"deepseek-(?:chat|reasoner|v3|r1)|claude-(?:2|instant)|llama-?(?:2|3(?:\.[13])?[-:](?!2))|mixtral|codestral|"
    r"command-r|qwen-?(?:2\.5-)?coder|gpt-oss",
    re.IGNORECASE,
)


def takes_images(model: Model) -> bool:
    """Whether images may be given to the model: yes, unless it is known to take none."""
    return bool(model.profile.get("supports_image_input", True)) and not _TEXT_ONLY_MODELS.search(model.model_name)


def takes_documents(model: Model) -> bool:
    """Whether PDF documents may be given to the model: yes, unless it is known to take none."""
    allowed = model.profile.get("supported_document_media_types")
    listed = allowed is None or "application/pdf" in allowed
    supported = bool(model.profile.get("supports_document_input", True))
    return listed and supported and not _TEXT_ONLY_MODELS.search(model.model_name)


async def prompt_content(
    text: str, attachments: Sequence[Attachment], context: ToolContext, model: Model, shown: ShownNotebook | None = None
) -> str | list[UserContent]:
    """A prompt as the model gets it, with what its page showed.

    Raises RunFailed ``attachment_unsupported`` before anything is sent.
    """
    text = with_page(text, shown)
    if not attachments:
        return text
    for one in attachments:
        _check(one, model)
    parts: list[UserContent] = [text]
    room = 2 * _TEXT_LIMIT
    for one in attachments:
        raw = await _read(one, context)
        if is_text(one):
            # Four bytes are the most that a character takes: no more of a large file has to be decoded.
            decoded = well_formed(raw[: 4 * _TEXT_LIMIT].decode(errors="replace"))
            file_text = cut(decoded, limit=max(min(_TEXT_LIMIT, room), 500))
            room -= len(file_text)
            name = inert_line(one.name, 200).replace('"', "'")
            parts.append(f'<file name="{name}" type="{one.media_type}">\n{fenced(file_text)}\n</file>')
        else:
            parts += [f"[{_named(one)}:]", BinaryContent(raw, media_type=one.media_type)]
    return parts


async def steering_content(
    text: str, attachments: Sequence[Attachment], context: ToolContext, model: Model, shown: ShownNotebook | None = None
) -> str | list[UserContent]:
    """The same for a prompt that joins a run: what the model cannot take is named, and the run goes on."""
    try:
        return await prompt_content(text, attachments, context, model, shown)
    except NaviError as error:
        return f"{with_page(text, shown)}\n\n({error.message})"


def is_text(attachment: Attachment) -> bool:
    """Whether its content goes into the prompt as text."""
    return _TEXT_TYPES.fullmatch(attachment.media_type) is not None


def attachment_note(name: str, media_type: str) -> str:
    """What later turns have in the place of an attachment."""
    return f"[attached here: {inert_line(name, 200)} ({inert_line(media_type, 100)}); its content is not repeated]"


def _named(one: Attachment) -> str:
    return f"{inert_line(one.name, 200)}, {inert_line(one.media_type, 100)}"


def _check(one: Attachment, model: Model) -> None:
    """Raise RunFailed when the model cannot take it."""
    advice = f"switch to a model that can, or remove {one.name}"
    if is_text(one):
        return
    if one.media_type in IMAGE_TYPES:
        unsupported = None if takes_images(model) else "images"
    elif one.media_type == "application/pdf":
        unsupported = None if takes_documents(model) else "PDF documents"
    else:
        unsupported, advice = f"files of this kind ({one.media_type})", f"remove {one.name}"
    if unsupported is not None:
        raise RunFailed(f"{model.model_name} cannot read {unsupported}: {advice}.", run_code=UNSUPPORTED)


async def _read(one: Attachment, context: ToolContext) -> bytes:
    if context.attachments is None:
        raise RunFailed(f"{one.name} cannot be read: this server has no store for attachments.", run_code=UNSUPPORTED)
    try:
        return await context.attachments.read(one.id, owner=context.user_id)
    except RunFailed:
        raise
    except NaviError as error:
        raise RunFailed(f"{one.name}: {error.message}", run_code=UNSUPPORTED) from error
