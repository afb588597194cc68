"""Pictures, files and outputs of cells that go with a prompt, from a real kernel to the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

from .conftest import PREPARE
from .test_magics import session_of

PLOT = """
%matplotlib inline
import matplotlib.pyplot as plt
print("epoch", 3)
plt.plot([1, 4, 9])
"""


def attached(server: JupyterServer, kernel: NotebookKernel) -> list[list[tuple[str, str]]]:
    """Name and type of what each user's message brought, oldest first."""
    session = session_of(server, kernel)
    messages = server.get(f"navi/api/sessions/{session['id']}/messages")["messages"]
    said = [message for message in messages if message["role"] == "user"]
    return [[(one["name"], one["media_type"]) for one in message["attachments"]] for message in said]


def content(server: JupyterServer, kernel: NotebookKernel, name: str) -> bytes:
    session = session_of(server, kernel)
    messages = server.get(f"navi/api/sessions/{session['id']}/messages")["messages"]
    (found,) = {one["id"] for message in messages for one in message["attachments"] if one["name"] == name}
    return server.download(f"navi/api/attachments/{found}")


def test_the_output_of_a_cell_goes_along_with_its_text_and_its_plot(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    kernel.ok(PLOT)
    kernel.ok("%navi --with-output last what is odd here?")
    (files,) = attached(server, kernel)
    number = next(name for name, _ in files if name.endswith(".png")).partition("-")[0].removeprefix("Out")
    assert dict(files) == {f"Out{number}-1.png": "image/png", f"Out{number}.txt": "text/plain"}
    assert content(server, kernel, f"Out{number}-1.png").startswith(b"\x89PNG")
    text = content(server, kernel, f"Out{number}.txt").decode()
    assert "epoch 3" in text
    assert "Line2D" in text

    kernel.ok("1 + 1")
    kernel.ok(f"%navi --with-output {number} and now?")
    assert sorted(attached(server, kernel)[1]) == sorted(files)


def test_the_question_is_shown_as_it_was_asked_and_the_model_is_told_of_the_cell(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    kernel.ok("print('hello from here')")
    kernel.ok("%navi --with-output last what is odd here?")
    session = session_of(server, kernel)
    messages = server.get(f"navi/api/sessions/{session['id']}/messages")["messages"]
    assert messages[0]["content"] == "what is odd here?"


def test_a_cell_without_output_or_an_unknown_one_is_one_readable_line(shared_kernel: NotebookKernel) -> None:
    shared_kernel.ok("x = 1")
    for which in ("last", "9999", "seven"):
        shown = shared_kernel.run(f"%navi --with-output {which} what is odd?")
        assert shown.status == "error"
        assert shown.error.startswith("navi: ")
        assert "Traceback" not in shown.error


def test_figures_images_bytes_and_paths_are_taken(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(
        "import matplotlib; matplotlib.use('agg')\n"
        "import matplotlib.pyplot as plt\n"
        "from PIL import Image\n"
        "figure, axes = plt.subplots(); axes.plot([1, 2])\n"
        "open('data.csv', 'w').write('a,b\\n1,2\\n')\n"
        "r = navi.ask('look', images=[figure, axes, Image.new('RGB', (2, 2))], files=['data.csv', b'some text'])"
    )
    (files,) = attached(server, kernel)
    assert [kind for _, kind in files] == ["image/png"] * 3 + ["text/csv", "text/plain"]
    assert files[3][0] == "data.csv"


def test_what_can_not_be_attached_is_refused_before_anything_is_asked(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    for code, says in (
        ("navi.ask('look', images=[object()])", "cannot be attached"),
        ("navi.ask('look', files=['no/such/file'])", "cannot be read"),
        ("%navi --attach no/such/file what is it?", "cannot be read"),
        ("navi.ask('look', images=[b'no picture'])", "images.0"),
    ):
        shown = kernel.run(code)
        assert shown.status == "error", code
        assert says in shown.error or "is not a PNG" in shown.error, shown.error
    assert attached(server, kernel) == []


def test_what_cells_showed_is_bounded(open_kernel: Callable[..., Any]) -> None:
    kernel = open_kernel()
    kernel.ok(PREPARE)
    kernel.ok("for n in range(3): print('x' * 5_000_000)")
    kernel.ok(
        "from navi_jupyter.kernel.display import cell_outputs\n"
        "assert sum(cell_outputs._store._sizes.values()) <= cell_outputs._BYTES\n"
        "assert max(cell_outputs._store._sizes.values()) <= cell_outputs._BYTES_OF_A_CELL"
    )


def test_facts_are_remembered_listed_and_forgotten(kernel: NotebookKernel) -> None:
    shown = kernel.ok("%navi remember that I prefer polars")
    assert "I prefer polars" in shown.stdout
    assert "I prefer polars" in kernel.ok("%navi memory polars").text
    kernel.ok("fact = navi.remember('The data is from 2024')")
    assert "from 2024" in kernel.ok("navi.memory('2024')").text
    kernel.ok("navi.forget(fact['id'])")
    assert "from 2024" not in kernel.ok("navi.memory()").text
