"""What an agent program is given: a prompt with its files as content blocks, who asks and why, earlier turns as text.

Images and files go as the blocks that the program has announced (``promptCapabilities``), else as text, or by name.
What is not the user's words is fenced as data. Not responsible for sending it (``program``).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import NaviError
from ...input.json_input import load_json, well_formed
from ...model.attachments import Attachment
from ...model.notebooks import ShownNotebook
from ...model.sessions import OriginKind
from ...ports.agent import PastTurn, ToolContext, Turn
from ...text import fenced, inert_line, truncate_middle, truncate_start
from ..profiles.definitions import Profile, instructions
from ..profiles.page_context import with_page
from ..trigger import trigger_of
from .offer import SessionOffer

FORMAT = "acp/1"  # of the conversation that a turn leaves
_HISTORY = 120_000  # characters of earlier turns that are given as text, the latest
_MESSAGE = 8_000  # of one message in it
_FILE = 200_000  # characters of a text file
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/javascript", "application/x-python")

Block = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeenRuns:
    """The runs that a session of an agent program has in it: the first so many of the conversation, by their ids."""

    count: int = 0
    digest: str = hashlib.sha256().hexdigest()

    @classmethod
    def of(cls, runs: Sequence[str]) -> SeenRuns:
        return cls(len(runs), hashlib.sha256("\n".join(runs).encode() if runs else b"").hexdigest())

    def begins(self, runs: Sequence[str]) -> bool:
        """Whether the conversation of these runs begins with it: else a turn was taken back, or the session is new."""
        return self.count <= len(runs) and SeenRuns.of(runs[: self.count]) == self


NOTHING_SEEN = SeenRuns()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """The session of an agent program as a turn leaves it in its ``conversation``."""

    agent: str
    session: str  # the id that the agent gave it
    owner: str  # the Navi session that it belongs to: a fork begins one of its own
    seen: SeenRuns

    def dump(self) -> bytes:
        """As JSON."""
        body = {"agent": self.agent, "session": self.session, "owner": self.owner}
        return json.dumps({"format": FORMAT, **body, "runs": self.seen.count, "digest": self.seen.digest}).encode()


def stored_session(turn: Turn, agent: str) -> StoredSession | None:
    """The newest session of this agent in the earlier turns; None where there is none, or it has other turns in it."""
    for past in reversed(turn.history):
        if not past.conversation or FORMAT.encode() not in past.conversation[:40]:
            continue
        try:
            body = load_json(past.conversation)
            found = StoredSession(
                agent=str(body["agent"]),
                session=str(body["session"]),
                owner=str(body["owner"]),
                seen=SeenRuns(int(body["runs"]), str(body["digest"])),
            )
        except (ValueError, KeyError, TypeError):
            continue
        if found.agent == agent:
            fits = found.owner == turn.session.id and found.seen.begins([each.run_id for each in turn.history])
            return found if fits else None
    return None


async def blocks_of(
    text: str,
    attachments: Sequence[Attachment],
    shown: ShownNotebook | None,
    context: ToolContext,
    offer: SessionOffer,
    capabilities: Mapping[str, Any],
    *,
    before: Sequence[str] = (),
) -> list[Block]:
    """A prompt as content blocks. A slash command comes alone: agents know it by the beginning of the first block.

    ``capabilities``: the program's for prompts.
    """
    is_command = offer.has_command(text)
    blocks: list[Block] = [] if is_command else [_text(each) for each in before if each]
    blocks.append(_text(text if is_command else with_page(text, shown)))
    return [*blocks, *[await _attachment(one, context, capabilities) for one in attachments]]


def _text(text: str) -> Block:
    return {"type": "text", "text": well_formed(text)}


async def _attachment(one: Attachment, context: ToolContext, capabilities: Mapping[str, Any]) -> Block:
    name = inert_line(one.name, 200)
    try:
        if context.attachments is None:
            raise NaviError("there are no files here")
        content = await context.attachments.read(one.id, owner=context.user_id)
    except NaviError as error:
        return _text(f"[The file {name} cannot be read: {error.message}]")
    if one.media_type.startswith("image/") and capabilities.get("image"):
        return {"type": "image", "mimeType": one.media_type, "data": base64.b64encode(content).decode()}
    uri = f"navi://attachments/{one.id}/{name}"
    is_text = one.media_type.startswith(_TEXT_TYPES) or one.media_type.endswith(("+json", "+xml", "+yaml"))
    if is_text:
        body = well_formed(truncate_middle(content[: 4 * _FILE].decode(errors="replace"), _FILE))
        if capabilities.get("embeddedContext"):
            return {"type": "resource", "resource": {"uri": uri, "mimeType": one.media_type, "text": body}}
        return _text(f"The file {name} ({one.media_type}):\n{fenced(body)}")
    if capabilities.get("embeddedContext") and len(content) <= _FILE:
        blob = base64.b64encode(content).decode()
        return {"type": "resource", "resource": {"uri": uri, "mimeType": one.media_type, "blob": blob}}
    return _text(f"[The file {name} ({one.media_type}, {len(content):,} bytes) came along; you cannot read this kind.]")


async def introduction(turn: Turn, context: ToolContext, profile: Profile, *, is_new: bool, has_tools: bool) -> str:
    """What goes before a prompt, not the user's words: in a new session all, later only why a recall's run begins."""
    if not is_new and turn.origin.kind is not OriginKind.RECALL:
        return ""
    parts = ["[From Navi, in whose Jupyter you work; the user's words come after it."]
    if is_new and has_tools:
        parts.append(
            "The tools of the MCP server navi work in this session: they run code in the kernel of the user's "
            "notebook, read and change its cells, and make recalls that wake you later. Use them for the notebook."
        )
    if is_new and turn.session.notebook_path is not None:
        parts.append(f"The notebook: {inert_line(turn.session.notebook_path, 300)}.")
    parts.append(f"It is {turn.now:%A, %Y-%m-%d %H:%M}.")
    parts.append(instructions(profile, turn, context, await trigger_of(context, turn.now)))
    return "\n".join(parts) + "]"


def history_text(turns: Sequence[PastTurn]) -> str:
    """Earlier turns that the agent's session does not have, as data; empty where there are none."""
    lines: list[str] = []
    for turn in turns:
        lines.append(f"User: {truncate_middle(turn.prompt, _MESSAGE)}")
        for message in turn.messages:
            if message.role == "assistant" and message.subagent_run_id is None:
                if message.content:
                    lines.append(f"You: {truncate_middle(message.content, _MESSAGE)}")
                lines += [f"(You called {call.name}.)" for call in message.tool_calls[:50]]
    if not lines:
        return ""
    return (
        "[The conversation so far, as text, because your own session does not have this part of it:]\n"
        f"{fenced(truncate_start(chr(10).join(lines), _HISTORY))}"
    )
