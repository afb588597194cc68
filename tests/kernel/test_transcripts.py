"""What a saved notebook has of the conversation: all of it, or none where the server's setting says so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow

SETTINGS = {"saved": {}, "not saved": {"NAVI_SAVE_TRANSCRIPTS": "false"}}


@pytest.fixture(scope="module", params=SETTINGS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    home = tmp_path_factory.mktemp("server")
    with JupyterServer(home, env=SETTINGS[request.param]).start() as server:
        kernel = NotebookKernel(server, "work.ipynb")
        kernel.ok("%load_ext navi_jupyter\nimport navi_jupyter as navi")
        kernel.ok("%navi count to 7")
        yield server, kernel, request.param == "saved"
        kernel.close()


@pytest.mark.parametrize(
    "cell", ["%navi count to 7", "navi.ask('count to 7')", "navi.session().messages", "navi.chat()"]
)
def test_words_of_the_conversation_are_in_a_saved_notebook_only_where_they_are_to_be(place: Any, cell: str) -> None:
    server, kernel, are_saved = place
    shown = kernel.ok(cell)
    outputs = [
        {"output_type": "display_data", "data": data, "metadata": shown.metadata[key]}
        for key, data in shown.bundles.items()
    ]
    assert outputs
    if "chat" not in cell:
        assert "5 6 7" in json.dumps(outputs), "it is shown in any case"
    source = {"id": "a", "cell_type": "code", "source": "x = 1", "metadata": {}, "execution_count": 1}
    mine = {"output_type": "stream", "name": "stdout", "text": "my own output"}
    content = {"cells": [{**source, "outputs": [mine, *outputs]}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    server.request("PUT", "api/contents/work.ipynb", {"type": "notebook", "format": "json", "content": content})
    saved = (server.root / "work.ipynb").read_text()
    assert ("5 6 7" in saved) == are_saved
    assert ("not saved" in saved) != are_saved
    assert "my own output" in saved
    if "chat" in cell:
        assert "application/vnd.navi.session+json" in saved


def test_a_chat_does_not_hand_its_transcript_to_the_page_where_it_is_not_to_be_saved(place: Any) -> None:
    """The page saves the state of widgets, which has the transcript as it was when the chat was made."""
    _, kernel, are_saved = place
    kernel.ok("chat = navi.chat()")
    snapshot = kernel.ok("print(chat.snapshot)").stdout
    assert ("5 6 7" in snapshot) == are_saved
