"""How long kernels and servers wait for us: import times, each in a fresh process, interleaved with a bare one.

Run: python tests/benchmarks/bench_import.py [ROUNDS]. Reports medians and ranges in milliseconds; asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
KERNEL = "import IPython, ipykernel.kernelapp, ipykernel.ipkernel"
CASES = {
    "bare interpreter": ("", "pass"),
    "import navi_jupyter, in a kernel": (KERNEL, "import navi_jupyter"),
    "what %load_ext loads, in a kernel": (
        KERNEL,
        "import navi_jupyter.kernel.magics, navi_jupyter.kernel.input_transform",
    ),
    "what navi.chat() loads besides": (
        KERNEL + "; import navi_jupyter.kernel.magics",
        "import navi_jupyter.kernel.display.widget",
    ),
    "the server extension, in a server": ("import jupyter_server.serverapp", "import navi_jupyter.server.app"),
    "the runtime (off the server's loop)": (
        "import jupyter_server.serverapp, navi_jupyter.server.app",
        "import navi_jupyter.server.runtime",
    ),
}


def measure(before: str, code: str) -> float:
    """Seconds that ``code`` takes in a process that has already done ``before``."""
    script = f"import time\n{before}\nbegan = time.perf_counter()\n{code}\nprint(time.perf_counter() - began)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main(rounds: int) -> None:
    """Measure all cases in turn, ``rounds`` times after one that warms the caches."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, case in CASES.items():
            seconds = measure(*case)
            if number:
                times[name].append(seconds * 1000)
    for name, values in times.items():
        print(f"{name:<40} {statistics.median(values):8.1f} ms   ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
