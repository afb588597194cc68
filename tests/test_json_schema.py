"""Schemas and patterns of strangers: what fits, what does not, what is not checked; and that none takes long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from navi_jupyter.clock import now
from navi_jupyter.commands import Answer
from navi_jupyter.errors import InvalidRequest
from navi_jupyter.input.json_schema import BoundMet, check, measure, mistake_in
from navi_jupyter.input.patterns import MAX_PATTERN, MAX_TEXT, Pattern, PatternRefused
from navi_jupyter.model.runs import Interrupt, InterruptKind
from navi_jupyter.orchestrator.interrupts import checked_payload

EVIL = "^(a+)+$"
A40 = "a" * 40 + "!"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(depth: int) -> dict[str, Any]:
    """Two references to the next definition in each: 2 ** depth steps."""
    links = {f"d{at}": {"allOf": [{"$ref": f"#/$defs/d{at + 1}"}] * 2} for at in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{depth}": {"type": "string"}}}


# Two references to the next definition in each, which no keyword of its own applies.
DEPENDENT = {
    **{f"d{at}": {"dependentSchemas": {one: {"$ref": f"#/$defs/d{at + 1}"} for one in "ab"}} for at in range(40)},
    "d40": {"type": "object"},
}

MISFITS: list[tuple[dict[str, Any], Any, str]] = [
    ({"type": "string", "pattern": EVIL}, A40, "does not match"),
    ({"properties": {"a": {"pattern": EVIL}}}, {"a": A40}, "does not match"),
    ({"anyOf": [{"pattern": EVIL}, {"type": "integer"}]}, A40, "is not valid under any"),
    ({"propertyNames": {"pattern": EVIL}}, {A40: 1}, "does not match"),
    ({"patternProperties": {EVIL: {"type": "integer"}}}, {"aaa": "x"}, "is not of type 'integer'"),
    ({"patternProperties": {EVIL: True}, "additionalProperties": False}, {A40: 1}, "unexpected"),
    ({"patternProperties": {EVIL: True}, "additionalProperties": {"type": "integer"}}, {A40: "x"}, "not of type"),
    ({"$schema": DRAFT_7, "properties": {"a": {"pattern": EVIL}}}, {"a": A40}, "does not match"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"pattern": EVIL}}}, A40, "does not match"),
    ({"if": {"pattern": EVIL}, "else": False}, A40, "False schema"),
    ({"contains": {"pattern": EVIL}}, [A40], "does not contain"),
    ({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1}], "not all different"),
    ({"type": "object", "required": ["n"]}, {}, "'n' is a required property"),
    (doubling(40), 5, "is not of type 'string'"),
    ({"anyOf": [{"items": {"type": "string"}}] * 200}, list(range(50_000)), "is not valid under any"),
    ({"oneOf": [{"type": "integer"}, {"minimum": 1}]}, 5, "more than one"),
    ({"pattern": "^[\\u0041-\\u005a]+$"}, "abc", "does not match"),
    ({"patternProperties": {EVIL: True}, "unevaluatedProperties": False}, {A40: 1}, "unexpected"),
    ({"anyOf": [{"properties": {"a": True}}, {"required": ["b"]}], "unevaluatedProperties": False}, {"c": 1}, "'c'"),
    ({"prefixItems": [True], "unevaluatedItems": {"type": "string"}}, ["x", 1], "not of type"),
]


@pytest.mark.parametrize(("schema", "value", "says"), MISFITS)
def test_a_value_that_does_not_fit_is_found_at_once_whatever_the_pattern(
    schema: dict[str, Any], value: Any, says: str
) -> None:
    began = time.process_time()
    found = check(schema, value)
    assert says in (found.error or "")
    assert found.unchecked is None
    assert time.process_time() - began < 2


FITS: list[tuple[dict[str, Any], Any]] = [
    ({"type": "string", "pattern": EVIL}, "aaaa"),
    ({"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": False}, {"x-a": 1}),
    ({"uniqueItems": True}, [1, True, "1", None, [1], {"a": 1}]),
    ({"uniqueItems": True}, list(range(50_000))),
    (doubling(40), "x"),
    ({"format": "regex"}, "(" * 100),  # a format is a remark, and compiling this one is work
    ({"$schema": "https://example.org/own", "type": "string"}, "x"),
    ({"additionalProperties": True, "unevaluatedProperties": False}, {f"k{n}": n for n in range(40_000)}),
    ({"contains": {"type": "integer"}, "unevaluatedItems": {"type": "integer"}}, list(range(9_000))),
    (
        {"allOf": [{"properties": {"a": True}}, {"patternProperties": {"^b": True}}], "unevaluatedProperties": False},
        {"a": 1, "b1": 2},
    ),
    ({"properties": {"$schema": {"type": "string"}}}, {"$schema": "x"}),
]


@pytest.mark.parametrize(("schema", "value"), FITS)
def test_a_value_that_fits_is_taken(schema: dict[str, Any], value: Any) -> None:
    assert (check(schema, value).error, check(schema, value).unchecked) == (None, None)


UNCHECKED: list[tuple[dict[str, Any], Any, str]] = [
    ({"pattern": "(?=a)b"}, "zz", "look-around"),
    ({"pattern": r"(a)\1"}, "zz", "backreferences"),
    ({"not": {"pattern": "(?=a)b"}}, "zz", "look-around"),
    ({"pattern": "(a{1000}){1000}"}, "zz", "pattern"),
    ({"pattern": "(" * 3000}, "zz", "characters"),
    ({"pattern": "a"}, "x" * (MAX_TEXT + 1), "not searched"),
    ({"items": {"allOf": [{"minimum": 0}] * 100}}, list(range(50_000)), "too long"),
    ({"$ref": "#"}, "x", "RecursionError"),
    ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, "x", "RecursionError"),
    (nested(500), {}, "levels deep"),
    ({"type": "object"}, nested(500), "levels deep"),
    ({"enum": list(range(30_000))}, 1, "too large"),
    ({"items": {}}, list(range(200_000)), "too large"),
    ({"type": "string"}, "x" * 3_000_000, "too large"),
    ({"$ref": "http://127.0.0.1:1/schema"}, "x", "refers to"),
    ({"$ref": "file:///etc/passwd"}, "x", "refers to"),
    ({"properties": {"a": {"$schema": DRAFT_7, "pattern": EVIL}}}, {"a": A40}, "dialect"),
    ({"$schema": "http://json-schema.org/draft-03/schema#", "pattern": EVIL}, A40, "cannot be applied"),
    ({"$ref": "#/$defs/d0", "$defs": DEPENDENT, "unevaluatedProperties": False}, {"a": 1, "b": 2, "c": 3}, "too long"),
    ({"$dynamicRef": "#", "unevaluatedItems": False}, [1], "RecursionError"),
    ({"type": "objekt"}, {}, "no JSON schema"),
    ({"required": "abc"}, {}, "no JSON schema"),
    ({"minimum": "5"}, 3, "no JSON schema"),
    ({"pattern": 5}, "x", "no JSON schema"),
]


@pytest.mark.parametrize(("schema", "value", "why"), UNCHECKED)
def test_what_cannot_be_checked_within_bounds_is_not_checked_and_says_why(
    schema: dict[str, Any], value: Any, why: str
) -> None:
    began = time.process_time()
    found = check(schema, value)
    assert found.error is None
    assert why in (found.unchecked or "")
    assert time.process_time() - began < 3


@pytest.mark.parametrize("schema", [schema for schema, _, _ in MISFITS] + [schema for schema, _ in FITS])
def test_the_schemas_of_these_tests_are_schemas(schema: dict[str, Any]) -> None:
    assert mistake_in(schema) is None


@pytest.mark.parametrize("schema", [{"type": "objekt"}, {"required": "abc"}, {"properties": []}, [], "string", 5, None])
def test_what_is_no_schema_is_found(schema: Any) -> None:
    assert mistake_in(schema)


def test_a_value_that_is_too_large_or_too_deep_is_not_measured_further() -> None:
    for value in (nested(500), list(range(100_000)), {"a": "x" * 3_000_000}):
        with pytest.raises(BoundMet):
            measure(value)
    assert measure({"a": [{"b": 1}]}) == {"a", "b"}


def test_a_position_is_that_of_the_character_also_behind_half_a_character() -> None:
    assert Pattern("b").find("äöü\ud83db") == 4
    assert Pattern("B", ignore_case=True).find("äb") == 1
    assert Pattern("z").find("äb") == -1


@pytest.mark.parametrize("pattern", ["(", "a" * (MAX_PATTERN + 1), "\ud83d", "(a{1000}){1000}", "(?<=a)b"])
def test_a_pattern_that_cannot_be_matched_is_refused(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        Pattern(pattern)


async def test_an_answer_is_checked_by_a_strangers_schema_while_the_loop_goes_on() -> None:
    def question(schema: dict[str, Any]) -> Interrupt:
        return Interrupt(
            id="i_1",
            session_id="s_1",
            run_id="r_1",
            kind=InterruptKind.QUESTION,
            message="Which?",
            response_schema=schema,
            created_at=now(),
        )

    def answer(payload: Any) -> Answer:
        return Answer(type="answer", command_id="c", interrupt_id="i_1", status="resolved", payload=payload)

    loop = asyncio.get_running_loop()
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            before = loop.time()
            await asyncio.sleep(0.002)
            longest = max(longest, loop.time() - before)

    beating = loop.create_task(beat())
    with pytest.raises(InvalidRequest, match="does not match"):
        await checked_payload(question({"type": "string", "pattern": EVIL}), answer(A40))
    unchecked = {"type": "object", "properties": {"a": {"pattern": "(?=a)b"}}}
    assert await checked_payload(question(unchecked), answer({"a": "x"})) == {"a": "x"}
    assert await checked_payload(question(doubling(40)), answer("x")) == "x"
    assert await checked_payload(question({"items": {"allOf": [{}] * 5000}}), answer([0] * 500)) == [0] * 500
    beating.cancel()
    assert longest < 0.5
