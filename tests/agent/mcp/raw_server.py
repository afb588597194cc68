"""An MCP server without the SDK, which sends what JSON it likes: over stdio as a program, over HTTP as a handler."""

from __future__ import annotations

import json
import sys
from typing import Any

from tornado.web import RequestHandler

LONE = "boom \ud83d end \x00"
DEEP = "[" * 5_000 + "1" + "]" * 5_000
TOOL = {
    "name": "say",
    "description": f"Says {LONE}",
    "inputSchema": {"type": "object", "properties": {"what": {"type": "string"}}},
}


def answer(request: dict[str, Any]) -> str | None:
    """The JSON text that answers a message; None for a notification."""
    if "id" not in request:
        return None
    match request["method"]:
        case "initialize":
            result: Any = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "raw", "version": "1"},
            }
        case "tools/list":
            result = {"tools": [TOOL]}
        case "tools/call" if request["params"]["arguments"].get("what") == "deep":
            text = json.dumps({"content": [], "structuredContent": {"deep": "DEEP"}}).replace('"DEEP"', DEEP)
            return f'{{"jsonrpc":"2.0","id":{json.dumps(request["id"])},"result":{text}}}'
        case "tools/call":
            result = {"content": [{"type": "text", "text": LONE}], "structuredContent": {LONE: [LONE]}}
        case _:
            error = {"code": -32601, "message": "no such method"}
            return json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error})
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})


class RawHandler(RequestHandler):
    """The same over HTTP. ``as_events``: each answer as a stream of one event."""

    def initialize(self, *, as_events: bool) -> None:
        self._as_events = as_events

    def get(self) -> None:
        self.set_status(405)

    delete = get

    def post(self) -> None:
        text = answer(json.loads(self.request.body))
        if text is None:
            self.set_status(202)
        elif self._as_events:
            self.set_header("Content-Type", "text/event-stream")
            self.write(f"event: message\r\ndata: {text}\r\n\r\n")
        else:
            self.set_header("Content-Type", "application/json")
            self.write(text)


def main() -> None:
    for line in sys.stdin:
        if (text := answer(json.loads(line))) is not None:
            print(text, flush=True)


if __name__ == "__main__":
    main()
