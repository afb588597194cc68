"""Expressions in a kernel that recalls wait for: the code that evaluates one, and when it has turned true. Pure.

Not responsible for evaluating it (``polling``): silently, between cells, within a time limit.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from ..injected import source

MAX_PROBLEM = 300
MAX_PROBLEMS = 20  # of one recall that are reported


def expression_code(expr: str, *, seconds: float) -> str:
    """Code that leaves in ``_navi_result`` whether the expression is true, and ends it when it takes longer than
    ``seconds``. Raises SyntaxError.

    ``not not``: the user may have given ``bool`` another meaning. An expression cannot assign: what a ``:=`` names
    is gone with the frame that evaluates it.
    """
    tree = ast.parse(expr.strip(), mode="eval")
    return (
        f"_navi = {{'__name__': 'navi'}}\n__import__('builtins').exec({source('time_limit')!r}, _navi)\n"
        f"with _navi['limited']({seconds!r}):\n    _navi_result = not not (\n{ast.unparse(tree)}\n)"
    )


@dataclass(eq=False)
class Edge:
    """Turns the values of polls into occurrences. A poll that raised counts as false."""

    was: bool | None = None  # its value at the last poll in this process of the kernel; None before the first
    process: str = ""
    problems: set[str] = field(default_factory=set)  # what polls raised, as far as it was reported

    def saw(self, value: bool, *, process: str) -> bool:
        """A poll; whether it has turned true. True at the first poll counts: it may have turned true just before."""
        self._in(process)
        turned = value and self.was is not True
        self.was = value
        return turned

    def raised(self, problem: str, *, process: str) -> str | None:
        """A poll that raised. The problem to report; None when it was reported before, or enough were."""
        self._in(process)
        self.was = False
        short = problem.strip()[:MAX_PROBLEM]
        if short in self.problems or len(self.problems) >= MAX_PROBLEMS:
            return None
        self.problems.add(short)
        return short

    def _in(self, process: str) -> None:
        if process != self.process:
            self.process, self.was = process, None
