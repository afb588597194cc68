"""A realistic analysis, as a model would do it: the data, the notebook, the script, and who says yes.

Used headless here and in a browser by ``tests/browser``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat

from tests.support.providers import Call, Reply

ODD_ROW = 17
FIXED = "clean = df[df.temperature < 60]\nclean.temperature.mean()"


def write_files(root: Path) -> None:
    """A CSV with one absurd row, and a notebook whose third cell is wrong."""
    root.mkdir(parents=True, exist_ok=True)
    rows = [f"{n},{20 + (n * 7) % 5 + n / 100:.2f}" for n in range(40)]
    rows[ODD_ROW] = f"{ODD_ROW},2150.0"
    (root / "sensors.csv").write_text("id,temperature\n" + "\n".join(rows) + "\n")
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# Sensors", id="title"),
            nbformat.v4.new_code_cell("import pandas as pd\ndf = pd.read_csv('sensors.csv')\nlen(df)", id="load"),
            nbformat.v4.new_code_cell("df.temprature.mean()", id="mean"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, root / "sensors.ipynb")


PLOT = "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot(df.temperature)\nplt.show()"
FIND = "odd = df[(df.temperature - df.temperature.median()).abs() > 100]\nprint(odd)"


def script() -> tuple[Reply, ...]:
    """What the model answers, request by request."""
    return (
        Reply(
            "Let me look first.",
            calls=(Call("list_files", {}, id="c1"), Call("read_file", {"path": "sensors.csv", "lines": 5}, id="c2")),
        ),
        Reply(calls=(Call("run_cell", {"cell": "load"}, id="c3"),)),
        Reply(calls=(Call("list_variables", {}, id="c4"), Call("inspect_variable", {"name": "df"}, id="c5"))),
        Reply("Now a plot.", calls=(Call("run_code", {"code": PLOT}, id="c6"),)),
        Reply(calls=(Call("run_code", {"code": FIND}, id="c7"),)),
        Reply(calls=(Call("read_notebook", {}, id="c8"),)),
        Reply(calls=(Call("edit_cell", {"cell": "mean", "source": FIXED}, id="c9"),)),
        Reply(calls=(Call("run_cell", {"cell": "mean"}, id="c10"),)),
        Reply(f"Row {ODD_ROW} is the odd one: 2150 degrees. ", "I fixed the cell; the mean is 22 degrees."),
    )


def told(body: dict[str, Any], call_id: str) -> str:
    """What the model was told a call had given, in a request of OpenAI's chat protocol."""
    for message in body["messages"]:
        if message.get("role") == "tool" and message.get("tool_call_id") == call_id:
            content = message["content"]
            return content if isinstance(content, str) else json.dumps(content)
    raise AssertionError(f"the model was told nothing of {call_id}")


def outputs_of(root: Path, cell_id: str) -> str:
    """The outputs of a cell of the notebook on disk, as text."""
    notebook = nbformat.read(root / "sensors.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if cell.id == cell_id]
    return json.dumps(cell.outputs)
