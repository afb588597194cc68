"""How long a conversation is and how much a model reads, in tokens. Estimated: no tokenizer is downloaded.

Imports pydantic_ai: only modules that :mod:`.runner` loads may import this one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    FilePart,
    FileUrl,
    ModelMessage,
    UploadedFile,
)
from pydantic_ai.models import Model

from ..providers.past_messages import PastRequest

DEFAULT_WINDOW = 128_000  # tokens that a model of unknown size reads
SHARE = 0.7  # how much of the window the conversation may fill: the rest is for the answer and for what tools return

_MEDIA_TOKENS = 1_500  # of an image or a file, about what providers count for one
_MESSAGE_TOKENS = 8  # of the frame around a message or a call

MEDIA = (BinaryContent, FileUrl, UploadedFile)  # what stands for an image or a file within a prompt


def window_of(model: Model) -> int:
    """Tokens that a model reads, input and output together; a cautious guess where that is not known."""
    # Ollama reads what its server was configured to, whatever the model could, and drops the rest without an error.
    served = os.environ.get("OLLAMA_CONTEXT_LENGTH", "") if model.system == "ollama" else ""
    if served.isdecimal() and int(served) > 0:
        return int(served)
    return model.context_window or DEFAULT_WINDOW


def text_tokens(text: str) -> int:
    """A quarter of its UTF-8 bytes: about right for English and code, and not too low for other scripts."""
    return (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) // 4 + 1


def tokens_of(messages: Sequence[ModelMessage]) -> int:
    """An estimate of what a provider will count for these messages."""
    return sum(map(_message_tokens, messages))


def _message_tokens(message: ModelMessage) -> int:
    if isinstance(message, PastRequest):
        return sum(turn.tokens for turn in message.past)
    return _MESSAGE_TOKENS + sum(map(part_tokens, message.parts))


def tokens_from(messages: Sequence[ModelMessage]) -> list[int]:
    """Item ``i``: the tokens of all messages from ``i`` on."""
    sizes = [tokens_of((message,)) for message in messages]
    return list(accumulate(reversed(sizes), initial=0))[::-1]


def part_tokens(part: Any) -> int:
    """The same for one part of a message."""
    if isinstance(part, FilePart):
        return _MEDIA_TOKENS
    if isinstance(part, BaseToolReturnPart):
        return text_tokens(part.model_response_str()) + _MEDIA_TOKENS * len(part.files) + _MESSAGE_TOKENS
    if isinstance(part, BaseToolCallPart):
        return text_tokens(part.args_as_json_str()) + text_tokens(part.tool_name) + _MESSAGE_TOKENS
    content = getattr(part, "content", None)
    if isinstance(content, str):
        return text_tokens(content)
    if isinstance(content, Sequence):
        return sum(map(_item_tokens, content))
    return _MESSAGE_TOKENS


def _item_tokens(item: object) -> int:
    if isinstance(item, MEDIA):
        return _MEDIA_TOKENS
    text = item if isinstance(item, str) else getattr(item, "content", "")
    return text_tokens(text) if isinstance(text, str) else _MESSAGE_TOKENS


def limited_tokens(text: str, limit: int) -> str:
    """The beginning of a text, of at most so many tokens."""
    while text and text_tokens(text) > limit:
        text = text[: len(text) * limit // (text_tokens(text) + 1)]
    return text
