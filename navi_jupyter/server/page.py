"""The plain page: ``<base_url>navi`` shows the chat where there is no JupyterLab. ``jupyter navi`` opens it.

Not responsible for anything on it but the list of sessions: that is ``<navi-chat>``. Imported at extension load.
"""

from __future__ import annotations

import json

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerJinjaMixin, ExtensionHandlerMixin
from tornado import web

from .. import __version__


class PageHandler(ExtensionHandlerJinjaMixin, ExtensionHandlerMixin, JupyterHandler):
    """Who is not logged in is sent to Jupyter's login page."""

    auth_resource = "navi"

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """The page. It carries no secret: same origin, so the login cookie is all it needs."""
        # In a <script>, "</" would end it whatever is around.
        config = json.dumps({"baseUrl": self.base_url, "token": "", "appName": "Navi"}).replace("</", "<\\/")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")  # the URL may have had the token
        await self.finish(self.render_template("navi.html", config=config, version=__version__))
