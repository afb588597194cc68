"""The examples of docs/programs.md, as they stand there."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import navi_jupyter as navi
from tests.e2e.obedient import call, tell
from tests.support.server import ROOT, JupyterServer, free_port


def example(name: str) -> str:
    """The code below the mark of that name."""
    text = (ROOT / "docs" / "programs.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def run(server: JupyterServer, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The example as a program of its own, with the environment of its user."""
    return subprocess.run(
        [sys.executable, "-c", example(name), *arguments],
        env={**server.env(), "NAVI_SERVER_URL": server.url, "NAVI_TOKEN": server.token},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_script_prints_the_answer_and_makes_a_recall(server: JupyterServer) -> None:
    done = run(server, "script")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Done. \nNext: ")
    assert "2 messages" in done.stdout
    (recall,) = server.get("navi/api/recalls")["recalls"]
    assert recall["message"] == "look at the numbers"


def test_the_job_says_by_its_exit_status_what_came_of_it(server: JupyterServer) -> None:
    done = run(server, "job", "main", tell("All good."))
    assert (done.returncode, done.stdout.strip()) == (0, "All good.")
    asks = run(server, "job", "main", tell([call("write_file", path="a.txt", content="a")]))
    assert (asks.returncode, asks.stdout) == (3, "")
    assert asks.stderr.startswith("answer_needed: The run waits for an answer: Navi wants to use write_file.")
    failed = run(server, "job", "main", tell({"status": 401}))
    assert (failed.returncode, failed.stderr.partition(":")[0]) == (1, "run_failed")


def test_the_ci_job_of_the_shell_passes_and_fails_by_the_last_line(server: JupyterServer, tmp_path: Path) -> None:
    where = {**server.env(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    asked = "Check the notebooks in reports/. End with the line OK if all is well."
    assert asked in example("ci")
    for answer, status in (("Fine.\nOK", 0), ("Two cells fail.", 1)):
        job = example("ci").replace(f'"{asked}"', f"'{tell(answer)}'")
        done = subprocess.run(
            ["sh", "-ec", job], env=where, cwd=tmp_path, capture_output=True, timeout=100, check=False
        )
        assert done.returncode == status, (done.stderr, (tmp_path / "answer.jsonl").read_text())


def fetch(url: str, body: Any = None, **headers: str) -> bytes:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=content, headers={"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def frames(stream: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    for frame in stream.decode().split("\n\n")[:-1]:
        first, _, data = frame.partition("\ndata: ")
        yield int(first.removeprefix("id: ")), json.loads(data)


async def test_the_back_end_streams_a_run_continues_after_a_lost_connection_and_takes_answers(
    server: JupyterServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    monkeypatch.setenv("NAVI_SERVER_URL", server.url)
    monkeypatch.setenv("NAVI_TOKEN", server.token)
    names: dict[str, Any] = {}
    exec(compile(example("web"), str(tmp_path / "web.py"), "exec"), names)
    port = free_port()
    back_end = uvicorn.Server(uvicorn.Config(names["app"], port=port, log_level="warning"))
    serving = asyncio.create_task(back_end.serve())
    at = f"http://127.0.0.1:{port}"

    def visit() -> None:
        prompt = tell([call("write_file", path="web.txt", content="w")], "Written for the web.")
        begun = json.loads(fetch(f"{at}/ask", {"text": prompt}))
        # The page waits for the question, loses its connection, answers, and comes back.
        url = f"{at}/{begun['session']}/runs/{begun['run']}?after={begun['after']}"
        seen: list[tuple[int, dict[str, Any]]] = []
        with urllib.request.urlopen(url, timeout=60) as stream:
            while not any(event.get("name") == "navi.interrupt" for _, event in seen):
                seen += frames(stream.readline() + stream.readline() + stream.readline())
        question = seen[-1][1]["value"]["interrupt"]["id"]
        fetch(f"{at}/{begun['session']}/questions/{question}", {"answer": True})
        rest = list(frames(fetch(url, **{"Last-Event-ID": str(seen[-1][0])})))
        seqs = [seq for seq, _ in (*seen, *rest)]
        assert seqs == sorted(set(seqs)), "each event once, in order"
        assert "".join(event.get("delta", "") for _, event in rest).strip() == "Written for the web."
        assert rest[-1][1]["type"] == "RUN_FINISHED"

    try:
        while not back_end.started:
            assert not serving.done()
            await asyncio.sleep(0.05)
        await asyncio.to_thread(visit)
    finally:
        back_end.should_exit = True
        await serving
    assert navi.connect().url == server.url
