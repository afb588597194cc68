"""Tokens of a JupyterHub that were revoked: what is kept of its answers, and connections that stay open.

The Hub's answer about a token is used for :data:`KNOWN_FOR` seconds, and open connections are asked about as often.
For the service and for users' servers that send everything there. Imports nothing of JupyterHub, which a server has
only where it is one's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from ..transfers.unfinished import Unfinished

KNOWN_FOR = 45  # seconds that the Hub's answer about a token is used
ASKED_WITHIN = 10.0  # seconds that the Hub has for an answer
AT_ONCE = 20  # questions to the Hub at the same time

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


def watch_tokens(serverapp: Any, unfinished: Unfinished, log: Log) -> asyncio.Task[None] | None:
    """Have a revoked token be good for nothing a minute later; to be cancelled. None on a server of no JupyterHub."""
    hub_auth = getattr(serverapp.identity_provider, "hub_auth", None)
    if hub_auth is None:
        return None
    hub_auth.cache_max_age = KNOWN_FOR
    hub_auth.cache.max_age = KNOWN_FOR  # it may be there already
    return asyncio.create_task(close_revoked_forever(hub_auth, unfinished, log), name="navi-hub-connections")


async def close_revoked_forever(hub_auth: Any, unfinished: Unfinished, log: Log) -> None:
    """Look at all open sockets and streams now and then; to be cancelled. ``hub_auth``: JupyterHub's ``HubAuth``."""
    while True:
        await asyncio.sleep(KNOWN_FOR)
        try:
            await close_revoked(hub_auth, unfinished.connections(), log)
        except Exception:
            log.exception("navi_revocation_look_failed")


async def close_revoked(hub_auth: Any, connections: Sequence[RequestHandler], log: Log) -> None:
    """Close those whose token the Hub does not know any more."""
    room = asyncio.Semaphore(AT_ONCE)
    by_token: dict[tuple[str, str], list[RequestHandler]] = {}
    for one in connections:  # a page has a socket for each open session
        by_token.setdefault((hub_auth.get_token(one) or "", hub_auth.get_session_id(one)), []).append(one)

    async def look(same: Sequence[RequestHandler]) -> None:
        async with room:
            # The answer about the first is kept: the others ask nothing of the Hub.
            closed = [one for one in same if not await still_known(hub_auth, one, log)]
        for connection in closed:
            log.info("navi_connection_closed reason=%r", "its token was revoked")
            if isinstance(connection, WebSocketHandler):
                connection.close(1001, "log in again")
            else:
                cast("Any", connection.request.connection).close()

    await asyncio.gather(*map(look, by_token.values()))


async def still_known(hub_auth: Any, connection: RequestHandler, log: Log) -> bool:
    """Whether the Hub knows a connection's token, as the same user with access. True while it does not answer.

    Also for a connection with the kernels' token, which is this server's own.
    """
    if connection.request.headers.get("Authorization", "").lower().startswith("navi "):
        return True
    token = hub_auth.get_token(connection)
    if not token:
        return False
    try:
        async with asyncio.timeout(ASKED_WITHIN):
            found = await hub_auth.user_for_token(token, session_id=hub_auth.get_session_id(connection), sync=False)
    except Exception as error:  # noqa: BLE001 - a proxy in front of the Hub may answer with anything
        log.warning("navi_hub_does_not_answer error=%r", error)
        return True
    name = getattr(connection.current_user, "username", None)
    return bool(found and hub_auth.check_scopes(hub_auth.access_scopes, found) and name in (None, found.get("name")))
