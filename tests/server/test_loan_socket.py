"""The WebSocket of a loan: whose it is, what it carries, and what the server does when it breaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from navi_jupyter.jupyter.kernels.loans import KernelLoans
from navi_jupyter.jupyter.kernels.outputs import Outputs
from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api, Socket

LEND = {"type": "lend", "loan_id": "l_1", "language": "python", "unacknowledged": []}
HOW: dict[str, Any] = {"silent": False, "store_history": True, "expressions": {}}


@pytest.fixture
def loans(navi: NaviExtension) -> KernelLoans:
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    return navi.lifecycle.services.loans


@pytest.fixture
def lend(api: Api, jp_ws_fetch: Any) -> Any:
    """``async with lend(session_id) as socket``: a kernel's end, which has sent nothing yet."""

    @asynccontextmanager
    async def connect(session_id: str, kernel_id: str = "k_1") -> AsyncIterator[Socket]:
        connection = await jp_ws_fetch(f"navi/api/kernels/{kernel_id}/loan", params={"session_id": session_id})
        socket = Socket(connection)
        try:
            yield socket
        finally:
            connection.close(1000)  # in good order: the cell has ended
            await socket.close()

    return connect


async def test_a_kernel_is_lent_while_its_socket_is_open(api: Api, lend: Any, loans: KernelLoans) -> None:
    sid = await api.session()
    async with lend(sid) as socket:
        await socket.send(LEND)
        assert await socket.read() == {"type": "lent"}
        loan = loans.of(sid)
        assert loan is not None
        assert (loan.kernel_id, loan.session_id) == ("k_1", sid)
        outputs = Outputs()
        request = loan.send("print(1)", outputs, **HOW)
        frame = await socket.read()
        assert frame.pop("lease").endswith(".lease")
        assert frame == {
            "type": "execute",
            "id": request.id,
            "code": "print(1)",
            "silent": False,
            "store_history": True,
            "expressions": {},
            "tool_call_id": None,
        }
        await socket.send({"type": "begun", "id": request.id, "n": 1})
        text = {"name": "stdout", "text": "x" * 12 * 2**20}  # more than a command may have
        await socket.send({"type": "output", "id": request.id, "n": 2, "kind": "stream", "content": text})
        await socket.send({"type": "ended", "id": request.id, "n": 3, "reply": {"status": "ok"}})
        assert await socket.read() == {"type": "received", "id": request.id}
        assert (await request.ended) == {"status": "ok"}
        outputs.finish()
        assert outputs.all()[0]["text"].startswith("xxx")
    while loans.of(sid) is not None:
        await api("GET", "health")
    assert loan.ended == "closed"


async def test_a_loan_survives_a_socket_that_breaks(api: Api, lend: Any, loans: KernelLoans, jp_ws_fetch: Any) -> None:
    sid = await api.session()
    connection = await jp_ws_fetch("navi/api/kernels/k_1/loan", params={"session_id": sid})
    broken = Socket(connection)
    await broken.send(LEND)
    assert await broken.read() == {"type": "lent"}
    loan = loans.of(sid)
    assert loan is not None
    request = loan.send("1", Outputs(), **HOW)
    await broken.read()
    connection.protocol.client_terminated = True  # as if its cable were cut: no close frame
    connection.protocol.stream.close()
    while loan.attached:
        await api("GET", "health")
    assert loans.of(sid) is loan
    async with lend(sid) as socket:
        await socket.send({**LEND, "unacknowledged": [request.id]})
        assert await socket.read() == {"type": "lent"}
        await socket.send({"type": "ended", "id": request.id, "reply": {"status": "ok"}})
        assert await request.ended == {"status": "ok"}


@pytest.mark.parametrize(
    "frame", ["no JSON", "[1]", {"type": "ended", "id": "x"}, {"type": "lend"}, {**LEND, "loan_id": ""}]
)
async def test_a_socket_that_does_not_lend_is_closed_for_good(api: Api, lend: Any, frame: Any) -> None:
    async with lend(await api.session()) as socket:
        await socket.send(frame)
        assert await socket.close_code() == 4400


async def test_a_loan_is_of_one_session_and_kernel(api: Api, lend: Any) -> None:
    first, second = await api.session(), await api.session()
    async with lend(first) as socket, lend(second) as thief:
        await socket.send(LEND)
        await socket.read()
        await thief.send(LEND)
        assert await thief.close_code() == 4400


async def test_a_kernel_is_lent_to_a_session_of_the_same_owner_only(api: Api, jp_ws_fetch: Any) -> None:
    for query in ({"session_id": "s_of_somebody"}, {}):
        with pytest.raises(HTTPClientError) as refused:
            await jp_ws_fetch("navi/api/kernels/k_1/loan", params=query)
        assert refused.value.code == (404 if query else 400)
