"""What programs can read by MCP without calling a tool: notebooks and transcripts as resources; prompts by name.

Profiles are prompts, too: their instructions. Not responsible for tools (``user_offer``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from ...agent.profiles.prompt_files import PromptBook
from ...agent.registry import AgentParts
from ...errors import Forbidden, NaviError, NotFound
from ...model.runs import Permission
from ...orchestrator.orchestrator import Orchestrator
from ...orchestrator.session_list.service import SessionListReader
from ...ports.jupyter_access import JupyterOf
from ...redaction import redact_output
from .. import export

NOTEBOOKS, SESSIONS = "navi://notebooks/", "navi://sessions/"
_NOTEBOOK_TYPE, _MARKDOWN = "application/x-ipynb+json", "text/markdown"
_MOST_LISTED = 200  # notebooks, and sessions; others are read by their address
_PROFILE = "profile-"  # what the name of a profile's prompt begins with
_INPUT = "input"  # the one argument of a prompt by name


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedResource:
    """Something to read, by its address."""

    uri: str
    name: str
    title: str = ""
    description: str = ""
    media_type: str = "text/plain"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceTemplate:
    """A form of addresses (RFC 6570) that can be read besides those that are listed."""

    uri: str
    name: str
    description: str
    media_type: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedPrompt:
    """A prompt that the program's user can choose; ``arguments`` are its placeholders, in their order."""

    name: str
    title: str = ""
    description: str = ""
    arguments: Sequence[str] = ()


TEMPLATES = (
    ResourceTemplate(
        uri=f"{NOTEBOOKS}{{+path}}",
        name="notebook",
        description="A notebook of the server as it is stored, by its path.",
        media_type=_NOTEBOOK_TYPE,
    ),
    ResourceTemplate(
        uri=f"{SESSIONS}{{id}}",
        name="session",
        description="The transcript of a session of Navi, by its id.",
        media_type=_MARKDOWN,
    ),
)


class UserDocuments:
    """What the programs of users can read."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        reads: SessionListReader,
        jupyter_of: JupyterOf,
        parts: AgentParts,
        prompts: PromptBook,
        *,
        max_bytes: int,
    ) -> None:
        """``max_bytes``: of a notebook."""
        self._orchestrator = orchestrator
        self._reads = reads
        self._jupyter_of = jupyter_of
        self._parts = parts
        self._prompts = prompts
        self._max_bytes = max_bytes

    async def resources(self, owner: str) -> Sequence[OfferedResource]:
        """The notebooks below the server's root, and the user's sessions, the last used first."""
        found: list[OfferedResource] = []
        files = self._jupyter_of(owner).files
        if files is not None and await self._why_unreadable() is None:
            listed = await files.list(pattern="**/*.ipynb", limit=_MOST_LISTED)
            found += [_notebook(str(one["path"])) for one in listed if one.get("kind") != "directory"]
        sessions, _ = await self._reads.page(owner, limit=_MOST_LISTED)
        for one in sessions:
            session = one.session
            about = f"A conversation in {session.notebook_path}." if session.notebook_path else "A conversation."
            found.append(
                OfferedResource(
                    uri=f"{SESSIONS}{session.id}",
                    name=session.id,
                    title=session.title,
                    description=about,
                    media_type=_MARKDOWN,
                )
            )
        return found

    async def read(self, uri: str, *, owner: str) -> tuple[str, str]:
        """The text of a resource without secrets, and its media type. Raises NotFound and its kinds, Forbidden."""
        files = self._jupyter_of(owner).files
        if uri.startswith(SESSIONS):
            reply = await export.download(self._orchestrator, uri.removeprefix(SESSIONS), "md", owner=owner)
            text, kind = reply.content, _MARKDOWN
        elif uri.startswith(NOTEBOOKS) and files is not None:
            if (why := await self._why_unreadable()) is not None:
                raise Forbidden(why)
            path = unquote(uri.removeprefix(NOTEBOOKS))
            if not path.endswith(".ipynb"):
                raise NotFound(f"{path[:200]} is no notebook.")
            text, kind = await files.read_bytes(path, limit=self._max_bytes), _NOTEBOOK_TYPE
        else:
            raise NotFound(f"There is no resource {uri[:200]}.")
        decoded = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        return str(await asyncio.to_thread(redact_output, decoded)), kind

    async def completions(self, template: str, value: str, *, owner: str) -> Sequence[str]:
        """What the placeholder of a template can be that begins like this: paths, ids of sessions (also by title)."""
        words = value.casefold()
        found = await self.resources(owner)
        if template == TEMPLATES[0].uri:
            paths = [one.name for one in found if one.uri.startswith(NOTEBOOKS)]
            return [path for path in paths if words in path.casefold()]
        if template == TEMPLATES[1].uri:
            sessions = [one for one in found if one.uri.startswith(SESSIONS)]
            return [one.name for one in sessions if words in one.title.casefold() or one.name.startswith(value)]
        return ()

    async def _why_unreadable(self) -> str | None:
        """Why the administrator lets no program read notebooks; None when one may."""
        for note in await self._parts.known():
            if note.name == "read_notebook" and note.tool is not None:
                permission = self._parts.permissions.by_default(note.tool)
                if permission is not Permission.ALLOW:
                    return "The administrator of this server does not let programs read notebooks (tool_ceiling)."
        return None

    async def prompts(self, owner: str) -> Sequence[OfferedPrompt]:
        """The prompts by name, and the profiles that this user can choose from."""
        parts = self._parts.of(await self._orchestrator.configuration_of(owner))
        named = [
            OfferedPrompt(name=one.name, description=one.description, arguments=(_INPUT,))
            for one in self._prompts.all()
            if one.usable
        ]
        profiles = [
            OfferedPrompt(
                name=f"{_PROFILE}{entry['name']}",
                title=f"Profile {entry['name']}",
                description=str(entry.get("description", "")),
            )
            for entry in parts.profiles.describe()
            if entry.get("available")
        ]
        return [*named, *profiles]

    async def prompt(self, name: str, arguments: Mapping[str, Any], *, owner: str) -> str:
        """The text of a prompt. Raises NotFound."""
        if name.startswith(_PROFILE):
            parts = self._parts.of(await self._orchestrator.configuration_of(owner))
            try:
                return parts.profiles.get(name.removeprefix(_PROFILE)).instructions
            except NaviError:
                raise NotFound(f"There is no prompt {name[:100]!r}.") from None
        found = next((one for one in self._prompts.all() if one.name == name and one.usable), None)
        if found is None:
            raise NotFound(f"There is no prompt {name[:100]!r}.")
        return found.filled(str(arguments.get(_INPUT, "")), {})


def _notebook(path: str) -> OfferedResource:
    return OfferedResource(uri=f"{NOTEBOOKS}{quote(path)}", name=path, media_type=_NOTEBOOK_TYPE)
