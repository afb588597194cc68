"""``POST agui``: AG-UI 1.0 over HTTP, as a client of it sees a session. Its own client is in ``tests/e2e``."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from jupyter_server.serverapp import ServerApp
from tornado.httpclient import AsyncHTTPClient
from tornado.httputil import url_concat

from navi_jupyter.server.app import NaviExtension
from tests.conftest import Answer, Api
from tests.server.test_bad_input import check_error
from tests.support.agui import stream_events, text_of
from tests.support.providers import Call, Reply, ScriptedProvider

OPENAI = "openai-chat:gpt-5"
CHART = {
    "name": "show_chart",
    "description": "Shows a chart to the user.",
    "parameters": {"type": "object", "properties": {"column": {"type": "string"}}, "required": ["column"]},
}


@pytest.fixture
def api(navi: NaviExtension, jp_fetch: Any, jp_ws_fetch: Any, jp_serverapp: ServerApp, jp_auth_header: Any) -> Api:
    """A client that waits for the end of a stream for as long as that takes on a busy machine; ``jp_fetch`` serves."""
    client = AsyncHTTPClient(force_instance=True, defaults={"request_timeout": 110.0})

    async def fetch(*parts: str, headers: dict[str, str], params: dict[str, str], **given: Any) -> Any:
        url = url_concat(jp_serverapp.connection_url.split("?")[0] + "/".join(parts), params)
        return await client.fetch(url, headers={**jp_auth_header, **headers}, **given)

    return Api(fetch, jp_ws_fetch)


def user(text: Any, message_id: str) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "content": text}


class Client:
    """An AG-UI client, which sends its whole conversation each time and keeps what it is sent."""

    def __init__(self, api: Api, thread: str) -> None:
        self.api, self.thread, self.runs = api, thread, 0
        self.messages: list[dict[str, Any]] = []

    async def send(self, **fields: Any) -> Answer:
        self.runs += 1
        body = {"threadId": self.thread, "runId": f"run-{self.runs}", "messages": self.messages, **fields}
        return await self.api("POST", "agui", body, headers={"Accept": "text/event-stream"})

    async def run(self, *new: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
        """The events of one run, checked by the rules of the protocol."""
        self.messages += new
        answer = await self.send(**fields)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = stream_events(answer.body)
        assert events[0]["threadId"] == self.thread
        self._keep(events)
        return events

    def _keep(self, events: list[dict[str, Any]]) -> None:
        """As the protocol says: a snapshot replaces, the others add to what is there."""
        for event in events:
            match event["type"]:
                case "MESSAGES_SNAPSHOT":
                    self.messages = list(event["messages"])
                case "TEXT_MESSAGE_START":
                    self._message(event["messageId"], event.get("role", "assistant"))
                case "TEXT_MESSAGE_CONTENT":
                    message = self._message(event["messageId"], "assistant")
                    message["content"] = message.get("content", "") + event["delta"]
                case "TOOL_CALL_START":
                    call = {"id": event["toolCallId"], "type": "function", "function": {"name": event["toolCallName"]}}
                    call["function"]["arguments"] = ""  # type: ignore[index]
                    self._message(event["parentMessageId"], "assistant").setdefault("toolCalls", []).append(call)
                case "TOOL_CALL_RESULT":
                    found = self._message(event["messageId"], "tool")
                    found |= {"content": event["content"], "toolCallId": event["toolCallId"]}

    def _message(self, message_id: str, role: str) -> dict[str, Any]:
        for message in self.messages:
            if message["id"] == message_id:
                return message
        self.messages.append({"id": message_id, "role": role})
        return self.messages[-1]

    def said(self) -> list[tuple[str, str]]:
        return [(one["role"], one.get("content", "")) for one in self.messages if one["role"] != "activity"]


def outcome(events: list[dict[str, Any]]) -> dict[str, Any]:
    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    return dict(events[-1]["outcome"])


def session_of(events: list[dict[str, Any]]) -> str:
    return str(events[0]["metadata"]["navi"]["session_id"])


async def test_a_thread_is_a_session_and_a_message_that_is_sent_again_is_the_same_prompt(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedProvider(Reply("One", ".", reasoning="Hm."), Reply("Two."), Reply("Three.")) as provider:
        provider.point(monkeypatch)
        client = Client(api, "my thread/1")
        first = await client.run(user("Hello", "u1"), forwardedProps={"model": OPENAI, "mine": [1]}, parentRunId="p")
        assert first[0] | {"metadata": None} == {
            "type": "RUN_STARTED",
            "threadId": "my thread/1",
            "runId": "run-1",
            "parentRunId": "p",
            "protocolVersion": "1.0",
            "metadata": None,
        }
        assert text_of(first) == "One."
        assert "Hm." in [event.get("delta") for event in first]
        assert first[-1]["outcome"] == {"type": "success"}
        assert first[-1]["usage"] == [{"model": OPENAI, "inputTokens": 11, "outputTokens": 7}]
        assert not [one for one in first if one.get("role") == "user"], "the client has its own message"
        sid = session_of(first)
        session = await api.ok("GET", f"sessions/{sid}")
        assert session["model"] == OPENAI

        # The same input again, also under another run id: the client may not have seen the answer.
        again = Client(api, "my thread/1")
        repeated = await again.run(user("Hello", "u1"))
        assert outcome(repeated) == {"type": "success"}
        assert again.said() == client.said() == [("user", "Hello"), ("assistant", "One.")]
        assert len(provider.requests) == 1

        # Another program writes in between; this client gets what it lacks, and the thread may be named by its session.
        await api.until_run_ends(sid, (await api.prompt(sid, "From elsewhere"))["run_id"])
        client.thread = sid
        second = await client.run(user("And now?", "u2"))
        assert second[1]["type"] == "MESSAGES_SNAPSHOT"
        words = ["Hello", "One.", "From elsewhere", "Two.", "And now?", "Three."]
        assert [text for _, text in client.said()] == words
        # Nothing new, nothing in progress: the conversation, for a page that opens.
        fresh = Client(api, "my thread/1")
        assert outcome(await fresh.run()) == {"type": "success"}
        assert [text for _, text in fresh.said()] == words
        # A client that numbers its messages anew each time: another text is another message.
        sloppy = Client(api, "my thread/1")
        assert text_of(await sloppy.run(user("Something else", "u1"))) == "Three."
        assert len(provider.requests) == 4
    nothing = await Client(api, "a new one").run()
    assert [event["type"] for event in nothing] == ["RUN_STARTED", "RUN_FINISHED"]
    assert len((await api.ok("GET", "sessions"))["sessions"]) == 1
    check_error(await Client(api, "s_" + "0" * 24).send(), 404, "session_not_found")
    await api("DELETE", f"sessions/{sid}")
    gone = Client(api, "my thread/1")
    gone.messages = [user("Hello", "u9")]
    check_error(await gone.send(), 404, "session_not_found")


async def test_the_model_reads_context_state_instructions_parts_and_a_conversation_that_was_held_elsewhere(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "source": {"type": "data", "value": pixel, "mimeType": "image/png"}},
        {"type": "image", "source": {"type": "url", "value": "http://127.0.0.1/secret.png"}},
        {"type": "document", "source": {"type": "data", "value": _base64("a,b\n1,2\n"), "mimeType": "text/csv"}},
        {"type": "hologram", "source": {"type": "data", "value": "x"}},
    ]
    async with ScriptedProvider(Reply("A table."), Reply("Yes.")) as provider:
        provider.point(monkeypatch)
        client = Client(api, "t")
        client.messages = [
            {"id": "s", "role": "system", "content": "Answer in rhymes."},
            user("Earlier question", "e1"),
            {"id": "e2", "role": "assistant", "content": "Earlier answer"},
            {"id": "e3", "role": "a new kind", "content": None, "x": 1},
        ]
        events = await client.run(
            user(parts, "u1"),
            context=[{"description": "The page", "value": "shows sales.csv"}],
            state={"rows": 3},
            forwardedProps={"model": OPENAI, "timezone": "Europe/Berlin"},
            unknown={"member": True},
        )
        said = json.dumps(provider.requests[0].body)
        for words in ("Answer in rhymes.", "Earlier question", "Earlier answer", "shows sales.csv", "rows", "a,b"):
            assert words in said
        assert pixel in said
        assert "secret.png" not in said, "nothing is fetched for a client"
        left_out = events[0]["metadata"]["navi"]["left_out"]
        assert [one.split(":")[0] for one in left_out] == ["image by url", "hologram by data"]
        # What it holds itself stays, as it has it; the earlier conversation is not given twice.
        await client.run(user("Really?", "u2"))
        assert [one["id"] for one in client.messages][:4] == ["s", "e1", "e2", "e3"]
        assert client.messages[4]["content"] == parts
        last = provider.requests[1].body["messages"][-1]
        assert "Earlier question" not in json.dumps(last)
        assert "Answer in rhymes." in json.dumps(last)
        assert (await api.ok("GET", f"sessions/{session_of(events)}"))["timezone"] == "Europe/Berlin"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_a_tool_of_the_client_ends_the_run_and_its_result_comes_with_the_next_input(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = (Call("show_chart", {"column": "a"}, id="c1"), Call("show_chart", {"column": "b"}, id="c2"))
    script = (
        Reply("Look:", calls=calls),
        Reply("Both are shown."),
        Reply(calls=(Call("show_chart", {"column": "c"}, id="c3"),)),
        Reply("Without a chart, then."),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        client = Client(api, "charts")
        tools = [CHART, {"name": "read_file", "description": "not yours"}, {"name": "no good name"}]
        events = await client.run(user("Show me a and b", "u1"), tools=tools, forwardedProps={"model": OPENAI})
        offered = {tool["function"]["name"]: tool["function"] for tool in provider.requests[0].body["tools"]}
        assert offered["show_chart"]["parameters"]["required"] == ["column"]
        assert offered["read_file"]["description"] != "not yours", "a tool of Navi's is not replaced"
        assert "no good name" not in offered
        assert "no good name" in events[0]["metadata"]["navi"]["left_out"][0]
        called = [one["toolCallId"] for one in events if one["type"] == "TOOL_CALL_START"]
        assert outcome(events) == {"type": "success", "pendingToolCallIds": called}
        assert not [one for one in events if one["type"] == "TOOL_CALL_RESULT"]
        # One who joins meanwhile is told the same; one result alone is not enough to go on.
        assert outcome(await Client(api, "charts").run())["pendingToolCallIds"] == called
        results = [
            {"id": f"r{n}", "role": "tool", "toolCallId": one, "content": f"shown {n}"} for n, one in enumerate(called)
        ]
        half = await client.run(results[0], tools=tools)
        assert outcome(half) == {"type": "success", "pendingToolCallIds": called[1:]}
        results[1] |= {"content": [{"type": "text", "text": "no such column"}], "error": "KeyError"}
        whole = await client.run(results[1], tools=tools)
        assert text_of(whole) == "Both are shown."
        assert outcome(whole) == {"type": "success"}
        assert [one["id"] for one in client.messages if one["role"] == "tool"] == ["r0", "r1"], "each result once"
        answers = [one for one in provider.requests[1].body["messages"] if one["role"] == "tool"]
        assert answers[0]["content"] == "shown 0"
        assert "KeyError" in answers[1]["content"]
        assert "no such column" in answers[1]["content"]
        # The log says whose tool it is, and that the user was not asked whether it may run.
        sid = session_of(events)
        log = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
        asked = [one["event"]["value"]["interrupt"] for one in log if one["event"].get("name") == "navi.interrupt"]
        assert {(one["kind"], one["source"]) for one in asked} == {("question", "client")}
        offers = [one["event"]["metadata"] for one in log if one["event"].get("metadata")]
        assert offers == [{"tools": ["show_chart", "read_file"]}]

        # The user goes on without the result: the call has none, and the run does not wait for ever.
        waits = await client.run(user("And c", "u2"), tools=tools, forwardedProps={"model": OPENAI})
        assert len(outcome(waits)["pendingToolCallIds"]) == 1
        after = await client.run(user("Never mind", "u3"), tools=tools, forwardedProps={"model": OPENAI})
        assert text_of(after) == "Without a chart, then."
        assert outcome(after) == {"type": "success"}
        assert "no_result" in json.dumps(provider.requests[3].body)
        assert "Never mind" in json.dumps(provider.requests[3].body)


async def test_an_approval_is_an_interrupt_that_resume_answers_and_silence_does_not(
    api: Api, monkeypatch: pytest.MonkeyPatch, jp_root_dir: Any
) -> None:
    write = Call("write_file", {"path": "a.txt", "content": "words"}, id="c1")
    async with ScriptedProvider(Reply("I write.", calls=(write,)), Reply("Written."), Reply("Next.")) as provider:
        provider.point(monkeypatch)
        client = Client(api, "files")
        events = await client.run(user("Write it", "u1"), forwardedProps={"model": OPENAI})
        (asked,) = outcome(events)["interrupts"]
        assert asked["reason"] == "approval"
        assert asked["toolCallId"] == next(one["toolCallId"] for one in events if one["type"] == "TOOL_CALL_START")
        assert "approved" in asked["responseSchema"]["properties"]
        assert asked["metadata"]["navi"]["tool"] == "write_file"
        assert "words" in json.dumps(asked["metadata"]["navi"]["details"])
        first_usage = events[-1]["usage"]

        # A message without an answer waits its turn; what is asked stays asked.
        bare = await client.run(user("Then say next", "u2"), forwardedProps={"model": OPENAI})
        assert [one["id"] for one in outcome(bare)["interrupts"]] == [asked["id"]]
        assert not (jp_root_dir / "a.txt").exists()
        wrong = [{"interruptId": asked["id"], "status": "resolved", "payload": {"approved": "perhaps"}}]
        check_error(await client.send(resume=wrong), 400, "invalid_request", "payload.approved")

        answers = [
            {"interruptId": asked["id"], "status": "resolved", "payload": {"approved": True}},
            {"interruptId": "i_unknown", "status": "cancelled"},
        ]
        client.messages = [one for one in client.messages if one["role"] != "activity"]
        resumed = await client.run(resume=answers)
        assert text_of(resumed) == "Written.Next.", "the message that waited is answered in the same stream"
        assert outcome(resumed) == {"type": "success"}
        assert (jp_root_dir / "a.txt").read_text() == "words"
        assert "i_unknown" in resumed[0]["metadata"]["navi"]["left_out"][0]
        (used,) = resumed[-1]["usage"]
        assert used == {"model": OPENAI, "inputTokens": 22, "outputTokens": 14}, "two requests, without the one before"
        assert first_usage == [{"model": OPENAI, "inputTokens": 11, "outputTokens": 7}]
        # The same answer again, after the connection broke: nothing is done twice.
        client.runs -= 1
        assert outcome(await client.run(resume=answers)) == {"type": "success"}
        assert len(provider.requests) == 3


async def test_clients_that_come_in_the_middle_join_and_a_stop_is_the_end_of_all_of_them(
    api: Api, navi: NaviExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The end of a text that may be the beginning of a secret (of hexadecimal digits) is held back: here it is not one.
    held = Reply("The beginning", " and more:", reasoning="I think.", hold_end=True)
    assert navi.lifecycle is not None
    assert navi.lifecycle.services is not None
    log_of_sessions = navi.lifecycle.services.sessions.orchestrator.log
    async with ScriptedProvider(held, Reply("Second.")) as provider, asyncio.timeout(100):
        provider.point(monkeypatch)
        first = Client(api, "shared")
        one = asyncio.create_task(first.run(user("Go", "u1"), forwardedProps={"model": OPENAI}))
        sid = await _session_with_text(api, "and more:")
        joined = Client(api, "shared")
        joining = asyncio.create_task(joined.run())
        # The first client again: its connection broke, it holds a part of the answer.
        broken = Client(api, "shared")
        log = (await api.ok("GET", f"sessions/{sid}/events", after=0, limit=1000))["events"]
        ids = {each["event"]["type"]: each["event"]["messageId"] for each in log if "messageId" in each["event"]}
        broken.messages = [
            user("Go", "u1"),
            {"id": ids["REASONING_START"], "role": "reasoning", "content": "I "},
            {"id": ids["TEXT_MESSAGE_CONTENT"], "role": "assistant", "content": "The beg"},
        ]
        back = asyncio.create_task(broken.run())
        queued = Client(api, "shared")
        later = asyncio.create_task(queued.run(user("After that", "u2"), forwardedProps={"model": OPENAI}))
        while log_of_sessions.followers < 4:  # noqa: ASYNC110  there is no event for it
            await asyncio.sleep(0.05)
        stop = await api.ok("POST", f"sessions/{sid}/commands", {"type": "stop"})
        for task in (one, joining, back):
            events = await asyncio.wait_for(task, 30)
            assert outcome(events) == {"type": "cancelled"}, stop
        for client in (first, joined, broken):
            # A prompt that waits may stand before the answer in progress: it came before this client did.
            others = [each for each in client.said() if each[0] != "reasoning" and each != ("user", "After that")]
            assert others[:2] == [("user", "Go"), ("assistant", "The beginning and more:")]
        thought = [each["delta"] for each in await back if each["type"] == "REASONING_MESSAGE_CONTENT"]
        assert "".join(thought) == "think.", "what it holds of the reasoning is not sent again"
        assert outcome(await asyncio.wait_for(later, 30)) == {"type": "success"}
        assert queued.said()[-1] == ("assistant", "Second.")


async def _session_with_text(api: Api, text: str) -> str:
    """The id of the only session, once its log has the text."""
    while True:
        for session in (await api.ok("GET", "sessions"))["sessions"]:
            page = await api.ok("GET", f"sessions/{session['id']}/events", after=0, limit=1000)
            if text in json.dumps(page):
                return str(session["id"])
        await asyncio.sleep(0.05)


async def test_a_question_that_waits_in_memory_ends_the_stream_and_its_answer_goes_on_with_the_run(
    api: Api, monkeypatch: pytest.MonkeyPatch, jp_root_dir: Any
) -> None:
    write = Call("write_file", {"path": "b.txt", "content": "by a subagent"}, id="c2")
    script = (
        Reply(calls=(Call("delegate", {"task": "write it"}, id="c1"),)),
        Reply("I shall.", calls=(write,), when="You are a subagent"),
        Reply("Done below.", when="by a subagent"),
        Reply("All done."),
    )
    async with ScriptedProvider(*script) as provider:
        provider.point(monkeypatch)
        client = Client(api, "delegated")
        events = await client.run(user("Delegate it", "u1"), forwardedProps={"model": OPENAI})
        (asked,) = outcome(events)["interrupts"]
        assert asked["subagentRunId"]
        ends = [one for one in events if one["type"] == "SUBAGENT_FINISHED"]
        assert ends[0]["outcome"] == {"type": "suspended"}
        run = (await api.ok("GET", f"sessions/{session_of(events)}"))["run"]
        assert run["status"] == "running"
        resume = [{"interruptId": asked["id"], "status": "resolved", "payload": True}]
        after = await client.run(resume=resume)
        assert outcome(after) == {"type": "success"}
        assert (jp_root_dir / "b.txt").read_text() == "by a subagent"


async def test_failures_of_the_run_and_what_the_offline_model_does_come_in_the_stream(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = Client(api, "offline")
    events = await offline.run(user("remind me in 10 minutes to stretch", "u1"))
    assert outcome(events)["type"] == "success"
    assert text_of(events)
    assert "navi.recall" in [one.get("name") for one in events]
    async with ScriptedProvider(Reply(status=401)) as provider:
        provider.point(monkeypatch)
        failed = await Client(api, "failing").run(user("Hello", "u1"), forwardedProps={"model": OPENAI})
        assert failed[-1]["type"] == "RUN_ERROR"
        assert failed[-1]["code"]
        again = await Client(api, "failing").run(user("Hello", "u1"))
        assert again[-1] | {"usage": None} == failed[-1] | {"usage": None}
        assert len(provider.requests) == 1


GOOD: dict[str, Any] = {"threadId": "t", "runId": "r", "messages": [user("Hello", "u")]}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"threadId": 5}, "threadId"),
        ({"threadId": ""}, "threadId"),
        ({"threadId": "a\nb"}, "threadId"),
        ({"threadId": "x" * 257}, "threadId"),
        ({"runId": None}, "runId"),
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": ["text"]}, "messages.0"),
        ({"messages": [{"id": "u", "role": "user"}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages.0.id"),
        ({"messages": [{"id": "u", "role": "tool", "content": "x"}]}, "messages.0"),
        ({"messages": [user([{"type": "image"}], "u")]}, None),
        ({"messages": [user("x", "u")] * 20_001}, "messages"),
        ({"tools": [{"name": 5}]}, "tools.0.name"),
        ({"tools": [CHART, CHART]}, "tools"),
        ({"context": [{"value": "x"}]}, "context.0.description"),
        ({"resume": [{"interruptId": "i", "status": "maybe"}]}, "resume.0.status"),
        ({"forwardedProps": {"mode": "later"}}, "forwardedProps.mode"),
        ({"forwardedProps": {"model": "nonsense"}}, "model"),
        ({"forwardedProps": {"profile": "unknown-profile"}}, "profile"),
        ({"forwardedProps": {"timezone": "Mars/Olympus"}}, "forwardedProps.timezone"),
        ({"protocolVersion": "2.0"}, None),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_bad_input_is_refused_before_a_stream(api: Api, wrong: dict[str, Any], field: str | None) -> None:
    check_error(await api("POST", "agui", GOOD | wrong), 400, "invalid_request", field)
    check_error(await api("GET", "agui"), 405, "method_not_allowed")
    assert (await api.ok("GET", "sessions"))["sessions"] == []


async def test_too_much_is_refused_and_what_is_only_new_or_odd_is_served(api: Api) -> None:
    too_large = b'{"threadId":"t","runId":"r","messages":[],"state":"' + b"x" * 50_000_000 + b'"}'
    check_error(await api("POST", "agui", raw=too_large), 400, "invalid_request", "body")
    source = {"type": "data", "value": "no base64", "mimeType": "image/png"}
    broken = GOOD | {"messages": [user([{"type": "image", "source": source}], "u")]}
    check_error(await api("POST", "agui", broken), 400, "attachment_refused", "images.0")
    assert (await api.ok("GET", "sessions"))["sessions"] == [], "no session is left of a refused prompt"
    for odd in ({"protocolVersion": "1.7"}, {"protocolVersion": "one"}, {"forwardedProps": [1]}, {"state": None}):
        events = stream_events((await api("POST", "agui", GOOD | odd)).body)
        assert events[-1]["type"] == "RUN_FINISHED"
