"""Run the tests marked `numeric` under every setting that decides how torch and oneDNN round.

A processor has instructions of its own, and the libraries choose among their kernels by what it has: sums are added up
in another order, products are fused or not. `ATEN_CPU_CAPABILITY` and `ONEDNN_MAX_CPU_ISA` let one machine compute as
lesser ones do (unset: as itself), and the number of threads divides sums otherwise. A test whose outcome is rounding
passes under some of them. Prints a line for each setting; at the end, the failed ones with the tests that failed.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

SETTINGS = {
    "OMP_NUM_THREADS": ("1", "2"),
    "ATEN_CPU_CAPABILITY": ("default", "avx2", ""),
    "ONEDNN_MAX_CPU_ISA": ("AVX2", ""),
}


def main(arguments: list[str]) -> int:
    """Run pytest once for each setting, with ``arguments`` added."""
    failed = {}
    for values in itertools.product(*SETTINGS.values()):
        chosen = dict(zip(SETTINGS, values, strict=True))
        words = " ".join(f"{name}={value or '(unset)'}" for name, value in chosen.items())
        environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        environment |= {name: value for name, value in chosen.items() if value}
        begun = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-m", "numeric and not exhaustive", *arguments],
            env=environment,
            capture_output=True,
            text=True,
        )
        last = (ran.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
        print(f"{words}: {last} ({time.monotonic() - begun:.0f} s)", flush=True)
        if ran.returncode:
            failed[words] = ran.stdout + ran.stderr
    for words, output in failed.items():
        print(f"\n{words}\n{output}")
    if failed:
        print(f"{len(failed)} of 12 settings failed: {'; '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
