"""A model that does what the prompt says: the real protocol over real HTTP, in a thread of its own.

A prompt carries a script, ``tell([call("run_code", code="1+1")], "Done.")``: one entry for each request of its turn, a
list of calls, a text, or ``{"status": 429, …}``. What it was told (the results of its calls) is in the last request.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from types import TracebackType
from typing import Any, Self

from tests.support.providers import KEY, Call, Reply, Request, ScriptedProvider

MODEL = "openai-chat:gpt-6.1-sol"
_SCRIPT = re.compile(r"<<<(.*?)>>>", re.DOTALL)

Step = str | dict[str, Any] | list[dict[str, Any]]


def call(name: str, **args: Any) -> dict[str, Any]:
    """A tool call of a script."""
    return {"name": name, "args": args}


def tell(*steps: Step) -> str:
    """A prompt with a script."""
    return f"Please. <<<{json.dumps(steps)}>>>"


class _Provider(ScriptedProvider):
    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    async def take(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[Request, Reply]:
        request, _ = await super().take(path, body, headers)
        return request, self._reply(body["messages"])

    def _reply(self, messages: list[dict[str, Any]]) -> Reply:
        script: list[Step] = []
        at = 0
        for message in messages:
            if message["role"] == "user" and (found := _SCRIPT.findall(json.dumps(message["content"]))):
                script, at = json.loads(json.loads(f'"{found[-1]}"')), 0
            elif message["role"] == "assistant":
                at += 1
        step = script[at] if at < len(script) else "Done."
        if isinstance(step, str):
            return Reply(*(f"{word} " for word in step.split(" ")), delay=0.001)
        if isinstance(step, dict):
            return Reply(
                step.get("text", "Wait."),
                status=step.get("status", 200),
                headers=step.get("headers"),
                hold_end=step.get("hold", False),
            )
        self._count += 1
        calls = (Call(one["name"], one["args"], id=f"call_{self._count}_{n}") for n, one in enumerate(step))
        return Reply(calls=tuple(calls))


class Obedient:
    """The provider, while entered. ``env`` sends a server here."""

    def __init__(self) -> None:
        self._provider = _Provider()
        self._loop = asyncio.new_event_loop()
        self._over: asyncio.Event = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    async def _serve(self) -> None:
        async with self._provider:
            self._ready.set()
            await self._over.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    @property
    def env(self) -> dict[str, str]:
        """For a server."""
        return {"OPENAI_BASE_URL": f"{self._provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}

    @property
    def requests(self) -> list[Request]:
        """So far."""
        return self._provider.requests

    def told(self) -> list[str]:
        """The results of all calls in the last request, in order."""
        messages = self.requests[-1].body["messages"]
        return [str(message["content"]) for message in messages if message["role"] == "tool"]
