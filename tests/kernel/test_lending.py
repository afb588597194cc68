"""A cell that waits lends its kernel: what the agent does in it, seen from the cell, by each way to ask.

A scripted model behind a real server; the kernel is the one that the cell waits in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kernels import NotebookKernel, Shown
from tests.support.providers import KEY, Call, Reply, ScriptedProvider
from tests.support.server import JupyterServer

from .test_control import MODEL, provider_of
from .test_magics import session_of

WAYS = {
    "%navi": "%navi {}",
    "%%navi": "%%navi\n{}",
    "navi.ask": "r = navi.ask({!r})",
    "ask_async": "r = await navi.ask_async({!r})",
}


def trust(home: Path) -> None:
    """Give the server of ``home`` the profile ``trusted``, which asks nothing."""
    profiles = home / "config" / "navi" / "profiles"
    profiles.mkdir(parents=True)
    text = 'description = "Asks nothing."\nextends = "assistant"\n[permissions]\n"*" = "allow"\n'
    (profiles / "trusted.toml").write_text(text)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply("unscripted")) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, provider: ScriptedProvider) -> Iterator[JupyterServer]:
    """A server whose model is scripted, shared by the tests of this module."""
    env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
    home = tmp_path_factory.mktemp("server")
    trust(home)
    with JupyterServer(home, env=env).start() as running:
        yield running


@pytest.fixture
def ask(kernel: NotebookKernel, server: JupyterServer, provider: ScriptedProvider) -> Callable[..., Shown]:
    """``ask(reply, …)``: the model's answers to one prompt, which is asked in a cell; what that showed.

    Its session may run code without asking.
    """
    kernel.ok("%navi status")
    server.request("PATCH", f"navi/api/sessions/{session_of(server, kernel)['id']}", {"profile": "trusted"})

    def ask_in_a_cell(*script: Reply, way: str = "navi.ask", before: str = "", after: str = "", **given: Any) -> Shown:
        provider.restart(*script)
        cell = WAYS[way].format("go on")
        return kernel.run("\n".join(part for part in (before, cell, after) if part), **given)

    return ask_in_a_cell


def runs(code: str, call_id: str = "c1") -> Reply:
    """The model runs code."""
    return Reply(calls=(Call("run_code", {"code": code}, id=call_id),))


def given_back(provider: ScriptedProvider, call_id: str = "c1") -> str:
    """What the model got as the result of a call."""
    for message in provider.requests[-1].body["messages"]:
        if message.get("role") == "tool" and message.get("tool_call_id") == call_id:
            content = message["content"]
            return content if isinstance(content, str) else json.dumps(content)
    raise AssertionError(f"no result of {call_id}: {provider.requests[-1].body['messages']}")


def error_free(shown: Shown) -> Shown:
    assert shown.status == "ok", shown.error or shown
    return shown


# --- every way to ask -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_agent_works_in_the_kernel_that_waits_as_it_does_from_the_chat(
    way: str, ask: Callable[..., Shown], kernel: NotebookKernel, provider: ScriptedProvider
) -> None:
    kernel.ok(
        "prices = [3, 4, 5]\n\n@navi.tool(effect='read')\ndef total(factor: int) -> int:\n    'The total.'\n"
        "    return factor * sum(prices)"
    )
    shown = ask(
        Reply(calls=(Call("list_variables", {}, id="v"), Call("inspect_variable", {"name": "prices"}, id="i"))),
        runs("print('sum', sum(prices))\nsum(prices) * 10"),
        Reply(calls=(Call("total", {"factor": 100}, id="t"),)),
        Reply("All in all 1200."),
        way=way,
    )
    error_free(shown)
    assert "prices" in given_back(provider, "v")
    assert "[3, 4, 5]" in given_back(provider, "i")
    assert "sum 12" in given_back(provider)
    assert "120" in given_back(provider)
    assert "1200" in given_back(provider, "t")
    assert shown.stdout.count("sum 12") == 1
    assert [b for b in shown.bundles.values() if b.get("text/plain") == "120"]
    assert "All in all 1200." in shown.last["text/plain"]
    # The code's own outputs are in the cell; the view of the run does not draw them again.
    assert not [b for b in shown.bundles.values() if "sum 12" in b.get("text/plain", "")]


# --- what a cell shows ------------------------------------------------------------------------------------------------


def test_the_cell_reads_in_order_text_then_the_code_s_outputs_then_text(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    before: list[int] = []

    def note(shown: Shown) -> None:
        if "between" in shown.stdout and not before:
            before.append(len(shown.bundles))

    shown = ask(Reply("Let me see.", calls=runs("print('between')").calls), Reply("That is all."), seen=note)
    error_free(shown)
    assert before == [1]
    # Two displays: what comes after the code is not painted into the one above it.
    first, second = [b["text/plain"] for b in shown.bundles.values()]
    assert "Let me see." in first
    assert "That is all." not in first
    assert "That is all." in second


def test_rich_outputs_updates_and_figures_appear_in_the_cell_and_reach_the_model(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    code = (
        "from IPython.display import display, HTML\n"
        "handle = display(HTML('<b>first</b>'), display_id=True)\n"
        "handle.update(HTML('<b>second</b>'))\n"
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"
    )
    shown = error_free(ask(runs(code), Reply("Drawn.")))
    bundles = list(shown.bundles.values())
    assert [b for b in bundles if b.get("text/html") == "<b>second</b>"]
    assert [b for b in bundles if "image/png" in b]
    content = json.dumps(provider.requests[-1].body)
    assert "image" in content


def test_an_error_is_shown_as_ipython_shows_it_and_the_model_gets_its_traceback(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    shown = ask(runs("def f(x):\n    return 1 / x\nf(0)"), Reply("Division by zero."))
    error_free(shown)
    assert "ZeroDivisionError" in shown.error
    assert "return 1 / x" in shown.error
    assert "ZeroDivisionError" in given_back(provider)
    assert "Division by zero." in shown.last["text/plain"]


@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_a_result_that_cannot_be_shown_does_not_fail_the_cell_that_waits(
    way: str, ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    code = "class Broken:\n    def __repr__(self):\n        raise ValueError('not shown')\nBroken()"
    shown = error_free(ask(runs(code), Reply("I see."), way=way))
    assert "not shown" in shown.error
    assert "not shown" in given_back(provider)


@pytest.mark.parametrize("code", ["import os; os.system('echo from below')", "!echo from below"])
def test_what_a_subprocess_prints_is_an_output_of_the_code(
    code: str, ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    shown = error_free(ask(runs(code), Reply("Done.")))
    assert "from below" in shown.stdout
    assert "from below" in given_back(provider)


def test_a_flood_of_output_reaches_the_model_cut_and_breaks_nothing(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    code = "for n in range(500):\n    print('x' * 100_000)\nprint('the last line')"
    shown = error_free(ask(runs(code), runs("print('and on')", "c2"), Reply("Done."), before="import time"))
    assert shown.stdout.count("\n") == 502
    assert "left out" in given_back(provider)
    assert "the last line" in given_back(provider)
    assert "and on" in given_back(provider, "c2")


@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_code_with_top_level_await_runs(way: str, ask: Callable[..., Shown], provider: ScriptedProvider) -> None:
    code = "import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 41\n1 + await later()"
    shown = error_free(
        ask(runs(code), runs("task = asyncio.ensure_future(later())\nawait task", "c2"), Reply("Both."), way=way)
    )
    assert "42" in given_back(provider)
    assert "41" in given_back(provider, "c2")
    assert [b for b in shown.bundles.values() if b.get("text/plain") == "42"]


# --- numbers, history, and what an evaluation leaves ------------------------------------------------------------------


def number_of(kernel: NotebookKernel) -> int:
    """The number that the next cell has; the cell that asks for it is it."""
    return int(kernel.ok("print(get_ipython().displayhook.exec_result.execution_count)").stdout)


@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_the_cell_keeps_its_number_and_the_code_has_numbers_of_its_own(
    way: str, ask: Callable[..., Shown], kernel: NotebookKernel, provider: ScriptedProvider
) -> None:
    before = number_of(kernel)
    error_free(ask(runs("'first'"), runs("'second'", "c2"), Reply("Done."), way=way, after="'own'"))
    assert kernel.numbers[-1] == before + 1
    kernel.ok("pass")
    assert kernel.numbers[-1] == before + 4
    shown = kernel.ok(
        f"print(Out[{before + 1}], Out[{before + 2}], Out[{before + 3}], In[{before + 2}], In[{before + 3}])"
    )
    assert shown.stdout.strip() == "own first second 'first' 'second'"
    assert "UNIQUE" not in shown.stderr


def test_looking_at_variables_leaves_nothing_behind(
    ask: Callable[..., Shown], kernel: NotebookKernel, provider: ScriptedProvider
) -> None:
    kernel.ok(
        "class Loud:\n    def __repr__(self):\n        print('LOUD')\n        return 'loud'\n"
        "loud = Loud()\nran = []\nget_ipython().events.register('pre_run_cell', lambda *_: ran.append('pre'))\n"
        "get_ipython().events.register('post_run_cell', lambda *_: ran.append('post'))\n'before'"
    )
    looks = Reply(calls=(Call("list_variables", {}, id="v"), Call("inspect_variable", {"name": "loud"}, id="i")))
    shown = error_free(ask(looks, Reply("Seen."), after="print('underscore', _, ran)"))
    assert "loud" in given_back(provider, "i")
    assert "LOUD" not in shown.stdout
    assert "underscore before ['post', 'pre']" in shown.stdout
    assert shown.bundles.keys() == shown.bundles.keys()


# --- stopping ---------------------------------------------------------------------------------------------------------

SLEEPS = {
    "sleep": "print('began')\nimport time\ntime.sleep(600)",
    "loop": "print('began')\nwhile True: pass",
    "await": "print('began')\nimport asyncio\nawait asyncio.sleep(600)",
    "stubborn": "import time\nprint('began')\ntry:\n    time.sleep(600)\nfinally:\n    time.sleep(600)",
}


@pytest.mark.parametrize("code", SLEEPS)
@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_a_stop_from_elsewhere_interrupts_the_code_and_the_cell_ends_with_its_answer_so_far(
    way: str, code: str, ask: Callable[..., Shown], kernel: NotebookKernel, server: JupyterServer
) -> None:
    session = session_of(server, kernel)["id"]
    stopped: list[bool] = []

    def stop(shown: Shown) -> None:
        if "began" in shown.stdout and not stopped:
            stopped.append(True)
            server.request(
                "POST", f"navi/api/sessions/{session}/commands", {"type": "stop", "command_id": f"c_{way}{code}"}
            )

    shown = ask(Reply("I begin.", calls=runs(SLEEPS[code]).calls), Reply("never"), way=way, seen=stop)
    error_free(shown)
    assert "KeyboardInterrupt" in shown.error
    assert "_on_sigint" not in shown.error
    assert "I begin." in shown.text
    assert "stopped" in shown.last["text/plain"]
    # No interrupt is left over for the cells that come after.
    calm = "import time\nfor n in range(50):\n    time.sleep(0.02)\nprint('quiet')"
    assert kernel.ok(calm).stdout == "quiet\n"


@pytest.mark.parametrize("code", SLEEPS)
@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_ctrl_c_in_the_code_ends_it_and_stops_the_run(
    way: str, code: str, ask: Callable[..., Shown], kernel: NotebookKernel, server: JupyterServer
) -> None:
    session = session_of(server, kernel)["id"]
    pressed: list[bool] = []

    def press(shown: Shown) -> None:
        if "began" in shown.stdout and not pressed:
            pressed.append(True)
            kernel.interrupt()

    shown = ask(Reply("I begin.", calls=runs(SLEEPS[code]).calls), Reply("never"), way=way, seen=press)
    assert shown.status == "error"
    assert "navi: Interrupted; the run was stopped." in shown.error
    assert "KeyboardInterrupt" in shown.errors[0]
    assert "I begin." in shown.text
    assert "never" not in shown.text
    server.wait_for(lambda: not server.get(f"navi/api/sessions/{session}")["run"])
    (run, *_) = server.get(f"navi/api/sessions/{session}/runs")["runs"]
    assert run["status"] == "stopped"
    assert kernel.ok("print('quiet')").stdout == "quiet\n"


@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_ctrl_c_while_nothing_executes_stops_the_run_and_keeps_the_answer_so_far(
    way: str, ask: Callable[..., Shown], kernel: NotebookKernel, server: JupyterServer
) -> None:
    session = session_of(server, kernel)["id"]
    pressed: list[bool] = []

    def press(shown: Shown) -> None:
        if "Thinking" in shown.text and not pressed:
            pressed.append(True)
            kernel.interrupt()

    shown = ask(Reply("Thinking", *(f" {n}" for n in range(200)), delay=0.2), way=way, seen=press)
    assert shown.status == "error"
    assert "navi: Interrupted; the run was stopped." in shown.error
    assert "stopped" in shown.last["text/plain"]
    (run, *_) = server.get(f"navi/api/sessions/{session}/runs")["runs"]
    assert run["status"] == "stopped"


def test_two_answers_awaited_at_once_each_have_the_outputs_of_their_own_code(
    ask: Callable[..., Shown], kernel: NotebookKernel, provider: ScriptedProvider, server: JupyterServer
) -> None:
    find = "import asyncio\nfrom navi_jupyter.kernel import notebook\nfrom navi_jupyter.kernel.client import client"
    kernel.ok(f"{find}\nother = notebook.create(client.current_service(), profile='trusted')['id']")
    code = "import asyncio\nfor n in range(5):\n    print('{0}', n)\n    await asyncio.sleep(0.05)"
    provider.restart(
        Reply(calls=runs(code.format("ONE")).calls, when="question alpha"),
        Reply(calls=runs(code.format("TWO")).calls, when="question beta"),
        Reply("Done."),
    )
    both = "await asyncio.gather(navi.ask_async('question alpha'), navi.ask_async('question beta', session=other))"
    shown = error_free(kernel.run(f"r = {both}"))
    last = [request.body["messages"][-1] for request in provider.requests]
    results = [json.dumps(message) for message in last if message["role"] == "tool"]
    assert sorted(["ONE" in result, "TWO" in result] for result in results) == [[False, True], [True, False]]
    assert shown.stdout.count("ONE") == shown.stdout.count("TWO") == 5


# --- nested -----------------------------------------------------------------------------------------------------------


IN_A_THREAD = """\
import threading
failed = []
def work():
    try:
        navi.ask("what now")
    except Exception as problem:
        failed.append(problem)
thread = threading.Thread(target=work)
thread.start()
thread.join()
raise failed[0]
"""
ASKS = {
    "%navi": "%navi what now",
    "%%navi": "%%navi\nwhat now",
    "ask": "navi.ask('what now')",
    "ask_async": "await navi.ask_async('what now')",
    "send": "navi.session().send('what now')",
    "thread": IN_A_THREAD,
}


@pytest.mark.parametrize("code", ASKS)
@pytest.mark.parametrize("way", ["navi.ask", "ask_async"])
def test_code_of_the_agent_that_asks_navi_is_refused_at_once(
    way: str, code: str, ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    shown = ask(runs(ASKS[code]), Reply("I see."), way=way)
    error_free(shown)
    assert "cannot ask Navi" in given_back(provider)
    assert "I see." in shown.last["text/plain"]


# --- what else can happen ---------------------------------------------------------------------------------------------


def test_a_captured_cell_keeps_its_capture_and_the_model_gets_the_outputs(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    code = "from IPython.display import HTML, display\nprint('printed')\ndisplay(HTML('<i>drawn</i>'))\n'given'"
    shown = error_free(ask(runs(code), Reply("Done."), before="%%capture captured"))
    assert "printed" not in shown.stdout
    assert "printed" in given_back(provider)
    assert "drawn" in given_back(provider)
    assert "given" in given_back(provider)


def test_what_a_forked_process_prints_is_an_output_of_the_code(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    code = (
        "import multiprocessing, time\nfork = multiprocessing.get_context('fork')\n"
        "child = fork.Process(target=print, args=('of a child',))\nchild.start()\nchild.join()\ntime.sleep(0.2)"
    )
    shown = error_free(ask(runs(code), Reply("Done.")))
    assert "of a child" in shown.stdout
    assert "of a child" in given_back(provider)


def test_code_that_asks_for_input_gets_an_error_and_nobody_is_asked(
    ask: Callable[..., Shown], provider: ScriptedProvider
) -> None:
    prompts: list[str] = []

    def type_nothing(prompt: str) -> None:
        prompts.append(prompt)

    shown = error_free(ask(runs("input('your name? ')"), Reply("Done."), typed=type_nothing))
    assert "StdinNotImplementedError" in shown.error
    assert prompts == []


def test_without_a_key_a_cell_can_ask_what_variables_there_are(kernel: NotebookKernel, server: JupyterServer) -> None:
    kernel.ok("%navi model offline")
    kernel.ok("prices = [3, 4, 5]")
    assert "prices" in kernel.ok("%navi what variables are there").text
