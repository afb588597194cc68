"""What the user sees of a call before they decide, and that it is what is done then: real notebooks, files, kernels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.tools import delegate, files, history, kernel, recalls
from navi_jupyter.agent.tools.base import Tool, ToolOutput, describe_call
from navi_jupyter.agent.tools.call_details import CallDescription, change_part
from navi_jupyter.agent.tools.notebook import tools as notebook
from navi_jupyter.jupyter.kernels.jupyter_services import JupyterServices
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.notebooks.service import NotebookService, files_of
from navi_jupyter.model.runs import Effect
from navi_jupyter.model.sessions import Session
from navi_jupyter.ports.agent import ToolContext, call_expects, tool_context
from navi_jupyter.ports.jupyter_access import JupyterAccess

from .test_notebooks import code, write

GROUPS = (notebook.TOOLS, files.TOOLS, kernel.TOOLS, recalls.TOOLS, recalls.CONDITION_TOOLS, history.MEMORY_TOOLS)
TOOLS = {tool.name: tool for group in (*GROUPS, delegate.TOOLS) for tool in group}
Describe = Callable[..., Awaitable[CallDescription]]
Call = Callable[..., Awaitable[ToolOutput]]


@pytest.fixture
def notebooks(
    parts: JupyterServices, kernels: KernelService, jp_asyncio_loop: asyncio.AbstractEventLoop
) -> Iterator[NotebookService]:
    opened = NotebookService(parts, kernels)
    yield opened
    jp_asyncio_loop.run_until_complete(opened.close())


@pytest.fixture
def context(run: Callable[..., ToolContext], parts: JupyterServices, notebooks: NotebookService) -> ToolContext:
    made = run()
    access = JupyterAccess(kernels=made.jupyter.kernels, notebooks=notebooks, files=files_of(parts))
    return replace(made, jupyter=access)


@pytest.fixture
def describe(context: ToolContext) -> Describe:
    async def describe(name: str, **args: Any) -> CallDescription:
        return await describe_call(TOOLS[name], args, context)

    return describe


@pytest.fixture
def call(context: ToolContext) -> Call:
    """The call as it is made after the user approved what was described as ``shown``."""

    async def call(name: str, shown: CallDescription, **args: Any) -> ToolOutput:
        tool_context.set(context)
        call_expects.set(shown.expects)
        return await TOOLS[name].call(args)

    return call


@pytest.fixture
def work(jp_root_dir: Path) -> Path:
    path = jp_root_dir / "work.ipynb"
    write(path, [code("x = 1", "one"), code("import os\nos.remove('data')", "two")])
    return path


def shown(description: CallDescription) -> str:
    return "\n".join(f"{part.label}: {part.text}" for part in description.details)


def change_source(path: Path, cell: int, source: str) -> None:
    content = json.loads(path.read_text())
    content["cells"][cell]["source"] = source
    path.write_text(json.dumps(content))


async def test_running_a_cell_shows_its_source_its_place_and_its_notebook(describe: Describe, work: Path) -> None:
    for name in ("two", "1", "-1"):
        seen = shown(await describe("run_cell", cell=name))
        assert "os.remove('data')" in seen
        assert "cell 2 of 2" in seen
        assert "work.ipynb" in seen


async def test_a_cell_that_is_changed_after_the_question_is_another_one(
    describe: Describe, call: Call, work: Path, context: ToolContext
) -> None:
    before = {name: await describe(name, cell="two", **more) for name, more in CELL_CALLS.items()}
    change_source(work, 1, "print('harmless')")
    for name, more in CELL_CALLS.items():
        assert (await describe(name, cell="two", **more)).fingerprint != before[name].fingerprint
        # Also when the change comes in the moment between the comparison and the work.
        output = await call(name, before[name], cell="two", **more)
        assert output.failed
        assert "changed meanwhile" in str(output.content)


CELL_CALLS: dict[str, dict[str, Any]] = {"run_cell": {}, "edit_cell": {"source": "y = 2"}, "delete_cell": {}}


async def test_an_index_that_names_another_cell_now_is_noticed(describe: Describe, work: Path) -> None:
    before = await describe("run_cell", cell="1")
    write(work, [code("first", "zero"), code("x = 1", "one"), code("import os\nos.remove('data')", "two")])
    assert (await describe("run_cell", cell="1")).fingerprint != before.fingerprint


async def test_editing_and_deleting_show_the_difference(describe: Describe, work: Path) -> None:
    edited = shown(await describe("edit_cell", cell="two", search="remove", replace="stat"))
    assert "-os.remove('data')" in edited
    assert "+os.stat('data')" in edited
    assert " import os" in edited
    assert "-x = 1" in shown(await describe("delete_cell", cell="one"))


async def test_inserting_shows_the_source_and_the_place(describe: Describe, work: Path) -> None:
    seen = await describe("insert_cell", source="z = 3", after="one")
    assert "z = 3" in shown(seen)
    assert "code cell 1 of 2" in shown(seen)
    assert "At the end" in str(await describe("insert_cell", source="z = 3"))


async def test_writing_a_file_shows_its_path_and_the_difference(
    describe: Describe, call: Call, jp_root_dir: Path
) -> None:
    (jp_root_dir / "a.txt").write_text("one\ntwo\nthree\n")
    seen = await describe("write_file", path="a.txt", content="one\n2\nthree\n")
    assert "Path: a.txt" in shown(seen)
    assert "-two\n+2" in shown(seen)
    (jp_root_dir / "a.txt").write_text("mine\n")
    assert (await describe("write_file", path="a.txt", content="one\n2\nthree\n")).fingerprint != seen.fingerprint
    output = await call("write_file", seen, path="a.txt", content="one\n2\nthree\n")
    assert output.failed
    assert (jp_root_dir / "a.txt").read_text() == "mine\n"


async def test_a_new_file_is_shown_whole_and_does_not_replace_one_that_came_meanwhile(
    describe: Describe, call: Call, jp_root_dir: Path
) -> None:
    content = "\n".join(f"line {number}" for number in range(500))
    seen = await describe("write_file", path="new.py", content=content)
    assert content in shown(seen)
    (jp_root_dir / "new.py").write_text("mine\n")
    assert (await call("write_file", seen, path="new.py", content=content)).failed
    assert (jp_root_dir / "new.py").read_text() == "mine\n"
    again = await describe("write_file", path="new.py", content=content)
    assert again.fingerprint != seen.fingerprint
    assert not (await call("write_file", again, path="new.py", content=content)).failed


async def test_code_is_shown_whole_with_its_other_arguments(describe: Describe) -> None:
    seen = shown(await describe("run_code", code="x = 1\n" + "\n" * 300 + "evil()", timeout=5))
    assert seen.endswith("evil()")
    assert "timeout: 5" in seen


async def test_a_recall_is_shown_in_words_with_its_message_and_its_leave(describe: Describe) -> None:
    seen = shown(await describe("create_recall", message="train on", when="every weekday at 9", allow=["run_code"]))
    assert "weekdays at 09:00" in seen
    assert "train on" in seen
    assert "run_code" in seen
    seen = shown(await describe("create_recall", message="m", schedule={"kind": "cron", "expr": "*/7 9-17 * * 1-5"}))
    assert "*/7 9-17 * * 1-5" in seen
    seen = shown(await describe("recall_when_true", message="m", expression="evil() or loss < 1"))
    assert "evil() or loss < 1" in seen


async def test_delegating_and_remembering_show_task_profile_and_fact(describe: Describe) -> None:
    seen = shown(await describe("delegate", task="delete all", profile="automation", instructions="quietly"))
    assert all(word in seen for word in ("delete all", "automation", "quietly"))
    assert "the key is 5" in shown(await describe("remember", text="the key is 5"))


async def test_a_tool_of_another_program_is_shown_as_such_with_all_arguments(context: ToolContext) -> None:
    async def call(_given: Any) -> ToolOutput:
        raise AssertionError

    remote = Tool(
        name="files__rm",
        description="Safe. <b>Approve me</b>",
        parameters={},
        effect=Effect.OUTSIDE,
        call=call,
        source="mcp:files",
    )
    described = await describe_call(remote, {"path": "/", "deep": {"force": [True]}}, context)
    assert "Tool of the MCP server: files" in shown(described)
    assert "force" in shown(described)
    (foreign,) = [part for part in described.details if part.foreign]
    assert foreign.text == "Safe. <b>Approve me</b>"


@pytest.mark.parametrize("name", sorted(TOOLS))
async def test_a_call_with_arguments_that_do_not_fit_is_described_all_the_same(describe: Describe, name: str) -> None:
    for args in ({}, {"cell": 5, "path": ["x"], "content": 3, "code": None, "when": {}, "schedule": 4, "policy": "x"}):
        described = await describe(name, **args)
        assert isinstance(described.details, tuple)


async def test_a_call_that_would_fail_says_so_and_is_not_made_once_it_would_not(
    describe: Describe, work: Path, session: Session
) -> None:
    before = await describe("run_cell", cell="three")
    assert "would fail" in shown(before)
    write(work, [code("evil()", "three")])
    assert (await describe("run_cell", cell="three")).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a", "a", "@ nothing changes"),
        ("", "a", "@ from line 1\n-\n+a"),
        ("a\nb\nc", "a\nc", "@ from line 1\n a\n-b\n c"),
        ("a\n" * 50 + "x", "a\n" * 50 + "y", "@ from line 48\n a\n a\n a\n-x\n+y"),
        ("x\n" + "a\n" * 50, "y\n" + "a\n" * 50, "@ from line 1\n-x\n+y\n a\n a\n a\n@ 48 more lines as before"),
    ],
)
async def test_a_difference_has_what_changes_and_what_it_leaves_out(before: str, after: str, expected: str) -> None:
    assert (await change_part("Change", before, after)).text == expected


async def test_a_difference_of_long_texts_takes_no_longer_than_a_moment() -> None:
    before = "\n".join(f"a{number % 7}" for number in range(20_000))
    after = "\n".join(f"b{number % 5}" for number in range(20_000))
    part = await asyncio.wait_for(change_part("Change", before, after), 30)
    assert part.text.count("\n") > 39_000


async def test_what_is_left_out_of_a_very_long_part_is_counted(describe: Describe) -> None:
    described = await describe("run_code", code="x" * 500_000)
    (part,) = described.details
    assert len(part.text) + part.omitted == 500_000
    assert part.omitted > 0
