"""Whether an expression in a kernel is true: the code that is asked, and the edge. Pure.

Not responsible for asking it (``watcher``): silently, between cells, with a limit of time.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from ..injected import source

LONGEST_PROBLEM = 300
MOST_PROBLEMS = 20
"""Of one recall that are said."""


def question(expr: str, *, seconds: float) -> str:
    """Code that leaves in ``_navi_result`` whether the expression is true, and ends it when it takes longer than
    ``seconds``. Raises SyntaxError.

    ``not not``: the user may have given ``bool`` another meaning. An expression can not assign: what a ``:=`` names
    is gone with the frame that evaluates it.
    """
    tree = ast.parse(expr.strip(), mode="eval")
    return (
        f"_navi = {{'__name__': 'navi'}}\n__import__('builtins').exec({source('time_limit')!r}, _navi)\n"
        f"with _navi['limited']({seconds!r}):\n    _navi_result = not not (\n{ast.unparse(tree)}\n)"
    )


@dataclass(eq=False)
class Edge:
    """Turns looks into occurrences. Two kinds of looks are not true: false, and one that raised."""

    was: bool | None = None
    """What it was at the last look in this process of the kernel; None before the first."""
    process: str = ""
    problems: set[str] = field(default_factory=set)
    """What was said of looks that raised."""

    def saw(self, value: bool, *, process: str) -> bool:
        """A look; whether it has turned true. Also when it is true at the first look: nobody wants to miss that."""
        self._in(process)
        turned = value and self.was is not True
        self.was = value
        return turned

    def raised(self, problem: str, *, process: str) -> str | None:
        """A look that raised. What is to be said about it; None when it was said before, or enough was said."""
        self._in(process)
        self.was = False
        short = problem.strip()[:LONGEST_PROBLEM]
        if short in self.problems or len(self.problems) >= MOST_PROBLEMS:
            return None
        self.problems.add(short)
        return short

    def _in(self, process: str) -> None:
        if process != self.process:
            self.process, self.was = process, None
