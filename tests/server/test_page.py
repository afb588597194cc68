"""The plain page."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from navi_jupyter.server.app import NaviExtension
from navi_jupyter.server.page import PACKAGE, bundle_id

STATIC = PACKAGE / "static"


async def test_the_page_has_the_chat_and_says_where_its_server_is_and_no_secret(
    navi: NaviExtension, jp_fetch: Any, jp_base_url: str, jp_auth_header: dict[str, str]
) -> None:
    for path in ("navi", "navi/"):
        response = await jp_fetch(path)
        text = response.body.decode()
        found = re.search(r'<script id="jupyter-config-data" type="application/json">(.*?)</script>', text)
        assert found is not None
        config = json.loads(found.group(1))
        assert (config["baseUrl"], config["token"]) == (jp_base_url, "")
        assert jp_auth_header["Authorization"].split()[1] not in text
        assert "navi-chat" in text


async def script(jp_fetch: Any, name: str, accepts: str = "", *, v: str | None = None, **headers: str) -> HTTPResponse:
    """The answer to a request for a script, as it comes over the network."""
    response: HTTPResponse = await jp_fetch(
        *("static", "navi", name),
        params={} if v is None else {"v": v},
        headers={"Accept-Encoding": accepts, **headers},
        decompress_response=False,
        raise_error=False,
    )
    return response


async def test_the_page_s_script_is_sent_compressed_where_the_browser_takes_that(
    navi: NaviExtension, jp_fetch: Any
) -> None:
    plain = await script(jp_fetch, "navi-chat.js")
    compressed = await script(jp_fetch, "navi-chat.js", "gzip, deflate")
    assert (plain.code, compressed.code) == (200, 200)
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(compressed.body) == plain.body == (STATIC / "navi-chat.js").read_bytes()
    assert len(compressed.body) < len(plain.body) / 2
    for response in (plain, compressed):
        assert "javascript" in response.headers["Content-Type"]
        assert "Accept-Encoding" in response.headers["Vary"]
    assert plain.headers["Etag"] != compressed.headers["Etag"], "a cache must not take one for the other"


async def test_the_smaller_form_is_sent_where_both_are_taken(navi: NaviExtension, jp_fetch: Any) -> None:
    smaller = await script(jp_fetch, "navi-chat.js", "gzip, deflate, br, zstd")
    assert smaller.headers["Content-Encoding"] == "br"
    assert "javascript" in smaller.headers["Content-Type"]
    assert smaller.body == (STATIC / "navi-chat.js.br").read_bytes()
    assert len(smaller.body) < (STATIC / "navi-chat.js.gz").stat().st_size


@pytest.mark.parametrize("accepts", ["identity", "gzip;q=0", "br;q=0, gzip; q=0.0", "deflate"])
async def test_a_browser_that_does_not_take_gzip_gets_none(navi: NaviExtension, jp_fetch: Any, accepts: str) -> None:
    assert "Content-Encoding" not in (await script(jp_fetch, "navi-chat.js", accepts)).headers


async def test_scripts_are_kept_for_good_under_the_url_that_names_them_and_asked_for_under_others(
    navi: NaviExtension, jp_fetch: Any
) -> None:
    chunk = next(path.name for path in STATIC.glob("chunk-*.js"))
    for response in (await script(jp_fetch, "navi-chat.js", "gzip", v=bundle_id()), await script(jp_fetch, chunk)):
        assert "immutable" in response.headers["Cache-Control"]
    bare = await script(jp_fetch, "navi-chat.js", "gzip")
    assert bare.headers["Cache-Control"] == "no-cache"
    again = await script(jp_fetch, "navi-chat.js", "gzip", **{"If-None-Match": bare.headers["Etag"]})
    assert (again.code, again.body) == (304, b"")


async def test_the_page_and_the_lab_extension_load_the_component_under_one_url(
    navi: NaviExtension, jp_fetch: Any
) -> None:
    page = (await jp_fetch("navi")).body.decode()
    assert f"static/navi/navi-chat.js?v={bundle_id()}" in page
    (entry,) = (PACKAGE / "labextension" / "static").glob("remoteEntry.*.js")
    for loader in (entry, STATIC / "widget.js"):
        assert bundle_id() in loader.read_text(encoding="utf-8")


def test_jupyter_navi_opens_the_page() -> None:
    assert NaviExtension().default_url == "/navi"
    assert not NaviExtension.load_other_extensions


async def page_language(jp_fetch: Any, accepted: str) -> str:
    """The language that the page names, to a browser with this header."""
    text = (await jp_fetch("navi", headers={"Accept-Language": accepted})).body.decode()
    found = re.search(r'<html lang="([^"]*)">', text)
    assert found is not None
    return found.group(1)


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("fr,en;q=0.3,zh-TW;q=0.5", "zh-CN"),
        ("fr-FR", "en"),
        ("de;q=0,en", "en"),
        ("", "en"),
        (";;q=,,*", "en"),
    ],
)
async def test_the_page_is_in_the_browser_s_language_where_jupyterlab_has_none(
    navi: NaviExtension, jp_fetch: Any, accepted: str, language: str
) -> None:
    assert await page_language(jp_fetch, accepted) == language


async def test_the_page_is_in_the_language_that_was_chosen_in_jupyterlab(
    navi: NaviExtension, jp_fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    file = tmp_path / "@jupyterlab" / "translation-extension" / "plugin.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    for stored, language in [("de_DE", "de"), ("zh_CN", "zh-CN"), ("fr_FR", "en"), ("default", "zh-CN")]:
        # As JupyterLab writes it: what is not changed is in comments.
        file.write_text(
            f'{{\n    // "locale": "de_DE"\n    // Language.\n    "locale": "{stored}"\n}}', encoding="utf-8"
        )
        assert (stored, await page_language(jp_fetch, "zh")) == (stored, language)
    text = (await jp_fetch("navi", headers={"Accept-Language": "zh"})).body.decode()
    assert 'aria-label="会话"' in text
    file.write_text('{"locale": "de_DE"}', encoding="utf-8")  # as an administrator writes it
    assert await page_language(jp_fetch, "zh") == "de"
