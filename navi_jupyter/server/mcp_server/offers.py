"""What a caller of the MCP server gets: tools, resources and prompts, whatever the protocol's version.

An agent program gets the tools of the run that it works on. What a user's program gets is in ``user_offer``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import NotFound
from ...input.json_input import load_json
from ...ports.run_tools import CallResult, OfferedTool, Progress, RunTools

if TYPE_CHECKING:
    from .documents import OfferedPrompt, OfferedResource, ResourceTemplate

FOR_AGENTS = (
    "Tools of the Jupyter session in which you answer: its notebook, the kernel of the notebook with the user's "
    "variables, files, memory, and recalls, which wake you up again later. The user sees each call, and is asked in "
    "Navi about those that change or run something. Work with the notebook and its kernel by these tools, since your "
    "own do not see the kernel."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Elicited:
    """The answer to a question that was put through the program: its content is None where it was declined."""

    content: Mapping[str, Any] | None = None
    cancelled: bool = False  # the user closed the question: it is not answered by that


Elicit = Callable[[str, Mapping[str, Any]], Awaitable[Elicited]]
"""Asks the user through the program: with a message, and the JSON schema of the answer. Raises RuntimeError when the
program cannot ask."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallingProgram:
    """The program at the other end, as it describes itself."""

    name: str = ""
    title: str = ""
    elicit: Elicit | None = None  # None: it does not ask its user

    @property
    def label(self) -> str:
        """What it is called in Navi."""
        return self.title or self.name or "MCP client"


@dataclass(frozen=True, kw_only=True, slots=True)
class McpCaller:
    """Who sends a request."""

    owner: str  # the user whose program it is; empty for an agent program
    run_tools: RunTools | None = None  # of the agent program that it is

    @property
    def key(self) -> object:
        """Whose sessions it can use."""
        return self.owner if self.run_tools is None else self.run_tools


class McpOffer(Protocol):
    """What one caller gets."""

    async def tools(self) -> Sequence[OfferedTool]: ...

    async def call(
        self, name: str, arguments: Mapping[str, Any], *, progress: Progress, program: CallingProgram
    ) -> CallResult:
        """Raises LookupError for a tool that there is not, NaviError. Cancelling it ends what the call does."""

    async def resources(self) -> Sequence[OfferedResource]: ...

    def templates(self) -> Sequence[ResourceTemplate]: ...

    async def read(self, uri: str) -> tuple[str, str]:
        """The text of a resource and its media type. Raises NotFound."""

    async def completions(self, template: str, value: str) -> Sequence[str]:
        """What the placeholder of a template can be that begins like this, the best first."""

    async def prompts(self) -> Sequence[OfferedPrompt]: ...

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> str:
        """The text of a prompt. Raises NotFound, InvalidRequest."""


@dataclass(frozen=True, slots=True)
class RunOffer:
    """The offer for an agent program: the tools of its run, and nothing else of this server."""

    run_tools: RunTools

    async def tools(self) -> Sequence[OfferedTool]:
        return await self.run_tools.offered()

    async def call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        progress: Progress,
        program: CallingProgram,  # noqa: ARG002  it asks in Navi, where its session is
    ) -> CallResult:
        result = await self.run_tools.call(name, arguments, progress=progress)
        return replace(result, text=_as_words(result.text))

    async def resources(self) -> Sequence[OfferedResource]:
        return ()

    def templates(self) -> Sequence[ResourceTemplate]:
        return ()

    async def read(self, uri: str) -> tuple[str, str]:
        raise NotFound(f"There is no resource {uri[:200]}.")

    async def completions(self, template: str, value: str) -> Sequence[str]:  # noqa: ARG002
        return ()

    async def prompts(self) -> Sequence[OfferedPrompt]:
        return ()

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> str:  # noqa: ARG002
        raise NotFound(f"There is no prompt {name[:100]!r}.")


def _as_words(text: str) -> str:
    """A result that no client takes for data: Gemini CLI reads a text that is JSON as an object, and refuses ``42``."""
    try:
        value = load_json(text)
    except ValueError:
        return text
    return text if isinstance(value, dict) else f"The result is: {text}"
