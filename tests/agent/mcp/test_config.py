"""The configuration of MCP servers: where it is found, what it may say, how what is wrong is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent.mcp.config import ConfigFiles, ServerConfig
from navi_jupyter.agent.mcp.run_tools import MAX_NAME, names_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mcp.json"


def read(file: Path, **servers: Any) -> dict[str, ServerConfig]:
    file.write_text(json.dumps({"mcpServers": servers}, indent=2))
    return dict(ConfigFiles(str(file)).read().servers)


def test_a_program_and_a_url(file: Path) -> None:
    servers = read(
        file,
        local={"command": "npx", "args": ["-y", "thing"], "env": {"A": "1"}, "cwd": "/tmp", "autoApprove": ["x"]},
        far={"type": "http", "url": "https://example.org/mcp", "headers": {"Authorization": "Bearer abcdefgh"}},
        plain={"url": "http://localhost:1/mcp"},
    )
    assert servers["local"].command == ("npx", "-y", "thing")
    assert (servers["local"].transport, servers["far"].transport, servers["plain"].transport) == (
        "stdio",
        "http",
        "http",
    )
    assert "abcdefgh" in servers["far"].secrets
    assert all(server.wrong is None for server in servers.values())


def test_variables_come_from_the_servers_environment(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "planted-secret")
    servers = read(
        file,
        far={"url": "https://example.org/${MY_PATH:-mcp}", "headers": {"X": "Bearer ${MY_KEY}"}},
        broken={"url": "https://example.org/", "headers": {"X": "${NO_SUCH_VARIABLE}"}},
    )
    assert servers["far"].url == "https://example.org/mcp"
    assert servers["far"].headers == {"X": "Bearer planted-secret"}
    assert "planted-secret" in servers["far"].secrets
    assert "mcpServers.broken.headers.X: the environment variable NO_SUCH_VARIABLE is not set" in str(
        servers["broken"].wrong
    )


@pytest.mark.parametrize(
    ("entry", "key", "why"),
    [
        ({}, "", "either"),
        ({"command": "x", "url": "http://y"}, "", "either"),
        ({"command": ""}, "", "empty"),
        ({"command": 3}, ".command", "string"),
        ({"command": "x", "args": "y"}, ".args", "list"),
        ({"command": "x", "env": {"A": 1}}, ".env.A", "string"),
        ({"type": "sse", "url": "http://y"}, "", "streamable HTTP"),
        ({"type": "carrier-pigeon", "url": "http://y"}, "", "stdio"),
        ({"type": "http", "command": "x"}, "", "url"),
        ({"url": "ftp://y"}, ".url", "http"),
        ({"command": "x", "call_timeout": 0}, ".call_timeout", "greater"),
        (["x"], "", "valid"),
    ],
)
def test_a_broken_entry_disables_itself_alone_and_says_where(file: Path, entry: Any, key: str, why: str) -> None:
    servers = read(file, fine={"command": "x"}, broken=entry)
    assert servers["fine"].wrong is None
    named = f'"{key.rpartition(".")[2] or "broken"}"'
    lines = file.read_text().splitlines()
    line = max(number for number, text in enumerate(lines, 1) if f"{named}:" in text)
    assert str(servers["broken"].wrong).startswith(f"{file}:{line}: mcpServers.broken{key}: ")
    assert why in str(servers["broken"].wrong)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"mcpServers": {\n  "a": {"command": "x",}\n}}', ":2: not JSON: "),
        ("[]", "must be an object"),
        ('{"servers": {}}', "must be an object"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_file_is_a_problem_of_its_own(file: Path, text: str, why: str) -> None:
    file.write_text(text)
    (problem,) = ConfigFiles(str(file)).read().problems
    assert problem.file == str(file)
    assert why in problem.message
    assert problem.message.startswith(str(file))


def test_a_configured_file_that_is_not_there_is_a_problem(file: Path) -> None:
    (problem,) = ConfigFiles(str(file)).read().problems
    assert "there is no such file" in problem.message


def test_no_file_at_all_is_no_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("navi_jupyter.agent.mcp.config.jupyter_config_path", lambda: [str(tmp_path)])
    configuration = ConfigFiles().read()
    assert (dict(configuration.servers), list(configuration.problems)) == ({}, [])


def test_the_first_file_with_a_name_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path) -> None:
    folders = [tmp_path / "user", tmp_path / "system"]
    for folder in folders:
        (folder / "navi").mkdir(parents=True)
        entries = {"both": {"command": folder.name}, folder.name: {"command": "x"}}
        (folder / "navi" / "mcp.json").write_text(json.dumps({"mcpServers": entries}))
    file.write_text(json.dumps({"mcpServers": {"user": {"command": "explicit"}}}))
    monkeypatch.setattr("navi_jupyter.agent.mcp.config.jupyter_config_path", lambda: list(map(str, folders)))
    servers = ConfigFiles(str(file)).read().servers
    assert {name: server.command for name, server in servers.items()} == {
        "user": ("explicit",),
        "both": ("user",),
        "system": ("x",),
    }


def test_a_file_is_read_again_when_it_has_changed(file: Path) -> None:
    files = ConfigFiles(str(file))
    file.write_text('{"mcpServers": {}}')
    first = files.read()
    assert files.read() is first
    file.write_text('{"mcpServers": {"new": {"command": "x"}}}')
    assert list(files.read().servers) == ["new"]


def test_a_broken_file_leaves_its_last_good_servers_in_use_and_is_reported(file: Path) -> None:
    files = ConfigFiles(str(file))
    file.write_text('{"mcpServers": {"one": {"command": "x"}}}')
    files.read()
    file.write_text('{"mcpServers": {"one": {"command": "x"},}}')
    found = files.read()
    assert list(found.servers) == ["one"]
    assert found.problems[0].message.startswith(f"{file}:1: not JSON: ")
    assert "last good version" in found.problems[0].message
    file.unlink()
    assert not files.read().servers


def test_the_line_of_a_key_is_found_in_any_layout(file: Path) -> None:
    file.write_text('{\n"other": "{\\"x\\": 1}",\n"mcpServers":\n{"a": {"args": [], "env":\n{"B": 1, "C": "d"}}}}')
    assert str(ConfigFiles(str(file)).read().servers["a"].wrong).startswith(f"{file}:5: mcpServers.a.env.B: ")
    file.write_text('{"mcpServers": {"a": {"command": "x", "env":\n{"C": "d",\n"B": 1}}}}')
    assert str(ConfigFiles(str(file)).read().servers["a"].wrong).startswith(f"{file}:3: mcpServers.a.env.B: ")


def test_names_of_tools_are_what_providers_take_and_all_different() -> None:
    pairs = [
        ("my server", "do.it"),
        ("my_server", "do_it"),
        ("s", "x" * 200),
        ("s", "x" * 199 + "y"),
        ("1st", "go"),
        ("a", "b"),
    ]
    names = names_of(pairs)
    assert len(set(names)) == len(names)
    assert all(len(name) <= MAX_NAME for name in names)
    assert all(name.replace("-", "_").isidentifier() for name in names)
    assert names[-1] == "a__b"
    assert names_of(pairs[:2])[0] == names[0]  # the same in every process
