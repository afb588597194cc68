"""Markdown as HTML for a cell: mistune reads it, and the HTML is made here from what it read.

Nothing relies on mistune's own escaping: every text is escaped by :func:`inert`, there is an allow-list of what becomes
a tag, and of the schemes of links. What would take long or nest deep is shown as text. Markdown as text:
``markdown_text``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from html import escape
from typing import Any
from urllib.parse import unquote

from ...formulas import formula_at
from ...markdown_text import is_file_beside, split_notes
from ...text import IMAGE_TYPES
from .code_colours import code_html
from .listing import is_numeric

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
MAX_IMAGE = 3_000_000
"""Characters of the images that a text itself has (``data:``): they are saved with the notebook."""

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


Images = Mapping[str, tuple[str, bytes]]
"""Attachments by id: media type and content."""


def to_html(text: str, *, scope: str = "", images: Images | None = None, coloured: bool = False) -> str | None:
    """``text`` as HTML that is safe in a page; None in a kernel without mistune.

    ``scope``: what the text is among all that a page may show, for the links of its footnotes. ``images``: what
    ``attachment:<id>`` refers to. ``coloured``: code has classes for ``code_colours.STYLE``.
    """
    read = _reader()
    if read is None:
        return None
    if len(text) > MAX_TEXT:
        return as_text(text)
    try:
        body, notes = split_notes(text)
        scope = blake2b((scope or text).encode(errors="replace"), digest_size=6).hexdigest()
        document = _Document(scope, images or {}, coloured=coloured)
        numbers = {name: number for number, name in enumerate(notes, start=1)}
        return document.html(read(body, numbers)) + document.notes(read(words, numbers) for words in notes.values())
    except Exception:  # noqa: BLE001 - whatever a parser does with a foreign text, the answer is shown
        return as_text(text)


_ATTACHMENT = re.compile(r"attachment:([A-Za-z0-9_-]{1,128})")


def attachments_in(text: str) -> set[str]:
    """The ids of attachments that the images of a text refer to."""
    return set(_ATTACHMENT.findall(text)) if "](attachment:" in text or "]: attachment:" in text else set()


def code_blocks(text: str) -> list[tuple[str, str]]:
    """The fenced and indented code of a text, in order: language (in lower case, often empty) and code.

    Those in lists and quotes, too. Nothing for a text that is too long to be read, or in a kernel without mistune.
    """
    read = _reader()
    if read is None or len(text) > MAX_TEXT:
        return []
    found: list[tuple[str, str]] = []
    waiting = list(read(text, {}))[::-1]
    while waiting:
        token = waiting.pop()
        if token.get("type") == "block_code":
            info = str((token.get("attrs") or {}).get("info") or "").split()
            found.append((info[0].lower() if info else "", str(token.get("raw") or "").rstrip("\n")))
        children = token.get("children")
        waiting += reversed(children) if isinstance(children, list) else ()
    return found


@lru_cache(maxsize=1)
def _reader() -> Callable[[str, Mapping[str, int]], Iterable[Token]] | None:
    """Reads a text into mistune's tokens; given the numbers of its footnotes by name."""
    try:
        import mistune  # imported here: needed by the first answer, not by the import of this package
        from mistune.plugins.formatting import strikethrough
        from mistune.plugins.table import table, table_in_list, table_in_quote
        from mistune.plugins.task_lists import task_lists
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
    markdown = mistune.Markdown(
        renderer=None, inline=inline, plugins=[strikethrough, table, table_in_list, table_in_quote, task_lists]
    )
    markdown.inline.register("inline_math", r"\${1,2}|\\[(\[]", _read_formula, before="escape")
    markdown.block.register("block_math", r"^ {0,3}(?P<math_mark>\$\$|\\\[)", _read_formula_block, before="list")
    for rules in (markdown.block.block_quote_rules, markdown.block.list_rules):
        markdown.block.insert_rule(rules, "block_math", before="list")
    # Of this name mistune knows how it begins: with any other, a long run of blanks takes minutes.
    markdown.inline.register("footnote", r"\[\^[^\s\[\]\\^]{1,100}\]", _read_note, before="link")

    def read(text: str, notes: Mapping[str, int]) -> Iterable[Token]:
        state = markdown.block.state_cls()
        state.env["notes"] = notes
        return markdown.parse(text, state)[0]  # type: ignore[return-value]

    return read


def _read_note(inline: Any, match: re.Match[str], state: Any) -> int:  # noqa: ARG001 - as mistune calls it
    """A reference to a footnote, or its text where there is none of that name."""
    number = state.env["notes"].get(match[0][2:-1])
    token = {"type": "text", "raw": match[0]} if number is None else {"type": "note", "raw": str(number)}
    state.append_token(token)
    return match.end()


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

    def __init__(self, scope: str, images: Images, *, coloured: bool) -> None:
        self._scope = f"navi-{scope}"
        self._images = images
        self._coloured = coloured
        self._urls = 0  # characters of addresses so far
        self._embedded = 0  # and of images
        self._referred: set[str] = set()  # the footnotes that were referred to

    def html(self, tokens: Iterable[Token], depth: int = 0) -> str:
        return "".join(self._token(token, depth) for token in tokens)

    def notes(self, texts: Iterable[Iterable[Token]]) -> str:
        """The footnotes, each with the way back to where it was referred to."""
        items = []
        for number, tokens in enumerate(texts, start=1):
            inner = self.html(tokens, 1).rstrip()
            back = (
                f' <a href="#{self._scope}-r{number}" aria-label="Back to the text">↑</a>'
                if str(number) in self._referred
                else ""
            )
            inner = inner.removesuffix("</p>") + back + "</p>" if inner.endswith("</p>") else inner + back
            items.append(f'<li id="{self._scope}-{number}">{inner}</li>\n')
        return (
            f'<section class="navi-notes" aria-label="Footnotes">\n<ol>\n{"".join(items)}</ol>\n</section>\n'
            if items
            else ""
        )

    def _token(self, token: Token, depth: int) -> str:
        kind = str(token["type"])
        attributes: Mapping[str, Any] = token.get("attrs") or {}
        if "children" not in token:
            return self._leaf(kind, str(token.get("raw", token.get("text", ""))), attributes)
        if depth >= MAX_DEPTH or (kind == "table" and _count(token) > MAX_CELLS):
            return as_text(_words(token)) if kind in _BLOCKS else inert(_words(token))
        if kind == "table":
            _align(token)
        inner = self.html(token["children"], depth + 1)
        match kind:
            case "image":
                url = str(attributes.get("url", ""))
                return self._image(_words(token), url) or self._link(inner or "image", url)
            case "link":
                return self._link(inner or "image", str(attributes.get("url", "")))
            case "table":
                frame = 'style="overflow-x:auto" role="region" aria-label="Table" tabindex="0"'
                return f"<div {frame}><table>{inner}</table></div>\n"
            case "table_head":
                return f"<thead>\n<tr>{inner}</tr>\n</thead>\n"
            case "task_list_item":
                box = _task(is_done=bool(attributes.get("checked")))
                inner = f"<p>{box}{inner[3:]}" if inner.startswith("<p>") else box + inner
                return f'<li style="list-style:none">{inner}</li>\n'
        tag = _container(kind, attributes)
        if not tag:
            return inner
        return f"<{tag}>{inner}</{tag.split(' ')[0]}>{_BLOCKS.get(kind, '')}"

    def _leaf(self, kind: str, raw: str, attributes: Mapping[str, Any]) -> str:
        if kind == "block_code":
            language = _LANGUAGE.match(str(attributes.get("info") or ""))
            return code_html(raw, language[0] if language else "", inert, coloured=self._coloured)
        if kind == "note":
            place = "" if raw in self._referred else f' id="{self._scope}-r{raw}"'
            self._referred.add(raw)
            return f'<sup><a href="#{self._scope}-{raw}"{place} aria-label="Footnote {raw}">{raw}</a></sup>'
        return _leaf(kind, raw)

    def _image(self, alt: str, url: str) -> str:
        """An image that is in the text, an attachment, or a file beside the notebook; empty: it is none of these.

        Nothing of another server is loaded: that would tell it that, and what, somebody reads here.
        """
        source = ""
        if (embedded := _EMBEDDED.fullmatch(url)) is not None:
            source = url
            self._embedded += len(embedded[2])
        elif (named := _ATTACHMENT.fullmatch(url)) is not None and named[1] in self._images:
            kind, content = self._images[named[1]]
            if kind in IMAGE_TYPES and content:
                source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        elif is_file_beside(url):
            source = url
        if not source or self._embedded > MAX_IMAGE:
            return ""
        return f'<img src="{escape(source)}" alt="{escape(alt)}" style="max-width:100%">'

    def _link(self, inner: str, url: str) -> str:
        """Other images are links, too: nothing is loaded before a click."""
        self._urls += len(url)
        if len(url) > MAX_URL or self._urls > 1_000 * MAX_URL or not is_safe(url):
            return inner
        return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{inner}</a>'


_EMBEDDED = re.compile(r"data:(image/(?:png|jpeg|gif|webp));base64,([A-Za-z0-9+/]+={0,2})")


def _task(*, is_done: bool) -> str:
    name, mark = ("done", " checked") if is_done else ("to do", "")
    return f'<input type="checkbox" disabled{mark} aria-label="{name}"> '


def _align(table: Token) -> None:
    """Columns that the text does not align: numbers to the right, all else to the left.

    Jupyter's own style has every cell at the right. The chat does the same (``js/src/view/lib/tables.ts``).
    """
    heads: list[Token] = next((part["children"] for part in table["children"] if part["type"] == "table_head"), [])
    body = [row["children"] for part in table["children"] if part["type"] == "table_body" for row in part["children"]]
    for column, head in enumerate(heads):
        cells = [row[column] for row in body if column < len(row)]
        if (head.get("attrs") or {}).get("align"):
            continue
        align = "right" if is_numeric([_words(cell) for cell in cells]) else "left"
        for cell in (head, *cells):
            cell["attrs"] = {**(cell.get("attrs") or {}), "align": align}


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
    "emphasis": "em",
    "strong": "strong",
    "strikethrough": "del",
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
        case "list_item":
            return "li"
    return _TAGS.get(kind, "")


def _leaf(kind: str, raw: str) -> str:
    """What has no children: code in a line, formulas, breaks; raw HTML and all that is unknown as text."""
    match kind:
        case "codespan":
            return f"<code>{inert(raw)}</code>"
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
