"""The settings of a session as an editor shows them, and the errors that it is sent.

Profiles are the modes of the Agent Client Protocol; profile and model are configuration options as well, which newer
editors show in place of modes (https://agentclientprotocol.com/protocol/session-config-options).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from acp import RequestError, schema

from ...kernel.errors import Refused
from ..server_link import ServerLink
from .prompts import refused

ConfigOption = schema.SessionConfigOptionSelect | schema.SessionConfigOptionBoolean

INTERNAL, AUTH_REQUIRED = -32603, -32000  # JSON-RPC's, and the code of ACP for a missing login


async def settings_of(link: ServerLink, session: dict[str, Any]) -> tuple[schema.SessionModeState, list[ConfigOption]]:
    """The profiles of a session as modes, and profile and model as configuration options. Raises KernelError."""
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
        _select("mode", "Profile", session["profile"], [(mode.id, mode.description) for mode in modes]),
        _select("model", "Model", session["model"], [(name, None) for name in names]),
    ]
    return schema.SessionModeState(current_mode_id=session["profile"], available_modes=modes), options


def _select(
    name: Literal["mode", "model"], label: str, current: str, values: Sequence[tuple[str, str | None]]
) -> schema.SessionConfigOptionSelect:
    listed = [schema.SessionConfigSelectOption(value=value, name=value, description=words) for value, words in values]
    return schema.SessionConfigOptionSelect(
        type="select", id=name, name=label, category=name, current_value=current, options=listed
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
