"""What is in ``docs/hub``: a Hub and its service started with exactly these files; those for containers fit."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from itertools import groupby
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import urlencode

import pytest
import yaml
from jupyterhub.scopes import scope_definitions

from navi_jupyter.cli.doctor import server as doctors_server
from navi_jupyter.server.app import NaviExtension
from tests.e2e.client import Follower, call, new_session, ok, prompt, until
from tests.support.balancer import InTurns
from tests.support.hub import PASSWORD, Hub, Place
from tests.support.needs import peer
from tests.support.postgres import PrivatePostgres
from tests.support.server import ROOT, free_port

FOLDER = ROOT / "docs" / "hub"
PAGES = (ROOT / "docs" / "jupyterhub.md", FOLDER / "operations.md")
OWN = {"NAVI_SERVICE_TOKEN", "NAVI_SERVICE_ADDRESS", "NAVI_PUBLIC_URL", "NAVI_BIND", "NAVI_1", "NAVI_2"}
"""Variables of these files themselves."""
OTHERS = {"NAVI_TOKEN", "NAVI_PORT"}  # the client's; what Kubernetes makes of a Service

pytestmark = pytest.mark.timeout(400)  # a Hub and servers start with the first test


def manifest(kind: str) -> Any:
    """Of ``navi.yaml``."""
    (found,) = (one for one in yaml.safe_load_all((FOLDER / "navi.yaml").read_text()) if one["kind"] == kind)
    return found


def container() -> Any:
    (found,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]


def test_every_variable_that_is_named_is_a_setting() -> None:
    settings = {f"NAVI_{name.upper()}" for name in NaviExtension.class_own_traits(config=True)}
    assert "NAVI_DATABASE_URL" in settings
    for file in (*sorted(FOLDER.iterdir()), *PAGES):
        named = set(re.findall(r"\bNAVI_[A-Z0-9_]*[A-Z0-9]\b", file.read_text()))
        assert named <= settings | OWN | OTHERS, file.name


def test_every_scope_that_is_named_is_one_of_jupyterhub() -> None:
    seen = set()
    for file in (*sorted(FOLDER.iterdir()), *PAGES):
        for listed in re.findall(r"scopes\"?\s*[:=]\s*\[([^\]]+)\]", file.read_text()):
            for scope in listed.split(","):
                name = scope.strip(" \"'").partition("!")[0]
                assert name in scope_definitions or name == "self", (file.name, name)
                seen.add(name)
    assert seen >= {"self", "access:services", "access:servers", "users:activity", "servers", "read:users:name"}


def test_the_manifests_fit_together() -> None:
    """The chart, the Deployment, the Service and the policies name the same ports, labels and addresses."""
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    service, deployment, policy = manifest("Service"), manifest("Deployment"), manifest("NetworkPolicy")
    port = container()["ports"][0]["containerPort"]
    address = f"http://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert values["hub"]["services"]["navi"]["url"] == address
    assert values["singleuser"]["extraEnv"]["NAVI_HUB_SERVICE_URL"] == f"{address}/services/navi/"
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [
        *(one["spec"]["selector"]["matchLabels"] for one in (deployment, manifest("PodDisruptionBudget"))),
        service["spec"]["selector"],
        policy["spec"]["podSelector"]["matchLabels"],
    ]
    for part in (values["hub"], values["singleuser"], values["proxy"]["chp"]):
        (rule,) = part["networkPolicy"]["egress"]
        selectors += [one["podSelector"]["matchLabels"] for one in rule["to"]]
        assert [one["port"] for one in rule["ports"]] == [port]
    for selector in selectors:
        assert selector.items() <= labels.items()
    env = {one["name"]: one for one in container()["env"]}
    secret = env["JUPYTERHUB_API_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "hub", "key": "hub.services.navi.apiToken"}, "where the chart keeps it"
    assert env["JUPYTERHUB_SERVICE_URL"]["value"].endswith(f":{port}")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_the_containers_of_compose_have_what_the_configuration_asks_for() -> None:
    """And the two processes have the same token, which is the Hub's."""
    parts = compose()
    assert parts["navi1"] == parts["navi2"]
    asked = set(re.findall(r'given\("(\w+)"', (FOLDER / "jupyterhub_config.py").read_text()))
    assert {name for name in parts["hub"]["environment"] if name != "CONFIGPROXY_AUTH_TOKEN"} <= asked
    assert parts["hub"]["environment"]["NAVI_SERVICE_TOKEN"] == parts["navi1"]["environment"]["JUPYTERHUB_API_TOKEN"]
    asked = set(re.findall(r"\$\{(\w+)\}", (FOLDER / "haproxy.cfg").read_text()))
    assert asked == set(parts["navi"]["environment"])
    stages = re.findall(r"^FROM .* AS (\w+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert {part["build"]["target"] for part in parts.values() if "build" in part} <= set(stages)
    assert stages[-1] == "service", "which is what is built by default"


def test_the_alerts_are_about_metrics_that_there_are() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    named = {name for one in groups[0]["rules"] for name in re.findall(r"navi_\w+", one["expr"])}
    assert len(named) >= 8
    for name in named:
        assert f"| `{name.removesuffix('_bucket')}` |" in reference, name


class Documented(Hub):
    """A JupyterHub with the configuration file of the documentation, as it is."""

    def __init__(self, home: Path, given: dict[str, str] | None = None) -> None:
        super().__init__(home)
        self._given_env = given or {}
        self.api = free_port()

    @property
    def hub_api(self) -> str:
        return f"http://127.0.0.1:{self.api}/hub/api"

    def start(self) -> Self:
        """Return once the service is ready."""
        for name in ("config", "data", "runtime"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        enabled = dict.fromkeys(("jupyterlab", "notebook", "nbclassic", "jupyter_lsp", "jupyter_server_ydoc"), False)
        server = {"ServerApp": {"jpserver_extensions": enabled | {"navi_jupyter": True}}}
        (self.home / "config" / "jupyter_server_config.json").write_text(json.dumps(server))
        programs = str(Path(peer("configurable-http-proxy")).parent)
        given = {
            "PATH": os.pathsep.join((programs, os.environ["PATH"])),
            "HUB_DATA": str(self.home),
            "HUB_PASSWORD": PASSWORD,
            "HUB_ADDRESS": self.url,
            "HUB_API_ADDRESS": f"http://127.0.0.1:{self.api}/",
            "HUB_PROXY_API_ADDRESS": f"http://127.0.0.1:{free_port()}",
            "NAVI_SERVICE_ADDRESS": f"http://127.0.0.1:{self.service_port}",
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(FOLDER / "jupyterhub_config.py")],
                env={**self.env(), **given, **self._given_env},
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self.is_ready, patience=150.0, every=0.2)
        return self

    def is_ready(self) -> bool:
        """What a probe is answered, through the Hub's proxy: it has no token."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}services/navi/ready", timeout=5) as answer:
            return answer.read() == b"ok"
        return False

    def log_in(self, name: str) -> str:
        """A token with all that the user may do, as from the page /hub/token."""
        jar = CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        login = browser.open(f"{self.url}hub/login", timeout=60).read().decode()
        xsrf = re.search(r'name="_xsrf" value="([^"]+)"', login)
        assert xsrf is not None
        form = urlencode({"username": name, "password": PASSWORD, "_xsrf": xsrf[1]}).encode()
        browser.open(urllib.request.Request(f"{self.url}hub/login?next=%2Fhub%2Ftoken", data=form), timeout=60).read()
        (mark,) = (cookie.value for cookie in jar if cookie.name == "_xsrf" and cookie.path == "/hub/")
        made = urllib.request.Request(
            f"{self.url}hub/api/users/{name}/tokens",
            data=b"{}",
            headers={"X-XSRFToken": mark or "", "Content-Type": "application/json", "Referer": f"{self.url}hub/token"},
        )
        return str(json.loads(browser.open(made, timeout=60).read())["token"])


def test_the_configuration_of_the_page_starts_a_hub_whose_users_have_navi_with_and_without_a_server(
    tmp_path: Path,
) -> None:
    with Documented(tmp_path).start() as hub:
        token = hub.log_in("alice")
        service = Place(hub, "/services/navi/", token)
        sid = new_session(service, title="without a server")
        run = prompt(service, sid, "say hello")["run_id"]
        until(lambda: ok(service, "GET", f"sessions/{sid}/runs/{run}")["status"] == "completed")
        assert (tmp_path / "navi.db").is_file(), "which the page says to back up"
        hub.request("POST", "hub/api/users/alice/server", token=token)
        server = Place(hub, "/user/alice/", token)
        until(lambda: call(server, "GET", "health").status == 200, patience=150.0, every=0.5)
        titles = [each["title"] for each in ok(server, "GET", "sessions")["sessions"]]
        assert titles == ["without a server"], "the user's server sends everything to the service"


class Processes:
    """Two processes of the service, with the environments that the two examples give them."""

    def __init__(self, home: Path, database: str) -> None:
        self.token = secrets.token_hex(16)
        self.ports = [free_port(), free_port()]
        self.balancer = InTurns(self.ports)
        address = f"http://127.0.0.1:{self.balancer.port}"
        self.hub = Documented(home, {"NAVI_SERVICE_TOKEN": self.token, "NAVI_SERVICE_ADDRESS": address})
        kubernetes = {one["name"]: one.get("value", "") for one in container()["env"]}
        self._environments = [kubernetes, dict(compose()["navi1"]["environment"])]
        self._database = database
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, number: int) -> subprocess.Popen[bytes]:
        """One of them; with secrets and addresses of this machine, and nothing else of its own."""
        env = {**self._environments[number]}
        for name, value in env.items():
            if "${" in value:  # as compose does without a file .env
                env[name] = re.sub(r"\$\{\w+:?[-?]?([^}]*)\}", r"\1" if ":-" in value else "", value)
        env |= {
            "JUPYTERHUB_API_TOKEN": self.token,
            "JUPYTERHUB_API_URL": self.hub.hub_api,
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{self.ports[number]}",
            "NAVI_DATABASE_URL": self._database,
        }
        command = [sys.executable, "-m", "navi_jupyter.cli", "hub", "--allow-root"]
        with (self.hub.home / f"process-{number}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.hub.env() | env, stdout=log, stderr=subprocess.STDOUT)

    def probe(self, number: int, name: str) -> int:
        """The status that Kubernetes is answered."""
        path = container()[name]["httpGet"]["path"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number]}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_ready(self, number: int) -> None:
        """As a rolling upgrade does before it ends an old one."""
        until(lambda: self.probe(number, "readinessProbe") == 200, patience=150.0, every=0.1)

    def replace(self, number: int) -> None:
        """End one in order, and start another in its place."""
        self.processes[number].terminate()
        self.processes[number].wait(manifest("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])
        self.processes[number] = self.start(number)
        self.wait_ready(number)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(20)
        self.hub.stop()
        self.balancer.close()


@pytest.fixture
def processes(tmp_path: Path, postgres_server: PrivatePostgres) -> Iterator[Processes]:
    made = Processes(tmp_path, postgres_server.url())
    try:
        (tmp_path / "runtime").mkdir()
        made.processes += [made.start(0), made.start(1)]
        made.hub.start()
        for number in (0, 1):
            made.wait_ready(number)
        yield made
    finally:
        made.stop()


def test_a_process_without_its_database_is_alive_and_not_ready(tmp_path: Path) -> None:
    """It is not started again for that, and gets no requests until it has it."""
    made = Processes(tmp_path, "postgresql://navi@127.0.0.1:1/navi")
    try:
        (tmp_path / "runtime").mkdir()
        made.processes.append(made.start(0))
        until(lambda: made.probe(0, "livenessProbe") == 200)
        assert made.probe(0, "readinessProbe") == 503
    finally:
        made.stop()


def test_processes_are_replaced_one_after_the_other_under_a_run_and_a_recall_that_is_due(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {processes.probe(number, "livenessProbe") for number in (0, 1)} == {200}
    monkeypatch.setenv("JUPYTERHUB_SERVICE_NAME", "navi")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_URL", f"http://0.0.0.0:{processes.ports[0]}")
    assert [(one.status, "it is ready" in one.text) for one in doctors_server()] == [("ok", True)]
    place = Place(processes.hub, "/services/navi/", processes.hub.log_in("alice"))
    sid, other = new_session(place), new_session(place)
    follower = Follower(place, sid).connected()
    long = prompt(place, sid, "count to 5000 slowly")["run_id"]
    follower.until(lambda one: one["run_id"] == long and one["event"]["type"] == "RUN_STARTED")
    once = {"kind": "once", "in": "3s"}
    recall = ok(place, "POST", "recalls", {"session_id": other, "message": "say hello", "schedule": once})["id"]
    statuses: list[int] = []
    done = Event()

    def ask() -> None:
        while not done.wait(0.1):
            statuses.append(call(place, "GET", f"sessions/{sid}").status)

    asking = Thread(target=ask)
    asking.start()
    try:
        for number in (0, 1):
            processes.replace(number)
    finally:
        done.set()
        asking.join()
    runs = [run for run in ok(place, "GET", f"sessions/{other}/runs")["runs"] if run["origin"]["recall_id"] == recall]
    assert [run["status"] for run in runs] == ["completed"], "once"
    (status,) = (run["status"] for run in ok(place, "GET", f"sessions/{sid}/runs")["runs"] if run["id"] == long)
    assert status == "interrupted", "with its text: a run ends with the process that it is in"
    last = prompt(place, sid, "say hello")["run_id"]
    follower.until(lambda one: one["run_id"] == last and one["event"]["type"] == "RUN_FINISHED")
    assert [one["seq"] for one in follower.seen] == list(range(1, len(follower.seen) + 1)), "no gap, nothing twice"
    follower.close()
    # One that is ending refuses; this balancer does not ask whether it is ready. The next request goes to the other.
    assert set(statuses) <= {200, 503}
    refused = max((len(list(same)) for status, same in groupby(statuses) if status != 200), default=0)
    assert refused < 5, statuses
