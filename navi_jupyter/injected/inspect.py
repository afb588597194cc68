"""Descriptions of the user's variables, made inside the kernel; sent there as source, run by ``evaluate``.

Objects are the user's and may be hostile: whatever runs code of theirs (``__repr__``, ``__len__``, properties) does so
under a time limit, and what it returns is cut.
"""

from __future__ import annotations

import ast
import builtins
import fnmatch
import inspect as python_inspect
import itertools
import reprlib
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

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
            return "{…}" if x else "{}"
        items = itertools.islice(dict.items(x), self.maxdict)
        pieces = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in items]
        return self._listed(pieces, dict.__len__(x))

    def repr_set(self, x: Any, level: int) -> str:
        return self._of_set(set, x, level) if x else "set()"

    def repr_frozenset(self, x: Any, level: int) -> str:
        return f"frozenset({self._of_set(frozenset, x, level)})"

    def _of_set(self, kind: Any, x: Any, level: int) -> str:
        # The built-in methods: those of a subclass are the user's code.
        pieces = [self.repr1(item, level - 1) for item in itertools.islice(kind.__iter__(x), self.maxset)]
        return self._listed(pieces, kind.__len__(x))

    def _listed(self, pieces: list[str], count: int) -> str:
        return "{{{}}}".format(", ".join(pieces + (["…"] if count > len(pieces) else [])))


SHORT = Short()
NUMBERS = (int, float, complex, bool, type(None))
CONTAINERS = (list, tuple, dict, set, frozenset)
LEFT_OUT = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type)


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
    budget = TimeBudget()
    return {"variables": [entry(name, space[name], budget) for name in names[:limit]], "count": len(names)}


def entry(name: str, value: Any, budget: TimeBudget) -> dict[str, Any]:
    """One line about a value."""
    kind = type(value)
    about: dict[str, Any] = {"name": name, "type": type_name(value)}
    if kind in NUMBERS:
        about.update(size=sys.getsizeof(value), preview=number(value))
    elif kind in (str, bytes):
        about.update(shape=[len(value)], size=sys.getsizeof(value), preview=SHORT.repr(value))
    elif budget.spent:
        about["preview"] = "(not read: the others took too long)"
    else:
        about.update(budget.call(lambda: summary(value), None) or {"preview": "(cannot be read)"})
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


def summary(value: Any) -> dict[str, Any]:
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


def described(shape: Any, dtype: Any, size: Any, preview: str) -> dict[str, Any]:
    return {"shape": sides(shape), "dtype": str(dtype), "size": int(size), "preview": preview}


def of_frame(frame: Any) -> dict[str, Any]:
    """A pandas DataFrame."""
    kinds: dict[str, int] = {}
    for kind in itertools.islice(frame.dtypes, 1000):
        kinds[str(kind)] = kinds.get(str(kind), 0) + 1
    counted = ", ".join(f"{kind}×{count}" for kind, count in kinds.items())
    columns = ", ".join(str(name) for name in frame.columns[:12])
    # Not deep: the size of each object in a column of strings takes seconds.
    return described(frame.shape, counted, frame.memory_usage(index=True, deep=False).sum(), f"columns: {columns}")


def of_series(series: Any) -> dict[str, Any]:
    """A pandas Series or Index."""
    preview = firsts(list(series[:6]), series.shape)
    return described(series.shape, series.dtype, series.memory_usage(deep=False), preview)


def of_array(array: Any) -> dict[str, Any]:
    """A numpy array."""
    preview = firsts(array.flat[:6].tolist(), array.shape) if array.size else "empty"
    return described(array.shape, array.dtype, array.nbytes, preview)


def of_scalar(value: Any) -> dict[str, Any]:
    """A numpy number."""
    if not hasattr(value, "nbytes") or not hasattr(value, "item"):
        return {}
    return {"dtype": str(value.dtype), "size": int(value.nbytes), "preview": SHORT.repr(value.item())}


def of_tensor(tensor: Any) -> dict[str, Any]:
    """A torch tensor. Its values stay where they are unless that is this computer's memory."""
    preview = firsts(tensor.detach().reshape(-1)[:6].tolist(), tensor.shape) if tensor.device.type == "cpu" else "…"
    size = tensor.element_size() * tensor.nelement()
    return described(tensor.shape, f"{tensor.dtype} on {tensor.device}", size, preview)


def of_polars(frame: Any) -> dict[str, Any]:
    """A polars DataFrame."""
    kinds = ", ".join(sorted({str(kind) for kind in frame.dtypes}))
    return described(frame.shape, kinds, frame.estimated_size(), "columns: " + ", ".join(frame.columns[:12]))


def of_polars_series(series: Any) -> dict[str, Any]:
    preview = firsts(series[:6].to_list(), (len(series),))
    return described((len(series),), series.dtype, series.estimated_size(), preview)


def firsts(values: list[Any], shape: Any) -> str:
    """The first values of many."""
    text = ", ".join(SHORT.repr(value) for value in values)
    many = 1
    for side in sides(shape):
        many *= side
    return "[{}{}]".format(text, ", …" if many > len(values) else "")


LIBRARIES: dict[tuple[str, str], Callable[[Any], dict[str, Any]]] = {
    ("pandas", "DataFrame"): of_frame,
    **{("pandas", name): of_series for name in ("Series", "Index", "DatetimeIndex", "RangeIndex")},
    ("numpy", "ndarray"): of_array,
    ("numpy", ""): of_scalar,
    **{("torch", name): of_tensor for name in ("Tensor", "Parameter")},
    ("polars", "DataFrame"): of_polars,
    ("polars", "Series"): of_polars_series,
}


def inspect(expression: str) -> dict[str, Any]:
    """See ``ports.jupyter.Kernels.inspect``; ``{"error"}`` when there is no such thing."""
    budget = TimeBudget(3.0)
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        value = budget.call(lambda: (resolve(tree),), None)
    except SyntaxError:
        return {"error": f"{expression[:200]!r} is not a variable or a part of one"}
    if value is None:
        return {"error": why_not(tree) or f"{expression[:200]} could not be read"}
    about = entry(expression.strip(), value[0], budget)
    for name, detail in details(value[0]):
        found = budget.call(detail, None)
        if found not in (None, "", [], {}):
            about[name] = found
    return about


def resolve(tree: ast.expr) -> Any:
    """The value of ``name``, ``name.attribute``, ``name["key"]`` and so forth. Raises ValueError for anything else."""
    if isinstance(tree, ast.Name):
        space = shell().user_ns
        # ``sys.last_value`` is the last error, also where the user has not imported sys.
        return space[tree.id] if tree.id in space else sys if tree.id == "sys" else getattr(builtins, tree.id)
    if isinstance(tree, ast.Attribute):
        return getattr(resolve(tree.value), tree.attr)
    if isinstance(tree, ast.Subscript):
        key: Any = tree.slice
        return resolve(tree.value)[ast.literal_eval(key.value if type(key).__name__ == "Index" else key)]
    raise ValueError("only names, attributes and items can be inspected; use run_code for anything else")


def why_not(tree: ast.expr) -> str | None:
    try:
        with limited(EACH):
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
            ("missing", lambda: int(value.isna().sum() if hasattr(value, "isna") else value.null_count())),
        ]
    if (package, name) == ("numpy", "ndarray"):
        return of_whole_array(value)
    if isinstance(value, dict):
        return [
            ("items", lambda: {cut(SHORT.repr(k), 100): in_short(v) for k, v in itertools.islice(value.items(), 30)})
        ]
    if isinstance(value, BaseException):
        frames = value.__traceback__ and value.__traceback__.tb_next  # without IPython's own
        return [("traceback", lambda: "".join(traceback.format_exception(kind, value, frames))[-6000:])]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [("items", lambda: [in_short(item) for item in itertools.islice(value, 20)])]
    return [
        ("text", lambda: cut(value if isinstance(value, str) else repr(value), 4000)),
        ("doc", lambda: cut(python_inspect.getdoc(kind), 500) if package != "builtins" else ""),
        ("attributes", lambda: of_attributes(value)),
    ]


def in_short(value: Any) -> str:
    return f"{type_name(value)}: {cut(SHORT.repr(value), 120)}"


def of_whole_frame(frame: Any) -> list[Detail]:
    few = frame.iloc[:, :40]
    return [
        ("columns", lambda: {str(name): str(kind) for name, kind in itertools.islice(frame.dtypes.items(), 100)}),
        ("head", lambda: cut(few.head(5).to_string(max_colwidth=40), 3000)),
        ("describe", lambda: cut(few.describe().to_string(), 3000) if frame.size <= 20_000_000 else ""),
        ("missing", lambda: {str(n): int(c) for n, c in few.isna().sum().items() if c} if frame.size < 5e7 else {}),
        ("index", lambda: cut(repr(frame.index), 300)),
    ]


def of_whole_array(array: Any) -> list[Detail]:
    rows: list[Detail] = [("text", lambda: cut(repr(array), 2000))]
    if array.dtype.kind in "iufb" and 0 < array.size <= 50_000_000:
        rows += [("min", lambda: array.min().item()), ("max", lambda: array.max().item())]
        rows.append(("mean", lambda: float(array.mean())))
        if array.dtype.kind == "f":
            rows.append(("missing", lambda: int((array != array).sum())))
    return rows


def of_callable(value: Any) -> list[Detail]:
    """A function, a class, a module."""
    module = isinstance(value, types.ModuleType)
    named = value if issubclass(type(value), LEFT_OUT) else type(value)
    return [
        ("signature", lambda: cut(str(python_inspect.signature(value)), 500)),
        ("doc", lambda: cut(python_inspect.getdoc(value), 3000)),
        ("module", lambda: cut(getattr(value, "__module__", None) or getattr(value, "__name__", ""), 200)),
        ("file", lambda: python_inspect.getsourcefile(named)),
        ("source", lambda: "" if module else cut(python_inspect.getsource(named), 4000)),
        ("members", lambda: [n for n in dir(value) if not n.startswith("_")][:100] if module else []),
    ]


def of_attributes(value: Any) -> dict[str, str]:
    own = getattr(value, "__dict__", None)
    if not isinstance(own, dict):
        return {}
    return {cut(str(name), 60): in_short(item) for name, item in itertools.islice(own.items(), 30)}
