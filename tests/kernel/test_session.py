"""A notebook's session is found again, however its kernel reaches the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_server.auth import passwd

from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

pytestmark = pytest.mark.slow

WHICH = "import navi_jupyter as navi\nprint(navi.session().id)"


def test_the_session_is_the_same_after_a_kernel_restart(kernel: NotebookKernel) -> None:
    before = kernel.ok(WHICH).stdout
    kernel.restart()
    assert kernel.ok(WHICH).stdout == before


def test_the_session_belongs_to_the_notebook_whoever_started_its_kernel(
    server: JupyterServer, open_kernel: Callable[..., NotebookKernel]
) -> None:
    # JupyterLab sends a name, which makes Jupyter hand the kernel an absolute path; other clients send none.
    (server.root / "deep").mkdir(exist_ok=True)
    named = open_kernel("deep/same.ipynb", name="same.ipynb")
    before = named.ok(WHICH).stdout.strip()
    assert server.get(f"navi/api/sessions/{before}")["notebook_path"] == "deep/same.ipynb"
    named.close()
    plain = open_kernel("deep/same.ipynb")
    assert plain.ok(WHICH).stdout.strip() == before


def test_after_session_new_the_new_one_is_found_again(kernel: NotebookKernel) -> None:
    first = kernel.ok(WHICH).stdout
    kernel.ok("%navi session new")
    second = kernel.ok(WHICH).stdout
    kernel.ok(f"navi.session({first.strip()!r}).ask('hello')")
    kernel.restart()
    assert kernel.ok(WHICH).stdout == second != first


def test_two_notebooks_have_two_sessions(open_kernel: Callable[..., NotebookKernel]) -> None:
    assert open_kernel().ok(WHICH).stdout != open_kernel().ok(WHICH).stdout


def test_a_kernel_without_a_notebook_has_a_session_of_its_own_and_keeps_it(
    open_kernel: Callable[..., NotebookKernel],
) -> None:
    one, other = open_kernel(None), open_kernel(None)
    before = one.ok(WHICH).stdout
    assert other.ok(WHICH).stdout != before
    one.restart()
    assert one.ok(WHICH).stdout == before


def test_the_environment_can_name_the_session(open_kernel: Callable[..., NotebookKernel]) -> None:
    chosen = open_kernel().ok(WHICH).stdout
    other = open_kernel()
    assert other.ok(f"import os; os.environ['NAVI_SESSION'] = {chosen.strip()!r}\n{WHICH}").stdout == chosen


def test_a_kernel_reaches_a_server_with_a_prefix(tmp_path: Path) -> None:
    with JupyterServer(tmp_path).start(base_url="/some/prefix/") as server:
        kernel = NotebookKernel(server)
        try:
            kernel.ok("%load_ext navi_jupyter")
            assert kernel.ok("%navi What can you do?").text
        finally:
            kernel.close()


@pytest.mark.parametrize("args", [[f"--PasswordIdentityProvider.hashed_password={passwd('secret')}"], []])
def test_a_kernel_reaches_a_server_that_has_no_token(tmp_path: Path, args: list[str]) -> None:
    """With a password, or with no authentication, there is no token that a runtime file could tell."""
    with JupyterServer(tmp_path, token="").start(args=args) as server:
        _reaches_by_file(server)


def _reaches_by_file(server: JupyterServer) -> None:
    """A kernel with the environment that a kernel of the server has."""
    from jupyter_client.manager import start_new_kernel

    env = {**server.env(), "NAVI_CONNECTION_FILE": str(server.connection_file), "JPY_SESSION_NAME": "p.ipynb"}
    manager, client = start_new_kernel(env=env)
    try:
        printed: list[str] = []
        client.execute_interactive(
            "import navi_jupyter as navi\nprint(navi.ask('What can you do?', show=False).status)",
            output_hook=lambda message: printed.append(str(message["content"].get("text", message["content"]))),
            timeout=40,
        )
        assert "completed\n" in printed, printed
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.skipif(os.name != "posix", reason="UNIX sockets")
def test_a_kernel_reaches_a_server_on_a_unix_socket(tmp_path: Path) -> None:
    sock = tmp_path / "s"
    server = JupyterServer(tmp_path)
    with server.start(args=[f"--ServerApp.sock={sock}"], wait=False):
        server.wait_for(lambda: server.connection_file.exists())
        _reaches_by_file(server)


def test_a_follow_goes_on_across_a_server_that_was_killed(tmp_path: Path) -> None:
    """Each event once, in order, although the server died in the middle; the client keeps its address and token."""
    with JupyterServer(tmp_path) as server:
        server.start()
        os.environ["NAVI_SERVER_URL"], os.environ["NAVI_TOKEN"] = server.url, server.token
        try:
            _follow_across(server)
        finally:
            del os.environ["NAVI_SERVER_URL"], os.environ["NAVI_TOKEN"]


def _follow_across(server: JupyterServer) -> None:
    import navi_jupyter as api

    api.connect()
    session = api.session()
    session.ask("hello")
    seen: list[int] = []
    for envelope in session.follow(0):
        seen.append(envelope["seq"])
        if envelope["event"]["type"] == "RUN_FINISHED":
            if len([1 for _ in seen]) and server.home.joinpath("again").exists():
                break
            server.home.joinpath("again").touch()
            server.kill9()
            server.start()
            session.send("What can you do?")
    everything = server.get(f"navi/api/sessions/{session.id}/events?limit=5000")["events"]
    assert seen == [each["seq"] for each in everything if each["seq"] <= seen[-1]]
    assert len(set(seen)) == len(seen)
