"""The state of a real kernel in answers that need no language model, through the tools that a model would call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from navi_jupyter.agent.offline.backend import OfflineBackend
from navi_jupyter.agent.registry import default_parts
from navi_jupyter.errors import CellNotFound
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.runs import Permission
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.agent import ToolContext, Turn
from navi_jupyter.ports.jupyter import Cell, Notebook
from navi_jupyter.ports.jupyter_access import JupyterAccess
from navi_jupyter.settings import Limits

Run = Callable[..., ToolContext]


async def ask(context: ToolContext, prompt: str, **ceiling: Permission) -> tuple[str, list[str]]:
    """The answer, and the tools that were called for it."""
    turn = Turn(
        session=context.session, run_id="r_1", model="offline", prompt=prompt, history=(),
        limits=Limits(run_timeout=60), origin=context.origin, now=datetime.now(UTC),
    )  # fmt: skip
    text, tools = "", []
    async for event in OfflineBackend(default_parts(packages=False, ceiling=ceiling)).run(turn, context):
        match getattr(event, "type", ""):
            case "TEXT_MESSAGE_CONTENT":
                text += event.delta  # type: ignore[union-attr]
            case "TOOL_CALL_START":
                tools.append(event.tool_call_name)  # type: ignore[union-attr]
    return text, tools


async def test_variables_are_listed_and_shown(kernels: KernelService, session: Session, run: Run) -> None:
    context = run()
    await kernels.execute(session, "import pandas as pd; frame = pd.DataFrame({'price': [1.5, 2.5, None]}); n = 3")
    text, tools = await ask(context, "what variables are there?")
    assert tools == ["list_variables"]
    assert "2 variables in the kernel" in text
    assert "`frame`: pandas.DataFrame (3 × 1)" in text
    assert "`n`: int" in text
    text, tools = await ask(context, "show frame")
    assert tools == ["inspect_variable"]
    assert "price" in text
    assert "1.5" in text
    assert "Missing values: price 1" in text
    text, _ = await ask(context, "what is in frame['price']")
    assert "2.5" in text
    text, _ = await ask(context, "show nonsense")
    assert "I could not show that" in text


async def test_the_last_failure_is_told_with_its_traceback(kernels: KernelService, session: Session, run: Run) -> None:
    context = run()
    await kernels.execute(session, "x = 1")
    text, tools = await ask(context, "what failed?")
    assert tools[0] == "inspect_variable"
    assert "nothing that failed" in text
    await kernels.execute(session, "def divide(a):\n    return a / 0\n\ndivide(x)")
    text, tools = await ask(context, "what failed?")
    assert tools == ["inspect_variable"]
    assert "`ZeroDivisionError`" in text
    assert "divide(x)" in text
    assert "return a / 0" in text
    assert "\x1b" not in text
    assert "interactiveshell" not in text


class _OneNotebook:
    """``ports.jupyter.Notebooks`` with one notebook, whose third cell failed last."""

    async def read(self, _session: Session, _path: str | None = None, *, shown: object = None) -> Notebook:
        error = {
            "output_type": "error",
            "ename": "KeyError",
            "evalue": "'a'",
            "traceback": ["Traceback", "KeyError: 'a'"],
        }
        fields: dict[str, Any] = {"kind": "code"}
        cells = (
            Cell(index=0, id="c0", source="1 / 0", execution_count=2, outputs=(error,), **fields),
            Cell(index=1, id="c1", source="print(1)", execution_count=9, outputs=(), **fields),
            Cell(index=2, id="c2", source="d['a']", execution_count=7, outputs=(error,), **fields),
        )
        return Notebook(path="work.ipynb", cells=cells, metadata={}, live=False)

    def __getattr__(self, name: str) -> Any:
        raise CellNotFound(name)


async def test_without_a_kernel_the_notebook_says_which_cell_failed(run: Run) -> None:
    context = run()
    notebooks: Any = _OneNotebook()
    text, tools = await ask(replace(context, jupyter=JupyterAccess(notebooks=notebooks)), "which cell failed?")
    assert tools == ["inspect_variable", "read_notebook"]
    assert "Cell 2 (In[7]) of the notebook failed" in text
    assert "KeyError: 'a'" in text


async def test_a_tool_that_is_denied_is_not_called(kernels: KernelService, session: Session, run: Run) -> None:
    await kernels.execute(session, "secret = 41 + 1")
    ceiling = {"list_variables": Permission.DENY, "inspect_variable": Permission.DENY}
    for prompt in ("what variables are there", "show secret", "what failed"):
        text, tools = await ask(run(), prompt, **ceiling)
        assert len(tools) == 1
        assert "I could not" in text
        assert "42" not in text
