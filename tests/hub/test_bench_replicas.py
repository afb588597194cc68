"""The links of a user's server to several processes of the service, and what becomes of a run whose process fails."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator

import pytest

from navi_jupyter.server.bench.channel import GRACE
from tests.e2e.client import call, log_of, new_session, ok, prompt, until
from tests.kernel.test_control import MODEL, provider_of
from tests.support.hub import Place
from tests.support.kernels import NotebookKernel
from tests.support.postgres import PrivatePostgres
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.replicas import Replicas

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test

LINKED_WITHIN = 5.0  # seconds

Bench = tuple[Replicas, Place, ScriptedProvider]

STAMPS = """\
import time
with open('stamps.txt', 'a', buffering=1) as file:
    for _ in range({count}):
        print({who!r}, time.time(), file=file)
        time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, postgres_server: PrivatePostgres) -> Iterator[Bench]:
    """Two processes, Alice's server, and a scripted model."""
    with provider_of() as provider:
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        made = Replicas(tmp_path_factory.mktemp("replicas"), postgres_server, env=env, spare=1)
        try:
            made.start()
            began = time.monotonic()
            server = made.hub.user("alice").start_server()
            print(f"the server is ready after {time.monotonic() - began:.1f} s")
            yield made, server, provider
        finally:
            made.stop()


def _linked(replicas: Replicas, ports: list[int], count: int = 1, within: float = LINKED_WITHIN) -> float:
    """Seconds until each of these processes has had so many links of Alice's server."""
    began = time.monotonic()
    until(lambda: all(replicas.links(port, "alice") >= count for port in ports), within)
    return time.monotonic() - began


def _up(place: Place) -> None:
    """Return once the process answers."""

    def answers() -> bool:
        try:
            return call(place, "GET", "health").status == 200
        except OSError:
            return False

    until(answers, 60)


def _code(place: Place, sid: str, run: str) -> list[str]:
    events = [one["event"] for one in log_of(place, sid) if one["run_id"] == run]
    return [str(one["content"]) for one in events if one["type"] == "TOOL_CALL_RESULT"]


def _status(place: Place, sid: str, run: str) -> str:
    return str(ok(place, "GET", f"sessions/{sid}/runs/{run}")["status"])


def _stamps(server: Place) -> list[tuple[str, float]]:
    file = server.home / "stamps.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(who, float(at)) for who, at in (line.split() for line in lines)]


def _session(replicas: Replicas, kernel: NotebookKernel, at: int) -> tuple[Place, Place, str]:
    """A session of the kernel; the process of the index, and the other one, as places."""
    ports = replicas.ports
    first, other = replicas.place("alice", ports[at]), replicas.place("alice", ports[1 - at])
    return first, other, new_session(first, kernel_id=kernel.id, allowed_tools=["run_code"])


FUNCTION = """\
import navi_jupyter as navi
@navi.tool(effect="read")
def answer() -> int:
    "The answer."
    return of_alice + 1
of_alice = 41
"""


def test_a_server_has_a_link_to_each_process_and_runs_of_either_use_its_kernel(bench: Bench) -> None:
    replicas, server, provider = bench
    took = _linked(replicas, replicas.ports)
    print(f"linked to both {took:.2f} s after the server was ready")
    kernel = NotebookKernel(server, "either.ipynb")
    kernel.ok(FUNCTION)
    for index in range(2):
        place, _, sid = _session(replicas, kernel, index)
        provider.restart(
            Reply(calls=(Call("run_code", {"code": "print(of_alice + 1)"}),)),
            Reply(calls=(Call("answer", {}, id="call_2"),)),
            Reply("done"),
        )
        run = prompt(place, sid, "go")["run_id"]
        until(lambda place=place, sid=sid, run=run: _status(place, sid, run) == "completed", 30)  # type: ignore[misc]
        ran, answered = _code(place, sid, run)
        assert "42" in ran
        assert answered == "42", "a function that was offered once is there for every process"
    kernel.close()


def test_nothing_of_a_frozen_process_happens_after_another_has_begun(bench: Bench) -> None:
    replicas, server, provider = bench
    kernel = NotebookKernel(server, "frozen.ipynb")
    frozen, other, sid = _session(replicas, kernel, 0)
    more = Reply(calls=(Call("run_code", {"code": STAMPS.format(who="a", count=5)}, id="call_3"),))
    provider.restart(
        Reply(calls=(Call("run_code", {"code": STAMPS.format(who="a", count=1200)}),)),
        Reply(calls=(Call("run_code", {"code": STAMPS.format(who="b", count=100)}, id="call_2"),)),
        Reply("done"),
        more,
        Reply("done"),
    )
    earlier = prompt(frozen, sid, "go")["run_id"]
    until(lambda: _stamps(server), 30)
    process = replicas.processes[0]
    process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    later = prompt(other, sid, "go on")["run_id"]
    time.sleep(12)
    process.send_signal(signal.SIGCONT)
    continued = time.time()
    until(lambda: _status(other, sid, later) == "completed", 60)
    print(f"frozen for 12 s; the later run is over after {time.monotonic() - stopped:.1f} s")
    time.sleep(3)  # for what the one that goes on might still do
    stamps = _stamps(server)
    begun = min(at for who, at in stamps if who == "b")
    assert begun < continued, "the earlier one's cell is interrupted for it"
    assert [who for who, _ in stamps].count("b") == 100
    assert not [at for who, at in stamps if who == "a" and at > begun], "no effect of the earlier one"
    assert _status(other, sid, earlier) == "interrupted"
    kernel.close()


def test_the_cell_of_a_process_that_is_killed_is_interrupted_before_the_next_run(bench: Bench) -> None:
    replicas, server, provider = bench
    (server.home / "stamps.txt").unlink(missing_ok=True)
    kernel = NotebookKernel(server, "killed.ipynb")
    killed, other, sid = _session(replicas, kernel, 0)
    guarded = (
        "stamps = None\ntry:\n"
        + "".join(f"    {line}\n" for line in STAMPS.format(who="a", count=1200).splitlines())
        + "except KeyboardInterrupt:\n    stamps = time.time()\n    raise"
    )
    provider.restart(
        Reply(calls=(Call("run_code", {"code": guarded}),)),
        Reply(calls=(Call("run_code", {"code": STAMPS.format(who="b", count=3)}, id="call_2"),)),
        Reply("done"),
    )
    earlier = prompt(killed, sid, "go")["run_id"]
    until(lambda: _stamps(server), 30)
    replicas.processes[0].kill()
    replicas.processes[0].wait(20)
    gone = time.time()
    later = prompt(other, sid, "go on")["run_id"]
    until(lambda: _status(other, sid, later) == "completed", 60)
    stamps = _stamps(server)
    begun = min(at for who, at in stamps if who == "b")
    print(f"the next run has begun in the kernel {begun - gone:.1f} s after the kill")
    assert begun - gone < GRACE, "it does not wait until the link of the dead one has ended"
    assert max(at for who, at in stamps if who == "a") < begun
    assert float(kernel.ok("print(stamps)").text) < begun, "it was interrupted"
    assert _status(other, sid, earlier) == "interrupted"
    kernel.close()


def test_a_process_that_is_started_later_gets_a_link(bench: Bench) -> None:
    replicas, server, provider = bench
    port = replicas.spare[0]
    replicas.start_one(port)
    place = replicas.place("alice", port)
    _up(place)
    took = _linked(replicas, [port])
    print(f"linked {took:.2f} s after it was up")
    kernel = NotebookKernel(server, "later.ipynb")
    kernel.ok("of_alice = 41")
    sid = new_session(place, kernel_id=kernel.id, allowed_tools=["run_code"])
    provider.restart(Reply(calls=(Call("run_code", {"code": "print(of_alice + 1)"}),)), Reply("done"))
    run = prompt(place, sid, "go")["run_id"]
    until(lambda: _status(place, sid, run) == "completed", 30)
    assert "42" in json.dumps(_code(place, sid, run))
    kernel.close()
