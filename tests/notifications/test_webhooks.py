"""Webhooks: programs that get an event when a firing or a run is over."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from navi_jupyter.model.recalls import FiringStatus
from navi_jupyter.notifications import service, webhook_sender
from navi_jupyter.notifications.targets import TargetFiles
from navi_jupyter.notifications.webhook_sender import Webhook, WebhookSender, read_secret, why_unusable_address
from navi_jupyter.redaction import scrub
from tests.conftest import Api
from tests.notifications.test_server import configure, fired, until
from tests.support.notification_world import World, world

SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes, yes").decode()
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@dataclass
class Hook:
    """A program that listens, and what it got."""

    port: int = 0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)  # of the next requests; afterwards each is taken
    silent: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=sEcReTkEy12345"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, _, body in self.requests]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [body for body in self.bodies if body["type"] == kind]


@asynccontextmanager
async def hook() -> AsyncIterator[Hook]:
    """One on a free loopback port."""
    made, tasks = Hook(), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, EOFError):
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines if each)}
            body = await reader.readexactly(int(headers["content-length"]))
            made.requests.append((line, headers, body))
            if made.silent:
                await asyncio.sleep(600)
            writer.write(made.answers.pop(0) if made.answers else OK)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()


@pytest.fixture
def navi_config(tmp_path: Path) -> dict[str, Any]:
    return {"notify_allow_private": True, "database_url": f"sqlite:///{tmp_path / 'own.db'}"}


async def test_programs_get_signed_events_of_firings_and_runs_on_a_real_server(api: Api, jp_config_dir: Path) -> None:
    spec = await api.ok("GET", "openapi.json")
    schema = spec["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    async with hook() as ci, hook() as quiet:
        configure(
            f'[targets.ci]\nwebhook = "{ci.url}"\nsecret = "{SECRET}"\nevents = ["firing", "run"]\n'
            f'[targets.quiet]\nwebhook = "{quiet.url}"\nsecret = "{SECRET}"\ncontent = false\n'
        )
        sid = await api.session(title="Losses of Ada")
        await api.ok("POST", f"sessions/{sid}/commands", {"type": "prompt", "text": "hello"})

        async def arrived(count: int, kind: str) -> None:
            async def there() -> bool:
                return len(ci.of(kind)) >= count

            await until(there)

        await arrived(1, "run.ended")
        run = ci.bodies[0]["data"]["run"]
        assert (run["status"], run["origin"]) == ("completed", "user")
        assert run["answer"]
        recall = await fired(api, sid, notify=["quiet"])
        await arrived(2, "run.ended")
        await arrived(1, "firing.ended")
        [firing] = ci.of("firing.ended")  # by `events`: the recall does not name it
        assert firing["data"]["recall"]["id"] == recall
        assert firing["data"]["firing"]["status"] == "succeeded"
        assert firing["data"]["run"]["id"] in {each["data"]["run"]["id"] for each in ci.of("run.ended")}
        assert firing["data"]["session"]["url"].endswith(f"navi?session={sid}")

        async def is_named_one() -> bool:
            return bool(quiet.bodies)

        await until(is_named_one)
        [bare] = quiet.bodies  # the firing of the recall that names it, and no run
        assert bare["id"] == firing["id"]  # one event for all webhooks
        assert (
            bare["data"]["session"]["title"] is bare["data"]["recall"]["title"] is bare["data"]["run"]["answer"] is None
        )
        for _, headers, body in (*ci.requests, *quiet.requests):
            checked = Verifier(SECRET).verify(body, headers)  # of the specification's own library
            assert checked["id"] == headers["webhook-id"]
            jsonschema.validate(checked, schema | {"components": spec["components"]})
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(ci.requests[0][2].replace(b"completed", b"xompleted"), ci.requests[0][1])
        assert len({each["id"] for each in ci.bodies}) == len(ci.bodies) == 3

        page = (await api("GET", "notify")).body.decode()
        assert "whsec_" not in page
        assert "sEcReTkEy" not in page
        assert [(each["name"], each["service"], each["available"]) for each in json.loads(page)["notify"]] == [
            ("ci", "webhook", True),
            ("quiet", "webhook", True),
        ]
        assert await api.ok("POST", "notify/ci/test") == {"delivered": True, "error": None}
        assert ci.bodies[-1]["type"] == "test"
        assert SECRET not in scrub(f"a cell that prints {SECRET}")


def target(at: Hook, **more: str) -> str:
    rest = "".join(f"{name} = {value}\n" for name, value in more.items())
    return f'quiet = "00:00-23:59"\nper_hour = 1\n[targets.ci]\nwebhook = "{at.url}"\nsecret = "{SECRET}"\n{rest}'


async def in_world(made: World, at: timedelta = timedelta()) -> None:
    """Deliver, so much later."""
    made.clock.at += at
    await made.service.deliver()


async def test_an_event_is_tried_again_under_the_same_id_signed_anew(tmp_path: Path) -> None:
    async with hook() as ci, world(tmp_path) as made:
        made.configure(target(ci))
        ci.answers = [b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 503 Later\r\nRetry-After: 600\r\n\r\n"]
        firing = await made.fired("losses", notify=("ci",))
        other = await made.fired("gains", notify=("ci",))  # waits, for it would fail as well
        await in_world(made)
        assert await made.notice(firing, "ci") == ("pending", 1, "it answered 500")
        assert len(ci.requests) == 1
        await in_world(made, timedelta(seconds=29))
        assert len(ci.requests) == 1
        await in_world(made, timedelta(seconds=1))
        assert await made.notice(firing, "ci") == ("pending", 2, "it answered 503")
        await in_world(made, timedelta(seconds=599))
        assert len(ci.requests) == 2  # it asked for ten minutes, which is more than two
        await in_world(made, timedelta(seconds=1))
        assert await made.notice(firing, "ci") == ("sent", 3, None)
        assert await made.notice(other, "ci") == ("sent", 1, None)
        assert (await made.delivery(firing))[0] == "delivered"
        ids = [headers["webhook-id"] for _, headers, _ in ci.requests]
        assert ids[0] == ids[1] == ids[2] != ids[3]  # no digest, at any hour, and no limit per hour
        times = [int(headers["webhook-timestamp"]) for _, headers, _ in ci.requests[:3]]
        assert [b - a for a, b in itertools.pairwise(times)] == [30, 600]


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 410 Gone\r\n\r\n", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n"]
)
async def test_what_will_never_work_is_tried_once(tmp_path: Path, answer: bytes) -> None:
    async with hook() as ci, world(tmp_path) as made:
        made.configure(target(ci))
        ci.answers = [answer]
        firing = await made.fired("losses", notify=("ci",))
        await in_world(made)
        status, attempts, error = await made.notice(firing, "ci")
        assert (status, attempts) == ("failed", 1)
        assert "410" in str(error) or "redirects are not followed" in str(error)
        await in_world(made, timedelta(days=1))
        assert len(ci.requests) == 1


async def test_what_ended_before_a_crash_is_sent_by_the_next_server_and_the_queue_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WAITING", 5)
    async with hook() as ci, world(tmp_path) as made:
        made.configure(target(ci, events='["firing", "run"]'))
        for n in range(4):
            await made.fired(f"r{n}", notify=())  # four firings and four runs are over, and this server is gone
        await made.fired("cancelled", notify=(), status=FiringStatus.CANCELLED, answer=None)
        made.service = made.new_service()
        await in_world(made)
        assert (len(ci.of("firing.ended")), len(ci.of("run.ended"))) == (4, 1)
        rows = await made.store.fetch_all("SELECT error FROM notices WHERE status = 'failed'")
        assert [row["error"] for row in rows] == ["more than 5 events waited for it"] * 3
        await in_world(made, timedelta(days=1))
        assert len(ci.requests) == 5
        assert not await made.store.fetch_all("SELECT * FROM ended")


async def test_without_content_no_word_of_anybody_is_sent(tmp_path: Path) -> None:
    async with hook() as ci, world(tmp_path) as made:
        made.configure(target(ci, events='["firing", "run"]', content="false"))
        await made.fired(
            "Title-word", notify=(), answer="Answer-word", reason="Reason-word", status=FiringStatus.FAILED
        )
        await in_world(made)
        assert {body["type"] for body in ci.bodies} == {"firing.ended", "run.ended"}
        for _, _, body in ci.requests:
            assert b"-word" not in body
            assert b"Losses" not in body  # the session's title
        assert {body["data"]["recall"]["title"] for body in ci.bodies} == {None}


async def test_a_stop_ends_a_request_and_the_next_server_sends_it_at_once(tmp_path: Path) -> None:
    async with hook() as ci, world(tmp_path) as made:
        made.configure(target(ci))
        ci.silent = True
        firing = await made.fired("losses", notify=("ci",))
        made.service.start()
        async with asyncio.timeout(20):
            while not ci.requests:  # noqa: ASYNC110  the other side is a server
                await asyncio.sleep(0.02)
            await made.service.stop()
        assert (await made.notice(firing, "ci"))[0] == "pending"
        ci.silent, made.service = False, made.new_service()
        await in_world(made)
        assert (await made.notice(firing, "ci"))[0] == "sent"


# --- the address guard, and odd peers ----------------------------------------------------------------------------


def to(url: str) -> Webhook:
    return Webhook(url=url, secrets=(secrets.token_bytes(32),))


async def post(url: str, *, allow_private: bool = True, deadline: float = 15.0) -> webhook_sender.SendResult:
    return await WebhookSender(allow_private=allow_private, deadline=deadline).send(to(url), "e", b"{}", at=NOW)


INWARD = [
    *("127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]", "[::]"),
    *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]"),
    *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.100.100.200", "[fd00:ec2::254]", "224.0.0.1"),
]


@pytest.mark.parametrize("host", INWARD)
async def test_no_spelling_of_an_inward_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []
    monkeypatch.setattr(asyncio, "open_connection", lambda *args, **_: connected.append(args))
    result = await post(f"https://{host}/", allow_private=False, deadline=5.0)
    assert result.problem is not None
    assert not connected
    # A system whose resolver does not take such a spelling finds no host at all.
    assert result.lasting or result.problem == "it could not be reached (gaierror)"


async def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["127.0.0.1"], ["93.184.215.14", "10.0.0.7"]]
    asked: list[str] = []

    def resolve(host: str, _: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    monkeypatch.setattr(webhook_sender, "resolve", resolve)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked a second time, or by another"))
    async with hook() as ci:
        assert (await post(f"http://hooks.example.org:{ci.port}/x")).problem is None
        assert ci.requests[0][0] == "POST /x HTTP/1.1"
        assert ci.requests[0][1]["host"] == f"hooks.example.org:{ci.port}"
    refused = await post("https://hooks.example.org/x", allow_private=False)
    assert refused.lasting
    assert "10.0.0.7" in str(refused.problem)
    assert asked == ["hooks.example.org"] * 2


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.example.org/", "ftp://hooks.example.org/", "https://", "https:///x", "https://h:99999/", "x"),
        *("https://user:pw@hooks.example.org/", "https://hooks.example.org/#x", "https://höoks.example.org/"),
        *(
            "https://h/\r\nX: 1",
            "https://h/a b",
            "https://h\\@127.0.0.1/",
            "https://127.0.0.1/",
            "https://h/" + 5000 * "x",
        ),
    ],
)
def test_an_odd_address_is_refused_when_it_is_read(url: str) -> None:
    assert why_unusable_address(url, allow_private=False)
    assert why_unusable_address("https://hooks.example.org:8443/a?b=c", allow_private=False) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + 300_000 * b"x", None),  # nothing of it is read
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: " + 100_000 * b"y" + b"\r\n\r\n", "its answer is not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "its answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: ", "its answer is not HTTP"),  # and closes
        (10 * b"HTTP/1.1 100 Continue\r\n\r\n", "its answer is not HTTP"),
        (b"", "its answer is not HTTP"),
        (b"HTTP/1.1 404 Not Found\r\nRetry-After: soon\r\n\r\n", "it answered 404"),
    ],
)
async def test_odd_answers(answer: bytes, problem: str | None) -> None:
    async with hook() as ci:
        ci.answers = [answer]
        assert (await post(ci.url)).problem == problem


async def test_a_peer_that_drips_or_is_silent_costs_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX: " + 1000 * b"y":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server, hook() as ci:
        ci.silent = True
        dripping = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        results = await asyncio.gather(post(dripping, deadline=0.5), post(ci.url, deadline=0.5))
        assert {result.problem for result in results} == {"it did not answer within 0 s"}
        server.close()


async def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ssl

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run(made, check=True, capture_output=True)  # noqa: ASYNC221
    except FileNotFoundError:
        pytest.skip("there is no openssl program")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)
        await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}/"
        assert str((await post(url)).problem).startswith("its certificate is not valid")
        assert not bodies  # nothing was said to it
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        assert (await post(url)).problem is None
        assert "not valid" in str((await post(url.replace("localhost", "127.0.0.1"))).problem)
        server.close()


# --- the file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ('secret = "x"', "targets.ci.secret: must be base64"),
        ('secret = "d2h5"', "targets.ci.secret: must be 24 to 64 bytes as base64, not 3"),
        ("", "targets.ci.secret: is missing; write it here or set the environment variable NAVI_NOTIFY_CI_SECRET"),
        (f'secret = "{SECRET}"\nevents = ["runs"]', "targets.ci.events: must be a list with some of firing, run"),
        (f'secret = "{SECRET}"\ncontent = "no"', "targets.ci.content: must be true or false"),
        (f'secret = "{SECRET}"\nurl = "json://x"', "targets.ci.url: there is no such setting of a webhook"),
        ("secret = []", "targets.ci.secret: must be text, or a list of at most 5"),
        ("secret = 5", "targets.ci.secret: must be text, or a list of at most 5"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(tmp_path: Path, lines: str, where: str) -> None:
    path = tmp_path / "navi" / "notify.toml"
    path.parent.mkdir()
    path.write_text(f'[targets.ci]\nwebhook = "https://hooks.example.org/"\n{lines}\n')
    wrong = TargetFiles(lambda: [str(tmp_path)], check=lambda _: None).read().targets["ci"].wrong
    assert where in str(wrong)
    assert f"{path}:" in str(wrong)


async def test_a_secret_comes_from_the_environment_and_two_sign_while_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "navi" / "notify.toml"
    path.parent.mkdir()
    old = base64.b64encode(secrets.token_bytes(32)).decode()
    async with hook() as ci:
        monkeypatch.setenv("NAVI_NOTIFY_CI_SECRET", SECRET)
        path.write_text(
            f'[targets.ci]\nwebhook = "{ci.url}"\n[targets.two]\nwebhook = "{ci.url}"\nsecret = ["{SECRET}", "{old}"]\n'
        )
        targets = TargetFiles(lambda: [str(tmp_path)], check=lambda _: None).read().targets
        for name in ("ci", "two"):
            made = targets[name].webhook
            assert made is not None
            assert SECRET not in repr(targets[name])
            assert (
                await WebhookSender(allow_private=True).send(made, "e_1", b"{}", at=datetime.now(UTC))
            ).problem is None
        assert made.secrets == (read_secret(SECRET), read_secret(old))
        for one in (SECRET, old):
            Verifier(one).verify(ci.requests[1][2], ci.requests[1][1])
