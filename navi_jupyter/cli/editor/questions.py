"""Questions of a session's runs, asked in the editor: approvals by `session/request_permission`, forms by elicitation.

The first answer counts, here or in any other view of the session: a question that was answered elsewhere is withdrawn
here. Not responsible for what becomes of an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from acp import Client as Editor
from acp import RequestError, schema
from pydantic import ValidationError

from ...kernel.display.question_text import details_of, details_plain, question_message
from ...kernel.errors import KernelError, Refused
from ...text import approval_words, code_block
from ..server_link import ServerLink
from .updates import Content, ShownCall, UpdateBuilder, difference, notice, text_content

Interrupt = Mapping[str, Any]
Option = schema.PermissionOption

_ALLOW, _ALWAYS, _REJECT = "allow", "allow_session", "reject"


def takes_forms(capabilities: schema.ClientCapabilities | None) -> bool:
    """Whether an editor shows questions as forms (elicitation)."""
    elicitation = capabilities.elicitation if capabilities else None
    return elicitation is not None and elicitation.form is not None


class EditorQuestions:
    """The open questions of one session."""

    def __init__(
        self, editor: Editor, link: ServerLink, session_id: str, builder: UpdateBuilder, *, has_forms: bool
    ) -> None:
        """``has_forms``: whether the editor takes forms (elicitation)."""
        self._editor = editor
        self._link = link
        self._session_id = session_id
        self._builder = builder
        self._has_forms = has_forms
        self._asking: dict[str, asyncio.Task[None]] = {}
        self.unanswered: dict[str, Interrupt] = {}
        """Questions, by their runs, that the editor cannot show as a form: the next prompt answers them."""

    def open(self, question: Interrupt) -> None:
        """A question is open: ask it in the editor, once."""
        if question["id"] in self._asking:
            return
        ask = self._approve if question.get("kind") == "approval" else self._ask
        if question.get("kind") != "approval" and not self._has_forms:
            self.unanswered[str(question["run_id"])] = question
            ask = self._show
        self._asking[question["id"]] = asyncio.create_task(self._guarded(ask, question))

    async def settle(self, question: Interrupt) -> None:
        """A question is settled: the editor need not ask for it any more."""
        task = self._asking.pop(question["id"], None)
        if self.unanswered.get(str(question["run_id"]), {}).get("id") == question["id"]:
            del self.unanswered[str(question["run_id"])]
        if task is None or task.done():
            return
        task.cancel()
        # The state of the call changes, by which the editor knows that it need not wait for the user.
        if (call := self._builder.calls.get(str(question.get("tool_call_id")))) is not None:
            await self._editor.session_update(self._session_id, self._builder.progress(call))

    async def close(self) -> None:
        """The editor is asked nothing any more; what is open stays open."""
        tasks, self._asking = list(self._asking.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def answer(self, question: Interrupt, text: str) -> dict[str, Any]:
        """Answer an unanswered question by the words of a prompt; the acceptance. Raises KernelError."""
        fields = (question.get("response_schema") or {}).get("properties") or {}
        payload = _payload(text, fields)
        if payload is None:
            # Not one value: the run reads the words in place of an answer.
            if not question.get("durable", True):  # such a run goes on with its question only
                await self._send(_answer(question, "cancelled"))
            command: dict[str, Any] = {"type": "prompt", "text": text, "mode": "steer"}
        else:
            command = _answer(question, "resolved", payload=payload)
        return await (await self._link.client()).command(self._session_id, command)

    async def _guarded(self, ask: Callable[[Interrupt], Awaitable[None]], question: Interrupt) -> None:
        try:
            await ask(question)
        except ConnectionError:
            pass  # the editor is gone; the question stays open
        except Refused:
            pass  # it was answered elsewhere in the meantime
        except (RequestError, ValidationError, KernelError) as problem:
            url = (await self._link.connection()).url
            words = f"The question could not be asked here ({_words(problem)}). Answer it in a chat: {url}navi"
            with suppress(ConnectionError):
                await self._editor.session_update(self._session_id, notice(words))

    async def _approve(self, question: Interrupt) -> None:
        call = self._call(question)
        described = self._described(question)
        # A program's own changes of a file are shown with the call from now on, as well as in the question.
        call.changes = [each for each in described if isinstance(each, schema.FileEditToolCallContent)]
        progress = self._builder.progress(call, asking=True)
        shown = schema.ToolCallUpdate(
            tool_call_id=call.id,
            title=call.title(asking=True),
            kind=call.kind,
            status="pending",
            content=described,
            locations=progress.locations,
            raw_input=question.get("args"),
        )
        response = await self._editor.request_permission(self._session_id, shown, _options(question))
        outcome = response.outcome
        if isinstance(outcome, schema.AllowedOutcome):
            await self._send(_choice(question, outcome.option_id))
        else:  # the editor has closed the question, so that nothing waits for it
            await self._send(_answer(question, "cancelled"))

    async def _ask(self, question: Interrupt) -> None:
        form = schema.ElicitationSchema.model_validate(question.get("response_schema") or {"type": "object"})
        call_id = question.get("tool_call_id")
        mode = schema.ElicitationFormSessionMode(
            session_id=self._session_id, tool_call_id=call_id, requested_schema=form
        )
        words = question_message(str(question.get("message", "")), question.get("source"))
        response = await self._editor.create_elicitation(words, mode)
        if isinstance(response, schema.AcceptElicitationResponse):
            content = {
                name: value.root if hasattr(value, "root") else value
                for name, value in (response.content or {}).items()
            }
            await self._send(_answer(question, "resolved", payload=content))
        else:
            await self._send(_answer(question, "cancelled"))

    async def _show(self, question: Interrupt) -> None:
        """The question as words of the conversation; the next prompt answers it."""
        words = question_message(str(question.get("message", "")), question.get("source"))
        fields = (question.get("response_schema") or {}).get("properties") or {}
        choices = [str(each) for field in fields.values() for each in field.get("enum") or ()]
        listed = "".join(f"\n{number}. {choice}" for number, choice in enumerate(choices, start=1))
        await self._editor.session_update(self._session_id, notice(words + " (Your next message answers.)"))
        if listed:
            await self._editor.session_update(self._session_id, notice_lines(listed))

    async def _send(self, command: Mapping[str, Any]) -> None:
        await (await self._link.client()).command(self._session_id, command)

    def _call(self, question: Interrupt) -> ShownCall:
        call_id = str(question.get("tool_call_id") or question["id"])
        call = self._builder.calls.get(call_id)
        if call is None:
            call = ShownCall(call_id, str(question.get("tool") or "tool"), question.get("run_id"))
            self._builder.calls[call_id] = call
        return call

    def _described(self, question: Interrupt) -> list[Content]:
        """Everything that the call would do: differences as the editor draws them, and all of it as marked text."""
        details = details_of(question)
        words = question_message(str(question.get("message", "")), question.get("source"))
        if question.get("message") == approval_words(question.get("tool")):
            words = ""  # the title says so
        text = details_plain(details, None)
        parts = [part for part in (words, code_block(text) if text else "") if part]
        path = next((str(each["text"]) for each in details if each["label"] == "Path"), self._builder.notebook or "")
        changes: list[Content] = [
            difference(self._builder.path(path), str(each["text"]).split("\n"))
            for each in details
            if each.get("kind") == "diff" and path
        ]
        return [*changes, *([text_content("\n\n".join(parts))] if parts else [])]


def notice_lines(text: str) -> schema.AgentMessageChunk:
    """Lines of Navi itself in the conversation, as they are."""
    block = schema.TextContentBlock(type="text", text=text + "\n\n")
    return schema.AgentMessageChunk(session_update="agent_message_chunk", content=block)


def _options(question: Interrupt) -> list[Option]:
    """The answers that are offered: those of the agent program that asks, else ours."""
    if offered := question.get("options"):
        return [Option(option_id=each["id"], name=each["name"], kind=each["kind"]) for each in offered]
    options = [Option(option_id=_ALLOW, name="Allow", kind="allow_once")]
    if question.get("message") == approval_words(question.get("tool")):  # else it is about this very call
        options.append(Option(option_id=_ALWAYS, name="Allow in this session", kind="allow_always"))
    return [*options, Option(option_id=_REJECT, name="Do not allow", kind="reject_once")]


def _choice(question: Interrupt, option_id: str) -> dict[str, Any]:
    if question.get("options"):
        return _answer(question, "resolved", option=option_id)
    if option_id not in (_ALLOW, _ALWAYS):  # also what was not offered: it allows nothing
        return _answer(question, "resolved", payload={"approved": False})
    always = {"always": "session"} if option_id == _ALWAYS else {}
    return _answer(question, "resolved", payload={"approved": True, **always})


def _answer(question: Interrupt, status: str, **given: Any) -> dict[str, Any]:
    return {"type": "answer", "interrupt_id": question["id"], "status": status, **given}


def _payload(text: str, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The words as the one value that is asked for; None where they are not one."""
    words = text.strip()
    texts = [name for name, field in fields.items() if field.get("type") == "string"]
    if not texts or len(texts) < len(fields):
        return None
    chosen = [name for name in texts if fields[name].get("enum")]
    for name in chosen:
        choices = [str(each) for each in fields[name]["enum"]]
        if words.isdecimal() and 0 < int(words) <= len(choices) and words not in choices:
            return {name: choices[int(words) - 1]}
        for choice in choices:
            if choice.casefold() == words.casefold():
                return {name: choice}
    free = [name for name in texts if name not in chosen]
    return {free[0]: words} if len(free) == 1 and len(chosen) <= 1 else None


def _words(problem: Exception) -> str:
    return str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
