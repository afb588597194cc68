"""A session as one HTML page: nothing is loaded, nothing runs, and it is readable in light and dark and on paper.

Markdown goes through the renderer of cells, which makes it safe; everything else is escaped here. A policy in the page
forbids what would still ask for something. Not responsible for what is shown of a session (``files``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ...kernel.display.code_colours import STYLE
from ...kernel.display.markdown import as_text, inert, to_html
from ...text import truncate_middle

HTML = "text/html; charset=utf-8"
_LONGEST_BLOCK = 100_000  # characters of one call, result or detail

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --back: #fff; --soft: #f6f8fa;
  --link: #0550ae; --jp-mirror-editor-comment-color: #59636e; --jp-mirror-editor-keyword-color: #8a2f9c;
  --jp-mirror-editor-string-color: #1a6b35; --jp-mirror-editor-number-color: #9a4600;
  --jp-mirror-editor-def-color: #20509e; --jp-mirror-editor-builtin-color: #0b6478; --jp-border-color2: var(--line); }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --dim: #9198a1; --line: #3d444d; --back: #0d1117;
  --soft: #161b22; --link: #79b8ff; --jp-mirror-editor-comment-color: #9198a1;
  --jp-mirror-editor-keyword-color: #d6a1ff;
  --jp-mirror-editor-string-color: #95d8a5; --jp-mirror-editor-number-color: #f2b27a;
  --jp-mirror-editor-def-color: #8fbcff; --jp-mirror-editor-builtin-color: #7fd3e6; } }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 50rem; background: var(--back); color: var(--text);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
header p, .who { color: var(--dim); }
article { border-top: 1px solid var(--line); padding: 1rem 0; }
article.user > .text { background: var(--soft); border-radius: 8px; padding: .1rem 1rem; }
.who { margin: 0 0 .5rem; font-size: .875rem; }
.who strong { color: var(--text); }
pre, table { overflow-x: auto; display: block; }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .75rem; font-size: .875rem;
  white-space: pre-wrap; }
code { font-family: ui-monospace, monospace; }
table { border-collapse: collapse; }
th, td { border: 1px solid var(--line); padding: .25rem .5rem; }
blockquote { margin-left: 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--dim); }
a { color: var(--link); }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--dim); }
.note { color: var(--dim); font-style: italic; }
h1, h2, h3, h4, h5, h6 { line-height: 1.25; }
@media print { body { max-width: none; } pre { white-space: pre-wrap; } }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class PageBlock:
    """A part of a message: Markdown, or a block of text under a summary that opens it."""

    text: str
    summary: str | None = None  # None: ``text`` is Markdown
    note: bool = False  # one line of ours about the message


@dataclass(frozen=True, kw_only=True, slots=True)
class PageMessage:
    """A message as the page shows it."""

    id: str
    role: str
    author: str
    at: str
    blocks: tuple[PageBlock, ...]


def html_page(title: str, about: str, messages: Sequence[PageMessage]) -> str:
    """The whole page."""
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en" dir="auto">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            STYLE,
            "</head>",
            "<body>",
            f"<header><h1>{inert(title)}</h1><p>{inert(about)}</p></header>",
            "<main>",
            *map(_article, messages),
            "</main>",
            "</body>",
            "</html>",
            "",
        )
    )


def _article(message: PageMessage) -> str:
    role = "user" if message.role == "user" else "assistant"
    who = f'<p class="who"><strong>{inert(message.author)}</strong> · <time>{inert(message.at)}</time></p>'
    return f'<article class="{role}" id="{escape(message.id)}">\n{who}\n{"".join(_blocks(message.blocks))}</article>'


def _blocks(blocks: Iterable[PageBlock]) -> Iterable[str]:
    for block in blocks:
        if block.note:
            yield f'<p class="note">{inert(block.text)}</p>\n'
        elif block.summary is None:
            yield f'<div class="text" dir="auto">\n{to_html(block.text, coloured=True) or as_text(block.text)}</div>\n'
        else:
            text = truncate_middle(block.text, _LONGEST_BLOCK)
            yield f"<details><summary>{inert(block.summary)}</summary><pre><code>{inert(text)}</code></pre></details>\n"
