"""What links of users' servers cost a process of ``navi hub`` while nothing happens: memory and CPU.

    python tests/benchmarks/bench_links.py [--links 300] [--seconds 60]

Starts a real JupyterHub with the service on SQLite. The links are raw clients in this process, each a user's of its
own: not servers, but each sends and answers what a server's end does at rest, a message every five seconds either way.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from navi_jupyter.server.hub_proxy.service import HubService
from tests.benchmarks.measuring import Figures, arguments
from tests.support.hub import Hub
from tests.support.raw_link import RawLink

AT_ONCE = 20  # links that are opened at the same time
SETTLE = 5.0  # seconds before anything is measured


async def measured(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """The percentage of a core that it uses, and its memory in MB (without what is shared)."""
    before, began = sum(process.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(seconds)
    used = sum(process.cpu_times()[:2]) - before
    return 100 * used / (time.perf_counter() - began), process.memory_full_info().uss / 2**20


async def main(links: int, seconds: float) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder, Hub(Path(folder)).start() as hub:
        process = hub.service_process()
        url = f"http://127.0.0.1:{hub.service_port}/services/navi/"
        opened = [RawLink(HubService(url, hub.user(f"user{n}").token()[0]), f"user{n}") for n in range(links)]
        await asyncio.sleep(SETTLE)
        cpu, memory = await measured(process, seconds / 2)
        figures.add("links: the service without any, % of a core", cpu)
        figures.add("links: the service without any, MB", memory)
        began, times = time.perf_counter(), []
        for start in range(0, links, AT_ONCE):
            times += await asyncio.gather(*(link.open() for link in opened[start : start + AT_ONCE]))
        figures.add(f"links: {links} are opened, {AT_ONCE} at a time, s", time.perf_counter() - began)
        figures.add("links: one is opened meanwhile, worst, s", max(times))
        await asyncio.sleep(SETTLE)
        with_cpu, with_memory = await measured(process, seconds)
        figures.add(f"links: the service with {links} at rest, % of a core", with_cpu)
        figures.add(f"links: the service with {links} at rest, MB", with_memory)
        figures.add("links: each, KB", (with_memory - memory) * 1024 / links)
        lost = sum(link.calls is None or not link.calls.channel.attached for link in opened)
        figures.add("links: lost meanwhile, links", lost)
    return figures


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--links", type=int, default=300)
    parser.add_argument("--seconds", type=float, help="60; in the short form 15")
    options = parser.parse_args()
    seconds = options.seconds or (15.0 if options.quick else 60.0)
    asyncio.run(main(options.links, seconds)).write(options.json)
