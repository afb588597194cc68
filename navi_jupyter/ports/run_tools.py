"""The tools of a run for programs outside this process, and the secrets by which an agent program reaches its own.

A *run secret* belongs to the agent program of one session: it is random, in memory, and forgotten when the program
ends. A call with it works in the run that is active for that program at that moment. Not responsible for how a program
sends its calls (``server.mcp_server``) or for what a call does (``agent.acp.run_tools``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from ..output_text import OutputImage


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedTool:
    """A tool as a program sees it."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON schema of the arguments: an object
    reads_only: bool = False  # it changes nothing outside Navi
    open_world: bool = True  # its results may hold text of others: files, outputs, pages


@dataclass(frozen=True, kw_only=True, slots=True)
class CallResult:
    """What a call has answered: bounded, and in the log of its run."""

    text: str
    images: Sequence[OutputImage] = ()
    failed: bool = False  # the call did not do what was asked; the text has the reason


Progress = Callable[[str], None]
"""Called with what a call does at the moment, in words. Must not raise or block."""


class RunTools(Protocol):
    """The tools of the run that is active for one program."""

    async def offered(self) -> Sequence[OfferedTool]:
        """Those that can be called now. Also between two runs: then those that its next run would have, as far as is
        known."""

    async def call(self, name: str, arguments: Mapping[str, Any], *, progress: Progress) -> CallResult:
        """Make one call: judged, asked about, executed, bounded and logged as a call of Navi's own agent is.

        Whatever a tool does becomes a result, a refusal of the user's too. Raises ToolUnavailable when no run of the
        program is active. Cancelling it ends the work of the tool; so does the stop of the run, with a failed result.
        """


class RunToolsRegistry:
    """Which secret leads to which tools. One per server process; used on its event loop alone."""

    def __init__(self) -> None:
        # By their digests: a look-up then takes no longer for a secret that is nearly right.
        self._tools: dict[bytes, RunTools] = {}

    def register(self, tools: RunTools) -> str:
        """The secret of these tools: sent as ``Authorization: Bearer <secret>``."""
        secret = f"navi-run-{secrets.token_hex(24)}"
        self._tools[_digest(secret)] = tools
        return secret

    def forget(self, secret: str) -> None:
        """The secret leads nowhere from now on. Calls that are being made go on."""
        self._tools.pop(_digest(secret), None)

    def find(self, secret: str) -> RunTools | None:
        """None for a secret that was never given, or was forgotten."""
        return self._tools.get(_digest(secret))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
