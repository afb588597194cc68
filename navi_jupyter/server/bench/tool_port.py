"""The tools that a user's server has besides kernels, notebooks and files, as both ends of the link know them.

They are functions of its kernels, tools and context providers of packages that are installed there, and tools of the
MCP servers that its configuration names. Not responsible for what a tool does, nor for whether it may: the service
decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ...agent.tools.call_details import CallDescription
from ...model.runs import Effect, Interrupt
from ...model.sessions import Origin, Session


@dataclass(frozen=True, kw_only=True, slots=True)
class LentTool:
    """A tool, as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON schema of the arguments: an object
    effect: Effect
    source: str  # ``kernel``, ``package:<distribution>``, ``mcp:<server>``
    asks: bool = False  # whether its calls may have a question for the user, whatever permits them
    describes: bool = False  # whether it describes its calls itself


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokenTool:
    """A tool that cannot be called, for lists."""

    name: str
    source: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingServer:
    """An MCP server whose tools cannot be used now."""

    name: str
    status: str
    message: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LentTools:
    """What a session can use there now."""

    digest: str  # of the tools
    tools: Sequence[LentTool] | None = None  # None: as in the list with that digest
    broken: Sequence[BrokenTool] = ()
    missing: Sequence[MissingServer] = ()
    starting: bool = False  # whether more of them are expected in some seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class LentContext:
    """A context provider of a package, as ``ContextProvider`` has its fields."""

    name: str
    title: str
    max_tokens: int
    patience: float  # seconds
    default: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnFacts:
    """What a context provider there knows of the run."""

    run_id: str
    model: str
    prompt: str
    origin: Origin
    now: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class LentResult:
    """A ``ToolOutput`` whose content is JSON."""

    content: Any
    images: Sequence[tuple[str, str]] = ()  # media type, and the content as base64
    failed: bool = False


class OwnTools(Protocol):
    """The tools of one server. Implemented by ``UserTools``, and over the link by ``RemotePort``.

    A tool is named with its source, since two sources may have the same name. Calls raise ToolUnavailable for one that
    is not there (any more).
    """

    async def offered(
        self, session: Session, *, servers: Sequence[Sequence[str]] | None, wait: float, have: str
    ) -> LentTools:
        """The tools of a session. ``servers``: for each profile that bounds the agent, the patterns of MCP servers that
        it admits, which are started; None: starts nothing, and lists those that run. ``wait``: seconds that what starts
        is waited for. ``have``: the digest of the list that is known."""

    async def call(self, session: Session, name: str, source: str, arguments: Mapping[str, Any]) -> LentResult:
        """Call a tool for the run of the present task. Cancelled, it cancels what it has begun."""

    async def question(self, session: Session, name: str, source: str, arguments: Mapping[str, Any]) -> str | None:
        """What a call would ask the user first; None: nothing. Raises what the tool raises for a call that is not to
        be made at all."""

    async def description(
        self, session: Session, name: str, source: str, arguments: Mapping[str, Any]
    ) -> CallDescription:
        """What a call would do."""

    async def contexts(self) -> Sequence[LentContext]:
        """The context providers of packages that are imported by now."""

    async def context_text(self, session: Session, name: str, turn: TurnFacts) -> str | None:
        """The text of a provider for one run. Raises what it raises."""

    async def answer(self, question: str, interrupt: Interrupt | None) -> None:
        """The end of a question that a call has asked meanwhile; None: it cannot be asked."""
