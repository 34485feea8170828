"""What each method gains on real tissue: the reduced study of EBHI-Seg, seven classes, about an hour on two cores.

ENet sees 10 % of the labels, 96 px, 800 steps of 8 tiles, three seeds; one U-Net saw all labels and teaches.
Nothing here is tuned on the test tiles. It can be stopped at any time, and goes on; the table is
docs/evidence/runs.csv.

    python benchmarks/evidence.py                  the reduced study, then its report
    python benchmarks/evidence.py --estimate       time a step of each method, and say how long the study takes
    python benchmarks/evidence.py --quick          a check in less than a minute that all of it works
    python benchmarks/evidence.py --two-class      the reduced study of gland or lesion against background
    python benchmarks/evidence.py --full           the full study, for which there should be a GPU

The last line of --quick and --estimate is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from napari_kdseg.cli.commands.studies import run_study
from napari_kdseg.study import StudyConfig, Table

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("KDSEG_DATA", HERE.parents[1] / "shared" / "data")) / "ebhi-seg"
TRAINING_TILES = 1424
EVIDENCE = HERE.parent / "docs" / "evidence"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--full", dest="form", action="store_const", const="full", default="reduced")
    forms.add_argument("--two-class", dest="form", action="store_const", const="two-class")
    parser.add_argument("--limit", type=int, help="stop after so many runs")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of EBHI-Seg")
    parser.add_argument("--output", type=Path, default=EVIDENCE)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"EBHI-Seg was not found at {arguments.data}. Name its folder with --data.")
    config = StudyConfig.load(EVIDENCE / f"{arguments.form}.yaml")
    config.data.folder, config.output = arguments.data.absolute(), arguments.output.absolute()
    config.limit = arguments.limit
    if arguments.quick or arguments.estimate:
        with tempfile.TemporaryDirectory() as folder:
            config.output = Path(folder)
            print(json.dumps(quick(config) if arguments.quick else estimate(config)))
        return 0
    result = run_study(config)
    print(f"{result.done} of {result.planned} runs are done.")
    for page in result.pages:
        print(page)
    return 0


def quick(config: StudyConfig) -> dict[str, Any]:
    """Run a few steps of the main methods on a few tiles, one run after another."""
    began = time.perf_counter()
    values = config.model_dump(mode="json") | {
        "methods": ["alone", "kd", "plc-kd"],
        "seeds": [0],
        "label_fractions": [0.25],
        "steps": 4,
        "validations": 1,
        "teacher_epochs": 1,
        "teacher_validations": 1,
        "teachers": ["unet/resnet18"],
        "at_once": 1,
        "settings": {},
        "output": str(config.output),
    }
    values["data"]["limit"] = 48
    result = run_study(StudyConfig.model_validate(values))
    return {
        "benchmark": "evidence",
        "form": "quick",
        "runs_done": result.done,
        "runs_planned": result.planned,
        "report_files": len(result.pages),
        "seconds": round(time.perf_counter() - began, 1),
    }


def estimate(config: StudyConfig) -> dict[str, Any]:
    """Time the steps of a short run of every method on a few tiles, and say how long the whole study trains.

    What is not training (validation, the start of a process, two runs at once) is not in it.
    """
    short = config.model_copy(
        deep=True, update={"seeds": (0,), "validations": 1, "teacher_epochs": 1, "at_once": 1}
    )
    short.data.limit, short.steps = 160, 16
    run_study(short)
    seconds = {row.method: row.train_seconds for row in Table(short.output).rows}
    of_teacher = seconds.pop("teacher") / (short.data.limit // config.batch_size)
    each = {method: spent / short.steps for method, spent in seconds.items()}
    runs = len(config.seeds) * len(config.label_fractions) * len(config.students)
    passes = TRAINING_TILES // config.batch_size * config.teacher_epochs
    return {
        "benchmark": "evidence",
        "form": "estimate",
        "seconds_a_step": {method: round(spent, 3) for method, spent in each.items()},
        "seconds_a_step_teacher": round(of_teacher, 3),
        "minutes_of_training": round((sum(each.values()) * runs * config.steps + of_teacher * passes) / 60),
    }


if __name__ == "__main__":
    sys.exit(main())
