"""The backend that answers a turn; which models can be used here, and why the others cannot.

Servers at known addresses (Ollama, vLLM, the user's own endpoints) are asked for their models when these are listed,
never at start. Each has a second to answer, and an answer is used again for a minute.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from ..errors import InvalidRequest, ModelUnavailable, ProviderSet, RunFailed
from ..events import Event
from ..input.json_input import load_json
from ..installation import server_name
from ..log_setup import get_logger
from ..model.sessions import Usage
from ..ports.agent import AgentLoop, ToolContext, Turn, TurnResult
from .acp.agents import AgentCatalog
from .acp.backend import AgentProgramBackend
from .acp.config import PREFIX as AGENTS
from .acp.config import check_name, is_agent
from .acp.programs import AgentPrograms
from .notebook_jobs import NotebookJobBackend
from .offline.backend import OfflineBackend
from .program_calls import PREFIX as CALLS
from .program_calls import ProgramCallBackend, ProgramCalls
from .providers.catalog import (
    OFFLINE,
    all_providers,
    checked_value,
    endpoints,
    environment,
    first_key,
    key,
    provider_of,
    variable_of,
)
from .providers.stored_settings import STORED
from .registry import AgentParts, default_parts
from .run.backend import PydanticAIBackend, check_model

log = get_logger("agent")


class AgentRouter:
    """The ``AgentLoop`` for the orchestrator: each turn is answered by the backend of its model string.

    A model string is ``offline``, ``provider:model`` as pydantic-ai names them, or ``acp:<agent program>``. That of a
    run that makes a program's call is made for it alone.
    """

    def __init__(self, agent_parts: AgentParts | None = None, agents: AgentProgramBackend | None = None) -> None:
        """``agents``: answers with the agent programs of this server; left out, they work in the present folder."""
        agent_parts = agent_parts or default_parts()
        self._agent = agents or AgentProgramBackend(agent_parts, AgentPrograms(AgentCatalog()))
        self.calls = ProgramCalls()
        """Those that other programs wait for, each made in a run of its own."""
        self._program_calls = ProgramCallBackend(agent_parts, self.calls)
        self._offline = OfflineBackend(agent_parts)
        self._model = PydanticAIBackend(agent_parts)
        self._jobs = NotebookJobBackend(agent_parts, self.backend_for)
        self._agents = self._agent.programs.catalog
        self._discovery = ModelDiscovery()
        self._refusals = Refusals()

    def backend_for(self, model: str) -> AgentLoop:
        """The backend that answers with this model. Whether it can is found out by running it."""
        if is_agent(model):
            return self._agent
        if model.startswith(CALLS):
            return self._program_calls
        return self._offline if model.strip() == OFFLINE else self._model

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        # The backend's own iterator and no generator around it, so that closing it closes the backend's run at once.
        if turn.job is not None and turn.resumed is None:  # else it had asked in the prompt after its notebook
            return self._jobs.run(turn, context)
        return self.backend_for(turn.model).run(turn, context)

    async def import_ahead(self, models: Iterable[str]) -> None:
        """Import what runs with these models will need, as far as they can be used here."""
        usable = [name for name in models if self.problem(name) is None and self.backend_for(name) is self._model]
        if usable:
            await self._model.packages.import_ahead(usable)

    async def write_title(self, model: str, prompt: str, answer: str) -> tuple[str, Usage] | None:
        """A title for a conversation that begins with this exchange, and what it took; None without such a model."""
        if self.problem(model) is not None or self.backend_for(model) is not self._model:
            return None
        return await self._model.write_title(model.strip(), prompt, answer)

    @staticmethod
    def validate(model: str) -> str:
        """A model string as it is to be stored. Raises InvalidRequest for an unknown provider or a wrong form.

        A model whose extra or key is missing is valid: both may come later. It cannot be chosen until then (``check``).
        """
        name = model.strip()
        if name.lower() == OFFLINE:
            return OFFLINE
        if is_agent(name):
            check_name(name)
        else:
            provider_of(name)
        return name

    def check(self, model: str) -> str:
        """A model that is chosen, as it is to be stored. Raises InvalidRequest as ``validate``, and ModelUnavailable.

        Only what is known to fail is refused: a model of a server of the user's own may be there at the next prompt.
        """
        if self.calls.find(model) is not None:
            return model
        name = self.validate(model)
        reason = self.problem(name)
        if reason is not None:
            raise ModelUnavailable(f"{name} cannot be used here. {reason}", field="model")
        return name

    def problem(self, model: str) -> str | None:
        """Why a model cannot be used here, and the one thing that changes that; None when it can, it seems."""
        name = model.strip()
        if name == OFFLINE:
            return None
        try:
            if is_agent(name):
                return self._agents.find(name).why
            return provider_of(name).missing() or self._refusals.reason(name)
        except InvalidRequest as error:
            return error.message

    def describe(self, *also: str) -> list[dict[str, Any]]:
        """For ``GET models``: ``{"name","usable","reason","provider"}`` each; ``also`` are models in use, listed first.

        Looks for packages and environment variables only: nothing is imported, and no server is asked.
        """
        return [self._entry(name) for name in self._names(*also)]

    async def list_models(self, *also: str) -> list[dict[str, Any]]:
        """:meth:`describe`, and the models that servers at known addresses list: they get a second to answer.

        A model of a server that does not answer is not usable.
        """
        listed = await self._discovery.models()
        await asyncio.to_thread(self._agents.all)  # looks at the disk; what it finds is used again below
        names = self._names(*also)
        for prefix, server in listed.items():
            names |= dict.fromkeys(f"{prefix}:{model}" for model in server.models)
        return [self._entry(name, listed.get(name.partition(":")[0])) for name in names]

    async def servers_here(self) -> list[FoundServer]:
        """Servers of models on this machine that are not set up yet."""
        return await self._discovery.on_this_machine()

    def set_provider(self, name: str, value: str | None) -> None:
        """Store the key or the address of a provider, or forget it. Blocks on the disk. Raises NaviError."""
        variable = variable_of(name, value or "")
        if variable in os.environ or f"{variable}_FILE" in os.environ:
            raise ProviderSet(f"{variable} is set in the environment of the {server_name()}, which goes before it.")
        if value is None:
            STORED.remove(variable)
        else:
            STORED.set(variable, checked_value(name, value))
        self._discovery.forget()

    async def test(self, model: str) -> float:
        """Have the model answer a short request; the seconds that it took. Raises InvalidRequest, RunFailed."""
        self.validate(model)
        began = time.monotonic()
        if is_agent(model):
            if (reason := self.problem(model)) is not None:
                raise RunFailed(reason, run_code="model_unavailable")
            await self._agent.programs.try_out(self._agents.find(model))
        elif model.strip() != OFFLINE:
            check_model(model)
            try_model = await asyncio.to_thread(_import_try_model)
            with self._refusals.tried(model.strip()):
                await try_model(model.strip())
        return time.monotonic() - began

    def _names(self, *also: str) -> dict[str, None]:
        suggested = (f"{prefix}:{model}" for prefix, one in all_providers().items() for model in one.models)
        return dict.fromkeys([OFFLINE, *also, *suggested, *(agent.model for agent in self._agents.all().values())])

    def _entry(self, name: str, server: ServerModels | None = None) -> dict[str, Any]:
        reason = self.problem(name) or (server.problem if server is not None else None)
        prefix, _, rest = name.partition(":")
        if prefix == AGENTS:
            agent = self._agents.all().get(rest)
            title, mend = (rest, None) if agent is None else (agent.title, agent.mend)
            return {"name": name, "usable": reason is None, "reason": reason, "provider": title, "command": mend}
        provider = all_providers().get(prefix)
        label = "built in, no language model" if name == OFFLINE else provider.label if provider else prefix
        return {"name": name, "usable": reason is None, "reason": reason, "provider": label, "command": None}


def _import_try_model() -> Callable[[str], Awaitable[None]]:
    from .providers.models import try_model  # pydantic-ai takes 0.6 s to import: only where a model is used

    return try_model


class Refusals:
    """What tests of models have shown: a key or a model that its provider refuses, until the key or address changes.

    In this process's memory, and for a while only: an account that is put in order needs no other key.
    """

    LASTS = 600.0  # seconds

    def __init__(self) -> None:
        self._found: dict[str, tuple[float, object, str]] = {}
        """By model, or by prefix where the key is refused: when, with which key and address, why."""

    @contextmanager
    def tried(self, model: str) -> Iterator[None]:
        """Around a test: keeps why the provider has refused. A test that succeeds ends what was found before."""
        prefix = model.partition(":")[0]
        try:
            yield
        except RunFailed as error:
            if error.run_code in ("provider_auth", "model_unavailable"):
                what = prefix if error.run_code == "provider_auth" else model
                self._found[what] = (time.monotonic(), _access_of(prefix), error.message)
            raise
        self._found.pop(prefix, None)
        self._found.pop(model, None)

    def reason(self, model: str) -> str | None:
        """Why the provider refuses it; None: it was not asked, or does not."""
        prefix = model.partition(":")[0]
        for what in (prefix, model):
            at, access, why = self._found.get(what, (float("-inf"), None, ""))
            if time.monotonic() - at < self.LASTS and access == _access_of(prefix):
                return why
        return None


def _access_of(prefix: str) -> object:
    """The key and the address with which a provider is asked now."""
    known = environment()
    if (own := endpoints().get(prefix)) is not None:
        return own.url, key(own.key_name)
    provider = all_providers().get(prefix)
    names = () if provider is None else (*provider.keys, *provider.instead)
    return first_key(names), tuple(known.get(name) for name in names)


_TIMEOUT = 1.0  # seconds that a server has to answer: the list is for a menu that somebody has just opened
_CACHE_TIME = 60.0  # seconds for which an answer is used again; that of a server which did not answer, too
_MAX_MODELS = 200
_MAX_BYTES = 4 * 1024 * 1024  # of an answer, which is parsed on the event loop
_MAX_HEADER_BYTES = 32 * 1024
_LONGEST_NAME = 150  # characters; a shortened name would be that of no model
_TORNADO_NO_ANSWER = 599  # Tornado's status for a connection that failed or took too long
_NO_ANSWER = "The server at its address does not answer. Start it, or correct its address."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerModels:
    """What one server answered."""

    models: tuple[str, ...] = ()
    problem: str | None = None  # why there is no answer; None when there is one


_ON_THIS_MACHINE = (
    ("ollama", "Ollama", 11434),
    ("vllm", "vLLM", 8000),
    ("lm-studio", "LM Studio", 1234),
    ("llama-cpp", "llama.cpp", 8080),
    ("jan", "Jan", 1337),
)
"""Programs that serve models where they are started without settings, each with its port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundServer:
    """A server of models on this machine."""

    name: str  # the prefix of its model strings
    label: str
    url: str
    models: tuple[str, ...]


class ModelDiscovery:
    """Asks servers for their models. One per Jupyter server."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[float, ServerModels]] = {}  # by address, with the time of the answer

    async def models(self) -> Mapping[str, ServerModels]:
        """By the prefix of the model strings. Takes a second at most; never raises for a server that is away."""
        known = environment()
        addresses = {
            name: url
            for name, provider in all_providers().items()
            if provider.base_url and (url := known.get(provider.base_url, "").strip().rstrip("/"))
        }
        answers = await asyncio.gather(*(self._cached(name, url) for name, url in addresses.items()))
        return dict(zip(addresses, answers, strict=True))

    async def on_this_machine(self) -> list[FoundServer]:
        """Servers that list models at the usual ports of this machine and are not set up. Takes a second at most."""
        known = all_providers()
        variables = environment()
        taken = {variables.get(one.base_url, "").rstrip("/") for one in known.values() if one.base_url}
        places = [
            (name, label, f"http://127.0.0.1:{port}/v1")
            for name, label, port in _ON_THIS_MACHINE
            if not {f"http://{host}:{port}/v1" for host in ("127.0.0.1", "localhost")} & taken
        ]
        answers = await asyncio.gather(*(_ask(url, None, most=_MAX_BYTES // 8) for _, _, url in places))
        return [
            FoundServer(name=name, label=label, url=url, models=answer.models)
            for (name, label, url), answer in zip(places, answers, strict=True)
            if answer.models
        ]

    def forget(self) -> None:
        """A key or an address has changed: ask again."""
        self._answers.clear()

    async def _cached(self, name: str, url: str) -> ServerModels:
        answered_at, answer = self._answers.get(url, (float("-inf"), ServerModels()))
        if time.monotonic() - answered_at < _CACHE_TIME:
            return answer
        answer = await _ask(url, _key_of(name))
        self._answers[url] = (time.monotonic(), answer)
        return answer


def _key_of(name: str) -> str | None:
    if (endpoint := endpoints().get(name)) is not None:
        return key(endpoint.key_name)
    return first_key((f"{name.split('-')[0].upper()}_API_KEY",))


async def _ask(url: str, secret: str | None, *, most: int = _MAX_BYTES) -> ServerModels:
    """``most``: bytes of its answer."""
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {secret}"} if secret else {})
    # No redirects: the key would be sent along to another host.
    request = HTTPRequest(
        f"{url}/models",
        headers=headers,
        connect_timeout=_TIMEOUT,
        request_timeout=_TIMEOUT,
        follow_redirects=False,
        decompress_response=False,  # a small answer may unpack to any size
    )
    client = AsyncHTTPClient(force_instance=True, max_body_size=most, max_header_size=_MAX_HEADER_BYTES)
    try:
        # Tornado's time-outs do not cover all of it: a name server that hangs, for example.
        async with asyncio.timeout(_TIMEOUT):
            answer = await client.fetch(request)
        return ServerModels(models=tuple(_names(answer.body)))
    except HTTPClientError as error:
        # Any status of the server's own means that it is there; not all servers list their models.
        return ServerModels(problem=_NO_ANSWER if error.code == _TORNADO_NO_ANSWER else None)
    except Exception as error:  # noqa: BLE001 - whatever listens there: Tornado has errors of its own for odd answers
        log.info("models_not_listed", error=type(error).__name__)
        return ServerModels(problem=_NO_ANSWER if isinstance(error, OSError) else None)  # TimeoutError is one, too
    finally:
        client.close()


def _names(body: bytes) -> Iterator[str]:
    for one in load_json(body)["data"][:_MAX_MODELS]:
        if isinstance(one, dict) and isinstance(one.get("id"), str):
            name = one["id"]
            if name and len(name) <= _LONGEST_NAME and name.isprintable() and " " not in name:
                yield name
