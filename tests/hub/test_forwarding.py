"""What a user's server sends to the service, byte by byte."""

from __future__ import annotations

import asyncio

from navi_jupyter.server.hub_proxy.service import HubService


async def test_no_encoding_is_asked_for_that_the_client_did_not_ask_for() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    service = HubService(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/services/navi/", "the-token")
    for headers in ({}, {"Accept-Encoding": "gzip"}):
        async with service.request("GET", "/navi/api/health", headers=headers) as got:
            assert got.status_code == 204
    await service.close()
    server.close()
    assert b"get /services/navi/navi/api/health " in heads[0]
    assert b"authorization: token the-token" in heads[0]
    assert [b"accept-encoding: identity" in head for head in heads] == [True, False]
