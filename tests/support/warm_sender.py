"""The sending program's own code in a process that is kept: what takes half a second of each message is its start.

Run as a program it is that process. One message at a time, everything allowed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading

from navi_jupyter.notifications.apprise_sender import SendResult, result_of
from navi_jupyter.notifications.sender_process import send


class WarmSender:
    """Implements ``Sender``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, url: str, *, title: str, body: str) -> SendResult:
        with self._lock:
            if self._process is None:
                environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.warm_sender"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps({"url": url, "title": title, "body": body}).encode() + b"\n")
            self._process.stdin.flush()
            outcome = result_of(self._process.stdout.readline(), url)
        assert outcome is not None
        return outcome

    def close(self) -> None:
        """A service is stopped; others go on."""

    def end(self) -> None:
        """At the end of the tests."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


WARM = WarmSender()


def main() -> None:
    """See the module."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        with contextlib.redirect_stdout(sys.stderr):
            outcome = send(**json.loads(line), allow_private=True)
        print(json.dumps(outcome), file=answers, flush=True)


if __name__ == "__main__":
    main()
