"""Whose request it is: the owner behind a Jupyter user, and the token that kernels of this server hold.

Not responsible for authentication (Jupyter's identity provider) or for permission (Jupyter's authorizer).
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

from jupyter_server.auth import User
from jupyter_server.auth.identity import IdentityProvider, LegacyIdentityProvider

if TYPE_CHECKING:
    from tornado.httputil import HTTPHeaders

LOCAL_USER: Final = "local"
"""The owner on a server that knows no names: whoever holds its token or password is the same person."""

_NAMING = (
    "get_user",
    "_get_user",
    "get_user_token",
    "get_user_cookie",
    "user_from_cookie",
    "generate_anonymous_user",
    "process_login_form",
)


def tells_people_apart(provider: IdentityProvider) -> bool:
    """Whether user names mean something on this server.

    Jupyter's own providers (token, password) make up a random "Anonymous …" per browser, so a name says which *cookie*
    is talking, not who. A provider that replaces any step of theirs (JupyterHub's, a custom one) is taken at its word.
    """
    if isinstance(provider, LegacyIdentityProvider) and not _is_jupyters(provider.login_handler_class):
        return True
    return not all(_is_jupyters(getattr(provider, name)) for name in _NAMING)


def _is_jupyters(thing: object) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("jupyter_server.auth.")


def owner_of(user: User, provider: IdentityProvider) -> str:
    """Who owns what this user makes: the user's name where names mean something, else :data:`LOCAL_USER`."""
    return user.username if tells_people_apart(provider) else LOCAL_USER


class KernelToken:
    """The secret in the connection file, with which kernels of this server speak as ``user``.

    Sent as ``Authorization: navi <48 hex digits>``. It needs no XSRF cookie: a foreign page can not know it.
    """

    def __init__(self, user: str) -> None:
        self.value = secrets.token_hex(24)
        self.user = User(username=user, name=user, display_name=user)

    def matches(self, headers: HTTPHeaders) -> bool:
        """Whether a request carries it."""
        scheme, _, value = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "navi" and hmac.compare_digest(value.strip().encode(), self.value.encode())
