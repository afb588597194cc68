"""Settings of the extension as traits whose defaults come from the environment, by kind.

Imported at extension load. Not responsible for which settings there are (``server.app``).
"""

from __future__ import annotations

import json
import os
from typing import Any, cast

from traitlets import Bool, Dict, Enum, Float, Int, TraitType, Unicode

PERMISSIONS = ("allow", "ask", "deny")


class _FromEnvironment:
    """A configurable trait whose default comes from the environment variable ``NAVI_<NAME>``."""

    metadata = {"config": True}  # noqa: RUF012 - as traitlets has it; each trait copies it

    def default(self, obj: Any = None) -> Any:
        trait = cast("TraitType[Any, Any]", self)
        text = os.environ.get(f"NAVI_{trait.name.upper()}" if trait.name else "")
        if not text:  # an empty variable counts as unset
            return cast("Any", super()).default(obj)
        try:
            return trait.from_string(text)
        except ValueError as error:
            raise ValueError(f"NAVI_{str(trait.name).upper()}={text!r} is not valid: {error}") from error


class Text(_FromEnvironment, Unicode): ...  # type: ignore[type-arg]


class Count(_FromEnvironment, Int): ...  # type: ignore[type-arg]


class Seconds(_FromEnvironment, Float): ...  # type: ignore[type-arg]


class Flag(_FromEnvironment, Bool): ...  # type: ignore[type-arg]


class Choice(_FromEnvironment, Enum):  # type: ignore[type-arg]
    def from_string(self, s: str) -> str:
        """Raises ValueError for a text that is none of the values."""
        if s not in (values := self.values or ()):
            raise ValueError(f"it must be one of {', '.join(values)}")
        return s


class Ceiling(_FromEnvironment, Dict):
    """Also read from JSON, or ``pattern=permission,pattern=permission``."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(key_trait=Unicode(), value_trait=Enum(PERMISSIONS), **kwargs)

    def from_string(self, s: str) -> dict[str, str]:
        """Raises ValueError for a text that is not a ceiling."""
        rules: dict[str, str]
        if s.lstrip().startswith("{"):
            rules = json.loads(s)
        else:
            pairs = (pair.partition("=") for pair in s.split(",") if pair.strip())
            rules = {pattern.strip(): most.strip() for pattern, _, most in pairs}
        for pattern, most in rules.items():
            if not pattern or most not in PERMISSIONS:
                raise ValueError(f"{pattern!r} must be one of {', '.join(PERMISSIONS)}, not {most!r}")
        return rules
