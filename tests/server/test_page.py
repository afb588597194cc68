"""The plain page."""

from __future__ import annotations

import json
import re
from typing import Any

from navi_jupyter.server.app import NaviExtension


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


async def test_the_page_s_script_is_served(navi: NaviExtension, jp_fetch: Any) -> None:
    response = await jp_fetch("static", "navi", "navi-chat.js")
    assert response.code == 200


def test_jupyter_navi_opens_the_page() -> None:
    assert NaviExtension().default_url == "/navi"
    assert not NaviExtension.load_other_extensions
