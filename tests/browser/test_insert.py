"""``%%navi --insert`` in JupyterLab and Notebook: the code of the answer is in a new cell below."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.hosts import PANEL, Host, run_cell, shot
from tests.kernel.test_control import provider_of
from tests.support.providers import KEY, Reply, ScriptedProvider

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

ANSWER = "So:\n\n```python\ntotal = 6 * 7\nprint(total)\n```\n"


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with provider_of(Reply(ANSWER)) as provider:
        yield provider


@pytest.fixture(scope="module", params=["lab", "notebook"])
def host(
    request: pytest.FixtureRequest, provider: ScriptedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    environment = {
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": KEY,
        "NAVI_DEFAULT_MODEL": "openai-chat:gpt-6.1-sol",
    }
    host = Host(request.param, tmp_path_factory.mktemp(request.param), env=environment)
    yield host
    host.server.stop()


def test_the_code_of_an_answer_is_in_a_new_cell_below_which_runs(host: Host, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(40_000)
    host.write("insert", "%load_ext navi_jupyter", "%%navi --insert\nhow much is six by seven?", "last = 1")
    page = host.open(context, "insert")
    run_cell(page, 0)
    run_cell(page, 1)
    page.wait_for_function(f"() => {PANEL}.content.widgets.length === 4")
    sources = page.evaluate(f"() => {PANEL}.content.widgets.map(({{model}}) => model.sharedModel.getSource())")
    assert sources[2:] == ["total = 6 * 7\nprint(total)", "last = 1"]
    shot(page, f"{host.app}-insert")
    run_cell(page, 2)
    expect(page.locator(".jp-Notebook .jp-Cell").nth(2).locator(".jp-OutputArea-output")).to_have_text("42")
    context.close()
