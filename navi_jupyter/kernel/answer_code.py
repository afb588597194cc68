"""The code of an answer: its code blocks, and a new cell that gets them (``%%navi --insert``).

Not responsible for asking (``ask``), nor for the buttons under code in a chat, which the page draws.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..text import plural
from .display.markdown import code_blocks
from .shell import current_kernel, current_request, current_shell, print_line

WISH = "[The code of the answer goes into a new cell of the notebook: give all of it in one fenced block.]"
"""Follows a prompt with ``--insert``: for the model, not shown."""

_CODE = ("", "python", "python3", "py", "ipython", "ipython3")
_CELLS = {"bash": "bash", "sh": "bash", "shell": "bash", "html": "html", "javascript": "javascript", "js": "javascript"}
"""Languages that IPython runs in a cell with a magic."""


def insert_code(text: str) -> None:
    """Put the code of an answer into a new cell below, if there is any and the front end takes it; say what was done.

    The blocks in the kernel's language; where there are none, the first that IPython runs by a magic.
    """
    code = cell_of(code_blocks(text))
    if code is None:
        print_line("The answer has no code for a cell.")
        return
    lines = plural(len(code.split("\n")), "line")
    if not _takes_cells():
        print_line(f"Nothing is inserted: this front end takes no new cell from a kernel. The code, {lines}:\n\n{code}")
        return
    current_shell().set_next_input(code, replace=False)
    print_line(f"The code is in a new cell below ({lines}).")


def cell_of(blocks: Sequence[tuple[str, str]]) -> str | None:
    """The source of a cell with these blocks (language, code); None where none of them can be in a cell."""
    own = [code for language, code in blocks if language in _CODE and code.strip()]
    if own:
        return "\n\n".join(own)
    return next(_with_magic(blocks), None)


def _with_magic(blocks: Sequence[tuple[str, str]]) -> Iterator[str]:
    for language, code in blocks:
        if language in _CELLS and code.strip():
            yield f"%%{_CELLS[language]}\n{code}"


def _takes_cells() -> bool:
    """Whether the front end makes a cell of what a kernel asks for.

    nbclient and its like drop it. They are known by their requests: what runs a notebook without a user answers no
    request for input either.
    """
    if current_kernel() is None:
        return hasattr(current_shell(), "set_next_input")
    return bool((current_request().get("content") or {}).get("allow_stdin"))
