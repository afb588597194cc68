"""Agents of npm, each pointed at a scripted provider, in private directories: none of them reaches the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.needs import claude, opencode, peer
from tests.support.providers import Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer


@dataclass(frozen=True, kw_only=True)
class Peer:
    """An agent program as its user has it installed."""

    name: str
    program: Callable[[], str]  # its path; skips the test where there is none
    args: tuple[str, ...]
    tool: Callable[[str], str]  # how its model calls a tool of the MCP server `navi`
    write: Callable[[str, str], Call]  # how its model writes a file
    settings: Callable[[Path, str], Mapping[str, str]]  # writes its own configuration; its environment
    asides: tuple[str, ...] = field(default=())  # texts in requests that it makes beside the conversation

    def writes(self, path: str, content: str) -> Reply:
        """Its model writes a file by the agent's own tool."""
        return Reply(calls=(self.write(path, content),))


def _opencode(home: Path, url: str) -> Mapping[str, str]:
    model = {"name": "M", "limit": {"context": 100_000, "output": 8_000}, "tool_call": True}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Scripted",
        "options": {"baseURL": f"{url}/v1", "apiKey": "sk-x"},
        "models": {"m": model},
    }
    config: dict[str, Any] = {
        "provider": {"scripted": provider},
        "model": "scripted/m",
        "small_model": "scripted/m",
        "agent": {"title": {"disable": True}},
        "share": "disabled",
        "autoupdate": False,
        "permission": {"edit": "ask", "bash": "ask"},
    }
    off = ("MODELS_FETCH", "AUTOUPDATE", "LSP_DOWNLOAD", "DEFAULT_PLUGINS")
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(config)} | {f"OPENCODE_DISABLE_{name}": "1" for name in off}


def _gemini(home: Path, url: str) -> Mapping[str, str]:
    settings = {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"disableAutoUpdate": True, "disableUpdateNag": True},
    }
    path = home / ".gemini" / "settings.json"
    path.parent.mkdir()
    path.write_text(json.dumps(settings))
    return {
        "GOOGLE_GEMINI_BASE_URL": url,
        "GEMINI_API_KEY": "sk-x",
        "GEMINI_MODEL": "gemini-2.5-flash",
        # Its user trusts the folder: in another one it connects to no MCP server, and does not say so.
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_CLI_NO_RELAUNCH": "true",
    }


def _claude(home: Path, url: str) -> Mapping[str, str]:
    folder = home / "claude"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"permissions": {"defaultMode": "default"}}))
    return {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": "sk-ant-x",
        "CLAUDE_CONFIG_DIR": str(folder),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
    }


PEERS = {
    each.name: each
    for each in (
        Peer(
            name="opencode",
            program=opencode,
            args=("acp",),
            tool=lambda name: f"navi_{name}",
            write=lambda path, text: Call("write", {"filePath": path, "content": text}, id="call_w"),
            settings=_opencode,
        ),
        Peer(
            name="gemini",
            program=lambda: peer("gemini"),
            args=("--acp",),
            tool=lambda name: f"mcp_navi_{name}",
            write=lambda path, text: Call("write_file", {"file_path": path, "content": text}, id="call_w"),
            settings=_gemini,
        ),
        Peer(
            name="claude",
            program=claude,
            args=(),
            tool=lambda name: f"mcp__navi__{name}",
            write=lambda path, text: Call("Write", {"file_path": path, "content": text}, id="call_w"),
            settings=_claude,
            asides=('"required": ["title"]',),
        ),
    )
}
MARK = "NAVI_TEST_PEER_OF"  # in the environment of an agent and of all that it starts: the home of its server


def install(peer: Peer, server: JupyterServer, provider: ScriptedProvider) -> None:
    """Make the agent usable in a server that is not started yet."""
    program = peer.program()
    home = server.home / "agent"
    home.mkdir(parents=True)
    xdg = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "STATE")}
    env = {"HOME": str(home), MARK: str(server.home), **xdg, **peer.settings(home, provider.url)}
    folder = server.home / "config" / "navi"
    folder.mkdir(parents=True)
    agents = {peer.name: {"command": program, "args": list(peer.args), "env": env}}
    (folder / "acp.json").write_text(json.dumps({"agents": agents}))
    provider.asides = peer.asides


def processes_of(server: JupyterServer) -> list[psutil.Process]:
    """What runs of the agents of a server."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(server.home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture(params=list(PEERS), scope="session")  # of the session: what is missing is said by its environment
def agent(request: pytest.FixtureRequest) -> Peer:
    """Each of the agents that is there."""
    found = PEERS[request.param]
    found.program()
    return found
