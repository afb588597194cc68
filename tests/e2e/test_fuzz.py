"""Random requests against every route of openapi.json: never a 500, always the contract's shape, never out of order."""

from __future__ import annotations

import json
import os
import random
import string
import time
from typing import Any

import pytest

from tests.e2e.client import Follower, Wire, call, log_of, new_session, ok, prompt
from tests.e2e.conftest import Start
from tests.e2e.logs import check_session_log
from tests.support.server import JupyterServer

SECONDS = float(os.environ.get("FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
TEXTS = [
    "", " ", "a", "\0", "\ud800", "é" * 300, "x" * 70_000, "🐍", "\u202e", "' OR 1=1 --", "../..", "{}", "null",
    "-1", "1e400", "2026-11-23T00:00:00Z", "2099-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z", "10m", "1ms", "0s", "36525d", "1d1d", "* * * * *", "0 9 * * 1-5", "@hourly", "@reboot",
    "*/90 * * * *", "0 0 29 2 *", "UTC", "Europe/Berlin", "offline", "openai-chat:gpt", "assistant", "once",
    "every", "cron", "when", "prompt", "stop", "unqueue", "answer", "enqueue", "reject", "interrupt", "steer",
    "remind me in 1 hour to breathe", "count to 5", "cancel everything",
]  # fmt: skip
NUMBERS = [
    0,
    1,
    -1,
    5,
    100,
    101,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**40,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
]


class Fuzz:
    """Makes random input out of the schema, and breaks it here and there."""

    def __init__(self, seed: int, document: dict[str, Any], ids: dict[str, list[str]]) -> None:
        self.random = random.Random(seed)
        self.document = document
        self.ids = ids

    def junk(self, depth: int = 0) -> Any:
        """Any JSON."""
        kinds: list[Any] = [None, True, self.random.choice(TEXTS), self.random.choice(NUMBERS)]
        if depth < 3:
            kinds.append([self.junk(depth + 1) for _ in range(self.random.randrange(3))])
            kinds.append({self.random.choice([*TEXTS[:6], "type", "kind", "id"]): self.junk(depth + 1)})
        return self.random.choice(kinds)

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        """Something near the schema."""
        if self.random.random() < 0.06 or depth > 8:
            return self.junk()
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), depth)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.value(self.random.choice(schema[union]), depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.random.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(self.random.randrange(3))]
        if kind in ("integer", "number"):
            return self.random.choice([*NUMBERS, 1, 2, 3])
        if kind == "string":
            return self._text(schema)
        return self.junk() if kind != "null" else None

    def _resolve(self, reference: str) -> dict[str, Any]:
        found = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def _object(self, schema: dict[str, Any], depth: int) -> Any:
        required = schema.get("required", ())
        made = {
            name: self.value(inner, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if name in required or self.random.random() < 0.4
        }
        if "session_id" in made and self.random.random() < 0.9:
            made["session_id"] = self.random.choice(self.ids["sid"])
        if self.random.random() < 0.05:
            made[self.random.choice(TEXTS)] = self.junk()
        return made

    def _text(self, schema: dict[str, Any]) -> str:
        if self.random.random() < 0.5 and schema.get("examples"):
            return str(self.random.choice(schema["examples"]))
        if self.random.random() < 0.7:
            return self.random.choice(TEXTS)
        return "".join(self.random.choice(string.printable) for _ in range(self.random.randrange(40)))

    def path(self, template: str) -> str:
        """The path with its parameters filled."""
        for name in self.ids:
            good = self.random.random() < 0.85 and self.ids[name]
            text = self.random.choice(self.ids[name]) if good else quoted(self.random.choice(TEXTS)[:200])
            template = template.replace(f"{{{name}}}", text or "x")
        return template.rsplit("/api/", 1)[-1].lstrip("/")

    def query(self, parameters: list[dict[str, Any]]) -> str:
        """Some of the query parameters."""
        chosen = [p for p in parameters if p.get("in") == "query" and self.random.random() < 0.5]
        pairs = [f"{p['name']}={quoted(str(self.value(p.get('schema', {}))))[:400]}" for p in chosen]
        return "?" + "&".join(pairs) if pairs else ""


def quoted(text: str) -> str:
    """Percent-encoded, whatever it is."""
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 3 * SECONDS)
def test_random_requests_to_every_route_never_fail_inside(start: Start) -> None:
    server = start("server", "--NaviExtension.max_sessions_per_user=100000", "--NaviExtension.max_recalls_per_user=300")
    document = ok(server, "GET", "openapi.json")
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in ("get", "post", "patch", "delete")
    ]
    ids: dict[str, list[str]] = {"sid": [new_session(server) for _ in range(5)], "rid": ["r_x"], "id": ["rec_x"]}
    ids |= {"name": ["desk", "nobody"], "server": ["x"], "kid": ["k"]}
    fuzz = Fuzz(SEED, document, ids)
    until = time.monotonic() + SECONDS
    statuses: dict[int, int] = {}
    visited: set[tuple[str, str]] = set()
    count = 0
    while time.monotonic() < until or len(visited) < len(operations) or not statuses.get(202):
        assert time.monotonic() < until + 60, f"no valid command in all that: {statuses}"
        method, template, operation = operations[count % len(operations)]
        count += 1
        status = one_request(server, fuzz, method, template, operation, ids)
        if status is not None:
            visited.add((method, template))
            statuses[status] = statuses.get(status, 0) + 1
    print(f"\n{sum(statuses.values())} requests to {len(operations)} operations: {dict(sorted(statuses.items()))}")
    assert statuses.get(201, 0) > 5
    survives(server)


def one_request(
    server: JupyterServer, fuzz: Fuzz, method: str, template: str, operation: dict[str, Any], ids: dict[str, list[str]]
) -> int | None:
    """One random request; its status. None for one that was not sent."""
    path = fuzz.path(template) + fuzz.query(operation.get("parameters", []))
    if path.split("?")[0].endswith("/ws"):
        return 101 if fuzz_socket(server, fuzz, path) else None
    raw = None
    body: Any = None
    content = operation.get("requestBody", {}).get("content", {})
    if content:
        body = fuzz.value(content.get("application/json", {"schema": {"type": "object"}})["schema"])
        raw = json.dumps(body).encode()
        if fuzz.random.random() < 0.03:
            raw = raw[: fuzz.random.randrange(len(raw) + 1)]
    began = time.monotonic()
    answer = call(server, method, path, raw=raw)
    shown = f"{method} {path} {str(body)[:500]} -> {answer.status} {answer.body[:500]!r}"
    assert answer.status < 500, shown
    assert time.monotonic() - began < 35, f"slow: {shown}"
    if answer.status >= 400:
        assert {"message", "reason", "code"} <= set(answer.json) <= {"message", "reason", "code", "field"}, shown
    elif answer.body and answer.headers["Content-Type"].startswith("application/json"):
        remember(answer.json, ids, gone=method == "DELETE")
    if method == "DELETE" and answer.status == 204 and template.endswith("{sid}"):
        ids["sid"] = [sid for sid in ids["sid"] if sid not in path] or [new_session(server)]
    return answer.status


def fuzz_socket(server: JupyterServer, fuzz: Fuzz, path: str) -> bool:
    """A socket with some random commands."""
    try:
        wire = Wire(server, path)
    except ConnectionRefusedError as error:
        if " 500 " in str(error):
            raise
        return False
    schema = {"$ref": "#/components/schemas/Command"}
    known = "Command" in fuzz.document.get("components", {}).get("schemas", {})
    for _ in range(5):
        answer = wire.answer(json.dumps(fuzz.value(schema) if known else fuzz.junk()))
        assert answer.get("rejected", {}).get("code") != "internal_error", answer
    wire.close()
    return True


def remember(answer: Any, ids: dict[str, list[str]], *, gone: bool) -> None:
    """Ids of what was made, for later requests."""
    if gone or not isinstance(answer, dict):
        return
    for name, prefix in (("id", "rec_"), ("sid", "s_"), ("rid", "r_")):
        for key in ("id", "run_id"):
            text = answer.get(key)
            if isinstance(text, str) and text.startswith(prefix):
                ids[name] = [*ids[name], text][-8:]


def survives(server: JupyterServer) -> None:
    """A new session works, and the logs of the others are in order."""
    for session in ok(server, "GET", "sessions?limit=20")["sessions"]:
        open_runs = check_session_log(log_of(server, session["id"]))
        assert len(open_runs) <= 1
    sid = new_session(server)
    follower = Follower(server, sid)
    follower.until_end(prompt(server, sid, "count to 3", mode="interrupt")["run_id"])
    follower.close()
