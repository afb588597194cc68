"""What a Prometheus server reads of Navi on Jupyter's own page."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from prometheus_client.parser import text_string_to_metric_families
from traitlets.config import Config

from navi_jupyter import __version__
from navi_jupyter.server import metrics
from navi_jupyter.server.wire.agent import Health
from navi_jupyter.store.sqlite.location import database_path
from tests.conftest import Api, extension_of

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(jp_fetch: Any) -> Samples:
    """The samples of Navi, by name and labels."""
    page = (await jp_fetch("metrics")).body.decode()
    families = text_string_to_metric_families(page)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("navi_")
    }


def states(samples: Samples) -> dict[str, float]:
    return {dict(labels)["status"]: value for (name, labels), value in samples.items() if name == "navi_health_status"}


async def test_every_figure_of_health_is_on_the_page_with_the_same_value(api: Api, jp_fetch: Any) -> None:
    await api.session()
    assert set(metrics.HEALTH) == set(Health.model_fields)  # a new figure has no metric yet: give it one
    health, samples = await api.ok("GET", "health"), await scrape(jp_fetch)
    assert {name for name, _ in samples} >= set(metrics.HEALTH.values())
    assert all(re.fullmatch(r"navi_[a-z_]+", name) for name, _ in samples)
    assert {label for _, labels in samples for label, _ in labels} <= {
        "status",
        "version",
        "generation",
        "le",
        "database",
        "result",
    }  # no user's name
    assert samples["navi_build_info", (("version", __version__),)] == 1
    assert states(samples) == {"ok": 1, "starting": 0, "failed": 0, "stopping": 0}
    assert samples["navi_commit_longest_seconds", ()] > 0  # a session was made
    for field in (
        "write_queue",
        "sessions",
        "runs",
        "followers",
        "recalls",
        "runs_waiting",
        "prompts_queued",
        "follower_lag",
    ):
        assert samples[metrics.HEALTH[field], ()] == health[field]
    assert samples["navi_transcripts_saved", ()] == health["save_transcripts"]
    assert samples["navi_database_notice", ()] == 0
    assert (health["database"], health["replicas"], health["clock_offset_ms"]) == ("sqlite", 1, 0)
    assert samples["navi_database_info", (("database", "sqlite"),)] == 1
    assert samples["navi_replicas", ()] == 1
    assert samples["navi_clock_offset_seconds", ()] == 0
    assert 0 <= samples["navi_lease_age_seconds", ()] < 30
    assert samples["navi_signal_lag_seconds_count", ()] == 0  # there is no other server
    assert 0 <= samples["navi_loop_lag_seconds", ()] < 60
    assert samples["navi_gc_tuned", ()] == (health["garbage_collection"] == "tuned")
    for histogram in ("navi_loop_turn_seconds", "navi_gc_pause_seconds", "navi_commit_seconds"):
        counts = [value for (name, _), value in samples.items() if name == f"{histogram}_count"]
        assert sum(counts) > 0


async def test_the_dashboard_shows_all_metrics_that_there_are_and_no_other(api: Api, jp_fetch: Any) -> None:
    await api.session()
    there = {name for name, _ in await scrape(jp_fetch)}
    board = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked += [variable["definition"] for variable in board["templating"]["list"] if "definition" in variable]
    shown = {name for expression in asked for name in re.findall(r"\bnavi_\w+", expression)}
    assert shown - there == set(), "unknown to the page"
    parts = r"_(bucket|sum|count|total|created)$"
    assert {re.sub(parts, "", name) for name in there} == {re.sub(parts, "", name) for name in shown}
    assert set(re.findall(r"\bnavi_\w+", DASHBOARD.read_text())) <= there
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    labels = {label for expression in asked for label in re.findall(r"by \(([^)]*)\)", expression)}
    assert {one.strip() for each in labels for one in each.split(",")} <= {
        "le",
        "instance",
        "version",
        "database",
        "result",
    }


async def test_the_page_says_that_nothing_can_be_saved_any_more(
    api: Api, jp_fetch: Any, jp_serverapp: ServerApp
) -> None:
    lifecycle = extension_of(jp_serverapp).lifecycle
    assert lifecycle is not None
    database = database_path(lifecycle.settings.database_url)
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    async with asyncio.timeout(30):
        while states(await scrape(jp_fetch))["failed"] != 1:  # noqa: ASYNC110  a server finds it out
            await asyncio.sleep(0.1)
    assert (await api("GET", "health")).json["status"] == "failed"
    await lifecycle.stop()
    assert not await scrape(jp_fetch)  # no figure of a process that has ended its work


async def test_without_a_login_jupyter_shows_nobody_the_page(
    api: Api, jp_base_url: str, http_server_client: Any
) -> None:
    answer = await http_server_client.fetch(f"{jp_base_url}metrics", raise_error=False)
    assert answer.code == 403


class TestOnPostgres:
    @pytest.fixture
    def jp_server_config(self, navi_config: dict[str, Any], postgres_url: str) -> Config:
        navi = {**navi_config, "database_url": f"{postgres_url}?search_path=health"}
        return Config({"ServerApp": {"jpserver_extensions": {"navi_jupyter": True}}, "NaviExtension": navi})

    async def test_health_and_the_page_have_the_database_and_its_clock(
        self, api: Api, jp_fetch: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("navi_jupyter.server.services.database_offset", lambda: timedelta(seconds=-1.5))
        health, samples = await api.ok("GET", "health"), await scrape(jp_fetch)
        assert (health["database"], health["replicas"], health["clock_offset_ms"]) == ("postgresql", 1, -1500)
        assert samples["navi_database_info", (("database", "postgresql"),)] == 1
        assert samples["navi_clock_offset_seconds", ()] == -1.5
        assert 0 <= samples["navi_lease_age_seconds", ()] < 7
