"""Foreign text in a conversation: what neither the user wrote to Navi nor Navi itself, and may want something of Navi.

Files, notebooks, what a page shows, outputs, results of other programs, attachments, reports of what happened in a
notebook, messages of recalls that an agent made. A conversation that has such text has it for all later runs that read
it: it is found again in the transcripts of the turns, with those of their subagents, so that nothing has to be stored
for it.

Not responsible for what follows from it: a tool asks by itself (``remember`` in ``tools.history``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from ...model.attachments import Attachment
from ...ports.agent import PastTurn, Turn
from ...text import has_fence
from ..tools.builtin import builtin_tools


async def has_foreign_text(turn: Turn) -> bool:
    """Whether the turn begins with foreign text: in its prompt, or in the earlier turns that its model reads."""
    if is_foreign_prompt(turn.prompt, turn.attachments) or turn.shown is not None:
        return True
    return await asyncio.to_thread(_in_history, turn.history)  # the first call imports the tools; histories are long


def is_foreign_prompt(text: str, attachments: Sequence[Attachment]) -> bool:
    """Whether a prompt brings foreign text: a file, or a part that is fenced as data."""
    return bool(attachments) or has_fence(text)


def _in_history(turns: Sequence[PastTurn]) -> bool:
    own = {name for name, tool in builtin_tools().items() if tool.own}
    return any(_is_foreign(turn, own) for turn in turns)


def _is_foreign(turn: PastTurn, own: Collection[str]) -> bool:
    """Of all messages, also those of subagents, since their answers are in the conversation; and of prompts that joined
    the run, which may have brought files."""
    if is_foreign_prompt(turn.prompt, turn.attachments) or turn.from_page:
        return True
    return any(
        message.attachments or message.notebook is not None or any(call.name not in own for call in message.tool_calls)
        for message in turn.messages
    )
