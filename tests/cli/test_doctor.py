"""``navi doctor`` finds what is wrong and says what to do."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.store.sqlite.database_file import prepare
from tests.support.s3 import BUCKET, PrivateS3
from tests.support.server import ROOT, JupyterServer

SECRET = "sk-this-must-never-be-shown"


class Place:
    """Private directories in which the doctor looks around."""

    def __init__(self, home: Path) -> None:
        self.server = JupyterServer(home)
        self.home = home
        self.config = home / "config" / "jupyter_server_config.d" / "navi_jupyter.json"
        self.config.parent.mkdir(parents=True)
        self.switch(on=True)

    def switch(self, *, on: bool) -> None:
        self.config.write_text(json.dumps({"ServerApp": {"jpserver_extensions": {"navi_jupyter": on}}}))

    def examine(self, **env: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
        """The exit status, and the findings by check."""
        done = self.run("--json", **env)
        findings: dict[str, list[dict[str, Any]]] = {}
        for line in done.stdout.splitlines():
            finding = json.loads(line)
            findings.setdefault(finding["check"], []).append(finding)
        return done.returncode, findings

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in self.server.env().items() if not name.endswith("_API_KEY")}
        return subprocess.run(
            [sys.executable, "-m", "navi_jupyter.cli", "doctor", *arguments],
            env={**kept, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def database(self) -> Path:
        return self.home / "data" / "navi" / "navi.db"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.server.stop()


def statuses(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["status"] for finding in findings]


def test_a_good_installation_has_no_failures(place: Place) -> None:
    status, findings = place.examine()
    assert status == 0, findings
    assert list(findings) == [
        "python",
        "packages",
        "extension",
        "javascript",
        "labextension",
        "database",
        "attachments",
        "kernels",
        "server",
        "models",
        "agents",
        "notify",
        "otel",
    ]
    assert statuses(findings["extension"]) == ["ok", "ok"]
    assert "python3: has navi-jupyter" in findings["kernels"][0]["text"]


def test_what_is_not_ok_comes_with_what_to_do(place: Place) -> None:
    _, findings = place.examine()
    for finding in (each for group in findings.values() for each in group):
        assert (finding["status"] == "ok") == (finding["fix"] is None), finding


def test_the_report_for_people_has_a_line_per_finding(place: Place) -> None:
    done = place.run()
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines() if not line.lstrip().startswith("->")]
    assert all(line.startswith(("ok ", "warn ", "fail ")) for line in heads)


def test_an_extension_that_is_not_enabled_is_a_failure(place: Place) -> None:
    place.switch(on=False)
    # In a virtual environment that has the package, its own configuration would come before the user's.
    status, findings = place.examine(JUPYTER_PREFER_ENV_PATH="0")
    assert status == 1
    assert findings["extension"][0]["status"] == "fail"
    assert "enable navi_jupyter" in findings["extension"][0]["fix"]


def test_the_database_is_read_and_its_folder_tried_without_leaving_anything(place: Place) -> None:
    place.server.start()
    place.server.request("POST", "navi/api/sessions", {"title": "kept"})
    place.server.stop()
    before = sorted(place.database.parent.iterdir())
    status, findings = place.examine()
    assert status == 0
    assert "opens, is whole" in findings["database"][0]["text"]
    assert sorted(place.database.parent.iterdir()) == before


@pytest.mark.parametrize("trouble", ["damaged", "newer", "foreign"])
def test_a_database_that_can_not_be_used_is_a_failure_and_is_left_alone(place: Place, trouble: str) -> None:
    place.database.parent.mkdir(parents=True)
    if trouble == "damaged":
        place.database.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    else:
        with sqlite3.connect(place.database) as connection:
            connection.execute("CREATE TABLE t (x)")
            connection.execute("PRAGMA user_version = 999")
            if trouble == "newer":
                connection.execute(f"PRAGMA application_id = {0x4E415649}")
        connection.close()
    before = place.database.read_bytes()
    status, findings = place.examine()
    assert status == 1
    assert findings["database"][0]["status"] == "fail"
    assert findings["database"][0]["fix"]
    assert place.database.read_bytes() == before
    assert list(place.database.parent.iterdir()) == [place.database]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_a_failure(place: Place) -> None:
    place.database.parent.mkdir(parents=True)
    place.database.parent.chmod(0o500)
    status, findings = place.examine()
    assert status == 1
    assert findings["database"][-1]["status"] == "fail"


def test_a_running_server_is_asked_as_its_kernels_ask(place: Place) -> None:
    place.server.start()
    _, findings = place.examine()
    assert statuses(findings["server"]) == ["ok"]
    assert place.server.url in findings["server"][0]["text"]
    place.server.kill9()
    _, findings = place.examine()
    assert statuses(findings["server"]) == ["warn"]


def test_a_running_server_says_which_tools_of_its_mcp_servers_cannot_be_used(place: Place, tmp_path: Path) -> None:
    tools = [{"name": "good", "inputSchema": {"type": "object"}}, {"name": "odd", "inputSchema": {"anyOf": []}}]
    doing = tmp_path / "doing.json"
    doing.write_text(json.dumps({"tools": tools}))
    script = ROOT / "tests" / "agent" / "mcp" / "strange.py"
    entry = {"command": sys.executable, "args": [str(script), str(doing)], "protocol": "legacy"}
    file = place.home / "config" / "navi" / "mcp.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"mcpServers": {"it": entry}}))
    place.server.start()
    place.server.request("POST", "navi/api/mcp/it/restart", {})
    for _ in range(300):
        if place.server.get("navi/api/mcp")["mcp"][0]["status"] == "ready":
            break
        time.sleep(0.1)
    _, findings = place.examine()
    assert statuses(findings["mcp"]) == ["ok", "warn"]
    assert findings["mcp"][0]["text"] == "it: ready, tools: 1"
    assert findings["mcp"][1]["text"].startswith("it: the tool odd: ")


def test_keys_are_named_and_never_shown(place: Place) -> None:
    done = place.run("--json", OPENAI_API_KEY=SECRET, ANTHROPIC_API_KEY=SECRET)
    assert "OPENAI_API_KEY is set" in done.stdout
    assert "ANTHROPIC_API_KEY is set" in done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_help_and_version_are_quick_and_serve_passes_its_options_on() -> None:
    for arguments, expected in (
        (["--help"], "demo"),
        (["--version"], "navi-jupyter"),
        (["serve", "--help"], "An agent that lives in your Jupyter server"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "navi_jupyter.cli", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout


def test_serve_is_a_server_with_navi(tmp_path: Path) -> None:
    with JupyterServer(tmp_path).start("navi") as server:
        assert server.get("navi/api/health")["status"] == "ok"


def test_the_file_system_of_the_database_is_named_with_what_works_on_it(place: Place) -> None:
    _, findings = place.examine()
    assert re.search(
        r"\((\w|\.)+\): locks and write-ahead log work between two processes", findings["database"][-1]["text"]
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_database_that_is_no_file_is_a_failure_and_is_not_opened(place: Place) -> None:
    place.database.parent.mkdir(parents=True)
    os.mkfifo(place.database)
    status, findings = place.examine()
    assert status == 1
    assert "is a pipe" in findings["database"][0]["text"]


def test_what_a_server_sends_by_itself_is_named_without_its_secrets(place: Place) -> None:
    path = place.home / "config" / "navi" / "notify.toml"
    path.parent.mkdir()
    secret = "whsec_" + "d2h5IGRvIHlvdSByZWFkIHRoaXMgYXQgYWxsPyEh"
    path.write_text(
        f'[targets.ci]\nwebhook = "https://ci.example.org/{SECRET}"\nsecret = "{secret}"\nevents = ["run"]\n'
        f'[targets.bad]\nwebhook = "http://ci.example.org/{SECRET}"\nsecret = "{secret}"\n'
    )
    path.chmod(0o600)
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318?x=1", "OTEL_EXPORTER_OTLP_HEADERS": f"key={SECRET}"}
    _, findings = place.examine(NAVI_OTEL="true", **otel)
    good, bad = findings["notify"]
    assert good["text"] == "ci: a webhook, for firings of recalls that name it, every run"
    assert "targets.bad.webhook: http:// is not encrypted" in bad["text"]
    assert "http://otel:4318 (otlp), without content" in findings["otel"][0]["text"]
    assert SECRET not in json.dumps(findings)
    assert secret not in json.dumps(findings)
    _, findings = place.examine(NAVI_OTEL="true", OTEL_SDK_DISABLED="true")
    assert findings["otel"][0]["status"] == "warn"


def test_where_attachments_go_is_tried_with_an_object_that_is_removed_again(place: Place, s3: PrivateS3) -> None:
    _, findings = place.examine()
    assert statuses(findings["attachments"]) == ["ok"]
    url = f"s3://{BUCKET}/doctor"
    _, findings = place.examine(NAVI_BLOBS_URL=url, **s3.variables())
    assert statuses(findings["attachments"]) == ["ok"]
    assert f"{url}: an object was written, read and removed" in findings["attachments"][0]["text"]
    assert s3.objects("doctor") == []
    wrong = s3.variables() | {"AWS_ACCESS_KEY_ID": "AKIA-NEVER-SHOWN"}
    status, findings = place.examine(NAVI_BLOBS_URL=url, **wrong)
    assert status == 1
    assert statuses(findings["attachments"]) == ["fail"]
    assert "InvalidAccessKeyId" in findings["attachments"][0]["text"]
    assert "NEVER-SHOWN" not in str(findings)


def test_a_large_database_that_keeps_its_unused_pages_is_named_with_the_command_that_gives_them_back(
    place: Place,
) -> None:
    asyncio.run(prepare(place.database))
    with closing(sqlite3.connect(place.database)) as db:
        db.executescript(
            "PRAGMA auto_vacuum = NONE; VACUUM; CREATE TABLE large (content BLOB);"
            "INSERT INTO large SELECT zeroblob(1000000) FROM (VALUES (1), (2), (3), (4), (5)) a,"
            " (VALUES (1), (2), (3), (4)) b; DROP TABLE large;"
        )
    _, found = place.examine()
    (finding,) = [one for one in found["database"] if "unused" in one["text"]]
    assert finding["status"] == "warn"
    assert "20.0 MB of it are unused" in finding["text"]
    with closing(sqlite3.connect(place.database)) as db:
        db.executescript(finding["fix"].split("'")[-2])  # what is in quotes
    assert place.database.stat().st_size < 2_000_000
    assert statuses(place.examine()[1]["database"]) == ["ok", "ok"]
