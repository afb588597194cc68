"""Servers on several machines share a PostgreSQL database: one that dies is replaced soon, and one that is cut off has
no effect once another one has begun."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from pathlib import Path

import pytest

from navi_jupyter.settings import SHARED_LEASE
from tests.support.cut_proxy import proxied
from tests.support.orchestrator_process import Process
from tests.support.postgres import PrivatePostgres

from .test_fence import effects, settled, until_effects


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "cut off", "stopped"])
def test_of_two_servers_on_two_machines_one_that_fails_has_no_effect_after_the_other_one_began(
    tmp_path: Path, postgres_server: PrivatePostgres, fault: str
) -> None:
    database = f"t_{secrets.token_hex(6)}"
    postgres_server.create_database(database)
    with proxied(postgres_server.port) as proxy:
        through = f"postgresql://navi@127.0.0.1:{proxy.port}/{database}"
        with (
            Process(tmp_path, host="one", database=through) as one,
            Process(tmp_path, host="two", database=postgres_server.url(database)) as two,
        ):
            one.ready()
            two.ready()
            sid = one.session()
            two.ask(do="follow", sid=sid, after=0)
            run_id = one.prompt(sid, "effects 1", "c1")["run_id"]
            two.prompt(sid, "effects 1", "c2")
            until_effects(tmp_path, one.pid)
            time.sleep(SHARED_LEASE.renewed_every)  # it has renewed its lease
            began = time.monotonic()
            if fault == "killed":
                os.kill(one.pid, signal.SIGKILL)
            elif fault == "cut off":
                proxy.silent = True
            else:
                os.kill(one.pid, signal.SIGSTOP)
            assert two.until_end(sid, run_id)["event"]["code"] == "interrupted"
            took = time.monotonic() - began
            until_effects(tmp_path, two.pid)
            # By the end of its connection where it is dead, else by that of its lease.
            assert (took < SHARED_LEASE.trust) is (fault == "killed"), took
            if fault == "stopped":
                before = effects(tmp_path, one.pid)
                os.kill(one.pid, signal.SIGCONT)
                assert settled(tmp_path, one.pid) == before
            else:
                lost, won = settled(tmp_path, one.pid), effects(tmp_path, two.pid)
                assert lost[-1] < won[0]
            print(f"{fault}: taken over after {took:.2f} s")


@pytest.mark.slow
def test_a_run_goes_on_while_postgresql_is_restarted_and_nothing_is_lost(
    tmp_path: Path, postgres: PrivatePostgres
) -> None:
    url = postgres.url()
    with Process(tmp_path, host="one", database=url) as one, Process(tmp_path, host="two", database=url) as two:
        one.ready()
        two.ready()
        sid = one.session()
        two.ask(do="follow", sid=sid, after=0)
        run_id = one.prompt(sid, "drip 2000", "c1")["run_id"]
        two.until_seen(sid, lambda e: e["event"]["type"] == "TEXT_MESSAGE_CONTENT")
        postgres.stop(how=signal.SIGQUIT)
        postgres.start()
        assert one.prompt(sid, "drip 1", "c2").get("accepted") == "c2"
        assert two.until_end(sid, run_id)["event"]["type"] == "RUN_FINISHED"
        numbers = [json.loads(frame)["seq"] for frame in two.seen(sid)]
        assert numbers == list(range(1, len(numbers) + 1))
