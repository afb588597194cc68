"""Prompts by name: built in, and from files of the user's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from navi_jupyter.agent.profiles.prompt_files import BUILTIN, MAX_BYTES, RESERVED, PromptBook
from navi_jupyter.text import has_fence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def names(book: PromptBook) -> list[str]:
    return [prompt.name for prompt in book.all()]


def test_built_in_prompts_come_first_and_files_after_them(folder: Path) -> None:
    write(folder, "weekly.md", "Summarize the week.")
    write(folder, "ablation.md", "# Ablation\nPlan one.")
    book = PromptBook([folder])
    assert names(book) == [*(one.name for one in BUILTIN), "ablation", "weekly"]
    assert [one.description for one in book.all()[-2:]] == ["Ablation", "Summarize the week."]


def test_a_file_of_the_user_goes_before_those_of_other_folders_and_before_a_built_in_one(
    folder: Path, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    write(shared, "fix.md", "shared")
    write(shared, "site.md", "of the site")
    write(folder, "fix.md", "mine: {error}")
    book = PromptBook([folder, tmp_path / "missing", shared])
    assert names(book).count("fix") == 1
    assert (
        book.expanded("/fix", {})
        == "mine: (the error in what is attached; without that, the last one in the notebook: look there)"
    )
    assert book.expanded("/site", {}) == "of the site"


def test_placeholders_take_the_words_and_what_the_page_shows(folder: Path) -> None:
    write(folder, "ask.md", "About $ARGUMENTS and {input}, {selection} and {cell}. {other} stays.")
    page = {"selection": "loss.plot()", "cell": "import x"}
    text = PromptBook([folder]).expanded("/ask  the loss", page) or ""
    assert text.startswith("About the loss and the loss,")
    assert "loss.plot()" in text
    assert "{other} stays." in text
    assert has_fence(text), "what comes from the page was not written to Navi"


def test_words_without_a_placeholder_stand_at_the_end(folder: Path) -> None:
    write(folder, "short.md", "Be short.")
    book = PromptBook([folder])
    assert book.expanded("/short why?\nsay", {}) == "Be short.\n\nwhy?\nsay"
    assert book.expanded("/short", {}) == "Be short."


def test_what_the_user_or_the_page_has_is_not_read_as_placeholders(folder: Path) -> None:
    write(folder, "ask.md", "{input} {cell}")
    text = PromptBook([folder]).expanded("/ask {cell} $ARGUMENTS", {"cell": "{input} {selection}"}) or ""
    assert text.startswith("{cell} $ARGUMENTS")
    assert "{input} {selection}" in text


@pytest.mark.parametrize(
    "text", ["/etc/passwd", "/unknown x", "/", "/ fix", "//fix", " /fix", "fix", "/fix/it", "/fix.py"]
)
def test_other_words_with_a_slash_stay_what_they_are(folder: Path, text: str) -> None:
    assert PromptBook([folder]).expanded(text, {}) is None


def test_front_matter_has_the_description(folder: Path) -> None:
    write(folder, "a.md", '---\ndescription: "What it: does"\n---\n\nDo it.\n---\nand more')
    write(folder, "b.md", "\ufeff---\r\ndescription: x\r\n---\r\nDo it.\r\n")
    one, other = PromptBook([folder]).all()[-2:]
    assert (one.description, one.text) == ("What it: does", "Do it.\n---\nand more")
    assert (other.description, other.text) == ("x", "Do it.")


@pytest.mark.parametrize(
    ("name", "text", "line", "says"),
    [
        ("a.md", "---\ndescription: x\nmodel: gpt\n---\nDo it.", ":3", "'model' is no setting"),
        ("a.md", "---\nDo it.\n---\nx", ":2", "is no setting"),
        ("a.md", "---\ndescription: x\nDo it.", ":3", "is no setting"),
        ("a.md", "---\ndescription: x\n", ":1", "do not end"),
        ("a.md", "---\ndescription: x\n---\n \n", ":4", "the prompt is empty"),
        ("a.md", "", ":1", "the prompt is empty"),
        ("a.md", "x" * (MAX_BYTES + 1), "", "larger than"),
        ("a b.md", "x", "", "the name of the file"),
        ("-x.md", "x", "", "the name of the file"),
        ("a\nb.md", "x", "", "the name of the file"),
        ("x" * 65 + ".md", "x", "", "the name of the file"),
        *((f"{name}.md", "x", "", "a command of the chat itself") for name in RESERVED),
    ],
)
def test_a_mistake_is_shown_with_file_and_line(folder: Path, name: str, text: str, line: str, says: str) -> None:
    path = write(folder, name, text)
    (broken,) = PromptBook([folder]).all()[len(BUILTIN) :]
    assert not broken.usable
    assert broken.why is not None
    assert says in broken.why
    assert f"{path}{line}" in broken.why or repr(str(path)) in broken.why


def test_a_file_that_is_no_text_a_pipe_or_a_folder_breaks_nothing(folder: Path) -> None:
    (folder / "bytes.md").write_bytes(b"\xff\xfe\x00")
    (folder / "folder.md").mkdir()
    os.mkfifo(folder / "pipe.md")
    write(folder, "good.md", "Do it.")
    (folder / ".hidden.md").write_text("no")
    book = PromptBook([folder])
    assert names(book)[len(BUILTIN) :] == ["bytes", "good"]
    assert book.expanded("/bytes", {}) is None


def test_a_changed_file_counts_at_once_and_one_with_a_mistake_keeps_its_last_good_text(folder: Path) -> None:
    path = write(folder, "a.md", "one")
    book = PromptBook([folder])
    assert book.expanded("/a", {}) == "one"
    write(folder, "a.md", "two and more")
    assert book.expanded("/a", {}) == "two and more"
    write(folder, "a.md", "---\nnothing: x\n---\nthree")
    assert book.expanded("/a", {}) == "two and more"
    assert "Until this is corrected" in (book.all()[-1].why or "")
    path.unlink()
    assert book.expanded("/a", {}) is None
