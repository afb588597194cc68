"""Commands that install something are those of the environment that this runs in, and name only what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from navi_jupyter import installation
from navi_jupyter.cli import demo, doctor
from navi_jupyter.installation import install_command, start_command, upgrade_command
from tests.support.server import ROOT


def in_environment(folder: Path, **env: str) -> str:
    """The command, as an interpreter of another environment makes it."""
    code = "from navi_jupyter.installation import install_command as i; print(i('navi-jupyter[openai]'))"
    kept = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-c", code],
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    return folder


@pytest.mark.skipif(os.name != "posix", reason="the layout of environments")
def test_the_command_is_that_of_the_environment(environment: Path) -> None:
    python = environment / "bin" / "python"
    (environment / "lib" / f"python3.{sys.version_info[1]}" / "site-packages" / "pip").mkdir()
    assert in_environment(environment) == f'{python} -m pip install "navi-jupyter[openai]"'
    (environment / "bin" / "pip").touch(mode=0o755)
    path = f"{environment / 'bin'}:{os.environ['PATH']}"
    assert in_environment(environment, PATH=path) == 'pip install "navi-jupyter[openai]"'
    (environment / "conda-meta").mkdir()
    assert in_environment(environment, CONDA_PREFIX=str(environment)).startswith("python -m pip install ")
    assert in_environment(environment).startswith(f"conda run -p {environment} python -m pip install ")


@pytest.mark.skipif(os.name != "posix", reason="the layout of environments")
def test_an_environment_of_uv_has_no_pip(environment: Path) -> None:
    with (environment / "pyvenv.cfg").open("a") as file:
        file.write("uv = 0.9.1\n")
    python = environment / "bin" / "python"
    assert in_environment(environment) == f'uv pip install --python {python} "navi-jupyter[openai]"'
    assert in_environment(environment, VIRTUAL_ENV=str(environment)) == 'uv pip install "navi-jupyter[openai]"'


def test_pipx_is_asked_for_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/ann/.local/share/pipx/venvs/navi-jupyter")
    assert install_command("mcp") == "pipx runpip navi-jupyter install mcp"
    assert upgrade_command() == "pipx runpip navi-jupyter install --upgrade navi-jupyter"


@pytest.mark.parametrize(
    ("there", "command", "next_step"),
    [
        ({"jupyterlab", "notebook", "nbclassic"}, "jupyter lab", "press the star"),
        ({"notebook"}, "jupyter notebook", "press the star"),
        ({"nbclassic"}, "jupyter nbclassic", "%navi chat in a cell"),
        (set(), "jupyter navi", "opens the chat in the browser"),
    ],
)
def test_only_what_is_installed_is_named(
    there: set[str], command: str, next_step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (installation, doctor):
        monkeypatch.setattr(module, "has_distribution", lambda name: name in there)
    monkeypatch.setattr(doctor, "jupyter_path", lambda _: [])
    assert start_command() == command
    sentence = demo.next_step()
    assert sentence.startswith(command)
    assert next_step in sentence
    (finding,) = doctor.labextension()
    if there & {"jupyterlab", "notebook"}:
        assert finding.status == "warn"
        assert ("Notebook" in finding.text) == ("notebook" in there)
        assert ("JupyterLab" in finding.text) == ("jupyterlab" in there)
    else:
        assert finding.status == "ok"
