"""Keys and addresses of model providers that the user stores on the server; servers of models on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from navi_jupyter.agent import router
from navi_jupyter.agent.providers import catalog
from navi_jupyter.agent.providers.stored_settings import STORED
from navi_jupyter.redaction import redact
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
