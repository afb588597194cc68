"""Which loop answers a model string, what can be used here, and why the rest can not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ..errors import InvalidRequest
from ..events import Event
from ..ports import AgentLoop, ToolContext, Turn, TurnResult
from .catalog import OFFLINE, PROVIDERS, provider_of
from .loop import ModelLoop
from .offline import OfflineLoop


class Backends:
    """Resolves model strings: ``offline``, else ``provider:model`` as pydantic-ai names them."""

    def __init__(self) -> None:
        self._offline = OfflineLoop()
        self._model = ModelLoop()

    def loop_for(self, model: str) -> AgentLoop:
        """The loop that answers with this model; whether it can is found out by running it."""
        return self._offline if model.strip() == OFFLINE else self._model

    @staticmethod
    def validate(model: str) -> str:
        """A model string as it is to be stored. Raises InvalidRequest for an unknown provider or a wrong form.

        A model whose extra or key is missing is valid: both may come later, and the run says what to do.
        """
        name = model.strip()
        if name.lower() == OFFLINE:
            return OFFLINE
        provider_of(name)
        return name

    @staticmethod
    def usable(model: str) -> str | None:
        """Why a model can not be used here and the one thing that changes that; None when it can."""
        if model.strip() == OFFLINE:
            return None
        try:
            return provider_of(model.strip()).missing()
        except InvalidRequest as error:
            return error.message

    def describe(self, *also: str) -> list[dict[str, Any]]:
        """For ``GET models``: ``{"name","usable","reason","provider"}`` each; ``also`` are models in use, listed first.

        Looks for packages and environment variables only: nothing is imported and nobody is asked.
        """
        names = dict.fromkeys([OFFLINE, *also])
        names |= dict.fromkeys(
            f"{prefix}:{model}" for prefix, provider in PROVIDERS.items() for model in provider.models
        )
        return [self._entry(name) for name in names]

    def _entry(self, name: str) -> dict[str, Any]:
        reason = self.usable(name)
        prefix = name.partition(":")[0]
        label = (
            "built in, no language model"
            if name == OFFLINE
            else PROVIDERS[prefix].label
            if prefix in PROVIDERS
            else prefix
        )
        return {"name": name, "usable": reason is None, "reason": reason, "provider": label}


class AgentRouter:
    """The ``AgentLoop`` for the orchestrator: each turn is answered by its model's loop."""

    def __init__(self, backends: Backends | None = None) -> None:
        self.backends = backends or Backends()

    def run(self, turn: Turn, context: ToolContext) -> AsyncIterator[Event | TurnResult]:
        """See ``ports.AgentLoop``. The chosen loop's own iterator, so that closing it closes the loop."""
        return self.backends.loop_for(turn.model).run(turn, context)
