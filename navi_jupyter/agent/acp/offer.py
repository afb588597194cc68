"""What an agent program offers in its session, as it reports it: modes, models and commands, in their present state.

Read from the answer to ``session/new`` (or ``load``, ``resume``) and from the updates ``available_commands_update``,
``current_mode_update`` and ``config_option_update``. Agents have two ways to name modes and models: ``configOptions``
of the categories ``mode`` and ``model``, and the older ``modes`` and ``models``. All of it is foreign: what does not
fit is left out. Not responsible for what is chosen of it (``Session.agent_options``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ...input.json_input import well_formed
from ...model.agent_options import MAX_OPTIONS, AgentCommand, AgentOffer, AgentOption

Kind = Literal["mode", "model"]


class SessionOffer:
    """Of one session of one agent program."""

    def __init__(self, agent: str, title: str) -> None:
        """``title``: the name of the program, where it reports none."""
        self._agent = agent
        self.title = title
        self._options: dict[Kind, tuple[AgentOption, ...]] = {"mode": (), "model": ()}
        self.current: dict[Kind, str | None] = {"mode": None, "model": None}
        self.config_ids: dict[Kind, str] = {}
        """The id of the config option that sets it; none where the older methods do."""
        self._commands: tuple[AgentCommand, ...] = ()

    def value(self) -> AgentOffer:
        """As it is now."""
        return AgentOffer(
            agent=self._agent,
            title=_cut(self.title, 200),
            modes=self._options["mode"],
            mode=_id(self.current["mode"]),
            models=self._options["model"],
            model=_id(self.current["model"]),
            commands=self._commands,
        )

    def has(self, kind: Kind, option: str) -> bool:
        """Whether the agent offers it."""
        return any(each.id == option for each in self._options[kind])

    def has_command(self, text: str) -> bool:
        """Whether a prompt begins with one of its commands: a path at the beginning is none."""
        words = text[1:].split(maxsplit=3) if text.startswith("/") else []
        names = {" ".join(words[:count]) for count in range(1, len(words) + 1)}  # some have blanks: "memory show"
        return any(command.name in names for command in self._commands)

    def begin(self, answer: Mapping[str, Any]) -> None:
        """A session has begun or was continued, with this answer of the agent."""
        modes, models = answer.get("modes"), answer.get("models")
        if isinstance(modes, dict):
            self._options["mode"] = _options(modes.get("availableModes"), "id")
            self.current["mode"] = _id(modes.get("currentModeId"))
        if isinstance(models, dict):  # not in the present schema; Gemini CLI has it
            self._options["model"] = _options(models.get("availableModels"), "modelId")
            self.current["model"] = _id(models.get("currentModelId"))
        self.set_config(answer.get("configOptions"))

    def set_config(self, options: Any) -> None:
        """Take the whole list of config options; the first of a category counts."""
        found: set[str] = set()
        for option in options if isinstance(options, list) else ():
            kind = option.get("category") if isinstance(option, dict) else None
            if kind not in ("mode", "model") or option.get("type") != "select" or kind in found:
                continue
            if (option_id := _id(option.get("id"))) is None:
                continue
            found.add(kind)
            self.config_ids[kind] = option_id
            self._options[kind] = _options(list(_ungrouped(option.get("options"))), "value")
            self.current[kind] = _id(option.get("currentValue"))

    def apply(self, update: Mapping[str, Any]) -> bool:
        """Take an update of the session; whether it was one of the offer."""
        match update.get("sessionUpdate"):
            case "available_commands_update":
                self._commands = tuple(_commands(update.get("availableCommands")))
            case "current_mode_update":
                self.current["mode"] = _id(update.get("currentModeId"))
            case "config_option_update":
                self.set_config(update.get("configOptions"))
            case _:
                return False
        return True


def _ungrouped(options: Any) -> Iterator[Any]:
    for option in options if isinstance(options, list) else ():
        if isinstance(option, dict) and isinstance(option.get("options"), list):
            yield from option["options"]
        else:
            yield option


def _options(listed: Any, key: str) -> tuple[AgentOption, ...]:
    found: dict[str, AgentOption] = {}
    for one in listed if isinstance(listed, list) else ():
        option_id = _id(one.get(key)) if isinstance(one, dict) else None
        if option_id is not None and len(found) < MAX_OPTIONS:
            name = _cut(one.get("name"), 256) or option_id
            found.setdefault(option_id, AgentOption(id=option_id, name=name, description=_cut(one.get("description"))))
    return tuple(found.values())


def _commands(listed: Any) -> Iterator[AgentCommand]:
    for one in (listed if isinstance(listed, list) else ())[:MAX_OPTIONS]:
        name = _id(one.get("name")) if isinstance(one, dict) else None
        if name is not None:
            given = one.get("input")
            hint = _cut(given.get("hint")) if isinstance(given, dict) else None
            yield AgentCommand(name=name.lstrip("/") or name, description=_cut(one.get("description")) or "", hint=hint)


def _id(value: Any) -> str | None:
    """An id as it is, since it is sent back; None for one that is none, or too long to be kept."""
    return value if isinstance(value, str) and 0 < len(value) <= 256 and well_formed(value) == value else None


def _cut(value: Any, most: int = 1000) -> str | None:
    """Words of the agent, within bounds."""
    if not isinstance(value, str) or not value:
        return None
    text = well_formed(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"
