"""A conversation of ten thousand messages in a browser: how light it is, before and after, measured in one run.

    python tests/benchmarks/bench_reading.py [--before REF] [--messages N] [--minutes M]

Starts a Jupyter server of the commit REF (default: none), and one of the tree as it is, each with a session of N
messages, and opens the server's page in Chromium. Prints a table with a column for each tree:

- `first load`: kilobytes, over the network, of the scripts without which nothing is shown; `to the first message`: of
  all scripts until then
- `prelude`: kilobytes of the first frames
- `first message`: seconds from the navigation to the frame with the first message that is drawn
- `scrolling`: frames per second while the wheel turns up for three seconds
- `typing`: milliseconds from a key to the next frame, median and 95 of 100, while an answer streams at 50 tokens/s
- `heap`, `nodes`, `listeners`: of the page after garbage collection, at the start, in the middle and at the end of M
  minutes of streaming, answer after answer (default: half a minute; `--minutes 30` is the long form)
- `sockets`: of a page with 20 chats of four sessions

``--quick`` has 300 messages and streams for 12 seconds. Needs Playwright, Chromium (NAVI_CHROMIUM, or on the
path), and for REF Node with the packages of ``js/``.
"""

from __future__ import annotations

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

from tests.benchmarks.measuring import Figures, arguments, tree_of  # noqa: E402 - a script finds the tests only now
from tests.support.long_sessions import lengthen  # noqa: E402
from tests.support.server import JupyterServer  # noqa: E402

TOKENS_PER_SECOND = 50
TOKENS = 2_000
"""Of one answer: 40 seconds."""
VIEW = {"width": 900, "height": 700}
PROBES = """
window.sockets = 0;
const Real = WebSocket;
window.WebSocket = class extends Real { constructor(...given) { super(...given); window.sockets += 1; } };
window.keys = [];
window.firstMessage = null;
new MutationObserver((_, observer) => {
  if (!document.querySelector("navi-chat [data-navi=message]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { window.firstMessage = performance.now(); }));
}).observe(document, { childList: true, subtree: true });
addEventListener("keydown", (event) => requestAnimationFrame(() => setTimeout(() => {
  window.keys.push(performance.now() - event.timeStamp);
})), true);
"""


class _Model(BaseHTTPRequestHandler):
    """Long answers, as a provider streams them."""

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
            for count in range(TOKENS):
                text = f"word{count} " if count % 12 else f"\n\n**Paragraph {count}** has `code` in it. "
                choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                time.sleep(max(0.0, start + (count + 1) / TOKENS_PER_SECOND - time.monotonic()))
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [end]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())
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
def built(ref: str) -> Iterator[Path]:
    """The tree of a commit, with its scripts built."""
    with tree_of(ref) as tree:
        (tree / "js" / "node_modules").symlink_to(ROOT / "js" / "node_modules")
        subprocess.run(["node", "build.mjs"], cwd=tree / "js", check=True)
        yield tree


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
            found = read_alone(browser, server, sid, minutes, first_files(tree))
            return {**found, "sockets": count_sockets(browser, server)}


def read_alone(browser: Browser, server: JupyterServer, sid: str, minutes: float, first: list[str]) -> dict[str, Any]:
    page = browser.new_page(viewport=VIEW)
    page.add_init_script(PROBES)
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    frames = [0]
    urls: dict[str, str] = {}
    loaded: dict[str, int] = {}

    def answered(event: dict[str, Any]) -> None:
        url = event["response"]["url"]
        if url.split("?")[0].endswith(".js"):
            urls[event["requestId"]] = url

    def finished(event: dict[str, Any]) -> None:
        if url := urls.get(event["requestId"]):
            loaded[url] = int(event["encodedDataLength"])

    def received(event: dict[str, Any]) -> None:
        frames[0] += len(event["response"]["payloadData"])

    network.on("Network.responseReceived", answered)
    network.on("Network.loadingFinished", finished)
    network.on("Network.webSocketFrameReceived", received)
    page.goto(f"{server.url}navi?token={server.token}")  # logs in; what is measured begins below
    page.goto("about:blank")
    network.send("Network.clearBrowserCache")
    loaded.clear()
    frames[0] = 0
    page.goto(f"{server.url}navi#{sid}")
    page.wait_for_function("window.firstMessage !== null", timeout=120_000)
    found: dict[str, Any] = {"first message": round(page.evaluate("window.firstMessage") / 1000, 2)}
    page.wait_for_timeout(1_500)
    before = sum(size for url, size in loaded.items() if url.rpartition("/")[2].split("?")[0] in first)
    found |= {"first load": kilobytes(before), "to the first message": kilobytes(sum(loaded.values()))}
    found["prelude"] = kilobytes(frames[0])
    found["scrolling"] = scroll(page)
    page.locator("[data-navi=jump]").click()
    ask(page)
    page.wait_for_timeout(2_000)
    page.evaluate("window.keys.length = 0")
    page.locator("[data-navi=input]").press_sequentially("what I write while it streams " * 4, delay=60)
    keys = sorted(page.evaluate("window.keys"))
    found["typing"] = [round(statistics.median(keys), 1), round(keys[int(len(keys) * 0.95)], 1)]
    samples = [sample(network)]
    start = time.monotonic()
    for part in (0.5, 1.0):
        while time.monotonic() - start < part * minutes * 60:
            page.wait_for_timeout(500)
            if not page.locator("[data-navi=stop]").count():
                ask(page)
        samples.append(sample(network))
    found |= {name: [each[name] for each in samples] for name in samples[0]}
    page.close()
    return found


def ask(page: Page) -> None:
    """Ask for one more answer, and wait until it streams."""
    page.locator("[data-navi=input]").fill("go on")
    page.keyboard.press("Enter")
    page.locator("[data-navi=message][data-status=streaming]").wait_for(timeout=60_000)


def first_files(tree: Path) -> list[str]:
    """The scripts without which nothing is shown; a tree that does not say has but one."""
    bundle = tree / "navi_jupyter" / "static" / "bundle.json"
    found: list[str] = (
        json.loads(bundle.read_text()).get("first", ["navi-chat.js"]) if bundle.exists() else ["navi-chat.js"]
    )
    return found


def kilobytes(size: int) -> float:
    return round(size / 1000, 1)


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


def sample(network: Any) -> dict[str, float]:
    """What the page keeps: megabytes, nodes of documents, listeners."""
    network.send("HeapProfiler.collectGarbage")
    network.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in network.send("Performance.getMetrics")["metrics"]}
    return {
        "heap": round(metrics["JSHeapUsedSize"] / 2**20, 1),
        "nodes": int(metrics["Nodes"]),
        "listeners": int(metrics["JSEventListeners"]),
    }


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
    parser = arguments(__doc__)
    parser.add_argument("--before", metavar="REF")
    parser.add_argument("--messages", type=int, help="10,000; in the short form 300")
    parser.add_argument("--minutes", type=float, help="0.5; in the short form 0.2")
    chosen = parser.parse_args()
    messages = chosen.messages or (300 if chosen.quick else 10_000)
    minutes = chosen.minutes or (0.2 if chosen.quick else 0.5)
    path = os.environ.get("NAVI_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        found: dict[str, dict[str, Any]] = {}
        if chosen.before:
            with built(chosen.before) as tree:
                found[chosen.before[:10]] = measure(browser, tree, messages, minutes)
        found["this"] = measure(browser, ROOT, messages, minutes)
        browser.close()
    print(table(found))
    figures = Figures()
    for name, value in found["this"].items():
        unit = MEASURES[name].partition(",")[0] or "count"
        for number, each in enumerate(value if isinstance(value, list) else [value], 1):
            place = f" ({number} of {len(value)})" if isinstance(value, list) else ""
            figures.add(f"reading: {name}{place}, {unit}", each)
    figures.write(chosen.json)


MEASURES = {
    "first load": "KB, <= 80",
    "to the first message": "KB",
    "prelude": "KB, < 200",
    "first message": "s, <= 1",
    "scrolling": "frames/s, >= 55",
    "typing": "ms, p95 < 50",
    "heap": "MB, flat",
    "nodes": "",
    "listeners": "",
    "sockets": "<= 4",
}
"""What is printed, in which unit, and what is aimed at."""


def table(found: dict[str, dict[str, Any]]) -> str:
    """One line for each measure, one column for each tree."""

    def text(value: Any) -> str:
        return " / ".join(map(str, value)) if isinstance(value, list) else str(value)

    rows = [["", *found, "unit, aim"]]
    rows += [[name, *(text(tree[name]) for tree in found.values()), unit] for name, unit in MEASURES.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


if __name__ == "__main__":
    main()
