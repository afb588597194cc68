"""Which agent programs there are here: known ones that are found, and the user's own (``navi/acp.json``).

A known agent is looked for on PATH, where its installer puts it, and among the packages that ``npx`` has kept: nothing
is downloaded and no program is started. Whether somebody has logged in to an agent is seen when it is used. Not
responsible for running one (``programs``).
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InvalidRequest
from ...installation import has_package, install_command
from ...text import join_words
from ..mcp.config import environment
from .config import PREFIX, AgentConfig, AgentFiles

_LOGIN_KEPT = 600.0  # seconds for which an agent that wanted a login is listed so: it may be logged in elsewhere
_LOOKED_UP = 5.0  # seconds for which what was found is used again: a list asks for each agent several times


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAgent:
    """An agent program that needs no configuration."""

    title: str
    program: str
    args: tuple[str, ...] = ()
    install: str  # the one command that installs it
    login: str  # the one command that logs in to it
    variables: tuple[str, ...]  # what its own environment variables begin with: they are passed on to it
    package: str | None = None  # of npm, by which npx keeps it
    folders: tuple[str, ...] = ()  # where its installer puts it, below the home directory


KNOWN: Mapping[str, KnownAgent] = {
    "claude": KnownAgent(
        title="Claude Code",
        program="claude-agent-acp",
        package="@agentclientprotocol/claude-agent-acp",
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        login="claude /login",
        variables=("ANTHROPIC_", "CLAUDE_", "DISABLE_", "AWS_"),
    ),
    "gemini": KnownAgent(
        title="Gemini CLI",
        program="gemini",
        args=("--acp",),
        package="@google/gemini-cli",
        install="npm install -g @google/gemini-cli",
        login="gemini",
        variables=("GEMINI_", "GOOGLE_"),
    ),
    "opencode": KnownAgent(
        title="OpenCode",
        program="opencode",
        args=("acp",),
        package="opencode-ai",
        install="npm install -g opencode-ai",
        login="opencode auth login",
        variables=("OPENCODE_", "ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_", "OPENROUTER_", "GROQ_", "AWS_"),
        folders=(".opencode/bin",),
    ),
    "codex": KnownAgent(
        title="Codex",
        program="codex-acp",
        package="@agentclientprotocol/codex-acp",
        install="npm install -g @agentclientprotocol/codex-acp",
        login="codex login",
        variables=("CODEX_", "OPENAI_"),
    ),
    "goose": KnownAgent(
        title="Goose",
        program="goose",
        args=("acp",),
        install="brew install block-goose-cli",
        login="goose configure",
        variables=("GOOSE_", "ANTHROPIC_", "OPENAI_", "GOOGLE_"),
    ),
}
"""By the name in the model string. Their install commands are those of their own pages."""

_PASSED_ON = (
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy"),
    *("XDG_STATE_HOME", "NODE_OPTIONS", "NODE_TLS_REJECT_UNAUTHORIZED", "NVM_DIR", "npm_config_cache", "COLORTERM"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundAgent:
    """An agent, and whether its program can be started here."""

    name: str
    title: str
    command: tuple[str, ...] = ()  # empty: it cannot be started, and ``why`` says why
    env: Mapping[str, str] = field(default_factory=dict)  # its whole environment
    why: str | None = None  # why it cannot be used; None when it can, as far as is known without starting it
    mend: str | None = None  # the one command that changes that
    login: str | None = None  # the command that logs in to it
    secrets: tuple[str, ...] = ()  # values that messages about it do not show

    @property
    def model(self) -> str:
        """Its model string."""
        return f"{PREFIX}:{self.name}"


class AgentCatalog:
    """The agent programs of this server. One per process."""

    def __init__(self, *, allowed: bool = True) -> None:
        """Not ``allowed``: there are none, whatever is installed or configured."""
        self._allowed = allowed
        self._files = AgentFiles()
        self._found: tuple[float, Mapping[str, FoundAgent]] = (float("-inf"), {})
        self._logins: dict[str, tuple[float, str]] = {}  # agents that wanted a login: when, and why

    def all(self) -> Mapping[str, FoundAgent]:
        """Those that are known or configured, by name, the user's own first. Blocks on the disk, shortly."""
        at, found = self._found
        if time.monotonic() - at > _LOOKED_UP:
            found = self._look()
            self._found = (time.monotonic(), found)
        return {name: self._with_login(agent) for name, agent in found.items()}

    def find(self, model: str) -> FoundAgent:
        """The agent of a model string ``acp:<name>``. Raises InvalidRequest for one that there is not."""
        name = model.partition(":")[2].strip()
        if not self._allowed:
            raise InvalidRequest("This server runs no agent programs.", field="model")
        if (agent := self.all().get(name)) is None:
            known = join_words([each.model for each in self.all().values()])
            message = f"There is no agent {name[:64]!r}. There are {known}; others are configured in navi/acp.json."
            raise InvalidRequest(message, field="model")
        return agent

    def note_login(self, name: str, why: str | None) -> None:
        """An agent has refused to work without a login, with these words; None: it has worked."""
        if why is None:
            self._logins.pop(name, None)
        else:
            self._logins[name] = (time.monotonic(), why)

    def _with_login(self, agent: FoundAgent) -> FoundAgent:
        at, why = self._logins.get(agent.name, (float("-inf"), ""))
        if agent.why is not None or time.monotonic() - at > _LOGIN_KEPT:
            return agent
        return FoundAgent(name=agent.name, title=agent.title, why=why, mend=agent.login, login=agent.login)

    def _look(self) -> Mapping[str, FoundAgent]:
        if not self._allowed:
            return {}
        own = {name: _configured(one) for name, one in self._files.read().items() if not one.disabled}
        disabled = {name for name, one in self._files.read().items() if one.disabled}
        known = {name: _known(name, one) for name, one in KNOWN.items() if name not in disabled}
        found = own | {name: agent for name, agent in known.items() if name not in own}
        if has_package("acp"):
            return found
        command = install_command("navi-jupyter[acp]")
        why = f"Agent programs need a package that is not installed. Run: {command} and restart the server."
        return {name: FoundAgent(name=name, title=agent.title, why=why, mend=command) for name, agent in found.items()}


def _configured(config: AgentConfig) -> FoundAgent:
    known = KNOWN.get(config.name)
    title = known.title if known is not None else config.name
    if config.wrong is not None:
        return FoundAgent(name=config.name, title=title, why=config.wrong)
    program = shutil.which(config.command[0])
    if program is None:
        why = f"{config.file} names the program {config.command[0]}, which is not on the PATH of the Jupyter server."
        return FoundAgent(name=config.name, title=title, why=why)
    own = _environment_of(known.variables if known is not None else ())
    return FoundAgent(
        name=config.name,
        title=title,
        command=(program, *config.command[1:]),
        env=own | dict(config.env),
        login=known.login if known is not None else None,
        secrets=config.secrets,
    )


def _known(name: str, agent: KnownAgent) -> FoundAgent:
    program = _program(agent)
    if program is None:
        why = f"{agent.title} is not installed. Run: {agent.install}"
        return FoundAgent(name=name, title=agent.title, why=why, mend=agent.install, login=agent.login)
    return FoundAgent(
        name=name,
        title=agent.title,
        command=(program, *agent.args),
        env=_environment_of(agent.variables),
        login=agent.login,
    )


def _environment_of(beginnings: tuple[str, ...]) -> dict[str, str]:
    """What every such program needs, and what is its own: not the server's token, nor keys of other programs."""
    own = {name: value for name, value in os.environ.items() if name.startswith(beginnings)} if beginnings else {}
    return environment({name: os.environ[name] for name in _PASSED_ON if name in os.environ} | own)


def _program(agent: KnownAgent) -> str | None:
    home = Path.home()
    places = [home / folder for folder in (*agent.folders, ".local/bin")]
    found = shutil.which(agent.program)
    found = found or shutil.which(agent.program, path=os.pathsep.join(map(str, places)))
    return found or (_kept_by_npx(agent.package, agent.program) if agent.package else None)


def _kept_by_npx(package: str, program: str) -> str | None:
    """The program of a package that ``npx`` has run before, the newest: it is started from there, without ``npx``."""
    cache = Path(os.environ.get("npm_config_cache") or Path.home() / ".npm", "_npx")  # noqa: SIM112  npm's own name
    try:
        folders = [each / "node_modules" for each in cache.iterdir()]
        kept = [each for each in folders if (each / package / "package.json").is_file()]
        kept.sort(key=lambda each: (each / package / "package.json").stat().st_mtime, reverse=True)
    except OSError:  # there is no cache, or it is being changed
        return None
    return next(filter(None, (shutil.which(program, path=str(each / ".bin")) for each in kept)), None)
