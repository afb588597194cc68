"""Tool calls that ask: the run pauses, keeps itself as bytes, and goes on with the answers."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

import pytest
from pydantic import Field

from navi_jupyter.agent.run.backend import PydanticAIBackend
from navi_jupyter.agent.tools.base import tool
from navi_jupyter.agent.tools.call_details import CallDescription, fingerprint_of, text_part
from navi_jupyter.errors import RunFailed
from navi_jupyter.model.runs import Effect, InterruptStatus
from navi_jupyter.model.sessions import RunStatus
from navi_jupyter.ports.agent import PastTurn
from navi_jupyter.settings import Limits
from tests.support.agent_world import Bench, Outcome, agent_parts, answered
from tests.support.providers import Call, Reply, Serve

MODELS = ("openai-chat:gpt-6-luna", "anthropic:claude-haiku-5-5")


class Lab:
    """Tools that note what was done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def run_thing(self, code: Annotated[str, Field(description="Code.")]) -> str:
        """Run it."""
        self.done.append(f"run {code}")
        return f"ran {code}"

    async def write_thing(self, text: Annotated[str, Field(description="Text.")]) -> str:
        """Write it."""
        self.done.append(f"write {text}")
        return f"wrote {text}"

    async def look(self) -> str:
        """Look."""
        self.done.append("look")
        return "spotted"

    def loop(self) -> PydanticAIBackend:
        """A new loop, as after a restart: nothing is shared with an earlier one but the lab."""
        return PydanticAIBackend(
            agent_parts(
                tool(self.run_thing, Effect.RUN), tool(self.write_thing, Effect.WRITE), tool(self.look, Effect.READ)
            )
        )


@pytest.fixture
def lab() -> Lab:
    return Lab()


@pytest.fixture
def bench(lab: Lab) -> Bench:
    return Bench(lab.loop())


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run_call(code: str = "1 + 1", call_id: str = "call_1") -> Call:
    return Call("run_thing", {"code": code}, id=call_id)


async def test_a_call_that_asks_pauses_the_run_before_anything_is_done(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    async with serve(Reply("Let me. ", calls=(run_call(),))) as provider:
        paused = await bench.run("go", model=model)
    assert lab.done == []
    assert len(provider.requests) == 1
    (ask,) = paused.asks
    assert (ask.tool, ask.args) == ("run_thing", {"code": "1 + 1"})
    starts = [event for event in paused.events if event.type == "TOOL_CALL_START"]
    assert ask.tool_call_id == starts[0].tool_call_id  # type: ignore[attr-defined]
    assert paused.results == []
    assert paused.result is not None
    assert paused.result.usage.requests == 1


async def test_an_approved_call_is_done_and_the_model_reads_its_result(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    async with serve(Reply(calls=(run_call(),)), Reply("Two.")) as provider:
        paused = await bench.run("go", model=model)
        outcome = await bench.resume(paused, answered(paused.asks[0], {"approved": True}), model=model)
    assert lab.done == ["run 1 + 1"]
    assert outcome.results == ["ran 1 + 1"]
    assert outcome.text == "Two."
    assert "ran 1 + 1" in json.dumps(provider.requests[1].body)
    assert outcome.result is not None
    assert outcome.result.usage.requests == 2, "what went before the pause counts"
    assert outcome.result.usage.input_tokens == 22


async def test_a_missing_payload_approves(bench: Bench, lab: Lab, serve: Serve) -> None:
    async with serve(Reply(calls=(run_call(),)), Reply("Two.")):
        paused = await bench.run("go", model=MODELS[0])
        await bench.resume(paused, answered(paused.asks[0]), model=MODELS[0])
    assert lab.done == ["run 1 + 1"]


async def test_a_run_goes_on_in_a_new_process_from_its_bytes_alone(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    async with serve(
        Reply("Let me. ", reasoning="hm", calls=(run_call(),)), Reply("Two."), Reply("Later.")
    ) as provider:
        paused = await bench.run("the question", model=model)
        bench.loop = lab.loop()
        outcome = await bench.resume(paused, answered(paused.asks[0]), model=model)
        assert outcome.result is not None
        past = PastTurn(
            run_id="u_past", status=RunStatus.COMPLETED, prompt="the question", messages=(),
            conversation=outcome.result.conversation,
        )  # fmt: skip
        await bench.run("the next", model=model, history=(past,))
    sent = json.dumps([one for one in provider.requests[2].body["messages"] if one["role"] != "system"])
    order = ["the question", "Let me.", "run_thing", "ran 1 + 1", "Two.", "the next"]
    assert sorted(order, key=sent.index) == order
    assert sent.count("the question") == 1


async def test_edited_arguments_are_used_and_the_transcript_notes_it(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    async with serve(Reply(calls=(run_call("rm -rf"),)), Reply("Ok.")) as provider:
        paused = await bench.run("go", model=model)
        answer = answered(paused.asks[0], {"approved": True, "args": {"code": "ls"}})
        outcome = await bench.resume(paused, answer, model=model)
    assert lab.done == ["run ls"]
    (result,) = outcome.results
    assert '{"code": "ls"}' in result
    assert "changed the arguments" in result
    assert "changed the arguments" in json.dumps(provider.requests[1].body)


async def test_edited_arguments_that_do_not_fit_are_reported_and_nothing_is_done(
    bench: Bench, lab: Lab, serve: Serve
) -> None:
    async with serve(Reply(calls=(run_call(),)), Reply("Ok.")):
        paused = await bench.run("go", model=MODELS[0])
        answer = answered(paused.asks[0], {"approved": True, "args": {"cod": 1}})
        outcome = await bench.resume(paused, answer, model=MODELS[0])
    assert lab.done == []
    assert "invalid_arguments" in outcome.results[0]


@pytest.mark.parametrize(
    ("payload", "status", "says"),
    [
        ({"approved": False, "message": "use pandas"}, InterruptStatus.RESOLVED, "use pandas"),
        ({"approved": False}, InterruptStatus.RESOLVED, "did not allow"),
        (None, InterruptStatus.CANCELLED, "declined"),
        (None, InterruptStatus.EXPIRED, "expired without an answer"),
        ("nonsense", InterruptStatus.RESOLVED, "could not be read"),
    ],
)
async def test_a_call_that_is_not_allowed_is_not_done_and_the_model_reads_why(
    bench: Bench, lab: Lab, serve: Serve, model: str, payload: object, status: InterruptStatus, says: str
) -> None:
    async with serve(Reply(calls=(run_call(),)), Reply("I see.")) as provider:
        paused = await bench.run("go", model=model)
        outcome = await bench.resume(paused, answered(paused.asks[0], payload, status), model=model)
    assert lab.done == []
    assert says in outcome.results[0]
    assert says in json.dumps(provider.requests[1].body)
    assert outcome.text == "I see."


async def test_calls_that_ask_nothing_are_done_before_the_pause_and_once(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    calls = (Call("look", {}, id="call_0"), run_call(), Call("look", {}, id="call_2"))
    async with serve(Reply(calls=calls), Reply("Done.")) as provider:
        paused = await bench.run("go", model=model)
        assert lab.done == ["look", "look"]
        assert paused.results == ["spotted", "spotted"]
        outcome = await bench.resume(paused, answered(paused.asks[0]), model=model)
    assert lab.done == ["look", "look", "run 1 + 1"]
    assert outcome.results == ["ran 1 + 1"]
    assert json.dumps(provider.requests[1].body).count("spotted") == 2


async def test_several_questions_of_one_answer_are_asked_at_once_and_answered_each(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    calls = (run_call("a", "call_0"), Call("write_thing", {"text": "b"}, id="call_1"), run_call("c", "call_2"))
    async with serve(Reply(calls=calls), Reply("Done.")):
        paused = await bench.run("go", model=model)
        assert [ask.args for ask in paused.asks] == [{"code": "a"}, {"text": "b"}, {"code": "c"}]
        first, second, third = paused.asks
        outcome = await bench.resume(
            paused, answered(third), answered(first), answered(second, {"approved": False}), model=model
        )
    assert lab.done == ["run a", "run c"]
    assert len(outcome.results) == 3


async def test_a_second_pause_of_the_same_run_goes_on_too(bench: Bench, lab: Lab, serve: Serve, model: str) -> None:
    async with serve(Reply(calls=(run_call("a"),)), Reply(calls=(run_call("b"),)), Reply("Done.")) as provider:
        first = await bench.run("go", model=model)
        second = await bench.resume(first, answered(first.asks[0]), model=model)
        assert [ask.args for ask in second.asks] == [{"code": "b"}]
        last = Outcome(before=second)
        assert second.result is not None
        await last.take(
            bench.events("-", model=model, resumed=second.result.conversation, answers=(answered(second.asks[0]),))
        )
    assert lab.done == ["run a", "run b"]
    assert last.result is not None
    assert last.result.usage.requests == 3
    sent = json.dumps(provider.requests[2].body)
    assert "ran a" in sent
    assert "ran b" in sent


async def test_always_for_this_session_is_not_asked_again_in_the_run(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    script = (Reply(calls=(run_call("a"),)), Reply(calls=(run_call("b"),)), Reply("Done."))
    async with serve(*script):
        paused = await bench.run("go", model=model)
        outcome = await bench.resume(
            paused, answered(paused.asks[0], {"approved": True, "always": "session"}), model=model
        )
    assert outcome.asks == ()
    assert lab.done == ["run a", "run b"]


async def test_always_survives_a_further_pause(bench: Bench, lab: Lab, serve: Serve) -> None:
    write = Call("write_thing", {"text": "x"})
    script = (Reply(calls=(run_call("a"),)), Reply(calls=(write,)), Reply(calls=(run_call("b"),)), Reply("Done."))
    async with serve(*script):
        first = await bench.run("go", model=MODELS[0])
        second = await bench.resume(
            first, answered(first.asks[0], {"approved": True, "always": "session"}), model=MODELS[0]
        )
        (ask,) = second.asks
        assert ask.tool == "write_thing"
        assert second.result is not None
        last = Outcome(before=second)
        await last.take(
            bench.events("-", model=MODELS[0], resumed=second.result.conversation, answers=(answered(ask),))
        )
    assert last.asks == ()
    assert lab.done == ["run a", "write x", "run b"]


async def test_a_tool_that_the_session_allows_does_not_ask(bench: Bench, lab: Lab, serve: Serve) -> None:
    bench.session = bench.session.but(allowed_tools=("run_thing",))
    async with serve(Reply(calls=(run_call(),)), Reply("Two.")):
        outcome = await bench.run("go", model=MODELS[0])
    assert lab.done == ["run 1 + 1"]
    assert outcome.text == "Two."


async def test_the_limit_of_requests_holds_over_a_pause(bench: Bench, lab: Lab, serve: Serve) -> None:
    limits = Limits(max_iterations=1, run_timeout=20)
    async with serve(Reply(calls=(run_call(),)), Reply("too many")) as provider:
        paused = await bench.run("go", model=MODELS[0], limits=limits)
        outcome = await bench.resume(paused, answered(paused.asks[0]), model=MODELS[0], limits=limits)
    assert lab.done == ["run 1 + 1"]
    assert len(provider.requests) == 1
    assert outcome.result is not None
    assert outcome.result.failure is not None
    assert outcome.result.failure.code == "max_iterations"
    assert b"ran 1 + 1" in outcome.result.conversation


@pytest.mark.parametrize(
    "kept", [b"", b"not json", b'{"format":"pydantic-ai/9"}', b'{"format":"pydantic-ai/3","messages":[]}']
)
async def test_a_pause_that_cannot_be_read_fails_clearly(bench: Bench, serve: Serve, kept: bytes) -> None:
    async with serve(Reply("never")) as provider:
        with pytest.raises(RunFailed) as caught:
            async for _ in bench.events("-", model=MODELS[0], resumed=kept):
                pass
    assert "cannot go on" in caught.value.message
    assert provider.requests == []


async def test_a_steered_prompt_that_waits_at_a_pause_is_left_for_when_the_run_goes_on(
    bench: Bench, lab: Lab, serve: Serve, model: str
) -> None:
    async with serve(Reply(calls=(run_call(),), hold_end=True), Reply("Ok.")) as provider:
        task = asyncio.create_task(bench.run("go", model=model))
        await (await provider.request()).began.wait()
        bench.steering.say("and be quick")
        provider.script[0].release.set()
        paused = await task
        assert bench.steering.waiting, "nothing was taken at the pause"
        await bench.resume(paused, answered(paused.asks[0]), model=model)
    sent = json.dumps(provider.requests[1].body)
    assert sent.index("ran 1 + 1") < sent.index("and be quick")


def usage_events(outcome: Outcome) -> list[dict[str, Any]]:
    return [value["usage"] for value in outcome.custom("navi.usage")]


async def test_usage_is_reported_after_each_answer_and_adds_up_over_a_pause(
    bench: Bench, serve: Serve, model: str
) -> None:
    async with serve(Reply(calls=(run_call(),)), Reply("Two.")):
        paused = await bench.run("go", model=model)
        outcome = await bench.resume(paused, answered(paused.asks[0]), model=model)
    assert [one["requests"] for one in usage_events(paused)] == [1]
    assert [one["requests"] for one in usage_events(outcome)] == [2]
    assert usage_events(outcome)[0]["output_tokens"] == 14


# --- what was shown is what is done ----------------------------------------------------------------------------------


class Paper:
    """Something that a tool works on, and that others may change."""

    def __init__(self) -> None:
        self.text = "shown"
        self.burnt: list[str] = []

    async def burn(self) -> str:
        """Burn it."""
        self.burnt.append(self.text)
        return f"burnt {self.text}"

    async def describe(self, _args: Any, _context: Any) -> CallDescription:
        return CallDescription(details=(text_part("Paper", self.text),), fingerprint=fingerprint_of(self.text))

    def loop(self) -> PydanticAIBackend:
        return PydanticAIBackend(agent_parts(tool(self.burn, Effect.WRITE, describes=self.describe)))


async def test_a_question_shows_what_the_call_would_do_now(serve: Serve, model: str) -> None:
    paper = Paper()
    async with serve(Reply(calls=(Call("burn", {}),))):
        paused = await Bench(paper.loop()).run("go", model=model)
    assert [(part.label, part.text) for part in paused.asks[0].details] == [("Paper", "shown")]
    assert paused.asks[0].source == "builtin"


@pytest.mark.parametrize("payload", [{"approved": True}, {"approved": True, "always": "session"}, None])
async def test_what_was_changed_after_the_question_is_not_done_and_asked_about_again(
    serve: Serve, model: str, payload: object
) -> None:
    paper = Paper()
    bench = Bench(paper.loop())
    calls = [Reply(calls=(Call("burn", {}, id=f"call_{number}"),)) for number in (1, 2)]
    async with serve(*calls, Reply("Done.")):
        paused = await bench.run("go", model=model)
        paper.text = "another"
        bench.loop = paper.loop()  # as after a restart
        outcome = await bench.resume(paused, answered(paused.asks[0], payload), model=model)
    assert "changed_since_asked" in outcome.results[0]
    if isinstance(payload, dict) and payload.get("always"):
        assert paper.burnt == ["another"], "further calls of the tool are allowed"
    else:
        assert paper.burnt == []
        assert outcome.asks[0].details[0].text == "another"


async def test_what_is_as_it_was_shown_is_done(serve: Serve, model: str) -> None:
    paper = Paper()
    bench = Bench(paper.loop())
    async with serve(Reply(calls=(Call("burn", {}),)), Reply("Done.")):
        paused = await bench.run("go", model=model)
        await bench.resume(paused, answered(paused.asks[0], {"approved": True}), model=model)
    assert paper.burnt == ["shown"]


async def test_arguments_that_the_user_changes_to_name_something_else_are_asked_about_with_what_is_there(
    serve: Serve, model: str
) -> None:
    done: list[str] = []

    async def burn(name: str) -> str:
        """Burn it."""
        done.append(name)
        return "burnt"

    async def describe(args: Any, _context: Any) -> CallDescription:
        return CallDescription(details=(text_part("Name", args["name"]),), fingerprint=fingerprint_of(args["name"]))

    bench = Bench(PydanticAIBackend(agent_parts(tool(burn, Effect.WRITE, describes=describe))))
    calls = [Reply(calls=(Call("burn", {"name": name}, id=f"call_{name}"),)) for name in ("a", "b")]
    async with serve(*calls):
        paused = await bench.run("go", model=model)
        answer = answered(paused.asks[0], {"approved": True, "args": {"name": "b"}})
        outcome = await bench.resume(paused, answer, model=model)
    assert done == []
    assert 'arguments to {\\"name\\": \\"b\\"}' in outcome.results[0]
    assert outcome.asks[0].details[0].text == "b"
