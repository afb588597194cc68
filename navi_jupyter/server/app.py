"""The Jupyter server extension: its settings, its routes, and when it starts and stops.

Imported at every server start, so nothing heavy is imported here: ``lifecycle`` gets the rest, off the event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.extension.application import ExtensionApp, ExtensionAppJinjaMixin

from ..jupyter.kernels.jupyter_services import JupyterServices
from ..settings import Limits, Settings, lease_of
from .bench.socket import BenchHandler
from .handler import ApiHandler
from .hub_proxy.handlers import FORWARDING
from .hub_proxy.user_server import HubUserServer
from .hub_proxy.wake_reports import WakeReports
from .identity import (
    LOCAL_USER,
    announce_connection_file,
    identifies_people,
    remember_secrets,
    remove_connection_file,
    write_connection_file,
)
from .lifecycle import Lifecycle
from .mcp_server.handler import McpHandler
from .page import PACKAGE, PageHandler, ScriptHandler
from .process.environment_traits import Ceiling as _Ceiling
from .process.environment_traits import Choice as _Choice
from .process.environment_traits import Count as _Count
from .process.environment_traits import Flag as _Flag
from .process.environment_traits import Seconds as _Seconds
from .process.environment_traits import Text as _Text
from .websocket import LoanHandler, NotebooksHandler, StreamHandler

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

CONNECTION_FILE_EVERY = 10.0  # seconds between two attempts to write the connection file, after one failed


HANDLERS: Sequence[tuple[str, type]] = (
    (r"/navi/mcp/?", McpHandler),
    (r"/navi/api/sessions/([^/]+)/ws", StreamHandler),
    (r"/navi/api/notebooks/ws", NotebooksHandler),
    (r"/navi/api/bench", BenchHandler),
    (r"/navi/api/kernels/([^/]+)/loan", LoanHandler),
    (r"/navi/api(?:/(.*))?", ApiHandler),
)


class NaviExtension(ExtensionAppJinjaMixin, ExtensionApp):
    """An agent that lives in your Jupyter server."""

    name = "navi"
    description = "An agent that lives in your Jupyter server, and comes back when you asked it to."
    extension_url = "/navi"
    load_other_extensions = False  # ``jupyter navi`` is a server with this alone
    static_paths = [str(PACKAGE / "static")]  # noqa: RUF012 - traits of the base class, set as it wants them
    template_paths = [str(Path(__file__).parent / "templates")]  # noqa: RUF012

    database_url = _Text(
        "",
        help="Where everything is kept: `sqlite:///<path>`, or `postgresql://<user>@<host>/<name>` for several servers"
        " on several machines. Default: `navi/navi.db` in Jupyter's data directory.",
    )
    database_single_process = _Flag(
        False,
        help="Whether this server alone ever uses the database, which can then be on a network file system (NFS, …).",
    )
    database_signal = _Choice(
        ("notify", "poll"),
        "notify",
        help="How servers on one PostgreSQL database learn of each other's changes: `notify`, or `poll` behind a pooler"
        " that shares connections (PgBouncer).",
    )
    serves = _Text(
        "*",
        help="Whose sessions and recalls this server works for: `*`, everybody's in the database, or the names of "
        "owners with commas between them. It fires no recall and starts no run of anybody else.",
    )
    blobs_url = _Text(
        "",
        help="Where the content of attachments goes: `s3://<bucket>/<prefix>`, with keys, region and endpoint in the"
        " usual `AWS_…` variables. Needs the extra `s3`. Default: with the database.",
    )
    default_profile = _Text("assistant", help="The profile of a session that names none.")
    default_model = _Text(
        "offline",
        help="The model of a session that names none: `offline`, or as pydantic-ai names it, e.g. `anthropic:…`.",
    )
    replay_buffer_size = _Count(
        1000, min=1, help="Events per session kept in memory for followers; older ones come from the database."
    )
    recall_busy_delay = _Seconds(60.0, min=0.001, help="Seconds that a recall is deferred when its session is busy.")
    max_iterations = _Count(50, min=1, help="Requests to the model in one run.")
    run_timeout = _Seconds(600.0, min=0.001, help="Seconds after which a run ends as timed out.")
    notebook_timeout = _Seconds(
        3600.0,
        min=0.001,
        help="Seconds that a recall's notebook may run, where the recall has no `timeout` of its own.",
    )
    stop_deadline = _Seconds(10.0, min=0.0, help="Seconds from a stop that was asked for to the forced end of the run.")
    approval_timeout = _Seconds(
        3600.0,
        min=0.001,
        help="Seconds until an unanswered question to the user expires; that of a recall's run after a minute at most.",
    )
    run_token_budget = _Count(0, min=0, help="Tokens that one run may use up, in and out. 0: no limit.")
    run_cost_budget = _Seconds(
        0.0, min=0.0, help="US dollars that one run may cost, where the price is known. 0: no limit."
    )
    session_token_budget = _Count(0, min=0, help="Tokens that all runs of a session may use up. 0: no limit.")
    daily_token_budget = _Count(0, min=0, help="Tokens that all runs of a user may use up in 24 hours. 0: no limit.")
    daily_cost_budget = _Seconds(
        0.0, min=0.0, help="US dollars that all runs of a user may cost in 24 hours, as far as is known. 0: no limit."
    )
    max_concurrent_runs = _Count(32, min=1, help="Runs in progress at once in this server; others wait.")
    max_sessions_per_user = _Count(1000, min=1, help="Sessions that one user can have.")
    max_recalls_per_user = _Count(1000, min=1, help="Recalls that one user can have that are not over.")
    min_recall_interval = _Seconds(
        1.0, min=1.0, help="The least number of seconds between two firings of a recurring recall."
    )
    max_message_bytes = _Count(
        1_048_576, min=1024, help="The largest body of a request, and the largest frame of a socket, in bytes."
    )
    max_attachment_bytes = _Count(
        20_971_520, min=1024, help="The largest image or file that goes with a prompt, in bytes."
    )
    max_attachments_bytes_per_user = _Count(
        1_073_741_824, min=1024, help="Bytes that all attachments of one user can take."
    )
    max_facts_per_user = _Count(1000, min=1, help="Facts that the agent remembers about one user.")
    keep_alive_for_recalls = _Flag(
        False, help="Whether waiting recalls count as activity, so that an idle server is not shut down."
    )
    save_transcripts = _Flag(
        True,
        help="Whether notebooks are saved with Navi's answers in their cells and with the transcripts of their chats. "
        "Off: a saved notebook has a note in their place; the conversation is in Navi alone.",
    )
    store_keys = _Flag(
        True,
        help="Whether the user may store keys and addresses of model providers on this server, in the settings of the "
        "chat (`navi/providers.json` in Jupyter's data directory). Off where several people log in to one server.",
    )
    find_local_models = _Flag(
        True,
        help="Whether the chat looks for servers of models at their usual ports of this machine (Ollama, vLLM, LM "
        "Studio, llama.cpp, Jan) when it offers models. On JupyterHub only where this is set.",
    )
    title_by_model = _Flag(
        True,
        help="Whether the model of a session writes its title after the first exchange, in one short request. Off: the "
        "title is the first words of the first prompt.",
    )
    compact_after = _Seconds(
        86_400.0, min=0.0, help="Seconds after the end of a run until the pieces of its messages are joined in the log."
    )
    tool_ceiling = _Ceiling(
        help="The most that a tool may get, whatever profiles and users allow: `allow`, `ask` or `deny` by its name or "
        "a pattern (`run_*`, `effect:write`, `source:mcp:*`); the strictest that matches counts."
    )
    agent_idle_timeout = _Seconds(
        600.0,
        min=1.0,
        help="Seconds without a prompt after which the agent program of a session (`acp:…`) ends; the next prompt "
        "starts it again.",
    )
    mcp_server = _Flag(
        True,
        help="Whether programs of a user's reach this server by MCP, at `navi/mcp` with Jupyter's authentication. Off: "
        "only agents that Navi itself has started get the tools of their run there.",
    )
    package_tools = _Flag(
        True, help="Whether packages that are installed beside this one bring tools and context to the agent."
    )
    agent_programs = _Flag(
        True, help="Whether agent programs (models `acp:…`) may be run on the machine of this server."
    )
    hub_service_url = _Text(
        "",
        help="The address of `navi hub`, where a JupyterHub has it as a service: the user's server then keeps nothing "
        "itself, and sends everything there for its user.",
    )
    hub_wake_url = _Text(
        "",
        help="The address of `navi hub --wake-only`, where a JupyterHub has it as a service: the user's server keeps"
        " its own Navi, and is started shortly before a recall is due while it is off. Not together with"
        " `hub_service_url`.",
    )
    wake_before = _Seconds(
        30.0,
        min=0.0,
        max=300.0,
        help="Seconds before a recall is due that `navi hub --wake-only` starts its server, beside what the last start"
        " took; both together at most 300.",
    )
    start_servers = _Choice(
        ("never", "recalls", "always"),
        "never",
        help="For which runs `navi hub` starts the user's server where it is off: `never`, those of `recalls`, or "
        "`always`. Its role needs the scope `servers`.",
    )
    max_starting_servers = _Count(
        10, min=1, help="Servers of users that `navi hub` starts at once, all its processes together; others wait."
    )
    server_start_timeout = _Seconds(
        300.0, min=1.0, help="Seconds that a run of `navi hub` waits for its user's server, also while others start."
    )
    server_idle_stop = _Seconds(
        300.0,
        min=0.0,
        help="Seconds after the last use of a server that `navi hub` has started until it is stopped, unless its user "
        "came. 0: never.",
    )
    mcp_config = _Text(
        "", help="A JSON file with `mcpServers` that goes before `navi/mcp.json` in Jupyter's configuration path."
    )
    mcp_allow_private = _Flag(
        False,
        help="Whether the MCP servers that users configure for themselves may be reached by http:// and at private and "
        "local addresses. Those of files always may.",
    )
    notify_allow_private = _Flag(
        False,
        help="Whether notifications may go to private and local addresses, and to every service that Apprise knows.",
    )
    garbage_collection = _Choice(
        ("tuned", "untouched"),
        "tuned",
        help="Python's garbage collection in the process of the server: `tuned` leaves out what was there after the "
        "imports and collects the rest when the server is idle, for short pauses; `untouched` changes nothing. Where "
        "another extension has set it, nothing is changed either.",
    )
    otel = _Flag(
        False,
        help="Whether runs, requests to models, tool calls and firings are reported to OpenTelemetry as spans, where "
        "the standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, …) say. Needs the extra `otel`.",
    )
    otel_content = _Flag(
        False,
        help="Whether spans have what people, models and tools write. Off: names, ids, times, counts and codes alone.",
    )
    kernel_user = _Text(
        "",
        help="The one user that all kernels of this server act as, also those that others start. Default: the user of "
        "JupyterHub, else `local`. Where an identity provider distinguishes people, kernels have no access unless it "
        "is set.",
    )

    lifecycle: Lifecycle | None = None  # set once the extension is loaded
    _hub: HubUserServer | None = None  # where everything is sent to a service
    _wakes: WakeReports | None = None  # to the service that starts this server for its recalls
    _looking: asyncio.Task[None] | None = None  # for connections whose token was revoked
    _connecting: asyncio.Task[None] | None = None  # while the connection file cannot be written

    def read_settings(self) -> Settings:
        """The traits as the value that everything is built from."""

        def values(kind: type) -> dict[str, Any]:
            return {field.name: getattr(self, field.name) for field in fields(kind) if self.has_trait(field.name)}

        url = self.database_url or f"sqlite:///{quote(_default_database())}"
        return replace(
            Settings(**values(Settings), limits=Limits(**values(Limits))),
            database_url=url,
            lease=lease_of(url),
            kernel_user=self.kernel_user or os.environ.get("JUPYTERHUB_USER") or LOCAL_USER,
            store_keys=self.store_keys and not self._is_shared,
            find_local_models=self.find_local_models and self._looks_around,
        )

    @property
    def _looks_around(self) -> bool:
        """Whether other programs of this machine may be asked: another user of it could listen at such a port."""
        return self._is_set("find_local_models") or "JUPYTERHUB_USER" not in os.environ

    def _is_set(self, name: str) -> bool:
        """Whether a setting is given, and not left to its default."""
        return name in self.config.get("NaviExtension", {}) or f"NAVI_{name.upper()}" in os.environ

    @property
    def _is_shared(self) -> bool:
        """Whether several people log in: the key or the address that one of them stores would serve all of them."""
        # Where only the settings are read, Jupyter has made none.
        provider = getattr(self.serverapp, "identity_provider", None)
        on_hub = "JUPYTERHUB_USER" in os.environ  # there each user has a server
        return provider is not None and not on_hub and identifies_people(provider)

    def initialize_settings(self) -> None:
        """Create the lifecycle; handlers find it in the web application's settings."""
        if self.hub_service_url and self.hub_wake_url:
            raise ValueError(
                "Set hub_service_url or hub_wake_url, not both: with the first one the service has the recalls, with"
                " the second one this server."
            )
        if self.hub_wake_url:
            self._wakes = WakeReports(self.hub_wake_url, self.log)
        if self.hub_service_url:
            self._hub = self.settings["navi_hub"] = HubUserServer(self.hub_service_url, self.log)
        self.lifecycle = Lifecycle(self.read_settings(), self.log)
        self.settings["navi_lifecycle"] = self.lifecycle

    def initialize_handlers(self) -> None:
        """The page and its scripts, the sockets, and everything else under ``navi/api/``."""
        handlers: Sequence[tuple[str, type] | tuple[str, type, dict[str, Any]]] = [
            (r"/navi/?", PageHandler),
            # Before the route that Jupyter adds for ``static_paths``, which sends everything as it is.
            (rf"/static/{self.name}/(.*)", ScriptHandler, {"path": self.static_paths}),
            *(FORWARDING if self.hub_service_url else HANDLERS),
        ]
        self.handlers.extend(handlers)
        announce_connection_file()

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """Called when the loop runs and the port is known."""
        if self.lifecycle is None:
            return
        remember_secrets(serverapp, self.lifecycle.kernel_token.value)
        if not self._write_connection_file(serverapp, self.lifecycle.kernel_token.value):
            self._connecting = asyncio.create_task(self._retry_connection_file(serverapp), name="navi-connection-file")
        if self._hub is not None:
            self._hub.start(serverapp, self.lifecycle)
        else:
            # Not awaited: the server must answer, and kernels must work, while the database is opened.
            self.lifecycle.start(JupyterServices.of(serverapp))
            if self._wakes is not None:
                self._wakes.start(serverapp, self.lifecycle)

    def _write_connection_file(self, serverapp: ServerApp, token: str) -> bool:
        try:
            write_connection_file(serverapp, token)
        except OSError as error:
            # Jupyter and the chat work without: a full disk must not keep the server from starting.
            self.log.error(
                "navi_connection_file_not_written message=%r",
                f"Kernels cannot find this server: {error}. It is tried again.",
            )
            return False
        return True

    async def _retry_connection_file(self, serverapp: ServerApp) -> None:
        """Write it as soon as the disk takes it."""
        while self.lifecycle is not None:
            await asyncio.sleep(CONNECTION_FILE_EVERY)
            if self._write_connection_file(serverapp, self.lifecycle.kernel_token.value):
                return

    async def stop_extension(self) -> None:
        """Called when the server shuts down, also when it never started."""
        for task in filter(None, (self._connecting, self._looking)):
            task.cancel()
        remove_connection_file()
        if self._wakes is not None:  # while it is known what comes next
            await self._wakes.stop()
        if self.lifecycle is not None:
            await self.lifecycle.stop()
        if self._hub is not None:
            await self._hub.stop()

    def current_activity(self) -> Mapping[str, int] | None:
        """What keeps an idle server from being shut down: runs in progress; waiting recalls if so configured."""
        services = None if self.lifecycle is None else self.lifecycle.services
        return None if services is None else services.activity() or None


def _default_database() -> str:
    return Path(jupyter_data_dir(), "navi", "navi.db").absolute().as_posix()


def main() -> None:
    """``jupyter navi``."""
    NaviExtension.launch_instance()  # type: ignore[no-untyped-call]
