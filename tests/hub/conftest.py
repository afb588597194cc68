"""One JupyterHub for the tests of a module: eight seconds to start, and a user's server six."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.test_control import MODEL, provider_of
from tests.support.balancer import InTurns
from tests.support.hub import Hub, ScriptedHub
from tests.support.providers import KEY


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    with Hub(tmp_path_factory.mktemp("hub")).start() as started:
        yield started


@pytest.fixture(scope="package")
def scripted_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedHub]:
    """A Hub whose service has a scripted model, for several modules: each has a user of its own."""
    with provider_of() as provider:
        env = {"OPENAI_BASE_URL": f"{provider.url}/v1", "OPENAI_API_KEY": KEY, "NAVI_DEFAULT_MODEL": MODEL}
        hub = Hub(tmp_path_factory.mktemp("hub"), env=env, more={"JupyterHub": {"allow_named_servers": True}})
        way = InTurns([hub.service_port])
        hub.server_env["NAVI_HUB_SERVICE_URL"] = f"http://127.0.0.1:{way.port}/services/navi/"
        with hub.start():
            yield ScriptedHub(hub, provider, way)
        way.close()
