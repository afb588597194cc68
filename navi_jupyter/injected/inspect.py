"""Descriptions of the user's variables, made inside the kernel; sent there as source, run by ``evaluate``.

Objects are the user's and may be hostile: no method, property or descriptor of theirs is called (``safe_values``). A
time limit holds all the same, for what a library does with a large value.
"""

from __future__ import annotations

import ast
import builtins
import fnmatch
import inspect as python_inspect
import itertools
import linecache
import sys
import textwrap
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

from .library_values import library_details, library_item, library_of, library_summary
from .safe_values import (
    DICTS,
    ENVIRONMENT,
    LEFT_OUT,
    NUMBERS,
    SEQUENCES,
    SETS,
    attribute_of,
    cut,
    holds_environment,
    is_any,
    item_of,
    module_space,
    name_of,
    namespace_of,
    number,
    own_dict,
    plain_key,
    shown,
    type_name,
)
from .time_limit import limited

EACH = 0.15  # seconds for one thing of the user's code
IN_ALL = 1.2  # seconds for all of them together; what comes after is only named


def shell() -> Any:
    from IPython import get_ipython  # not at the top: this module is only ever source

    return get_ipython()


class TimeBudget:
    """Time for the user's code: for each call, and for all of them together."""

    def __init__(self, seconds: float = IN_ALL) -> None:
        self.until = time.monotonic() + seconds

    @property
    def spent(self) -> bool:
        return time.monotonic() >= self.until

    def call(self, function: Callable[[], Any], default: Any = None) -> Any:
        """What ``function`` returns; ``default`` when it raises anything, or takes too long."""
        if self.spent:
            return default
        try:
            with limited(max(0.01, min(EACH, self.until - time.monotonic()))):
                return function()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the user's code raises what it likes
            return default


def variables(pattern: str, limit: int) -> dict[str, Any]:
    """The user's variables by name; see ``ports.jupyter.Kernels.variables``."""
    space, hidden = shell().user_ns, shell().user_ns_hidden
    names = [
        name
        for name, value in list(dict.items(space))
        if type(name) is str
        and not name.startswith("_")
        and not (name in hidden and hidden[name] is value)
        and not issubclass(type(value), LEFT_OUT)
        and fnmatch.fnmatchcase(name, pattern)
    ]
    names.sort()
    budget = TimeBudget()
    return {"variables": [entry(name, space[name], budget) for name in names[:limit]], "count": len(names)}


def entry(name: str, value: Any, budget: TimeBudget) -> dict[str, Any]:
    """One line about a value."""
    kind = type(value)
    about: dict[str, Any] = {"name": name, "type": type_name(value)}
    if is_any(kind, NUMBERS):
        about.update(size=sys.getsizeof(value), preview=number(value))
    elif is_any(kind, (str, bytes)):
        about.update(shape=[len(value)], size=sys.getsizeof(value), preview=shown(value))
    elif budget.spent:
        about["preview"] = "(not read: the others took too long)"
    else:
        about.update(budget.call(lambda: summary(value), None) or {"preview": "(cannot be read)"})
    if "preview" in about:
        about["preview"] = cut(" ".join(about["preview"].split()), 120)
    return about


def summary(value: Any) -> dict[str, Any]:
    """Shape, dtype, size and a preview, each of them only where there is such a thing."""
    if is_any(type(value), (*SEQUENCES, *SETS, *DICTS)):
        return {"shape": [len(value)], "size": sys.getsizeof(value), "preview": shown(value)}
    about = library_summary(value)
    return about or {"preview": shown(value)}


def inspect(expression: str) -> dict[str, Any]:
    """See ``ports.jupyter.Kernels.inspect``; ``{"error"}`` when there is no such thing."""
    budget = TimeBudget(3.0)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return {"error": f"{cut(repr(expression), 200)} is not a variable or a part of one"}
    wrong: list[str] = []
    value = budget.call(lambda: (resolve(tree, wrong),), None)
    if value is None:
        return {"error": wrong[0] if wrong else f"{expression[:200]} could not be read"}
    about = entry(expression.strip(), value[0], budget)
    for name, detail in (budget.call(lambda: details(value[0]), None) or {}).items():
        found = budget.call(detail, None)
        if found not in (None, "", [], {}):
            about[name] = cut(found, _LONGEST.get(name, 500)) if type(found) is str else found
    return about


_LONGEST = {"text": 4000, "head": 3000, "describe": 3000, "doc": 3000, "source": 4000, "traceback": 6000}


def resolve(tree: ast.expr, wrong: list[str]) -> Any:
    """The value of ``name``, ``name.attribute``, ``name["key"]`` and so forth. Says in ``wrong`` why there is none."""
    try:
        return _resolved(tree)
    except (ValueError, AttributeError, LookupError, TypeError) as error:
        # Of ours or of a known library: no code of the user's has run.
        wrong.append(cut(f"{type(error).__name__}: {error}", 300))
        raise


def _resolved(tree: ast.expr) -> Any:
    if isinstance(tree, ast.Name):
        found = item_of(shell().user_ns, tree.id) or item_of(vars(builtins), tree.id)
        # ``sys.last_value`` is the last error, also where the user has not imported sys.
        if not found and tree.id != "sys":
            raise LookupError(f"there is no variable {tree.id}")
        return found[0] if found else sys
    if isinstance(tree, ast.Attribute):
        value = _resolved(tree.value)
        column = library_item(value, tree.attr) if library_of(value) == "pandas.DataFrame" else ()
        return column[0] if column else attribute_of(value, tree.attr)
    if isinstance(tree, ast.Subscript):
        return _item(_resolved(tree.value), plain_key(tree.slice))
    raise ValueError("only names, attributes and items can be inspected; use run_code for anything else")


def _item(value: Any, key: Any) -> Any:
    kind = type(value)
    if holds_environment(value):
        raise ValueError(f"it is {ENVIRONMENT}")
    found = item_of(value, key) if is_any(kind, DICTS) else library_item(value, key)
    if not found and is_any(kind, (*SEQUENCES, str, bytes, range)):
        return value[key]
    if not found:
        raise LookupError(f"{type_name(value)} has no item {key!r} that could be read without running code")
    return found[0]


def details(value: Any) -> dict[str, Callable[[], Any]]:
    """What else there is to say, each piece on its own, as any of them may fail."""
    kind = type(value)
    if holds_environment(value):
        return {}
    if is_any(kind, LEFT_OUT) or issubclass(kind, type):
        return of_callable(value)
    known = library_details(value)
    if known is not None:
        return dict(known)
    if is_any(kind, DICTS):
        return {"items": lambda: {cut(shown(k), 100): in_short(v) for k, v in itertools.islice(dict.items(value), 30)}}
    if is_any(kind, (*SEQUENCES, *SETS)):
        return {"items": lambda: [in_short(item) for item in itertools.islice(value, 20)]}
    if issubclass(kind, BaseException):
        return {"traceback": lambda: of_error(value)}
    return {
        "text": lambda: value if kind is str else shown(value),
        "doc": lambda: "" if name_of(kind)[0] == "builtins" else plain_doc(namespace_of(kind).get("__doc__")),
        "attributes": lambda: of_attributes(value),
    }


def in_short(value: Any) -> str:
    about = library_summary(value)
    return f"{type_name(value)}: {cut(about.get('preview') or shown(value), 120)}"


def plain_doc(text: Any) -> str:
    return python_inspect.cleandoc(text) if type(text) is str else ""


def of_error(error: BaseException) -> str:
    """The traceback; the message as far as it is made of plain things."""
    frames = BaseException.__dict__["__traceback__"].__get__(error)
    frames = frames and frames.tb_next  # without IPython's own
    args = BaseException.__dict__["args"].__get__(error)
    message = args[0] if len(args) == 1 and type(args[0]) is str else ", ".join(shown(each) for each in args)
    text = "".join(traceback.format_tb(frames)) if frames else ""
    return f"Traceback (most recent call last):\n{text}{name_of(type(error))[1]}: {message}"[-6000:]


def of_callable(value: Any) -> dict[str, Callable[[], Any]]:
    """A function, a class, a module."""
    kind = type(value)
    if kind is types.MethodType:
        value = value.__func__
        kind = type(value)
    if kind is types.FunctionType:
        return {
            "signature": lambda: signature_of(value),
            "doc": lambda: plain_doc(value.__doc__),
            "module": lambda: cut(value.__module__, 200),
            "file": lambda: value.__code__.co_filename,
            "source": lambda: source_of(value.__code__.co_filename, value.__code__.co_firstlineno),
        }
    if kind is types.BuiltinFunctionType:
        return {"doc": lambda: plain_doc(value.__doc__), "module": lambda: cut(value.__module__, 200)}
    if kind is types.ModuleType:
        space = module_space(value)
        return {
            "doc": lambda: plain_doc((item_of(space, "__doc__") or ("",))[0]),
            "module": lambda: cut((item_of(space, "__name__") or ("",))[0], 200),
            "file": lambda: cut((item_of(space, "__file__") or ("",))[0], 500),
            "members": lambda: sorted(name for name in space if type(name) is str and name[:1] != "_")[:100],
        }
    if not issubclass(kind, type):
        return {}
    space = namespace_of(value)
    return {
        "doc": lambda: plain_doc(space.get("__doc__")),
        "module": lambda: name_of(value)[0],
        "source": lambda: source_of_class(value),
        "members": lambda: [name for name in space if type(name) is str and name[:1] != "_"][:100],
    }


def signature_of(function: Any) -> str:
    """As it is written, with the defaults in short. ``inspect.signature`` would ask the function's attributes."""
    code = function.__code__
    given, starred = code.co_varnames, code.co_argcount + code.co_kwonlyargcount
    defaults, keywords = function.__defaults__ or (), function.__kwdefaults__ or {}
    # From 3.14 on annotations are computed by code of the user's.
    notes = {} if sys.version_info >= (3, 14) else function.__annotations__

    def piece(name: str, default: Any) -> str:
        note = item_of(notes, name) if type(notes) is dict else ()
        written = f"{name}: {annotation(note[0])}" if note else name
        return written + (f"{' = ' if note else '='}{shown(default[0])}" if default else "")

    first = code.co_argcount - len(defaults)
    pieces = [
        piece(n, defaults[at - first : at - first + 1] if at >= first else ())
        for at, n in enumerate(given[: code.co_argcount])
    ]
    if code.co_posonlyargcount:
        pieces.insert(code.co_posonlyargcount, "/")
    if code.co_flags & python_inspect.CO_VARARGS:
        pieces.append("*" + piece(given[starred], ()))
        starred += 1
    elif code.co_kwonlyargcount:
        pieces.append("*")
    pieces += [piece(n, item_of(keywords, n)) for n in given[code.co_argcount :][: code.co_kwonlyargcount]]
    if code.co_flags & python_inspect.CO_VARKEYWORDS:
        pieces.append("**" + piece(given[starred], ()))
    returns = item_of(notes, "return") if type(notes) is dict else ()
    return f"({', '.join(pieces)})" + (f" -> {annotation(returns[0])}" if returns else "")


def annotation(note: Any) -> str:
    if type(note) is str:
        return cut(note, 80)
    if note is None:
        return "None"
    return name_of(note)[1] if issubclass(type(note), type) else "…"


def source_of(file: str, line: int) -> str:
    """The block of source that begins there."""
    lines = linecache.getlines(file)[line - 1 :][:1000]
    return textwrap.dedent("".join(python_inspect.getblock(lines))) if lines else ""


def source_of_class(kind: type) -> str:
    """The class statement around its first function."""
    functions = [each for each in namespace_of(kind).values() if type(each) is types.FunctionType]
    name = name_of(kind)[1]
    for function in functions[:1]:
        code = function.__code__
        lines = linecache.getlines(code.co_filename)
        for at in range(min(code.co_firstlineno, len(lines)), 0, -1):
            if lines[at - 1].lstrip().startswith(f"class {name}"):
                return source_of(code.co_filename, at)
    return ""


def of_attributes(value: Any) -> dict[str, str]:
    own = own_dict(value)
    if own is None or holds_environment(own):
        return {}
    items = itertools.islice(dict.items(own), 30)
    return {cut(name, 60): in_short(item) for name, item in items if type(name) is str}
