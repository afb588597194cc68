"""The chat in a cell: an anywidget around ``<navi-chat>``, and the MIME bundle that shows it everywhere.

JupyterLab and Notebook render ``application/vnd.navi.session+json`` with the lab extension, without any kernel; other
front ends show the widget; places without JavaScript the transcript. Imported only by ``navi.chat()``: ipywidgets is
slow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from .. import __version__
from .relay import Relay
from .render import transcript_html, transcript_plain
from .service import Service

MIME = "application/vnd.navi.session+json"
_LOADER = Path(__file__).parent.parent / "static" / "widget.js"


class Chat(anywidget.AnyWidget):
    """The chat on one session. Several on the same session show the same."""

    # A path to a file, so that it is read once; a few KB, because it is saved into notebooks per widget.
    _esm = _LOADER

    session_id = traitlets.Unicode(read_only=True).tag(sync=True)
    version = traitlets.Unicode(__version__, read_only=True).tag(sync=True)
    snapshot = traitlets.Unicode(read_only=True).tag(sync=True)
    """The transcript at the time of the call, as HTML, for pages that find neither server nor kernel."""

    def __init__(self, service: Service, session_id: str) -> None:
        messages = service.call("GET", f"sessions/{session_id}/messages")["messages"]
        self._plain = transcript_plain(messages)
        with self.hold_trait_notifications():
            self.set_trait("session_id", session_id)
            self.set_trait("snapshot", transcript_html(messages))
        super().__init__()
        self._relay = Relay(service.client, self._to_page)
        self.on_msg(lambda _widget, content, _buffers: self._relay.receive(content))

    def close(self) -> None:
        """Close the widget and its connections."""
        if self.comm is not None:
            self._relay.close()
        super().close()

    def _to_page(self, message: dict[str, Any]) -> None:
        if self.comm is not None:
            self.send(message)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_() or ({}, {})
        ours = {
            MIME: {"session_id": self.session_id, "version": self.version},
            "text/html": self.snapshot,
            "text/plain": self._plain,
        }
        return {**data, **ours}, metadata
