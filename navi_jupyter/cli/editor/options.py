"""The settings of a session as an editor shows them, and the errors that it is sent.

Profiles are the modes of the Agent Client Protocol; profile and model are configuration options as well, which newer
editors show in place of modes (https://agentclientprotocol.com/protocol/session-config-options).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from acp import RequestError, schema

from ...kernel.errors import Refused
from ..server_link import ServerLink
from .prompts import refused

ConfigOption = schema.SessionConfigOptionSelect | schema.SessionConfigOptionBoolean

INTERNAL, AUTH_REQUIRED = -32603, -32000  # JSON-RPC's, and the code of ACP for a missing login


async def settings_of(
    link: ServerLink, session: Mapping[str, Any]
) -> tuple[schema.SessionModeState, list[ConfigOption]]:
    """The profiles of a session as modes; and as configuration options its profile, its model, and what the agent
    program offers that answers in it, if one does. ``session``: as ``GET sessions/{sid}`` has it. Raises KernelError.
    """
    profiles = (await link.request("GET", "profiles"))["profiles"]
    models = (await link.request("GET", "models"))["models"]
    modes = [
        schema.SessionMode(id=one["name"], name=one["name"], description=one["description"] or None)
        for one in profiles
        if one["available"] or one["name"] == session["profile"]
    ]
    if all(mode.id != session["profile"] for mode in modes):
        modes.append(schema.SessionMode(id=session["profile"], name=session["profile"]))
    names = [one["name"] for one in models if one["available"] or one["name"] == session["model"]]
    names += [] if session["model"] in names else [session["model"]]
    options: list[ConfigOption] = [
        _select("mode", "Profile", session["profile"], [(mode.id, mode.id, mode.description) for mode in modes]),
        _select("model", "Model", session["model"], [(name, name, None) for name in names]),
    ]
    offer = session.get("agent_offer") or {}
    for kind, label in (("mode", "mode"), ("model", "model")):
        offered = [(one["id"], one["name"], one.get("description")) for one in offer.get(f"{kind}s") or ()]
        if offered:
            current = (session.get("agent_options") or {}).get(kind) or offer.get(kind) or offered[0][0]
            options.append(_select(f"agent_{kind}", f"{offer['agent']}: {label}", current, offered))
    return schema.SessionModeState(current_mode_id=session["profile"], available_modes=modes), options


def patch_of(config_id: str, value: object) -> dict[str, Any]:
    """The change of a session by which one of these options gets a value. Raises RequestError."""
    if isinstance(value, str) and config_id in ("mode", "model"):
        return {"profile" if config_id == "mode" else "model": value}
    if isinstance(value, str) and config_id in ("agent_mode", "agent_model"):
        return {"agent_options": {config_id.removeprefix("agent_"): value}}
    raise refused(f"There is no such option: {config_id[:60]!r}. There are mode and model, which take a name.")


async def settings_updates(link: ServerLink, session_id: str) -> list[Any]:
    """The updates that show the settings of a session as they are now. Raises KernelError."""
    modes, options = await settings_of(link, await link.request("GET", f"sessions/{session_id}"))
    return [
        schema.CurrentModeUpdate(session_update="current_mode_update", current_mode_id=modes.current_mode_id),
        schema.ConfigOptionUpdate(session_update="config_option_update", config_options=options),
        await commands_of(link, session_id),
    ]


async def commands_of(link: ServerLink, session_id: str) -> schema.AvailableCommandsUpdate:
    """The slash commands of a session: prompts by name, and those of its agent program. Raises KernelError."""
    prompts = (await link.request("GET", "prompts"))["prompts"]
    session = await link.request("GET", f"sessions/{session_id}")
    listed: list[tuple[str, str, str | None]] = [
        (one["name"], one["description"], None) for one in prompts if one["available"]
    ]
    known = {name for name, *_ in listed}
    offered = (session.get("agent_offer") or {}).get("commands") or ()
    listed += [(one["name"], one["description"], one.get("hint")) for one in offered if one["name"] not in known]
    return schema.AvailableCommandsUpdate(
        session_update="available_commands_update",
        available_commands=[
            schema.AvailableCommand(
                name=name,
                description=description or name,
                input=schema.AvailableCommandInput(schema.UnstructuredCommandInput(hint=hint or "what it is about")),
            )
            for name, description, hint in listed
        ],
    )


def _select(
    name: str, label: str, current: str, values: Sequence[tuple[str, str, str | None]]
) -> schema.SessionConfigOptionSelect:
    listed = [
        schema.SessionConfigSelectOption(value=value, name=shown, description=words or None)
        for value, shown, words in values
    ]
    category: Literal["mode", "model"] = "mode" if name.endswith("mode") else "model"
    return schema.SessionConfigOptionSelect(
        type="select", id=name, name=label, category=category, current_value=current, options=listed
    )


def request_error(problem: Exception) -> RequestError:
    """An error of the client as one of JSON-RPC, with its words."""
    if not isinstance(problem, Refused):
        return failure(getattr(problem, "message", str(problem)), getattr(problem, "code", "error"))
    data = {"code": problem.server_code, "field": problem.field}
    if problem.server_status in (401, 403):
        return RequestError(AUTH_REQUIRED, problem.message, data)
    if 400 <= problem.server_status < 500:
        return refused(problem.message, **data)
    return RequestError(INTERNAL, problem.message, data)


def failure(words: str, code: str | None) -> RequestError:
    """JSON-RPC's error for what went wrong here, with a stable code beside the words."""
    return RequestError(INTERNAL, words, {"code": code})
