"""Starts the sending process for each message and reads its result. Blocks: call it in a thread."""

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
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, Protocol
from urllib.parse import unquote

from ..input.address_policy import MAX_URL

# Seconds until sending is given up. Apprise's own limits are 4 s to connect and 4 s to read, for each request.
DEADLINE = 45.0
MISSING = 'Notifications need another package: pip install "navi-jupyter[notify]"'
STOPPED = "the server was stopped"
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_KEPT = (
    *("PATH", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *CERTIFICATES,
)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
# Schemes whose host the user chooses, or the service's answer (`bsky`).
OWN_HOST = frozenset(
    {
        *("json", "jsons", "xml", "xmls", "form", "forms", "apprise", "apprises", "gotify", "gotifys"),
        *("ntfy", "ntfys", "matrix", "matrixs", "mmost", "mmosts", "rocket", "rockets", "nctalk", "nctalks"),
        *("synology", "synologys", "mailto", "mailtos", "hassio", "hassios", "signal", "signals", "bark", "barks"),
        *("zulip", "http", "https", "mastodon", "mastodons", "notica", "workflow", "workflows", "bsky", "bluesky"),
    }
)
# Well-known services, whose hosts are in Apprise.
SERVICES = frozenset(
    {
        *("slack", "discord", "tgram", "gchat", "webex", "wxteams", "twist"),
        *("pover", "pbul", "prowl", "join", "ifttt", "simplepush", "pushy", "onesignal", "pagerduty"),
        *("opsgenie", "jira", "victorops", "mailgun", "sendgrid", "ses", "sns", "sparkpost", "smtp2go", "resend"),
        *("brevo", "o365", "azure", "twilio", "vonage", "nexmo", "signalgrid", "line", "whatsapp", "threema", "feishu"),
        *("lark", "dingtalk", "wecombot", "github", "zoom", "pushplus"),
    }
)
SCHEMES = OWN_HOST | SERVICES


@dataclass(frozen=True, kw_only=True, slots=True)
class SendResult:
    """The result of sending one message."""

    problem: str | None = None  # why it was not sent, without secrets; None when it was sent
    lasting: bool = False  # another attempt would fail in the same way
    stopped: bool = False  # the server was stopped meanwhile; the message may have been sent
    wait: timedelta | None = None  # how long the service asks for before the next attempt


class MessageSender(Protocol):
    """Sends one message."""

    def __call__(self, url: str, *, title: str, body: str) -> SendResult:
        """Blocks. Never raises."""

    def close(self) -> None:
        """Abort what is being sent, and send nothing more. Does not block."""


class AppriseSender:
    """A Sender by a process of its own for each message. Thread-safe."""

    def __init__(self, *, allow_private: bool = False, deadline: float = DEADLINE) -> None:
        self._allow_private = allow_private
        self._deadline = deadline
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def __call__(self, url: str, *, title: str, body: str) -> SendResult:
        """Send one message. Never raises."""
        if find_spec("apprise") is None:
            return SendResult(problem=MISSING)
        if (why := why_unusable(url, allow_private=self._allow_private)) is not None:
            return SendResult(problem=why, lasting=True)
        request = {"url": url, "title": title, "body": body, "allow_private": self._allow_private}
        try:
            with self._started(url) as process:
                if process is None:
                    return SendResult(problem=STOPPED, stopped=True)
                output, _ = process.communicate(json.dumps(request).encode(), timeout=self._deadline)
        except subprocess.TimeoutExpired:
            return SendResult(problem=f"the service did not answer within {self._deadline:.0f} s")
        except OSError as error:
            return SendResult(problem=f"the sending process failed ({type(error).__name__})")
        if result := result_of(output, url):
            return result
        if self._closed:
            return SendResult(problem=STOPPED, stopped=True)
        return SendResult(problem=f"the sending process failed (exit code {process.returncode})")

    @property
    def processes(self) -> tuple[subprocess.Popen[bytes], ...]:
        """The processes that are sending now."""
        with self._lock:
            return tuple(self._running)

    def close(self) -> None:
        """Kill the sending processes, and start none any more."""
        with self._lock:
            self._closed = True
            for process in self._running:
                process.kill()

    @contextmanager
    def _started(self, url: str) -> Iterator[subprocess.Popen[bytes] | None]:
        """The process, which is killed on leaving; None after :meth:`close`."""
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

    def _environment(self, url: str) -> dict[str, str]:
        """Enough to work, and none of the server's keys. No HOME: its ``.netrc`` may have passwords for hosts."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        if self._allow_private or scheme_of(url) in SERVICES:
            # A proxy resolves the host itself, where the guard cannot check the address: only for well-known hosts.
            kept |= {name: value for name, value in os.environ.items() if name.lower() in _PROXIES}
        path = os.pathsep.join(path for path in sys.path if path)
        return kept | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "NETRC": os.devnull}


def result_of(output: bytes, url: str) -> SendResult | None:
    """The result among the lines that the process printed; None when there is none."""
    for line in reversed(output.splitlines()):
        try:
            answer: Any = json.loads(line)
            sent, refused, problem = answer["sent"], answer["refused"], answer["problem"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        if sent is True:
            return SendResult()
        if refused:
            return SendResult(problem=f"refused: {str(refused)[:300]}", lasting=True)
        return SendResult(problem=without_secrets(str(problem), url)[:300])
    return None


def scheme_of(url: str) -> str:
    """The part before ``://``, in lower case; empty when there is none."""
    found = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]*)://", url)
    return found[1].lower() if found else ""


def why_unusable(url: str, *, allow_private: bool) -> str | None:
    """What is wrong with a target's URL, without use of the network; None when nothing is."""
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
    """``text`` without those parts of the URL that may be a key."""
    for part in sorted(set(re.split(r"[/:@?&=,]+", url)), key=len, reverse=True):
        for form in {part, unquote(part)}:
            if len(form) >= 4 and form.lower() != scheme_of(url):
                text = text.replace(form, "[hidden]")
    return text
