"""An MCP server of the older protocol that answers as it is told to, over stdio or in this process over HTTP.

What it does is a JSON object: ``tools`` (the listing, whatever it holds), ``results`` (by tool: the result of a call),
``lines`` (by tool: the whole answer as text, in which ``$ID`` is the id of the request). ``strange.py <file>`` serves
over stdio and reads the file for each request.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INITIALIZED = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "strange", "version": "1"},
}
OBJECT = {"type": "object"}


def answer_of(doing: dict[str, Any], message: dict[str, Any]) -> str | None:
    """The answer to a message, as text; None for none."""
    if "id" not in message:
        return None
    head = {"jsonrpc": "2.0", "id": message["id"]}
    match message["method"]:
        case "initialize":
            return json.dumps(head | {"result": doing.get("initialized", INITIALIZED)})
        case "tools/list":
            return json.dumps(head | {"result": doing.get("listing", {"tools": doing.get("tools", [])})})
        case "tools/call":
            name = message["params"]["name"]
            if name in doing.get("lines", {}):
                return str(doing["lines"][name]).replace("$ID", json.dumps(message["id"]))
            if name == "ask":
                schema = doing["asks"]
                params = {"message": "Which?", "requestedSchema": schema}
                return json.dumps({"jsonrpc": "2.0", "id": "q1", "method": "elicitation/create", "params": params})
            arguments = message["params"].get("arguments", {})
            said = {"content": [{"type": "text", "text": f"{name} {json.dumps(arguments)}"}]}
            return json.dumps(head | {"result": doing.get("results", {}).get(name, said)})
        case _:
            return json.dumps(head | {"error": {"code": -32601, "message": "Method not found"}})


def main() -> None:
    asked: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        doing = json.loads(Path(sys.argv[1]).read_text())
        if message.get("id") == "q1":  # the answer to its question: that of the call that asked it
            text = json.dumps(message.get("result", message.get("error")))
            result = {"content": [{"type": "text", "text": text}]}
            answer: str | None = json.dumps({"jsonrpc": "2.0", "id": asked, "result": result})
        else:
            if message.get("params", {}).get("name") == "ask":
                asked = message["id"]
            answer = answer_of(doing, message)
        if answer is not None:
            sys.stdout.buffer.write(answer.encode("utf-8", "surrogatepass") + b"\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
