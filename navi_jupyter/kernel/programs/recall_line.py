"""A line that asks for a recall, in a cell or a shell: when it will fire, in words for who wrote it, and what it says.

Not responsible for the grammar of such lines (``grammar.recall_command``), nor for reading times in English, which the
server does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..client.client import Service
from ..display.time_text import clock_words, without_own_zone
from ..errors import UsageError
from ..grammar.recall_command import RECALL_HELP, NewRecall, message_text
from ..recall_keywords import foresee, read_words

Say = Callable[[str], object]


def plan_of(
    service: Service, request: NewRecall, *, session_id: str, say: Say
) -> tuple[Mapping[str, Any], dict[str, Any], str]:
    """The schedule, the policy and the message of a recall, once ``say`` got what they were read as.

    Raises UsageError; Refused, also where the server reads no time in the words.
    """
    schedule, policy, message = request.schedule, dict(request.policy), request.message
    if request.words is not None:
        read = read_words(service, request.words, tz=request.tz, session_id=session_id, sentence=request.sentence)
        policy = read["policy"] | policy
        if request.sentence:
            message = message_text(read["message"], message)
        if not message:
            raise UsageError(f"What should Navi do then? {RECALL_HELP}")
        say(f"I read {read['phrase'] or request.words!r} as: {without_own_zone(read['meaning'])}")
        schedule = _with_times(read, say)
    elif schedule["kind"] != "when":
        read = foresee(service, schedule, tz=request.tz, session_id=session_id)
        if schedule["kind"] == "once":
            say(f"When: {without_own_zone(read['meaning'])}")
        schedule = _with_times(read, say)
    return schedule, policy, message


def _with_times(read: Mapping[str, Any], say: Say) -> dict[str, Any]:
    """The schedule of a preview, once its next times and what is odd about it are shown."""
    if len(read["times"]) > 1:
        say(f"Next: {', '.join(map(clock_words, read['times'][:3]))}, …")
    for warning in read["warnings"]:
        say(f"Note: {without_own_zone(warning)}")
    return dict(read["schedule"])
