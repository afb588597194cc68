"""IPython input transformers that let ``%navi what is this?`` end in a question mark.

IPython reads a line that ends in ``?`` as a request for help before it looks for magics. These two find the lines of
``%navi`` by their tokens, as IPython's own do (never inside a string), and are asked first. ``%navi?`` still shows
the help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from tokenize import DEDENT, INDENT, TokenInfo
from typing import Any

from IPython.core.inputtransformer2 import EscapedCommand, MagicAssign

_Lines = Sequence[Sequence[TokenInfo]]


class NaviLine(EscapedCommand):
    """``%navi …``."""

    priority = 1  # of those that match at the earliest place IPython takes the lowest; help has 5

    @classmethod
    def find(cls, tokens_by_line: _Lines) -> NaviLine | None:
        for line in tokens_by_line:
            tokens = _without_indent(line)
            if _is_navi(tokens):
                return cls(tokens[0].start)
        return None


class NaviAssign(MagicAssign):
    """``answer = %navi …``."""

    priority = 1

    def __init__(self, start: tuple[int, int], magic: tuple[int, int]) -> None:
        # The start of the line, as for help: else help would match at an earlier place.
        super().__init__(start)  # type: ignore[no-untyped-call]
        self._magic_col = magic[1]

    @classmethod
    def find(cls, tokens_by_line: _Lines) -> NaviAssign | None:
        for line in tokens_by_line:
            tokens = _without_indent(line)
            for index, token in enumerate(tokens):
                if token.string == "=" and _is_navi(tokens[index + 1 :]):
                    return cls(tokens[0].start, tokens[index + 1].start)
                if token.string in ("(", "[", "{", "%"):
                    break  # behind these a "=" belongs to a keyword argument or to a question
        return None

    def transform(self, lines: list[str]) -> list[str]:
        self.start_col = self._magic_col
        transformed: list[str] = super().transform(lines)
        return transformed


def _without_indent(line: Sequence[TokenInfo]) -> list[TokenInfo]:
    return [token for token in line if token.type not in (INDENT, DEDENT)]


def _is_navi(tokens: Sequence[TokenInfo]) -> bool:
    words = [token.string for token in tokens[:3]]
    return words[:2] == ["%", "navi"] and words[2:] != ["?"]


def install(shell: Any) -> None:
    """Add them to a shell; once, however often it is called."""
    remove(shell)
    for transformers in _transformers(shell):
        transformers[:0] = [NaviLine, NaviAssign]


def remove(shell: Any) -> None:
    """Remove them, also those of an earlier import of this module."""
    names = {NaviLine.__name__, NaviAssign.__name__}
    for transformers in _transformers(shell):
        transformers[:] = [each for each in transformers if each.__name__ not in names]


def _transformers(shell: Any) -> Iterator[list[Any]]:
    manager = getattr(shell, "input_transformer_manager", None)
    if manager is not None:
        yield manager.token_transformers
