"""A provider's connection read at once: over TCP and TLS as whole pieces, kept for the next request, and in the usual
way where the libraries are others than the known ones."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import httpx2
import pytest
from h11._readers import ChunkedReader

from navi_jupyter.agent.providers import connection_reading, sse_coalescing
from navi_jupyter.agent.providers.connection_reading import _JoinedChunks, _ReadyStream
from navi_jupyter.agent.providers.sse_coalescing import coalesce_streams
from tests.agent.test_sse_coalescing import chat, keep, said

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "9",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "-", "-out", "-"],
        check=True, capture_output=True,
    )  # fmt: skip
    path.write_bytes(made.stdout)
    return path


@asynccontextmanager
async def provider(answer: Answer, certificate: Path | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that gives this answer to each request."""
    trusted = secret = None
    if certificate is not None:
        secret = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secret.load_cert_chain(certificate)
        trusted = ssl.create_default_context(cafile=str(certificate))
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(HEAD)
            await answer(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=secret)
    address = f"http{'s' if secret else ''}://localhost:{server.sockets[0].getsockname()[1]}/"
    async with coalesce_streams(httpx2.AsyncClient(base_url=address, verify=trusted or True)) as client:
        yield client
    server.close()
    for task in tasks:
        assert task is not None
        task.cancel()
    await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def texts(client: httpx2.AsyncClient) -> list[str]:
    async with client.stream("GET", "/") as response:
        return said([piece async for piece in response.aiter_raw()])


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_all_that_came_while_a_stream_rested_is_one_read_and_the_connection_is_kept(
    monkeypatch: pytest.MonkeyPatch, certificate: Path, encrypted: bool
) -> None:
    monkeypatch.setattr(sse_coalescing, "pause_of", lambda _: 0.15)
    reads: list[int] = []
    read = _ReadyStream.read

    async def counted(stream: _ReadyStream, most: int, timeout: float | None = None) -> bytes:
        data = await read(stream, most, timeout)
        reads.append(len(data))
        return data

    monkeypatch.setattr(_ReadyStream, "read", counted)
    ports: list[int] = []

    async def answer(writer: asyncio.StreamWriter) -> None:
        ports.append(writer.get_extra_info("peername")[1])
        for number in range(21):
            writer.write(chunk(chat(f"{number} ")))
            await asyncio.sleep(0.001 if number else 0.02)
        writer.write(b"0\r\n\r\n")

    async with provider(answer, certificate if encrypted else None) as client:
        for _ in range(2):
            reads.clear()
            got = await texts(client)
            assert "".join(got) == "".join(f"{number} " for number in range(21))
            assert len(got) <= 4
            assert 0 < len(reads) <= 5, "not one for each token"
    assert len(set(ports)) == 1


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("end", [b"", b"5\r\nab", b"no size\r\n"], ids=["no end", "half a chunk", "malformed"])
async def test_what_came_before_a_broken_end_is_read_and_then_the_failure(
    certificate: Path, end: bytes, encrypted: bool
) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(chunk(chat("a")) + chunk(chat("b")) + end)
        writer.close()

    got: list[bytes] = []
    async with provider(answer, certificate if encrypted else None) as client, client.stream("GET", "/") as response:
        with pytest.raises(httpx2.RemoteProtocolError):
            await keep(response, got)
    assert "".join(said(got)).startswith("ab")


@pytest.mark.parametrize("missing", ["_h11_state", "_network_stream", "_httpcore_stream"])
async def test_with_other_libraries_a_stream_is_read_in_the_usual_way(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(connection_reading, "getattr", lambda one, name, default: (
        default if name == missing else getattr(one, name, default)), raising=False)  # fmt: skip
    monkeypatch.setattr(_ReadyStream, "read", None)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(chunk(chat("a")) + chunk(chat("b")) + b"0\r\n\r\n")

    async with provider(answer) as client:
        assert "".join(await texts(client)) == "ab"


class Bodies:
    """h11's parser of a response in chunks, with our reader in it or without. What comes of the bytes it is given."""

    def __init__(self, *, joined: bool) -> None:
        self.data = b""
        self.pieces = 0
        self.end = ""
        self._parser = h11.Connection(h11.CLIENT)
        self._parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        self._parser.send(h11.EndOfMessage())
        self._parser.receive_data(HEAD)
        assert isinstance(self._parser.next_event(), h11.Response)
        if joined:
            self._parser._reader = _JoinedChunks(self._parser._reader)

    def take(self, data: bytes) -> None:
        """All events of what has come."""
        self._parser.receive_data(data)
        while not self.end:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError as error:
                self.end = str(error)
                break
            if event is h11.NEED_DATA:
                break
            if isinstance(event, h11.Data):
                self.data += event.data
                self.pieces += 1
            else:
                self.end = str(event)


BODY = chunk(b"one") + chunk(b"two\r\n" * 3) + b"2;name=value\r\nab\r\n" + chunk(b"3\r\nx") + b"00a\r\n0123456789\r\n"
ENDS = (
    b"0\r\n\r\n",
    b"0\r\nTrailer: x\r\n\r\n",
    b"",
    b"zz\r\n",
    b"3\r\nabcd\r\n",
    b"\r\n",
    b"-1\r\n",
    b"fffffffff\r\nab",
)


@pytest.mark.parametrize("missing", ["nothing", "_data", "_bytes_to_discard", "_bytes_in_chunk", "_reading_trailer"])
def test_chunks_that_are_split_anywhere_give_the_body_and_the_end_that_h11_finds(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(connection_reading, "getattr", lambda one, name, default: (
        default if name == missing else getattr(one, name, default)), raising=False)  # fmt: skip
    for end in ENDS:
        data = BODY + end
        for at in range(len(data)):
            ours, theirs = Bodies(joined=True), Bodies(joined=False)
            for piece in filter(None, (data[:at], data[at : at + 3], data[at + 3 :])):
                ours.take(piece)
                theirs.take(piece)
                assert (ours.data, ours.end) == (theirs.data, theirs.end), (end, at)
    asked: list[int] = []
    read = ChunkedReader.__call__
    monkeypatch.setattr(ChunkedReader, "__call__", lambda reader, buffer: asked.append(1) or read(reader, buffer))
    many = Bodies(joined=True)
    for _ in range(2):
        many.take(b"".join(chunk(b"%d " % number) for number in range(50)))
    assert many.data == b"".join(b"%d " % number for number in range(50)) * 2
    assert many.pieces == 2, "all that has come is one piece"
    assert (len(asked) < 10) == (missing == "nothing"), "h11 does not read whole chunks one by one"
