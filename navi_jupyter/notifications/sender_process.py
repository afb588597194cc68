"""Sends one message through Apprise: a program of its own, ``python -P -m navi_jupyter.notifications.sender_process``.

A process of its own, because the 250 services of Apprise connect wherever they choose: an audit hook, below all
libraries, checks every connection of the process when it is made, so that neither a name that resolves to another
address by now, nor a redirect, nor a second request reaches the private network. The process can also be killed, and
the server does not import Apprise. It sends one message and ends: 0.4 s and 50 MB for each of a few messages an hour
cost less than a process that keeps the keys of all users in memory.

Input: one JSON object ``{"url", "title", "body", "allow_private"}`` on stdin: no secret is in an argument.
Output: one JSON object ``{"sent": bool, "refused": str | null, "problem": str | null}`` in a line of its own on stdout.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import logging.handlers
import os
import sys
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any, NoReturn

from ..input.address_policy import resolve, why_refused
from .apprise_sender import CERTIFICATES, SCHEMES

ALONE = 60.0  # Seconds after which it ends by itself, in case the server was killed. Longer than the server waits.
_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_STARTING = frozenset(
    {
        *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
        *("os.startfile", "os.startfile/2", "pty.spawn", "_winapi.CreateProcess"),
    }
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_SYSTEM = ("/etc/ssl", "/etc/pki", "/etc/mime.types", "/usr/share", "/usr/lib", "/usr/local/share", "/dev/urandom")
_MODULES = (*all_suffixes(), ".pem")


class SendingGuard:
    """The audit hook: refuses connections into private networks, files of the user's, and any start of a program."""

    def __init__(self, *, allow_private: bool, proxies: frozenset[str] = frozenset()) -> None:
        self.refused: str | None = None  # why the first refused action was refused
        # A file was refused. That alone does not fail the message: many libraries look for files they do not need.
        self.unread = False
        self._allow_private = allow_private
        # Addresses of the configured web proxies, which may be private: the administrator chose them.
        self._proxies = proxies
        certificates = [os.environ[name] for name in CERTIFICATES if os.environ.get(name)]
        self._installed = _real(*_SYSTEM, *certificates, sys.prefix, sys.base_prefix, str(Path(os.__file__).parent))
        self._importable = _real(*(path for path in sys.path if path))

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _STARTING:
            self._refuse("a notification starts no program")
        if self._allow_private:
            return
        if event in _CONNECTING:
            self._check_address(arguments[-1])
        elif event == "open":
            self._check_file(arguments[0], arguments[2])

    def _check_address(self, address: object) -> None:
        if address is None:
            return  # sendmsg on a connected socket
        if not isinstance(address, tuple) or not address:
            self._refuse("a socket of this machine")  # AF_UNIX and its kind
        host = str(address[0])
        if host not in self._proxies and (why := why_refused(host)) is not None:
            self._refuse(why)

    def _check_file(self, path: object, flags: object) -> None:
        """A URL may name templates, keys and attachments: their content would be sent to the service."""
        if not isinstance(path, (str, bytes)) or os.fsdecode(path) == os.devnull:
            return  # a file that is open already, or none
        if isinstance(flags, int) and flags & _WRITING:
            self._refuse("a notification writes no file")
        real = os.path.realpath(os.fsdecode(path))
        if not (_within(real, self._installed) or (real.endswith(_MODULES) and _within(real, self._importable))):
            self.unread = True
            raise PermissionError("refused: a notification reads no file of this machine")

    def _refuse(self, why: str) -> NoReturn:
        self.refused = self.refused or why
        raise PermissionError(f"refused: {why}")


def _real(*paths: str) -> tuple[str, ...]:
    return tuple({os.path.realpath(path) for path in paths})


def _within(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(root.rstrip(os.sep) + os.sep) for root in roots)


def _proxies() -> frozenset[str]:
    from urllib.parse import urlsplit  # late: where no proxy is set it is not needed

    found: set[str] = set()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        url = os.environ.get(name) or os.environ.get(name.upper())
        host = urlsplit(url if url and "://" in url else f"//{url or ''}").hostname
        if host:
            with contextlib.suppress(OSError):
                found.update(resolve(host))
    return frozenset(found)


def send(url: str, title: str, body: str, *, allow_private: bool) -> dict[str, Any]:
    """Send one message. The guard stays installed until the process ends."""
    guard = SendingGuard(allow_private=allow_private, proxies=_proxies())
    # Here, since it takes 200 ms and only this function needs it.
    import apprise
    import requests

    # No redirect, not even where the URL asks for one (`redirect=yes` of Apprise 2): behind a proxy the guard cannot
    # check where it leads.
    requests.sessions.SessionRedirectMixin.get_redirect_target = lambda *_: None  # type: ignore[method-assign]
    problems = logging.handlers.BufferingHandler(capacity=10_000)
    problems.setLevel(logging.WARNING)
    log = logging.getLogger("apprise")
    log.addHandler(problems)
    log.propagate = False
    asset = apprise.AppriseAsset(app_id="Navi", app_desc="Navi", app_url="", async_mode=False, secure_logging=True)
    # This loads all services, before the guard: some look for programs then.
    apprise.Apprise.instantiate("json://localhost", asset=asset)
    sys.addaudithook(guard)
    # Not Apprise.add(url): that accepts several URLs in one text, of which only the first would have been checked.
    service = apprise.Apprise.instantiate(url, asset=asset)
    if service is None:
        return {"sent": False, "refused": guard.refused or "Apprise cannot read this URL", "problem": None}
    if not allow_private and not _schemes_of(service) & SCHEMES:
        return {"sent": False, "refused": "its service is not among those that are allowed here", "problem": None}
    messenger = apprise.Apprise(asset=asset)
    messenger.add(service)
    sent = bool(messenger.notify(body=body, title=title, body_format="text"))
    if sent:
        return {"sent": True, "refused": None, "problem": None}
    problem = problems.buffer[0].getMessage() if problems.buffer else "the service did not take it"
    hint = " (a notification reads no file of this machine)" if guard.unread else ""
    return {"sent": False, "refused": guard.refused, "problem": problem + hint}


def _schemes_of(service: Any) -> set[str]:
    """All schemes of a service: a plain ``https://`` URL may belong to a service with a scheme of its own."""
    groups = [
        [names] if isinstance(names, str) else names or () for names in (service.protocol, service.secure_protocol)
    ]
    return {name for names in groups for name in names}


def main() -> None:
    """Read the request, send, print the result."""
    faulthandler.dump_traceback_later(ALONE, exit=True)
    request = json.load(sys.stdin)
    # Output of libraries must not be mistaken for the result.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            result = send(
                request["url"], request["title"], request["body"], allow_private=request.get("allow_private") is True
            )
        except Exception as error:  # noqa: BLE001 - the supervisor of 250 services; the text of an error may contain the URL
            result = {"sent": False, "refused": None, "problem": f"Apprise failed ({type(error).__name__})"}
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
