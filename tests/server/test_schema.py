"""The JSON schema that ships with the package."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]

from navi_jupyter.clock import now
from navi_jupyter.model.recalls import Cron, Policy, Recall, RecallStatus
from navi_jupyter.server import schema


def test_the_shipped_schema_is_that_of_the_classes() -> None:
    """If not: python -m navi_jupyter.server.schema"""
    assert schema.SCHEMA_FILE.read_text(encoding="utf-8") == schema.text()


def test_the_schema_is_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.document())


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    text = schema.text()
    names = {part.split('"', 1)[0] for part in text.split('"#/$defs/')[1:]}
    assert names <= set(json.loads(text)["$defs"])


def test_what_the_server_writes_fits_the_schema() -> None:
    at = now()
    recall = Recall(
        id="w_1",
        session_id="s_1",
        title="t",
        message="m",
        schedule=Cron(expr="0 9 * * *", tz="Europe/Berlin"),
        policy=Policy(),
        status=RecallStatus.PENDING,
        next_at=at,
        created_at=at,
    )
    _check("Recall", recall.wire())


def test_an_input_needs_its_tag_and_not_its_defaults() -> None:
    _check("Command", {"type": "prompt", "text": "hello"})
    validator = _validator("Command")
    assert not validator.is_valid({"text": "hello"})
    assert not validator.is_valid({"type": "prompt", "text": "hello", "unknown": 1})


def _check(name: str, value: object) -> None:
    _validator(name).validate(value)


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema.document() | {"$ref": f"#/$defs/{name}"})
