"""Importing the package is cheap, and its names do not get into each other's way."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import navi_jupyter
from tests.support.server import ROOT

HEAVY = ("tornado", "pydantic", "pydantic_ai", "jupyter_server", "anywidget", "ipywidgets", "aiosqlite", "mistune")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_nothing_heavy() -> None:
    loaded = python("import sys, navi_jupyter; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_the_kernels_side_needs_neither_the_server_nor_pydantic() -> None:
    modules = "api, magics, input_transform\nfrom navi_jupyter.kernel.display import widget"
    loaded = python(f"import sys\nfrom navi_jupyter.kernel import {modules}\nprint(*sys.modules)").split()
    assert not {"jupyter_server", "pydantic", "pydantic_ai", "aiosqlite", "croniter"} & set(loaded)
    others = {name for name in loaded if name.startswith("navi_jupyter.") and ".kernel" not in name}
    leaves = (
        "clock",
        "errors",
        "formulas",
        "handles",
        "injected",
        "injected.execution_guard",
        "input",
        "input.json_input",
        "markdown_text",
        "navi_cells",
        "output_text",
        "text",
        "timetext",
        "timetext.notebook_jobs",
        "visible_text",
    )
    assert others <= {f"navi_jupyter.{leaf}" for leaf in leaves}


@pytest.mark.parametrize(
    "code",
    [
        "from navi_jupyter import recalls; print(callable(recalls))",
        "import navi_jupyter as navi; print(all(hasattr(navi, name) for name in navi.__all__))",
        "import navi_jupyter as navi; print(not hasattr(navi, 'nothing'))",
    ],
)
def test_the_api_is_there_when_it_is_first_used(code: str) -> None:
    assert python(code) == "True"


def test_no_module_has_the_name_of_a_function_of_the_api() -> None:
    # Importing it would put the module in the function's place.
    modules = {module.name for module in pkgutil.iter_modules(navi_jupyter.__path__)}
    assert not modules & set(navi_jupyter.__all__)
