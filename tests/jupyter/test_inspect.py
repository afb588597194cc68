"""Variables are described from inside the kernel, quickly, whatever the user's objects do; nothing is left behind."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from navi_jupyter.agent.profiles.context_providers import variables_code
from navi_jupyter.errors import InvalidRequest, KernelUnavailable
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.model.sessions import Session

from .conftest import text_of


def by_name(found: Any) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in found["variables"]}


async def test_variables_are_listed_with_type_shape_dtype_size_and_a_preview(
    kernels: KernelService, session: Session
) -> None:
    code = """\
import os, numpy as np, pandas as pd
from dataclasses import dataclass
def function(): pass
class Class: pass
_hidden = 1
number, text, nothing = 42, 'some text', None
items = list(range(100))
table = {'a': 1, 'b': [1, 2, 3]}
array = np.arange(12.0).reshape(3, 4)
scalar = np.float32(1.5)
frame = pd.DataFrame({'x': [1, 2], 'y': ['a', 'b']})
series = pd.Series([1.5, None], name='s')
@dataclass
class Point:
    x: int
point = Point(3)
huge = 10 ** 10_000
"""
    await kernels.execute(session, code)
    found = by_name(await kernels.variables(session))

    names = "array frame huge items nothing number point scalar series table text"
    assert " ".join(sorted(found)) == names
    assert found["number"] == {"name": "number", "type": "int", "size": 28, "preview": "42"}
    assert found["text"]["preview"] == "'some text'"
    assert found["items"]["shape"] == [100]
    assert found["items"]["preview"] == "[0, 1, 2, 3, 4, 5, ...]"
    assert found["table"]["preview"] == "{'a': 1, 'b': [1, 2, 3]}"
    assert found["array"] == {
        "name": "array",
        "type": "numpy.ndarray",
        "shape": [3, 4],
        "dtype": "float64",
        "size": 96,
        "preview": "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, …]",
    }
    assert found["scalar"]["dtype"] == "float32"
    assert found["frame"]["shape"] == [2, 2]
    assert found["frame"]["preview"] == "columns: x, y"
    assert found["frame"]["dtype"].startswith("int64×1")
    assert found["frame"]["size"] > 0
    assert found["series"]["preview"] == "[1.5, nan]"
    assert found["point"]["preview"] == "Point(x=3)"
    assert "10001 digits" in found["huge"]["preview"] or "digits" in found["huge"]["preview"]


async def test_polars_frames_are_known_too(kernels: KernelService, session: Session) -> None:
    pytest.importorskip("polars")
    await kernels.execute(session, "import polars as pl\nframe = pl.DataFrame({'x': [1, 2, 3]}); column = frame['x']")
    found = by_name(await kernels.variables(session))
    assert found["frame"]["shape"] == [3, 1]
    assert found["column"]["dtype"] == "Int64"
    assert "shape: (3, 1)" in (await kernels.inspect(session, "frame"))["head"]


async def test_looking_leaves_nothing_behind(kernels: KernelService, session: Session) -> None:
    await kernels.execute(session, "x = 1\nbefore = set(globals()) | {'before', 'after'}")
    await kernels.variables(session)
    await kernels.inspect(session, "x")
    assert await kernels.evaluate(session, "import math\ny = 2\n_navi_result = [x + y, math.floor(1.5)]") == [3, 1]
    done = await kernels.execute(session, "after = set(globals())\nafter - before, len(In)")
    names, count = eval(text_of(done.outputs))
    assert names == set() or all(name.startswith("_") and "navi" not in name for name in names)
    assert count == 3  # In[0] and the two cells
    assert done.execution_count == 2


HOSTILE = """\
import time
class Raises:
    def __repr__(self): raise RuntimeError('no')
    def __len__(self): raise RuntimeError('no')
    def __getattr__(self, name): raise RuntimeError('no ' + name)
class Hangs:
    def __repr__(self):
        while True: pass
class Sleeps:
    def __repr__(self): time.sleep(100)
    shape = property(lambda self: time.sleep(100))
class Swallows:
    def __repr__(self):
        for _ in range(3):
            try: time.sleep(100)
            except BaseException: pass
        return 'swallowed'
class Huge:
    def __repr__(self): return 'x' * 50_000_000
class NotText:
    def __repr__(self): return 5
class Exits:
    def __repr__(self): raise SystemExit
class Liar(list):
    def __len__(self): return 10 ** 30
    def __iter__(self):
        while True: yield 1
class Meta(type):
    def __getattribute__(cls, name): raise RuntimeError('meta ' + name)
class WithMeta(metaclass=Meta): pass
loop = []; loop.append(loop)
deep = []
for _ in range(100_000): deep = [deep]
"""


async def test_hostile_objects_are_survived(kernels: KernelService, session: Session) -> None:
    classes = ["Raises", "Hangs", "Sleeps", "Swallows", "Huge", "NotText", "Exits", "Liar", "WithMeta"]
    made = "\n".join(f"{name.lower()} = {name}()" for name in classes)
    assert (await kernels.execute(session, HOSTILE + made + "\nfine = 1")).status == "ok"

    start = time.monotonic()
    found = by_name(await kernels.variables(session))
    took = time.monotonic() - start

    print(f"eleven hostile objects: {took:.2f} s")
    assert took < 4
    assert found["fine"]["preview"] == "1"
    assert found["loop"]["preview"]
    for name in ("raises", "hangs", "sleeps", "swallows", "huge", "nottext", "exits", "liar", "withmeta", "deep"):
        assert len(found[name].get("preview", "")) <= 200
        shown = await kernels.inspect(session, name)
        assert shown["name"] == name
    assert (await kernels.execute(session, "1 + 1")).status == "ok"
    assert (await kernels.state(session)).status == "idle"


TELLTALES = """\
import collections, os, types
ran = []
def note(what): ran.append(what)
class Meta(type):
    def __getattribute__(cls, name):
        note('meta getattribute ' + name)
        return type.__getattribute__(cls, name)
    def __eq__(cls, other): note('meta eq'); return True
    def __hash__(cls): note('meta hash'); return 1
    def __instancecheck__(cls, one): note('meta instancecheck'); return True
    def __subclasscheck__(cls, one): note('meta subclasscheck'); return True
    __module__ = property(lambda cls: note('meta module') or 'pandas')
    __name__ = property(lambda cls: note('meta name') or 'DataFrame')
def evil(base, metaclass=type):
    def noting(name, result=None):
        def method(self, *args, **more):
            note(f'{base.__name__}.{name}')
            return result
        return method
    names = ('__repr__ __str__ __len__ __iter__ __getitem__ __contains__ __eq__ __hash__ __bool__ __sizeof__ __format__'
             ' __dir__ __next__ __reversed__ __index__ __int__ __float__ __missing__ keys items values get head iloc'
             ' describe __array__ _repr_html_ __fspath__ __call__ __get__ __reduce__ tolist to_string to_list').split()
    zero = ('__len__', '__hash__', '__sizeof__', '__index__', '__int__')
    space = {name: noting(name, 0 if name in zero else None) for name in names}
    space['__class__'] = property(lambda self: note(base.__name__ + '.__class__') or dict)
    space['__dict__'] = property(lambda self: note(base.__name__ + '.__dict__') or {})
    for name in 'shape dtype columns size nbytes __doc__ __traceback__ args __dataclass_fields__ x'.split():
        space[name] = property(lambda self, name=name: note(base.__name__ + '.' + name))
    space['__getattribute__'] = lambda self, name: note('getattribute ' + name) or object.__getattribute__(self, name)
    space['__getattr__'] = lambda self, name: note(base.__name__ + '.getattr ' + name)
    space['__module__'] = 'pandas'
    return metaclass('DataFrame', (base,), space)
class Descriptor:
    def __get__(self, one, kind=None): note('descriptor'); return 5
    def __set__(self, one, value): pass
class Plain:
    computed = Descriptor()
    kept = property(lambda self: note('property'))
    def __init__(self): self.stored = 3
class Slotted:
    __slots__ = ('inside',)
class Fails(Exception):
    def __str__(self): note('str of an error'); return 'x'
slotted = Slotted(); slotted.inside = [1]
plain, of_object, of_meta = Plain(), evil(object)(), evil(object, Meta)()
of_list, of_dict, of_str = evil(list)([1]), evil(dict)(a=1), evil(str)('x')
of_int, of_tuple = evil(int)(5), evil(tuple)((1,))
of_set, of_error, of_module = evil(set)([1]), evil(ValueError)('x'), evil(types.ModuleType)('m')
raised = Fails(of_object); wrapped = ValueError(of_object, of_meta)
inside, mapped = [of_object, of_meta, of_list], {'a': of_dict, 'b': of_str}
keyed = {}
dict.__setitem__(keyed, evil(int)(7), 1)
ordered, deck = collections.OrderedDict(a=of_object), collections.deque([of_object])
def function(x=of_object, *, y: of_meta = of_meta): return x
function.__signature__ = of_object; function.__wrapped__ = of_object; function.__doc__ = 'Does it.'
Class = type(of_object)
MetaClass = type(of_meta)
ran.clear()
"""
LIBRARY_TELLTALES = """\
import numpy as np, pandas as pd
class Noisy:
    __repr__ = lambda self: note('repr') or 'x'
    __str__ = lambda self: note('str') or 'x'
    __eq__ = lambda self, other: note('eq') or False
    __hash__ = lambda self: note('hash') or 1
    __class__ = property(lambda self: note('class') or int)
    __float__ = lambda self: note('float') or 1.0
objects = np.empty(3, dtype=object)
objects[0], objects[1], objects[2] = Plain(), raised, 1
class Array(np.ndarray):
    def __repr__(self): note('array repr'); return 'x'
    def __array_finalize__(self, other): pass
    shape = property(lambda self: note('array shape'))
array = np.arange(3).view(Array)
column = pd.Series([Noisy(), Noisy()], dtype=object)
frame = pd.DataFrame({'a': [1, 2], 'b': column})
named = pd.DataFrame({'a': [1, 2]}, index=pd.Index([Noisy(), Noisy()], dtype=object))
class Frame(pd.DataFrame):
    def __repr__(self): note('frame repr'); return 'x'
    def head(self, n=5): note('head')
    @property
    def shape(self): note('frame shape')
special = Frame({'a': [1]})
class Labels(pd.Index):
    def __getitem__(self, at): note('labels'); return super().__getitem__(at)
labelled = pd.DataFrame({'a': [1]})
labelled.columns = Labels._simple_new(np.array(['a'], dtype=object))
class Own(pd.api.extensions.ExtensionDtype):
    name, type, kind = 'own', object, 'O'
    @classmethod
    def construct_array_type(cls): return OwnArray
class OwnArray(pd.api.extensions.ExtensionArray):
    dtype = property(lambda self: note('dtype') or Own())
    nbytes = property(lambda self: note('nbytes') or 1)
    def __len__(self): note('len'); return 2
    def __getitem__(self, at): note('getitem'); return 1 if isinstance(at, int) else self
    def isna(self): note('isna'); return np.array([False, False])
    def copy(self): return self
    @classmethod
    def _from_sequence(cls, scalars, *, dtype=None, copy=False): return cls()
    def _formatter(self, boxed=False): note('formatter'); return str
    def take(self, *args, **more): note('take'); return self
foreign = pd.Series(OwnArray())
patched = pd.DataFrame({'a': [1]})
object.__setattr__(patched, 'describe', lambda: note('patched'))
np.set_printoptions(formatter={'all': lambda one: note('formatter') or 'x'})
pd.options.display.float_format = lambda one: note('float format') or 'x'
numbers = pd.DataFrame({'a': [1.5, 2.5]}); floats = np.array([1.5])
ran.clear()
"""


@pytest.mark.parametrize("library", [False, True], ids=["plain", "libraries"])
async def test_no_method_property_or_descriptor_of_the_user_is_called(
    kernels: KernelService, session: Session, library: bool
) -> None:
    code = TELLTALES + (LIBRARY_TELLTALES if library else "")
    done = await kernels.execute(session, code)
    assert done.status == "ok", done
    await kernels.execute(session, "ran.clear()")
    found = by_name(await kernels.variables(session))
    assert len(found) > 15
    parts = ("of_object.x", "of_meta.x", "of_object['a']", "of_dict['a']", "of_list[0]", "of_str[0]", "plain.computed")
    parts += ("plain.kept", "keyed[7]", "mapped['a']", "inside[1]", "inside[0].shape", "of_module.x", "Class.x")
    parts += ("frame['b']", "frame['b'][0]", "frame.b", "column[0]", "objects[0]") if library else ()
    functions = ("function", "Class", "MetaClass", "Meta", "evil", "Plain")
    for expression in (*found, *parts, *functions):
        with contextlib.suppress(InvalidRequest):
            await kernels.inspect(session, expression)
    count, newest = await kernels.evaluate(session, variables_code())
    assert (count > 15, len(newest)) == (True, 15)
    ran = await kernels.evaluate(session, "_navi_result = list(ran)")
    assert ran == []


async def test_what_is_stored_is_still_shown(kernels: KernelService, session: Session) -> None:
    await kernels.execute(session, TELLTALES)
    assert (await kernels.inspect(session, "plain"))["attributes"] == {"stored": "int: 3"}
    assert (await kernels.inspect(session, "plain.stored"))["preview"] == "3"
    assert (await kernels.inspect(session, "slotted.inside"))["preview"] == "[1]"
    assert (await kernels.inspect(session, "mapped"))["items"]["'a'"] == "pandas.DataFrame: <pandas.DataFrame>"
    function = await kernels.inspect(session, "function")
    assert function["signature"].startswith("(x=<pandas.DataFrame>, *, y: ")
    assert (function["doc"], "return x" in function["source"]) == ("Does it.", True)
    with pytest.raises(InvalidRequest, match="computed by code when it is read"):
        await kernels.inspect(session, "plain.kept")
    shown = (await kernels.inspect(session, "raised"))["traceback"]
    assert shown.endswith("Fails: <pandas.DataFrame>")


async def test_all_kinds_of_columns_of_pandas_are_described(kernels: KernelService, session: Session) -> None:
    code = """\
import pandas as pd
frame = pd.DataFrame({'i': [1, 2], 'f': [1.5, None], 's': ['a', None], 'b': [True, False], 'o': [1, 'a']})
frame['when'] = pd.to_datetime(['2026-01-01', '2026-01-02']).tz_localize('UTC')
frame['n'] = pd.array([1, None], dtype='Int64')
frame['c'] = pd.Categorical(['x', 'y'])
frame['t'] = pd.array(['x', None], dtype='string')
frame['d'] = pd.to_timedelta(['1h', '2h'])
frame.note_of_mine = 'stays'
dated = frame.set_index('when')
"""
    assert (await kernels.execute(session, code)).status == "ok"
    for name in ("frame", "dated"):
        shown = await kernels.inspect(session, name)
        assert set(shown["columns"]) == set("ifsbonctd") | ({"when"} if name == "frame" else set()), shown
        assert shown["size"] > 0
        for column in ("1.5", "a", "True", "x"):
            assert column in shown["head"], shown["head"]
        assert (shown["missing"]["f"], shown["missing"]["s"], shown["missing"]["n"]) == (1, 1, 1)
        assert "mean" in shown["describe"]
    for column in "ifsbotnd":
        assert (await kernels.inspect(session, f"frame['{column}']"))["head"], column


async def test_an_environment_is_not_read_whatever_holds_it(kernels: KernelService, session: Session) -> None:
    code = """\
import os, posix, pandas as pd
os.environ['A_HARMLESS_NAME'] = 'the value of it'
environ, copied, encoded, items = os.environ, dict(os.environ), os.environb, list(os.environ.items())
lines = [f'{name}={value}' for name, value in os.environ.items()]
start = posix.environ
class Holds:
    def __init__(self): self.environ, self.env = os.environ, dict(os.environ)
holds, nested, column = Holds(), {'env': dict(os.environ)}, pd.Series(dict(os.environ))
class Is(dict): pass
subclass = Is(os.environ)
"""
    assert (await kernels.execute(session, code)).status == "ok"
    seen = [await kernels.variables(session)]
    names = ("environ", "copied", "encoded", "items", "lines", "start", "holds", "nested", "column", "subclass")
    names += ("os", "os.environ", "os.environ._data")
    parts = ("os.environ['A_HARMLESS_NAME']", "copied['A_HARMLESS_NAME']", "holds.env['A_HARMLESS_NAME']", "holds.env")
    parts += ("nested['env']", "nested['env']['A_HARMLESS_NAME']", "items[0]", "column[0]", "environ._data")
    for expression in (*names, *parts):
        with contextlib.suppress(InvalidRequest):
            seen.append(await kernels.inspect(session, expression))
    assert "the value of it" not in str(seen)
    assert "not shown" in str(seen)
    usual = await kernels.inspect(session, "nested")
    assert usual["items"] == {"'env'": "dict: (an environment, which is not shown)"}


async def test_the_users_own_alarm_is_not_touched(kernels: KernelService, session: Session) -> None:
    code = (
        "import signal\nrang = []\nsignal.signal(signal.SIGALRM, lambda *_: rang.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.6)\nclass A: pass\na = A()"
    )
    await kernels.execute(session, code)
    await kernels.variables(session)
    done = await kernels.execute(
        session, "import time\nuntil = time.time() + 5\nwhile not rang and time.time() < until: pass\nrang"
    )
    assert text_of(done.outputs) == "[1]"


async def test_a_thousand_variables_are_listed_in_a_tenth_of_a_second(kernels: KernelService, session: Session) -> None:
    code = """\
import numpy as np
for i in range(400): globals()[f'n{i}'] = i
for i in range(300): globals()[f't{i}'] = 'text' * i
for i in range(200): globals()[f'l{i}'] = list(range(i))
for i in range(100): globals()[f'a{i}'] = np.zeros((i, 3))
"""
    await kernels.execute(session, code)
    await kernels.variables(session, limit=1000)
    took = []
    for _ in range(5):
        start = time.monotonic()
        found = await kernels.variables(session, limit=1000)
        took.append(time.monotonic() - start)
    print(f"1,000 variables: best {min(took) * 1000:.0f} ms, worst {max(took) * 1000:.0f} ms")
    assert len(found["variables"]) == 1000
    assert min(took) < 1
    some = await kernels.variables(session, pattern="a*", limit=10)
    assert (len(some["variables"]), some["count"]) == (10, 100)


async def test_one_variable_is_inspected_in_depth(kernels: KernelService, session: Session) -> None:
    code = """\
import numpy as np, pandas as pd
frame = pd.DataFrame({'x': [1.0, None, 3.0], 'y': list('abc')})
array = np.array([1.0, float('nan'), 3.0])
config = {'lr': 0.1, 'layers': [1, 2]}
def train(data, *, epochs: int = 3) -> float:
    "Fit it."
    return 0.5
class Model:
    def __init__(self): self.weights = [1, 2]
model = Model()
"""
    await kernels.execute(session, code)
    frame = await kernels.inspect(session, "frame")
    assert frame["missing"] == {"x": 1}
    assert frame["columns"]["x"] == "float64"
    assert "mean" in frame["describe"]
    assert (await kernels.inspect(session, 'frame["x"]'))["missing"] == 1
    assert (await kernels.inspect(session, "array"))["missing"] == 1
    assert (await kernels.inspect(session, "config"))["items"]["'lr'"] == "float: 0.1"
    assert (await kernels.inspect(session, "config['layers'][0]"))["preview"] == "1"
    train = await kernels.inspect(session, "train")
    assert train["signature"] == "(data, *, epochs: int = 3) -> float"
    assert train["doc"] == "Fit it."
    assert "return 0.5" in train["source"]
    assert (await kernels.inspect(session, "model"))["attributes"]["weights"] == "list: [1, 2]"
    assert "Read a comma-separated" in (await kernels.inspect(session, "pd.read_csv"))["doc"]


@pytest.mark.parametrize(
    "expression",
    ["missing", "x.nothing", "x + 1", "open('a', 'w')", "x; y", "", "[x for x in y]", "x[f()]", "__import__('os')"],
)
async def test_inspecting_runs_no_code(kernels: KernelService, session: Session, expression: str) -> None:
    await kernels.execute(session, "x = {'a': 1}\ndef f(): globals()['ran'] = True")
    with pytest.raises(InvalidRequest):
        await kernels.inspect(session, expression)
    assert "ran" not in by_name(await kernels.variables(session))


async def test_an_error_in_what_is_evaluated_names_it(kernels: KernelService, session: Session) -> None:
    await kernels.execute(session, "1")
    with pytest.raises(InvalidRequest, match="ZeroDivisionError: division by zero"):
        await kernels.evaluate(session, "_navi_result = 1 / 0")
    with pytest.raises(KernelUnavailable, match=r"did not answer within 0\.3 s"):
        await kernels.evaluate(session, "while True: pass", timeout=0.3)
    with pytest.raises(InvalidRequest, match="too large"):
        await kernels.evaluate(session, "_navi_result = 'x' * 10_000_000")
    assert (
        await kernels.evaluate(session, "import asyncio\nawait asyncio.sleep(0)\n_navi_result = float('nan')") is None
    )


async def test_a_shadowed_builtin_does_not_blind_us(kernels: KernelService, session: Session) -> None:
    await kernels.execute(
        session, "list = len = dict = type = repr = str = get_ipython = eval = exec = compile = 5\nx = 1"
    )
    assert by_name(await kernels.variables(session))["x"]["preview"] == "1"
    assert (await kernels.inspect(session, "x"))["type"] == "int"
    assert await kernels.evaluate(session, "_navi_result = x") == 1
