"""Who calls the service: users of the JupyterHub, by its OAuth and its tokens, known for a bounded time.

Not responsible for what a user may see (each route's owner), nor for connections that stay open (``server.hub_proxy``).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken
from jupyterhub.services.auth import HubOAuth
from jupyterhub.singleuser.extension import JupyterHubIdentityProvider
from tornado.web import HTTPError, RequestHandler
from traitlets import default

from ..server.hub_proxy.revocation import ASKED_WITHIN, KNOWN_FOR

if TYPE_CHECKING:
    from collections.abc import Mapping


def service_prefix(environment: Mapping[str, str]) -> str:
    """The path of the service; ends with a slash."""
    given = environment.get("JUPYTERHUB_SERVICE_PREFIX") or f"/services/{environment['JUPYTERHUB_SERVICE_NAME']}/"
    return given.rstrip("/") + "/"


class SharedOAuth(HubOAuth):  # type: ignore[misc]  # JupyterHub has no types
    """JupyterHub's OAuth, whose logins in progress any replica can end.

    JupyterHub keeps where a login came from, and the secret of its code exchange (RFC 7636), in the process. Here they
    are in the ``state`` that goes through the browser, encrypted with a key that all who have the API token can make.
    """

    @property
    def _box(self) -> Fernet:
        key = hmac.digest(self.api_token.encode(), b"navi hub: logins", hashlib.sha256)
        return Fernet(base64.urlsafe_b64encode(key))

    def generate_state(self, next_url: str | None = None, **extra_state: Any) -> str:
        """What goes through the browser."""
        return self._box.encrypt(json.dumps({"next_url": next_url, **extra_state}).encode()).decode()

    def _decode_state(self, state_id: str, /) -> dict[str, Any]:
        """Empty for one that is not ours, or too old."""
        try:
            found = json.loads(self._box.decrypt(state_id.encode(), ttl=self.oauth_state_max_age))
        except (InvalidToken, ValueError):
            return {}
        return dict(found)

    def clear_oauth_state(self, state_id: str) -> None:
        """Nothing is kept; the Hub takes a code once."""


class HubIdentityProvider(JupyterHubIdentityProvider):  # type: ignore[misc]  # JupyterHub has no types
    """JupyterHub's own, for users alone."""

    @default("hub_auth")
    def _default_hub_auth(self) -> SharedOAuth:
        # Where an administrator starts the process, these are not set; JupyterHub names them like this.
        client = os.environ.get("JUPYTERHUB_CLIENT_ID") or f"service-{os.environ['JUPYTERHUB_SERVICE_NAME']}"
        prefix = service_prefix(os.environ)
        return SharedOAuth(parent=self, cache_max_age=KNOWN_FOR, oauth_client_id=client, base_url=prefix)

    async def get_user(self, handler: RequestHandler) -> Any:
        """The user, or None.

        A service of the Hub is no user: its name could be that of one, who would be taken for the owner. It reads the
        figures of this process, as administrators do; they are about all users.
        """
        try:
            async with asyncio.timeout(ASKED_WITHIN):
                user = await super().get_user(handler)
        except TimeoutError:
            raise HTTPError(503, "The JupyterHub does not answer. Try again in a moment.") from None
        if user is None:
            return None
        is_user = user.hub_user.get("kind") == "user"
        if handler.request.path == self.hub_auth.base_url + "metrics":
            return user if not is_user or user.hub_user.get("admin") else None
        return user if is_user else None
