"""What an administrator or a user can set, as one frozen value that the parts are built from.

Not responsible for where a setting comes from (``app``: traits, environment). Imported at extension load: no pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """All settings. The fields have the names and units of the traits of ``NaviExtension``."""

    database_url: str
    """``sqlite:///<absolute path>``."""
    default_profile: str = "assistant"
    default_model: str = "offline"
    replay_buffer_size: int = 1000
    recall_busy_delay: float = 60.0
    max_iterations: int = 50
    run_timeout: float = 600.0
    stop_deadline: float = 10.0
    approval_timeout: float = 3600.0
    run_token_budget: int = 0
    run_cost_budget: float = 0.0
    session_token_budget: int = 0
    daily_token_budget: int = 0
    daily_cost_budget: float = 0.0
    max_concurrent_runs: int = 32
    max_sessions_per_user: int = 1000
    max_recalls_per_user: int = 1000
    min_recall_interval: float = 1.0
    max_message_bytes: int = 1_048_576
    max_attachment_bytes: int = 20_971_520
    max_attachments_bytes_per_user: int = 1_073_741_824
    max_facts_per_user: int = 1000
    keep_alive_for_recalls: bool = False
    compact_after: float = 86_400.0
    tool_ceiling: Mapping[str, str] = field(default_factory=dict)
    """Tools by name or pattern: the most that each may get, ``allow``, ``ask`` or ``deny``."""
    mcp_config: str = ""
    """A file with ``mcpServers`` besides those in Jupyter's configuration path; empty: none."""
    notify_allow_private: bool = False
    kernel_user: str = "local"
