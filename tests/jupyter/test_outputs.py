"""Outputs come as nbclient would keep them, and stay within bounds whatever the code shows."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import Any

import nbformat
from nbclient import NotebookClient

from navi_jupyter.jupyter.kernels.outputs import Bounds, Outputs
from navi_jupyter.jupyter.kernels.service import KernelService
from navi_jupyter.jupyter.kernels.transport import IopubMessage, Parent, cut_stream
from navi_jupyter.model.sessions import Session

from .conftest import text_of


def said(kind: str, **content: Any) -> IopubMessage:
    return IopubMessage(kind=kind, sender="k", parent=Parent("p", "execute_request"), content=content)


CELL = """\
import sys
from IPython.display import clear_output, display, HTML
print('gone'); clear_output(); print('a', end=''); print('b')
print('err', file=sys.stderr)
handle = display('first', display_id=True)
display(HTML('<b>x</b>'))
handle.update('second')
print('kept until the next'); clear_output(wait=True)
print('after')
shown = display({'text/plain': 'bundle'}, raw=True, display_id='d')
display('again', display_id='d')
from IPython.display import update_display
update_display('both', display_id='d')
40 + 2
"""


async def test_outputs_are_those_that_nbclient_keeps(kernels: KernelService, session: Session, tmp_path: Any) -> None:
    done = await kernels.execute(session, CELL)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    await NotebookClient(notebook, kernel_name="python3").async_execute()
    expected = [
        {name: value for name, value in output.items() if name != "transient"} for output in notebook.cells[0].outputs
    ]
    assert json.loads(json.dumps(done.outputs)) == json.loads(json.dumps(expected))
    kept = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL, outputs=list(done.outputs))])
    nbformat.validate(nbformat.from_dict(kept))


async def test_what_was_told_piece_by_piece_makes_the_same_outputs(kernels: KernelService, session: Session) -> None:
    drawn: list[dict[str, Any]] = []

    def on_output(output: Any) -> None:
        if output["output_type"] == "clear_output":
            drawn.clear()
        elif output["output_type"] == "update_display_data":
            drawn[output["index"]] |= {"data": output["data"], "metadata": output["metadata"]}
        else:
            drawn.append(dict(output))

    done = await kernels.execute(session, CELL, on_output=on_output)
    joined = Outputs()
    for output in drawn:
        joined._add(output)
    assert json.dumps(joined.all()) == json.dumps(done.outputs)


async def test_fifty_megabytes_of_text_keep_their_two_ends_and_do_not_hold_the_loop(
    kernels: KernelService, session: Session
) -> None:
    await kernels.execute(session, "1")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lags = await _lags_while(
        kernels.execute(session, "print('start ' + 'é\\n' * 12_500_000 + 'x' * 12_500_000 + ' end')")
    )
    done = lags.result
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    text = text_of(done.outputs)
    print(f"50 MB print: {done.duration:.2f} s, worst loop lag {lags.worst * 1000:.0f} ms, peak +{grown / 1024:.0f} MB")
    assert done.status == "ok"
    assert text.startswith("start é\n")
    assert text.endswith(" end\n")
    assert "characters left out" in text
    assert len(text) < 1_000_000


async def test_a_million_small_prints_are_bounded(kernels: KernelService, session: Session) -> None:
    lags = await _lags_while(
        kernels.execute(
            session, "import sys\nfor i in range(300_000): sys.stdout.write(f'line {i}\\n')\nprint('the end')"
        )
    )
    text = text_of(lags.result.outputs)
    print(f"300,000 prints: {lags.result.duration:.2f} s, worst loop lag {lags.worst * 1000:.0f} ms")
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 299999\nthe end\n")
    assert len(text) < 1_000_000


async def test_displays_without_end_and_huge_bundles_are_left_out_with_a_word(
    kernels: KernelService, session: Session
) -> None:
    code = (
        "from IPython.display import display\n"
        "display({'image/png': 'A' * 30_000_000, 'text/plain': 'a picture'}, raw=True)\n"
        "display({'application/json': {'x': 'B' * 40_000_000}}, raw=True)\n"
        "for i in range(1500): display(i)"
    )
    done = await kernels.execute(session, code)

    first, second, *others = done.outputs
    assert first["data"] == {"text/plain": "a picture\n(left out: image/png, 30.0 MB)"}
    assert "an output of 40 MB was left out" in second["data"]["text/plain"]
    assert len(others) < 1001
    assert any("more displays were left out" in other.get("text", "") for other in others)


async def test_binary_text_is_survived(kernels: KernelService, session: Session) -> None:
    code = "import sys, os\nsys.stdout.write('\\x00\\x1b[31m text ')\nos.write(1, bytes(range(256)))\nbytes(range(256))"
    done = await kernels.execute(session, code)
    assert done.status == "ok"
    assert "\ufffd\x1b[31m text " in text_of(done.outputs)
    assert "\\xff" in done.outputs[-1]["data"]["text/plain"]
    json.dumps(done.outputs, ensure_ascii=False).encode()


def test_half_characters_never_get_out() -> None:
    outputs = Outputs()
    outputs.take(said("stream", name="stdout", text="half \ud83d"))
    outputs.take(said("display_data", data={"text/plain": ["\ud83d", "x"]}, metadata={}))
    outputs.take(said("error", ename="E", evalue="\ude00", traceback=["\ude00"]))
    json.dumps(outputs.all(), ensure_ascii=False).encode()


def test_a_stream_is_cut_out_of_its_raw_json_wherever_the_cut_falls() -> None:
    text = "".join(f'{i}\n"q"\\ \u00e9 \U0001f600 \t' for i in range(200))
    for ascii_only in (True, False):
        for order in (("name", "text"), ("text", "name")):
            content = {"name": "stderr", "text": text}
            raw = json.dumps({key: content[key] for key in order}, ensure_ascii=ascii_only).encode()
            for end in range(200, 260):
                name, head, left_out, ending = cut_stream(raw, end)
                assert name == "stderr"
                assert text.startswith(head)
                assert text.endswith(ending[12:])  # an escape that was cut leaves its end
                assert len(ending) > end // 12
                assert left_out > 0
                assert len(head) > end // 12 - 2
                head.encode()
                ending.encode()


def test_the_tail_keeps_the_order_of_streams_and_the_count_of_what_is_missing() -> None:
    outputs = Outputs(bounds=Bounds(head=10, tail=10))
    for number in range(10):
        outputs.take(said("stream", name="stdout" if number % 2 else "stderr", text=str(number) * 5))
    outputs.finish()
    text = text_of(outputs.all())
    assert text == "0000011111\n… 30 characters left out …\n8888899999"


def test_a_traceback_without_end_is_bounded() -> None:
    outputs = Outputs()
    for _ in range(3000):
        outputs.take(said("error", ename="E", evalue="v" * 100_000, traceback=["t" * 100_000] * 500))
        if len(outputs._all) == 3:
            break
    assert all(len(json.dumps(output)) < 5_000_000 for output in outputs.all())


class _Lags:
    worst = 0.0
    result: Any = None


async def _lags_while(work: Any) -> _Lags:
    """How late the loop was at worst while something went on."""
    lags = _Lags()
    task = asyncio.ensure_future(work)
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.005)
        lags.worst = max(lags.worst, time.monotonic() - before - 0.005)
    lags.result = await task
    return lags
