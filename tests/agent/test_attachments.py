"""What comes with a prompt: given to models that take it, refused clearly for those that do not."""

from __future__ import annotations

import base64
import json

import pytest

from navi_jupyter.agent.router import AgentRouter
from navi_jupyter.errors import RunFailed
from navi_jupyter.model.attachments import Attachment
from navi_jupyter.model.sessions import USER, RunStatus
from navi_jupyter.ports.agent import Message, PastTurn
from tests.support.agent_world import Bench
from tests.support.providers import Reply, Serve

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 40


@pytest.fixture
def bench() -> Bench:
    return Bench(AgentRouter())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def attached(bench: Bench, name: str, media_type: str, content: bytes = PNG) -> Attachment:
    return await bench.attachments.add(content, name=name, media_type=media_type, owner="ada")


async def test_an_image_is_in_the_request_with_its_name(bench: Bench, serve: Serve, model: str) -> None:
    image = await attached(bench, "plot.png", "image/png")
    async with serve(Reply("A plot.")) as provider:
        await bench.run("what is this?", model=model, attachments=(image,))
    sent = json.dumps(provider.requests[0].body)
    assert base64.b64encode(PNG).decode() in sent
    assert "plot.png" in sent


async def test_a_pdf_is_in_the_request(bench: Bench, serve: Serve, model: str) -> None:
    pdf = await attached(bench, "paper.pdf", "application/pdf", b"%PDF-1.7 x")
    async with serve(Reply("A paper.")) as provider:
        await bench.run("what is this?", model=model, attachments=(pdf,))
    assert base64.b64encode(b"%PDF-1.7 x").decode() in json.dumps(provider.requests[0].body)


@pytest.mark.parametrize("media_type", ["text/csv", "application/json", "application/x-ipynb+json", "image/svg+xml"])
async def test_a_text_file_is_inlined_for_any_model(bench: Bench, serve: Serve, media_type: str) -> None:
    file = await attached(bench, "data.txt", media_type, "price,été\n1,2".encode())
    async with serve(Reply("Two columns.")) as provider:
        await bench.run("what is this?", model="openai-chat:gpt-3.5-turbo", attachments=(file,))
    sent = json.dumps(provider.requests[0].body, ensure_ascii=False)
    assert 'name=\\"data.txt\\"' in sent
    assert "price,été" in sent


async def test_a_large_text_file_is_cut_with_a_note(bench: Bench, serve: Serve) -> None:
    file = await attached(bench, "log.txt", "text/plain", b"A" * 5_000_000)
    async with serve(Reply("Long.")) as provider:
        await bench.run("what is this?", model=MODELS[0], attachments=(file,))
    sent = json.dumps(provider.requests[0].body)
    assert len(sent) < 150_000
    assert "left out" in sent


@pytest.mark.parametrize(
    ("name", "media_type", "model", "says"),
    [
        ("plot.png", "image/png", "openai-chat:gpt-3.5-turbo", "gpt-3.5-turbo cannot read images: switch"),
        ("paper.pdf", "application/pdf", "openai-chat:o3-mini", "cannot read PDF documents"),
        ("book.xlsx", "application/vnd.ms-excel", "anthropic:claude-haiku-5-5", "remove book.xlsx"),
        ("x.tiff", "image/tiff", "openai-chat:gpt-6-luna", "image/tiff"),
    ],
)
async def test_what_a_model_cannot_read_fails_before_it_is_asked(
    bench: Bench, serve: Serve, name: str, media_type: str, model: str, says: str
) -> None:
    file = await attached(bench, name, media_type)
    async with serve(Reply("never")) as provider:
        with pytest.raises(RunFailed) as caught:
            await bench.run("what is this?", model=model, attachments=(file,))
    assert caught.value.run_code == "attachment_unsupported"
    assert says in caught.value.message
    assert name in caught.value.message
    assert provider.requests == []


async def test_a_provider_that_refuses_an_image_after_all_is_understood(bench: Bench, serve: Serve, model: str) -> None:
    image = await attached(bench, "plot.png", "image/png")
    error = {"message": "This model does not support image input.", "type": "invalid_request_error"}
    async with serve(Reply(status=400, error=error)):
        with pytest.raises(RunFailed) as caught:
            await bench.run("what is this?", model=model, attachments=(image,))
    assert caught.value.run_code == "attachment_unsupported"


async def test_an_attachment_that_is_gone_fails_clearly(bench: Bench, serve: Serve) -> None:
    image = await attached(bench, "plot.png", "image/png")
    async with serve(Reply("never")):
        with pytest.raises(RunFailed, match="it is gone"):
            await bench.run("?", model=MODELS[0], attachments=(image.but(id="a_none"),))


async def test_later_turns_get_the_name_and_not_the_content(bench: Bench, serve: Serve, model: str) -> None:
    image = await attached(bench, "plot.png", "image/png")
    async with serve(Reply("A plot."), Reply("Yes.")) as provider:
        first = await bench.run("what is this?", model=model, attachments=(image,))
        assert first.result is not None
        past = PastTurn(
            run_id="u_1", status=RunStatus.COMPLETED, prompt="what is this?", messages=(),
            conversation=first.result.conversation,
        )  # fmt: skip
        await bench.run("sure?", model=model, history=(past,))
    sent = json.dumps(provider.requests[1].body)
    assert "plot.png" in sent
    assert base64.b64encode(PNG).decode() not in sent


async def test_a_turn_that_was_stopped_is_reported_with_the_names_of_what_came_with_it(
    bench: Bench, serve: Serve
) -> None:
    info = {"id": "a_1", "name": "plot.png", "media_type": "image/png", "size": 8}
    messages = tuple(
        Message(id=f"m_{role}", role=role, content=text, run_id="u_1", origin=USER, at="2026-11-23T10:00:00Z",
                attachments=(info,) if role == "user" else (), subagent_run_id=worker)
        for role, text, worker in (
            ("user", "what is this?", None), ("assistant", "It is", None), ("assistant", "SECRET OF A WORKER", "w_1"),
        )
    )  # fmt: skip
    past = PastTurn(
        run_id="u_1", status=RunStatus.STOPPED, prompt="what is this?", messages=messages, conversation=None
    )
    async with serve(Reply("Yes.")) as provider:
        await bench.run("sure?", model=MODELS[0], history=(past,))
    sent = json.dumps(provider.requests[0].body)
    assert "plot.png" in sent
    assert "It is" in sent
    assert "SECRET OF A WORKER" not in sent


async def test_offline_answers_that_it_cannot_see_and_answers_all_the_same(bench: Bench) -> None:
    image = await attached(bench, "plot.png", "image/png")
    outcome = await bench.run("what time is it?", attachments=(image,))
    assert "cannot see `plot.png`" in outcome.text
    assert "It is **" in outcome.text
