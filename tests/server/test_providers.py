"""Keys and addresses of model providers that the user stores on the server; servers of models on this machine."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from navi_jupyter.agent import router
from navi_jupyter.agent.providers import catalog
from navi_jupyter.agent.providers.stored_settings import STORED
from navi_jupyter.redaction import redact
from navi_jupyter.server.app import NaviExtension
from tests.conftest import Api
from tests.support.providers import Reply, ScriptedProvider

KEY = "sk-planted-0123456789abcdef"
MODEL = "openai-chat:gpt-6-luna"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    for name in list(os.environ):
        if name.endswith(("_API_KEY", "_BASE_URL")) or name.startswith("NAVI_ENDPOINT_"):
            monkeypatch.delenv(name)
    yield
    STORED.allow(True)


async def provider(api: Api, name: str) -> dict[str, Any]:
    page = await api.ok("GET", "providers")
    return next(one for one in page["providers"] if one["name"] == name)


async def usable(api: Api, model: str) -> bool:
    page = await api.ok("GET", "models")
    return next(one["available"] for one in page["models"] if one["name"] == model)


async def test_a_key_that_is_given_in_the_interface_is_stored_for_its_owner_alone_and_used(api: Api) -> None:
    assert not await usable(api, MODEL)
    before = await provider(api, "openai-chat")
    assert (before["setting"], before["kind"], before["source"]) == ("OPENAI_API_KEY", "key", None)
    answer = await api("PUT", "providers/openai-chat", {"value": f" {KEY}\n"})
    assert (answer.status, answer.json["source"], answer.json["available"]) == (200, "stored", True)
    assert stat.S_IMODE(STORED.path.stat().st_mode) == 0o600
    assert json.loads(STORED.path.read_text()) == {"OPENAI_API_KEY": KEY}
    assert catalog.first_key(("OPENAI_API_KEY",)) == KEY
    assert await usable(api, MODEL)
    assert "OPENAI_API_KEY" not in os.environ, "kernels would inherit it"
    assert KEY not in redact(f"the key {KEY} in a text")
    for path in ("providers", "models", "health", "openapi.json"):
        assert KEY not in (await api("GET", path)).body.decode()
    assert (await api("DELETE", "providers/openai-chat")).status == 204
    assert not await usable(api, MODEL)
    assert (await api("DELETE", "providers/openai-chat")).status == 204


async def test_what_the_environment_sets_goes_before_what_is_stored(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.ok("PUT", "providers/anthropic", {"value": KEY})
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-environment")
    assert catalog.first_key(("ANTHROPIC_API_KEY",)) == "sk-of-the-environment"
    for method, body in (("PUT", {"value": "another"}), ("DELETE", None)):
        answer = await api(method, "providers/anthropic", body)
        assert (answer.status, answer.json["code"]) == (409, "provider_set")
        assert "ANTHROPIC_API_KEY" in answer.json["message"]


async def test_an_address_makes_a_server_of_the_users_own_a_provider(api: Api) -> None:
    async with ScriptedProvider(Reply("OK")) as served:
        url = f"{served.url}/v1"
        answer = await api("PUT", "providers/lab", {"value": url})
        assert (answer.status, answer.json["setting"]) == (200, "NAVI_ENDPOINT_LAB_URL")
        result = await api.ok("POST", "models/test", {"model": "lab:any"})
        assert result["ok"], result
        assert served.requests[0].body["model"] == "any"
        assert (
            "Authorization" not in served.requests[0].headers or KEY not in served.requests[0].headers["Authorization"]
        )


async def test_a_model_is_tested_with_one_short_request(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedProvider(Reply("OK"), Reply(status=401)) as served:
        served.point(monkeypatch)
        good = await api.ok("POST", "models/test", {"model": MODEL})
        assert (good["ok"], good["message"].startswith("It answered in")) == (True, True)
        bad = await api.ok("POST", "models/test", {"model": MODEL})
        assert not bad["ok"]
        assert "key" in bad["message"].lower()
        assert len(served.requests) == 2
    assert (await api.ok("POST", "models/test", {"model": "offline"}))["ok"]
    assert (await api("POST", "models/test", {"model": "nonsense"})).json["field"] == "model"


async def test_a_model_without_its_key_is_not_asked(api: Api) -> None:
    result = await api.ok("POST", "models/test", {"model": MODEL})
    assert not result["ok"]
    assert "OPENAI_API_KEY" in result["message"]
    assert "settings of the chat" in result["message"]


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("openai-chat", "", "value"),
        ("openai-chat", "two words", "value"),
        ("openai-chat", "kéy", "value"),
        ("openai-chat", "a\u202eb", "value"),
        ("ollama", "localhost:11434", "value"),
        ("ollama", "file:///etc/passwd", "value"),
        ("Lab!", "http://127.0.0.1:1/v1", "name"),
        ("offline", "http://127.0.0.1:1/v1", "name"),
        ("bedrock", "key", "name"),
        ("lab", "no address", "name"),
        ("openai-chat", "x" * 4001, "value"),
    ],
)
async def test_what_is_no_key_or_address_is_refused_and_not_repeated(
    api: Api, name: str, value: str, field: str
) -> None:
    answer = await api("PUT", f"providers/{name}", {"value": value})
    assert (answer.status, answer.json["field"]) == (400, field)
    if len(value) > 5 and field == "value":
        assert value not in answer.json["message"]
    assert not STORED.path.exists()


async def test_a_file_that_others_can_read_or_that_is_broken_is_not_used(api: Api) -> None:
    await api.ok("PUT", "providers/openai-chat", {"value": KEY})
    STORED.path.chmod(0o644)
    assert catalog.first_key(("OPENAI_API_KEY",)) is None
    STORED.path.chmod(0o600)
    assert catalog.first_key(("OPENAI_API_KEY",)) == KEY
    for content in ("{", "[1]", '{"OPENAI_API_KEY": 7}', "\x00", "9" * 70_000):
        STORED.path.write_text(content)
        assert catalog.first_key(("OPENAI_API_KEY",)) is None
        assert (await api("GET", "models")).status == 200


async def test_servers_on_this_machine_are_found_and_set_up_with_one_request(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"data": [{"id": "llama-4"}]}).encode()
        assert head.startswith(b"GET /v1/models")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as served:
        port = served.sockets[0].getsockname()[1]
        monkeypatch.setattr(router, "_ON_THIS_MACHINE", (("ollama", "Ollama", port), ("jan", "Jan", 9)))
        (found,) = (await api.ok("GET", "providers", local="1"))["local"]
        assert found == {
            "name": "ollama",
            "label": "Ollama",
            "url": f"http://127.0.0.1:{port}/v1",
            "models": ["llama-4"],
        }
        await api.ok("PUT", "providers/ollama", {"value": found["url"]})
        assert await usable(api, "ollama:llama-4")
        assert (await api.ok("GET", "providers", local="1"))["local"] == []
    assert (await api.ok("GET", "providers"))["local"] == [], "nothing is asked of the network unless it is wanted"


async def chosen(api: Api) -> dict[str, Any]:
    return await api.ok("GET", "models/preferred")  # type: ignore[no-any-return]


async def test_a_model_that_is_chosen_for_a_session_is_that_of_new_sessions(api: Api) -> None:
    assert await chosen(api) == {"model": "offline", "chosen": None, "why": None, "default": "offline"}
    first = await api.ok("POST", "sessions", {})
    await api.ok("PUT", "providers/openai-chat", {"value": KEY})
    await api.ok("PATCH", f"sessions/{first['id']}", {"model": MODEL})
    assert (await api.ok("POST", "sessions", {}))["model"] == MODEL
    assert (await api.ok("POST", "sessions/find", {"kernel_id": "k1", "create": True}))["session"]["model"] == MODEL
    assert (await api.ok("POST", "sessions", {"model": "offline"}))["model"] == "offline", "what is named goes before"
    assert (await chosen(api))["chosen"] == MODEL
    assert (await api.ok("DELETE", "models/preferred"))["model"] == "offline"
    assert (await api.ok("POST", "sessions", {}))["model"] == "offline"


async def test_a_model_is_chosen_where_there_is_no_session_yet(api: Api) -> None:
    await api.ok("PUT", "providers/openai-chat", {"value": KEY})
    assert (await api.ok("PUT", "models/preferred", {"model": MODEL}))["model"] == MODEL
    assert (await api.ok("POST", "sessions", {}))["model"] == MODEL


async def test_a_chosen_model_that_cannot_be_used_any_more_gives_way_with_one_sentence(api: Api) -> None:
    await api.ok("PUT", "providers/openai-chat", {"value": KEY})
    await api.ok("PUT", "models/preferred", {"model": MODEL})
    await api.ok("DELETE", "providers/openai-chat")
    found = await chosen(api)
    assert (found["model"], found["chosen"]) == ("offline", MODEL)
    assert "OPENAI_API_KEY" in found["why"]
    new = await api.ok("POST", "sessions/find", {"kernel_id": "k1", "create": True})
    assert new["session"]["model"] == "offline"
    assert new["note"] == f"{found['why']} This session uses offline."
    again = await api.ok("POST", "sessions/find", {"kernel_id": "k1", "create": True})
    assert again["note"] is None
    await api.ok("PUT", "providers/openai-chat", {"value": KEY})
    assert (await api.ok("POST", "sessions", {}))["model"] == MODEL, "it is remembered meanwhile"


async def test_a_model_that_is_known_to_fail_cannot_be_chosen(api: Api) -> None:
    session = await api.ok("POST", "sessions", {})
    prompt = {"type": "prompt", "text": "hello", "model": MODEL}
    for method, path, body in (
        ("POST", "sessions", {"model": MODEL}),
        ("PATCH", f"sessions/{session['id']}", {"model": MODEL}),
        ("PUT", "models/preferred", {"model": MODEL}),
        ("POST", f"sessions/{session['id']}/commands", prompt),
    ):
        answer = await api(method, path, body)
        assert (answer.status, answer.json["code"]) == (409, "model_unavailable"), path
        assert "OPENAI_API_KEY" in answer.json["message"]
    missing = await api("PATCH", f"sessions/{session['id']}", {"model": "cohere:command"})
    assert "install" in missing.json["message"]
    assert "pydantic-ai-slim[cohere]" in missing.json["message"]
    assert (await api.ok("GET", f"sessions/{session['id']}"))["model"] == "offline"
    await api.ok("PUT", "providers/lab", {"value": "http://127.0.0.1:9/v1"})
    await api.ok("PATCH", f"sessions/{session['id']}", {"model": "lab:anything"})


async def test_a_model_that_its_provider_has_refused_cannot_be_chosen_until_its_key_is_another(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await api.ok("POST", "sessions", {})
    async with ScriptedProvider(Reply(status=401), Reply("OK")) as served:
        served.point(monkeypatch)
        assert not (await api.ok("POST", "models/test", {"model": MODEL}))["ok"]
        answer = await api("PATCH", f"sessions/{session['id']}", {"model": MODEL})
        assert (answer.status, answer.json["code"]) == (409, "model_unavailable")
        assert not await usable(api, MODEL)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-another-0123456789")
        assert await usable(api, MODEL)
        await api.ok("PATCH", f"sessions/{session['id']}", {"model": MODEL})


@pytest.mark.parametrize(
    "pasted",
    [f"  {KEY}\n", f'"{KEY}"', f"export OPENAI_API_KEY={KEY}", f"OPENAI_API_KEY='{KEY}'", f"Bearer {KEY}",
     f"{KEY[:9]}\r\n  {KEY[9:]}", f"\u200b{KEY}\ufeff", f"Authorization: Bearer {KEY}"],
)  # fmt: skip
async def test_a_key_is_taken_however_it_was_copied(api: Api, pasted: str) -> None:
    await api.ok("PUT", "providers/openai-chat", {"value": pasted})
    assert json.loads(STORED.path.read_text()) == {"OPENAI_API_KEY": KEY}


@pytest.mark.parametrize(
    ("name", "key", "owner"),
    [
        ("openai-chat", "sk-ant-api03-planted", "Anthropic"),
        ("anthropic", "sk-proj-planted012345", "OpenAI"),
        ("mistral", "AIzaSyPlanted0123456", "Google"),
        ("openai-chat", "sk-or-v1-planted0123", "OpenRouter"),
    ],
)
async def test_a_key_of_another_provider_is_refused_and_named(api: Api, name: str, key: str, owner: str) -> None:
    answer = await api("PUT", f"providers/{name}", {"value": key})
    assert (answer.status, answer.json["field"]) == (400, "value")
    assert owner in answer.json["message"]
    assert key not in answer.json["message"]
    assert not STORED.path.exists()


async def test_a_server_of_the_users_own_takes_any_key(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    await api.ok("PUT", "providers/openai-chat", {"value": "sk-ant-of-a-proxy-012345"})


async def test_the_file_stays_its_owners_alone_when_it_is_written_again(api: Api) -> None:
    before = os.umask(0)
    try:
        for name in ("openai-chat", "anthropic", "openai-chat"):
            await api.ok("PUT", f"providers/{name}", {"value": KEY})
            assert stat.S_IMODE(STORED.path.stat().st_mode) == 0o600
        await api.ok("DELETE", "providers/anthropic")
        assert stat.S_IMODE(STORED.path.stat().st_mode) == 0o600
        assert [one.name for one in STORED.path.parent.iterdir() if one.name.startswith(".")] == []
    finally:
        os.umask(before)


async def listening(answer: bytes, *, delay: float = 0.0, endless: bool = False) -> asyncio.Server:
    """Something else at a port where a server of models could be."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await asyncio.sleep(delay)
            writer.write(answer)
            while endless and not writer.is_closing():
                writer.write(b"x" * 65536)
                await writer.drain()
            await writer.drain()
            writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", 0)


def json_answer(body: bytes, *more: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", *more, b"Content-Length: %d" % len(body), b"Connection: close", b"", body])


async def test_slow_and_hostile_programs_at_these_ports_are_bounded_and_not_offered(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = json.dumps(
        {"data": [{"id": "a b"}, {"id": "x" * 500}, {"id": "\x1b[31m"}, {"id": 7}, {"no": 1}, "s", {"id": ""}]}
    )
    programs = [
        await listening(b"", delay=30),
        await listening(b"HTTP/1.1 200 OK\r\n\r\n", endless=True),
        await listening(b"HTTP/1.1 200 OK\r\nX: ", endless=True),
        await listening(json_answer(b"[" * 20_000)),
        await listening(json_answer(b'{"data": {"id": "x"}}')),
        await listening(json_answer(gzip.compress(b" " * 30_000_000), b"Content-Encoding: gzip")),
        await listening(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"),
        await listening(json_answer(odd.encode())),
        await listening(b"SSH-2.0-OpenSSH\r\n"),
    ]
    try:
        ports = [one.sockets[0].getsockname()[1] for one in programs]
        monkeypatch.setattr(router, "_ON_THIS_MACHINE", tuple((f"p{n}", f"P{n}", port) for n, port in enumerate(ports)))
        began = time.monotonic()
        assert (await api.ok("GET", "providers", local="1"))["local"] == []
        assert time.monotonic() - began < 5
    finally:
        for one in programs:
            one.close()


@pytest.fixture
def asked_ports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were asked for models."""
    found: list[str] = []

    async def note(url: str, secret: str | None, **_: Any) -> router.ServerModels:
        found.append(url)
        return router.ServerModels()

    monkeypatch.setattr(router, "_ask", note)
    return found


class TestNotLookedFor:
    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"find_local_models": False}

    async def test_the_administrator_can_forbid_to_look_around(self, api: Api, asked_ports: list[str]) -> None:
        assert (await api.ok("GET", "providers", local="1"))["local"] == []
        assert asked_ports == []


@pytest.mark.parametrize(("given", "expected"), [({}, False), ({"NAVI_FIND_LOCAL_MODELS": "1"}, True)])
def test_on_a_hub_nothing_is_looked_for_unless_that_is_set(
    given: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NaviExtension().read_settings().find_local_models
    monkeypatch.setenv("JUPYTERHUB_USER", "ann")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert NaviExtension().read_settings().find_local_models is expected
    config = Config({"NaviExtension": {"find_local_models": True}})
    assert NaviExtension(config=config).read_settings().find_local_models


class TestForbidden:
    @pytest.fixture
    def navi_config(self) -> dict[str, Any]:
        return {"store_keys": False}

    async def test_the_administrator_can_forbid_it_and_what_is_stored_is_not_used_then(self, api: Api) -> None:
        STORED.path.parent.mkdir(parents=True, exist_ok=True)
        STORED.path.touch(mode=0o600)
        STORED.path.write_text(json.dumps({"OPENAI_API_KEY": KEY}))
        page = await api.ok("GET", "providers")
        assert (page["may_store"], page["file"]) == (False, None)
        answer = await api("PUT", "providers/openai-chat", {"value": KEY})
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
        assert "store_keys" in answer.json["message"]
        assert not await usable(api, MODEL)
        assert "settings of the chat" not in (await provider(api, "openai-chat"))["why"]

    async def test_nothing_is_looked_for_that_could_not_be_kept(self, api: Api, asked_ports: list[str]) -> None:
        assert (await api.ok("GET", "providers", local="1"))["local"] == []
        assert asked_ports == []
