"""``@navi.tool``: a function of the notebook is a tool that runs of its session can call, in its kernel."""

from __future__ import annotations

from typing import Any

import pytest

from navi_jupyter.agent.tools.kernel_functions import KernelTools
from navi_jupyter.errors import LimitReached, ToolUnavailable
from navi_jupyter.model.runs import Effect, KernelFunction
from tests.support.kernels import NotebookKernel
from tests.support.server import JupyterServer

CELL = '''
from typing import Annotated, Literal
@navi.tool(effect="read")
def price(item: str, times: int = 2, kind: Literal["net", "gross"] = "net") -> dict:
    """What an item costs."""
    return {"item": item, "price": 21 * times}
@navi.tool
async def slow(x: float):
    import asyncio
    await asyncio.sleep(0)
    return x * 2
'''


def offered(server: JupyterServer, kernel: NotebookKernel) -> dict[str, dict[str, Any]]:
    """The kernel's functions, as its server lists them."""
    return {one["name"]: one for one in server.get(f"navi/api/kernels/{kernel.id}/tools")["tools"]}


def test_a_decorated_function_is_listed_with_its_schema(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(CELL)
    tools = offered(server, kernel)

    assert tools["price"]["description"] == "What an item costs."
    assert tools["price"]["effect"] == "read"
    assert tools["price"]["source"] == "kernel"
    assert tools["price"]["permission"] == "allow"
    assert tools["price"]["parameters"]["required"] == ["item"]
    assert tools["price"]["parameters"]["properties"]["kind"]["enum"] == ["net", "gross"]
    assert tools["slow"]["permission"] == "ask"

    session = kernel.ok("print(navi.session().id)").stdout.strip()
    listed = {one["name"]: one for one in server.get(f"navi/api/tools?session_id={session}")["tools"]}
    assert listed["price"]["source"] == "kernel"


def test_the_function_itself_stays_as_it_is(kernel: NotebookKernel) -> None:
    assert kernel.ok(CELL + "\nprint(price('tea'), await slow(2))").stdout == "{'item': 'tea', 'price': 42} 4\n"


def test_a_changed_function_takes_the_place_of_the_old_one(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(CELL)
    kernel.ok("@navi.tool\ndef price(item: str):\n    'Another.'\n    return 1")
    assert offered(server, kernel)["price"]["description"] == "Another."
    assert offered(server, kernel)["price"]["effect"] == "outside"


def test_a_restarted_kernel_offers_nothing_until_the_cell_runs_again(
    server: JupyterServer, kernel: NotebookKernel
) -> None:
    kernel.ok(CELL)
    kernel.restart()
    assert offered(server, kernel) == {}
    kernel.ok("import navi_jupyter as navi\n" + CELL)
    assert set(offered(server, kernel)) == {"price", "slow"}


def test_a_function_can_be_withdrawn(server: JupyterServer, kernel: NotebookKernel) -> None:
    kernel.ok(CELL)
    server.request("DELETE", f"navi/api/kernels/{kernel.id}/tools/price")
    assert set(offered(server, kernel)) == {"slow"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("@navi.tool\ndef f(*args): pass", "f cannot be a tool: *args has no name"),
        ("@navi.tool(effect='destroy')\ndef f(): pass", "The effect is one of read, note, write, run, outside, not"),
        ("navi.tool(lambda x: x)", "'<lambda>' cannot be a tool"),
        ("@navi.tool\ndef f(x: 'Missing'): pass", "f cannot be a tool: name 'Missing' is not defined"),
        ("class Odd: pass\n@navi.tool\ndef f(x: Odd): pass", "f cannot be a tool: Unable to generate"),
    ],
)
def test_what_can_not_be_a_tool_is_one_readable_line(shared_kernel: NotebookKernel, code: str, said: str) -> None:
    shown = shared_kernel.run(code)
    assert shown.status == "error"
    assert said in shown.error
    assert len(shown.error.splitlines()) == 1


def test_without_a_server_the_function_is_as_good_as_ever(kernel: NotebookKernel) -> None:
    shown = kernel.ok(
        "from navi_jupyter.kernel import tools\n"
        "def nobody(): raise navi.NaviError('no server here')\n"
        "tools.current_service = nobody\n" + CELL + "\nprint(price('tea', 1))"
    )
    assert shown.stdout == "{'item': 'tea', 'price': 21}\n"
    assert "price is not offered to Navi: no server here" in shown.stderr


# --- who offers what -------------------------------------------------------------------------------------------------


class Host:
    """What a server knows of its kernels."""

    def __init__(self) -> None:
        self.process: object = 1
        self.ours = False

    def tools(self) -> KernelTools:
        return KernelTools(
            process_of=lambda _: self.process, runs_ours=lambda _: self.ours, known=lambda one: one == "k"
        )


def function(name: str = "f", **fields: Any) -> KernelFunction:
    return KernelFunction(name=name, parameters={"type": "object"}, **fields)


def test_what_an_agents_own_code_offers_is_always_asked_about() -> None:
    host = Host()
    tools = host.tools()
    host.ours = True
    (tool,) = tools.offer("k", [function(effect=Effect.READ)], owner="ada")
    assert tool.effect is Effect.OUTSIDE
    host.ours = False
    (tool,) = tools.offer("k", [function(effect=Effect.READ)], owner="ada")
    assert tool.effect is Effect.READ


def test_functions_are_their_owners_and_their_processes() -> None:
    host = Host()
    tools = host.tools()
    tools.offer("k", [function()], owner="ada")
    assert [one.name for one in tools.offered("k", owner="ada")] == ["f"]
    assert tools.offered("k", owner="eve") == []
    with pytest.raises(ToolUnavailable):
        tools.withdraw("k", "f", owner="eve")
    host.process = 2
    assert tools.offered("k", owner="ada") == []
    tools.offer("k", [function("g")], owner="ada")
    tools.lost("k", "restarted")  # the news is late: the new process has offered already
    assert [one.name for one in tools.offered("k", owner="ada")] == ["g"]


def test_kernels_of_other_programs_offer_functions_too_and_the_latest_are_remembered() -> None:
    tools = Host().tools()
    for number in range(250):
        tools.offer(f"outside-{number}", [function()], owner="ada")
    tools.offer("k", [function()], owner="ada")
    assert tools.offered("outside-0", owner="ada") == []
    assert [one.name for one in tools.offered("outside-249", owner="ada")] == ["f"]
    assert tools.offered("outside-249", owner="eve") == []
    assert [one.name for one in tools.offered("k", owner="ada")] == ["f"]


def test_floods_are_refused() -> None:
    tools = Host().tools()
    tools.offer("k", [function(f"f{number}") for number in range(100)], owner="ada")
    tools.offer("k", [function("f7")], owner="ada")
    with pytest.raises(LimitReached):
        tools.offer("k", [function("more")], owner="ada")
