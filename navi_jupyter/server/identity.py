"""Whose request it is: the owner behind a Jupyter user, the kernels' own token, and the file that hands it to them;
and the address at which users reach the server.

The connection file is how a kernel of this server finds the server, whatever the authentication:
``<runtime dir>/navi-<pid>.json``, readable by its owner alone, holds ``{"url", "token", "pid", "sock"}``. Only its path
goes into the environment that kernels inherit (``NAVI_CONNECTION_FILE``): notebook outputs print environments.
Not responsible for authentication (Jupyter's identity provider) or for permission (Jupyter's authorizer).
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from jupyter_core.paths import jupyter_runtime_dir, secure_write
from jupyter_server.auth import User
from jupyter_server.auth.identity import IdentityProvider, LegacyIdentityProvider

from ..redaction import is_secret, mounted, remember

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp
    from tornado.httputil import HTTPHeaders

LOCAL_USER: Final = "local"
"""The owner on a server without user names: everyone who has its token or password counts as one person."""

_NAMING = (
    "get_user",
    "_get_user",
    "get_user_token",
    "get_user_cookie",
    "user_from_cookie",
    "generate_anonymous_user",
    "process_login_form",
)


def identifies_people(provider: IdentityProvider) -> bool:
    """Whether user names identify people on this server.

    Jupyter's own providers (token, password) make up a random "Anonymous …" per browser, so a name stands for a
    cookie, not for a person. A provider that replaces any step of theirs (JupyterHub's, a custom one) is trusted.
    """
    if isinstance(provider, LegacyIdentityProvider) and not _is_jupyters(provider.login_handler_class):
        return True
    # Each of these steps decides who the user is; a subclass that keeps all of them changes only looks.
    return not all(_is_jupyters(getattr(provider, name)) for name in _NAMING)


def _is_jupyters(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("jupyter_server.auth.")


def owner_of(user: User, provider: IdentityProvider) -> str:
    """Who owns what this user makes: the user's name where names mean something, else :data:`LOCAL_USER`."""
    return user.username if identifies_people(provider) else LOCAL_USER


class KernelToken:
    """The secret in the connection file, with which kernels of this server act as ``user``.

    Sent as ``Authorization: navi <48 hex digits>``. No XSRF cookie is needed: a foreign page cannot know it.
    """

    def __init__(self, user: str) -> None:
        self.value = secrets.token_hex(24)
        self.user = User(username=user, name=user, display_name=user)

    def matches(self, headers: HTTPHeaders) -> bool:
        """Whether a request carries it."""
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "navi" and hmac.compare_digest(value.strip().encode(), self.value.encode())


def remember_secrets(serverapp: ServerApp, kernel_token: str) -> None:
    """Have the secrets that let somebody into this server masked as a provider's keys are (``redaction``).

    Those of JupyterHub (``JPY_API_TOKEN`` …) are in the environment, and known by their names.
    """
    remember(kernel_token)
    provider = serverapp.identity_provider
    for name in filter(is_secret, provider.trait_names()):
        if isinstance(value := getattr(provider, name, None), str):
            remember(value)
    secret = serverapp.cookie_secret
    # Jupyter derives it from the file, which is text.
    for text in (secret.hex(), b64encode(secret).decode(), *mounted(serverapp.cookie_secret_file).splitlines()):
        remember(text)


VARIABLE = "NAVI_CONNECTION_FILE"


def connection_file() -> Path:
    """Where this process's file is."""
    return Path(jupyter_runtime_dir()) / f"navi-{os.getpid()}.json"


def announce_connection_file() -> None:
    """Point the kernels that will be started to the file. It may be written later: it needs the final port."""
    os.environ[VARIABLE] = str(connection_file())


def write_connection_file(serverapp: ServerApp, token: str) -> None:
    """Write the file for a server that has its port. Raises OSError."""
    path = connection_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"url": serverapp.connection_url, "token": token, "pid": os.getpid(), "sock": serverapp.sock}
    # Created with mode 0600 from the start: never readable by others, not even for a moment.
    with secure_write(str(path)) as file:
        file.write(json.dumps(content))


def remove_connection_file() -> None:
    """Delete the file and the variable that points to it."""
    path = connection_file()
    with suppress(OSError):  # a disk that is read-only by now: kernels see that the process is gone
        path.unlink(missing_ok=True)
    if os.environ.get(VARIABLE) == str(path):
        del os.environ[VARIABLE]


_WILDCARDS = ("", "0.0.0.0", "::", "*")  # noqa: S104  compared with, not bound to


def server_address(serverapp: ServerApp) -> str | None:
    """Where users reach this server, with its path and without its token; None when only it can know.

    First what the administrator configured (``custom_display_url``, JupyterHub's public addresses), then what it binds.
    """
    own = os.environ.get("JUPYTERHUB_PUBLIC_URL", "")
    hub = os.environ.get("JUPYTERHUB_PUBLIC_HUB_URL", "")
    base = str(serverapp.base_url)
    if serverapp.custom_display_url:
        return _with_path(str(serverapp.custom_display_url), base)
    if own:
        return _with_path(own, base)
    if hub:
        return _with_path(hub, base, replace=True)
    url = str(serverapp.connection_url)
    parts = urlsplit(url)
    reachable = parts.scheme in ("http", "https") and (parts.hostname or "") not in _WILDCARDS
    return url if reachable else None


def _with_path(url: str, base: str, *, replace: bool = False) -> str:
    """An address without credentials and query, its path replaced by ``base`` where it has none or ``replace``."""
    parts = urlsplit(url)
    path = base if replace or parts.path in ("", "/") else parts.path
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
