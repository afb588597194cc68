"""The settings of a server process: one frozen value, passed whole to the parts that are built from it.

A setting has one name, that of its trait of ``NaviExtension``, from the configuration file to the line that obeys it.
Not responsible for where a value comes from (``server.app``: traits, environment). Imported when Jupyter loads the
extension, so nothing heavy is imported here: pydantic's models only for the type checker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .model.runs import RunLimits


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where a run ends by itself. Budgets of zero are no limit."""

    max_iterations: int = 50  # requests to the model
    run_timeout: float = 600.0
    """Seconds from start to ``timed_out``; enforced by the session, here for the agent's own time-outs."""
    run_token_budget: int = 0  # input and output tokens of this run, its subagents included
    run_cost_budget: float = 0.0  # US dollars of this run, where the price is known
    session_token_budget: int = 0  # tokens of all the session's runs together
    daily_token_budget: int = 0  # tokens of all the user's runs of the last 24 hours
    daily_cost_budget: float = 0.0  # US dollars of the same, where the price is known

    def within(self, wanted: RunLimits) -> Limits:
        """These and those of a profile: the stricter of each."""
        timeout = None if wanted.timeout is None else wanted.timeout.total_seconds()
        return replace(
            self,
            max_iterations=int(_least(self.max_iterations, wanted.max_iterations)),
            run_timeout=_least(self.run_timeout, timeout),
            run_token_budget=int(_least(self.run_token_budget, wanted.max_tokens)),
            run_cost_budget=_least(self.run_cost_budget, wanted.max_cost),
        )


def _least(*limits: float | None) -> float:
    """The smallest of those that limit anything; zero when none does."""
    return min((limit for limit in limits if limit), default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLease:
    """A server's claim on its runs, in seconds. The same for all servers of a database; not for users to set."""

    duration: float = 30.0  # how long the claim lasts in the database without being renewed
    trust: float = 25.0
    """How long the server itself relies on it, counted from before the renewal: shorter than the claim by what clocks
    may differ (2 s), and by the time in which what runs for it is ended."""
    renewed_every: float = 5.0  # so that four renewals may fail in a row


SHARED_LEASE = ServerLease(duration=10.0, trust=7.0, renewed_every=2.0)
"""Of servers on several machines: the end of one that is cut off is known by its lease alone."""


def is_postgres(url: str) -> bool:
    """Whether a database is on a PostgreSQL server, and not in a file."""
    return url.startswith(("postgresql://", "postgres://"))


def engine_of(url: str) -> Literal["sqlite", "postgresql"]:
    """The engine of a database, for people and metrics."""
    return "postgresql" if is_postgres(url) else "sqlite"


def lease_of(url: str) -> ServerLease:
    """How long a server of this database may be silent."""
    return SHARED_LEASE if is_postgres(url) else ServerLease()


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings. The fields, and those of ``limits``, have the names and units of the traits."""

    database_url: str = ""  # ``sqlite:///<absolute path>`` or ``postgresql://…``
    database_single_process: bool = False
    database_signal: str = "notify"  # or ``poll``
    serves: str = "*"  # or the names of owners: this server acts for theirs alone
    blobs_url: str = ""  # ``s3://bucket/prefix``; empty: the content of attachments is in the database, or beside it
    default_profile: str = "assistant"
    default_model: str = "offline"
    replay_buffer_size: int = 1000
    recall_busy_delay: float = 60.0
    limits: Limits = Limits()
    notebook_timeout: float = 3600.0
    stop_deadline: float = 10.0
    approval_timeout: float = 3600.0
    max_concurrent_runs: int = 32
    max_sessions_per_user: int = 1000
    max_recalls_per_user: int = 1000
    min_recall_interval: float = 1.0
    max_message_bytes: int = 1_048_576
    max_attachment_bytes: int = 20_971_520
    max_attachments_bytes_per_user: int = 1_073_741_824
    max_facts_per_user: int = 1000
    keep_alive_for_recalls: bool = False
    save_transcripts: bool = True
    """Whether notebooks are saved with what Navi answered in their cells, and with the transcripts of their chats."""
    store_keys: bool = True  # whether users may store keys of providers on this server
    find_local_models: bool = True  # whether the usual ports of this machine are asked for servers of models
    title_by_model: bool = True  # whether the model of a session writes its title, after the first exchange
    compact_after: float = 86_400.0
    tool_ceiling: Mapping[str, str] = field(default_factory=dict)
    """Tools by name or pattern: the most that each may get, ``allow``, ``ask`` or ``deny``."""
    agent_idle_timeout: float = 600.0  # seconds without a turn after which the agent program of a session ends
    otel: bool = False  # whether spans are reported to OpenTelemetry, as the ``OTEL_…`` variables say
    otel_content: bool = False  # whether spans have what people, models and tools write
    package_tools: bool = True  # whether packages that are installed here bring tools and context
    agent_programs: bool = True  # whether agent programs (``acp:…``) may be run on this machine
    public_url: str = ""
    """Where users reach this server, where JupyterHub says so; empty: its own address."""
    hub_service_url: str = ""  # of the service of the JupyterHub that everything is sent to; empty: this server itself
    hub_wake_url: str = ""  # of the service that starts this server for its recalls (``navi hub --wake-only``)
    wake_before: float = 30.0  # seconds before a recall, beside what a start takes, that the service starts the server
    start_servers: str = "never"  # or ``recalls`` or ``always``: for which runs the service starts a user's server
    max_starting_servers: int = 10  # servers of users that are starting at once, over all replicas of the service
    server_start_timeout: float = 300.0  # seconds that a run waits until its user's server is connected
    server_idle_stop: float = 300.0  # seconds after the last use of a server that the service has started; 0: never
    mcp_server: bool = True  # whether programs of users reach this server by MCP
    mcp_config: str = ""  # a file with ``mcpServers`` besides those in Jupyter's configuration path; empty: none
    mcp_allow_private: bool = False
    notify_allow_private: bool = False
    kernel_user: str = "local"
    garbage_collection: str = "tuned"  # or ``untouched``: see ``server.process.garbage_collection``
    lease: ServerLease = ServerLease()
