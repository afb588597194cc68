"""A provider's stream, taken in strides: nothing is lost, changed or held back, and what can be one event is one."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from navi_jupyter.agent.providers.sse_coalescing import coalesce_streams, pause_of


class Script(httpx2.AsyncByteStream):
    """Pieces as a provider sends them; a float is a wait, an exception is raised."""

    def __init__(self, *pieces: bytes | float | Exception) -> None:
        self._pieces = pieces
        self.closed = False
        self.begun = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, float):
                await asyncio.sleep(piece)
            else:
                raise piece

    async def aclose(self) -> None:
        self.closed = True


def client(stream: Script, **headers: str) -> httpx2.AsyncClient:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream", **headers}, stream=stream)

    return coalesce_streams(httpx2.AsyncClient(transport=httpx2.MockTransport(answer)))


async def read(*pieces: bytes | float | Exception, **headers: str) -> list[bytes]:
    """What a reader gets, piece by piece."""
    async with client(Script(*pieces), **headers) as http, http.stream("GET", "http://provider/") as response:
        return [piece async for piece in response.aiter_raw()]


async def keep(response: httpx2.Response, got: list[bytes]) -> None:
    async for piece in response.aiter_raw():
        got.append(piece)


def event(body: dict[str, Any], kind: str = "") -> bytes:
    return (f"event: {kind}\n" if kind else "").encode() + f"data: {json.dumps(body)}\n\n".encode()


def chat(text: str, **more: Any) -> bytes:
    delta = {"content": text, **more.pop("delta", {})}
    return event({"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more})


def said(pieces: Sequence[bytes]) -> list[str]:
    """The texts of chat events, one each."""
    events = b"".join(pieces).split(b"\n\n")[:-1]
    return [json.loads(one.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for one in events]


async def test_the_first_piece_is_there_at_once_and_what_follows_at_one_moment_is_one_event() -> None:
    pieces = await read(chat("a"), 0.001, chat("b"), chat("c"), chat("d"))
    assert pieces[0] == chat("a")
    assert said(pieces) == ["a", "bcd"]


async def test_a_lone_event_passes_byte_by_byte_as_it_came() -> None:
    odd = b'data:   {"choices":[{"delta":{"content":"x"} ,"finish_reason":null}]}\n\n'
    assert b"".join(await read(odd)) == odd


@pytest.mark.parametrize(
    "events",
    [
        (chat("a"), chat("b", id="other")),
        (chat("a"), event({"id": "c", "choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]})),
        (chat("a"), chat("b", delta={"tool_calls": [{"index": 0}]})),
        (chat("a"), chat("b", usage={"prompt_tokens": 1})),
        (chat("a"), b": keep-alive\n\n", chat("b")),
        (chat("a"), b'data: {"choices": [{"de\n\n', chat("b")),
        (chat("a"), b"data: [DONE]\n\n"),
        (b"data: 1\n\n", b"data: 1\n\n"),
        (event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}}, "x"),
         event({"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "a"}}, "x")),
    ],
    ids=["another id", "the end", "a call", "usage", "a comment", "malformed", "done", "no object", "blocks"],
)  # fmt: skip
async def test_events_that_differ_in_more_than_their_text_stay_as_they_are(events: tuple[bytes, ...]) -> None:
    assert b"".join(await read(b"".join(events))) == b"".join(events)


@pytest.mark.parametrize("ends", [b"\r\n", b"\r"], ids=["crlf", "cr"])
async def test_the_other_line_ends_of_the_format_are_read_as_its_line_ends(ends: bytes) -> None:
    sent = b"".join(chat(text).replace(b"\n", ends) for text in "abc")
    assert "".join(said(await read(sent))) == "abc"


async def test_the_text_events_of_every_protocol_are_joined() -> None:
    anthropic = [
        event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}, "delta")
        for text in ("Grüße ", "dir")
    ]
    responses = [
        event({"type": "response.output_text.delta", "sequence_number": number, "delta": text, "logprobs": []}, "text")
        for number, text in enumerate(("Grüße ", "dir"))
    ]
    reasoning = [
        event({"choices": [{"delta": {"reasoning_content": text}, "finish_reason": None}]})
        for text in ("Grüße ", "dir")
    ]
    for events in (anthropic, responses, reasoning):
        (joined,) = b"".join(await read(b"".join(events))).split(b"\n\n")[:-1]
        assert "Grüße dir" in json.dumps(json.loads(joined[joined.index(b"{") :]), ensure_ascii=False)


async def test_an_event_that_comes_in_pieces_of_bytes_is_whole_again() -> None:
    whole = chat("Grüße") + chat("x", id="other")
    pieces = await read(*(whole[at : at + 7] for at in range(0, len(whole), 7)))
    assert said(pieces) == ["Grüße", "x"]


async def test_what_came_before_a_broken_connection_is_read_and_then_the_failure() -> None:
    got = []
    stream = Script(chat("a"), chat("b"), b"data: {", httpx2.ReadError("cut"))
    async with client(stream) as http, http.stream("GET", "http://provider/") as response:
        with pytest.raises(httpx2.ReadError):
            await keep(response, got)
    assert said(got) == ["ab"]
    assert got[-1] == b"data: {"
    assert stream.closed


async def test_a_reader_that_leaves_ends_the_reading_and_the_connection() -> None:
    stream = Script(chat("a"), 3600.0)
    tasks = asyncio.all_tasks()
    async with client(stream) as http, http.stream("GET", "http://provider/") as response:
        async for _ in response.aiter_raw():
            break
    assert stream.closed
    assert asyncio.all_tasks() <= tasks


async def test_a_reader_that_begins_again_goes_on_where_it_was_and_nothing_reads_beyond_the_end() -> None:
    """As OpenAI's package does after the last event."""
    stream = Script(chat("a"), 0.03, chat("b"), chat("c"), 0.03, b"data: [DONE]\n\n")
    tasks = asyncio.all_tasks()
    async with client(stream) as http, http.stream("GET", "http://provider/") as response:
        got = []
        async for piece in response.stream:  # type: ignore[union-attr]
            got.append(piece)
            break
        got += [piece async for piece in response.stream]  # type: ignore[union-attr]
        assert [piece async for piece in response.stream] == []  # type: ignore[union-attr]
    assert b"".join(got).replace(b"\n\n", b"") == b"".join((chat("a"), chat("bc"), b"data: [DONE]\n\n")).replace(
        b"\n\n", b""
    )
    assert stream.begun == 1
    assert asyncio.all_tasks() <= tasks


async def test_a_failure_after_the_reader_has_left_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    stream = Script(chat("a"), httpx2.ReadError("cut"))
    async with client(stream) as http, http.stream("GET", "http://provider/") as response:
        async for _ in response.aiter_raw():
            await asyncio.sleep(0.01)
            break
    del response
    gc.collect()
    await asyncio.sleep(0)
    assert "never retrieved" not in caplog.text


async def test_what_is_compressed_or_no_event_stream_is_left_alone() -> None:
    events = (chat("a"), chat("b"))
    assert await read(*events, **{"content-encoding": "br"}) == list(events)
    assert await read(*events, **{"content-type": "application/json"}) == list(events)


def test_a_stream_rests_longer_the_more_there_are_and_never_long() -> None:
    assert [pause_of(streams) for streams in (1, 7, 25, 50, 5000)] == [0.015, 0.015, 0.05, 0.1, 0.1]
