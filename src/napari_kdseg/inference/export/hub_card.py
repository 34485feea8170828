"""The card of a network in the form of Hugging Face: a README.md with what is known of it, and what it is not for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_kdseg.errors import ConfigurationError
from napari_kdseg.networks import NetworkSpec
from napari_kdseg.networks.foreign.onnx_file import OnnxFacts

UNKNOWN = "not recorded"
FILES = {
    "onnx": "ONNX for onnxruntime: input `image`, float32 `[N, channels, height, width]`, output `logits`",
    "pt2": "PyTorch ExportedProgram: `torch.export.load(...).module()`; two multiples a side at least",
    "safetensors": "weights with the description in the header, for napari-kdseg",
}


@dataclass(frozen=True)
class Facts:
    """What the network itself tells.

    Attributes
    ----------
    stem
        Name of its files.
    spec, onnx
        Its description, and what was measured of it.
    multiply_adds, side
        Of one image of ``side`` x ``side`` pixels.
    differences
        Format -> largest difference of a logit from PyTorch's.
    """

    stem: str
    spec: NetworkSpec
    onnx: OnnxFacts
    multiply_adds: int
    side: int
    differences: dict[str, float]


@dataclass(frozen=True)
class TrainingRecord:
    """The run that a network comes from: its configuration, and its report if it is finished."""

    config: dict[str, Any]
    summary: dict[str, Any]


def training_record(checkpoint: Path, given: Path | None) -> TrainingRecord | None:
    """Read the run that ``checkpoint`` lies in, or the one given; ``None`` if it lies in none.

    Raises
    ------
    ConfigurationError
        If the folder given holds no run.
    """
    inside = checkpoint.resolve().parent
    folder = given or (inside.parent if inside.name == "checkpoints" else None)
    if folder is None:
        return None
    config = _json(folder / "config.json")
    if not config:
        if given is None:
            return None
        raise ConfigurationError(
            f"{folder} holds no run: it has no readable config.json. Choose a run folder."
        )
    return TrainingRecord(config, _json(folder / "report" / "summary.json"))


def hub_card(facts: Facts, run: TrainingRecord | None) -> str:
    """Write the card, in Markdown."""
    spec = facts.spec
    sections = [
        _front_matter(spec),
        f"# {facts.stem}: {spec.architecture}\n\nA network that segments histology images into "
        f"{len(spec.classes)} classes, written by napari-kdseg.",
        _section("Intended use", INTENDED),
        _section("Classes", _classes(spec)),
        _section("Input", _input(facts)),
        _section("Training", _training(spec, run)),
        _section("Data", _data(run)),
        _section("Metrics", _metrics(facts, run)),
        _section("Cost", _cost(facts)),
        _section("Files", _files(facts)),
        _section("Use", _use(facts)),
        _section(
            "Made with", "\n".join(f"- {name} {number}" for name, number in spec.versions.items()) or UNKNOWN
        ),
    ]
    return "\n\n".join(sections) + "\n"


INTENDED = (
    "Research on images of the same tissue, stain, scanner and resolution as those it was trained on.\n\n"
    "**Not for diagnosis.** It is no medical device and was not validated for clinical use. Do not base decisions "
    "about patients on it. On other tissue, stains or scanners its results mean nothing until they were checked there "
    "by a person who knows them."
)


def _front_matter(spec: NetworkSpec) -> str:
    tags = [
        "image-segmentation",
        "histopathology",
        "napari-kdseg",
        *(["knowledge-distillation"] if spec.method else []),
    ]
    lines = ["---", "library_name: napari-kdseg", "pipeline_tag: image-segmentation", "tags:"]
    return "\n".join([*lines, *(f"- {tag}" for tag in tags), "---"])


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _classes(spec: NetworkSpec) -> str:
    colours = spec.colours or ("",) * len(spec.classes)
    rows = [(str(index), name, colours[index]) for index, name in enumerate(spec.classes)]
    return _table(("index", "class", "colour"), rows)


def _input(facts: Facts) -> str:
    spec, radius = facts.spec, facts.onnx.radius
    sees = (
        "the whole image: blend neighbouring tiles" if radius is None else f"{radius} px around every pixel"
    )
    rows = [
        ("channels", str(spec.in_channels)),
        ("values", "`(pixel / 255 - mean) / std`"),
        ("mean", ", ".join(f"{value:.6g}" for value in spec.mean)),
        ("std", ", ".join(f"{value:.6g}" for value in spec.std)),
        ("micrometres per pixel", f"{spec.mpp:g}" if spec.mpp else UNKNOWN),
        ("side of the training patches", f"{spec.input_size} px" if spec.input_size else UNKNOWN),
        ("height and width", f"multiples of {facts.onnx.multiple} px"),
        ("sees (exact halo)", sees),
    ]
    return _table(("what", "value"), rows)


def _training(spec: NetworkSpec, run: TrainingRecord | None) -> str:
    told = run.config.get("method") if run is not None else None
    rows = [("method", spec.method or told or "labels alone, or not recorded")]
    if run is not None:
        config = run.config
        rows += [("reference", str(run.summary["reference"]))] if run.summary.get("reference") else []
        rows += [
            (name.replace("_", " "), text)
            for name in ("teacher", "student")
            if (text := _network(config.get(name)))
        ]
        rows += [
            (name.replace("_", " "), str(config[name]))
            for name in ("teacher_epochs", "epochs", "batch_size", "seed")
            if config.get(name) is not None
        ]
    return _table(("what", "value"), rows)


def _network(choice: Any) -> str:
    if not isinstance(choice, dict):
        return ""
    return str(choice.get("architecture") or Path(str(choice.get("checkpoint") or "")).name)


def _data(run: TrainingRecord | None) -> str:
    if run is None:
        return f"The data it was trained on were {UNKNOWN} with the checkpoint."
    data = run.config.get("data") or {}
    rows = [("folder", Path(str(data.get("folder") or UNKNOWN)).name)]
    tiles = run.summary.get("tiles")
    rows += [(f"tiles for {split}", str(count)) for split, count in (tiles or {}).items()]
    if data.get("mpp"):
        rows.append(("micrometres per pixel", f"{data['mpp']:g}"))
    return _table(("what", "value"), rows)


def _metrics(facts: Facts, run: TrainingRecord | None) -> str:
    networks = run.summary.get("networks", {}) if run is not None else {}
    metrics = networks.get(facts.stem, {}).get("metrics") or facts.spec.metrics
    if not metrics:
        return f"Scores were {UNKNOWN}."
    rows = [(name.replace("_", " "), f"{value:.4f}") for name, value in metrics.items() if value is not None]
    return _table(("score", "value"), rows)


def _cost(facts: Facts) -> str:
    rows = [
        ("parameters", f"{facts.onnx.parameters:,}"),
        (f"multiply-adds of {facts.side} x {facts.side} px", f"{facts.multiply_adds / 1e9:.3f} G"),
    ]
    return _table(("what", "value"), rows)


def _files(facts: Facts) -> str:
    rows = [
        (f"`{facts.stem}.{kind}`", FILES[kind], f"{difference:.1e}")
        for kind, difference in facts.differences.items()
    ]
    note = "The difference is the largest of a logit from PyTorch's, on noise of two sizes."
    return _table(("file", "what", "difference"), rows) + f"\n\n{note}"


def _use(facts: Facts) -> str:
    kind = next(iter(facts.differences))
    lines = [f"kdseg predict slide.svs --checkpoint {facts.stem}.{kind} --output slide.ome.zarr"]
    text = "" if kind == "pt2" else "```\n" + "\n".join(lines) + "\n```"
    if "onnx" in facts.differences:
        text += (
            "\n\n```python\nimport onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{facts.stem}.onnx")\n'
            '(logits,) = session.run(["logits"], {"image": image})  # float32 [N, channels, height, width]\n'
            "classes = logits.argmax(axis=1)\n```"
        )
    if "pt2" in facts.differences:
        text += (
            "\n\n```python\nimport torch\n\n"
            f'network = torch.export.load("{facts.stem}.pt2").module()\nlogits = network(image)\n```'
        )
    return text.strip()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
