"""Looks at the user's variables from inside the kernel; sent there as source, run by ``harness``.

Never imported by the server. Python 3.9 and the standard library only: kernels may be older than the server. Objects
are the user's and may be hostile: whatever runs code of theirs (``__repr__``, ``__len__``, properties) does so under an
alarm, and what it returns is cut.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import fnmatch
import inspect as python_inspect
import itertools
import reprlib
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

EACH = 0.15
"""Seconds for one thing of the user's code."""
IN_ALL = 1.2
"""Seconds for all of them together; what comes after is named and not looked at."""


def shell() -> Any:
    from IPython import get_ipython  # not at the top: this module is only ever source

    return get_ipython()


# --- the user's code, on a leash -------------------------------------------------------------------------------------


class TookTooLong(BaseException):
    """Not an Exception: the user's own ``except Exception`` must not swallow it."""


class TimeLimit:
    """Time for the user's code. An alarm ends what hangs: on POSIX, on the main thread, if the user has none set."""

    def __init__(self, in_all: float = IN_ALL) -> None:
        self.until = time.monotonic() + in_all
        self.can = (
            hasattr(signal, "setitimer")
            and threading.current_thread() is threading.main_thread()
            and signal.getitimer(signal.ITIMER_REAL)[0] == 0
        )

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        if not self.can:
            yield
            return
        armed = [True]

        def ring(*_: Any) -> None:
            if armed[0]:
                raise TookTooLong

        before = signal.signal(signal.SIGALRM, ring)
        # Again and again: code that swallows the first one may let a later one through.
        signal.setitimer(signal.ITIMER_REAL, max(0.01, min(EACH, self.until - time.monotonic())), 0.05)
        try:
            yield
        finally:
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def call(self, function: Callable[[], Any], default: Any = None) -> Any:
        """What ``function`` returns; ``default`` when it raises anything, or takes too long."""
        if self.over:
            return default
        try:
            with self.limited():
                return function()
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the user's code raises what it likes
            return default


def cut(text: Any, most: int) -> str:
    """At most so many characters; a subclass of str has no say in it."""
    if not isinstance(text, str):
        return ""
    start = str.__getitem__(text, slice(0, most + 1))
    return start if len(start) <= most else start[: most - 1] + "…"


class Short(reprlib.Repr):
    """``reprlib`` without its sorting, which looks at every item."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxdeque = 6
        self.maxstring = self.maxother = 80
        self.maxlevel = 3

    def repr_dict(self, x: Any, level: int) -> str:
        if level <= 0 or not x:
            return "{}" if not x else "{…}"
        items = list(itertools.islice(dict.items(x), self.maxdict))
        pieces = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in items]
        return "{{{}}}".format(", ".join(pieces + (["…"] if dict.__len__(x) > len(items) else [])))

    def repr_set(self, x: Any, level: int) -> str:
        if not x:
            return "set()"
        items = [self.repr1(item, level - 1) for item in itertools.islice(set.__iter__(x), self.maxset)]
        return "{{{}}}".format(", ".join(items + (["…"] if set.__len__(x) > len(items) else [])))

    def repr_frozenset(self, x: Any, level: int) -> str:
        items = [self.repr1(item, level - 1) for item in itertools.islice(frozenset.__iter__(x), self.maxset)]
        return "frozenset({{{}}})".format(", ".join(items + (["…"] if frozenset.__len__(x) > len(items) else [])))


SHORT = Short()
NUMBERS = (int, float, complex, bool, type(None))
CONTAINERS = (list, tuple, dict, set, frozenset)
LEFT_OUT = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


# --- what there is ---------------------------------------------------------------------------------------------------


def variables(pattern: str, limit: int) -> dict[str, Any]:
    """The user's variables by name; see ``ports.jupyter.Kernels.variables``."""
    space, hidden = shell().user_ns, shell().user_ns_hidden
    names = [
        name
        for name, value in list(space.items())
        if type(name) is str
        and not name.startswith("_")
        and not (name in hidden and hidden[name] is value)
        and not issubclass(type(value), LEFT_OUT)
        and fnmatch.fnmatchcase(name, pattern)
    ]
    names.sort()
    leash = TimeLimit()
    return {"variables": [entry(name, space[name], leash) for name in names[:limit]], "count": len(names)}


def entry(name: str, value: Any, leash: TimeLimit) -> dict[str, Any]:
    """One line about a value."""
    kind = type(value)
    about: dict[str, Any] = {"name": name, "type": type_name(value)}
    if kind in NUMBERS:
        about.update(size=sys.getsizeof(value), preview=number(value))
    elif kind in (str, bytes):
        about.update(shape=[len(value)], size=sys.getsizeof(value), preview=SHORT.repr(value))
    elif leash.over:
        about["preview"] = "(not looked at: the others took too long)"
    else:
        about.update(leash.call(lambda: look(value), None) or {"preview": "(does not let itself be looked at)"})
    if "preview" in about:
        about["preview"] = cut(about["preview"], 120)
    return about


def origin_of(value: Any) -> tuple[str, str]:
    """The package and the name of its type, past whatever a metaclass does."""
    kind = type(value)
    module, name = type.__getattribute__(kind, "__module__"), type.__getattribute__(kind, "__name__")
    return (module.partition(".")[0] if isinstance(module, str) else "", name)


def type_name(value: Any) -> str:
    """``numpy.ndarray``, ``Point``: with its package unless that is the builtins or the notebook."""
    package, name = origin_of(value)
    return cut(name if package in ("builtins", "__main__", "") else f"{package}.{name}", 100)


def number(value: Any) -> str:
    try:
        return SHORT.repr(value)
    except ValueError:  # an int with more digits than Python likes to print
        return f"an int of about {int(value.bit_length() * 0.30103)} digits"


def look(value: Any) -> dict[str, Any]:
    """Shape, dtype, size and a preview, each of them only where there is such a thing. May raise or hang."""
    kind = type(value)
    if kind in CONTAINERS:
        return {"shape": [len(value)], "size": sys.getsizeof(value), "preview": SHORT.repr(value)}
    package, name = origin_of(value)
    special = LIBRARIES.get((package, name)) or LIBRARIES.get((package, ""))
    about: dict[str, Any] = special(value) if special else {}
    if not about:
        about = {"size": sys.getsizeof(value)}
        if isinstance(value, CONTAINERS):
            about["shape"] = [len(value)]
        if hasattr(kind, "shape"):
            about["shape"] = sides(value.shape)
    if "preview" not in about:
        # A repr of its own that hangs must not hide what is known already.
        about["preview"] = one_line(SHORT.repr(value))
    return about


def one_line(text: Any) -> str:
    return " ".join(cut(text, 400).split())


def sides(shape: Any) -> list[int]:
    return [int(side) for side in itertools.islice(shape, 10)]


def of_frame(frame: Any) -> dict[str, Any]:
    """A pandas DataFrame."""
    kinds: dict[str, int] = {}
    for kind in itertools.islice(frame.dtypes, 1000):
        kinds[str(kind)] = kinds.get(str(kind), 0) + 1
    return {
        "shape": sides(frame.shape),
        "dtype": ", ".join(f"{kind}×{count}" for kind, count in kinds.items()),
        "size": int(frame.memory_usage(index=True, deep=False).sum()),
        "preview": "columns: " + ", ".join(str(name) for name in frame.columns[:12]),
    }


def of_series(series: Any) -> dict[str, Any]:
    """A pandas Series or Index."""
    return {
        "shape": sides(series.shape),
        "dtype": str(series.dtype),
        "size": int(series.memory_usage(deep=False)),
        "preview": firsts(list(series[:6]), series.shape),
    }


def of_array(array: Any) -> dict[str, Any]:
    """A numpy array."""
    return {
        "shape": sides(array.shape),
        "dtype": str(array.dtype),
        "size": int(array.nbytes),
        "preview": firsts(array.flat[:6].tolist(), array.shape) if array.size else "empty",
    }


def of_scalar(value: Any) -> dict[str, Any]:
    """A numpy number."""
    if not hasattr(value, "nbytes") or not hasattr(value, "item"):
        return {}
    return {"dtype": str(value.dtype), "size": int(value.nbytes), "preview": SHORT.repr(value.item())}


def of_tensor(tensor: Any) -> dict[str, Any]:
    """A torch tensor. Its values stay where they are unless that is this computer's memory."""
    about = {
        "shape": sides(tensor.shape),
        "dtype": f"{tensor.dtype} on {tensor.device}",
        "size": int(tensor.element_size() * tensor.nelement()),
    }
    about["preview"] = "…"
    if tensor.device.type == "cpu":
        about["preview"] = firsts(tensor.detach().reshape(-1)[:6].tolist(), tensor.shape)
    return about


def of_polars(frame: Any) -> dict[str, Any]:
    """A polars DataFrame."""
    return {
        "shape": sides(frame.shape),
        "dtype": ", ".join(sorted({str(kind) for kind in frame.dtypes})),
        "size": int(frame.estimated_size()),
        "preview": "columns: " + ", ".join(frame.columns[:12]),
    }


def of_polars_series(series: Any) -> dict[str, Any]:
    return {
        "shape": [len(series)],
        "dtype": str(series.dtype),
        "size": int(series.estimated_size()),
        "preview": firsts(series[:6].to_list(), (len(series),)),
    }


def firsts(values: list[Any], shape: Any) -> str:
    """The first values of many."""
    text = ", ".join(SHORT.repr(value) for value in values)
    many = 1
    for side in sides(shape):
        many *= side
    return "[{}{}]".format(text, ", …" if many > len(values) else "")


LIBRARIES: dict[tuple[str, str], Callable[[Any], dict[str, Any]]] = {
    ("pandas", "DataFrame"): of_frame,
    ("pandas", "Series"): of_series,
    ("pandas", "Index"): of_series,
    ("pandas", "DatetimeIndex"): of_series,
    ("pandas", "RangeIndex"): of_series,
    ("numpy", "ndarray"): of_array,
    ("numpy", ""): of_scalar,
    ("torch", "Tensor"): of_tensor,
    ("torch", "Parameter"): of_tensor,
    ("polars", "DataFrame"): of_polars,
    ("polars", "Series"): of_polars_series,
}


# --- all about one thing ---------------------------------------------------------------------------------------------


def inspect(expression: str) -> dict[str, Any]:
    """See ``ports.jupyter.Kernels.inspect``; ``{"error"}`` when there is no such thing."""
    leash = TimeLimit(3.0)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        value = leash.call(lambda: (resolve(tree),), None)
    except SyntaxError:
        return {"error": f"{expression[:200]!r} is not a variable or a part of one"}
    if value is None:
        problem = why_not(tree)
        return {"error": problem or f"{expression[:200]} could not be looked at"}
    about = entry(expression.strip(), value[0], leash)
    for name, detail in details(value[0]):
        found = leash.call(detail, None)
        if found not in (None, "", [], {}):
            about[name] = found
    return about


def resolve(tree: ast.expr) -> Any:
    """The value of ``name``, ``name.attribute``, ``name["key"]`` and so forth. Raises ValueError for anything else."""
    if isinstance(tree, ast.Name):
        space = shell().user_ns
        if tree.id in space:
            return space[tree.id]
        return getattr(builtins, tree.id)
    if isinstance(tree, ast.Attribute):
        return getattr(resolve(tree.value), tree.attr)
    if isinstance(tree, ast.Subscript):
        key = tree.slice
        return resolve(tree.value)[
            ast.literal_eval(getattr(key, "value", key) if type(key).__name__ == "Index" else key)
        ]
    raise ValueError("only names, attributes and items can be inspected; use run_code for anything else")


def why_not(tree: ast.expr) -> str | None:
    try:
        with TimeLimit().limited():
            resolve(tree)
    except KeyboardInterrupt:
        raise
    except AttributeError as error:
        return cut(f"there is no such thing: {error}", 300)
    except BaseException as error:  # noqa: BLE001 - the user's code raises what it likes
        return cut(f"{type(error).__name__}: {error}", 300)
    return None


Detail = tuple[str, Callable[[], Any]]


def details(value: Any) -> list[Detail]:
    """What else there is to say, each piece on its own, as any of them may fail."""
    kind = type(value)
    package, name = origin_of(value)
    if issubclass(kind, LEFT_OUT) or callable(value):
        return of_callable(value)
    if (package, name) == ("pandas", "DataFrame"):
        return of_whole_frame(value)
    if package in ("pandas", "polars") and "head" in dir(kind):
        return [
            ("head", lambda: cut(str(value.head(8)), 3000)),
            ("describe", lambda: cut(str(value.describe()), 3000)),
            ("missing", lambda: number_of_missing(value)),
        ]
    if (package, name) == ("numpy", "ndarray"):
        return of_whole_array(value)
    if isinstance(value, dict):
        return [
            ("items", lambda: {cut(SHORT.repr(k), 100): in_short(v) for k, v in itertools.islice(value.items(), 30)})
        ]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [("items", lambda: [in_short(item) for item in itertools.islice(value, 20)])]
    return [
        ("text", lambda: cut(value if isinstance(value, str) else repr(value), 4000)),
        ("doc", lambda: cut(python_inspect.getdoc(kind), 500) if package != "builtins" else ""),
        ("attributes", lambda: of_attributes(value)),
    ]


def in_short(value: Any) -> str:
    return f"{type_name(value)}: {cut(SHORT.repr(value), 120)}"


def number_of_missing(series: Any) -> int:
    count = series.isna().sum() if hasattr(series, "isna") else series.null_count()
    return int(count)


def of_whole_frame(frame: Any) -> list[Detail]:
    few = frame.iloc[:, :40]
    return [
        ("columns", lambda: {str(name): str(kind) for name, kind in itertools.islice(frame.dtypes.items(), 100)}),
        ("head", lambda: cut(few.head(5).to_string(max_colwidth=40), 3000)),
        ("describe", lambda: cut(few.describe().to_string(), 3000) if frame.size <= 20_000_000 else ""),
        (
            "missing",
            lambda: {str(name): int(n) for name, n in few.isna().sum().items() if n} if frame.size < 5e7 else {},
        ),
        ("index", lambda: cut(repr(frame.index), 300)),
    ]


def of_whole_array(array: Any) -> list[Detail]:
    rows: list[Detail] = [("text", lambda: cut(repr(array), 2000))]
    if array.dtype.kind in "iufb" and 0 < array.size <= 50_000_000:
        rows += [
            ("min", lambda: array.min().item()),
            ("max", lambda: array.max().item()),
            ("mean", lambda: float(array.mean())),
        ]
        if array.dtype.kind == "f":
            rows.append(("missing", lambda: int((array != array).sum())))
    return rows


def of_callable(value: Any) -> list[Detail]:
    named = value if issubclass(type(value), LEFT_OUT) else type(value)
    return [
        ("signature", lambda: cut(str(python_inspect.signature(value)), 500)),
        ("doc", lambda: cut(python_inspect.getdoc(value), 3000)),
        ("module", lambda: cut(getattr(value, "__module__", None) or getattr(value, "__name__", ""), 200)),
        ("file", lambda: python_inspect.getsourcefile(named)),
        (
            "source",
            lambda: cut(python_inspect.getsource(named), 4000) if not isinstance(value, types.ModuleType) else "",
        ),
        (
            "members",
            lambda: (
                [n for n in dir(value) if not n.startswith("_")][:100] if isinstance(value, types.ModuleType) else []
            ),
        ),
    ]


def of_attributes(value: Any) -> dict[str, str]:
    own = getattr(value, "__dict__", None)
    if not isinstance(own, dict):
        return {}
    return {cut(str(name), 60): in_short(item) for name, item in itertools.islice(own.items(), 30)}
