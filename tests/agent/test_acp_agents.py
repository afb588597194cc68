"""Which agent programs are there, what is missing for the others, and what a session chooses of one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from navi_jupyter.agent.acp.agents import AgentCatalog, FoundAgent
from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.errors import InvalidRequest, ModelUnavailable
from tests.conftest import Api


class Machine:
    """A home directory and a PATH of a test's own, with programs that leave a file behind when they are started."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.started = home / "started"
        self.path = home / "bin"
        self.path.mkdir(parents=True)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("PATH", str(self.path))
        monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(home / "jupyter"))
        monkeypatch.delenv("npm_config_cache", raising=False)

    def program(self, name: str, folder: Path | None = None) -> Path:
        """A program of this name, in a folder (default: on PATH)."""
        path = (folder or self.path) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\ntouch {self.started}\n")
        path.chmod(0o755)
        return path

    def configure(self, agents: object) -> Path:
        path = Path(os.environ["JUPYTER_CONFIG_DIR"], "navi", "acp.json")  # a server of a test sets its own
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"agents": agents}))
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "home", monkeypatch)


def found(name: str) -> FoundAgent:
    return AgentCatalog().all()[name]


def test_known_agents_are_found_where_installers_put_them_and_none_is_started(machine: Machine) -> None:
    for agent in AgentCatalog().all().values():
        assert agent.command == ()
        assert agent.mend
        assert agent.mend in (agent.why or ""), "one command makes it usable"
    on_path = machine.program("gemini")
    own = machine.program("opencode", machine.home / ".opencode" / "bin")
    for number, at in (("a", 1), ("b", 2)):
        package = machine.home / ".npm" / "_npx" / number / "node_modules"
        kept = machine.program("claude-agent-acp", package / ".bin")
        about = package / "@agentclientprotocol" / "claude-agent-acp" / "package.json"
        about.parent.mkdir(parents=True)
        about.write_text("{}")
        os.utime(about, (at, at))
    assert found("gemini").command == (str(on_path), "--acp")
    assert found("opencode").command == (str(own), "acp")
    assert found("claude").command == (str(kept),), "the newest that npx has kept"
    assert found("codex").why == "Codex is not installed. Run: npm install -g @agentclientprotocol/codex-acp"
    assert not machine.started.exists()


def test_an_agent_gets_its_own_variables_and_neither_the_servers_token_nor_keys_of_others(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program("gemini")
    for name in ("GEMINI_API_KEY", "ANTHROPIC_API_KEY", "JUPYTER_TOKEN", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"value of {name}")
    env = found("gemini").env
    assert (env["GEMINI_API_KEY"], env["HTTPS_PROXY"]) == ("value of GEMINI_API_KEY", "value of HTTPS_PROXY")
    assert env["HOME"] == str(machine.home)
    assert not {"ANTHROPIC_API_KEY", "JUPYTER_TOKEN"} & set(env)


def test_the_file_of_the_user_adds_agents_replaces_known_ones_and_says_where_a_mistake_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "a-secret-of-mine")
    mine, gemini = machine.program("my-agent"), machine.program("gemini")
    file = machine.configure(
        {
            "mine": {"command": "my-agent", "args": ["--acp"], "env": {"KEY": "${MY_SECRET}"}},
            "gemini": {"command": str(gemini), "args": ["--acp", "--sandbox"]},
            "goose": {"command": "goose", "disabled": True},
            "gone": {"command": "not-there"},
            "wrong": {"command": 7},
            "Bad Name": {"command": "my-agent"},
        }
    )
    agents = AgentCatalog().all()
    assert agents["mine"].command == (str(mine), "--acp")
    assert (agents["mine"].env["KEY"], agents["mine"].secrets) == ("a-secret-of-mine", ("a-secret-of-mine",))
    assert agents["gemini"].command == (str(gemini), "--acp", "--sandbox")
    assert "goose" not in agents
    assert "not-there" in (agents["gone"].why or "")
    assert (agents["wrong"].why or "").startswith(f"{file}:1: agents.wrong.command")
    assert "small letters" in (agents["Bad Name"].why or "")
    router = AgentRouter()
    assert router.check("acp:mine") == "acp:mine"
    with pytest.raises(ModelUnavailable, match="not-there"):
        router.check("acp:gone")
    with pytest.raises(ModelUnavailable, match=r"no agent 'missing'.*acp:mine"):
        router.check("acp:missing")
    with pytest.raises(InvalidRequest, match="acp:claude"):
        router.check("acp:")


def test_a_login_that_an_agent_wanted_is_said_until_it_has_worked(machine: Machine) -> None:
    machine.program("gemini")
    catalog = AgentCatalog()
    catalog.note_login("gemini", "Gemini CLI needs a login. Run: gemini")
    assert (catalog.all()["gemini"].why, catalog.all()["gemini"].mend) == (
        "Gemini CLI needs a login. Run: gemini",
        "gemini",
    )
    catalog.note_login("gemini", None)
    assert catalog.all()["gemini"].why is None


async def test_a_session_keeps_what_is_chosen_of_its_agent_until_it_gets_another_model(
    machine: Machine, api: Api
) -> None:
    machine.program("my-agent")
    machine.configure({"mine": {"command": "my-agent"}})
    listed = {one["name"]: one for one in (await api.ok("GET", "models"))["models"]}
    assert (listed["acp:mine"]["available"], listed["acp:mine"]["command"]) == (True, None)
    assert listed["acp:claude"]["command"] == "npm install -g @agentclientprotocol/claude-agent-acp"
    session = await api.session(model="acp:mine", agent_options={"mode": "plan"})
    path = f"sessions/{session}"
    detail = await api.ok("GET", path)
    assert (detail["agent_options"], detail["agent_offer"]) == ({"mode": "plan", "model": None}, None)
    chosen = {"mode": "yolo", "model": "large"}
    assert (await api.ok("PATCH", path, {"agent_options": chosen}))["agent_options"] == chosen
    fork = await api.ok("POST", f"{path}/fork", {})
    assert fork["agent_options"] == {"mode": None, "model": "large"}, "a mode may be one that asks nothing"
    for wrong in ({"mode": ""}, {"mood": "x"}, {"model": "x" * 300}, "plan", None):
        assert (await api("PATCH", path, {"agent_options": wrong})).status == 400, wrong
    events = (await api.ok("GET", f"{path}/events", after=0, limit=100))["events"]
    changed = [one["event"]["value"] for one in events if one["event"].get("name") == "navi.session"]
    assert changed[-1]["session"]["agent_options"] == chosen
    assert (await api.ok("PATCH", path, {"model": "offline"}))["agent_options"] == {"mode": None, "model": None}
