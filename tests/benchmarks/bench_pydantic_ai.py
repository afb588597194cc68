"""What a streamed token costs Navi's server, beside pydantic-ai alone on the same streams, interleaved.

    python tests/benchmarks/bench_pydantic_ai.py [--quick] [--sessions 50] [--seconds 20] [--rounds 2]

- *navi*: a real Jupyter server; each session has a follower, and all is durable before it is shown;
- *pydantic-ai*: a process that does nothing but ``async for event in`` its ``run_stream_events`` of as many agents.

The provider of `bench_agent.py` gives each 50 tokens a second. Processor time of the whole process for a token, so that
what else the machine does counts little; memory in the end.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.bench_agent import Sessions
from tests.benchmarks.measuring import Figures, arguments
from tests.benchmarks.probe import Program
from tests.support.providers import KEY
from tests.support.server import JupyterServer

PROVIDER = str(Path(__file__).with_name("bench_agent.py"))
WARM = 4.0
"""Seconds before it is measured: imports and connections are behind us."""
Found = dict[str, float]


async def alone(url: str, sessions: int, seconds: float) -> Found:
    """In this process: so many agents that are prompted again whenever they have answered."""
    from pydantic_ai import Agent, PartDeltaEvent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    seen = 0

    async def answer() -> None:
        nonlocal seen
        provider = OpenAIProvider(base_url=f"{url}/v1", api_key=KEY)
        agent = Agent(OpenAIChatModel("gpt-6-luna", provider=provider))
        while True:
            async with agent.run_stream_events("go") as events:
                async for event in events:
                    seen += isinstance(event, PartDeltaEvent)

    tasks = [asyncio.create_task(answer()) for _ in range(sessions)]
    await asyncio.sleep(WARM)
    seen, used = 0, time.process_time()
    await asyncio.sleep(seconds)
    found = {"cpu": (time.process_time() - used) / max(seen, 1), "memory": psutil.Process().memory_info().rss / 2**20}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found | {"tokens": seen / seconds}


async def served(home: Path, url: str, sessions: int, seconds: float) -> Found:
    """The same by a server of its own."""
    home.mkdir()
    server = JupyterServer(home, env={"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": KEY})
    with server.start(args=(f"--NaviExtension.max_concurrent_runs={sessions + 4}",)):
        process = psutil.Process(server.pid)
        followed = Sessions(server, sessions)
        followed.start()
        await asyncio.sleep(WARM)
        followed.reset()
        before = sum(process.cpu_times()[:2])
        await asyncio.sleep(seconds)
        used, memory = sum(process.cpu_times()[:2]) - before, process.memory_info().rss / 2**20
        tokens = followed.tokens
        await followed.stop()
        assert not followed.failed, followed.failed[0]
    return {"cpu": used / max(tokens, 1), "memory": memory, "tokens": tokens / seconds}


def beside(url: str, sessions: int, seconds: float) -> Found:
    """:func:`alone` in a process of its own."""
    command = [sys.executable, __file__, f"--sessions={sessions}", f"--seconds={seconds}", "--alone", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60)
    found: Found = json.loads(done.stdout)
    return found


async def compare(sessions: int, seconds: float, rounds: int) -> Figures:
    """In turns."""
    found: dict[str, list[Found]] = {"pydantic-ai": [], "navi": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for name, runs in found.items():
                with Program(PROVIDER, "--rate=50", "--provide") as provider:
                    url = await asyncio.to_thread(provider.line)
                    if name == "navi":
                        runs.append(await served(Path(folder) / f"home{number}", url, sessions, seconds))
                    else:
                        runs.append(await asyncio.to_thread(beside, url, sessions, seconds))
                print(f"  round {number + 1}: {name} {runs[-1]['cpu'] * 1e6:.0f} us a token", flush=True)
    figures = Figures()
    for name, runs in found.items():
        load = f"{sessions} streams, {name}"
        figures.add(f"{load}: tokens, 1/s", statistics.median(run["tokens"] for run in runs))
        figures.add(f"{load}: CPU for a token, us", 1e6 * statistics.median(run["cpu"] for run in runs))
        figures.add(f"{load}: memory, MB", statistics.median(run["memory"] for run in runs))
    pairs = zip(found["navi"], found["pydantic-ai"], strict=True)
    ratio = statistics.median(ours["cpu"] / theirs["cpu"] for ours, theirs in pairs)
    figures.add(f"{sessions} streams, navi / pydantic-ai: CPU for a token, of it", ratio)
    return figures


def main() -> None:
    """Compare, or be pydantic-ai alone."""
    parser = arguments(__doc__)
    parser.add_argument("--sessions", type=int, help="50; in the short form 20")
    parser.add_argument("--seconds", type=float, help="20; in the short form 8")
    parser.add_argument("--rounds", type=int, help="2; in the short form 1")
    parser.add_argument("--alone", metavar="URL", help="be pydantic-ai alone at this provider")
    options = parser.parse_args()
    sessions = options.sessions or (20 if options.quick else 50)
    seconds = options.seconds or (8.0 if options.quick else 20.0)
    if options.alone:
        print(json.dumps(asyncio.run(alone(options.alone, sessions, seconds))))
        return
    asyncio.run(compare(sessions, seconds, options.rounds or (1 if options.quick else 2))).write(options.json)


if __name__ == "__main__":
    main()
