"""Processes of ``navi hub`` behind one address, on one PostgreSQL, as an administrator starts them."""

from __future__ import annotations

import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.balancer import InTurns
from tests.support.hub import Hub, Place
from tests.support.postgres import PrivatePostgres
from tests.support.server import free_port


class Replicas:
    """The Hub, and its service, started twice; more of it with :meth:`start_one`."""

    def __init__(
        self, home: Path, postgres: PrivatePostgres, *, env: Mapping[str, str] | None = None, spare: int = 0
    ) -> None:
        """``env``: more of the environment of the service; ``spare``: ports for processes that are started later."""
        self.ports = [free_port(), free_port()]
        self.spare = [free_port() for _ in range(spare)]
        self.balancer = InTurns(self.ports + self.spare)
        self.token = secrets.token_hex(16)
        address = f"http://127.0.0.1:{self.balancer.port}"
        self.hub = Hub(home, service={"url": address, "command": None, "environment": None, "api_token": self.token})
        self._url = postgres.url()
        self._env = dict(env or {})
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Return once the service answers."""
        for folder in ("config", "data", "runtime"):
            (self.hub.home / folder).mkdir(parents=True)
        for port in self.ports:
            self.start_one(port)
        self.hub.start()

    def start_one(self, port: int) -> subprocess.Popen[bytes]:
        """Another process, without waiting for it."""
        env = self.hub.env() | {
            "JUPYTERHUB_API_TOKEN": self.token,
            "JUPYTERHUB_API_URL": self.hub.hub_api,
            "JUPYTERHUB_SERVICE_NAME": "navi",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
            "NAVI_DATABASE_URL": self._url,
            **self._env,
        }
        command = [sys.executable, "-m", "navi_jupyter.cli", "hub", "--allow-root"]
        with self.log_of(port).open("ab") as log:
            process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def log_of(self, port: int) -> Path:
        """What the process at the port has written."""
        return self.hub.home / f"replica-{port}.log"

    def links(self, port: int, user: str) -> int:
        """How often a server of the user has opened a new link to the process at the port."""
        return self.log_of(port).read_text(errors="replace").count(f"event=bench_linked owner={user} ")

    def place(self, user: str, port: int) -> Place:
        """The service as the user would reach it at one process alone."""
        place = self.hub.user(user).at_service()
        place.port = port
        return place

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(20)
        self.hub.stop()
        self.balancer.close()
