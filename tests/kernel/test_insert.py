"""``%%navi --insert``: the code of an answer in a new cell; and errors of cells that go with a question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from navi_jupyter.kernel.answer_code import cell_of
from navi_jupyter.kernel.display.markdown import code_blocks
from navi_jupyter.kernel.grammar.command_line import Prompt, parse_cell, parse_line
from tests.support.kernels import NotebookKernel
from tests.support.providers import KEY, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .test_attachments import attached, content
from .test_control import MODEL, provider_of

ANSWER = "First load it:\n\n```python\nimport json\n\ndata = json.load(open('a'))\n```\n\nand show:\n\n```\ndata\n```\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply(ANSWER)) as provider:
        yield provider


@pytest.fixture(scope="module")
def server(provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    home: Path = tmp_path_factory.mktemp("insert")
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    with JupyterServer(home, env=env).start() as running:
        yield running


def test_the_code_of_an_answer_goes_into_a_new_cell(kernel: NotebookKernel, provider: ScriptedProvider) -> None:
    shown = kernel.run("%%navi --insert\nload the file a", typed=lambda _: None)
    assert shown.status == "ok", shown.error
    assert shown.cells == ["import json\n\ndata = json.load(open('a'))\n\ndata"]
    assert "in a new cell below (5 lines)" in shown.stdout
    body = json.dumps(provider.requests[-1].body)
    assert "goes into a new cell of the notebook" in body


def test_only_the_words_of_the_user_are_shown(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok("%navi --insert load the file a")
    kernel.ok("reply = navi.ask('again')\nassert len(reply.code) == 2, reply.code")
    session = kernel.ok("print(navi.session().id)").stdout.strip()
    messages = server.get(f"navi/api/sessions/{session}/messages")["messages"]
    assert [one["content"] for one in messages if one["role"] == "user"] == ["load the file a", "again"]


def test_where_no_front_end_takes_a_cell_the_code_is_printed(kernel: NotebookKernel) -> None:
    shown = kernel.ok("%navi --insert load the file a")
    assert shown.cells == []
    assert "Nothing is inserted: this front end takes no new cell" in shown.stdout
    assert "data = json.load(open('a'))" in shown.stdout


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("no code", None),
        ("```python\nx = 1\n```", "x = 1"),
        ("```py\nx = 1\n```\n\n```text\n1\n```", "x = 1"),
        ("- do\n  ```python\n  x = 1\n  ```", "x = 1"),
        ("```bash\nls\n```", "%%bash\nls"),
        ("```yaml\na: 1\n```", None),
        ("```python\n\n```", None),
        ("```python title=x\nx\n```\n~~~\ny\n~~~", "x\n\ny"),
    ],
)
def test_a_cell_gets_the_code_that_can_run_in_it(text: str, cell: str | None) -> None:
    assert cell_of(code_blocks(text)) == cell


def test_inserting_waits_for_the_answer() -> None:
    prompt = parse_cell("--insert", "load it")
    assert isinstance(prompt, Prompt)
    assert prompt.insert
    assert not parse_cell("", "load it").insert  # type: ignore[union-attr]
    assert parse_line("-b --insert load it").wait  # type: ignore[union-attr]


# --- errors of cells

FAILING = "print('before')\ndef f():\n    raise ValueError('bad \\x1b[31mred')\nf()"


def test_the_error_of_a_cell_goes_along(server: JupyterServer, kernel: NotebookKernel) -> None:
    assert kernel.run(FAILING).status == "error"
    number = kernel.numbers[-1]
    kernel.ok("%navi --with-output last why?")
    kernel.ok(f"%navi --with-output {number} and now?")
    assert attached(server, kernel) == [[(f"Out{number}.txt", "text/plain")]] * 2
    (text,) = {content(server, kernel, f"Out{number}.txt").decode()}
    assert text.startswith("before\n")
    assert "Traceback" in text
    assert "ValueError: bad" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("source", ["1 +", "if True:\nx", "no_such_name", "raise KeyboardInterrupt"])
def test_every_kind_of_error_goes_along(server: JupyterServer, kernel: NotebookKernel, source: str) -> None:
    assert kernel.run(source).status == "error"
    number = kernel.numbers[-1]
    kernel.ok("%navi --with-output last why?")
    text = content(server, kernel, f"Out{number}.txt").decode()
    assert any(name in text for name in ("SyntaxError", "IndentationError", "NameError", "KeyboardInterrupt"))


def test_a_long_traceback_is_bounded_and_keeps_its_end(server: JupyterServer, kernel: NotebookKernel) -> None:
    assert kernel.run("raise ValueError('x' * 500_000 + 'the end')").status == "error"
    number = kernel.numbers[-1]
    kernel.ok("%navi --with-output last why?")
    text = content(server, kernel, f"Out{number}.txt").decode()
    assert len(text) < 30_000
    assert text.rstrip().endswith("the end")


def test_fix_takes_the_error_of_the_last_cell_that_failed_along(
    server: JupyterServer, kernel: NotebookKernel, provider: ScriptedProvider
) -> None:
    kernel.ok("%navi /fix")
    assert attached(server, kernel) == [[("@error (not found)", "text/plain")]]
    assert kernel.run(FAILING).status == "error"
    number, failed = kernel.numbers[-1], kernel.cell
    kernel.cell = "another-cell"
    kernel.ok("x = 1")
    assert kernel.run("%navi fire").status == "error"
    kernel.ok("%navi /fix")
    kernel.ok("%navi /explain")
    kernel.ok("%navi /fix shortly")
    files = [(f"Out{number}.txt", "text/plain")]
    assert attached(server, kernel)[1:] == [files, [], files]
    read = [json.dumps(request.body["messages"][-1]) for request in provider.requests]
    assert any("Find the cause of this error" in text and "raise ValueError" in text for text in read)
    kernel.cell = failed
    kernel.ok("x = 2")
    kernel.ok("%navi /fix")
    assert attached(server, kernel)[-1] == [("@error (not found)", "text/plain")], "that cell is repaired"
