"""A conversation of ten thousand messages in a browser: how light it is, before and after, measured in one run.

    python tests/benchmarks/bench_reading.py [--before REF] [--messages N] [--minutes M]

Starts a Jupyter server of the tree as it is, and one of the commit REF (default: none), each with a session of N
messages, and opens the server's page in Chromium. Prints one JSON object per tree:

- `first_load`: bytes of scripts over the network until the first message is drawn; `prelude`: bytes of the first frames
- `first_message`: seconds from the navigation to the first message that is drawn
- `scroll_fps`: frames per second while the wheel turns up for three seconds
- `typing_p95`: milliseconds from a key to the next frame, while an answer streams at 50 tokens a second
- `heap`: megabytes after garbage collection, before and after M minutes of streaming (default: half a minute)
- `sockets`: of a page with 20 chats of four sessions

Needs Playwright, Chromium (NAVI_CHROMIUM, or on the path), and for REF Node with the packages of `js/`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.long_sessions import lengthen  # noqa: E402 - a script finds the tests only now
from tests.support.server import JupyterServer  # noqa: E402

TOKENS_PER_SECOND = 50
VIEW = {"width": 900, "height": 700}
PROBES = """
window.sockets = 0;
const Real = WebSocket;
window.WebSocket = class extends Real { constructor(...given) { super(...given); window.sockets += 1; } };
window.keys = [];
addEventListener("keydown", (event) => requestAnimationFrame(() => setTimeout(() => {
  window.keys.push(performance.now() - event.timeStamp);
})), true);
"""


class _Model(BaseHTTPRequestHandler):
    """An answer without end, as a provider streams it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if not body.get("stream"):  # a summary of what is too long to be sent
            self._answer({"role": "assistant", "content": "It was about the loss."})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        start = time.monotonic()
        try:
            for count in range(10**9):
                text = f"word{count} " if count % 12 else f"\n\n**Paragraph {count}** has `code` in it. "
                choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                time.sleep(max(0.0, start + (count + 1) / TOKENS_PER_SECOND - time.monotonic()))
        except OSError:
            pass  # the run was stopped

    def _answer(self, message: dict[str, Any]) -> None:
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        content = json.dumps({"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the benchmark prints its own lines."""


@contextmanager
def model() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@contextmanager
def tree_of(ref: str) -> Iterator[Path]:
    """The tree of a commit, with its scripts built."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        subprocess.run(["git", "worktree", "add", "--detach", "-q", tree, ref], cwd=ROOT, check=True)
        try:
            (tree / "js" / "node_modules").symlink_to(ROOT / "js" / "node_modules")
            subprocess.run(["node", "build.mjs"], cwd=tree / "js", check=True)
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def measure(browser: Browser, tree: Path, messages: int, minutes: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as home, model() as address:
        env = {"PYTHONPATH": str(tree), "OPENAI_API_KEY": "none", "OPENAI_BASE_URL": address}
        with JupyterServer(Path(home), env=env).start() as server:
            sid = server.request("POST", "navi/api/sessions", {"title": "long"})["id"]
            prompt = {"type": "prompt", "text": "hello"}
            run = server.request("POST", f"navi/api/sessions/{sid}/commands", prompt)["run_id"]
            server.wait_for(lambda: server.get(f"navi/api/sessions/{sid}/runs/{run}")["status"] == "completed")
            lengthen(next(Path(home).rglob("navi.db")), run, messages // 2 - 1, rolled_back=True)
            server.request("PATCH", f"navi/api/sessions/{sid}", {"model": "openai-chat:endless"})
            found = read_alone(browser, server, sid, minutes)
            return {**found, "sockets": count_sockets(browser, server)}


def read_alone(browser: Browser, server: JupyterServer, sid: str, minutes: float) -> dict[str, Any]:
    page = browser.new_page(viewport=VIEW)
    page.add_init_script(PROBES)
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    sizes = {"scripts": 0, "frames": 0}
    scripts: set[str] = set()
    network.on("Network.responseReceived", lambda e: e["type"] == "Script" and scripts.add(e["requestId"]))

    def loaded(event: dict[str, Any]) -> None:
        if event["requestId"] in scripts:
            sizes["scripts"] += int(event["encodedDataLength"])

    def received(event: dict[str, Any]) -> None:
        sizes["frames"] += len(event["response"]["payloadData"])

    network.on("Network.loadingFinished", loaded)
    network.on("Network.webSocketFrameReceived", received)
    page.goto(f"{server.url}navi?token={server.token}")  # logs in; what is measured begins below
    page.goto("about:blank")
    network.send("Network.clearBrowserCache")
    sizes.update(scripts=0, frames=0)
    start = time.monotonic()
    page.goto(f"{server.url}navi#{sid}")
    page.locator("navi-chat [data-navi=message]").last.wait_for(timeout=120_000)
    first = time.monotonic() - start
    page.wait_for_timeout(1_500)
    found = {"first_message": round(first, 2), "first_load": sizes["scripts"], "prelude": sizes["frames"]}
    found["scroll_fps"] = scroll(page)
    page.locator("[data-navi=jump]").click()
    page.locator("[data-navi=input]").fill("go")
    page.keyboard.press("Enter")
    page.locator("[data-navi=message][data-status=streaming]").wait_for(timeout=60_000)
    page.wait_for_timeout(2_000)
    before = heap(network)
    page.evaluate("window.keys.length = 0")
    page.locator("[data-navi=input]").press_sequentially("what I write while it streams " * 4, delay=60)
    keys = sorted(page.evaluate("window.keys"))
    found["typing_p50"], found["typing_p95"] = round(statistics.median(keys), 1), round(keys[int(len(keys) * 0.95)], 1)
    page.wait_for_timeout(minutes * 60_000)
    found["heap"] = [before, heap(network)]
    page.locator("[data-navi=stop]").click()
    page.close()
    return found


def scroll(page: Page) -> float:
    page.locator("[data-navi=log]").hover()
    page.evaluate("""() => { window.frames_ = 0;
        const count = () => { window.frames_ += 1; requestAnimationFrame(count); }; requestAnimationFrame(count); }""")
    start = time.monotonic()
    first = page.evaluate("window.frames_")
    while time.monotonic() - start < 3:
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(30)
    return round((page.evaluate("window.frames_") - first) / (time.monotonic() - start), 1)


def heap(network: Any) -> float:
    """Megabytes."""
    network.send("HeapProfiler.collectGarbage")
    return round(network.send("Runtime.getHeapUsage")["usedSize"] / 2**20, 1)


def count_sockets(browser: Browser, server: JupyterServer) -> int:
    sessions = [server.request("POST", "navi/api/sessions", {"title": str(index)})["id"] for index in range(4)]
    page = browser.new_page(viewport=VIEW)
    page.add_init_script(PROBES)
    page.goto(f"{server.url}navi?token={server.token}")
    page.locator("navi-chat").wait_for()
    page.evaluate("document.querySelector('navi-chat').remove()")
    page.wait_for_timeout(3_000)
    before = page.evaluate("window.sockets")
    page.evaluate(
        """sessions => { for (let index = 0; index < 20; index += 1) {
            const chat = document.createElement("navi-chat");
            chat.session = sessions[index % 4];
            document.body.append(chat);
        } }""",
        sessions,
    )
    page.wait_for_timeout(5_000)
    opened: int = page.evaluate("window.sockets") - before
    page.close()
    return opened


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", metavar="REF")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=0.5)
    chosen = parser.parse_args()
    path = os.environ.get("NAVI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        if chosen.before:
            with tree_of(chosen.before) as tree:
                print(json.dumps({"tree": chosen.before, **measure(browser, tree, chosen.messages, chosen.minutes)}))
        print(json.dumps({"tree": "this", **measure(browser, ROOT, chosen.messages, chosen.minutes)}))
        browser.close()


if __name__ == "__main__":
    main()
