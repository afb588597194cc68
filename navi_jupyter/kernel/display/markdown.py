"""Markdown as HTML for a cell: mistune reads it, and the HTML is made here from what it read.

Nothing relies on mistune's own escaping: every text is escaped by :func:`inert`, there is an allow-list of what becomes
a tag, and of the schemes of links. What would take long or nest deep is shown as text. Not responsible for Markdown as
text (``markdown_text``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from html import escape
from typing import Any
from urllib.parse import unquote

from ...formulas import formula_at

MAX_TEXT = 500_000
"""Characters that are read as Markdown; a longer text is shown as text."""
MAX_SIGNS = 1_000
"""Signs of Markdown (``*``, ``[`` …) in one paragraph: what a parser does for them grows with their square."""
MAX_SQUARES = 4_000_000
"""The same for a whole text: the sum of the squares of these counts, about half a second."""
MAX_DEPTH = 24
"""How deep quotes, lists and emphasis nest."""
MAX_MISSES = 500
"""Marks of formulas on lines of their own that open none, in one text: each is searched for its end."""
MAX_URL = 2_000
"""Characters of one link's address; and a thousand times as many in one text, since a definition can be used often."""
MAX_CELLS = 10_000
"""Cells of one table."""

AS_TEXT = "shown as text: too much Markdown at once"

_SIGNS = re.compile(r"[*_`\[\]<>~$\\!&]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_SCHEMES = frozenset({"http", "https", "mailto", "ftp", "ftps", "tel"})
_INVISIBLE = re.compile(r"[\x00-\x20\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]")
_LANGUAGE = re.compile(r"[\w+#.-]{1,40}")

Token = dict[str, Any]


def inert(text: str) -> str:
    """``text`` as HTML that shows it literally, also where MathJax or KaTeX look for formulas afterwards.

    A dollar or a backslash is in an element of its own: a typesetter looks for the marks of a formula within one text.
    """
    return re.sub(r"[$\\]", r"<span>\g<0></span>", escape(text))


def as_text(text: str) -> str:
    """``text`` as it is, where it cannot be shown as what it means, and a line that says so."""
    style = 'style="white-space:pre-wrap;overflow-wrap:anywhere"'
    return f"<div {style}>{inert(text)}</div>\n<p><small>({AS_TEXT})</small></p>\n"


def to_html(text: str) -> str | None:
    """``text`` as HTML that is safe in a page; None in a kernel without mistune."""
    read = _reader()
    if read is None:
        return None
    if len(text) > MAX_TEXT:
        return as_text(text)
    try:
        return _Document().html(read(text))
    except Exception:  # noqa: BLE001 - whatever a parser does with a foreign text, the answer is shown
        return as_text(text)


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The fenced and indented code of a text, in order: language (in lower case, often empty) and code.

    Those in lists and quotes, too. Nothing for a text that is too long to be read, or in a kernel without mistune.
    """
    read = _reader()
    if read is None or len(text) > MAX_TEXT:
        return []
    found: list[tuple[str, str]] = []
    waiting = list(read(text))[::-1]
    while waiting:
        token = waiting.pop()
        if token.get("type") == "block_code":
            info = str((token.get("attrs") or {}).get("info") or "").split()
            found.append((info[0].lower() if info else "", str(token.get("raw") or "").rstrip("\n")))
        children = token.get("children")
        waiting += reversed(children) if isinstance(children, list) else ()
    return found


@lru_cache(maxsize=1)
def _reader() -> Callable[[str], Iterable[Token]] | None:
    """Reads a text into mistune's tokens."""
    try:
        import mistune  # imported here: needed by the first answer, not by the import of this package
        from mistune.plugins.formatting import strikethrough
        from mistune.plugins.table import table
    except ImportError:
        return None

    class Inline(mistune.InlineParser):
        """Reads a paragraph within the bounds; one that exceeds them is a token ``bounded``."""

        def __call__(self, s: str, env: Any) -> list[Token]:
            signs = len(_SIGNS.findall(s))
            squares = env["squares"] = env.get("squares", 0) + signs * signs
            if signs > MAX_SIGNS or squares > MAX_SQUARES:
                return [{"type": "bounded", "raw": s}]
            return super().__call__(s, env)

    inline = Inline()
    # One escape at a time, as a run of them could hide the ``\(`` that opens a formula.
    inline.specification["escape"] = r"\\[!-/:-@\[-`{-~]"
    markdown = mistune.Markdown(renderer=None, inline=inline, plugins=[strikethrough, table])
    markdown.inline.register("inline_math", r"\${1,2}|\\[(\[]", _read_formula, before="escape")
    markdown.block.register("block_math", r"^ {0,3}(?P<math_mark>\$\$|\\\[)", _read_formula_block, before="list")
    for rules in (markdown.block.block_quote_rules, markdown.block.list_rules):
        markdown.block.insert_rule(rules, "block_math", before="list")
    return lambda text: markdown.parse(text)[0]  # type: ignore[return-value]


def _read_formula(inline: Any, match: re.Match[str], state: Any) -> int:  # noqa: ARG001 - as mistune calls it
    """A formula in a paragraph, or the mark as the character that it is."""
    formula = formula_at(state.src, match.start())
    if formula is None:
        state.append_token({"type": "text", "raw": match[0].removeprefix("\\"), "_emphasis": False})
        return match.end()
    state.append_token({"type": "block_math" if formula.is_display else "inline_math", "raw": formula.tex})
    return formula.end


def _read_formula_block(block: Any, match: re.Match[str], state: Any) -> int | None:  # noqa: ARG001 - as mistune calls it
    """A formula on lines of its own, in which a line may look like a list or a heading."""
    misses = state.env.get("misses", 0)
    formula = formula_at(state.src, match.start("math_mark")) if misses < MAX_MISSES else None
    if formula is None:
        state.env["misses"] = misses + 1
        return None
    line = state.src.find("\n", formula.end)
    end = len(state.src) if line < 0 else line + 1
    if state.src[formula.end : end].strip():
        return None
    state.append_token({"type": "block_math", "raw": formula.tex})
    return end


class _Document:
    """The HTML of one text. Where it would exceed a bound, the text of what is left."""

    def __init__(self) -> None:
        self._urls = 0  # characters of addresses so far

    def html(self, tokens: Iterable[Token], depth: int = 0) -> str:
        return "".join(self._token(token, depth) for token in tokens)

    def _token(self, token: Token, depth: int) -> str:
        kind = str(token["type"])
        attributes: Mapping[str, Any] = token.get("attrs") or {}
        if "children" not in token:
            return _leaf(kind, str(token.get("raw", token.get("text", ""))), attributes)
        if depth >= MAX_DEPTH or (kind == "table" and _count(token) > MAX_CELLS):
            return as_text(_words(token)) if kind in _BLOCKS else inert(_words(token))
        inner = self.html(token["children"], depth + 1)
        if kind in ("link", "image"):
            return self._link(inner or "image", str(attributes.get("url", "")))
        if kind == "table_head":
            return f"<thead>\n<tr>{inner}</tr>\n</thead>\n"
        tag = _container(kind, attributes)
        if not tag:
            return inner
        return f"<{tag}>{inner}</{tag.split(' ')[0]}>{_BLOCKS.get(kind, '')}"

    def _link(self, inner: str, url: str) -> str:
        """Images are links, too: nothing is loaded before a click."""
        self._urls += len(url)
        if len(url) > MAX_URL or self._urls > 1_000 * MAX_URL or not is_safe(url):
            return inner
        return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{inner}</a>'


def is_safe(url: str) -> bool:
    """Whether a link leads to a page, a file or a letter: not to a script or data, however it is encoded."""
    for _ in range(3):
        url = unquote(url)
    scheme = _SCHEME.match(_INVISIBLE.sub("", url).replace("\\", ""))
    return scheme is None or scheme[1].lower() in _SCHEMES


# What is left of it in the HTML's source after the end of a block: a line end.
_BLOCKS = dict.fromkeys(
    ("paragraph", "heading", "block_quote", "list", "list_item", "table", "table_head", "table_body", "table_row"), "\n"
)
_TAGS = {
    "paragraph": "p",
    "block_quote": "blockquote",
    "list_item": "li",
    "emphasis": "em",
    "strong": "strong",
    "strikethrough": "del",
    "table": "table",
    "table_body": "tbody",
    "table_row": "tr",
}


def _container(kind: str, attributes: Mapping[str, Any]) -> str:
    """The tag of what has children, with its attributes; empty: it adds nothing to them (also what is unknown)."""
    match kind:
        case "heading":
            return f"h{min(max(int(attributes.get('level', 1)), 1), 6)}"
        case "list" if attributes.get("ordered"):
            start = int(attributes.get("start") or 1)
            return "ol" if start == 1 else f'ol start="{start}"'
        case "list":
            return "ul"
        case "table_cell":
            tag = "th" if attributes.get("head") else "td"
            align = attributes.get("align")
            return f'{tag} style="text-align:{align}"' if align in ("left", "center", "right") else tag
    return _TAGS.get(kind, "")


def _leaf(kind: str, raw: str, attributes: Mapping[str, Any]) -> str:
    """What has no children: code, formulas, breaks; raw HTML and all that is unknown as text."""
    match kind:
        case "codespan":
            return f"<code>{inert(raw)}</code>"
        case "block_code":
            language = _LANGUAGE.match(str(attributes.get("info") or ""))
            name = f' class="language-{escape(language[0])}"' if language else ""
            return f"<pre><code{name}>{inert(raw)}</code></pre>\n"
        case "inline_math":
            return f'<span class="{_TYPESET}">\\({escape(raw)}\\)</span>'
        case "block_math":
            return f'<div class="{_TYPESET}">\\[{escape(raw)}\\]</div>\n'
        case "linebreak":
            return "<br>\n"
        case "softbreak":
            return "\n"
        case "thematic_break":
            return "<hr>\n"
        case "blank_line" | "newline":
            return ""
        case "bounded":
            return f"{inert(raw)} <small>({AS_TEXT})</small>"
        case "block_html":
            return f"<p>{inert(raw.strip())}</p>\n"
    return inert(raw)


_TYPESET = "navi-math tex2jax_process mathjax_process"
NOT_TYPESET = "tex2jax_ignore mathjax_ignore"
"""The class of what MathJax does not look into; formulas in it have a class that lets it look again."""


def _count(token: Token) -> int:
    return sum(len(row.get("children", ())) for part in token["children"] for row in part.get("children", ()))


def _words(token: Token) -> str:
    """The text in a token, whatever nests in it."""
    found, stack = [], [token]
    while stack:
        one = stack.pop()
        found.append(str(one.get("raw", one.get("text", ""))))
        stack.extend(reversed(one.get("children", ())))
    return " ".join(filter(None, found))
