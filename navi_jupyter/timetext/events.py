"""What to wait for, in English -> a schedule: "when the cell is done", "each time data.csv changes". Pure.

Not responsible for times (``parse``), nor for whether an event can be waited for (``scheduling.event_triggers``).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import InvalidSchedule
from ..model.recalls import WhenSpec
from .durations import DURATION, read_duration

_LONGEST = 490
_OPENING = re.compile(r"\s*(?P<word>when(?:ever)?|(?:each|every) ?time|as soon as)\b[\s:,]*", re.IGNORECASE)
_EACH_AT_END = re.compile(r"[\s,]+(?:each|every) ?time\s*$", re.IGNORECASE)
_CELL = r"(?P<which>(?:the|this|that|my|any|a|every)\s+)?(?:(?:running|current|next)\s+)?(?:cell|it)\s+"
_KERNEL = r"(?:the|this|my)?\s*kernel\s+"

_Read = Callable[[re.Match[str]], str]


def _longer(word: str) -> _Read:
    """Reads a form with a duration into the short word for it. Raises InvalidSchedule."""

    def read(match: re.Match[str]) -> str:
        if match["longer"] is None:
            return word
        return f"{word} {round(read_duration(match['longer']).total.total_seconds())}s"

    return read


def _form(pattern: str, read: str | _Read) -> tuple[re.Pattern[str], _Read]:
    compiled = re.compile(rf"{pattern}[.!]?", re.IGNORECASE | re.DOTALL)
    return compiled, (lambda _: read) if isinstance(read, str) else read


_FORMS = (
    _form(_CELL + r"(?:succeeds|finishes|works|(?:(?:is|has)\s+)?(?:succeeded|finished|worked))", "finished"),
    _form(_CELL + r"(?:(?:is|has)\s+)?(?:done|completed|complete|over|completes|ends|ended)", "done"),
    _form(_CELL + r"(?:fails|(?:has\s+)?failed|raises(?:\s+an?\s+\w+)?|errors|crashes)", "failed"),
    _form(
        _CELL + rf"(?:takes|runs|is\s+running|is)\s+(?:for\s+)?(?:longer|more|slower)\s+than\s+(?P<longer>{DURATION})",
        _longer("slow"),
    ),
    _form(_KERNEL + rf"(?:is|gets|becomes)\s+(?:idle|free)(?:\s+for\s+(?P<longer>{DURATION}))?", _longer("idle")),
    _form(_KERNEL + r"(?:is\s+)?restart(?:s|ed)", "restarted"),
    _form(_KERNEL + r"(?:dies|(?:has\s+)?died|is\s+dead|crashes|(?:has\s+)?crashed)", "died"),
    _form(
        r"(?:the\s+)?(?:file\s+)?(?P<path>[\"'][^\"']+[\"']|\S*[./*]\S*)\s+"
        r"(?:changes|(?:is|has)\s+(?:changed|written|updated|created)|appears)",
        lambda match: "changed " + match["path"].strip("\"'"),
    ),
    _form(r"(?P<expr>.+?)\s+(?:turns|becomes|is|gets)\s+true", lambda match: "true " + match["expr"].strip("`")),
    _form(r"(?P<expr>.*(?:[<>]|[=!]=).*)", lambda match: "true " + match["expr"].strip("`")),
)


def read_event(text: str) -> WhenSpec | None:
    """What ``text`` waits for; None when it does not begin as such a thing does, and is a time.

    What follows "when" and fits no sentence is left as it is: the short words (``done``, ``slow 10m``) are read where
    schedules are checked, and the error there names the words that exist. Raises InvalidSchedule.
    """
    opening = _OPENING.match(text)
    if opening is None:
        return None
    rest = text[opening.end() :].strip().rstrip(".")
    if len(rest) > _LONGEST:
        raise InvalidSchedule(f"That is too long: at most {_LONGEST} characters say what to wait for.", field="text")
    event = _EACH_AT_END.sub("", rest)
    if not event:
        raise InvalidSchedule(
            "When what? Say it like 'when the cell is done' or 'when data.csv changes'.", field="text"
        )
    is_each = event != rest or not re.fullmatch(r"when|as soon as", opening["word"], re.IGNORECASE)
    for pattern, read in _FORMS:
        if match := pattern.fullmatch(event):
            is_any = (match.groupdict().get("which") or "").strip().lower() in ("any", "a", "every")
            return _spec(read(match), is_each=is_each, cell="any" if is_any else None)
    return _spec(event, is_each=is_each, cell=None)


def _spec(when: str, *, is_each: bool, cell: str | None) -> WhenSpec:
    return WhenSpec(kind="when", when=when, repeat="each" if is_each else None, cell=cell)
