"""Importing the package is cheap, and its names do not get into each other's way."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
    modules = "api, magics, widget, questions, relay"
    loaded = python(f"import sys\nfrom navi_jupyter.kernel import {modules}\nprint(*sys.modules)").split()
    assert not {"jupyter_server", "pydantic", "pydantic_ai", "aiosqlite", "croniter"} & set(loaded)
    others = {name for name in loaded if name.startswith("navi_jupyter.") and ".kernel" not in name}
    assert others <= {"navi_jupyter.errors", "navi_jupyter.navi_cells"}


@pytest.mark.parametrize(
    "code",
    [
        "import navi_jupyter as navi; import navi_jupyter.scheduling.schedules; print(callable(navi.recalls))",
        "import navi_jupyter.scheduling as package; import navi_jupyter; print(package is navi_jupyter.scheduling)",
        "from navi_jupyter import recalls; print(callable(recalls))",
        "import navi_jupyter as navi; print(all(hasattr(navi, name) for name in navi.__all__))",
        "import navi_jupyter as navi; print(not hasattr(navi, 'nothing'))",
    ],
)
def test_recalls_is_a_function_and_a_package(code: str) -> None:
    assert python(code) == "True"
