"""A cell in a real kernel that waits and does what it is asked for, and the test's end of its socket.

It speaks the frames of a loan over a TCP connection to the test, which hands them to a ``LentKernel`` as the server's
handler does: so a test can cut the connection, hold frames back and look at them. The product's own cell is
``navi_jupyter.kernel.lending``; this one is only as good as the protocol.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from navi_jupyter.jupyter.kernels.lent_kernel import LentKernel
from navi_jupyter.jupyter.kernels.loans import KernelLoans

CELL = """
def _wait_and_lend(port, loan_id):
    import json, os, queue, signal, socket, threading, time
    from IPython import get_ipython
    from IPython.utils.capture import capture_output
    shell = get_ipython()
    work, running, results = queue.Queue(), [], []
    line = [None]

    def emit(frame):
        results.append(frame)
        try:
            line[0].sendall(json.dumps(frame).encode() + b"\\n")
        except OSError:
            pass

    def read():
        while True:
            line[0] = connection = socket.create_connection(("127.0.0.1", port))
            held = [one["id"] for one in results]
            connection.sendall(json.dumps(
                {"type": "lend", "loan_id": loan_id, "language": "python", "unacknowledged": held,
                 "pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\\n")
            for one in list(results):
                connection.sendall(json.dumps(one).encode() + b"\\n")
            for text in connection.makefile():
                frame = json.loads(text)
                if frame["type"] == "interrupt":
                    threading.Thread(target=interrupt, args=(frame["id"],), daemon=True).start()
                elif frame["type"] == "received":
                    results[:] = [one for one in results if one["id"] != frame["id"]]
                else:
                    work.put(frame)
                    if frame["type"] == "leave":
                        return

    def interrupt(number):
        while running == [number]:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(0.3)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            frame = work.get(timeout=0.05)
        except queue.Empty:
            continue
        if frame["type"] == "leave":
            line[0].shutdown(socket.SHUT_RDWR)
            return
        if frame["type"] != "execute":
            continue
        number, n = frame["id"], 1
        emit({"type": "begun", "id": number, "n": n})
        running.append(number)
        reply = {"status": "ok"}
        try:
            if frame["silent"]:
                reply["user_expressions"] = shell.user_expressions(frame["expressions"])
            else:
                # Shown at once where it matters, so that a test can see that code runs.
                shell.user_ns["_emit"] = lambda text: emit(
                    {"type": "output", "id": number, "kind": "stream", "content": {"name": "stdout", "text": text}})
                with capture_output() as shown:
                    done = shell.run_cell(frame["code"], store_history=frame["store_history"])
                if shown.stdout:
                    n += 1
                    emit({"type": "output", "id": number, "n": n, "kind": "stream",
                          "content": {"name": "stdout", "text": shown.stdout}})
                for output in shown.outputs:
                    n += 1
                    emit({"type": "output", "id": number, "n": n, "kind": "display_data",
                          "content": {"data": output.data, "metadata": {}}})
                error = done.error_in_exec or done.error_before_exec
                reply["execution_count"] = shell.execution_count - 1
                if error is not None:
                    reply |= {"status": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": []}
        except KeyboardInterrupt as error:
            reply = {"status": "error", "ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        running.clear()
        emit({"type": "ended", "id": number, "n": n + 1, "reply": reply})
"""


class Relay:
    """The test's end: a ``LoanSocket`` for each connection that the cell makes."""

    def __init__(self, loans: KernelLoans, kernel_id: str, session_id: str) -> None:
        self._loans, self._kernel_id, self._session_id = loans, kernel_id, session_id
        self.loan: LentKernel | None = None
        self.connected = asyncio.Event()
        self.writer: asyncio.StreamWriter | None = None
        self.received: list[dict[str, Any]] = []
        """What the cell was sent."""
        self.left = False

    def emit(self, frame: Any) -> None:
        self.received.append(dict(frame))
        if self.writer is not None:
            self.writer.write(json.dumps(frame).encode() + b"\n")

    def hang_up(self, *, for_good: bool) -> None:
        """The loan is over: the cell goes on with what comes after the wait."""
        self.leave()

    def leave(self) -> None:
        """Have the cell end, and its loan with it."""
        self.left = True
        self.emit({"type": "leave"})

    def cut(self) -> None:
        """Break the connection; the cell connects again."""
        assert self.writer is not None
        self.connected.clear()
        self.writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        with suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                frame = json.loads(line)
                if frame["type"] == "lend":
                    self.loan = self._loans.open(frame, self, kernel_id=self._kernel_id, session_id=self._session_id)
                    self.connected.set()
                elif self.loan is not None:
                    self.loan.take(frame)
        if self.loan is not None and self.writer is writer:
            self.loan.detach(self, closed=self.left)


@asynccontextmanager
async def lending(
    loans: KernelLoans, client: Any, kernel_id: str, session_id: str, *, first: str = ""
) -> AsyncIterator[Relay]:
    """A cell of the kernel waits, and lends it to the session while this is entered. ``client``: a front end's."""
    relay = Relay(loans, kernel_id, session_id)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=2**26)
    port = server.sockets[0].getsockname()[1]
    client.execute(f"{first}\n{CELL}\n_wait_and_lend({port}, {secrets.token_hex(8)!r})", allow_stdin=False)
    try:
        await asyncio.wait_for(relay.connected.wait(), 40)
        yield relay
    finally:
        relay.leave()
        server.close()
