"""Values checked against JSON schemas that somebody else wrote, within bounds of size, depth, steps and time.

The one place where a schema of an MCP server, a tool or a question is applied to a value. What meets a bound, or needs
what cannot be matched safely, is not checked, and that is reported. Blocks for at most :data:`SECONDS`: call it in a
thread. Nothing is fetched: a reference to another document is not followed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import Any

from ..text import truncate
from .patterns import Pattern, PatternRefused

SECONDS = 1.0  # of one check, of the processor's time: on a busy machine it may wait longer than it works
MAX_STEPS = 100_000  # keywords that are applied in one check
MAX_DEPTH = 64  # of a schema, and of a value
MAX_SCHEMA_NODES = 10_000  # objects, lists and single values of a schema
MAX_VALUE_NODES = 100_000
MAX_CHARACTERS = 2_000_000  # of all texts of a schema, or of a value: one of them may be repeated in each message
_TURNED = frozenset({"not", "oneOf", "if", "maxContains"})
_ERRORS_COMPARED = 20  # the most telling of so many mistakes is reported


class BoundMet(Exception):
    """A schema or a value that is too large; the message says why, without a full stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaCheck:
    """What a check has found."""

    error: str | None = None  # why the value does not fit; None when it does, as far as it was checked
    unchecked: str | None = None  # what was not checked, and why, without a full stop; None when all was


def measure(value: Any, *, nodes: int = MAX_SCHEMA_NODES) -> frozenset[str]:
    """The names of all members of a JSON value. Raises BoundMet when it is too large or too deep."""
    names: set[str] = set()
    level: list[Any] = [value]
    count = characters = 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for one in level:
            if isinstance(one, Mapping):
                names.update(name for name in one if isinstance(name, str))
                characters += sum(len(str(name)) for name in one)
                below += one.values()
            elif isinstance(one, list | tuple):
                below += one
            elif isinstance(one, str):
                characters += len(one)
        count += len(level)
        if count + len(below) > nodes or characters > MAX_CHARACTERS:
            raise BoundMet("it is too large")
        if not below:
            return frozenset(names)
        level = below
    raise BoundMet(f"it is nested more than {MAX_DEPTH} levels deep")


def check(schema: Mapping[str, Any], value: Any) -> SchemaCheck:
    """Whether ``value`` fits ``schema``. Never raises for what either of them holds."""
    from jsonschema import validators  # type: ignore[import-untyped]  # noqa: F401  late, and before the clock runs

    _specifications()
    budget = _Budget()
    try:
        names = measure(schema)
        measure(value, nodes=MAX_VALUE_NODES)
        if _names_a_dialect_inside(schema):
            return SchemaCheck(unchecked="a part of the schema names a dialect of its own")
        error = _first_error(schema, value, names, budget)
    except BoundMet as met:
        return SchemaCheck(unchecked=str(met))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as failed:
        return SchemaCheck(unchecked=f"the schema cannot be applied ({type(failed).__name__})")
    if budget.left_out and names & _TURNED:
        error = None  # what was not checked counts as fitting, which these keywords may turn into a mistake
    return SchemaCheck(error=error, unchecked="; ".join(budget.left_out) or None)


def mistake_in(schema: Any) -> str | None:
    """Why this is no JSON schema (2020-12); None when it is one. Raises BoundMet when it is too large."""
    from jsonschema.validators import Draft202012Validator  # type: ignore[import-untyped]  # late: see _first_error

    measure(schema)
    _specifications()  # read before the clock runs
    return _mistake(Draft202012Validator, schema, _Budget())


@dataclass(slots=True)
class _Budget:
    """What one check may still cost, and what it could not check."""

    until: float = field(default_factory=lambda: time.thread_time() + SECONDS)
    steps: int = 0
    left_out: dict[str, None] = field(default_factory=dict)
    # By reference and value: the first mistake, or None. References that double are followed once for each value.
    referred: dict[tuple[str, int], str | None] = field(default_factory=dict)

    def step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS or time.thread_time() > self.until:
            raise BoundMet("checking it takes too long")

    def matches(self, pattern: str, text: str) -> bool | None:
        """Whether the pattern is in the text; None when that cannot be checked, which is noted."""
        self.step()
        try:
            return Pattern(pattern).find(text) >= 0
        except PatternRefused as refused:
            self.left_out[f"the pattern {truncate(pattern, 80)!r}: {truncate(str(refused), 200)}"] = None
            return None


def _names_a_dialect_inside(schema: Mapping[str, Any]) -> bool:
    """Whether a part of it has ``$schema``: `jsonschema` would apply that dialect's own keywords, without bounds."""
    rest: list[Any] = list(schema.values())
    while rest:
        one = rest.pop()
        if isinstance(one, Mapping):
            if isinstance(one.get("$schema"), str):
                return True
            rest += one.values()
        elif isinstance(one, list | tuple):
            rest += one
    return False


def _first_error(schema: Mapping[str, Any], value: Any, names: frozenset[str], budget: _Budget) -> str | None:
    # Here and not above: importing jsonschema takes a quarter of a second, and a server's start needs none of it.
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from jsonschema.validators import Draft3Validator, Draft202012Validator, validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    dialect = validator_for(schema, default=Draft202012Validator) if isinstance(schema.get("$schema"), str) else None
    if dialect is Draft3Validator:
        raise ValueError("a dialect from before 2013")
    dialect = dialect or Draft202012Validator
    plain = {name: one for name, one in schema.items() if name != "$schema"}
    if (mistake := _mistake(dialect, plain, _Budget())) is not None:
        raise BoundMet(f"it is no JSON schema ({mistake})")
    try:
        # An empty registry: a schema comes from another program, and must not make us fetch what it refers to.
        errors = _bounded(dialect, budget, names)(plain, registry=Registry()).iter_errors(value)
        return _message(best_match(islice(errors, _ERRORS_COMPARED)))
    except Unresolvable:
        raise BoundMet("the schema refers to what is not in it") from None


def _mistake(dialect: Any, schema: Any, budget: _Budget) -> str | None:
    """Why the schema is none of this dialect. Not by the library's `check_schema`, which compiles its patterns."""
    meta = {name: one for name, one in dialect.META_SCHEMA.items() if name != "$schema"}
    errors = _bounded(dialect, budget, frozenset())(meta, registry=_specifications()).iter_errors(schema)
    return _message(next(iter(errors), None))


@cache
def _specifications() -> Any:
    """The schemas of the dialects, without their ``$schema``: with it they would be applied without bounds."""
    from jsonschema_specifications import REGISTRY
    from referencing import Registry
    from referencing.jsonschema import specification_with

    found = []
    for uri in REGISTRY:
        contents = dict(REGISTRY.contents(uri))
        specification = specification_with(contents.pop("$schema"))
        found.append((uri, specification.create_resource(contents)))
    return Registry().with_resources(found)


def _message(found: Any) -> str | None:
    if found is None:
        return None
    path = found.json_path.removeprefix("$").removeprefix(".")
    return truncate(f"{truncate(path, 200)} {found.message}".strip(), 500)


Keyword = Callable[[Any, Any, Any, Any], Any]


def _bounded(kind: Any, budget: _Budget, names: frozenset[str]) -> Any:
    """A class of validators like ``kind`` that counts its steps, and searches with :class:`Pattern` alone."""
    from jsonschema.validators import extend

    def counted(keyword: Keyword) -> Keyword:
        def count(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            budget.step()
            return keyword(validator, value, instance, schema)

        return count

    keywords = {**kind.VALIDATORS, **_Keywords(kind, budget, names).replaced()}
    return extend(kind, {name: counted(keyword) for name, keyword in keywords.items()})


@dataclass(frozen=True, slots=True)
class _Keywords:
    """The keywords that the library would apply with `re`, or in quadratic time."""

    kind: Any
    budget: _Budget
    names: frozenset[str]  # of all members of the schema

    def replaced(self) -> dict[str, Keyword]:
        ours: dict[str, Keyword] = {
            "pattern": self.pattern,
            "patternProperties": self.pattern_properties,
            "additionalProperties": self.additional_properties,
            "uniqueItems": self.unique_items,
            "$ref": self.reference,
            "anyOf": self.any_of,
            "oneOf": self.one_of,
        }
        if "unevaluatedProperties" in self.kind.VALIDATORS:
            ours["unevaluatedProperties"] = self.unevaluated_properties
            ours["unevaluatedItems"] = self.unevaluated_items
        return ours

    def pattern(self, _validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if isinstance(instance, str) and self.budget.matches(value, instance) is False:
            yield _mistake_of(f"{truncate(instance, 200)!r} does not match {value!r}")

    def pattern_properties(self, validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        for expression, subschema in value.items() if isinstance(instance, dict) else ():
            for name, one in instance.items():
                if self.budget.matches(expression, name):
                    yield from validator.descend(one, subschema, path=name, schema_path=expression)

    def additional_properties(self, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        known, expressions = schema.get("properties", {}), schema.get("patternProperties", {})
        for name, one in instance.items() if isinstance(instance, dict) else ():
            # A name that a pattern cannot be checked for counts as one of that pattern: no mistake is made up.
            if name in known or any(self.budget.matches(expression, name) is not False for expression in expressions):
                continue
            if value is False:
                yield _mistake_of(f"Additional properties are not allowed ({truncate(name, 200)!r} was unexpected)")
            else:
                yield from validator.descend(one, value, path=name)

    def unevaluated_properties(self, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, dict):
            evaluated = self._evaluated(validator, instance, {**schema, "unevaluatedProperties": None})
            rest = {name: one for name, one in instance.items() if name not in evaluated}
            yield from _unevaluated(validator, value, rest, "properties")

    def unevaluated_items(self, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if isinstance(instance, list):
            evaluated = self._evaluated(validator, instance, {**schema, "unevaluatedItems": None})
            rest = {index: one for index, one in enumerate(instance) if index not in evaluated}
            yield from _unevaluated(validator, value, rest, "items")

    def _evaluated(self, validator: Any, instance: Any, schema: Any) -> set[Any]:
        """The names or indexes of ``instance`` that a schema which it fits has something to say about.

        The library's own search follows `dependentSchemas` without a bound, and searches in lists and with `re`.
        """
        self.budget.step()
        found: set[Any] = set()
        if not isinstance(schema, dict):
            return found
        if "$dynamicRef" in schema or "$recursiveRef" in schema:
            raise BoundMet("references that depend on the way to them are not followed for unevaluated parts")
        if "$ref" in schema:
            there = validator._resolver.lookup(schema["$ref"])  # noqa: SLF001  the library has no public way
            below = validator.evolve(schema=there.contents, _resolver=there.resolver)
            found |= self._evaluated(below, instance, there.contents)
        found |= self._named(instance, schema) if isinstance(instance, dict) else _counted(validator, instance, schema)
        for subschema in self._applied(validator, instance, schema):
            found |= self._evaluated(validator, instance, subschema)
        return found

    def _named(self, instance: Mapping[str, Any], schema: Mapping[str, Any]) -> set[str]:
        if schema.get("additionalProperties") is not None or schema.get("unevaluatedProperties") is not None:
            return set(instance)
        found = set(instance) & set(schema.get("properties", {}))
        for expression in schema.get("patternProperties", ()):
            # A name that a pattern cannot be checked for counts as one of that pattern, as above.
            found |= {name for name in instance if self.budget.matches(expression, name) is not False}
        return found

    def _applied(self, validator: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[Any]:
        """The schemas within this one that apply to the same value."""

        def fits(subschema: Any) -> bool:
            return next(validator.descend(instance, subschema), None) is None

        for keyword in ("allOf", "anyOf", "oneOf"):
            yield from (subschema for subschema in schema.get(keyword, ()) if fits(subschema))
        if "if" in schema and fits(schema["if"]):
            yield schema["if"]
            yield schema.get("then", True)
        elif "if" in schema:
            yield schema.get("else", True)
        if isinstance(instance, dict):
            dependent = schema.get("dependentSchemas", {})
            yield from (subschema for name, subschema in dependent.items() if name in instance)

    def unique_items(self, _validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        if value is True and isinstance(instance, list):
            seen = set()  # of their JSON: the library compares each one with each other one
            for one in instance:
                self.budget.step()
                text = json.dumps(one, sort_keys=True)
                if text in seen:
                    yield _mistake_of("the items are not all different")
                    return
                seen.add(text)

    def reference(self, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        key = (value, id(instance))  # a value of the one that is checked, so that no other one gets its id
        if key in self.budget.referred:
            if (known := self.budget.referred[key]) is not None:
                yield _mistake_of(known)
            return
        first: str | None = None
        for error in self.kind.VALIDATORS["$ref"](validator, value, instance, schema) or ():
            first = first or error.message
            if "$id" not in self.names:  # with which a reference means another thing in another place
                self.budget.referred[key] = first
            yield error
        if "$id" not in self.names:
            self.budget.referred[key] = first

    def any_of(self, validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
        mistakes = []
        for index, subschema in enumerate(value):
            # The first of each, without what led to it. The library keeps them all: of a schema that doubles, so many
            # that Python's garbage collector holds the interpreter for most of a second.
            first = next(validator.descend(instance, subschema, schema_path=index), None)
            if first is None:
                return
            first.context = []
            mistakes.append(first)
        yield _mistake_of(f"{_shown(instance)} is not valid under any of the given schemas", mistakes)

    def one_of(self, validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        yield from self.any_of(validator, value, instance, schema)
        if sum(validator.evolve(schema=subschema).is_valid(instance) for subschema in value) > 1:
            yield _mistake_of(f"{_shown(instance)} is valid under more than one of the given schemas")


def _counted(validator: Any, instance: Sequence[Any], schema: Mapping[str, Any]) -> set[int]:
    """The indexes of a list that a schema has something to say about."""
    items, every = schema.get("items"), set(range(len(instance)))
    if schema.get("unevaluatedItems") is not None or schema.get("additionalItems") is not None:
        return every
    if items is not None and not isinstance(items, list):
        return every
    first = len(schema.get("prefixItems", items or ()))
    contained = schema.get("contains")
    return set(range(min(first, len(instance)))) | {
        index
        for index, one in enumerate(instance)
        if contained is not None and next(validator.descend(one, contained), None) is None
    }


def _unevaluated(validator: Any, value: Any, rest: Mapping[Any, Any], what: str) -> Iterator[Any]:
    for name, one in rest.items():
        if value is False:
            yield _mistake_of(f"Unevaluated {what} are not allowed ({truncate(repr(name), 200)} was unexpected)")
        else:
            yield from validator.descend(one, value, path=name)


def _shown(instance: Any) -> str:
    return "it" if isinstance(instance, dict | list) else truncate(repr(instance), 200)


def _mistake_of(message: str, context: Sequence[Any] = ()) -> Exception:
    from jsonschema.exceptions import ValidationError  # late: as in _first_error

    return ValidationError(message, context=context)  # type: ignore[no-any-return]
