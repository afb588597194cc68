"""Schemas of tools' arguments that come from other programs, made such that every provider of models takes them.

A provider refuses a whole request for one schema that it does not understand, and so every run would fail. What is
meant but written in another dialect is rewritten; what cannot be is :class:`SchemaRefused`, and its tool is left out.
The program that has the tool goes on checking the arguments by its own schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ...input.json_schema import BoundMet, measure, mistake_in
from ...input.patterns import Pattern, PatternRefused
from ...text import truncate

MAX_CHARACTERS = 100_000  # of a schema as JSON: it is sent with each request to a model
MAX_EXPANDED = 20_000  # values of a schema in which each reference is replaced by what it refers to, as Google's are
_TYPES = frozenset({"string", "number", "integer", "boolean", "array", "object", "null"})
_COMBINING = ("anyOf", "oneOf", "allOf")
# At the root of a schema OpenAI and Anthropic refuse these, and the dialect's own keywords mean nothing to a model.
_NOT_AT_ROOT = (*_COMBINING, "not", "if", "then", "else", "enum", "const", "$schema", "$id", "$ref", "$anchor")
_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_SINGLE_SCHEMAS = ("additionalProperties", "items", "propertyNames", "contains", "not", "if", "then", "else")
_LISTS_OF_SCHEMAS = (*_COMBINING, "prefixItems")


class SchemaRefused(ValueError):
    """A schema with which no model can call the tool; the message says why, without a full stop."""


def argument_schema(schema: Any) -> dict[str, Any]:
    """The schema as providers take it: an object at the root, JSON Schema 2020-12. Raises SchemaRefused."""
    if not isinstance(schema, Mapping):
        raise SchemaRefused(f"the schema of its arguments is not an object but {_kind(schema)}")
    try:
        measure(schema)
        size = len(json.dumps(schema, ensure_ascii=False))
    except (BoundMet, TypeError, ValueError) as error:
        raise SchemaRefused(f"the schema of its arguments cannot be used: {error}") from None
    if size > MAX_CHARACTERS:
        raise SchemaRefused(f"the schema of its arguments has {size:,} characters, more than {MAX_CHARACTERS:,}")
    mended = _root(_mended(schema))
    _check_references(mended)
    try:
        mistake = mistake_in(mended)
    except BoundMet as error:
        mistake = str(error)
    if mistake is not None:
        raise SchemaRefused(f"the schema of its arguments is no JSON schema: {truncate(mistake, 200)}")
    return mended


def _kind(value: Any) -> str:
    return "missing" if value is None else f"a {type(value).__name__}"


def _root(schema: dict[str, Any]) -> dict[str, Any]:
    """The root as an object with properties; those of combined schemas are among them."""
    target = _followed(schema, schema)
    if target.get("type") not in ("object", ["object"], ["object", "null"], ["null", "object"]):
        raise SchemaRefused('the schema of its arguments does not have "type": "object"')
    properties: dict[str, Any] = {}
    required: list[str] = list(target.get("required", ()))
    for keyword in _COMBINING:
        branches = [_followed(schema, one) for one in target.get(keyword, ()) if isinstance(one, dict)]
        for branch in branches:
            properties.update(branch.get("properties", {}))
        if keyword == "allOf":
            required += [name for branch in branches for name in branch.get("required", ())]
    properties.update(target.get("properties", {}))
    rest = {name: one for name, one in target.items() if name not in _NOT_AT_ROOT}
    rest |= {"type": "object", "properties": properties}
    if required := [name for name in dict.fromkeys(required) if name in properties]:
        rest["required"] = required
    else:
        rest.pop("required", None)
    return rest


def _mended(node: Any) -> Any:
    """A schema whose keywords have the form of JSON Schema 2020-12; keywords with another value are left out."""
    if not isinstance(node, Mapping):
        return node if isinstance(node, bool) else {}
    out = {name: one for name, one in node.items() if one is not None or name in ("default", "const")}
    _mend_values(out)
    if isinstance(out.get("items"), list):  # a tuple, as until 2019
        out["prefixItems"] = out.pop("items")
    for name in _SCHEMAS_BY_NAME:
        if isinstance(out.get(name), Mapping):
            out[name] = {str(key): _mended(one) for key, one in out[name].items()}
        else:
            out.pop(name, None)
    for name in _SINGLE_SCHEMAS:
        if name in out:
            out[name] = _mended(out[name])
    for name in _LISTS_OF_SCHEMAS:
        if isinstance(out.get(name), list) and out[name]:
            out[name] = [_mended(one) for one in out[name]]
        else:
            out.pop(name, None)
    if "array" in _types(out) and not out.keys() & {"items", "prefixItems"}:
        out["items"] = {}  # OpenAI refuses an array that does not say of what
    return out


def _types(schema: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = schema.get("type", ())
    return (kinds,) if isinstance(kinds, str) else tuple(kinds)


def _mend_values(out: dict[str, Any]) -> None:
    out.pop("$schema", None)
    kinds = out.get("type")
    known = [one for one in (kinds if isinstance(kinds, list) else [kinds]) if isinstance(one, str) and one in _TYPES]
    if not known:
        out.pop("type", None)
    else:
        out["type"] = list(dict.fromkeys(known)) if isinstance(kinds, list) else known[0]
    for name, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(out.get(name), bool):  # as until 2013
            exclusive = out.pop(name)
            if exclusive and bound in out:
                out[name] = out.pop(bound)
    required = out.get("required")
    if isinstance(required, list) and all(isinstance(one, str) for one in required):
        out["required"] = list(dict.fromkeys(required))
    else:
        out.pop("required", None)
    if not (isinstance(out.get("enum"), list) and out["enum"]):
        out.pop("enum", None)
    for name in ("description", "title", "$ref", "format", "pattern"):
        if not isinstance(out.get(name, ""), str):
            del out[name]
    if "pattern" in out:
        try:
            Pattern(out["pattern"])
        except PatternRefused:  # providers refuse look-around, too
            del out["pattern"]


def _followed(root: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema, with what it refers to beside it."""
    reference = schema.get("$ref")
    found = _referred(root, reference) if isinstance(reference, str) else None
    return {**found, **schema} if isinstance(found, dict) else schema


def _referred(root: Mapping[str, Any], reference: str) -> Any:
    """What a reference inside the document leads to; None when it leads nowhere."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    node: Any = root
    for step in reference.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping):
            node = node.get(step)
        elif isinstance(node, list) and step.isdecimal() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node


def _check_references(root: dict[str, Any]) -> None:
    """Raise SchemaRefused for references that lead nowhere, and for those that double too often."""
    sizes: dict[str, int] = {}  # of what a reference leads to; 0 while that is being counted: it refers to itself

    def size(node: Any) -> int:
        count = 1
        if isinstance(node, Mapping):
            if isinstance(reference := node.get("$ref"), str):
                count += referred(reference)
            count += sum(size(one) for name, one in node.items() if name not in ("$defs", "definitions"))
        elif isinstance(node, list):
            count += sum(size(one) for one in node)
        if count > MAX_EXPANDED:
            raise SchemaRefused("the references in the schema of its arguments expand to too much")
        return count

    def referred(reference: str) -> int:
        if reference not in sizes:
            target = _referred(root, reference)
            if not isinstance(target, Mapping | bool):
                raise SchemaRefused(
                    f"the schema of its arguments refers to {truncate(reference, 100)!r}, which is not in it"
                )
            sizes[reference] = 0
            sizes[reference] = size(target)
        return sizes[reference]

    try:
        size(root)
        for name in ("$defs", "definitions"):
            size(list(root.get(name, {}).values()))
    except RecursionError:
        raise SchemaRefused("the references in the schema of its arguments are nested too deeply") from None
