"""``%navi session`` over the list: search, rename, archive, delete and restore, in a real kernel."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from navi_jupyter.kernel.errors import UsageError
from navi_jupyter.kernel.grammar.command_line import Action, Prompt, parse_line
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

Open = Callable[..., NotebookKernel]


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("session search learning rate", ("search", "learning rate")),
        ('session search "learning rate" lo', ("search", '"learning rate" lo')),
        ("session rename Loss of the new model", ("rename", "", "Loss of the new model")),
        ("session rename 2 -- Loss of the model", ("rename", "2", "Loss of the model")),
        ("session archive", ("archive",)),
        ("session archive 2", ("archive", "2")),
        ("session unarchive 2", ("unarchive", "2")),
        ("session delete 2", ("delete", "2")),
        ("session restore a1b2", ("restore", "a1b2")),
        ("session list --deleted", ("list",)),
    ],
)
def test_the_words_of_a_session(line: str, args: tuple[str, ...]) -> None:
    read = parse_line(line)
    assert isinstance(read, Action)
    assert (read.name, read.args) == ("session", args)


@pytest.mark.parametrize("word", ["search", "rename", "delete", "unarchive", "restore", "use"])
def test_a_word_that_lacks_something_says_what(word: str) -> None:
    with pytest.raises(UsageError, match="%navi session"):
        parse_line(f"session {word}")


def test_a_sentence_about_sessions_is_for_the_agent() -> None:
    assert isinstance(parse_line("session delete everything that I wrote yesterday"), Prompt)


@pytest.mark.slow
def test_sessions_are_found_renamed_archived_deleted_and_restored_in_a_cell(
    server: JupyterServer, open_kernel: Open
) -> None:
    kernel = open_kernel()
    kernel.ok("%load_ext navi_jupyter")
    session = kernel.ok("import navi_jupyter as navi\nprint(navi.session().id)").stdout.strip()
    other = server.request("POST", "navi/api/sessions", {"title": "Quarterly report"})["id"]

    assert "is now called 'Loss of the new model'" in kernel.ok("%navi session rename Loss of the new model").stdout
    kernel.ok("%navi session list")
    kernel.ok("%navi session rename quarterly -- Yearly report")
    assert server.get(f"navi/api/sessions/{other}")["title"] == "Yearly report"
    server.wait_for(lambda: bool(server.get("navi/api/sessions?query=yearly")["sessions"]))
    assert "Yearly report" in kernel.ok("%navi session search yearly").text

    refused = kernel.run("%navi session delete year")
    assert "its number, its id or its whole title" in (refused.error or "")
    deleted = kernel.ok("%navi session delete 1").stdout
    assert "%navi session restore" in deleted
    assert [one["id"] for one in server.get("navi/api/sessions")["sessions"]] == [session]
    assert "Yearly report" in kernel.ok("%navi session list --deleted").text
    assert "Restored: 'Yearly report'" in kernel.ok("%navi session restore 1").stdout

    assert "recalls are paused" in kernel.ok("%navi session archive yearly report").stdout
    assert "Yearly report" in kernel.ok("%navi session list --archived").text
    assert "Back in the list" in kernel.ok("%navi session unarchive yearly").stdout
    assert len(server.get("navi/api/sessions")["sessions"]) == 2
