"""Formulas and dollars of an answer where a typesetter looks at a cell's output afterwards: JupyterLab and Notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from .hosts import Host, run_cell

pytestmark = pytest.mark.browser

FORMULAS: list[tuple[str, list[tuple[str, bool]]]] = json.loads(
    (Path(__file__).parents[1] / "kernel" / "formulas.json").read_text(encoding="utf-8")
)
CODE = """
import json
from IPython.display import display
from navi_jupyter.kernel.display.markdown import NOT_TYPESET, to_html
for text, _ in json.loads({rows!r}):
    display({{"text/html": f'<div class="navi-answer {{NOT_TYPESET}}">{{to_html(text)}}</div>'}}, raw=True)
""".strip()
TYPESET = """() => [...document.querySelectorAll(".jp-OutputArea-output .navi-answer")].map(answer => ({
    formulas: answer.querySelectorAll("mjx-container, .MathJax, .katex").length,
    inside: answer.querySelectorAll(":is(.navi-math) :is(mjx-container, .MathJax, .katex)").length,
    dollars: (answer.textContent.match(/\\$/g) || []).length,
}))"""


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(request.param, tmp_path_factory.mktemp(request.param))
    yield host
    host.server.stop()


def test_formulas_are_typeset_and_dollars_are_left_alone(host: Host, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    # The front ends show the first 50 outputs of a cell.
    parts = [FORMULAS[start : start + 40] for start in range(0, len(FORMULAS), 40)]
    host.write("formulas", *(CODE.format(rows=json.dumps(rows)) for rows in parts))
    page = host.open(context, "formulas")
    for number in range(len(parts)):
        run_cell(page, number)
        shown = min(len(FORMULAS), 40 * (number + 1))
        page.wait_for_function(f"() => document.querySelectorAll('.navi-answer').length === {shown}", timeout=60_000)
    expected = [len(formulas) for _, formulas in FORMULAS]
    typeset = "document.querySelectorAll('.navi-math :is(mjx-container, .katex)').length"
    page.wait_for_function(f"() => {typeset} >= {sum(expected)}")
    page.wait_for_timeout(1000)  # what it would typeset beside them
    found = page.evaluate(TYPESET)
    assert [one["formulas"] for one in found] == expected
    assert [one["inside"] for one in found] == expected
    money = next(number for number, (text, _) in enumerate(FORMULAS) if text == "$148 to $19")
    assert found[money]["dollars"] == 2
    context.close()
