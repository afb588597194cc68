"""The agent programs that the user has configured: ``navi/acp.json`` in Jupyter's config path; their model strings.

The same form as ``mcpServers``: ``{"agents": {"name": {"command": …, "args": […], "env": {…}}}}``. A mistake in one
entry disables that agent alone; its message names the file, the line and the key. Not responsible for the agents that
are known without it (``agents``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_config_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...config_files import ConfigError, Document, FileProblem, WatchedFiles
from ...errors import InvalidRequest
from ..mcp.config import FilledVariables, Text, UnsetVariable, longest_first

PREFIX = "acp"  # of model strings
FILE_NAME = "navi/acp.json"
MAX_FILE = 1_000_000
MAX_AGENTS = 100
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # a part of a model string


def is_agent(model: str) -> bool:
    """Whether a model string names an agent program."""
    return model.strip().startswith(f"{PREFIX}:")


def check_name(model: str) -> None:
    """Raises InvalidRequest for a model string that cannot be one of an agent program."""
    name = model.strip().partition(":")[2]
    if not NAME.fullmatch(name):
        raise InvalidRequest(f"{model[:80]!r} is not an agent. Use {PREFIX}:name like {PREFIX}:claude.", field="model")


class _AgentEntry(BaseModel):
    """An agent as the file has it. Keys of other programs are left alone."""

    model_config = ConfigDict(extra="ignore", strict=True)
    command: Text = Field(min_length=1)
    args: list[Text] = Field(default_factory=list)
    env: dict[str, Text] = Field(default_factory=dict)
    disabled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentConfig:
    """One configured agent program, with all variables filled in."""

    name: str
    file: str  # where it is configured
    command: tuple[str, ...] = ()  # the program and its arguments
    env: Mapping[str, str] = field(default_factory=dict)
    disabled: bool = False
    wrong: str | None = None  # why it cannot be used: what is wrong in the file
    secrets: tuple[str, ...] = ()  # values that messages about failures do not show


class AgentFiles:
    """The files, read again when one of them has changed. Blocks on the disk for some ``stat`` calls."""

    def __init__(self) -> None:
        self._watched = WatchedFiles(_agents, max_bytes=MAX_FILE)

    @property
    def problems(self) -> Sequence[FileProblem]:
        """The files that cannot be read as a whole, as of the last :meth:`read`."""
        return self._watched.problems

    def read(self) -> Mapping[str, AgentConfig]:
        """What is configured now, by name: of agents with the same name the first file's counts. Never raises."""
        self._watched.refresh(dict.fromkeys(Path(directory, FILE_NAME) for directory in jupyter_config_path()))
        agents: dict[str, AgentConfig] = {}
        for file in self._watched.files.values():
            for agent in file.content or ():
                agents.setdefault(agent.name, agent)
        return agents


def _agents(document: Document) -> Sequence[AgentConfig]:
    """The agents of one file. Raises ConfigError."""
    content = document.content
    if content is None:
        return ()
    entries = content.get("agents") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        raise ConfigError(f'{document.at("agents")}: must be an object like {{"agents": {{"name": {{"command": …}}}}}}')
    return [_agent(name, entry, document) for name, entry in list(entries.items())[:MAX_AGENTS]]


def _agent(name: str, raw: Any, document: Document) -> AgentConfig:
    file = str(document.path)

    def broken(why: str, *key: str) -> AgentConfig:
        where = f"{document.at('agents', name, *key)}: {'.'.join(('agents', name[:64], *key))}"
        return AgentConfig(name=name[:64], file=file, wrong=f"{where}: {why}")

    if not NAME.fullmatch(name):
        return broken("an agent's name has at most 64 small letters, digits, dots, dashes and underscores")
    try:
        entry = _AgentEntry.model_validate(raw)
    except ValidationError as error:
        return AgentConfig(name=name, file=file, wrong=document.mistakes(error, "agents", name)[0])
    variables = FilledVariables()
    try:
        return AgentConfig(
            name=name,
            file=file,
            command=(variables.fill(entry.command, "command"), *(variables.fill(arg, "args") for arg in entry.args)),
            env={key: variables.fill(value, "env", key, secret=True) for key, value in entry.env.items()},
            disabled=entry.disabled,
            secrets=longest_first(variables.secrets),
        )
    except UnsetVariable as error:
        variable, key = error.args
        return broken(f"the environment variable {variable} is not set in the Jupyter server", *key)
