"""What an agent program (model ``acp:<name>``) offers for a session, and what is chosen of it.

An agent program is a coding agent that speaks the Agent Client Protocol (https://agentclientprotocol.com); its modes,
models and commands are its own, and it may change them at any time. Not responsible for asking it
(``agent.acp.options``).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from .base import Value

MAX_OPTIONS = 200
"""Of each kind: what an agent program offers beyond these is left out. Some list every model of their provider."""

OptionId = Annotated[str, StringConstraints(min_length=1, max_length=256)]
OptionName = Annotated[str, StringConstraints(max_length=256)]
OptionText = Annotated[str, StringConstraints(max_length=1024)]


class AgentChoice(Value):
    """The mode and the model that an agent program is to use in a session; null: those that it starts with."""

    mode: OptionId | None = None
    model: OptionId | None = None


NOTHING_CHOSEN = AgentChoice()


class AgentOption(Value):
    """A mode or a model of an agent program, in its own words."""

    id: OptionId
    name: OptionName
    description: OptionText | None = None


class AgentCommand(Value):
    """A slash command of an agent program: sent to it as the text of a prompt, ``/name`` and what follows."""

    name: OptionId  # without the slash
    description: OptionText
    hint: OptionText | None = None  # what may follow the name


class AgentOffer(Value):
    """What an agent program offers in a session: the value of ``navi.agent_options``."""

    agent: OptionId  # its name: that of the model string ``acp:<name>``
    title: OptionText | None = None  # its name and version, as the program has reported them
    modes: Annotated[tuple[AgentOption, ...], Field(max_length=MAX_OPTIONS)] = ()
    mode: OptionId | None = None  # the mode that it is in now
    models: Annotated[tuple[AgentOption, ...], Field(max_length=MAX_OPTIONS)] = ()
    model: OptionId | None = None  # the model that it uses now
    commands: Annotated[tuple[AgentCommand, ...], Field(max_length=MAX_OPTIONS)] = ()
