"""Which server a kernel takes for its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.kernel.client.connection import find_server
from navi_jupyter.kernel.errors import ServerNotFound

DEAD = 2**22 + 1  # above the largest process id


def write(path: Path, *, mode: int = 0o600, **content: Any) -> Path:
    path.write_text(json.dumps(content))
    path.chmod(mode)
    return path


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """An environment in which every place names a server, each another one."""
    named = write(tmp_path / f"navi-{os.getpid()}.json", url="http://127.0.0.1:3/", token="tf", pid=os.getpid())
    parent = os.getppid()
    write(tmp_path / f"navi-{parent}.json", url="http://127.0.0.1:4/", token="tp", pid=parent)
    write(tmp_path / f"jpserver-{parent}.json", url="http://127.0.0.1:5/", token="tj", pid=parent, root_dir="/nb")
    return {
        "NAVI_SERVER_URL": "http://127.0.0.1:2/",
        "NAVI_TOKEN": "te",
        "NAVI_CONNECTION_FILE": str(named),
        "JPY_PARENT_PID": str(parent),
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
        "JUPYTERHUB_API_TOKEN": "th",
        "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:6/user/ada/",
    }


def without(env: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


def test_the_places_are_asked_in_their_order(places: dict[str, str]) -> None:
    found = find_server("http://127.0.0.1:1/", "ta", env=places)
    assert (found.url, found.authorization) == ("http://127.0.0.1:1/", "token ta")
    found = find_server(env=places)
    assert (found.url, found.authorization) == ("http://127.0.0.1:2/", "token te")
    places = without(places, "NAVI_SERVER_URL")
    found = find_server(env=places)
    assert (found.url, found.authorization) == ("http://127.0.0.1:3/", "navi tf")
    places = without(places, "NAVI_CONNECTION_FILE")
    found = find_server(env=places)
    assert (found.url, found.authorization, found.root_dir) == ("http://127.0.0.1:4/", "navi tp", "/nb")
    Path(places["JUPYTER_RUNTIME_DIR"], f"navi-{os.getppid()}.json").unlink()
    found = find_server(env=places)
    assert (found.url, found.authorization, found.root_dir) == ("http://127.0.0.1:5/", "token tj", "/nb")
    places = without(places, "JPY_PARENT_PID")
    found = find_server(env=places)
    assert (found.url, found.authorization) == ("http://127.0.0.1:6/user/ada/", "token th")
    with pytest.raises(ServerNotFound, match="NAVI_SERVER_URL"):
        find_server(env=without(places, "JUPYTERHUB_API_TOKEN"))


def test_another_running_server_is_never_taken(places: dict[str, str]) -> None:
    only_runtime = {"JUPYTER_RUNTIME_DIR": places["JUPYTER_RUNTIME_DIR"], "JPY_PARENT_PID": "1"}
    with pytest.raises(ServerNotFound):
        find_server(env=only_runtime)


@pytest.mark.skipif(os.name != "posix", reason="modes and signals are POSIX")
@pytest.mark.parametrize(
    ("change", "reason"), [({"mode": 0o644}, "0600"), ({"pid": DEAD}, "gone"), ({"url": ""}, "names no server")]
)
def test_a_file_that_is_not_private_or_stale_is_passed_over(
    places: dict[str, str], change: dict[str, Any], reason: str
) -> None:
    content = {"url": "http://127.0.0.1:3/", "token": "t", "pid": os.getpid()} | change
    write(Path(places["NAVI_CONNECTION_FILE"]), **content)
    env = without(places, "NAVI_SERVER_URL")
    assert find_server(env=env).url == "http://127.0.0.1:4/"
    with pytest.raises(ServerNotFound, match=reason):
        find_server(env={"NAVI_CONNECTION_FILE": env["NAVI_CONNECTION_FILE"]})


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_file_is_passed_over(places: dict[str, str], text: str) -> None:
    Path(places["NAVI_CONNECTION_FILE"]).write_text(text)
    with pytest.raises(ServerNotFound, match="damaged"):
        find_server(env={"NAVI_CONNECTION_FILE": places["NAVI_CONNECTION_FILE"]})


@pytest.mark.parametrize(
    ("text", "url", "token"),
    [
        ("http://127.0.0.1:8888", "http://127.0.0.1:8888/", None),
        ("127.0.0.1:8888/base", "http://127.0.0.1:8888/base/", None),
        ("http://localhost:8888/lab?token=abc", "http://localhost:8888/", "token abc"),
        ("http://hub:8000/services/navi/", "http://hub:8000/services/navi/", None),  # navi hub
        ("http://hub:8000/services/navi/navi", "http://hub:8000/services/navi/", None),
        ("https://hub.example/user/ada/tree/?token=abc#x", "https://hub.example/user/ada/", "token abc"),
    ],
)
def test_a_url_is_taken_as_one_pastes_it(text: str, url: str, token: str | None) -> None:
    found = find_server(text, env={})
    assert (found.url, found.authorization) == (url, token)


def test_a_token_with_its_scheme_is_sent_as_it_is() -> None:
    assert find_server("http://h/", "navi abc", env={}).authorization == "navi abc"


def test_what_is_no_url_is_an_error_that_says_how_to_write_one() -> None:
    with pytest.raises(ServerNotFound, match="NAVI_SERVER_URL is not the URL"):
        find_server(env={"NAVI_SERVER_URL": "ftp://x/"})


def test_the_token_is_not_in_the_representation(places: dict[str, str]) -> None:
    assert "te" not in repr(find_server(env=places)).replace("te'", "te").split("source")[0]


def test_certificates_are_checked_but_on_loopback() -> None:
    assert find_server("https://example.org/", env={}).verify
    assert not find_server("https://127.0.0.1:8888/", env={}).verify
