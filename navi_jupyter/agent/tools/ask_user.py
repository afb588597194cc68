"""The tool ``ask_user``: puts a question to the user, whose answer is the result of the call.

The question is an interrupt like an approval: durable, answerable in every view, closed when its run ends. The answer
is checked against a schema that is made here. Not responsible for waiting (``agent.run.toolset``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import InvalidRequest, ToolUnavailable
from ...model.runs import Effect, Interrupt, InterruptKind, InterruptStatus
from ...ports.agent import Ask, ToolContext
from .base import BUILTIN, ToolOutput, arguments_of, mistakes_in, tool

NO_ONE_TO_ASK = (
    "A recall started this run, so the user is not asked: it may wait for answers only when the user has allowed the "
    "recall ask_user. Go on with the most sensible assumption and say which it was, or say what you need to know."
)
_ANSWER, _OTHER = "answer", "other"  # names of fields

Choice = Annotated[str, Field(min_length=1, max_length=200)]


class FormField(BaseModel):
    """One value of a form."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$", description="The key of it in the answer.")]
    label: Annotated[str | None, Field(description="What the user reads beside it.", max_length=200)] = None
    type: Literal["text", "number", "integer", "boolean", "date", "choice"] = "text"
    choices: Annotated[
        list[Choice] | None, Field(description="For the type `choice`.", min_length=1, max_length=50)
    ] = None
    required: bool = True
    default: Annotated[str | int | float | bool | None, Field(description="What is filled in already.")] = None


async def ask_user(
    question: Annotated[str, Field(description="One question, complete in itself.", min_length=1, max_length=2000)],  # noqa: ARG001  read by `_inquiry`
    choices: Annotated[  # noqa: ARG001
        list[Choice] | None,
        Field(
            description="What the user chooses one of. Without choices and fields: free text.",
            min_length=2,
            max_length=20,
        ),
    ] = None,
    other: Annotated[bool, Field(description="Beside the choices the user may write something else.")] = False,  # noqa: ARG001
    fields: Annotated[  # noqa: ARG001
        list[FormField] | None,
        Field(description="A form of several values, in place of choices.", min_length=1, max_length=20),
    ] = None,
) -> str:
    """Ask the user something that you need to know to go on, and wait for the answer.

    Use it where a wrong assumption would cost the user time, not for what a tool can tell you and not to have a call
    approved: that is asked by itself. The user may decline.
    """
    raise ToolUnavailable("What answers here without a language model cannot wait for an answer.")


_ARGUMENTS = arguments_of(ask_user, "ask_user")


def _inquiry(args: Mapping[str, Any], _context: ToolContext) -> Ask:
    try:
        valid: Any = _ARGUMENTS.model_validate(dict(args))
    except ValidationError as error:
        raise InvalidRequest(mistakes_in(error)) from None
    if valid.choices and valid.fields:
        raise InvalidRequest("Give either choices or fields.", field="fields")
    if valid.fields:
        properties = {field.name: _property(field) for field in valid.fields}
        if len(properties) < len(valid.fields):
            raise InvalidRequest("Two fields have the same name.", field="fields")
        required = [field.name for field in valid.fields if field.required and field.type != "boolean"]
    else:
        properties, required = _answer_properties(valid.choices or (), other=valid.other)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return Ask(kind=InterruptKind.QUESTION, message=valid.question, source=BUILTIN, response_schema=schema)


def _answer_properties(choices: Sequence[str], *, other: bool) -> tuple[dict[str, Any], list[str]]:
    if not choices:
        return {_ANSWER: {"type": "string", "title": "Answer", "minLength": 1, "maxLength": 20_000}}, [_ANSWER]
    answer: dict[str, Any] = {"type": "string", "title": "Answer", "enum": list(dict.fromkeys(choices))}
    if not other:
        return {_ANSWER: answer}, [_ANSWER]
    text = {"type": "string", "title": "Something else", "maxLength": 20_000}
    return {_ANSWER: answer, _OTHER: text}, []


def _property(field: FormField) -> dict[str, Any]:
    if (field.type == "choice") != bool(field.choices):
        raise InvalidRequest("Choices belong to the type choice, and it needs some.", field=f"fields.{field.name}")
    kind = {"text": "string", "date": "string", "choice": "string"}.get(field.type, field.type)
    described: dict[str, Any] = {"type": kind, "title": field.label or field.name}
    if field.type == "text":
        described["maxLength"] = 20_000 if field.default is None else max(300, len(str(field.default)))
    if field.type == "date":
        described["format"] = "date"
    if field.choices:
        described["enum"] = list(dict.fromkeys(field.choices))
    if field.default is not None:
        described["default"] = field.default
    return described


def answer_output(question: Interrupt) -> ToolOutput:
    """What became of a question, as the result of the call that asked it."""
    match question.status:
        case InterruptStatus.RESOLVED:
            return ToolOutput(content=_answer_of(question.payload))
        case InterruptStatus.EXPIRED:
            return _no_answer("expired", "The user did not answer in time. Go on without it, and say what you assumed.")
        case _:
            return _no_answer("declined", "The user declined to answer. Do not ask the same again.")


def _answer_of(payload: Any) -> Any:
    """A single answer as it is; what a form or choices with something else have, by name."""
    if not isinstance(payload, dict) or not payload:
        return {"answer": payload or None}
    return payload if set(payload) - {_ANSWER, _OTHER} else {"answer": payload.get(_OTHER) or payload.get(_ANSWER)}


def _no_answer(code: str, message: str) -> ToolOutput:
    return ToolOutput(content={"error": code, "message": message}, failed=True)


# It changes nothing; its result is the user's own words.
ASK_USER = replace(tool(ask_user, Effect.NOTE, own=True), inquires=_inquiry)
TOOLS = (ASK_USER,)
