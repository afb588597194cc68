"""Code blocks as HTML for a cell: a frame with the language, and colours by Pygments.

The classes are Pygments' short names, which JupyterLab's and nbconvert's style sheets know; ``STYLE`` is for the other
front ends. Not responsible for which code is shown (``markdown``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from html import escape
from typing import Any

CODE_CLASS = "navi-cell-code"
LONGEST = 20_000
"""Characters of a code block that is coloured: a longer one is shown plain, as in the chat."""

_ALIASES = {"ipython3": "python"}  # of kernels; Pygments knows the usual ones
_CLASSES = (
    ("Comment", "c"),
    ("Keyword", "k"),
    ("Operator.Word", "k"),
    ("Name.Tag", "k"),
    ("Literal.String", "s"),
    ("Literal.Number", "m"),
    ("Name.Function", "nf"),
    ("Name.Class", "nf"),
    ("Name.Decorator", "nf"),
    ("Name.Builtin", "nb"),
    ("Name.Exception", "nb"),
    ("Name.Attribute", "nb"),
    ("Generic.Deleted", "gd"),
    ("Generic.Inserted", "gi"),
    ("Generic.Heading", "k"),
    ("Generic.Prompt", "c"),
)

_COLOURS = {
    # Lab's variable, VS Code's, and one that can be read on white and on black.
    "c": ("--jp-mirror-editor-comment-color", "--vscode-descriptionForeground", "#717c86"),
    "k": ("--jp-mirror-editor-keyword-color", "--vscode-debugTokenExpression-name", "#a35bc9"),
    "s": ("--jp-mirror-editor-string-color", "--vscode-debugTokenExpression-string", "#c0573d"),
    "m": ("--jp-mirror-editor-number-color", "--vscode-debugTokenExpression-number", "#2f8552"),
    "nf": ("--jp-mirror-editor-def-color", "--vscode-symbolIcon-functionForeground", "#3f7fd0"),
    "nb": ("--jp-mirror-editor-builtin-color", "--vscode-symbolIcon-variableForeground", "#1f8494"),
    "gd": ("--jp-error-color1", "--vscode-errorForeground", "#d1453b"),
    "gi": ("--jp-success-color1", "--vscode-testing-iconPassed", "#2f8552"),
}
STYLE = (
    "<style>"
    ".navi-cell-code{border:1px solid var(--jp-border-color2,#8886);border-radius:6px;margin:.6em 0;overflow:hidden}"
    ".navi-cell-code>p{margin:0!important;padding:2px 10px;border-bottom:1px solid var(--jp-border-color2,#8886);"
    "font-size:.8em;opacity:.85}"
    ".navi-cell-code pre{margin:0!important;padding:8px 10px!important;border:0!important;"
    "overflow-x:auto;white-space:pre!important}"
    + "".join(
        f".navi-cell-code .{name}{{color:var({lab},var({code},{plain}))}}"
        for name, (lab, code, plain) in _COLOURS.items()
    )
    + "</style>"
)
"""For each output that has code: outputs are moved and saved one by one."""


def code_html(code: str, language: str, inert: Callable[[str], str], *, coloured: bool) -> str:
    """A block of code. ``inert`` escapes its text."""
    name = f' class="language-{escape(language)}"' if language else ""
    if not coloured:
        return f"<pre><code{name}>{inert(code)}</code></pre>\n"
    label = f"<p>{escape(language)}</p>" if language else ""
    inner = "".join(_pieces(code, language, inert)) if len(code) <= LONGEST else inert(code)
    return (
        f'<div class="navi-cell-code highlight">{label}<pre tabindex="0" role="group" aria-label="Code">'
        f"<code{name}>{inner}</code></pre></div>\n"
    )


def _pieces(code: str, language: str, inert: Callable[[str], str]) -> Iterator[str]:
    """Neighbours of one colour are one element: these are saved with the notebook."""
    lexer = _lexer(_ALIASES.get(language.lower(), language.lower()))
    if lexer is None:
        yield inert(code)
        return
    group, text = "", ""
    for kind, piece in lexer.get_tokens(code):
        found = _class(str(kind)) if piece.strip() else group
        if found != group and text:
            yield _piece(group, text, inert)
            text = ""
        group, text = found, text + piece
    # Pygments ends each text with a line end, which a text without one has to lose again.
    if not code.endswith("\n"):
        text = text.removesuffix("\n")
    if text:
        yield _piece(group, text, inert)


def _piece(group: str, text: str, inert: Callable[[str], str]) -> str:
    return f'<span class="{group}">{inert(text)}</span>' if group else inert(text)


def _class(kind: str) -> str:
    kind = kind.removeprefix("Token.")
    return next((short for name, short in _CLASSES if kind == name or kind.startswith(f"{name}.")), "")


@lru_cache(maxsize=32)
def _lexer(language: str) -> Any:
    """Pygments' lexer, which every IPython has; None for a language that it does not know, and where it is missing."""
    try:
        # Imported here: needed by the first answer with code, not by the import of this package.
        from pygments.lexers import get_lexer_by_name
        from pygments.util import ClassNotFound
    except ImportError:
        return None
    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None
