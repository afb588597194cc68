"""A server whose attachments go to S3, over HTTP."""

from __future__ import annotations

import os
import secrets
from typing import Any

import pytest

from tests.conftest import Api
from tests.support.s3 import BUCKET, PrivateS3


@pytest.fixture
def prefix() -> str:
    """Of this test."""
    return f"t-{secrets.token_hex(6)}"


@pytest.fixture
def navi_config(s3: PrivateS3, prefix: str) -> dict[str, Any]:
    return {"blobs_url": f"s3://{BUCKET}/{prefix}"}


async def test_an_upload_goes_there_and_comes_back_as_it_was(api: Api, s3: PrivateS3, prefix: str) -> None:
    content = os.urandom(3_000_000).hex().encode()
    about = (await api("POST", "attachments", raw=content, name="a.txt")).json
    assert len([name for name in s3.objects(prefix) if name != "navi-database"]) == 1
    assert (await api("GET", f"attachments/{about['id']}")).body == content


class TestAway:
    """The store is not there."""

    @pytest.fixture
    def navi_config(self, s3: PrivateS3, prefix: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        return {"blobs_url": f"s3://{BUCKET}/{prefix}"}

    async def test_the_server_starts_and_an_upload_is_an_error_that_says_so(self, api: Api) -> None:
        answer = await api("POST", "attachments", raw=b"a text", name="a.txt")
        assert (answer.status, answer.json["code"]) == (503, "store_unavailable")
        assert "cannot be reached" in answer.json["message"]
        assert (await api("GET", "health")).status == 200
