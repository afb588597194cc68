"""What Navi's own page is filled with: its language (that of JupyterLab's settings, else the browser's), and where an
application of this server shows documents.

Not responsible for the texts of the chat on it, which takes the language that the page names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_core.paths import jupyter_config_dir

# Comments are on lines of their own in what JupyterLab writes there.
_LOCALE = re.compile(r'^\s*\{?\s*"locale"\s*:\s*"([A-Za-z_\-]{2,20})"', re.MULTILINE)
_MOST_READ = 100_000  # characters of a settings file


class PageTexts(NamedTuple):
    """What the page says before its script has been loaded."""

    sessions: str
    conversation: str
    no_script: str


TEXTS = {
    "en": PageTexts("Sessions", "Conversation", "Navi's chat needs JavaScript."),
    "de": PageTexts("Sitzungen", "Gespräch", "Der Chat von Navi braucht JavaScript."),
    "zh-CN": PageTexts("会话", "对话", "Navi 的聊天需要 JavaScript。"),
}


def page_language(accepted: str) -> str:
    """The language to use, a key of `TEXTS`. `accepted` is the browser's header ``Accept-Language``."""
    stored = _stored_in_lab()
    if stored is not None:
        return _known(stored) or "en"  # as in JupyterLab itself: a language that Navi does not have is English
    return next((known for known in map(_known, _by_weight(accepted)) if known), "en")


def _known(tag: str) -> str | None:
    """What there is for a tag like ``de-AT`` or ``zh_TW``: a script or region without texts is read as its language."""
    base = re.split(r"[-_.]", tag.lower())[0]
    return {"en": "en", "de": "de", "zh": "zh-CN"}.get(base)


def _by_weight(accepted: str) -> list[str]:
    weighted: list[tuple[float, str]] = []
    for part in accepted[:1000].split(","):
        tag, _, weight = part.partition(";")
        number = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", weight)
        weighted.append((float(number[1]) if number else 1.0, tag.strip()))
    return [tag for weight, tag in sorted(weighted, key=lambda each: -each[0]) if weight > 0]


def _stored_in_lab() -> str | None:
    """The language that was chosen in JupyterLab or Notebook; None where nothing was, or it cannot be read."""
    folder = os.environ.get("JUPYTERLAB_SETTINGS_DIR") or Path(jupyter_config_dir(), "lab", "user-settings")
    file = Path(folder, "@jupyterlab", "translation-extension", "plugin.jupyterlab-settings")
    try:
        with file.open(encoding="utf-8") as opened:
            found = _LOCALE.search(opened.read(_MOST_READ))
    except (OSError, ValueError):
        return None
    return None if found is None or found[1] == "default" else found[1]


_DOCUMENTS = {"jupyterlab": "lab/tree/", "notebook": "notebooks/", "nbclassic": "nbclassic/notebooks/"}
_SHOWN_BY_SERVER = "nbconvert/html/"  # a page without an application: Jupyter Server has it itself


def documents(serverapp: Any) -> str:
    """What stands before the path of a notebook in its address, by the applications that this server has."""
    running = getattr(getattr(serverapp, "extension_manager", None), "extension_apps", {})
    return next((place for name, place in _DOCUMENTS.items() if running.get(name)), _SHOWN_BY_SERVER)
