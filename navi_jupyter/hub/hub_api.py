"""The JupyterHub's REST API, as the service uses it with its own token: users' servers started, stopped, looked at.

Every request is bounded. Not responsible for when a server is started or stopped (``user_servers``). The token has the
scopes ``servers`` and ``read:users:name``, and none that would let it into a user's server.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient

from ..errors import HubRefused, ServerUnavailable
from ..model.user_servers import ServerKey

CONNECTED_WITHIN = 10.0  # seconds
ANSWER_WITHIN = 20.0  # seconds
BEGIN_WITHIN = 60.0
"""Seconds for the answer to a start or a stop: the Hub waits up to ten for it to end (``slow_spawn_timeout``,
``slow_stop_timeout``), before it answers that it goes on."""
REASON_WITHIN = 5.0  # seconds
LONGEST_ANSWER = 4_000_000  # bytes; of a user with many servers
AT_ONCE = 100  # requests


class HubUnreachable(ServerUnavailable):
    """The Hub did not answer, or what answered is not the Hub. What it was asked may have been done."""


class HubBusy(ServerUnavailable):
    """The Hub has no place for another server at the moment."""

    def __init__(self, message: str, *, retry_after: float | None) -> None:
        """``retry_after``: seconds that the Hub names; None: it names none."""
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """A server that runs, starts or stops, as the Hub has it."""

    ready: bool
    pending: str | None  # ``spawn``, ``stop``, or None
    started: str  # when, as the Hub writes it; distinguishes it from a later one
    last_activity: datetime | None


class HubApi:
    """See above. Opens nothing before the first request. Ended by :meth:`close`."""

    def __init__(self, url: str, token: str, *, ssl: Mapping[str, str] | None = None) -> None:
        """``url``: of the API, such as ``http://127.0.0.1:8081/hub/api``; ``ssl``: of internal SSL, by tornado's
        names (``client_key``, ``client_cert``, ``ca_certs``)."""
        self._url = url.rstrip("/")
        self._token = token
        self._ssl = dict(ssl or {})
        self._client: AsyncHTTPClient | None = None

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> HubApi:
        """As JupyterHub names it to a service."""
        names = {"client_key": "KEYFILE", "client_cert": "CERTFILE", "ca_certs": "CLIENT_CA"}
        ssl = {name: environment.get(f"JUPYTERHUB_SSL_{of_hub}", "") for name, of_hub in names.items()}
        return cls(
            environment["JUPYTERHUB_API_URL"],
            environment["JUPYTERHUB_API_TOKEN"],
            ssl={name: path for name, path in ssl.items() if path},
        )

    async def start(self, key: ServerKey) -> bool:
        """Have a server started; whether it is ready already.

        Raises HubBusy, HubRefused, HubUnreachable (it may have begun all the same), and ServerUnavailable with the
        Hub's own words where it does not start it, also because it runs already.
        """
        answer = await self._request("POST", _path(key), within=BEGIN_WITHIN)
        if answer.code in (201, 202):
            return answer.code == 201
        raise _error(answer, key, "start")

    async def stop(self, key: ServerKey) -> bool:
        """Have a server stopped; whether it has ended already. Raises as :meth:`start`."""
        answer = await self._request("DELETE", _path(key), within=BEGIN_WITHIN)
        if answer.code in (202, 204):
            return answer.code == 204
        raise _error(answer, key, "stop")

    async def server(self, key: ServerKey) -> RunningServer | None:
        """A server as it is now; None: it is off. Raises HubRefused, HubUnreachable."""
        answer = await self._request("GET", f"users/{quote(key.owner, safe='')}?include_stopped_servers=false")
        if answer.code in (403, 404):
            raise _error(answer, key, "see")
        if answer.code != 200:
            raise _unreachable(_words(answer))
        content = _content(answer)
        if content is None:
            raise _unreachable("its answer is no JSON")
        servers = content.get("servers")
        if not isinstance(servers, dict):
            raise HubRefused(f"The JupyterHub does not show Navi the servers of {key.owner}. {_SCOPES}")
        found = servers.get(key.server)
        if not isinstance(found, dict) or not (found.get("ready") or found.get("pending")):
            return None
        return RunningServer(
            ready=bool(found.get("ready")) and not found.get("pending"),
            pending=found.get("pending"),
            started=str(found.get("started")),
            last_activity=_instant(found.get("last_activity")),
        )

    async def reason(self, key: ServerKey) -> str | None:
        """Why the last start of a server has failed, in the words of the Hub; None: it does not say. Never raises."""
        try:
            answer = await self._request("GET", f"{_path(key)}/progress", within=REASON_WITHIN)
        except ServerUnavailable:
            return None
        for line in (answer.body or b"").decode(errors="replace").splitlines():
            event = _json_of(line.removeprefix("data:")) if line.startswith("data:") else None
            if event is not None and event.get("failed"):
                return str(event.get("message") or "") or None
        return None

    async def _request(self, method: str, path: str, *, within: float = ANSWER_WITHIN) -> HTTPResponse:
        """The answer, whatever its status. Raises HubUnreachable."""
        if self._client is None:
            self._client = SimpleAsyncHTTPClient(
                force_instance=True, max_clients=AT_ONCE, max_body_size=LONGEST_ANSWER, max_buffer_size=LONGEST_ANSWER
            )
        try:
            return await self._client.fetch(
                f"{self._url}/{path}",
                method=method,
                headers={"Authorization": f"token {self._token}", "Accept": "application/json"},
                body=b"" if method == "POST" else None,
                connect_timeout=CONNECTED_WITHIN,
                request_timeout=within,
                follow_redirects=False,
                raise_error=False,
                **self._ssl,
            )
        except HTTPTimeoutError as error:
            raise _unreachable("it did not answer in time") from error
        except HTTPStreamClosedError as error:
            raise _unreachable("it ended the connection without an answer") from error
        except (HTTPClientError, OSError, ValueError) as error:
            raise _unreachable(getattr(error, "strerror", None) or str(error)) from error

    def close(self) -> None:
        """Close what is open."""
        if self._client is not None:
            self._client.close()
            self._client = None


_SCOPES = "The role of the service needs the scopes `servers` and `read:users:name`."


def _path(key: ServerKey) -> str:
    of_user = f"users/{quote(key.owner, safe='')}"
    return f"{of_user}/servers/{quote(key.server, safe='')}" if key.server else f"{of_user}/server"


def _unreachable(why: str) -> HubUnreachable:
    return HubUnreachable(f"The JupyterHub cannot be asked ({why}).")


def _error(answer: HTTPResponse, key: ServerKey, action: str) -> ServerUnavailable | HubRefused:
    """What an answer that is none of those that were hoped for means."""
    words = _words(answer)
    if answer.code == 403:
        return HubRefused(f"The JupyterHub does not let Navi {action} the server of {key.owner} ({words}). {_SCOPES}")
    if answer.code == 404:
        return HubRefused(
            f"The JupyterHub knows no user {key.owner}, or does not let Navi {action} that user's servers. {_SCOPES}"
            if not key.server or action == "see"
            else f"The JupyterHub has no server {key.server} of {key.owner}."
        )
    if answer.code == 429:
        return HubBusy(f"The JupyterHub starts no more servers just now ({words})", retry_after=_seconds(answer))
    if answer.code in (502, 503, 504) or _content(answer) is None:
        return _unreachable(f"status {answer.code}")
    return ServerUnavailable(words)


def _words(answer: HTTPResponse) -> str:
    """The Hub's own, as far as it has any."""
    content = _content(answer) or {}
    return str(content.get("message") or f"status {answer.code}")


def _content(answer: HTTPResponse) -> dict[str, Any] | None:
    return _json_of((answer.body or b"").decode(errors="replace"))


def _json_of(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _seconds(answer: HTTPResponse) -> float | None:
    """What ``Retry-After`` says, in the one form that the Hub uses."""
    try:
        return max(0.0, float(answer.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _instant(text: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else None
