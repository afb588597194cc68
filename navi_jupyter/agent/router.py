"""The backend that answers a turn; which models can be used here, and why the others cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..errors import InvalidRequest
from ..events import Event
from ..ports.agent import AgentLoop, ToolContext, Turn, TurnResult
from .offline.backend import OfflineBackend
from .providers.catalog import OFFLINE, all_providers, provider_of
from .providers.discovery import ModelDiscovery, ServerModels
from .registry import AgentParts, default_parts
from .run.backend import PydanticAIBackend


class AgentRouter:
    """The ``AgentLoop`` for the orchestrator: each turn is answered by the backend of its model string.

    A model string is ``offline`` or ``provider:model``, as pydantic-ai names them.
    """

    def __init__(self, agent_parts: AgentParts | None = None) -> None:
        agent_parts = agent_parts or default_parts()
        self._offline = OfflineBackend(agent_parts)
        self._model = PydanticAIBackend(agent_parts)
        self._discovery = ModelDiscovery()

    def backend_for(self, model: str) -> AgentLoop:
        """The backend that answers with this model. Whether it can is found out by running it."""
        return self._offline if model.strip() == OFFLINE else self._model

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``."""
        # The backend's own iterator and no generator around it, so that closing it closes the backend's run at once.
        return self.backend_for(turn.model).run(turn, context)

    @staticmethod
    def validate(model: str) -> str:
        """A model string as it is to be stored. Raises InvalidRequest for an unknown provider or a wrong form.

        A model whose extra or key is missing is valid: both may come later, and the run's error names what to do.
        """
        name = model.strip()
        if name.lower() == OFFLINE:
            return OFFLINE
        provider_of(name)
        return name

    @staticmethod
    def problem(model: str) -> str | None:
        """Why a model cannot be used here, and the one thing that changes that; None when it can."""
        if model.strip() == OFFLINE:
            return None
        try:
            return provider_of(model.strip()).missing()
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
        names = self._names(*also)
        for prefix, server in listed.items():
            names |= dict.fromkeys(f"{prefix}:{model}" for model in server.models)
        return [self._entry(name, listed.get(name.partition(":")[0])) for name in names]

    @staticmethod
    def _names(*also: str) -> dict[str, None]:
        suggested = (f"{prefix}:{model}" for prefix, one in all_providers().items() for model in one.models)
        return dict.fromkeys([OFFLINE, *also, *suggested])

    def _entry(self, name: str, server: ServerModels | None = None) -> dict[str, Any]:
        reason = self.problem(name) or (server.problem if server is not None else None)
        prefix = name.partition(":")[0]
        provider = all_providers().get(prefix)
        label = "built in, no language model" if name == OFFLINE else provider.label if provider else prefix
        return {"name": name, "usable": reason is None, "reason": reason, "provider": label}
