"""A real JupyterHub with ``navi hub`` as its service: the Hub, its proxy and the servers of its users, on loopback."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.cookiejar import CookieJar
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

import psutil

from tests.support.balancer import InTurns
from tests.support.needs import needed, peer
from tests.support.providers import ScriptedProvider
from tests.support.server import ROOT, JupyterServer, ServerDied, free_port

READY_WITHIN = 150.0  # seconds; a loaded machine is slow
PASSWORD = "a password for all"

_CONFIG = """
import json, os
given = json.loads(os.environ["NAVI_TEST_HUB"])
c = get_config()
c.JupyterHub.bind_url = f"http://127.0.0.1:{given['port']}/"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{given['hub_port']}/"
c.JupyterHub.db_url = "sqlite:///" + given["home"] + "/hub.sqlite"
c.JupyterHub.cookie_secret_file = given["home"] + "/cookie_secret"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{given['proxy_port']}"
c.ConfigurableHTTPProxy.command = [given["proxy"]]
c.ConfigurableHTTPProxy.pid_file = given["home"] + "/proxy.pid"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = given["password"]
c.Authenticator.allow_all = True
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = given["home"] + "/homes/{username}"
c.Spawner.cmd = [given["python"], "-m", "jupyterhub.singleuser"]
c.Spawner.args = given["server_args"]
c.Spawner.start_timeout = c.Spawner.http_timeout = 180  # seconds; a loaded machine is slow
c.Spawner.server_token_scopes = ["users:activity!user", "access:servers!server", "access:services!service=navi"]
c.Spawner.environment = given["server_env"]
c.JupyterHub.services = given["services"]
c.JupyterHub.load_roles = given["roles"]
c.JupyterHub.shutdown_on_logout = False
for name, values in given["more"].items():
    for key, value in values.items():
        setattr(c[name], key, value)
"""


class Hub:
    """One JupyterHub and its directories below ``home``."""

    def __init__(
        self,
        home: Path,
        *,
        service: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        more: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """``service``: more of the service's entry in the configuration; ``env``: of the service, ``more``: other
        settings of the Hub, by class."""
        needed(find_spec("jupyterhub"), 'JupyterHub (pip install "navi-jupyter[hub]")')
        self.home = home
        self._proxy = peer("configurable-http-proxy")
        self.port, self._hub_port, self._proxy_port, self.service_port = (free_port() for _ in range(4))
        self.admin_token = secrets.token_hex(16)
        self.service_token = str((service or {}).get("api_token") or secrets.token_hex(16))
        """Of the service itself."""
        self.spawns = home / "spawns.jsonl"
        """What a ``QuickSpawner`` writes."""
        self.log = home / "hub.log"
        self._service = dict(service or {})
        self._env = dict(env or {})
        self._more = dict(more or {})
        self.server_env: dict[str, str] = {}
        """More of the environment of users' servers."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def hub_api(self) -> str:
        """Of the Hub itself, as services reach it."""
        return f"http://127.0.0.1:{self._hub_port}/hub/api"

    def start(self) -> Self:
        """Return once the service answers. Raises ServerDied."""
        for name in ("config", "data", "runtime", "homes"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        enabled = {"navi_jupyter": True} | dict.fromkeys(("jupyterlab", "notebook", "nbclassic", "jupyter_lsp"), False)
        enabled |= dict.fromkeys(("jupyter_server_ydoc", "jupyter_server_fileid", "notebook_shim"), False)
        enabled["jupyter_server_terminals"] = True  # so that the service has something to be without
        (self.home / "config" / "jupyter_server_config.json").write_text(
            json.dumps({"ServerApp": {"jpserver_extensions": enabled}})
        )
        config = self.home / "jupyterhub_config.py"
        config.write_text(_CONFIG)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                env={**self.env(), "NAVI_TEST_HUB": json.dumps(self._given()), "NAVI_TEST_SPAWNS": str(self.spawns)},
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_ready()
        return self

    def _given(self) -> dict[str, Any]:
        root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        places = {name: value for name, value in self.env().items() if name.startswith(("JUPYTER_", "PYTHONPATH"))}
        service = {
            "name": "navi",
            "url": f"http://127.0.0.1:{self.service_port}",
            "command": [sys.executable, "-m", "navi_jupyter.cli", "hub", *root],
            "oauth_no_confirm": True,
            "api_token": self.service_token,
            "environment": {"NAVI_DATABASE_URL": f"sqlite:///{self.home}/navi.db", **places, **self._env},
        } | self._service
        return {
            "home": str(self.home),
            "port": self.port,
            "hub_port": self._hub_port,
            "proxy_port": self._proxy_port,
            "proxy": self._proxy,
            "password": PASSWORD,
            "python": sys.executable,
            "server_args": root,
            "server_env": {"NAVI_HUB_SERVICE_URL": f"{self.url}services/navi/", "PYTHONPATH": str(ROOT)}
            | {name: str(self.home / "config") for name in ("JUPYTER_CONFIG_DIR",)}
            | self.server_env,
            "services": [
                {name: value for name, value in service.items() if value is not None},
                {"name": "tests", "api_token": self.admin_token},
                {"name": "alice-like", "api_token": self.admin_token[::-1]},
            ],
            "roles": [
                {"name": "user", "scopes": ["self", "access:services!service=navi"]},
                {"name": "navi", "services": ["navi"], "scopes": ["servers", "read:users:name"]},
                {
                    "name": "tests",
                    "services": ["tests"],
                    "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "access:services"],
                },
            ],
            "more": self._more,
        }

    def env(self) -> dict[str, str]:
        """Of the Hub and what it starts: all directories below ``home``, nothing of the developer's."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("JUPYTER", "JPY_", "NAVI_", "PYTEST_"))}
        places = {
            "HOME": self.home,
            "JUPYTER_CONFIG_DIR": self.home / "config",
            "JUPYTER_DATA_DIR": self.home / "data",
            "JUPYTER_RUNTIME_DIR": self.home / "runtime",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", "")))),
        }
        return kept | {name: str(value) for name, value in places.items()}

    def wait_ready(self) -> None:
        """Return once the service answers through the proxy. Raises ServerDied."""
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                break
            with suppress(OSError, ValueError, urllib.error.HTTPError):
                # The metrics need no user, and are there before Navi is ready.
                if b'navi_health_status{status="ok"} 1.0' in self.request("GET", "services/navi/metrics", raw=True):
                    return
            time.sleep(0.1)
        raise ServerDied(f"the Hub did not get ready:\n{self.log_tail()}")

    def stop(self) -> None:
        """End it and all that it has started. By their ids: a Hub that is asked waits for kernels."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            family = [parent, *parent.children(recursive=True)]
            # Servers of users have sessions of their own, and the Hub as their parent.
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, 10)
        self._process.wait(10)
        self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def service_process(self) -> psutil.Process:
        """That of ``navi hub``, where the Hub has started it."""
        assert self._process is not None
        for each in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "hub" in each.cmdline() and "navi_jupyter.cli" in each.cmdline():
                    return each
        raise AssertionError(f"navi hub does not run:\n{self.log_tail()}")

    def log_tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else "(none)"

    # --- users -------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, body: Any = None, *, token: str | None = None, raw: bool = False) -> Any:
        """A request to the Hub, by default as an administrator. Raises urllib's HTTPError."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {token or self.admin_token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return content if raw else json.loads(content) if content else None

    def user(self, name: str) -> HubUser:
        """A user, made where there is none."""
        with suppress(urllib.error.HTTPError):  # there is
            self.request("POST", f"hub/api/users/{name}")
        return HubUser(self, name)


class HubUser:
    """One user: tokens, and the server."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub = hub
        self.name = name

    def token(self, scopes: Sequence[str] = ("access:services!service=navi", "access:servers!user")) -> tuple[str, str]:
        """A new token and its id."""
        made = self.hub.request("POST", f"hub/api/users/{self.name}/tokens", {"note": "test", "scopes": list(scopes)})
        return made["token"], made["id"]

    def revoke(self, token_id: str) -> None:
        self.hub.request("DELETE", f"hub/api/users/{self.name}/tokens/{token_id}")

    def at_service(self) -> Place:
        """The service as this user reaches it."""
        return Place(self.hub, "/services/navi/", self.token()[0])

    def log_in(self, path: str) -> Visit:
        """Open a page of the Hub's domain in a browser of this user."""
        return Visit(self.hub, self.name, path)

    def start_server(self, server: str = "") -> Place:
        """The user's server, or one with a name, once it is ready."""
        with suppress(urllib.error.HTTPError):  # it runs
            self.hub.request("POST", f"hub/api/users/{self.name}/{f'servers/{server}' if server else 'server'}")
        deadline = time.monotonic() + READY_WITHIN
        while not (self.servers().get(server) or {}).get("ready"):
            assert time.monotonic() < deadline, self.hub.log_tail()
            time.sleep(0.2)
        place = Place(self.hub, f"/user/{self.name}/{server and server + '/'}", self.token()[0])
        place.home = self.hub.home / "homes" / self.name
        runtime = place.home / "runtime"
        if not runtime.is_symlink():
            runtime.symlink_to(place.home / ".local" / "share" / "jupyter" / "runtime")
        return place

    def stop_server(self) -> None:
        """Return once it has ended."""
        self.hub.request("DELETE", f"hub/api/users/{self.name}/server")
        deadline = time.monotonic() + READY_WITHIN
        while self.servers():
            assert time.monotonic() < deadline, self.hub.log_tail()
            time.sleep(0.2)

    def servers(self) -> dict[str, Any]:
        """By name, as the Hub knows them."""
        return dict(self.hub.request("GET", f"hub/api/users/{self.name}?include_stopped_servers=false")["servers"])


class Visit:
    """A browser in which somebody has logged in at the Hub, on the way to a page: where that is, and its cookies."""

    def __init__(self, hub: Hub, name: str, path: str) -> None:
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))
        login = self._opener.open(hub.url + path, timeout=60)
        assert "/hub/login" in login.url
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', login.read().decode())
        assert xsrf is not None
        form = urlencode({"username": name, "password": PASSWORD, "_xsrf": xsrf[1]}).encode()
        with self._opener.open(urllib.request.Request(login.url, data=form), timeout=60) as page:
            self.url = str(page.url)
            self.content = page.read().decode()

    def read(self, url: str) -> bytes:
        """A page, with the cookies."""
        with self._opener.open(url, timeout=60) as page:
            return bytes(page.read())

    def cookies(self, path: str) -> dict[str, str]:
        """What is sent to a path. Of those of one name the one for the longest part of it."""
        found = [each for each in self._jar if path.startswith(each.path)]
        return {each.name: each.value or "" for each in sorted(found, key=lambda each: len(each.path))}


class Place(JupyterServer):
    """An address of the Hub with Navi's routes below it, for what tests do with a server. It is not started by them."""

    def __init__(self, hub: Hub, base_url: str, token: str) -> None:
        super().__init__(hub.home / "unused", token=token)
        self.port = hub.port
        self.base_url = base_url
        self.log = hub.log


class ScriptedHub(NamedTuple):
    """A Hub whose service has a scripted model."""

    hub: Hub
    provider: ScriptedProvider
    way: InTurns
    """From users' servers to the service."""
