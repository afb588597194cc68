"""A thread of an AG-UI client and its session: which one it is, and what of the client's messages is new to it.

The client sends its whole conversation each time. The id of its message is the ``command_id`` of the prompt, and so the
message's id in the log: a message that is sent again is the same prompt, whatever the run's id is by then. Pure, but
for the ids. Not responsible for submitting (``rest.agui``).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from ...commands import Prompt
from ...errors import InvalidRequest
from ...model.attachments import AttachmentRef
from ...model.notebooks import PromptClient
from ...model.runs import ClientTool
from ...ports.agent import Message
from ...text import IMAGE_TYPES, join_words, truncate
from ..wire.agui import AguiMessage, AguiPart, AguiTool, RunAgentInput

_OWN_ID = re.compile(r"s_[0-9a-f]{24}")
_COMMAND_ID = re.compile(r"[\x21-\x7e]{1,128}")
_TALK = ("user", "assistant", "tool")
_MOST_FILES = 18  # of a prompt, which takes 20: two are the context and the earlier conversation


def session_id_of(thread_id: str, owner: str) -> str:
    """The session of a thread: the one of that id, else one whose id is derived from it for this owner alone.

    So a client may name its threads as it likes, no user can take the name of another's, and nothing has to be stored.
    """
    if _OWN_ID.fullmatch(thread_id):
        return thread_id
    return "s_" + sha256(f"agui\0{owner}\0{thread_id}".encode()).hexdigest()[:24]


def names_session(thread_id: str) -> bool:
    """Whether it is the id of a session, which is not made when it is not there."""
    return _OWN_ID.fullmatch(thread_id) is not None


def command_id(*names: str) -> str:
    """A ``command_id`` for what has this name, the same each time."""
    if len(names) == 1 and _COMMAND_ID.fullmatch(names[0]):
        return names[0]
    return "agui-" + sha256("\0".join(names).encode()).hexdigest()[:40]


@dataclass(kw_only=True, slots=True)
class NewMessages:
    """What a client's conversation has that its session does not know."""

    fresh: Sequence[AguiMessage] = ()  # of the user, to be answered
    earlier: Sequence[AguiMessage] = ()  # a conversation that was held elsewhere, before a session's first prompt
    instructions: Sequence[AguiMessage] = ()  # of the application (``system``, ``developer``)
    last: str | None = None  # the command of the user's last message, known or new


def new_messages(body: RunAgentInput, known: Mapping[str, Message]) -> NewMessages:
    """The messages behind the last one that the session knows. Of a session with none: the user's last ones are new,
    and all before them is an earlier conversation.

    ``known``: the session's, by their ids.
    """
    talk = [message for message in body.messages if message.role in _TALK]
    instructions = [message for message in body.messages if message.role in ("system", "developer")]
    users = [message for message in talk if message.role == "user"]
    last = command_id(users[-1].id) if users else None
    found = max((at for at, one in enumerate(talk) if command_id(one.id) in known), default=None)
    if found is None:
        tail = len(talk)
        while tail and talk[tail - 1].role == "user":
            tail -= 1
        fresh = talk[tail:]
        return NewMessages(
            fresh=fresh, earlier=() if known or not fresh else talk[:tail], instructions=instructions, last=last
        )
    fresh = [message for message in talk[found + 1 :] if message.role == "user"]
    if not fresh and users and talk[-1] is users[-1] and _differs(users[-1], known[command_id(users[-1].id)]):
        # Its client numbers the messages of each request anew: another text under an id is another message.
        last = command_id(body.run_id, users[-1].id)
        return NewMessages(fresh=() if last in known else users[-1:], instructions=instructions, last=last)
    return NewMessages(fresh=fresh, instructions=instructions, last=last)


def _differs(message: AguiMessage, known: Message) -> bool:
    if known.role != "user" or known.queued:
        return False
    text = prompt_text([message])
    return known.content != text and not known.content.endswith(f"\n\n{text}")


def prompt_text(messages: Iterable[AguiMessage]) -> str:
    """The words of the user's messages."""
    return "\n\n".join(filter(None, (message.text.strip() for message in messages))) or "(no text)"


@dataclass(slots=True)
class PromptOfMessages:
    """A prompt made of new messages, and what could not be taken along."""

    body: RunAgentInput
    new: NewMessages
    left_out: list[str] = field(default_factory=list)

    def prompt(self, mode: str) -> Prompt:
        """The command. Raises InvalidRequest."""
        props, images, files = self.body.forwarded_props, list[AttachmentRef](), list[AttachmentRef]()
        for part in (part for message in self.new.fresh for part in message.media):
            self._attach(part, images, files)
        for dropped in (*images[_MOST_FILES:], *files[_MOST_FILES:]):
            self.left_out.append(f"{dropped.name}: a prompt takes {_MOST_FILES} files")
        files = files[:_MOST_FILES]
        if (context := context_text(self.body, self.new.instructions)) is not None:
            files.append(_file("context.md", context))
        if self.new.earlier:
            files.append(_file("earlier-conversation.md", conversation_text(self.new.earlier)))
        return Prompt(
            command_id=self.new.last,
            text=prompt_text(self.new.fresh),
            images=tuple(images[:_MOST_FILES]),
            files=tuple(files),
            model=props.model,
            mode=mode,  # type: ignore[arg-type]  # one of PromptMode
            client=None if props.timezone is None else PromptClient(tz=props.timezone),
            tools=tuple(self._tools(self.body.tools or ())),
        )

    def _attach(self, part: AguiPart, images: list[AttachmentRef], files: list[AttachmentRef]) -> None:
        source = part.source
        if source is None or part.type not in ("image", "document") or source.type != "data":
            # Nothing is fetched for a client: an address may be one that only this server reaches.
            kind = f"{truncate(part.type, 40)} by {truncate(source.type, 40)}" if source else truncate(part.type, 40)
            self.left_out.append(f"{kind}: only images and documents that come with their data are taken")
            return
        is_image = part.type == "image"
        if is_image and source.mime_type not in IMAGE_TYPES:
            self.left_out.append(f"an image of the type {source.mime_type}: not one of {join_words(IMAGE_TYPES)}")
            return
        into = images if is_image else files
        name = f"{part.type}-{len(into) + 1}"
        try:
            into.append(
                AttachmentRef.model_validate({"data": source.value, "name": name, "media_type": source.mime_type})
            )
        except ValidationError:
            raise InvalidRequest(
                f"messages: the {part.type} is no base64 data with a media type.", field="messages"
            ) from None

    def _tools(self, offered: Iterable[AguiTool]) -> Iterable[ClientTool]:
        names: set[str] = set()
        for tool in offered:
            parameters = tool.parameters or {"type": "object", "properties": {}}
            try:
                found = ClientTool(name=tool.name, description=tool.description[:8000], parameters=parameters)
            except ValidationError:
                self.left_out.append(
                    f"the tool {truncate(tool.name, 80)}: a name has letters, digits, _ and -, 64 at most, and the "
                    "parameters are a JSON schema"
                )
                continue
            if found.name in names:
                raise InvalidRequest(f"tools: two have the name {found.name}.", field="tools")
            names.add(found.name)
            yield found


def _file(name: str, text: str) -> AttachmentRef:
    data = base64.b64encode(text.encode())
    return AttachmentRef.model_validate({"data": data, "name": name, "media_type": "text/markdown"})


def context_text(body: RunAgentInput, instructions: Sequence[AguiMessage]) -> str | None:
    """What the application wants the model to read, beside the user's words; None: nothing."""
    entries = [(entry.description, entry.value) for entry in body.context or ()]
    entries += [("Instructions of the application", one.text) for one in instructions if one.text.strip()]
    if body.state not in (None, {}, [], ""):
        entries.append(("State of the application", json.dumps(body.state, ensure_ascii=False, indent=1)))
    texts = [f"## {' '.join(description.split()) or 'Context'}\n\n{value}" for description, value in entries]
    return "\n\n".join(texts) or None


def conversation_text(messages: Iterable[AguiMessage]) -> str:
    """A conversation that was held elsewhere, as text."""
    roles = {"user": "User", "assistant": "Assistant", "tool": "Result of a tool"}
    return "\n\n".join(f"## {roles[one.role]}\n\n{one.text}" for one in messages if one.text.strip())


class ClientMessages:
    """The conversation that a client holds, where a stream has to fit it: nothing is shown to it a second time."""

    def __init__(self, messages: Sequence[AguiMessage]) -> None:
        self._all = {command_id(one.id): one for one in messages if one.role != "activity"}
        self._answered = {one.tool_call_id: one for one in messages if one.role == "tool"}
        self.thoughts = {one.id: one.text for one in messages if one.role == "reasoning"}

    def has_user_message(self, message_id: str) -> bool:
        """Whether it holds this message of the user's."""
        found = self._all.get(message_id)
        return found is not None and found.role == "user"

    def has_result(self, call_id: str) -> bool:
        """Whether it holds a result of this call; of a tool of its own that is the client's."""
        return call_id in self._answered

    def lacks_any(self, messages: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the session has a message that it does not hold."""
        return any(
            one["id"] not in self._all and not self.has_result(str(one.get("toolCallId")))
            for one in messages
            if one["role"] != "activity"
        )

    def merged(self, messages: Iterable[Mapping[str, Any]], *, reopened: Collection[str] = ()) -> list[dict[str, Any]]:
        """The messages of a snapshot: those of the client's that the session does not know, which it would drop
        otherwise, then the session's.

        ``messages`` as ``MESSAGES_SNAPSHOT`` has them for followers. ``reopened``: what events show behind it.
        """
        found = [dict(one) for one in messages]
        ids = {one["id"] for one in found} | set(reopened)
        calls = {call["id"] for one in found for call in one.get("toolCalls", ())}
        results = {one.get("toolCallId") for one in found}
        own = [
            _raw(one)
            for key, one in self._all.items()
            if key not in ids
            and one.role != "reasoning"
            and one.tool_call_id not in results
            and not calls & {call.get("id") for call in _calls_of(one)}
        ]
        return own + [self._as_held(one) for one in found]

    def _as_held(self, message: Mapping[str, Any]) -> dict[str, Any]:
        held = self._all.get(message["id"])
        if held is not None and held.role == message["role"] == "user":
            return _raw(held)  # with its parts, of which the log has the text
        answer = self._answered.get(message.get("toolCallId")) if message["role"] == "tool" else None
        return _plain(message) if answer is None else _raw(answer)


def _raw(message: AguiMessage) -> dict[str, Any]:
    """As it came."""
    return message.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def _calls_of(message: AguiMessage) -> list[dict[str, Any]]:
    calls = (message.model_extra or {}).get("toolCalls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


_PLAIN = ("id", "role", "content", "toolCalls", "toolCallId", "subagentRunId", "activityType")


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with AG-UI's own fields; what else the log has of it is its metadata."""
    more = {name: message[name] for name in ("runId", "origin", "attachments", "queued", "partial") if name in message}
    return {name: message[name] for name in _PLAIN if name in message} | {"metadata": {"navi": more}}
