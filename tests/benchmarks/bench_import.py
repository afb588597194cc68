"""How long kernels and servers wait for us: import times, each in a fresh process, interleaved with a bare one.

    python tests/benchmarks/bench_import.py [--quick] [--rounds 7]

Reports medians and ranges; asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.measuring import ROOT, Figures, arguments, with_bytecode

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
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=with_bytecode(), capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main(rounds: int) -> Figures:
    """Measure all cases in turn, ``rounds`` times after one that warms the caches."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name, case in CASES.items():
            seconds = measure(*case)
            if number:
                times[name].append(seconds * 1000)
    figures = Figures()
    for name, values in times.items():
        figures.add(f"{name}, ms", statistics.median(values))
        print(f"    {min(values):.1f} to {max(values):.1f}")
    return figures


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, help="7; in the short form 2")
    options = parser.parse_args()
    main(options.rounds or (2 if options.quick else 7)).write(options.json)
