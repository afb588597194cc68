"""An agent has a notebook executed at a time: it always asks about the very job, and a recall's run cannot have it."""

from __future__ import annotations

import json
from typing import Any

from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools import notebook_recalls, recalls
from navi_jupyter.model.recalls import NotebookJob, RecallCreate
from navi_jupyter.model.sessions import Origin, OriginKind
from tests.agent.test_recall_leave import IN_AN_HOUR, MODEL, calls
from tests.support.agent_world import Bench, agent_parts, answered
from tests.support.providers import Reply, Serve

JOB = {"path": "work/report.ipynb", "when": "every weekday at 9", "parameters": {"n": 7}}


def bench_of(**fields: Any) -> Bench:
    bench = Bench(PydanticAIBackend(agent_parts(*notebook_recalls.TOOLS, *recalls.TOOLS)))
    bench.session = bench.session.but(**fields) if fields else bench.session
    return bench


async def test_it_asks_with_all_of_the_job_also_where_the_tool_is_always_allowed(serve: Serve) -> None:
    bench = bench_of(allowed_tools=("recall_notebook", "run_code", "write_file"))
    async with serve(calls("recall_notebook", **JOB), Reply("Planned.")):
        paused = await bench.run("plan it", model=MODEL)
        (ask,) = paused.asks
        assert ask.message == "May a recall execute the notebook work/report.ipynb, each time without asking?"
        shown = {detail.label: detail.text for detail in ask.details}
        assert shown["Notebook"] == "work/report.ipynb"
        assert "weekdays at 09:00" in shown["When"]
        assert json.loads(shown["parameters"]) == {"n": 7}
        outcome = await bench.resume(paused, answered(ask, {"approved": True}), model=MODEL)
    assert outcome.text == "Planned."
    (made,) = bench.desk.recalls.values()
    assert made.message == "Run work/report.ipynb"


async def test_a_recalls_run_cannot_have_a_notebook_executed(serve: Serve) -> None:
    bench = bench_of()
    request = RecallCreate.model_validate(
        {"session_id": "s_1", "message": "look", "schedule": IN_AN_HOUR, "allow": ["run", "write", "recall_notebook"]}
    )
    recall = await bench.desk.create(request, owner="ada", zone="UTC")
    origin = Origin(kind=OriginKind.RECALL, recall_id=recall.id)
    async with serve(calls("recall_notebook", **JOB), Reply("I may not.")) as provider:
        outcome = await bench.run("go", model=MODEL, origin=origin)
        assert "only the user can allow that" in json.dumps(provider.requests[-1].body)
    assert outcome.asks == ()
    assert len(bench.desk.recalls) == 1


async def test_changing_a_recall_that_executes_a_notebook_asks(serve: Serve) -> None:
    bench = bench_of()
    request = RecallCreate(session_id="s_1", schedule=_hour(), run=NotebookJob(path="report.ipynb"), title="the report")
    recall = await bench.desk.create(request, owner="ada", zone="UTC")
    bench.desk.recalls[recall.id] = recall.but(run=NotebookJob(path="report.ipynb"))
    async with serve(calls("change_recall", recall_id=recall.id, when="every minute")):
        (ask,) = (await bench.run("go", model=MODEL)).asks
    assert "which may execute the notebook report.ipynb without asking" in ask.message


def _hour() -> Any:
    return RecallCreate.model_validate({"session_id": "s", "message": "m", "schedule": IN_AN_HOUR}).schedule
