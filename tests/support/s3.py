"""A private S3 server for tests (s3rver), on loopback, with a folder of its own. It ends with its process' tests."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

BUCKET = "navi-test"


class PrivateS3:
    """A server with one bucket; ended by :meth:`remove`."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.mkdtemp(prefix="navi-s3-")
        words = ["node", program, "-d", self._folder, "-a", "127.0.0.1", "-p", "0", "--configure-bucket", BUCKET]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.log: list[str] = []  # what it prints: the requests
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "listening on" in line:
                self.endpoint = f"http://{line.split()[-1]}"
                break
            self.log.append(line)
        else:
            raise RuntimeError(f"s3rver does not start: {''.join(self.log)[-2000:]}")
        self._reader = threading.Thread(target=self._read, daemon=True)  # a full pipe would stop it
        self._reader.start()

    def variables(self) -> dict[str, str]:
        """The environment that leads to it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "S3RVER",
            "AWS_SECRET_ACCESS_KEY": "S3RVER",
            "AWS_REGION": "us-east-1",
        }

    def objects(self, prefix: str) -> list[str]:
        """The names of all objects below a prefix, relative to it."""
        root, end = Path(self._folder, BUCKET, prefix), "._S3rver_object"
        return sorted(str(path.relative_to(root)).removesuffix(end) for path in root.rglob(f"*{end}"))

    def remove(self) -> None:
        """End it and remove its folder."""
        self._process.kill()
        self._process.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        with contextlib.suppress(ValueError):  # closed
            self.log.extend(self._process.stdout or ())
