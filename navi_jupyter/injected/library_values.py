"""Arrays, frames and tensors, by the libraries' own methods, where these call no code of the user's; sent as source.

Columns of Python objects are read only as far as all of their items are plain texts and numbers. Of an object whose
methods were replaced, and of a subclass, only the name of the type is shown.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable
from typing import Any

from .safe_values import (
    LEFT_OUT,
    NUMBERS,
    bases_of,
    is_any,
    is_environment,
    name_of,
    namespace_of,
    of_library,
    own_dict,
    shown,
    type_name,
)

PLAIN = (*NUMBERS, str)
LONGEST_SCAN = 200_000  # items of a column of objects that are looked at, to find that all of them are plain
_KINDS = "iufcbmM"  # numpy's kinds of dtypes without objects in them


def original(value: Any) -> bool:
    """Whether an instance has none of its methods replaced."""
    own, bases = own_dict(value), bases_of(type(value))
    return own is None or not any(
        type(name) is not str or (name[:1] != "_" and any(name in namespace_of(base) for base in bases)) for name in own
    )


def library_of(value: Any) -> str:
    """``pandas.DataFrame`` and so forth, for what can be described here; else empty."""
    kind = type(value)
    for package in ("pandas", "numpy", "polars", "torch"):
        name = of_library(kind, package)
        if name and original(value):
            return f"{package}.{name}" if package != "pandas" or _made_of_theirs(value) else ""
    return ""


def _made_of_theirs(value: Any) -> bool:
    """Whether a frame or a column of pandas consists of arrays and an index of pandas and numpy, no one else's."""
    manager = own_dict(value) or {}
    if "_mgr" not in manager:
        return all(of_library(type(each), "pandas", "numpy") for name, each in manager.items() if name == "_data")
    axes, arrays = list(manager["_mgr"].axes), list(manager["_mgr"].arrays)
    return all(of_library(type(each), "pandas", "numpy") for each in (*axes, *arrays))


def sides(shape: Any) -> list[int]:
    return [int(side) for side in itertools.islice(shape, 10)]


def described(shape: Any, dtype: Any, size: Any, preview: str) -> dict[str, Any]:
    return {"shape": sides(shape), "dtype": str(dtype), "size": int(size), "preview": preview}


def firsts(values: list[Any], shape: Any) -> str:
    """The first values of many."""
    many = 1
    for side in sides(shape):
        many *= side
    return "[{}{}]".format(", ".join(map(label, values)), ", …" if many > len(values) else "")


def label(value: Any) -> str:
    """A value of a frame or an array, or the name of a column."""
    if of_library(type(value), "pandas", "numpy") and of_library(type(value), "numpy") != "ndarray":
        return str(value)  # a time stamp, a number
    return shown(value)


def dtype_name(dtype: Any) -> str:
    return str(dtype) if _library_dtype(dtype) else type_name(dtype)


def _library_dtype(dtype: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return (numpy is not None and issubclass(type(dtype), numpy.dtype)) or bool(of_library(type(dtype), "pandas"))


def is_plain(series: Any) -> bool:
    """Whether no item of a pandas Series or Index is an object that code of the user's could belong to."""
    dtype = series.dtype
    if getattr(dtype, "kind", "O") in _KINDS and _library_dtype(dtype) and type(dtype).__name__ != "CategoricalDtype":
        return True
    if type(dtype).__name__ == "StringDtype" and _library_dtype(dtype):
        return True
    if not _library_dtype(dtype) or len(series) > LONGEST_SCAN or dtype != "object":
        return False
    return all(is_any(type(item), PLAIN) for item in series.to_numpy())


def plain_part(frame: Any, most: int = 40) -> Any:
    """The columns of a pandas DataFrame that can be printed, under plain names, and a plain index."""
    columns = list(frame.columns[:most])
    names = [at for at, name in enumerate(columns) if is_any(type(name), PLAIN)]
    part = frame.iloc[:, [at for at in names if is_plain(frame.iloc[:, at])]]
    return part if is_plain_index(part) else part.reset_index(drop=True)


def is_plain_index(data: Any) -> bool:
    index = data.index
    return bool(of_library(type(index), "pandas")) and type(index).__name__ != "MultiIndex" and is_plain(index)


def is_environment_like(series: Any) -> bool:
    """Whether the labels of a Series are the names of environment variables."""
    return type(series).__name__ == "Series" and is_environment(list(series.index[:200]))


def of_frame(frame: Any) -> dict[str, Any]:
    """A pandas DataFrame."""
    kinds: dict[str, int] = {}
    for kind in itertools.islice(frame.dtypes, 1000):
        kinds[dtype_name(kind)] = kinds.get(dtype_name(kind), 0) + 1
    counted = ", ".join(f"{kind}×{count}" for kind, count in kinds.items())
    names = (name if type(name) is str else label(name) for name in frame.columns[:12])
    about: dict[str, Any] = {"shape": sides(frame.shape), "dtype": counted, "preview": f"columns: {', '.join(names)}"}
    if all(map(_library_dtype, frame.dtypes[:1000])):
        # Not deep: the size of each object in a column of strings takes seconds.
        about["size"] = int(frame.memory_usage(index=True, deep=False).sum())
    return about


def of_series(series: Any) -> dict[str, Any]:
    """A pandas Series or Index."""
    if not _library_dtype(series.dtype) or is_environment_like(series):
        return {"shape": sides(series.shape)}
    values = list(series[:6]) if type(series).__name__ != "Series" else list(series.iloc[:6])
    return described(series.shape, series.dtype, series.memory_usage(deep=False), firsts(values, series.shape))


def of_array(array: Any) -> dict[str, Any]:
    """A numpy array."""
    preview = firsts(array.flat[:6].tolist(), array.shape) if array.size else "empty"
    return described(array.shape, array.dtype, array.nbytes, preview)


def of_scalar(value: Any) -> dict[str, Any]:
    """A numpy number."""
    if not hasattr(value, "nbytes") or not hasattr(value, "item"):
        return {}
    return {"dtype": str(value.dtype), "size": int(value.nbytes), "preview": shown(value.item())}


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


LIBRARIES = {
    "pandas.DataFrame": of_frame,
    **{f"pandas.{name}": of_series for name in ("Series", "Index", "DatetimeIndex", "RangeIndex")},
    "numpy.ndarray": of_array,
    **{f"torch.{name}": of_tensor for name in ("Tensor", "Parameter")},
    "polars.DataFrame": of_polars,
    "polars.Series": of_polars_series,
}


def library_summary(value: Any) -> dict[str, Any]:
    """Shape, dtype, size and a preview of a value of a known library; empty for anything else."""
    name = library_of(value)
    if name in LIBRARIES:
        return LIBRARIES[name](value)
    return of_scalar(value) if name.startswith("numpy.") else {}


def printed(make: Callable[[], Any]) -> Callable[[], str]:
    """The text that ``make`` returns, by pandas' and numpy's own formats: functions of the user's would be called."""

    def text() -> str:
        pandas, numpy = sys.modules.get("pandas"), sys.modules["numpy"]
        with contextlib.ExitStack() as formats:
            formats.enter_context(numpy.printoptions(formatter=None))
            if pandas is not None:
                formats.enter_context(pandas.option_context("display.float_format", None))
            return str(make())

    return text


def whole_frame(frame: Any) -> dict[str, Any]:
    """What else there is to say of a pandas DataFrame, as functions that are called one by one."""
    few = plain_part(frame)
    numeric = few.iloc[:, [at for at, kind in enumerate(few.dtypes) if getattr(kind, "kind", "O") in "iufbmM"]]
    small = frame.size < 50_000_000
    return {
        "columns": lambda: {
            label(name) if type(name) is not str else name: dtype_name(kind)
            for name, kind in itertools.islice(zip(frame.columns, frame.dtypes), 100)  # noqa: B905 - not in Python 3.9
        },
        "head": printed(lambda: few.head(5).to_string(max_colwidth=40)),
        "describe": printed(lambda: numeric.describe().to_string() if numeric.size and small else ""),
        "missing": lambda: {str(n): int(c) for n, c in few.isna().sum().items() if c} if small else {},
        "index": printed(lambda: repr(frame.index) if is_plain_index(frame) else type_name(frame.index)),
    }


def whole_series(series: Any) -> dict[str, Any]:
    """The same of a pandas Series or Index."""
    if not is_plain(series) or is_environment_like(series):
        return {}
    if type(series).__name__ == "Series":
        series = series if is_plain_index(series) else series.reset_index(drop=True)
        series = series if is_any(type(series.name), PLAIN) else series.rename(None)
        return {
            "head": printed(lambda: series.head(8)),
            "describe": printed(lambda: series.describe()),
            "missing": lambda: int(series.isna().sum()),
        }
    return {"missing": lambda: int(series.isna().sum())}


def whole_polars(data: Any) -> dict[str, Any]:
    """The same of a polars DataFrame or Series."""
    if type(data).__name__ == "DataFrame":
        kinds = zip(data.columns, data.dtypes)  # noqa: B905 - not in Python 3.9
        data = data.select([name for name, kind in kinds if str(kind) != "Object"])
    elif str(data.dtype) == "Object":
        return {}
    return {
        "head": lambda: str(data.head(8)),
        "describe": lambda: str(data.describe()),
        "missing": lambda: int(data.null_count()) if type(data).__name__ == "Series" else str(data.null_count()),
    }


def whole_array(array: Any) -> dict[str, Any]:
    """The same of a numpy array."""
    if array.dtype.hasobject:
        return {"text": lambda: firsts(array.flat[:20].tolist(), array.shape)}
    found: dict[str, Any] = {"text": printed(lambda: sys.modules["numpy"].array_repr(array))}
    if array.dtype.kind in "iufb" and 0 < array.size <= 50_000_000:
        found |= {"min": lambda: array.min().item(), "max": lambda: array.max().item()}
        found["mean"] = lambda: float(array.mean())
        if array.dtype.kind == "f":
            found["missing"] = lambda: int((array != array).sum())
    return found


def library_details(value: Any) -> Any:
    """What else there is to say of a value of a known library, by name; None for anything else."""
    name = library_of(value)
    if name == "pandas.DataFrame":
        return whole_frame(value)
    if name.startswith("pandas.") and LIBRARIES.get(name) is of_series:
        return whole_series(value)
    if name in ("polars.DataFrame", "polars.Series"):
        return whole_polars(value)
    return whole_array(value) if name == "numpy.ndarray" else None


def library_item(value: Any, key: Any) -> Any:
    """``(value,)`` of an item of a frame, a column or an array; () for anything else. Raises what the library does."""
    name = library_of(value)
    if name == "pandas.DataFrame":
        at = [n for n, each in enumerate(value.columns) if type(each) is type(key) and each == key]
        return (value.iloc[:, at[0]],) if at else ()
    if name == "pandas.Series":
        return (value.iloc[key],) if type(key) is int and not is_environment_like(value) else ()
    return (value[key],) if name in ("numpy.ndarray", "polars.DataFrame", "polars.Series") else ()


def newest(space: Any, most: int) -> list[Any]:
    """How many variables there are, and the names, types and sizes of the newest of them."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    hidden = {} if shell is None else shell.user_ns_hidden
    found = [
        (name, value)
        for name, value in list(dict.items(space))
        if type(name) is str and name[:1] != "_" and name not in hidden and not issubclass(type(value), LEFT_OUT)
    ]
    return [len(found), [f"{name}: {name_of(type(value))[1]}{_size(value)}" for name, value in found[-most:]]]


def _size(value: Any) -> str:
    if is_any(type(value), (list, dict, set, tuple, str, bytes, frozenset)):
        return f" ({len(value)})"
    shape = getattr(value, "shape", None) if library_of(value) else None
    return f" {tuple(sides(shape))}" if shape is not None else ""
