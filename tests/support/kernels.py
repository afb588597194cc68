"""A notebook's kernel, started by a real server, driven as a front end drives it."""

from __future__ import annotations

import queue
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from tests.support.server import JupyterServer

CELL_WITHIN = 40.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Shown:
    """What a cell showed."""

    status: str = ""
    """``ok``, ``error`` or ``aborted``."""
    stdout: str = ""
    stderr: str = ""
    error: str = ""
    """The traceback as a front end prints it, without colours."""
    errors: list[str] = field(default_factory=list)
    """All of them."""
    bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Displays and results, the latest of each, in the order of their first appearance."""
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of each of them."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Every state that a display or result was in."""
    cells: list[str] = field(default_factory=list)
    """The sources of the cells that the front end is to insert below."""
    prompts: list[str] = field(default_factory=list)
    """What the cell asked at an input prompt."""

    @property
    def text(self) -> str:
        """Everything as plain text."""
        plain = [bundle.get("text/plain", "") for bundle in self.bundles.values()]
        return "\n".join([self.stdout, *plain]).strip()

    @property
    def last(self) -> dict[str, Any]:
        """The last bundle."""
        return list(self.bundles.values())[-1]


class NotebookKernel:
    """The kernel of ``path`` on ``server``."""

    def __init__(self, server: JupyterServer, path: str | None = "work.ipynb", *, name: str | None = None) -> None:
        self.server = server
        if path is None:
            self.id = server.request("POST", "api/kernels", {"name": "python3"})["id"]
        else:
            body = {"path": path, "type": "notebook", "kernel": {"name": "python3"}}
            self.id = server.request("POST", "api/sessions", body | ({"name": name} if name else {}))["kernel"]["id"]
        self.cell = "a-cell"
        """How the front end names the cells that it runs."""
        self.numbers: list[int] = []
        """The execution counts in the replies to ``run``."""
        self._aside: list[dict[str, Any]] = []
        """What came for other cells while one ran; ``next_update`` looks there first."""
        self.client = self._connect()

    def _connect(self) -> BlockingKernelClient:
        client = BlockingKernelClient(connection_file=str(self.server.home / "runtime" / f"kernel-{self.id}.json"))
        client.load_connection_file()
        client.start_channels(hb=False)
        deadline = time.monotonic() + CELL_WITHIN
        while time.monotonic() < deadline:
            # Not wait_for_ready: it takes a kernel for dead whose first heartbeat is late on a busy machine.
            client.kernel_info()
            try:
                client.get_shell_msg(timeout=2)
                client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            return client
        raise AssertionError(f"the kernel did not start:\n{self.server.log_tail()}")

    def run(
        self,
        code: str,
        *,
        seen: Callable[[Shown], None] | None = None,
        typed: Callable[[str], str | None] | None = None,
    ) -> Shown:
        """Run a cell; what it showed when it is done. ``seen`` is called after each output.

        ``typed`` makes a front end with input: it is called with each prompt; the line, or None to leave it unanswered.
        """
        shown = Shown()
        msg_id = self._execute(code, allow_stdin=typed is not None)
        deadline = time.monotonic() + CELL_WITHIN
        while True:
            if typed is not None:
                self._type(shown, typed)
            wait = deadline - time.monotonic() if typed is None else 0.1
            try:
                message = self.client.get_iopub_msg(timeout=max(0.1, wait))
            except queue.Empty:
                if time.monotonic() < deadline:
                    continue
                raise
            if message["parent_header"].get("msg_id") != msg_id:
                self._aside.append(message)
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                break
            if self._take(shown, kind, content) and seen:
                seen(shown)
        while True:
            reply = self.client.get_shell_msg(timeout=10)
            if reply["parent_header"].get("msg_id") == msg_id:
                shown.status = reply["content"]["status"]
                payload = reply["content"].get("payload") or []
                shown.cells = [one["text"] for one in payload if one["source"] == "set_next_input"]
                self.numbers.append(reply["content"].get("execution_count"))
                return shown

    def ok(self, code: str) -> Shown:
        """Run a cell that must not fail."""
        shown = self.run(code)
        assert shown.status == "ok", shown.error or shown
        return shown

    def _execute(self, code: str, *, allow_stdin: bool) -> str:
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "stop_on_error": True}
        message = self.client.session.msg("execute_request", content | {"allow_stdin": allow_stdin})
        message["metadata"] = {"cellId": self.cell}  # as notebooks send it: a console does not
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def _type(self, shown: Shown, typed: Callable[[str], str | None]) -> None:
        try:
            request = self.client.get_stdin_msg(timeout=0)
        except queue.Empty:
            return
        shown.prompts.append(request["content"]["prompt"])
        line = typed(shown.prompts[-1])
        if line is not None:
            self.client.input(line)

    @staticmethod
    def _take(shown: Shown, kind: str, content: dict[str, Any]) -> bool:
        if kind == "stream":
            setattr(shown, content["name"], getattr(shown, content["name"]) + content["text"])
        elif kind == "error":
            shown.error = _ANSI.sub("", "\n".join(content["traceback"]))
            shown.errors.append(shown.error)
        elif kind in ("display_data", "update_display_data", "execute_result"):
            key = (content.get("transient") or {}).get("display_id") or str(len(shown.bundles))
            shown.bundles[key] = content["data"]
            shown.metadata[key] = content.get("metadata") or {}
            shown.history.append(content["data"])
        else:
            return False
        return True

    def next_update(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next display update (of any cell, also a finished one) that is ``wanted``."""
        deadline = time.monotonic() + CELL_WITHIN
        while True:
            wait = max(0.1, deadline - time.monotonic())
            message = self._aside.pop(0) if self._aside else self.client.get_iopub_msg(timeout=wait)
            data = message["content"].get("data", {})
            if message["msg_type"] == "update_display_data" and wanted(data):
                return dict(data)

    def interrupt(self) -> None:
        """As the stop button does."""
        self.server.request("POST", f"api/kernels/{self.id}/interrupt", {})

    def restart(self) -> None:
        """As the restart button does; the kernel keeps its id."""
        self.client.stop_channels()
        self.server.request("POST", f"api/kernels/{self.id}/restart", {})
        self.client = self._connect()

    def close(self) -> None:
        """Shut it down, if it was not yet."""
        self.client.stop_channels()
        if self.server.running and any(each["id"] == self.id for each in self.server.get("api/kernels")):
            self.server.request("DELETE", f"api/kernels/{self.id}")

    # --- comms: the page's half of a widget --------------------------------------------------------------------------

    def comm_send(self, comm_id: str, content: dict[str, Any]) -> None:
        """A custom message from the page to a widget."""
        data = {"method": "custom", "content": content}
        message = self.client.session.msg("comm_msg", {"comm_id": comm_id, "data": data})
        self.client.shell_channel.send(message)

    def comm_receive(self, comm_id: str, kind: str) -> dict[str, Any]:
        """The next custom message of that kind from a widget to the page."""
        deadline = time.monotonic() + CELL_WITHIN
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content = message["content"]
            if message["msg_type"] == "comm_msg" and content["comm_id"] == comm_id:
                custom = content["data"].get("content", {})
                if content["data"].get("method") == "custom" and custom.get("m") == kind:
                    return dict(custom)
        raise AssertionError(f"no {kind!r} from the widget")
