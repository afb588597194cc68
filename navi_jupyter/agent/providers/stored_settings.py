"""Keys and addresses of model providers that the user has given in the interface: one file that only its owner reads.

``navi/providers.json`` below Jupyter's data directory maps names of environment variables to values. What the
environment of the server sets wins over it. The values are never put into the environment, which kernels and MCP
servers inherit, and no answer, log or export has them. Not responsible for what a variable means (``catalog``).
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from jupyter_core.paths import jupyter_data_dir, secure_write

from ...errors import Forbidden, StoreError
from ...input.json_input import load_json
from ...log_setup import get_logger
from ...redaction import remember

log = get_logger("agent")

OFF = "The administrator of this server does not allow keys to be stored here (setting store_keys)."
_MOST_BYTES = 64 * 1024


class StoredSettings:
    """The file. It is read again when it has changed, so that all servers of one user have the same."""

    def __init__(self) -> None:
        self._allowed = True
        self._values: Mapping[str, str] = {}
        self._stamp: tuple[int, ...] | None = None

    @property
    def allowed(self) -> bool:
        """Whether this server stores keys, and uses those that are stored."""
        return self._allowed

    def allow(self, allowed: bool) -> None:
        """Called when the server starts, with its setting ``store_keys``."""
        self._allowed = allowed

    @property
    def path(self) -> Path:
        """Where the file is, or will be."""
        return Path(jupyter_data_dir()) / "navi" / "providers.json"

    def values(self) -> Mapping[str, str]:
        """By the name of the variable; empty where storing is off. Never raises. One ``stat`` unless it has changed."""
        if not self.allowed:
            return {}
        try:
            found = self.path.stat()
        except OSError:
            self._values, self._stamp = {}, None
            return self._values
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
        if stamp != self._stamp:
            self._values, self._stamp = self._read(found), stamp
        return self._values

    def set(self, name: str, value: str) -> None:
        """Store a value. Raises Forbidden where that is off, StoreError when the disk does not take it."""
        remember(value)  # before anything can fail with it in a message
        self._write({**self.values(), name: value})

    def remove(self, name: str) -> None:
        """Forget a value; one that is not there is no mistake. Raises as ``set`` does."""
        self._write({key: value for key, value in self.values().items() if key != name})

    def _read(self, found: os.stat_result) -> Mapping[str, str]:
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077):
            log.warning("keys_not_read", file=str(self.path), reason="others could read or write it")
            return {}
        try:
            if found.st_size > _MOST_BYTES:
                raise ValueError("it is too large")
            content = load_json(self.path.read_bytes())
        except (OSError, ValueError) as error:
            log.warning("keys_not_read", file=str(self.path), reason=type(error).__name__)
            return {}
        values = content if isinstance(content, dict) else {}
        return {name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, str)}

    def _write(self, values: Mapping[str, str]) -> None:
        if not self.allowed:
            raise Forbidden(OFF)
        path = self.path
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Created with mode 0600 from the start, and put in place whole: never half of it, never readable by others.
            beside.unlink(missing_ok=True)
            with secure_write(str(beside)) as file:
                json.dump(dict(sorted(values.items())), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            raise StoreError(f"The key could not be stored: {error.strerror or 'the disk refused it'}.") from None


STORED = StoredSettings()
"""That of this process: providers are looked up by functions that every part of the agent calls."""
