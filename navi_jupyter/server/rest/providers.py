"""Providers of models: what each needs, where that is set, and whether a model answers.

No answer has a key in it. Keys and addresses are stored by ``agent.providers.stored_settings``.
"""

from __future__ import annotations

import asyncio
from typing import Literal

from ...agent.providers.catalog import all_providers, environment, variable_of
from ...agent.providers.stored_settings import STORED
from ...errors import Forbidden, InvalidRequest, ModelUnavailable, ProviderSet, RunFailed, StoreError
from ..http import NOTHING, HttpReply, Query
from ..wire import agent as wire
from .routing import Call, OperationTable, reply

TABLE = OperationTable()

_SAME = {"openai": "openai-chat", "openai-responses": "openai-chat", "azure-responses": "azure"}
"""Prefixes that have the key of another one."""


@TABLE.add(
    "GET providers",
    "read",
    answers="ProviderPage",
    query=(Query(name="local", help="`1`: also the servers of models that answer on this machine."),),
)
async def list_providers(call: Call) -> HttpReply:
    """The providers of models that take a key or an address, and whether it is set. Never the key itself."""
    # Where nothing may be stored, an address that was found cannot be used either.
    looks = call.string("local") == "1" and call.services.settings.find_local_models and STORED.allowed
    found = await call.agent.backends.servers_here() if looks else []
    return reply(
        wire.ProviderPage(
            providers=tuple(_info(name) for name in all_providers() if name not in _SAME and _takes_something(name)),
            local=tuple(
                wire.LocalServer(name=one.name, label=one.label, url=one.url, models=one.models) for one in found
            ),
            may_store=STORED.allowed,
            file=str(STORED.path) if STORED.allowed else None,
            next=None,
        )
    )


def _takes_something(name: str) -> bool:
    try:
        variable_of(name, "")
    except InvalidRequest:
        return False
    return True


def _info(name: str) -> wire.ProviderInfo:
    provider = all_providers()[name]
    setting = variable_of(name, "")
    source: Literal["environment", "stored"] | None = None
    if setting in STORED.values():
        source = "stored"
    if provider.has_key() and (provider.keys or provider.base_url in environment()) and source is None:
        source = "environment"
    why = provider.missing()
    return wire.ProviderInfo(
        name=name,
        label=provider.label,
        setting=setting,
        kind="address" if setting.endswith("_URL") else "key",
        prefixes=provider.prefixes,
        installed=provider.is_installed,
        source=source,
        available=why is None,
        why=why,
    )


@TABLE.add(
    "PUT providers/{name}",
    "write",
    body="ProviderSetting",
    answers="ProviderInfo",
    errors=(Forbidden, ProviderSet, StoreError),
)
async def set_provider(call: Call) -> HttpReply:
    """Store the key or the address of a provider on this server, in a file that only its owner reads."""
    name = call.parameters["name"]
    setting: wire.ProviderSetting = call.body()
    await asyncio.to_thread(call.agent.backends.set_provider, name, setting.value)
    return reply(_info(name))


@TABLE.add("DELETE providers/{name}", "write", status=204, errors=(Forbidden, ProviderSet, StoreError))
async def forget_provider(call: Call) -> HttpReply:
    """Forget what is stored for a provider."""
    await asyncio.to_thread(call.agent.backends.set_provider, call.parameters["name"], None)
    return NOTHING


@TABLE.add("POST models/test", "execute", body="NamedModel", answers="ModelTestResult")
async def test_model(call: Call) -> HttpReply:
    """Whether a model answers: one short request, which may cost a fraction of a cent."""
    body: wire.NamedModel = call.body()
    try:
        seconds = await call.agent.backends.test(body.model)
    except RunFailed as error:
        return reply(wire.ModelTestResult(ok=False, message=error.message, seconds=0.0))
    return reply(wire.ModelTestResult(ok=True, message=f"It answered in {seconds:.1f} s.", seconds=round(seconds, 2)))


@TABLE.add("GET models/preferred", "read", answers="ModelPreference")
async def preferred_model(call: Call) -> HttpReply:
    """The model of your new sessions: the one that you have chosen last, else the administrator's default."""
    return reply(await call.agent.choice.preference(call.owner))


@TABLE.add(
    "PUT models/preferred", "write", body="NamedModel", answers="ModelPreference", errors=(ModelUnavailable, StoreError)
)
async def prefer_model(call: Call) -> HttpReply:
    """Choose the model of new sessions. Choosing that of a session (`PATCH sessions/{sid}`) does it, too."""
    body: wire.NamedModel = call.body()
    return reply(await call.agent.choice.choose(call.owner, body.model))


@TABLE.add("DELETE models/preferred", "write", answers="ModelPreference", errors=(StoreError,))
async def forget_preferred_model(call: Call) -> HttpReply:
    """Have new sessions use the administrator's default again."""
    return reply(await call.agent.choice.choose(call.owner, None))
