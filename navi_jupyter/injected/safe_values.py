"""Values of the user's, shown without running any code of theirs; sent into kernels as source.

A type is known by identity: a subclass, or a class that calls itself like a known one, may have any method overridden,
and so may a metaclass. Everything is read by the methods of ``type``, ``dict`` and ``list`` themselves. Of a value of
an unknown type the name of that is shown, and what its own dictionary has. Environments are not read at all.
"""

from __future__ import annotations

import ast
import collections
import datetime as dt
import decimal
import itertools
import pathlib
import reprlib
import sys
import types
from typing import Any

NUMBERS = (int, float, complex, bool, type(None))
SEQUENCES = (list, tuple, collections.deque)
SETS = (set, frozenset)
DICTS = (dict, collections.OrderedDict, collections.defaultdict, collections.Counter)
SCALARS = (*NUMBERS, str, bytes)
AS_TEXT = (
    *(dt.date, dt.timedelta, decimal.Decimal, range),
    *(pathlib.PurePosixPath, pathlib.PurePath, pathlib.PosixPath, pathlib.WindowsPath),
)
"""Types of the standard library whose ``repr`` reads nothing but numbers and texts."""
LEFT_OUT = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)
ENVIRONMENT = "an environment, which is not shown"
SOME_NAMES = 4  # names of environment variables in one thing that make it an environment
_SHOWN = 6  # items of a container in one line

# Of ``type`` itself: a metaclass may define properties of these names.
_NAME_OF, _MODULE_OF = type.__dict__["__name__"], type.__dict__["__module__"]
_MRO_OF, _NAMESPACE_OF = type.__dict__["__mro__"], type.__dict__["__dict__"]
_SPACE_OF: Any = vars(types.ModuleType)["__dict__"]


def is_any(kind: type, kinds: Any) -> bool:
    """``in`` would ask a metaclass whether they are equal."""
    return any(kind is each for each in kinds)


def bases_of(kind: type) -> Any:
    return _MRO_OF.__get__(kind)


def namespace_of(kind: type) -> Any:
    return _NAMESPACE_OF.__get__(kind)


def module_space(module: Any) -> Any:
    return _SPACE_OF.__get__(module)


def name_of(kind: type) -> tuple[str, str]:
    """The module and the name of a type; empty where they are no plain text."""
    module, name = _MODULE_OF.__get__(kind), _NAME_OF.__get__(kind)
    return module if type(module) is str else "", name if type(name) is str else "?"


def cut(text: Any, most: int) -> str:
    """At most so many characters; only of a plain text."""
    if type(text) is not str:
        return ""
    return text if len(text) <= most else text[: most - 1] + "…"


def type_name(value: Any) -> str:
    """``numpy.ndarray``, ``Point``: with its package unless that is the builtins or the notebook."""
    module, name = name_of(type(value))
    package = module.partition(".")[0]
    return cut(name if package in ("builtins", "__main__", "") else f"{package}.{name}", 100)


_names: list[set[str]] = []  # once read


def environment_names() -> set[str]:
    """The names of the environment's variables."""
    if _names:
        return _names[0]
    found: set[str] = set()
    for module in ("posix", "nt"):
        known = getattr(sys.modules.get(module), "environ", None)
        if type(known) is dict:
            found.update(_plain(name) for name in known)
    import os

    environ = vars(os).get("environ")
    if name_of(type(environ)) == ("os", "_Environ"):
        found.update(_plain(name) for name in object.__getattribute__(environ, "_data"))
    _names.append(found - {""})
    return _names[0]


def _plain(name: Any) -> str:
    return name.decode("utf-8", "replace") if type(name) is bytes else name if type(name) is str else ""


def is_environment(items: Any) -> bool:
    """Whether texts, keys or pairs are those of an environment."""
    names, found = environment_names(), set()
    for item in itertools.islice(items, 2000):
        key = item[0] if type(item) is tuple and len(item) == 2 else item
        found.add(_plain(key).partition("=")[0])
    return len(found & names) >= min(SOME_NAMES, len(names) or 1)


def holds_environment(value: Any) -> bool:
    """Whether a container is an environment or a copy of one."""
    kind = type(value)
    if is_any(kind, DICTS):
        return dict.__len__(value) >= SOME_NAMES and is_environment(dict.keys(value))
    return is_any(kind, (list, tuple)) and len(value) >= SOME_NAMES and is_environment(value)


class Short(reprlib.Repr):
    """The lengths of texts and numbers in one line."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80


SHORT = Short()


def number(value: Any) -> str:
    try:
        return SHORT.repr_int(value, 0) if type(value) is int else repr(value)
    except ValueError:  # an int with more digits than Python likes to print
        return f"an int of about {int(value.bit_length() * 0.30103)} digits"


def shown(value: Any, level: int = 3) -> str:
    """A value in one line."""
    kind = type(value)
    if is_any(kind, NUMBERS):
        return number(value)
    if kind is str:
        return SHORT.repr_str(value, 0)
    if is_any(kind, (bytes, bytearray)):
        return repr(bytes(value[:60])) + ("…" if len(value) > 60 else "")
    if is_any(kind, AS_TEXT):
        return cut(repr(value), 80)
    if is_any(kind, (dt.datetime, dt.time)):
        # A time zone may be an object of the user's.
        return str(value.replace(tzinfo=None).isoformat()) + ("" if value.tzinfo is None else " (with a time zone)")
    if is_any(kind, (*SEQUENCES, *SETS, *DICTS)):
        return _container(value, kind, level)
    if issubclass(kind, type):
        return f"<class {name_of(value)[1]}>"
    return _fields_of(value, kind, level) or f"<{type_name(value)}>"


def _container(value: Any, kind: type, level: int) -> str:
    if holds_environment(value):
        return f"({ENVIRONMENT})"
    base: Any = next(each for each in (*SEQUENCES, *SETS, dict) if issubclass(kind, each))
    count = base.__len__(value)
    if level <= 0 and count:
        return "{…}" if base is dict else "[...]"
    if base is dict:
        pairs = itertools.islice(dict.items(value), _SHOWN)
        pieces = [f"{shown(key, level - 1)}: {shown(item, level - 1)}" for key, item in pairs]
        return "{{{}}}".format(", ".join(pieces + (["…"] if count > len(pieces) else [])))
    pieces = [shown(item, level - 1) for item in itertools.islice(base.__iter__(value), _SHOWN)]
    inside = ", ".join(pieces + (["..."] if count > len(pieces) else []))
    if base is tuple:
        return f"({inside}{',' if count == 1 else ''})"
    if base in SETS:
        text = f"{{{inside}}}" if count else ""
        return text if base is set and count else f"{base.__name__}({text})"
    return f"[{inside}]" if base is list else f"deque([{inside}])"


def _fields_of(value: Any, kind: type, level: int) -> str:
    """A data class as its generated ``repr`` would show it; empty for anything else."""
    fields = namespace_of(kind).get("__dataclass_fields__")
    own = own_dict(value)
    if type(fields) is not dict or own is None or level <= 0:
        return ""
    names = [name for name in fields if type(name) is str]
    pieces = [f"{name}={shown(found[0], level - 1)}" for name in names[:_SHOWN] if (found := item_of(own, name))]
    return f"{name_of(kind)[1]}({', '.join(pieces)})"


def own_dict(value: Any) -> Any:
    """The attributes of an instance; None where its class hides them."""
    for base in bases_of(type(value)):
        found = namespace_of(base).get("__dict__")
        if found is None:
            continue
        own = found.__get__(value) if type(found) is types.GetSetDescriptorType else None
        return own if type(own) is dict else None
    return None


def item_of(mapping: Any, key: Any) -> Any:
    """``(value,)`` of a plain key, () where there is none. Other keys are not asked whether they are equal to it."""
    kind = type(key)
    for known, value in dict.items(mapping):
        if type(known) is kind and known == key:
            return (value,)
    return ()


def attribute_of(value: Any, name: str) -> Any:
    """An attribute that is stored, and not computed. Raises ValueError, AttributeError."""
    kind = type(value)
    if kind is types.ModuleType:
        found = item_of(module_space(value), name)
    else:
        own = None if issubclass(kind, type) else own_dict(value)
        found = () if own is None else item_of(own, name)
        for base in () if found else bases_of(value if issubclass(kind, type) else kind):
            raw = namespace_of(base).get(name)
            if raw is not None:
                found = (_stored(raw, value, kind),)
                break
    if not found:
        raise AttributeError(f"{type_name(value)} has no attribute {name!r} that could be read without running code")
    return found[0]


def _stored(raw: Any, value: Any, kind: type) -> Any:
    of = type(raw)
    if of is types.MemberDescriptorType and not issubclass(kind, type):
        return raw.__get__(value)  # a slot
    if of is staticmethod or of is classmethod:
        return raw.__func__
    if of is types.FunctionType or not any("__get__" in namespace_of(base) for base in bases_of(of)):
        return raw
    raise ValueError("it is computed by code when it is read; use run_code for that")


def of_library(kind: type, *packages: str) -> str:
    """The name of a type that is really of one of these packages; empty for any other one."""
    module, name = name_of(kind)
    home = sys.modules.get(module)
    if module.partition(".")[0] not in packages or type(home) is not types.ModuleType:
        return ""
    return name if vars(home).get(name) is kind else ""


def plain_key(tree: Any) -> Any:
    """The key in a subscription. Raises ValueError for one that is not written out."""
    key = ast.literal_eval(tree.value if type(tree).__name__ == "Index" else tree)
    if not is_any(type(key), SCALARS):
        raise ValueError("only a number or a text can be a key here; use run_code for anything else")
    return key
