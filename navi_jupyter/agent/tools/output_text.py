"""What a model reads of the outputs of code: text, cut in the middle, with a way to the rest; and the pictures.

Not responsible for what the user sees (``output_feed``).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import NotFound
from ...model.base import new_id
from .base import Image

HEAD = 6_000
TAIL = 4_000
"""Characters that a model reads of an output at once, of its beginning and of its end."""
PAGE = 10_000
_KEPT = 16_000_000
"""Characters of whole outputs that this process keeps, the latest ones."""
_PICTURES = 4
_PICTURE_BYTES = 4_000_000
_TRACEBACK = 3_000

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[()][0-9A-B]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def plain(text: str) -> str:
    """Without colours and control characters, and with only the last state of lines that overwrite themselves."""
    text = _ANSI.sub("", text).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROL.sub("�", text)


def text_of(outputs: Sequence[Mapping[str, Any]]) -> str:
    """Everything that outputs say."""
    pieces: list[str] = []
    images = 0
    for output in outputs:
        match output["output_type"]:
            case "stream":
                pieces.append(str(output["text"]))
            case "error":
                pieces.append(traceback_of(output) + "\n")
            case _:
                data = output["data"]
                shown = str(data.get("text/plain") or data.get("text/markdown") or data.get("text/html") or "")
                if any(kind.startswith("image/") for kind in data):
                    images += 1
                    shown = f"[picture {images}] {shown}"
                elif not shown:
                    shown = f"[{', '.join(data)}]"
                pieces.append(shown + "\n")
    return plain("".join(pieces)).strip("\n")


def traceback_of(error: Mapping[str, Any]) -> str:
    """The traceback as far as it helps: where it began, its end, which names the line, and what was wrong."""
    said = plain(f"{error.get('ename')}: {error.get('evalue')}")[:_TRACEBACK]
    lines = plain("\n".join(map(str, error.get("traceback") or ()))).strip()
    if len(lines) > _TRACEBACK:
        lines = f"{lines[: _TRACEBACK // 3]}\n…\n{lines[-2 * _TRACEBACK // 3 :]}"
    return lines if said in lines else f"{lines}\n{said}".strip()


def images_of(outputs: Sequence[Mapping[str, Any]]) -> tuple[Image, ...]:
    """The images that a model can look at: a few, not too large."""
    found: list[Image] = []
    for output in outputs:
        data = output.get("data") or {}
        kind = next((one for one in ("image/png", "image/jpeg") if one in data), None)
        if kind is None or len(found) == _PICTURES or len(data[kind]) > _PICTURE_BYTES * 4 // 3:
            continue
        try:
            found.append(Image(media_type=kind, content=base64.b64decode(data[kind])))
        except (binascii.Error, ValueError, TypeError):
            continue
    return tuple(found)


class WholeOutputs:
    """Outputs that a model was shown only in part, so that it can read on. In memory, the latest ones."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._size = 0
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def excerpt(self, text: str, session_id: str) -> str:
        """The text, or its two ends and how to read the rest."""
        if len(text) <= HEAD + TAIL + 500:
            return text
        key = new_id("o")
        self._texts[session_id, key] = text
        self._size += len(text)
        while self._size > self._most and len(self._texts) > 1:
            self._size -= len(self._texts.popitem(last=False)[1])
        left_out = len(text) - HEAD - TAIL
        return (
            f"{text[:HEAD]}\n\n[… {left_out:,} of {len(text):,} characters left out; "
            f'read_output(id="{key}", start={HEAD}) has them …]\n\n{text[-TAIL:]}'
        )

    def page(self, key: str, session_id: str, start: int) -> dict[str, Any]:
        """A page of it. Raises NotFound."""
        text = self._texts.get((session_id, key))
        if text is None:
            raise NotFound(f"The output {key[:100]} is not kept any more. Run the code again, and let it show less.")
        page = text[start : start + PAGE]
        after = start + len(page)
        return {"text": page, "start": start, "of": len(text), "next": after if after < len(text) else None}
