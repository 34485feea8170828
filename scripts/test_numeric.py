"""Run the tests marked `numeric` under every setting that decides how torch and oneDNN round.

A processor has instructions of its own, and the libraries choose among their kernels by what it has: sums are added up
in another order, products are fused or not. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` let one machine compute as
lesser ones do (unset: as itself), and the number of threads divides sums otherwise. A test whose outcome is rounding
passes under some of them. Prints a line for each setting, what failed, and at the end which settings did.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

CHOICES = {
    "OMP_NUM_THREADS": ("1", "2"),
    "ATEN_CPU_CAPABILITY": ("default", "avx2", ""),
    "ONEDNN_MAX_CPU_ISA": ("AVX2", ""),
}
SETTINGS = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]


def main() -> int:
    """Run pytest once for each setting; what is not known here is given to pytest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cores", type=int, default=os.cpu_count() or 1, help="that settings may use together"
    )
    arguments, more = parser.parse_known_args()
    failed = []
    for threads in CHOICES["OMP_NUM_THREADS"]:
        # Threads that wait for each other on a core that another one has are several times slower: no more than cores.
        with ThreadPoolExecutor(max(arguments.cores // int(threads), 1)) as pool:
            chosen = [setting for setting in SETTINGS if setting["OMP_NUM_THREADS"] == threads]
            failed += [name for name in pool.map(lambda setting: run(setting, more), chosen) if name]
    if failed:
        print(f"{len(failed)} of {len(SETTINGS)} settings failed: {'; '.join(failed)}")
    return 1 if failed else 0


def run(setting: dict[str, str], arguments: list[str]) -> str:
    """Run the tests under one setting; return its name if they fail."""
    name = " ".join(f"{key}={value or '(unset)'}" for key, value in setting.items())
    environment = {key: value for key, value in os.environ.items() if key not in CHOICES}
    environment |= {key: value for key, value in setting.items() if value}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "numeric and not exhaustive", *arguments]
    begun = time.monotonic()
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = ran.stdout.strip().splitlines() or ["no output"]
    print(f"{name}: {lines[-1].strip('= ')} ({time.monotonic() - begun:.0f} s)", flush=True)
    if ran.returncode:
        print(ran.stdout, ran.stderr, sep="\n", flush=True)
    return name if ran.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
