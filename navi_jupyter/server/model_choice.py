"""The model of a user's new sessions: the one that the user has chosen last, else the administrator's default.

Not responsible for which models can be used (``agent.router``) or for the models of profiles, which go before it.
"""

from __future__ import annotations

from ..agent.router import AgentRouter
from ..store.memory import PreferenceStore
from .wire.agent import ModelPreference


class ModelChoice:
    """Chosen in the chat, by ``%navi model`` or by ``PUT models/preferred``; kept for each user on the server."""

    def __init__(self, store: PreferenceStore, backends: AgentRouter, *, default: str) -> None:
        """``default``: the setting ``default_model``."""
        self._store = store
        self._backends = backends
        self._default = default

    async def preference(self, owner: str) -> ModelPreference:
        """What new sessions of this user get, and why that is not what the user has chosen."""
        chosen = await self._store.model(owner)
        problem = None if chosen is None else self._backends.problem(chosen)
        usable = chosen is not None and problem is None
        return ModelPreference(
            model=chosen if chosen is not None and usable else self._default,
            chosen=chosen,
            why=None if problem is None else f"{chosen} cannot be used here any more. {problem}",
            default=self._default,
        )

    async def of_new_session(self, owner: str) -> str:
        """The model of a session that names none, and whose profile names none."""
        return (await self.preference(owner)).model

    async def choose(self, owner: str, model: str | None) -> ModelPreference:
        """Have new sessions use it; None: the default again. Raises InvalidRequest, ModelUnavailable."""
        await self._store.set_model(owner, None if model is None else self._backends.check(model))
        return await self.preference(owner)

    async def remember(self, owner: str, model: str) -> None:
        """A session of this user has this model now, because the user wanted it so."""
        await self._store.set_model(owner, model)

    async def import_ahead(self) -> None:
        """Import what runs will need with the models that are configured, chosen, or were used last."""
        await self._backends.import_ahead(dict.fromkeys([self._default, *await self._store.models()]))

    async def note(self, owner: str, model: str) -> str | None:
        """What the user of a new session with this model should know, in a sentence; None: nothing."""
        found = await self.preference(owner)
        if found.why is None or model != found.model:
            return None
        return f"{found.why} This session uses {model}."
