"""The JSON schema of everything on the wire, generated from the classes that read and write it.

``python -m navi_jupyter.server.schema`` writes ``navi_jupyter/schema.json``, which ships with the package and which the
TypeScript types are generated from; a test keeps it fresh. Not responsible for routes: that is ``openapi``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode
from pydantic_core import core_schema

from .. import commands, events
from ..model import attachments, recalls, sessions
from ..notifications import webhook_body
from .wire import INPUTS, agent
from .wire import edits as edit_bodies
from .wire import recalls as recall_bodies
from .wire import session_list as session_list_bodies
from .wire import sessions as session_bodies

_Field = core_schema.ModelField | core_schema.DataclassField | core_schema.TypedDictField
SCHEMA_FILE = Path(__file__).parent.parent / "schema.json"

OUTPUTS: dict[str, Any] = {
    name: value
    for module in (agent, edit_bodies, recall_bodies, session_bodies, session_list_bodies)
    for name, value in vars(module).items()
    if isinstance(value, type)
    and issubclass(value, BaseModel)
    and value.__module__ == module.__name__
    and name not in INPUTS
} | {
    "Acceptance": commands.Acceptance,
    "Attachment": attachments.Attachment,
    "Fact": attachments.Fact,
    "Firing": recalls.Firing,
    "Recall": recalls.Recall,
    "Run": sessions.Run,
    "Schedule": recalls.Schedule,
    "ServerFrame": session_bodies.ServerFrame,
    "Session": sessions.Session,
    "WebhookEvent": webhook_body.WebhookEvent,
}
"""What the server sends: all of it, always, with ``null`` where there is no value."""

EVENTS: dict[str, Any] = {"AnyEvent": events.AnyEvent, "Envelope": events.Envelope}
"""What followers get: fields without a value are left out."""


class _Tagged(GenerateJsonSchema):
    """For what clients send: only fields without default are required, and the tag of the kind."""

    def field_is_required(self, field: _Field, total: bool) -> bool:
        inner: Any = field["schema"].get("schema", {})
        is_tag = inner.get("type") == "literal" and len(inner["expected"]) == 1
        return is_tag or super().field_is_required(field, total)


class _Complete(GenerateJsonSchema):
    """For values that are written whole: every field is there."""

    def field_is_required(self, field: _Field, total: bool) -> bool:  # noqa: ARG002
        return True


class _Sparse(GenerateJsonSchema):
    """For values that are written without their nulls: a field is there unless its default is null."""

    def field_is_required(self, field: _Field, total: bool) -> bool:  # noqa: ARG002
        inner = field["schema"]
        return inner["type"] != "default" or inner.get("default") is not None


def definitions(ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
    """Name -> JSON schema (draft 2020-12) of everything above and all that it refers to, sorted by name.

    A type that is both sent and received, with other fields required, is in there twice: as ``X`` and as ``XInput``.
    """
    inputs = _schemas(INPUTS, "validation", _Tagged, ref_template)
    sparse = _schemas(EVENTS, "serialization", _Sparse, ref_template)
    # Where both have a type, the sparse form is right; but ``Origin`` is written with its nulls in an envelope, too.
    outputs = sparse | {
        name: schema
        for name, schema in _schemas(OUTPUTS, "serialization", _Complete, ref_template).items()
        if name == "Origin" or name not in sparse
    }
    # The fields that are left out instead of null.
    outputs["ErrorBody"]["required"].remove("field")
    outputs["Origin"]["required"].remove("kernel_id")
    twice = [name for name, schema in inputs.items() if outputs.get(name, schema) != schema]
    renamed = {ref_template.format(model=name): ref_template.format(model=f"{name}Input") for name in twice}
    inputs = {
        f"{name}Input" if name in twice else name: _with_references(schema, renamed) for name, schema in inputs.items()
    }
    return dict(sorted((_titled(name, schema)) for name, schema in (inputs | outputs).items()))


def _schemas(
    group: dict[str, Any], mode: JsonSchemaMode, generator: type[GenerateJsonSchema], ref_template: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in group.items():
        schema = TypeAdapter(kind).json_schema(
            by_alias=True, ref_template=ref_template, schema_generator=generator, mode=mode
        )
        found.update(schema.pop("$defs", {}))
        if schema.get("$ref") != ref_template.format(model=name):
            found[name] = schema
    return found


def _with_references(schema: Any, renamed: dict[str, str]) -> Any:
    """``schema`` with its references (and nothing else) changed."""
    if isinstance(schema, dict):
        return {key: _with_references(value, renamed) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_with_references(value, renamed) for value in schema]
    return renamed.get(schema, schema) if isinstance(schema, str) else schema


def _titled(name: str, schema: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Without pydantic's titles of fields, which repeat the name; titled by its own name."""
    fields = {
        key: {word: value for word, value in field.items() if word != "title"}
        for key, field in schema.get("properties", {}).items()
    }
    named = {"title": name, **{word: value for word, value in schema.items() if word != "title"}}
    return name, named | ({"properties": fields} if fields else {})


def document() -> dict[str, Any]:
    """The whole schema as one JSON Schema document whose ``$defs`` are the types."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "navi-jupyter",
        "description": "Written by `python -m navi_jupyter.server.schema`; do not edit.",
        "$defs": definitions(),
    }


def text() -> str:
    """What ``schema.json`` must hold."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(text(), encoding="utf-8")
