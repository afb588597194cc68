"""Notebook jobs in words: ``run report.ipynb with n=7 then summarise it`` -> what a recall executes. Pure.

For the server and for the kernel's magics alike: nothing but the standard library is imported here. Not responsible for
whether there is such a notebook.
"""

from __future__ import annotations

import json
import re
from typing import Any

_PATH = (
    r"(?:\"(?P<double>[^\"\n]+)\"|'(?P<single>[^'\n]+)'|`(?P<code>[^`\n]+)`|(?P<plain>\S+?\.ipynb|\S[^\n]*?\.ipynb))"
)
_BEGINNING = rf"(?:please\s+)?(?:re-?run|run|execute)\s+(?:the\s+|my\s+)?(?:notebook\s+)?{_PATH}(?=[\s,;.!]|$)"
_WITH = r"\s*,?\s+with\s+(?:the\s+)?(?:parameters?\s+)?(?=[^\W\d]\w*\s*=)"
_THEN = r"\s*[,;]?\s+(?:and\s+)?then\s+(?P<then>.+?)\s*"
_PARAMETER = r"\s*(?:,|and\s)?\s*(?P<name>[^\W\d]\w*)\s*=\s*"
_QUOTED = r"(?P<quote>[\"'])(?P<text>.*?)(?P=quote)"
_WORDS = {"True": True, "False": False, "None": None}


def read_job(text: str) -> dict[str, Any] | None:
    """The notebook job that a message asks for, in the form of ``run`` of a recall; None where it asks for none.

    All of the message has to be understood: ``run a.ipynb and tell me`` is none.
    """
    text = text.strip()
    begin = re.match(_BEGINNING, text, re.IGNORECASE)
    path = _path_in(begin)
    if begin is None or path is None:
        return None
    job: dict[str, Any] = {"kind": "notebook", "path": path}
    rest = text[begin.end() :]
    if given := re.match(_WITH, rest, re.IGNORECASE):
        parameters, rest = _parameters(rest[given.end() :])
        job["parameters"] = parameters
    if then := re.fullmatch(_THEN, rest, re.IGNORECASE | re.DOTALL):
        return {**job, "then": then["then"]}
    return job if re.fullmatch(r"\s*[.!]?\s*", rest) else None


def begins_as_job(text: str) -> str | None:
    """The path of the notebook with whose execution a message begins, whatever follows; None: it begins otherwise."""
    return _path_in(re.match(_BEGINNING, text.strip(), re.IGNORECASE))


def _path_in(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    path = next(found for name in ("double", "single", "code", "plain") if (found := match[name]) is not None).strip()
    return path if path.lower().endswith(".ipynb") else None


def take_parameter(text: str) -> tuple[str, Any, str] | None:
    """The parameter that ``text`` begins with (``n=7``, ``n 7``, ``name="two words"``), and the rest; None: none."""
    match = re.match(r"\s*(?P<name>[^\W\d]\w*)(?:\s*=\s*|\s+)", text)
    if match is None:
        return None
    value = _take_value(text[match.end() :], r"\S+")
    return None if value is None else (match["name"], *value)


def _parameters(text: str) -> tuple[dict[str, Any], str]:
    found: dict[str, Any] = {}
    while match := re.match(_PARAMETER, text, re.IGNORECASE):
        value = _take_value(text[match.end() :], r"[^\s,]+")
        if value is None:
            break
        found[match["name"]], text = value
    return found, text


def _take_value(text: str, bare: str) -> tuple[Any, str] | None:
    if quoted := re.match(_QUOTED, text, re.DOTALL):
        return quoted["text"], text[quoted.end() :]
    if text[:1] in ("[", "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            pass  # a word like any other
        else:
            return value, text[end:]
    word = re.match(bare, text)
    return None if word is None else (value_of(word[0]), text[word.end() :])


def value_of(word: str) -> Any:
    """The value that a word stands for: JSON's, or Python's ``True``, ``False`` and ``None``; else the text itself."""
    if word in _WORDS:
        return _WORDS[word]
    try:
        value = json.loads(word)
    except (ValueError, RecursionError):
        return word
    # What JSON cannot have (NaN), and numbers that would come back as others, stay text.
    return word if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))) else value
