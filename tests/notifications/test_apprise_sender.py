"""Real sending processes with Apprise, and a real HTTP server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from navi_jupyter.notifications.apprise_sender import (
    MAX_URL,
    OWN_HOST,
    SCHEMES,
    SERVICES,
    AppriseSender,
    SendResult,
    why_unusable,
    without_secrets,
)
from tests.support.receiver import Receiver, receiving


def test_a_message_arrives_with_its_title_and_text(receiver: Receiver) -> None:
    outcome = AppriseSender(allow_private=True)(receiver.url(), title="Navi: ü – done", body="line\nhttps://x/y?s=1")
    assert outcome.problem is None
    assert [(body["title"], body["message"]) for body in receiver.bodies] == [
        ("Navi: ü – done", "line\nhttps://x/y?s=1")
    ]


def send_all(urls: Iterable[str]) -> dict[str, SendResult]:
    """To each as the server would, some at a time: most of a message's time its process only starts."""
    urls = list(urls)
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(urls, pool.map(partial(AppriseSender(), title="t", body="b"), urls), strict=True))


def test_no_spelling_of_this_machine_is_reached_unless_the_administrator_allows_it(receiver: Receiver) -> None:
    hosts = ("localhost", "2130706433", "0x7f.1", "0", "[::ffff:127.0.0.1]", "me:pw@127.0.0.1")
    outcomes = send_all(receiver.url("json", host) for host in hosts)
    assert {url: outcome.problem for url, outcome in outcomes.items() if not outcome.lasting} == {}
    assert sum("this machine" in str(outcome.problem) for outcome in outcomes.values()) >= 3, "and Apprise read them"
    assert receiver.paths == []


def test_whichever_host_a_url_is_read_to_have_it_is_looked_at_when_it_is_reached(receiver: Receiver) -> None:
    tricks = ("1.1.1.1#@{}", "1.1.1.1\\@{}", "{}#.example.org", "{}%2f.example.org")
    send_all(f"json://{trick.format(f'127.0.0.1:{receiver.port}')}/hook" for trick in tricks)
    assert receiver.paths == []


def test_no_service_with_a_host_of_its_own_leads_into_the_private_network(receiver: Receiver) -> None:
    here = f"127.0.0.1:{receiver.port}"
    outcomes = send_all(f"{scheme}://user:pass@{here}/topic/tokentokentoken" for scheme in ("xml", "gotify"))
    assert [outcome.lasting for outcome in outcomes.values()] == [True] * 2, outcomes
    assert receiver.paths == []


def test_a_refusal_says_why_and_is_not_tried_again(receiver: Receiver) -> None:
    outcome = AppriseSender()(receiver.url(), title="t", body="b")
    assert outcome.problem == "refused: 127.0.0.1 is this machine"
    assert outcome.lasting


def test_a_name_that_turns_out_to_be_private_when_it_is_connected_to_is_refused(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The name server of an attacker: who asks for rebind.example gets this machine.
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\nreal = socket.getaddrinfo\n"
        "def lie(host, *args, **kwargs):\n"
        "    return real('127.0.0.1' if host == 'rebind.example' else host, *args, **kwargs)\n"
        "socket.getaddrinfo = lie\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    url = receiver.url(host="rebind.example")
    assert AppriseSender(allow_private=True)(url, title="t", body="b").problem is None, "the name server works"
    assert AppriseSender()(url, title="t", body="b").problem == "refused: 127.0.0.1 is this machine"
    assert len(receiver.paths) == 1


@pytest.mark.parametrize("wish", ["", "?redirect=yes"])
def test_redirects_are_not_followed_whatever_the_url_says(receiver: Receiver, wish: str) -> None:
    with receiving() as elsewhere:
        receiver.redirect = f"http://127.0.0.1:{elsewhere.port}/stolen"
        outcome = AppriseSender(allow_private=True)(receiver.url() + wish, title="t", body="b")
        assert outcome.problem is not None
        assert len(receiver.paths) == 1
        assert elsewhere.paths == []


@pytest.mark.parametrize("between", [",", ", ", " ", ";"])
def test_a_target_is_one_url_and_no_second_one_hides_behind_it(receiver: Receiver, between: str) -> None:
    with receiving() as elsewhere:
        url = receiver.url() + between + elsewhere.url()
        AppriseSender(allow_private=True)(url, title="t", body="b")
        assert elsewhere.paths == []


def test_a_url_that_names_a_file_of_this_machine_sends_nothing_of_it(receiver: Receiver, tmp_path: Path) -> None:
    secret = tmp_path / "template.json"
    secret.write_text('{"type": "s3cret"}')
    url = f"workflows://127.0.0.1:{receiver.port}/workflow1/signature1/?template={secret}"
    allowed = AppriseSender(allow_private=True)(url, title="t", body="b")
    assert "'message'" in str(allowed.problem), "Apprise itself reads the file, and finds no card in it"
    outcome = AppriseSender()(url, title="t", body="b")
    assert "reads no file of this machine" in str(outcome.problem)
    assert receiver.paths == []


async def sending(sender: AppriseSender, url: str, receiver: Receiver) -> asyncio.Task[SendResult]:
    """A message that hangs in mid-request."""
    receiver.answering.clear()
    task = asyncio.create_task(asyncio.to_thread(sender, url, title="t", body="b"))
    async with asyncio.timeout(60):
        while not receiver.paths:  # noqa: ASYNC110  the other side is a process
            await asyncio.sleep(0.01)
    return task


async def test_a_service_that_never_answers_is_given_up_and_its_process_is_gone(receiver: Receiver) -> None:
    sender = AppriseSender(allow_private=True, deadline=0.01)
    receiver.answering.clear()
    outcome = await asyncio.to_thread(sender, receiver.url(), title="t", body="b")
    assert outcome.problem == "the service did not answer within 0 s"
    assert not outcome.lasting
    assert sender.processes == ()


async def test_a_server_that_stops_breaks_off_what_is_being_sent_and_sends_nothing_more(receiver: Receiver) -> None:
    sender = AppriseSender(allow_private=True)
    task = await sending(sender, receiver.url(), receiver)
    (process,) = sender.processes
    sender.close()
    assert await task == SendResult(problem="the server was stopped", stopped=True)
    assert process.returncode is not None
    assert sender(receiver.url(), title="t", body="b").stopped
    assert len(receiver.paths) == 1


async def test_a_sending_process_that_is_killed_is_a_failure_that_may_pass(receiver: Receiver) -> None:
    sender = AppriseSender(allow_private=True)
    task = await sending(sender, receiver.url(), receiver)
    os.kill(sender.processes[0].pid, signal.SIGKILL)
    assert await task == SendResult(problem="the sending process failed (exit code -9)")


def test_a_sending_process_whose_server_is_no_more_ends_by_itself() -> None:
    alone = "from navi_jupyter.notifications import sender\nsender.ALONE = 0.1\nsender.main()"
    with subprocess.Popen([sys.executable, "-c", alone], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.wait(60) != 0, "although it never got anything to send"


GARBAGE = {
    "before": ("print('hello {}', flush=True)", None),
    "after": ("import atexit, os; atexit.register(os.write, 1, b'[]')", None),
    "instead": ("import os; os.write(1, b'null'); os._exit(3)", "the sending process failed (exit code 3)"),
    "binary": ("import os; os.write(1, bytes(range(256))); os._exit(0)", "the sending process failed (exit code 0)"),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_whatever_the_sending_process_prints_is_an_answer_or_a_failure(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    code, problem = GARBAGE[case]
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert AppriseSender(allow_private=True)(receiver.url(), title="t", body="b").problem == problem


def test_without_apprise_the_message_says_what_to_install(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    outcome = AppriseSender(allow_private=True)(receiver.url(), title="t", body="b")
    assert 'pip install "navi-jupyter[notify]"' in str(outcome.problem)
    assert not outcome.lasting, "it may be installed before the last try"


def test_a_service_that_refuses_is_a_problem_that_may_pass_and_shows_no_key(receiver: Receiver) -> None:
    receiver.failures = 1
    outcome = AppriseSender(allow_private=True)(receiver.url(), title="t", body="b")
    assert outcome.problem is not None
    assert "503" in outcome.problem
    assert "k3yk3yk3y" not in outcome.problem
    assert not outcome.lasting


def test_a_message_about_a_failure_shows_no_part_of_the_url() -> None:
    url = "jsons://user:p%40ssword@host.example/AKIA1234/x?key=s3cret"
    text = "POST https://user:p@ssword@host.example/AKIA1234 key=s3cret p%40ssword"
    shown = without_secrets(text, url)
    assert not any(secret in shown for secret in ("p@ssword", "p%40ssword", "AKIA1234", "s3cret"))


def test_the_key_is_in_no_argument_and_our_keys_are_not_in_the_environment(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, sys\nopen({str(seen)!r}, 'w').write(repr(sys.orig_argv) + repr(dict(os.environ)))\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ours")
    monkeypatch.setenv("NAVI_NOTIFY_PHONE_URL", "tgram://1:k3yother/2")
    assert AppriseSender(allow_private=True)(receiver.url(), title="t", body="b").problem is None
    content = seen.read_text()
    assert "navi_jupyter.notifications.sender_process" in content
    assert not any(secret in content for secret in ("k3y", "sk-ours"))


def test_a_host_of_the_user_is_not_looked_up_by_a_proxy(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{receiver.port}")
    AppriseSender()("jsons://10.0.0.1/hook", title="t", body="b")
    assert receiver.proxied == []
    AppriseSender()("discord://4174216298/JHMHI8qBe7bk2ZwO5U711o3dV_js", title="t", body="b")
    assert receiver.proxied == ["discord.com:443"], "a well-known service is reached through the proxy"


def test_every_service_that_is_allowed_is_one_that_apprise_knows_and_where_it_leads_is_known() -> None:
    import apprise

    # Their "host" is the domain of the sender's mail address.
    mail = {"mailgun", "smtp2go", "sparkpost"}
    known: set[str] = set()
    anywhere: set[str] = set()
    for plugin in apprise.Apprise().details()["schemas"]:
        schemes = {*(plugin["protocols"] or ()), *(plugin["secure_protocols"] or ())}
        known |= schemes
        if any("{host" in str(template) for template in plugin["details"]["templates"]):
            anywhere |= schemes
    assert SCHEMES - known - {"http", "https"} == set()
    assert SERVICES & anywhere == mail, "behind a proxy the guard cannot check where these lead"
    assert set() == SERVICES & OWN_HOST


PROGRAMS_AND_FILES = (
    *("syslog", "dbus", "gnome", "glib", "qt", "kde", "macosx", "windows", "growl", "exec", "file", "config"),
    *("mqtt", "xmpp", "rsyslog", "ftp", "memory", "apprise+file"),
)


@pytest.mark.parametrize("scheme", PROGRAMS_AND_FILES)
def test_services_that_start_programs_or_use_this_machine_are_not_allowed(scheme: str) -> None:
    assert "not among the services" in str(why_unusable(f"{scheme}://x/y", allow_private=False))


def test_a_url_is_of_bounded_length_and_has_no_control_characters() -> None:
    url = "json://example.org/"
    assert why_unusable(url.ljust(MAX_URL, "x"), allow_private=False) is None
    assert "longer than" in str(why_unusable(url.ljust(MAX_URL + 1, "x"), allow_private=True))
    for odd in ("\n", "\r\nX: y", "\x00", " ", "\u2028", "\u202e"):
        assert "one URL" in str(why_unusable(f"{url}a{odd}b", allow_private=True))


def test_a_service_that_is_not_allowed_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", os.devnull)  # would fail with another problem
    outcome = AppriseSender()("dbus://", title="t", body="b")
    assert "not among the services" in str(outcome.problem)
