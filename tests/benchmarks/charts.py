"""Bars on a logarithmic scale as a small SVG file that is legible on light and on dark pages.

matplotlib draws for one background and writes thirty times as much; a page of figures needs no more than this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tests.benchmarks.measuring import shown

WIDTH, LABEL, VALUE, ROW = 720, 230, 90, 24
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600 }
.note { fill: #59636e }
rect { fill: #9aa4af }
.own { fill: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.note { fill: #9198a1 }
rect { fill: #656c76 }
.own { fill: #4493f8 }
}
"""


@dataclass(frozen=True)
class Bar:
    """A line of the picture."""

    label: str
    value: float
    own: bool = False
    """Ours: in colour."""


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Ten times as much is the same length everywhere; where all are within ten times, the scale is linear from 0."""
    values = [row.value for row in rows if row.value > 0]
    top, low = max(values, default=1.0), min(values, default=1.0)
    base = 10.0 ** (math.ceil(math.log10(low)) - 1) if top / low > 10 else 0.0
    note = f"logarithmic, from {shown(base)}" if base else "linear, from 0"
    room = WIDTH - LABEL - VALUE

    def length(value: float) -> float:
        if value <= base:
            return 1.0
        share = math.log(value / base) / math.log(top / base) if base else value / top
        return max(1.0, room * share)

    height = 34 + ROW * len(rows)
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="0" y="16">{escape(title)}</text>',
        f'<text class="note" x="{WIDTH}" y="16" text-anchor="end">{note}</text>',
    ]
    for number, row in enumerate(rows):
        y, wide = 28 + ROW * number, length(row.value)
        kind = ' class="own"' if row.own else ""
        lines += [
            f'<text x="{LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(row.label)}</text>',
            f'<rect{kind} x="{LABEL}" y="{y + 3}" width="{wide:.1f}" height="{ROW - 8}" rx="2"/>',
            f'<text x="{LABEL + wide + 6:.1f}" y="{y + 15}">{shown(row.value)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
