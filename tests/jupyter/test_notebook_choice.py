"""What a notebook job can be made of: the parameters that a notebook has, and which notebook a name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.errors import InvalidRequest
from navi_jupyter.jupyter.files.tree import Tree
from navi_jupyter.jupyter.jobs.copies import NotebookFinder
from navi_jupyter.jupyter.jobs.parameters import check_names, parameters_of


def cells(source: str, tags: Any = ("parameters",)) -> list[dict[str, Any]]:
    return [
        {"cell_type": "markdown", "source": "# Title", "metadata": {}},
        {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}},
    ]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("n = 7\nname = 'north'", {"n": "7", "name": "'north'"}),
        ("# days\ndays: int = 7  # of the report\nregion: str", {"days": "7", "region": ""}),
        ("a = b = [1,\n 2]", {"a": "[1, 2]", "b": "[1, 2]"}),
        ("n, (k, *rest), s = 1, values(), 'x'", {"n": "1", "k": "", "s": "'x'"}),
        ("%load_ext autoreload\n!ls\nn = 1", {"n": "1"}),
        ("n = 1\nn = 2\nimport os\nx.y = 3\nd['k'] = 4", {"n": "2"}),
        ("größe = 1", {"größe": "1"}),
        ("", {}),
    ],
)
def test_the_parameters_are_what_the_tagged_cell_sets(source: str, wanted: dict[str, str]) -> None:
    found = parameters_of(cells(source))
    assert found is not None
    assert {one.name: one.default for one in found} == wanted


@pytest.mark.parametrize("content", [cells("n = 1", ()), cells("n <- 1; if"), cells("(" * 5000), []])
def test_nothing_is_known_without_a_tagged_cell_of_python_and_then_each_name_is_taken(content: list[Any]) -> None:
    assert parameters_of(content) is None
    check_names({"anything": 1}, content, "report.ipynb")


def test_a_parameter_that_the_notebook_does_not_have_is_refused_with_the_nearest_one() -> None:
    check_names({"days": 1}, cells("days, region = 7, 'n'"), "report.ipynb")
    with pytest.raises(InvalidRequest) as refused:
        check_names({"days": 1, "regoin": "s"}, cells("days, region = 7, 'n'"), "report.ipynb")
    assert refused.value.message == (
        "report.ipynb has no parameter regoin. Did you mean region? Its cell with the tag parameters sets:"
        " days, region."
    )
    assert refused.value.field == "run.parameters"
    with pytest.raises(InvalidRequest, match="sets none"):
        check_names({"x": 1}, cells("# nothing yet"), "report.ipynb")


@pytest.fixture
def finder(tmp_path: Path) -> NotebookFinder:
    for path in (
        "report.ipynb",
        "data/größe report.ipynb",
        "data/sales.ipynb",
        "data/sales-results/sales-2026-12-01-0900.ipynb",
        "data/sales-results/sales-2026-12-01-0900-2.ipynb",
        ".hidden/secret.ipynb",
        "notes.txt",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    return NotebookFinder(Tree(str(tmp_path)))


async def test_notebooks_are_found_by_what_was_typed_without_results_and_what_is_hidden(finder: NotebookFinder) -> None:
    assert set(await finder.find("", limit=9)) == {"report.ipynb", "data/größe report.ipynb", "data/sales.ipynb"}
    assert await finder.find("rep", limit=9) == ["report.ipynb", "data/größe report.ipynb"]
    assert await finder.find("data/sa", limit=9) == ["data/sales.ipynb"]
    assert len(await finder.find("", limit=1)) == 1


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("reprot.ipynb", "report.ipynb"),
        ("data/reports.ipynb", "report.ipynb"),
        ("sales.ipynb", "data/sales.ipynb"),
        ("data/grösse report.ipynb", "data/größe report.ipynb"),
        ("weather.ipynb", None),
    ],
)
async def test_a_name_that_no_notebook_has_means_the_most_similar_one(
    finder: NotebookFinder, path: str, meant: str | None
) -> None:
    assert await finder.meant_by(path) == meant


async def test_where_the_root_is_no_folder_of_this_machine_none_is_found() -> None:
    nowhere = NotebookFinder(None)
    assert await nowhere.find("", limit=9) == []
    assert await nowhere.meant_by("report.ipynb") is None
