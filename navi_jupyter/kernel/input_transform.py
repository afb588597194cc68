"""Lets ``%navi what is this?`` end in a question mark.

IPython takes a line that ends in ``?`` as a request for help, before it looks for magics. These two find our
lines by their tokens, as IPython's own do (never inside of a string), and come first. ``%navi?`` still shows the help.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from tokenize import DEDENT, INDENT, TokenInfo
from typing import Any

from IPython.core.inputtransformer2 import EscapedCommand, MagicAssign

_Lines = Sequence[Sequence[TokenInfo]]


class NaviLine(EscapedCommand):
    """``%navi …``."""

    priority = 1  # IPython takes the transformer that starts first, then the one with the lowest number; help has 5

    @classmethod
    def find(cls, tokens_by_line: _Lines) -> NaviLine | None:
        for line in tokens_by_line:
            tokens = _without_indent(line)
            if _begins_ours(tokens):
                return cls(tokens[0].start)
        return None


class NaviAssign(MagicAssign):
    """``answer = %navi …``."""

    priority = 1

    def __init__(self, start: tuple[int, int], magic: tuple[int, int]) -> None:
        # Where its line starts, as help does: else help would be the earlier one.
        super().__init__(start)  # type: ignore[no-untyped-call]
        self._magic_col = magic[1]

    @classmethod
    def find(cls, tokens_by_line: _Lines) -> NaviAssign | None:
        for line in tokens_by_line:
            tokens = _without_indent(line)
            for index, token in enumerate(tokens):
                if token.string == "=" and _begins_ours(tokens[index + 1 :]):
                    return cls(tokens[0].start, tokens[index + 1].start)
                if token.string in ("(", "[", "{", "%"):
                    break  # behind these a "=" is a keyword's, or a question's
        return None

    def transform(self, lines: list[str]) -> list[str]:
        self.start_col = self._magic_col
        transformed: list[str] = super().transform(lines)
        return transformed


def _without_indent(line: Sequence[TokenInfo]) -> list[TokenInfo]:
    return [token for token in line if token.type not in (INDENT, DEDENT)]


def _begins_ours(tokens: Sequence[TokenInfo]) -> bool:
    words = [token.string for token in tokens[:3]]
    return words[:2] == ["%", "navi"] and words[2:] != ["?"]


def install(shell: Any) -> None:
    """Put them into a shell; once, however often it is called."""
    remove(shell)
    for transformers in _transformers(shell):
        transformers[:0] = [NaviLine, NaviAssign]


def remove(shell: Any) -> None:
    """Take them out again (also those of an earlier import of this module)."""
    names = {NaviLine.__name__, NaviAssign.__name__}
    for transformers in _transformers(shell):
        transformers[:] = [each for each in transformers if each.__name__ not in names]


def _transformers(shell: Any) -> Iterator[list[Any]]:
    manager = getattr(shell, "input_transformer_manager", None)
    if manager is not None:
        yield manager.token_transformers
