"""The form of a text file: its encoding, its byte order mark, its line ends, its end; and new text in that form.

A reader gets the text decoded, with ``\\n`` at the ends of lines, and has seen nothing of the form when it writes it
back. So the form is kept: lines that did not change keep their very bytes, others take the encoding of the file and the
line ends around them. Pure; not responsible for files (``tree``) or for how much of one is read (``service``).
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from ...text import plural

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDE_MARKS = tuple(mark for mark, encoding in _MARKS if encoding != "utf-8")
_BINARY_WITHIN = 8192  # bytes at the beginning of a file in which a NUL says that it is no text
_MOST_COMPARED = 40_000  # lines that are compared one by one; of more only the beginning and the end that are the same
_END_NAMES = {"\n": "LF", "\r\n": "CRLF", "\r": "CR"}


class NoText(ValueError):
    """The content is binary."""


class CannotEncode(ValueError):
    """The encoding of a file has no such character."""

    def __init__(self, encoding: str, character: str, line: int) -> None:
        super().__init__(f"{encoding} has no {character!r} (line {line})")
        self.encoding = encoding
        self.character = character
        self.line = line


@dataclass(frozen=True, kw_only=True, slots=True)
class TextForm:
    """How a text is kept as bytes."""

    encoding: str = "utf-8"  # as codecs names it, without a mark
    mark: bytes = b""  # the byte order mark
    guessed: bool = False  # no mark, and no UTF-8: taken for the usual encoding with one byte for each character
    damaged: bool = False  # UTF-8 with some bytes that are none

    @classmethod
    def of(cls, data: bytes) -> TextForm:
        """From the mark, else by whether it is UTF-8. Raises NoText."""
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                form = cls(encoding=encoding, mark=mark)
                try:
                    form.decode(data)
                except UnicodeError:
                    if encoding != "utf-8":
                        raise NoText from None
                    return cls(encoding=encoding, mark=mark, damaged=True)
                return form
        if b"\0" in data[:_BINARY_WITHIN]:
            raise NoText
        try:
            data.decode()
        except UnicodeError:
            valid = data.decode(errors="ignore")
            if not valid.isascii():
                return cls(damaged=True)
            return cls(encoding=_one_byte_encoding(data), guessed=True)
        return cls()

    def decode(self, data: bytes) -> str:
        """The text, with the line ends that it has. Bytes that are no UTF-8 are U+FFFD. Raises UnicodeError."""
        return data[len(self.mark) :].decode(self.encoding, "replace" if self.damaged else "strict")

    def describe(self) -> str:
        """What a reader should know of the encoding; empty for UTF-8 without a mark."""
        if self.damaged:
            return "has bytes that are no UTF-8, shown as \N{REPLACEMENT CHARACTER}"
        if self.guessed:
            return f"no UTF-8: read as {self.encoding}, which is a guess"
        if self.mark:
            return f"{self.encoding} with a byte order mark"
        return ""


def _one_byte_encoding(data: bytes) -> str:
    try:
        data.decode("cp1252")  # what Windows calls Latin-1; five bytes have no character in it
    except UnicodeError:
        return "latin-1"
    return "cp1252"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of a file."""

    body: bytes  # without its end
    text: str  # as a reader sees it
    end: str  # "\n", "\r\n" or "\r"; empty for a last line without one


def lines_of(data: bytes, form: TextForm) -> list[Line]:
    """The lines of a file."""
    # Each byte that is no UTF-8 stands for itself here, so that the line can be written as it was.
    errors = "surrogateescape" if form.damaged else "strict"
    whole = data[len(form.mark) :].decode(form.encoding, errors)
    return [
        Line(body=(body := text.encode(form.encoding, errors)), text=body.decode(form.encoding, "replace"), end=end)
        for text, end in split(whole)
    ]


def split(text: str) -> Iterator[tuple[str, str]]:
    """Each line and its end. A lone ``\\r`` ends a line only where no ``\\n`` does: else text was overwritten."""
    lone = "\n" not in text
    *whole, last = text.split("\r" if lone else "\n")
    for line in whole:
        if lone:
            yield line, "\r"
        elif line.endswith("\r"):
            yield line[:-1], "\r\n"
        else:
            yield line, "\n"
    if last:
        yield last, ""


def describe_ends(counts: Counter[str], *, ends: bool) -> str:
    """``CRLF line ends``, ``line ends: 3 CRLF, 2 LF``; nothing for ``\\n``. ``ends``: the last line has one, too."""
    names = [f"{count} {_END_NAMES[end]}" for end, count in counts.most_common() if end]
    kinds = [end for end in counts if end]
    words = f"line ends: {', '.join(names)}" if len(kinds) > 1 else f"{_END_NAMES[kinds[0]]} line ends" if kinds else ""
    parts = [words if kinds not in ([], ["\n"]) else "", "" if ends or not counts else "no newline at the end"]
    return "; ".join(part for part in parts if part)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewritten:
    """New content for a file."""

    data: bytes
    kept: str  # what of the form was kept, and what could not be


def rewritten(before: bytes, content: str, *, encoding: str | None = None) -> Rewritten:
    """``content`` in the form of the file that it replaces; ``encoding``: in this one, and without a mark.

    Raises NoText where the file is binary, CannotEncode.
    """
    form = TextForm.of(before)
    old = lines_of(before, form)
    if not old:
        return Rewritten(data=form.mark + _encoded(content, form.encoding, 1), kept=form.describe())
    target = form if encoding is None else TextForm(encoding=encoding)
    text = content.removeprefix("\ufeff") if form.mark else content
    new = [body for body, _ in split(text.replace("\r\n", "\n") if "\n" in text else text)]
    sources = _sources([line.text for line in old], new)
    bodies, lost = _bodies(old, new, sources, form, target)
    given, had = text.endswith(("\n", "\r")), bool(old[-1].end)
    # Nothing else is different: then that is what is wanted.
    last_ends = bool(new) and (given if new == [line.text for line in old] else had)
    ends = _ends(old, sources, last=last_ends)
    data = target.mark + b"".join(body + end.encode(target.encoding) for body, end in zip(bodies, ends, strict=True))
    notes = [
        target.describe() if target is form and not form.damaged else "",
        describe_ends(Counter(ends), ends=last_ends) if new else "",
        "newline at the end" if last_ends and not given else "",
        f"{plural(lost, 'line')} with bytes that were no UTF-8 now {'has' if lost == 1 else 'have'} \ufffd"
        if lost
        else "",
    ]
    return Rewritten(data=data, kept="; ".join(note for note in notes if note))


def with_newlines(text: str) -> str:
    """A text with its line ends made equal, to be compared."""
    return text.replace("\r\n", "\n") if "\r\n" in text else text


def with_ends_of(before: str, content: str) -> str:
    """``content`` with the line ends of the text that it replaces; its last line as it is given."""
    if "\r\n" not in before:
        return content
    old = [Line(body=b"", text=text, end=end) for text, end in split(before)]
    new = list(split(with_newlines(content)))
    ends = _ends(old, _sources([line.text for line in old], [text for text, _ in new]), last=content.endswith("\n"))
    return "".join(text + end for (text, _), end in zip(new, ends, strict=True))


def _bodies(
    old: Sequence[Line], new: Sequence[str], sources: Sequence[int | None], form: TextForm, target: TextForm
) -> tuple[list[bytes], int]:
    """Each new line as bytes; and how many of them have lost bytes that could not be shown."""
    same = form.encoding == target.encoding
    found, lost = [], 0
    for number, (text, source) in enumerate(zip(new, sources, strict=True), 1):
        if source is not None and same and old[source].text == text:
            found.append(old[source].body)
            continue
        lost += form.damaged and "\ufffd" in text
        found.append(_encoded(text, target.encoding, number))
    return found, lost


def _ends(old: Sequence[Line], sources: Sequence[int | None], *, last: bool) -> list[str]:
    """The end of each new line; ``last``: whether the last one has one."""
    usual = Counter(line.end for line in old if line.end).most_common(1)
    before = old[0].end or (usual[0][0] if usual else "\n")
    found = []
    for source in sources:
        # A line that is new ends as the one before it.
        before = (old[source].end if source is not None else "") or before
        found.append(before)
    return found if last or not found else [*found[:-1], ""]


def _sources(old: Sequence[str], new: Sequence[str]) -> list[int | None]:
    """For each new line the index of the old one that it is, or takes the place of; None for one that was added."""
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    middle_old, middle_new = old[first : len(old) - last], new[first : len(new) - last]
    found: list[int | None] = [*range(first)]
    for low, high, start, end in _blocks(middle_old, middle_new):
        found += [first + low + place if place < high - low else None for place in range(end - start)]
    return [*found, *range(len(old) - last, len(old))]


def _blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    if len(old) + len(new) > _MOST_COMPARED:
        yield 0, len(old), 0, len(new)
        return
    for _, low, high, start, end in SequenceMatcher(None, old, new).get_opcodes():
        yield low, high, start, end


def _encoded(text: str, encoding: str, line: int) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise CannotEncode(encoding, text[error.start], line + text.count("\n", 0, error.start)) from None
