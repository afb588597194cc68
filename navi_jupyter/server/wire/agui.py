"""The body of ``POST agui``: ``RunAgentInput`` of the Agent User Interaction Protocol, version 1.0, within bounds.

Members that the protocol does not describe are left out or kept unread, as it asks of those who read it; a member that
it describes and that has another type is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from ...commands import PromptMode
from ...model.base import ModelName, ProfileName, ZoneName

PROTOCOL = "1.0"  # what this server speaks
_OWN_MAJOR = PROTOCOL.partition(".")[0]
MOST_MESSAGES = 20_000

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Words = Annotated[str, StringConstraints(max_length=1000)]


class AguiValue(BaseModel):
    """Base of what an AG-UI client sends: camelCase on the wire; unknown members are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class AguiSource(AguiValue):
    """Where the bytes of a media part are: ``data`` (base64), ``url`` or ``file`` (of a provider)."""

    type: _Words
    value: str
    mime_type: _Words | None = None


class AguiPart(AguiValue):
    """A part of a message's content: text, or an image, a document, audio or video with its source."""

    type: _Words
    text: str | None = None
    source: AguiSource | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type == "text" and self.text is None:
            raise ValueError("a text part has text")
        if self.type in ("image", "document", "audio", "video") and self.source is None:
            raise ValueError(f"a part of type {self.type} has a source")
        return self


class AguiMessage(AguiValue):
    """A message of the client's conversation. What is not read here is kept: a snapshot gives it back as it came."""

    model_config = ConfigDict(frozen=True, extra="allow", alias_generator=to_camel, populate_by_name=True)

    id: Identifier
    role: _Words
    content: str | tuple[AguiPart, ...] | dict[str, Any] | None = None
    tool_call_id: Identifier | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _of_its_role(self) -> Self:
        if self.role in ("user", "tool") and not isinstance(self.content, str | tuple):
            raise ValueError(f"content of a message of the role {self.role} is text or a list of parts")
        if self.role in ("system", "developer") and not isinstance(self.content, str):
            raise ValueError(f"content of a message of the role {self.role} is text")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("a tool message has a toolCallId")
        return self

    @property
    def text(self) -> str:
        """Its text: of several parts those that are text, one after the other."""
        if isinstance(self.content, tuple):
            return "\n\n".join(part.text for part in self.content if part.type == "text" and part.text)
        return self.content if isinstance(self.content, str) else ""

    @property
    def media(self) -> tuple[AguiPart, ...]:
        """Its parts that are not text."""
        return tuple(part for part in self.content if part.type != "text") if isinstance(self.content, tuple) else ()


class AguiTool(AguiValue):
    """A tool of the client's."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    description: str = ""
    parameters: Any = None


class AguiContext(AguiValue):
    """Something that the application wants the model to read."""

    description: str
    value: str


class AguiResume(AguiValue):
    """The answer to one interrupt (``ResumeEntry``)."""

    interrupt_id: Identifier
    status: Annotated[str, StringConstraints(pattern=r"^(resolved|cancelled)$")]
    payload: Any = None


class AguiProps(AguiValue):
    """What of ``forwardedProps`` is read here: settings of the prompt and of its session."""

    model: ModelName | None = None
    profile: ProfileName | None = None
    mode: PromptMode | None = None
    timezone: ZoneName | None = None


def _object(value: object) -> object:
    """``forwardedProps`` may be any JSON value: what is no object has nothing for us."""
    return value if isinstance(value, dict | AguiProps) else {}


class RunAgentInput(AguiValue):
    """Body of ``POST agui``: AG-UI 1.0's input of a run, by which a client prompts, answers and joins."""

    thread_id: Identifier
    run_id: Identifier
    parent_run_id: Identifier | None = None
    protocol_version: _Words | None = None
    messages: Annotated[tuple[AguiMessage, ...], Field(max_length=MOST_MESSAGES)]
    tools: Annotated[tuple[AguiTool, ...], Field(max_length=100)] | None = None
    context: Annotated[tuple[AguiContext, ...], Field(max_length=500)] | None = None
    state: Any = None
    forwarded_props: Annotated[AguiProps, BeforeValidator(_object)] = AguiProps()
    resume: Annotated[tuple[AguiResume, ...], Field(max_length=500)] | None = None

    @model_validator(mode="after")
    def _spoken_here(self) -> Self:
        major, _, minor = (self.protocol_version or PROTOCOL).partition(".")
        # A version that cannot be read is taken for a newer one of our own line, which is served.
        if major.isdecimal() and minor.isdecimal() and major != _OWN_MAJOR:
            raise ValueError(f"protocolVersion {self.protocol_version} is not served here; this is {PROTOCOL}")
        return self
