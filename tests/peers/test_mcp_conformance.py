"""The official conformance checks of MCP servers (npm), on the MCP server of a real Jupyter server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.needs import needed, peer
from tests.support.server import JupyterServer

CHECKS = Path(__file__).parent / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
SCENARIOS = (
    "server-initialize",
    "ping",
    "tools-list",
    "resources-list",
    "prompts-list",
    "completion-complete",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)
"""Those that need no tools, resources or prompts with fixed names and answers, of a server for tests alone."""


def runnable() -> Path:
    """The checks, as Node 20 runs them, too: what it lacks (``fs.globSync``) checks of servers do not use."""
    own = CHECKS.with_name("index.node20.js")
    own.write_text(CHECKS.read_text().replace("globSync as o,", "readdirSync as o,", 1))
    return own


def test_the_server_passes_the_official_conformance_checks(tmp_path: Path) -> None:
    peer("conformance")
    needed(CHECKS.is_file(), "the conformance checks of tests/peers")
    # The checks send no token: this server has none, and is reached from this machine alone.
    server = JupyterServer(tmp_path, token="")
    server.start(args=["--PasswordIdentityProvider.hashed_password=", "--ServerApp.disable_check_xsrf=True"])
    checks = runnable()
    try:
        for scenario in SCENARIOS:
            out = tmp_path / scenario
            command = ["node", str(checks), "server", "--url", f"http://127.0.0.1:{server.port}/navi/mcp"]
            done = subprocess.run(
                [*command, "--scenario", scenario, "-o", str(out)], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, (scenario, done.stdout[-3000:], done.stderr[-1000:])
            results = [one for path in out.rglob("checks.json") for one in json.loads(path.read_text())]
            assert results, scenario
            assert {one["status"] for one in results} <= {"SUCCESS", "INFO"}, (scenario, results)
    finally:
        server.stop()
