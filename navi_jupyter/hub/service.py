"""The process of ``navi hub``: a Jupyter server without kernels, files and terminals, with Navi for all users of a Hub.

It takes from JupyterHub's environment where it listens and who it is (``JUPYTERHUB_SERVICE_URL``, ``…_PREFIX``,
``…_API_TOKEN``), as any service does. Several of these processes share one PostgreSQL and one API token; none keeps
anything that another one does not know, so a user's requests may reach any of them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.contents.manager import ContentsManager
from jupyterhub import __version__ as jupyterhub_version
from tornado.web import RequestHandler
from traitlets import default
from traitlets.config import Config

from ..server.app import NaviExtension
from ..server.hub_proxy.revocation import watch_tokens
from ..server.identity import remember_secrets
from ..server.page import PageHandler
from ..settings import Settings
from .hub_api import HubApi
from .identity import HubIdentityProvider, service_prefix

if TYPE_CHECKING:
    from ..ports.jupyter_access import ServerStarter
    from ..server.bench.links import ServerLinks
    from ..server.metrics import ProcessMeasures
    from ..store.database import Database

REQUIRED = ("JUPYTERHUB_API_TOKEN", "JUPYTERHUB_API_URL", "JUPYTERHUB_SERVICE_NAME", "JUPYTERHUB_SERVICE_URL")
"""Variables that JupyterHub sets for a service that it starts; an administrator who starts it sets them."""


class NoFiles(ContentsManager):
    """No files: nothing of the service's machine can be reached."""

    def get_extra_handlers(self) -> list[Any]:
        """None: those of Jupyter's own managers send files."""
        return []


class ReadyHandler(RequestHandler):
    """``ready``: whether this process takes requests, for probes, which have no token. It says nothing else.

    200 from the end of the start to the beginning of the stop, also while the database is away: the other processes
    would be without it as well, and what is open here stays open.
    """

    def initialize(self, extension: HubExtension) -> None:
        """``extension``: whose state it is."""
        self._extension = extension

    @allow_unauthenticated
    async def get(self) -> None:
        """200 or 503, and the state in a word."""
        readiness = self._extension.readiness
        self.set_status(200 if readiness == "ok" else 503)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "text/plain")
        await self.finish(readiness)


class HubServer(ServerApp):
    """A Jupyter server that has Navi's routes, a login by the Hub, and nothing else."""

    default_services = ("auth", "security")  # type: ignore[assignment]  # its type has the number of them
    extension_package = "navi_jupyter.hub"
    """The one that is loaded."""

    @default("cookie_secret")
    def _default_cookie_secret(self) -> bytes:
        """The same in all replicas: a login that one of them has begun may come back to another one."""
        return hmac.digest(os.environ["JUPYTERHUB_API_TOKEN"].encode(), b"navi hub: cookies", hashlib.sha256)

    def init_configurables(self) -> None:
        """With the Hub's identity and without files, whatever a configuration file says."""
        self.identity_provider_class = HubIdentityProvider
        self.contents_manager_class = NoFiles
        super().init_configurables()

    def init_server_extensions(self) -> None:
        """Navi alone: what else is enabled on this machine (terminals, …) is meant for servers of one user."""
        self.jpserver_extensions = {self.extension_package: True}
        super().init_server_extensions()

    def init_webapp(self) -> None:
        """With what JupyterHub expects of answers."""
        super().init_webapp()
        self.web_app.settings["xsrf_cookies"] = False  # the identity provider checks them, later than tornado would
        headers = self.web_app.settings.setdefault("headers", {})
        headers["X-JupyterHub-Version"] = jupyterhub_version
        headers.setdefault("Content-Security-Policy", "frame-ancestors 'none'")


class HubExtension(NaviExtension):
    """Navi without a Jupyter server of its user's."""

    serverapp_class = HubServer
    load_other_extensions = False

    @classmethod
    def get_extension_package(cls) -> str:
        return HubServer.extension_package

    @property
    def readiness(self) -> str:
        """``ok`` while this process takes requests, else the state that it is in."""
        if self.lifecycle is None:
            return "failed"
        return self.lifecycle.state if self.lifecycle.services is None else "ok"

    @classmethod
    def make_serverapp(cls, **kwargs: Any) -> ServerApp:
        """The server at the address that the Hub knows it by."""
        return super().make_serverapp(config=server_config(os.environ), **kwargs)

    def read_settings(self) -> Settings:
        """As for any server, without what would run programs for users, or ask other programs of this machine."""
        settings = super().read_settings()
        return replace(
            settings,
            agent_programs=False,
            package_tools=settings.package_tools and self._is_set("package_tools"),
            find_local_models=settings.find_local_models and self._is_set("find_local_models"),
            store_keys=False,
            public_url=os.environ.get("JUPYTERHUB_PUBLIC_URL", ""),
        )

    def initialize_settings(self) -> None:
        """Notebooks are in the server of the user who opens one."""
        super().initialize_settings()
        self.settings["navi_takes_links"] = True
        self.settings["navi_documents"] = f"{os.environ.get('JUPYTERHUB_BASE_URL', '/')}hub/user-redirect/lab/tree/"

    def initialize_handlers(self) -> None:
        """Navi's routes, the page at the address of the service itself, and the answer to probes."""
        super().initialize_handlers()
        self.handlers.insert(0, (r"/?", PageHandler))
        self.handlers.append((r"/ready", ReadyHandler, {"extension": self}))

    def _new_starter(self, database: Database, links: ServerLinks, process: ProcessMeasures) -> ServerStarter:
        """What starts and stops users' servers through the Hub."""
        from .user_servers import UserServers  # late: needs the store, which is imported with the runtime

        hub, settings = HubApi.of_environment(os.environ), self.read_settings()
        return UserServers(database, hub, links, settings=settings, spawns=process.spawns)

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """Called when the loop runs. No connection file is written: no kernel is this server's own."""
        if self.lifecycle is None:
            return
        remember_secrets(serverapp, self.lifecycle.kernel_token.value)
        self.lifecycle.start(None, self._new_starter if self.start_servers != "never" else None)
        self._looking = watch_tokens(serverapp, self.lifecycle.unfinished, self.log)


def server_config(environment: Mapping[str, str]) -> Config:
    """What the Hub says of the service's address, as settings of a Jupyter server."""
    url = urlsplit(environment["JUPYTERHUB_SERVICE_URL"])
    server = {
        "ip": url.hostname or "",
        "port": url.port or (443 if url.scheme == "https" else 80),
        "port_retries": 0,
        "base_url": service_prefix(environment),
        "open_browser": False,
        "allow_remote_access": True,
        "trust_xheaders": True,
        "quit_button": False,
        "answer_yes": True,
        "keyfile": environment.get("JUPYTERHUB_SSL_KEYFILE", ""),
        "certfile": environment.get("JUPYTERHUB_SSL_CERTFILE", ""),
        "client_ca": environment.get("JUPYTERHUB_SSL_CLIENT_CA", ""),
    }
    return Config({"ServerApp": server})


def missing_variables(environment: Mapping[str, str]) -> list[str]:
    """What of JupyterHub's environment is not set."""
    return [name for name in REQUIRED if not environment.get(name)]
