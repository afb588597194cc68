"""What an agent program asks of Navi: files, commands and permissions, under the rules of the run that it works on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from acp.exceptions import RequestError
from acp.schema import EnvVariable, PermissionOption, RequestPermissionResponse, ToolCallUpdate

from navi_jupyter.agent.acp.client import AgentRequests
from navi_jupyter.agent.acp.permissions import AgentIdentity, Grants
from navi_jupyter.agent.registry import AgentParts
from navi_jupyter.agent.run.approvals import ApprovalGate
from navi_jupyter.agent.tools.permissions import ToolPermissions
from navi_jupyter.events import ActivitySnapshot, Event
from navi_jupyter.jupyter.files.service import LocalFiles
from navi_jupyter.model.runs import Effect, Interrupt, InterruptStatus, Permission
from navi_jupyter.model.sessions import Origin, OriginKind
from navi_jupyter.ports.agent import Ask, ToolContext, Turn, TurnResult
from navi_jupyter.ports.jupyter_access import JupyterAccess
from tests.support.agent_world import Bench, agent_parts, answered

Script = Callable[["Program"], Awaitable[object]]
SESSION = "ses_1"
OPTIONS = [
    PermissionOption(option_id="once", name="Allow once", kind="allow_once"),
    PermissionOption(option_id="always", name="Always allow", kind="allow_always"),
    PermissionOption(option_id="no", name="Reject", kind="reject_once"),
]


class Program:
    """An agent loop whose program asks what a script says."""

    def __init__(self, root: Path, script: Script, parts: AgentParts) -> None:
        self.root = root
        self.script = script
        self.parts = parts
        self.printed: list[str] = []  # the ids of terminals that have printed something
        self.context: ToolContext | None = None
        self.requests = AgentRequests(
            AgentIdentity(name="test", title="Test agent"),
            str(root),
            dict(os.environ),
            own_tools=lambda: ("run_code", "read_notebook"),
        )

    async def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        self.context = context = replace(context, jupyter=JupyterAccess(files=LocalFiles(str(self.root))))
        chain = (self.parts.profiles.get(turn.session.profile),)
        gate = ApprovalGate(self.parts.permissions, self.parts.profiles.get, chain, context)
        async with self.requests.working_on(
            SESSION, gate, context, lambda call: f"log_{call.tool_call_id}", self.printed.append
        ):
            await self.script(self)
        yield TurnResult(conversation=b"{}")

    async def asked(self, **call: Any) -> str | None:
        """The id of the option that ``session/request_permission`` answers; None: cancelled."""
        update = ToolCallUpdate.model_validate({"toolCallId": "c1", **call})
        answer = await self.requests.request_permission(SESSION, update, OPTIONS)
        return chosen(answer)


def chosen(answer: RequestPermissionResponse) -> str | None:
    return getattr(answer.outcome, "option_id", None)


def bench_of(root: Path, script: Script, ceiling: dict[str, Permission] | None = None) -> Bench:
    parts = agent_parts()
    if ceiling is not None:
        parts = replace(parts, permissions=ToolPermissions(ceiling=ceiling))
    return Bench(Program(root, script, parts))


def answering(bench: Bench, *payloads: object) -> list[Ask]:
    """Questions of the bench get these answers, in order; they are noted."""
    asks: list[Ask] = []

    async def ask(one: Ask) -> Interrupt:
        asks.append(one)
        payload = payloads[len(asks) - 1]
        if isinstance(payload, InterruptStatus):
            return answered(one, None, payload)
        return answered(one, payload)

    bench.ask = ask
    return asks


def labels(ask: Ask) -> dict[str, str]:
    return {detail.label: detail.text for detail in ask.details}


# --- files


async def test_files_are_read_and_written_below_the_servers_folder_and_nowhere_else(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside.txt"
    root.mkdir()
    outside.write_text("secret")
    (root / "a.txt").write_text("one\ntwo\nthree\n")
    (root / "link.txt").symlink_to(outside)
    (root / "raw.bin").write_bytes(b"\xff\xfe\x00")

    async def script(program: Program) -> None:
        ask = program.requests
        read = await ask.read_text_file(SESSION, str(root / "a.txt"))
        assert read.content == "one\ntwo\nthree\n"
        assert (await ask.read_text_file(SESSION, str(root / "a.txt"), line=2, limit=1)).content == "two\n"
        with pytest.raises(RequestError, match="Resource not found") as missing:
            await ask.read_text_file(SESSION, str(root / "none.txt"))
        assert missing.value.code == -32002
        for path in (str(outside), str(root / ".." / "outside.txt"), "a.txt", str(root / "link.txt"), "/etc/passwd"):
            with pytest.raises(RequestError):
                await ask.read_text_file(SESSION, path)
            with pytest.raises(RequestError):
                await ask.write_text_file(SESSION, path, "changed")
        with pytest.raises(RequestError, match="not text"):
            await ask.read_text_file(SESSION, str(root / "raw.bin"))
        with pytest.raises(RequestError, match="session"):
            await ask.read_text_file("ses_other", str(root / "a.txt"))
        await ask.write_text_file(SESSION, str(root / "new" / "b.txt"), "made\n")

    bench = bench_of(root, script)
    asks = answering(bench, {"approved": True})
    await bench.run("go")
    assert (root / "new" / "b.txt").read_text() == "made\n"
    assert outside.read_text() == "secret"
    (ask,) = asks
    assert (ask.tool, ask.source) == ("write_file", "acp:test")
    assert labels(ask) == {"Agent program": "Test agent", "Path": "new/b.txt", "New file": "made\n"}


async def test_a_change_that_was_allowed_when_the_program_asked_is_not_asked_about_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n")

    def diff(old: str | None, new: str) -> dict[str, Any]:
        return {
            "kind": "edit",
            "title": "a.txt",
            "content": [{"type": "diff", "path": str(path), "oldText": old, "newText": new}],
        }

    async def script(program: Program) -> None:
        ask = program.requests
        assert await program.asked(**diff("two", "three")) == "once"
        await ask.write_text_file(SESSION, str(path), "one\nthree\n")  # what was shown
        assert await program.asked(**diff("one\nthree\n", "four\n")) == "once"
        with pytest.raises(RequestError, match="did not allow"):
            await ask.write_text_file(SESSION, str(path), "something else\n")  # what was not shown
        assert path.read_text() == "one\nthree\n"
        assert await program.asked(**diff("four", "five")) == "always"
        await ask.write_text_file(SESSION, str(path), "anything\n")

    bench = bench_of(tmp_path, script)
    asks = answering(
        bench,
        {"approved": True, "option": "once"},
        {"approved": True},
        {"approved": False},
        {"approved": True, "option": "always"},
    )
    await bench.run("go")
    assert path.read_text() == "anything\n"
    first = asks[0]
    assert first.message == "Test agent wants to change a file: a.txt"
    assert first.tool_call_id == "log_c1"
    assert [(option.id, option.kind) for option in first.options] == [
        ("once", "allow_once"), ("always", "allow_always"), ("no", "reject_once"),
    ]  # fmt: skip
    assert labels(first)["Change of the file"] == "@ from line 1\n-two\n+three"
    assert not asks[2].options, "Navi's own question"
    assert "+something else" in labels(asks[2])["Change of the file"]


async def test_a_file_that_changed_while_the_user_was_asked_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old\n")

    async def script(program: Program) -> None:
        with pytest.raises(RequestError):
            await program.requests.write_text_file(SESSION, str(path), "new\n")

    bench = bench_of(tmp_path, script)

    async def ask(one: Ask) -> Interrupt:
        path.write_text("changed meanwhile\n")
        return answered(one, {"approved": True})

    bench.ask = ask
    await bench.run("go")
    assert path.read_text() == "changed meanwhile\n"


# --- permissions


async def test_the_strictest_of_the_programs_rules_and_navis_own_counts(tmp_path: Path) -> None:
    async def denied(program: Program) -> None:
        assert await program.asked(kind="execute", title="rm -rf /") == "no"
        with pytest.raises(RequestError, match="administrator"):
            await program.requests.create_terminal(SESSION, "true")

    bench = bench_of(tmp_path, denied, {"run_code": Permission.DENY})
    asks = answering(bench)
    await bench.run("go")
    assert asks == []
    (why,) = [event for event in bench.straight if isinstance(event, ActivitySnapshot)]
    assert why.content["toolCallId"] == "log_c1"
    assert "administrator" in why.content["message"]

    async def allowed(program: Program) -> None:
        assert await program.asked(kind="execute", title="ls") == "once"  # the user's word for the session
        assert await program.asked(kind="read", title="a.txt") == "no"  # the program's own rule is stricter
        # Navi asks about its own tools when they are called. A command that is called like one is none.
        assert await program.asked(kind="other", title="mcp__navi__run_code") == "once"
        assert await program.asked(title="run_code (navi MCP Server)") == "once"
        assert await program.asked(kind="edit", title="navi_run_code") is None

    bench = bench_of(tmp_path, allowed)
    bench.session = bench.session.but(allowed_tools=("run_code",))
    asks = answering(bench, InterruptStatus.EXPIRED, {"approved": True, "option": "unknown"})
    await bench.run("go")
    assert [ask.tool for ask in asks] == ["read_file", "write_file"]


async def test_a_question_shows_all_that_the_program_says_and_survives_what_is_odd_in_it(tmp_path: Path) -> None:
    title = "echo " + "x" * 300 + "\nrm -rf ~"
    many = [PermissionOption(option_id=f"o{n % 30}", name="\ud800 a\nb" * 200, kind="allow_once") for n in range(100)]

    async def script(program: Program) -> None:
        await program.asked(kind="execute", title=title, rawInput={"command": title, "why": "\ud800", "n": 1})
        odd = ToolCallUpdate.model_validate({"toolCallId": "c2", "kind": "nonsense", "rawInput": ["x"]})
        assert chosen(await program.requests.request_permission(SESSION, odd, many)) == "o0"
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        nested = ToolCallUpdate.model_construct(tool_call_id="c3", raw_input=deep)
        with pytest.raises((RequestError, RecursionError, ValueError)):
            await program.requests.request_permission(SESSION, nested, OPTIONS)
        assert chosen(await program.requests.request_permission("ses_other", odd, OPTIONS)) is None

    bench = bench_of(tmp_path, script)
    asks = answering(bench, {"approved": True}, {"approved": True})
    with suppress(RequestError):
        await bench.run("go")
    first, second = asks
    assert labels(first)["Command"] == title
    assert labels(first)["Title"] == title
    assert labels(first)["why"] == "\N{REPLACEMENT CHARACTER}"
    assert "\n" not in first.message
    assert len(second.options) == 20
    assert all(len(option.name) <= 200 and "\n" not in option.name for option in second.options)
    assert (second.tool, labels(second)["Input"]) == ("agent_tool", '[\n  "x"\n]')


async def test_a_recalls_run_may_do_what_the_recall_allows_and_is_not_asked_about_the_rest(tmp_path: Path) -> None:
    async def script(program: Program) -> None:
        assert await program.asked(kind="execute", title="ls") == "no"
        with pytest.raises(RequestError):
            await program.requests.write_text_file(SESSION, str(tmp_path / "a.txt"), "x")

    bench = bench_of(tmp_path, script)
    answering(bench, InterruptStatus.EXPIRED, InterruptStatus.EXPIRED)
    await bench.run("go", origin=Origin(kind=OriginKind.RECALL, recall_id="r_1"))
    assert not (tmp_path / "a.txt").exists()


# --- commands


async def test_a_command_runs_in_the_servers_folder_and_its_output_is_kept_in_bounds(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()

    async def script(program: Program) -> None:
        ask = program.requests
        made = await ask.create_terminal(
            SESSION,
            "sh",
            ["-c", "pwd; cat; printf '%s' $X; exit 3"],
            [EnvVariable(name="X", value="é1")],
            str(tmp_path / "sub"),
        )
        over = await ask.wait_for_terminal_exit(SESSION, made.terminal_id)
        assert (over.exit_code, over.signal) == (3, None)
        shown = await ask.terminal_output(SESSION, made.terminal_id)
        assert shown.output == f"{os.path.realpath(tmp_path)}/sub\né1"
        assert shown.exit_status is not None
        assert not shown.truncated
        assert set(program.printed) == {made.terminal_id}
        await ask.release_terminal(SESSION, made.terminal_id)
        assert ask.terminal_text(made.terminal_id) == shown.output, "its call shows it for longer"
        with pytest.raises(RequestError, match="no terminal"):
            await ask.terminal_output(SESSION, made.terminal_id)

        flood = await ask.create_terminal(SESSION, "yes é | head -c 3000000", output_byte_limit=1001)
        await ask.wait_for_terminal_exit(SESSION, flood.terminal_id)
        shown = await ask.terminal_output(SESSION, flood.terminal_id)
        assert shown.truncated
        assert 995 <= len(shown.output.encode()) <= 1001
        assert "\N{REPLACEMENT CHARACTER}" not in shown.output

        for command, cwd in (("no-such-program-here", None), ("true", "/"), ("", None)):
            with pytest.raises(RequestError):
                await ask.create_terminal(SESSION, command, ["x"], cwd=cwd)

    bench = bench_of(tmp_path, script)
    asks = answering(bench, *({"approved": True},) * 3)
    await bench.run("go")
    assert labels(asks[0])["Command"] == "sh -c 'pwd; cat; printf '\"'\"'%s'\"'\"' $X; exit 3'"
    assert labels(asks[0])["Folder"] == "sub"
    assert "é1" in labels(asks[0])["Environment"]


async def started_processes(pids: Path, count: int) -> None:
    while not pids.exists() or len(pids.read_text().split()) < count:  # noqa: ASYNC110 - other processes write it
        await asyncio.sleep(0.02)


async def test_commands_end_by_kill_by_the_stop_and_with_the_run(tmp_path: Path) -> None:
    started = asyncio.Event()
    pids = tmp_path / "pids"

    async def script(program: Program) -> None:
        ask = program.requests
        assert await program.asked(kind="execute", title="a command", rawInput={"command": "x"}) == "always"
        line = f"sh -c 'echo $$ >> {pids}; exec sleep 600' & echo $$ >> {pids}; wait"
        killed = await ask.create_terminal(SESSION, "sh", ["-c", line])
        await started_processes(pids, 2)
        await ask.kill_terminal(SESSION, killed.terminal_id)
        over = await ask.wait_for_terminal_exit(SESSION, killed.terminal_id)
        assert over.signal in ("SIGTERM", "SIGKILL")
        left = await ask.create_terminal(SESSION, "sh", ["-c", line])
        await started_processes(pids, 4)
        started.set()
        await ask.wait_for_terminal_exit(SESSION, left.terminal_id)

    bench = bench_of(tmp_path, script)
    answering(bench, {"approved": True, "option": "always"})
    running = asyncio.ensure_future(bench.run("go"))
    await asyncio.wait({running, asyncio.ensure_future(started.wait())}, return_when=asyncio.FIRST_COMPLETED)
    bench.stop.set()
    with pytest.raises(RequestError, match=r"run was ended|not allowed"):
        await running
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    loop = bench.loop
    assert isinstance(loop, Program)
    with pytest.raises(RequestError, match="No run"):
        await loop.requests.create_terminal(SESSION, "true")
    assert await loop.asked(kind="execute", title="later") is None


def test_a_command_that_was_allowed_covers_itself_once_and_no_other() -> None:
    grants = Grants()
    call = ToolCallUpdate(tool_call_id="t", title="Build", raw_input={"command": "make build"})
    grants.allow(call, Effect.RUN, always=False)
    assert not grants.covers_command("make clean")
    assert grants.covers_command("make build")
    assert not grants.covers_command("make build"), "it is used up"
    grants.allow(call, Effect.RUN, always=False)
    grants.end_run()
    assert not grants.covers_command("make build"), "it was for that run"
