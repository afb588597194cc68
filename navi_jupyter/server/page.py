"""Navi's own page, the chat where there is no JupyterLab; and the scripts of every view, as this server sends them.

The page is in the language of JupyterLab's settings, else of the browser, and knows where an application of this server
shows documents. Not responsible for the texts of the chat on it. Imported at extension load: no pydantic.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jupyter_core.paths import jupyter_config_dir
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import FileFindHandler, JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerJinjaMixin, ExtensionHandlerMixin
from tornado import web
from tornado.web import StaticFileHandler

from .. import __version__

PACKAGE = Path(__file__).parents[1]


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
    """What stands before the path of a notebook in its address, by the applications that this server has.

    Where it has no notebooks itself, the one that has them is in its settings.
    """
    if (elsewhere := serverapp.web_app.settings.get("navi_documents")) is not None:
        return str(elsewhere)
    running = getattr(getattr(serverapp, "extension_manager", None), "extension_apps", {})
    return next((place for name, place in _DOCUMENTS.items() if running.get(name)), _SHOWN_BY_SERVER)


@web.stream_request_body
class PageHandler(ExtensionHandlerJinjaMixin, ExtensionHandlerMixin, JupyterHandler):
    """The plain page, ``<base_url>navi``: the chat where there is no JupyterLab. ``jupyter navi`` opens it.

    Jupyter sends a user who is not logged in to its login page.
    """

    auth_resource = "navi"

    def data_received(self, chunk: bytes) -> None:
        """Nothing is kept of what is sent to it."""

    @web.authenticated
    @authorized("read")  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """The page. It carries no secret: same origin, so the login cookie is all it needs."""
        # In a <script>, "</" would end the script even inside a string.
        about = {"baseUrl": self.base_url, "token": "", "appName": "Navi", "documents": documents(self.serverapp)}
        config = json.dumps(about).replace("</", "<\\/")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")  # the URL of the page may contain the token
        # In a thread: JupyterLab's settings may be in a home directory on a network that does not answer.
        language = await asyncio.to_thread(page_language, self.request.headers.get("Accept-Language", ""))
        known = {"language": language, "texts": TEXTS[language], "bundle": bundle_id(), "scripts": first_scripts()}
        await self.finish(self.render_template("navi.html", config=config, **known))


def bundle_id() -> str:
    """The id of the bundle of scripts: what its URLs end with, the same wherever it is loaded from."""
    try:
        return str(json.loads((PACKAGE / "static" / "bundle.json").read_text(encoding="utf-8"))["id"])
    except (OSError, ValueError, KeyError):
        return __version__  # not built: the page says itself that its script is missing


def first_scripts() -> list[str]:
    """The scripts of the first load, as their URLs below ``static/navi/`` end: for the page to ask for all at once."""
    try:
        bundle = json.loads((PACKAGE / "static" / "bundle.json").read_text(encoding="utf-8"))
        return [name if name.startswith("chunk-") else f"{name}?v={bundle['id']}" for name in bundle["first"]]
    except (OSError, ValueError, KeyError):
        return []  # not built


class ScriptHandler(FileFindHandler):
    """Our scripts, compressed where the browser takes that: each is stored beside itself as brotli and gzip make it."""

    @classmethod
    def is_immutable(cls, path: str) -> bool:
        """Whether a file never changes under its name: that of a chunk is a digest of it."""
        return Path(path).name.startswith("chunk-")

    def validate_absolute_path(self, root: Any, absolute_path: str) -> str | None:
        """The compressed file where there is one and the browser says that it takes it."""
        taken = encodings_taken(self.request.headers)
        forms = [form for form in _FORMS if form in taken and Path(f"{absolute_path}.{_FORMS[form]}").is_file()]
        self.encoding = forms[0] if forms else None
        suffix = f".{_FORMS[forms[0]]}" if forms else ""
        return super().validate_absolute_path(root, f"{absolute_path}{suffix}")

    def compute_etag(self) -> str | None:
        """By the content, so that the two forms of a file have two."""
        return StaticFileHandler.compute_etag(self)

    def get_content_type(self) -> str:
        """That of the script, however it is sent."""
        if self.encoding is None:
            return super().get_content_type()
        return mimetypes.guess_type(str(self.absolute_path)[:-3])[0] or "application/octet-stream"

    def set_headers(self) -> None:
        """As Jupyter's, with what caches have to know of the two forms."""
        super().set_headers()
        self.add_header("Vary", "Accept-Encoding")
        if self.encoding is not None:
            self.set_header("Content-Encoding", self.encoding)
        if self.is_immutable(self.path) or self.get_query_argument("v", "") == bundle_id():
            self.set_header("Cache-Control", "public, max-age=31536000, immutable")


_FORMS = {"br": "br", "gzip": "gz"}
"""The encodings in which scripts are stored, the smaller one first, and what their files end with."""


def encodings_taken(headers: Mapping[str, str]) -> set[str]:
    """In which encodings a request takes its answer."""
    parts = (part.strip().lower().partition(";") for part in headers.get("Accept-Encoding", "").split(","))
    return {name.strip() for name, _, weight in parts if re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight) is None}
