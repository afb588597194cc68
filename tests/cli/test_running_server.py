"""Which server a command of the shell is for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import Any

import pytest

from navi_jupyter.cli.running_server import SeveralServers, running_server
from navi_jupyter.kernel.errors import ServerNotFound

DEAD = 2**22 + 1  # above the largest process id


def write(path: Path, **content: Any) -> Path:
    path.write_text(json.dumps(content))
    path.chmod(0o600)
    return path


class Machine:
    """A runtime directory with the files of servers that seem to run: their process ids are those of this test."""

    def __init__(self, folder: Path) -> None:
        self.env = {"JUPYTER_RUNTIME_DIR": str(folder)}
        self.folder = folder

    def add(self, pid: int, url: str, *, jupyters_token: str = "") -> None:
        write(self.folder / f"navi-{pid}.json", url=url, token=f"kernels{pid}", pid=pid)
        info = {"url": url, "pid": pid, "root_dir": f"/root{pid}"}
        write(self.folder / f"jpserver-{pid}.json", token=jupyters_token, **info)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def listening() -> Iterator[str]:
    """The URL of something that takes connections."""
    with closing(socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


def test_in_a_terminal_the_only_server_that_runs_is_meant_and_its_user_is_the_one_of_its_token(
    machine: Machine,
) -> None:
    machine.add(os.getpid(), "http://127.0.0.1:1/", jupyters_token="mine")
    machine.add(DEAD, "http://127.0.0.1:2/", jupyters_token="old")
    found = running_server(env=machine.env)
    assert (found.url, found.authorization, found.root_dir) == (
        "http://127.0.0.1:1/",
        "token mine",
        f"/root{os.getpid()}",
    )


def test_a_server_with_a_password_is_reached_with_the_kernels_token(machine: Machine) -> None:
    machine.add(os.getpid(), "http://127.0.0.1:1/")
    assert running_server(env=machine.env).authorization == f"navi kernels{os.getpid()}"
    assert running_server(token="given", env=machine.env).authorization == "token given"


def test_in_a_kernel_and_a_terminal_of_jupyter_its_own_server_is_meant(machine: Machine) -> None:
    machine.add(os.getpid(), "http://127.0.0.1:1/", jupyters_token="a")
    machine.add(os.getppid(), "http://127.0.0.1:2/", jupyters_token="b")
    kernel = {**machine.env, "NAVI_CONNECTION_FILE": str(machine.folder / f"navi-{os.getppid()}.json")}
    found = running_server(env=kernel)
    assert (found.url, found.authorization) == ("http://127.0.0.1:2/", f"navi kernels{os.getppid()}")
    terminal = {**machine.env, "JUPYTER_SERVER_URL": "http://localhost:1/"}
    assert running_server(env=terminal).authorization == "token a"


def test_among_several_servers_none_is_chosen_and_all_are_named(machine: Machine, listening: str) -> None:
    machine.add(os.getpid(), listening, jupyters_token="a")
    machine.add(os.getppid(), listening + "two/", jupyters_token="b")
    with pytest.raises(SeveralServers) as caught:
        running_server(env=machine.env)
    for part in (listening, f"/root{os.getpid()}", listening + "two/", f"/root{os.getppid()}", "--url"):
        assert part in caught.value.message
    assert "token" not in caught.value.message
    assert running_server(listening + "two/lab", env=machine.env).authorization == "token b"


def test_of_several_servers_one_that_does_not_listen_is_left_out(machine: Machine, listening: str) -> None:
    machine.add(os.getpid(), listening, jupyters_token="a")
    machine.add(os.getppid(), "http://127.0.0.1:1/", jupyters_token="b")
    assert running_server(env=machine.env).url == listening


def test_the_token_of_a_named_server_comes_from_the_url_the_environment_or_its_own_file(machine: Machine) -> None:
    machine.add(os.getpid(), "http://127.0.0.1:1/base/", jupyters_token="own")
    env = {**machine.env, "NAVI_TOKEN": "environment"}
    assert running_server("http://hub.example/?token=u", env=env).authorization == "token u"
    assert running_server("http://hub.example/", "given", env=env).authorization == "token given"
    assert running_server("http://hub.example/", env=env).authorization == "token environment"
    assert running_server("localhost:1/base", env=env).authorization == "token own"
    assert running_server("http://127.0.0.1:1/", env=machine.env).authorization is None
    assert (
        running_server(env={**machine.env, "NAVI_SERVER_URL": "http://localhost:1/base"}).authorization == "token own"
    )


def test_where_no_server_runs_the_error_says_how_to_start_or_to_name_one(machine: Machine) -> None:
    machine.add(DEAD, "http://127.0.0.1:2/")
    gone = {**machine.env, "NAVI_CONNECTION_FILE": str(machine.folder / f"navi-{DEAD}.json")}
    with pytest.raises(ServerNotFound, match=rf"the server of navi-{DEAD}.json is gone.*start one.*--url"):
        running_server(env=gone)
