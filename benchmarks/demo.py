"""Time and peak memory of each part of the demo. ``--quick`` takes under 50 s on two cores.

Prints one JSON object last: the machine, versions, and for each part ``seconds`` and ``peak_rss_mb``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from napari_kdseg.demo import DemoConfig, demo, machine
from napari_kdseg.jobs import Done, Event, Message, run_inline
from napari_kdseg.memory import keep_memory


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    keep_memory()  # as the command does

    def show(event: Event) -> None:
        if isinstance(event, Message):
            print(event.text, file=sys.stderr)

    with tempfile.TemporaryDirectory() as folder:
        running = run_inline(demo, DemoConfig(output=Path(folder), quick=quick), show)
    if not isinstance(running.end, Done):
        print(running.end, file=sys.stderr)
        return 1
    result = running.end.result
    figures = {
        "quick": quick,
        "stages": [asdict(stage) for stage in result.stages],
        "total_seconds": round(sum(stage.seconds for stage in result.stages), 2),
        "peak_rss_mb": max(stage.peak_rss_mb for stage in result.stages),
        "metrics": result.metrics,
        "wrong_pixels_after_each_step": result.corrections["wrong"],
        "machine": machine(),
    }
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
