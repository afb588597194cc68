"""What users have of their own: profiles, MCP servers, targets of notifications. For the request's user alone.

No answer contains an address or a header: they have keys in them.
"""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ...agent.profiles.files import ProfileForm
from ...agent.profiles.user_profiles import UserProfiles
from ...errors import LimitReached, NotFound
from ...model.base import ProfileName
from ...notifications.service import TargetState
from ...ports.notifications import TargetRecord
from ..bodies import valid_name
from ..http import NOTHING, HttpReply
from ..wire import recalls as recall_bodies
from .about import server_info
from .routing import Call, OperationTable, reply
from .user import target_info

TABLE = OperationTable()


@TABLE.add("PUT profiles/{name}", "execute", body="ProfileForm", answers="ProfileInfo", errors=(LimitReached,))
async def put_profile(call: Call) -> HttpReply:
    """Make a profile of your own, or replace it. It goes before one of a file with its name."""
    form: ProfileForm = call.body()
    name = valid_name(ProfileName, call.parameters["name"])
    parts, configurations = call.agent.parts, call.agent.configurations
    if form.model is not None:
        call.agent.backends.validate(form.model)
    text = json.dumps(form.model_dump(mode="json", exclude_unset=True))
    # Resolved before it is stored: one that extends what there is not, or itself, is refused and not kept.
    before = await configurations.read(call.owner)
    UserProfiles(parts.profiles, before.with_profile(name, text)).get(name)
    await configurations.put(call.owner, "profile", name, text)
    found = [one for one in await call.agent.profiles(call.owner) if one.name == name]
    if not found:
        raise _unknown("profile", call)  # removed at once, by another request
    return reply(found[0])


@TABLE.add("DELETE profiles/{name}", "execute", status=204, errors=(NotFound,))
async def remove_profile(call: Call) -> HttpReply:
    """Remove a profile of your own. One of a file with its name is used again."""
    if not await call.agent.configurations.remove(call.owner, "profile", call.parameters["name"]):
        raise _unknown("profile", call)
    return NOTHING


@TABLE.add("PUT mcp/{name}", "execute", body="McpServerEntry", answers="McpServerInfo", errors=(LimitReached,))
async def put_mcp_server(call: Call) -> HttpReply:
    """Configure an MCP server of your own, or replace it. It is reached by a URL, and used by your runs alone."""
    name, entry = call.parameters["name"], _set_fields(call.body())
    call.agent.mcp.check(name, entry)
    await call.agent.configurations.put(call.owner, "mcp", name, json.dumps(entry))
    states = await call.agent.mcp.states(await call.agent.configurations.read(call.owner))
    found = [state for state in states if state.config.name == name]
    if not found:
        raise _unknown("MCP server", call)  # removed at once, by another request
    return reply(server_info(found[0]))


@TABLE.add("DELETE mcp/{name}", "execute", status=204, errors=(NotFound,))
async def remove_mcp_server(call: Call) -> HttpReply:
    """Remove an MCP server of your own, and close the connection to it."""
    if not await call.agent.configurations.remove(call.owner, "mcp", call.parameters["name"]):
        raise _unknown("MCP server", call)
    await call.agent.mcp.states(await call.agent.configurations.read(call.owner))
    return NOTHING


@TABLE.add("PUT notify/{name}", "write", body="NotifyEntry", answers="NotifyTarget", errors=(LimitReached,))
async def put_target(call: Call) -> HttpReply:
    """Configure a target of notifications of your own, or replace it. Your recalls can name it from now on."""
    entry: recall_bodies.NotifyEntry = call.body()
    own = call.recalls.targets
    target = await own.put(call.owner, call.parameters["name"], _set_fields(entry))
    states = await call.recalls.notifications.states(call.owner)
    state = next((one for one in states if one.target.name == target.name), None)
    return reply(target_info(state or TargetState(target=target, record=TargetRecord())))


@TABLE.add("DELETE notify/{name}", "write", status=204, errors=(NotFound,))
async def remove_target(call: Call) -> HttpReply:
    """Remove a target of your own. What waits for it is sent to one of a file with its name, or fails."""
    if not await call.recalls.targets.remove(call.owner, call.parameters["name"]):
        raise _unknown("notification target", call)
    return NOTHING


def _set_fields(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude_unset=True)


def _unknown(what: str, call: Call) -> NotFound:
    return NotFound(f"You have no {what} {call.parameters['name'][:64]!r} of your own.")
