"""Starts the sending process and reads how it went. Blocks: to be called in a thread."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol
from urllib.parse import unquote

DEADLINE = 45.0
"""Seconds until a message is given up; Apprise's own limits are 4 s to connect and 4 s to read."""
MAX_URL = 4000
MISSING = 'Notifications need another package: pip install "navi-jupyter[notify]"'
STOPPED = "the server was stopped"
_KEPT = (
    *("PATH", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
OWN_HOST = frozenset(
    {
        *("json", "jsons", "xml", "xmls", "form", "forms", "apprise", "apprises", "gotify", "gotifys"),
        *("ntfy", "ntfys", "matrix", "matrixs", "mmost", "mmosts", "rocket", "rockets", "nctalk", "nctalks"),
        *("synology", "synologys", "mailto", "mailtos", "hassio", "hassios", "signal", "signals", "bark", "barks"),
        *("zulip", "http", "https", "mastodon", "mastodons", "notica", "workflow", "workflows", "bsky", "bluesky"),
    }
)
"""Schemes whose host is the user's choice, or that of whoever answers (``bsky``)."""
SERVICES = frozenset(
    {
        *("slack", "discord", "tgram", "gchat", "webex", "wxteams", "twist"),
        *("pover", "pbul", "prowl", "join", "ifttt", "simplepush", "pushy", "onesignal", "pagerduty"),
        *("opsgenie", "jira", "victorops", "mailgun", "sendgrid", "ses", "sns", "sparkpost", "smtp2go", "resend"),
        *("brevo", "o365", "azure", "twilio", "vonage", "nexmo", "signalgrid", "line", "whatsapp", "threema", "feishu"),
        *("lark", "dingtalk", "wecombot", "github", "zoom", "pushplus"),
    }
)
"""Well-known services, at hosts that Apprise knows."""
SCHEMES = OWN_HOST | SERVICES


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How sending went."""

    problem: str | None = None
    """Why it was not sent, without anything secret; None when it was."""
    lasting: bool = False
    """Trying again would be refused again."""
    stopped: bool = False
    """The server was stopped meanwhile; it may have been sent."""


class Send(Protocol):
    """Sends one message."""

    def __call__(self, url: str, *, title: str, body: str) -> Outcome:
        """Blocks. Never raises."""
        ...

    def close(self) -> None:
        """Break off what is being sent, and send nothing more. Does not block."""
        ...


class AppriseSender:
    """Implements :class:`Send`. Thread-safe."""

    def __init__(self, *, allow_private: bool = False, deadline: float = DEADLINE) -> None:
        self._allow_private = allow_private
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __call__(self, url: str, *, title: str, body: str) -> Outcome:
        """See the port."""
        if find_spec("apprise") is None:
            return Outcome(problem=MISSING)
        why = why_unusable(url, allow_private=self._allow_private)
        if why is not None:
            return Outcome(problem=why, lasting=True)
        wanted = {"url": url, "title": title, "body": body, "allow_private": self._allow_private}
        try:
            with self._started(url) as process:
                if process is None:
                    return Outcome(problem=STOPPED, stopped=True)
                said, _ = process.communicate(json.dumps(wanted).encode(), timeout=self._deadline)
        except subprocess.TimeoutExpired:
            return Outcome(problem=f"the service did not answer within {self._deadline:.0f} s")
        except OSError as error:
            return Outcome(problem=f"the sending process failed ({type(error).__name__})")
        return _outcome_of(said, url) or self._broken_off(process.returncode)

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """Those that are sending."""
        with self._lock:
            return tuple(self._running)

    def close(self) -> None:
        """See the port."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    @contextmanager
    def _started(self, url: str) -> Iterator[subprocess.Popen[bytes] | None]:
        """The process, which is gone at the end; None after :meth:`close`."""
        with self._lock:
            if self._closed:
                yield None
                return
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "navi_jupyter.notifications.sender_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # a traceback may have the URL
                env=self._environment(url),
            )
            self._running.add(process)
        try:
            with process:
                try:
                    yield process
                finally:
                    process.kill()
        finally:
            with self._lock:
                self._running.discard(process)

    def _broken_off(self, code: int) -> Outcome:
        """It ended without a word."""
        if self._closed:
            return Outcome(problem=STOPPED, stopped=True)
        return Outcome(problem=f"the sending process broke off (exit code {code})")

    def _environment(self, url: str) -> dict[str, str]:
        """Enough to work, and none of our keys. No home directory: it may have passwords for hosts (``.netrc``)."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self._allow_private or scheme_of(url) in SERVICES:
            # Through a proxy it is the proxy that finds the host, where our guard sees nothing: not for any host.
            names = [*_PROXIES, *(name.upper() for name in _PROXIES)]
            kept |= {name: os.environ[name] for name in names if name in os.environ}
        return kept | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "PYTHONIOENCODING": "utf-8",
            "NETRC": os.devnull,
        }


def _outcome_of(said: bytes, url: str) -> Outcome | None:
    """The answer among the lines that the process printed; None when there is none."""
    for line in reversed(said.splitlines()):
        try:
            answer: Any = json.loads(line)
            sent, refused, problem = answer["sent"], answer["refused"], answer["problem"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if sent is True:
            return Outcome()
        if refused:
            return Outcome(problem=f"refused: {str(refused)[:300]}", lasting=True)
        return Outcome(problem=without_secrets(str(problem), url)[:300])
    return None


def scheme_of(url: str) -> str:
    """What is before ``://``, in small letters; empty when there is none."""
    found = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://", url)
    return found[1].lower() if found else ""


def why_unusable(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a target's URL, without asking the network; None when nothing is."""
    scheme = scheme_of(url)
    if len(url) > MAX_URL:
        return f"url is longer than {MAX_URL} characters"
    if not scheme:
        return "url must be like service://…, see Apprise's list of services"
    if not url.strip().isprintable() or " " in url.strip():
        return "url must be one URL without spaces (%20 stands for one)"
    if scheme == "http" and not allow_private:
        return "http:// is not encrypted: use https://, or a service's own scheme"
    if scheme not in SCHEMES and not allow_private:
        return f"{scheme}:// is not among the services that are allowed here (the administrator's notify_allow_private)"
    return None


def without_secrets(text: str, url: str) -> str:
    """``text`` without any part of the URL that may be a key."""
    for part in sorted(set(re.split(r"[/:@?&=,]+", url)), key=len, reverse=True):
        for form in {part, unquote(part)}:
            if len(form) >= 4 and form.lower() != scheme_of(url):
                text = text.replace(form, "[hidden]")
    return text
