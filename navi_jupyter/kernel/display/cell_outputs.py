"""The outputs of this kernel's cells and the errors that they ended with, for ``%navi --with-output 7``.

Installed by ``%load_ext``: of cells that ran before, only the ``Out`` value is known. Bounded: the oldest cells are
dropped first. Uses ipykernel's hooks; where one is missing (text before ipykernel 7), that kind is not kept.
"""

from __future__ import annotations

import base64
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ...text import strip_ansi, truncate_middle
from ..attachments import KernelAttachment
from ..errors import KernelError, UsageError

# Enough for a working session; plots are some 50 kB each, and a kernel that keeps 64 MB beside the user's data is not
# noticed. One cell that prints without end must not drop all others, so each has a bound of its own.
_CELLS = 200
_BYTES_OF_A_CELL = 8 * 2**20
_BYTES = 64 * 2**20
_LONGEST_TEXT = 200_000
_LONGEST_TRACEBACK = 20_000
_IMAGE_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/webp": "webp"}


class CellOutputs:
    """The outputs of cells. Written by hooks on several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outputs: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()
        """By the id of the request that runs the cell, since its number is certain only when it has ended."""
        self._sizes: dict[str, int] = {}
        self._requests: dict[int, str] = {}
        self.last: int | None = None  # the number of the cell that ended last
        self.last_failed: int | None = None  # and of the one that ended with an error last, and does so still
        self._failed_cell = ""

    def begin(self, request: str) -> None:
        """Open the record of a cell."""
        with self._lock:
            self._outputs.setdefault(request, [])
            self._sizes.setdefault(request, 0)
            self._make_room()

    def end(self, request: str, number: int, *, failed: bool, cell: str) -> None:
        """Note a cell's number. Its last output may still arrive: streams are flushed by another thread."""
        with self._lock:
            self._requests[number] = request
            self.last = number
            if failed:
                self.last_failed, self._failed_cell = number, cell
            elif cell and cell == self._failed_cell:
                self.last_failed = None  # repaired

    def add(self, request: str, output: dict[str, Any], size: int) -> None:
        """Add an output of a cell, unless the cell has too much already."""
        with self._lock:
            if request not in self._outputs or self._sizes[request] + size > _BYTES_OF_A_CELL:
                return
            self._outputs[request].append(output)
            self._sizes[request] += size
            self._make_room()

    def _make_room(self) -> None:
        while len(self._outputs) > _CELLS or (len(self._outputs) > 1 and sum(self._sizes.values()) > _BYTES):
            oldest, _ = self._outputs.popitem(last=False)
            del self._sizes[oldest]
            self._requests = {number: request for number, request in self._requests.items() if request != oldest}

    def of(self, number: int) -> list[dict[str, Any]]:
        """The outputs of that cell, in order; empty when none are known."""
        with self._lock:
            return list(self._outputs.get(self._requests.get(number, ""), ()))


_store: CellOutputs | None = None


def install(shell: Any) -> None:
    """Keep the outputs of cells from now on. Once, however often it is called; does nothing outside of a kernel."""
    global _store
    publisher: Any = getattr(shell, "display_pub", None)
    if _store is not None or not hasattr(publisher, "register_hook"):
        return
    store = _store = CellOutputs()

    def keep(message: dict[str, Any]) -> dict[str, Any]:
        request = str((message.get("parent_header") or {}).get("msg_id", ""))
        kind, content = (message.get("header") or {}).get("msg_type"), message.get("content") or {}
        if kind in ("display_data", "update_display_data"):
            data = dict(content.get("data") or {})
            store.add(request, {"data": data}, sum(len(str(value)) for value in data.values()))
        elif kind == "stream":
            text = str(content.get("text", ""))
            store.add(request, {"text": text}, len(text))
        return message

    def request() -> str:
        header = shell.get_parent().get("header") or {} if hasattr(shell, "get_parent") else {}
        return str(header.get("msg_id", ""))

    def ends(result: Any) -> None:
        if not result.success and (text := _traceback_text(shell, result)):
            store.add(request(), {"text": text}, len(text))
        if result.execution_count is not None:
            error = result.error_in_exec or result.error_before_exec
            failed = not result.success and not isinstance(error, KernelError)  # that of a `%navi` line is no bug
            store.end(
                request(), result.execution_count, failed=failed, cell=getattr(result.info, "cell_id", None) or ""
            )

    publisher.register_hook(keep)
    shell.events.register("pre_run_cell", lambda *_: store.begin(request()))
    shell.events.register("post_run_cell", ends)
    for stream in (sys.stdout, sys.stderr):
        thread = getattr(stream, "pub_thread", None)
        if thread is not None and hasattr(stream, "register_hook"):
            # Hooks of a stream are kept per thread, and the publishing thread is the one that calls them.
            thread.schedule(lambda stream=stream: stream.register_hook(keep))


def _traceback_text(shell: Any, result: Any) -> str:
    """The error that a cell has ended with, as the notebook shows it, without colours.

    As ipykernel has just sent it: to make it a second time would run the user's code (a ``__repr__``) again.
    """
    shown = getattr(shell, "_last_traceback", None)
    if isinstance(shown, list) and shown:
        text = "\n".join(map(str, shown))
    else:
        error = result.error_in_exec or result.error_before_exec
        text = f"{type(error).__name__}: {error}" if error is not None else ""
    return truncate_middle(strip_ansi(text), _LONGEST_TRACEBACK, head=0.3) + "\n" if text else ""


def outputs_of(shell: Any, which: str) -> tuple[list[KernelAttachment], str]:
    """The images and the text of a cell's outputs, as files, and that cell's source.

    ``which``: its number, or ``last`` for the cell before this one. Raises UsageError when no output is known.
    """
    number = _number(which)
    files: list[KernelAttachment] = []
    texts: list[str] = []
    for output in _known(shell, number):
        data = output.get("data") or {}
        kind = next((kind for kind in _IMAGE_SUFFIXES if isinstance(data.get(kind), (str, bytes))), None)
        if kind is not None:
            content = base64.b64decode(data[kind]) if isinstance(data[kind], str) else data[kind]
            name = f"Out{number}-{len(files) + 1}.{_IMAGE_SUFFIXES[kind]}"
            files.append(KernelAttachment(name=name, content=content, media_type=kind))
        else:
            texts.append(str(output.get("text") or data.get("text/plain") or ""))
    text = "".join(texts).strip()
    if text:
        content = text[-_LONGEST_TEXT:].encode()
        files.append(KernelAttachment(name=f"Out{number}.txt", content=content, media_type="text/plain"))
    if not files:
        raise UsageError(f"No output of cell [{number}] is known: run it again after %load_ext navi_jupyter.")
    sources = shell.user_ns.get("In") or []
    return files, sources[number] if number < len(sources) else ""


def last_failed() -> str | None:
    """The number of the cell that ended with an error last; None where none is known any more."""
    number = None if _store is None else _store.last_failed
    return str(number) if number is not None and _store is not None and _store.of(number) else None


def _number(which: str) -> int:
    if which == "last":
        if _store is None or _store.last is None:
            raise UsageError("No cell ran before this one.")
        return _store.last
    if not which.isdecimal():
        raise UsageError(f"--with-output takes the number of a cell or last, not {which!r}.")
    return int(which)


def _known(shell: Any, number: int) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = list(_store.of(number)) if _store is not None else []
    results = shell.user_ns.get("Out") or {}
    if number in results:
        data, _ = shell.display_formatter.format(results[number])
        found.append({"data": data, "text": str(data.get("text/plain", "")) + "\n"})
    return found
