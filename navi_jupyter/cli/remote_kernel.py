"""A kernel behind a Jupyter server's REST and WebSocket API: run a cell, see its outputs.

As much of the protocol as the demo needs; a front end does the same.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import WebSocketClientConnection, websocket_connect

from ..kernel.connection import Connection


class CellFailed(Exception):
    """A cell ended with an error; ``str()`` is its last line."""


@dataclass(slots=True)
class CellOutput:
    """What a cell showed."""

    texts: dict[str, str] = field(default_factory=dict)
    """Plain text by display id, the latest of each; other outputs under numbers."""
    updates: int = 0
    """How often something was shown or replaced."""

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.texts.values()).strip()


class RemoteKernel:
    """A running kernel of a notebook that need not exist."""

    def __init__(self, connection: Connection, kernel_id: str, channels: WebSocketClientConnection) -> None:
        self._connection = connection
        self._id = kernel_id
        self._channels = channels
        self._session = uuid.uuid4().hex

    @classmethod
    async def start(cls, connection: Connection, path: str) -> RemoteKernel:
        """Start the default kernel for the notebook ``path`` and open its channels."""
        headers = {"Authorization": connection.authorization or ""}
        response = await SimpleAsyncHTTPClient(force_instance=True).fetch(
            HTTPRequest(
                f"{connection.url}api/sessions",
                method="POST",
                headers=headers,
                body=json.dumps({"path": path, "name": path, "type": "notebook", "kernel": {"name": ""}}),
                request_timeout=20,
            )
        )
        kernel_id = json.loads(response.body)["kernel"]["id"]
        url = "ws" + connection.url.removeprefix("http") + f"api/kernels/{kernel_id}/channels"
        return cls(connection, kernel_id, await websocket_connect(HTTPRequest(url, headers=headers)))

    async def execute(self, code: str, seen: Callable[[CellOutput], None] | None = None) -> CellOutput:
        """Run a cell; its outputs once it is done. ``seen`` is called at each one. Raises CellFailed."""
        msg_id = uuid.uuid4().hex
        await self._channels.write_message(json.dumps(self._execute_request(msg_id, code)))
        output, replied, idle = CellOutput(), False, False
        error = ""
        while not (replied and idle):
            frame = await self._channels.read_message()
            if frame is None:
                raise CellFailed("the kernel's channels were closed")
            message = json.loads(frame)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["header"]["msg_type"], message["content"]
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and content["execution_state"] == "idle")
            if kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif _shown(output, kind, content) and seen:
                seen(output)
        if error:
            raise CellFailed(error)
        return output

    def close(self) -> None:
        """Close the channels; the kernel goes with its server."""
        self._channels.close()

    def _execute_request(self, msg_id: str, code: str) -> dict[str, Any]:
        return {
            "channel": "shell",
            "header": {
                "msg_id": msg_id,
                "msg_type": "execute_request",
                "session": self._session,
                "username": "navi",
                "version": "5.3",
                "date": datetime.now(UTC).isoformat(),
            },
            "parent_header": {},
            "metadata": {},
            "content": {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": True,
            },
            "buffers": [],
        }


def _shown(output: CellOutput, kind: str, content: dict[str, Any]) -> bool:
    """Take in one message of the output channel; whether it was an output."""
    if kind == "stream":
        text = output.texts.get("stream", "") + content["text"]
        key = "stream"
    elif kind in ("display_data", "update_display_data", "execute_result"):
        text = content["data"].get("text/plain", "")
        key = (content.get("transient") or {}).get("display_id") or str(len(output.texts))
    else:
        return False
    output.texts[key] = text
    output.updates += 1
    return True
