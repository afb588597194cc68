"""How times and tables read in a cell."""

from __future__ import annotations

import pytest

from navi_jupyter.kernel.listing import table_html
from navi_jupyter.kernel.render import distance


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59, "in 59s"),
        (118, "in 118s"),
        (119.99, "in 2m"),
        (5400, "in 90m"),
        (7199.9, "in 2h"),
        (-7199.9, "2h ago"),
        (-3600, "60m ago"),
        (2 * 86_400 - 5, "in 2d"),
    ],
)
def test_a_distance_has_the_unit_in_which_it_was_meant(seconds: float, words: str) -> None:
    assert distance(seconds) == words


def test_a_table_is_text_to_the_left_and_escaped() -> None:
    shown = table_html(["what"], [["<b>&"]], empty="none")
    assert "<td" in shown
    assert "text-align:left" in shown
    assert "&lt;b&gt;&amp;" in shown
    assert table_html(["what"], [], empty="none <yet>") == "<p>none &lt;yet&gt;</p>"
