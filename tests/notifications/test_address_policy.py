"""The table of the guard: which addresses, in whichever form, are of the internet."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import certifi
import pytest

from navi_jupyter.input.address_policy import resolve, why_refused
from navi_jupyter.notifications.sender_process import SendingGuard

REFUSED = {
    "127.0.0.1": "this machine",
    "127.8.8.8": "this machine",
    "0.0.0.0": "this machine",
    "::1": "this machine",
    "::": "this machine",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "100.64.0.1": "not of the internet",
    "169.254.169.254": "a metadata service",
    "fd00:ec2::254": "a metadata service",
    "168.63.129.16": "a metadata service",
    "169.254.1.1": "link-local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "fec0::1": "private",
    "fc00::1": "private",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "240.0.0.1": "private",
    "255.255.255.255": "private",
    "192.0.2.1": "private",
    "2001:db8::1": "private",
    "::ffff:127.0.0.1": "",
    "::ffff:169.254.169.254": "",
    "::127.0.0.1": "this machine",
    "64:ff9b::7f00:1": "this machine",
    "64:ff9b::a00:1": "private",
    "64:ff9b:1::a9fe:a9fe": "",
    "2002:7f00:1::1": "",
    "2002:c0a8:101::1": "",
    "2001:0:7f00:1::1": "",
    "localhost": "not an IP address",
    "": "not an IP address",
}
ALLOWED = ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101", "172.32.0.1", "192.167.255.255")
SPELLINGS = (
    *("127.0.0.1", "127.1", "127.0.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7f000001", "017700000001"),
    *("localhost", "LOCALHOST", "[::1]", "::ffff:127.0.0.1", "[::ffff:7f00:1]", "0", "１２７.０.０.１", "127。0。0。1"),
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
)


@pytest.mark.parametrize(("address", "why"), REFUSED.items())
def test_an_address_that_is_not_of_the_internet_is_refused(address: str, why: str) -> None:
    said = why_refused(address)
    assert said is not None
    assert why in said


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_of_the_internet_is_not_refused(address: str) -> None:
    assert why_refused(address) is None


@pytest.mark.parametrize("host", SPELLINGS)
def test_this_machine_is_found_behind_every_spelling_of_it(host: str) -> None:
    addresses = resolve(host)
    assert addresses
    assert all(why_refused(address) for address in addresses)


@pytest.mark.parametrize("host", ["a" * 300 + ".example", "a..b", "\ud800"])
def test_what_is_no_host_has_no_address(host: str) -> None:
    with pytest.raises(OSError, match=r".*"):
        resolve(host)


@pytest.mark.parametrize(
    ("event", "address"),
    [
        ("socket.connect", ("10.0.0.1", 443)),
        ("socket.connect", ("fe80::1", 443, 0, 2)),
        ("socket.connect", ("example.org", 443)),
        ("socket.connect", "/run/some.sock"),
        ("socket.sendto", ("239.255.255.250", 1900)),
        ("socket.sendmsg", ("127.0.0.1", 53)),
    ],
)
def test_every_way_to_reach_an_address_is_looked_at(event: str, address: object) -> None:
    guard = SendingGuard(allow_private=False, proxies=frozenset())
    with pytest.raises(PermissionError, match="refused"):
        guard(event, (None, address))
    assert guard.refused


def test_the_internet_a_proxy_and_where_allowed_everything_can_be_reached_but_no_program_started() -> None:
    SendingGuard(allow_private=False, proxies=frozenset())("socket.connect", (None, ("1.1.1.1", 443)))
    SendingGuard(allow_private=False, proxies=frozenset({"10.0.0.9"}))("socket.connect", (None, ("10.0.0.9", 3128)))
    allowing = SendingGuard(allow_private=True, proxies=frozenset())
    allowing("socket.connect", (None, ("10.0.0.1", 443)))
    for event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.exec", "os.startfile"):
        with pytest.raises(PermissionError, match="no program"):
            allowing(event, ("sh", [], None, None))


def test_files_of_the_installation_are_read_and_no_others_and_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    guard = SendingGuard(allow_private=False)
    for path in (os.__file__, certifi.where(), os.devnull, str(tmp_path / "module.py"), 3):
        guard("open", (path, "r", os.O_RDONLY))
    for path in (
        "/etc/passwd",
        str(tmp_path / "key.txt"),
        str(Path.home() / ".netrc"),
        "/proc/self/environ",
        b"/etc/shadow",
    ):
        with pytest.raises(PermissionError, match="reads no file"):
            guard("open", (path, "r", os.O_RDONLY))
    assert guard.refused is None, "many look for files that they do not need"
    (tmp_path / "linked.py").symlink_to("/etc/passwd")
    with pytest.raises(PermissionError, match="reads no file"):
        guard("open", (str(tmp_path / "linked.py"), "r", os.O_RDONLY))
    for path in (os.__file__, str(tmp_path / "module.py"), "/tmp/x"):
        with pytest.raises(PermissionError, match="writes no file"):
            guard("open", (path, "w", os.O_WRONLY | os.O_CREAT))
    SendingGuard(allow_private=True)("open", ("/etc/passwd", "r", os.O_RDONLY))
