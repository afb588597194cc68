"""The door of ``navi acp`` and ``navi mcp`` towards the program that starts them: bad input, floods, ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.cli.stdio_lines import MAX_MESSAGE, MOST_REQUESTS

HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
BAD = (
    (b"garbage", -32700),
    (b"\xff\xfe\x00", -32700),
    (b'{"jsonrpc": "2.0", "id": 1', -32700),
    (b"[" * 5000 + b"]" * 5000, -32700),
    (b"[]", -32600),
    (json.dumps([HELLO]).encode(), -32600),
    (b"17", -32600),
    (b'{"id": 1, "method": "initialize"}', -32600),
    (b'{"jsonrpc": "2.0", "id": [1], "result": {}}', -32600),
    (b'{"jsonrpc": "2.0", "id": {"a": 1}, "method": "initialize"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1.5, "method": "initialize"}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', -32600),
    (b'{"jsonrpc": "2.0", "id": 1}', -32600),
)
REFUSED = (
    ("initialize", {}, -32602),
    ("initialize", [1, 2], -32602),
    ("session/new", {"cwd": 7}, -32602),
    ("session/prompt", {"sessionId": "s_1", "prompt": [{"type": "hologram"}]}, -32602),
    ("session/load", {"sessionId": "../../files", "cwd": "/", "mcpServers": []}, -32602),
    ("session/teleport", {}, -32601),
    ("_others/extension", {}, -32601),
    ("session/new", {"cwd": "/", "mcpServers": []}, -32603),  # there is no server
)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment in which no server runs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NAVI_", "JUPYTER", "JPY_"))}
    return kept | {"HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path), "JUPYTER_DATA_DIR": str(tmp_path)}


def agent(env: dict[str, str], **pipes: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "navi_jupyter.cli", "acp"]
    given = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    return subprocess.Popen(command, env=env, **given)


def test_what_is_no_message_gets_an_error_and_what_cannot_be_answered_is_refused(env: dict[str, str]) -> None:
    requests = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params, _) in enumerate(REFUSED, start=100)
    ]
    lies: list[Any] = [
        {"jsonrpc": "2.0", "id": 4711, "result": {"outcome": {"outcome": "selected", "optionId": "allow"}}},
        {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": "s_of_nobody"}},
        {"jsonrpc": "2.0", "method": "session/cancel", "params": "now"},
        {"jsonrpc": "2.0", "method": "no/such/notification"},
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 99}},
        {"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {"protocolVersion": "one"}},
    ]
    lines = [line for line, _ in BAD] + [json.dumps(one).encode() for one in [*requests, *lies]]
    large = b'{"jsonrpc":"2.0","id":2,"method":"initialize","params":{"x":"' + b"a" * 50_000_000 + b'"}}'
    process = agent(env)
    output, log = process.communicate(b"\n".join([*lines, large, b"", json.dumps(HELLO).encode()]), timeout=120)

    assert process.returncode == 0, log
    answers = [json.loads(line) for line in output.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    unknown = [answer["error"]["code"] for answer in answers if answer["id"] is None]
    assert unknown == [code for _, code in BAD] + [-32600], "the last one is of the message that is too large"
    by_id = {answer["id"]: answer for answer in answers if answer["id"] is not None}
    assert [by_id[number]["error"]["code"] for number in range(100, 100 + len(REFUSED))] == [
        code for *_, code in REFUSED
    ]
    assert by_id[1]["result"]["protocolVersion"] == 1, "also where another version was asked for"
    assert str(MAX_MESSAGE) in answers[-2]["error"]["message"] + answers[-1].get("error", {}).get("message", "")


def test_a_flood_of_requests_is_refused_a_reader_that_does_not_read_holds_it_up_and_the_end_of_stdin_ends_it(
    env: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        env |= {"NAVI_SERVER_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/", "NAVI_TOKEN": "t"}
        process = agent(env)
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3 * MOST_REQUESTS):
            request = {"jsonrpc": "2.0", "id": number, "method": "session/list", "params": {}}
            process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        refused = [json.loads(process.stdout.readline()) for _ in range(2 * MOST_REQUESTS)]
        assert {answer["error"]["code"] for answer in refused} == {-32000}
        assert len({answer["id"] for answer in refused}) == 2 * MOST_REQUESTS
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()

    process = agent(env)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(HELLO).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["id"] == 1
    process.stdout.close()  # the other side does not read any more
    process.stdin.write(json.dumps(HELLO).encode() + b"\n")
    process.stdin.flush()
    assert process.wait(30) == 0
