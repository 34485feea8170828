"""``kdseg``: the work of the window without a window, from the same configurations.

Exit codes: 0 done, 2 something a person can mend (one plain sentence on stderr), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from napari_kdseg.errors import ConfigurationError, KdsegError, explain
from napari_kdseg.jobs import Done, Event, Failed, Job, Message, Step, Validated, start_in_thread

app = typer.Typer(
    name="kdseg",
    help="Knowledge distillation of pathology segmentation networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
annotation_commands = typer.Typer(help="Outlines and masks of slides.", no_args_is_help=True)
app.add_typer(annotation_commands, name="annotations")
console = Console(stderr=True)

Region = Annotated[
    str | None, typer.Option(help="y,x,height,width in level-0 pixels; the whole slide when absent.")
]
Colours = Annotated[
    str, typer.Option(help="What networks see: stored pixels, or srgb, after the slide's colour profile.")
]
SlideMpp = Annotated[float | None, typer.Option(help="Pixel size of a slide whose file names none, in µm.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Compression = Annotated[
    str, typer.Option(help="jpeg, deflate, lzw, zstd or none; auto: JPEG for TIFF of RGB, zstd for OME-Zarr.")
]
Quality = Annotated[int, typer.Option(help="Of JPEG, 1 to 100.")]
TileSide = Annotated[int | None, typer.Option(help="Side of a tile; 256, or 512 for OME-Zarr.")]
LevelStep = Annotated[
    int | None, typer.Option(help="How much coarser each level is: 2, or 4 as scanners have it (SVS).")
]
OmeZarr = Annotated[str, typer.Option(help="Version of OME-Zarr: 0.5 or 0.4.")]
Overwrite = Annotated[bool, typer.Option(help="Replace what is there.")]


def main() -> None:
    """Run ``kdseg``; failures are one sentence and exit code 2."""
    try:
        app()
    except KdsegError as error:
        _fail(str(error))
    except OSError as error:
        _fail(explain(error))
    except ValueError as error:
        if type(error).__name__ != "ValidationError":
            raise
        _fail(explain(error))


def _fail(sentence: str) -> None:
    console.print(sentence, style="red", highlight=False, soft_wrap=True)
    sys.exit(2)


# -- the commands ------------------------------------------------------------------------------------


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo-output"),
    quick: Annotated[bool, typer.Option(help="Less training and a smaller region: under a minute.")] = False,
    window: Annotated[bool, typer.Option(help="Open the window at the end, where there is a screen.")] = True,
) -> None:
    """Train a teacher team, distil a student, and look at all of it on a synthetic slide."""
    from napari_kdseg.demo import DemoConfig, demo, write_summary
    from napari_kdseg.widgets.virtual_display import has_display

    config = DemoConfig(output=output, quick=quick)
    result = _run(demo, config)
    from napari_kdseg.widgets.view import screenshot, show

    places = {"stores": [result.masks], "annotation": result.slide, "region": result.view}
    screenshot(result.slide, output / "overlay.png", **places)
    screenshot(result.slide, output / "side-by-side.png", panes=True, **places)
    write_summary(result)
    console.print(f"Made {output}/overlay.png, summary.md, masks.ome.zarr, run/")
    if window and has_display():
        show(result.slide, run=result.run, **places)


@app.command()
def info(paths: Annotated[list[str], typer.Argument(help="Slides, checkpoints or run folders.")]) -> None:
    """Say what a slide, a checkpoint or a run folder is: levels, scale, codec, the reader and why, the hash."""
    for path in paths:
        print(f"{path}")
        for name, text in _facts(path):
            print(f"  {name + ':':<14}{text}")


@app.command()
def convert(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    output: Annotated[Path, typer.Argument(help="Name ending in .svs, .ome.tif, .tif or .ome.zarr.")],
    compression: Compression = "auto",
    quality: Quality = 85,
    tile: TileSide = None,
    step: LevelStep = None,
    ome_zarr: OmeZarr = "0.5",
    slide_mpp: SlideMpp = None,
    pictures: Annotated[
        bool, typer.Option(help="Keep label and macro in an SVS; a label may show the name of a patient.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Write a slide as pyramidal TIFF, OME-TIFF, OME-Zarr or SVS, with its scale and colour profile."""
    from napari_kdseg.slides.writing.convert import ConvertConfig
    from napari_kdseg.slides.writing.convert import convert as job

    config = ConvertConfig.model_validate(
        {
            "slide": slide, "output": output, "compression": compression, "quality": quality, "tile": tile,
            "step": step, "ome_zarr": ome_zarr, "mpp": slide_mpp, "pictures": pictures, "overwrite": overwrite,
        }
    )  # fmt: skip
    _print_written(_run(job, config, resumable=False))


@app.command()
def synth(
    output: Annotated[Path, typer.Argument(help="Name ending in .svs, .ome.tif, .tif or .ome.zarr.")],
    size: Annotated[str, typer.Option(help="Width x height in pixels.")] = "20000x16000",
    seed: Annotated[int, typer.Option(help="Another seed is another tissue.")] = 0,
    mpp: Annotated[float, typer.Option(help="Pixel size in µm; 0.25 is 40x.")] = 0.25,
    stain: Annotated[int, typer.Option(help="Number of the laboratory that stains it.")] = 0,
    folds: Annotated[bool, typer.Option(help="Folds of the tissue.")] = True,
    pen: Annotated[bool, typer.Option(help="Pen on the glass.")] = True,
    blur: Annotated[bool, typer.Option(help="Fields out of focus.")] = True,
    masks: Annotated[
        str, typer.Option(help="Masks to write, with commas: tissue, gland, tumour, classes; or none.")
    ] = "gland",
    compression: Compression = "auto",
    quality: Quality = 85,
    tile: TileSide = None,
    step: LevelStep = None,
    ome_zarr: OmeZarr = "0.5",
    overwrite: Overwrite = False,
) -> None:
    """Write a synthetic slide with its exact masks: labels of an OME-Zarr, or TIFF files beside it."""
    from napari_kdseg.slides.writing.synthesise import SynthConfig, synthesise

    width, height = _size(size)
    config = SynthConfig.model_validate(
        {
            "output": output, "width": width, "height": height, "seed": seed, "mpp": mpp, "stain": stain,
            "folds": folds, "pen": pen, "blur": blur, "compression": compression, "quality": quality,
            "masks": [name for name in masks.split(",") if name not in ("", "none")],
            "tile": tile, "step": step, "ome_zarr": ome_zarr, "overwrite": overwrite,
        }
    )  # fmt: skip
    result = _run(synthesise, config, resumable=False)
    _print_written(result.slide)
    for name, place in result.masks.items():
        print(f"  {name} mask: {place}")


@app.command()
def methods() -> None:
    """List the distillation methods: what each does, its equation and paper, and what it needs."""
    from napari_kdseg.distillation import METHODS

    for method in METHODS.values():
        needs = ", ".join(method.needs) or "nothing"
        print(f"{method.name}: {method.title}\n    {method.sentence}\n    {method.equation}")
        print(f"    needs {needs}. {method.reference}".rstrip())
        if method.presets:
            print("    variants: " + ", ".join(f"{method.name}:{preset}" for preset in method.presets))
    print("\nMethods add up: cwd+kd. A variant is named after a colon: plc-kd:sc.")
    print("@2 lets a method learn from the second teacher: kd+cwd@2.")


@app.command()
def distill(
    config: Annotated[
        Path | None, typer.Argument(help="A configuration saved by the window or by hand (JSON).")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with images/ and masks/.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; the same one again resumes the run.")
    ] = None,
    teacher: Annotated[
        list[str] | None,
        typer.Option(help="Architecture, or a checkpoint file; again for a second one, as in 'kd+cwd@2'."),
    ] = None,
    student: Annotated[str | None, typer.Option(help="Architecture, or a checkpoint file.")] = None,
    method: Annotated[
        str | None, typer.Option(help="plc-kd, coco, emkd, cwd+kd ...; see 'kdseg methods'.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting by its path: epochs=20, data.input_size=256."),
    ] = None,
) -> None:
    """Distil a student from a teacher."""
    from napari_kdseg.training import DistillConfig
    from napari_kdseg.training import distill as job

    values: dict[str, Any] = {}
    if config is not None:
        values = DistillConfig.load(config).model_dump(mode="json")
    _put(values, "data.folder", data and str(data))
    _put(values, "output", output and str(output))
    _put(values, "method", method)
    if teacher:
        first, *more = (_network(choice) for choice in teacher)
        values |= {"teacher": first, "more_teachers": more}
    if student is not None:
        values["student"] = _network(student)
    for assignment in set_ or []:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigurationError(
                f"--set wants name=value, not {assignment!r}; for instance --set epochs=20."
            )
        _put(values, path, _literal(text))
    if "data" not in values:
        raise ConfigurationError("Say where the tiles are: --data FOLDER, or a configuration file.")
    result = _run(job, DistillConfig.model_validate(values))
    for role, metrics in result.metrics.items():
        chosen = [f"{split}_{score}" for split in ("val", "test") for score in ("dice", "iou", "tile_dice")]
        scores = ", ".join(f"{name} {metrics[name]:.4f}" for name in chosen if name in metrics)
        print(f"{role}: {scores}")
    print(f"Everything else is in {result.run / 'report'}")


@app.command()
def predict(
    slides: Annotated[list[str], typer.Argument(help="Slides: files, folders, or synthetic:WxH.")],
    checkpoint: Annotated[Path, typer.Option(help="The network.")],
    output: Annotated[
        Path, typer.Option(help="Mask store *.ome.zarr; for several slides, a folder for them.")
    ],
    name: Annotated[str, typer.Option(help="Name of the mask in the store.")] = "student",
    region: Region = None,
    mpp: Annotated[
        float | None, typer.Option(help="Resolution to work at in µm per pixel; the model's own.")
    ] = None,
    slide_mpp: SlideMpp = None,
    colours: Colours = "stored",
    tile: Annotated[int, typer.Option(help="Side of an output tile.")] = 512,
    halo: Annotated[int, typer.Option(help="Context around a tile that is cropped away.")] = 64,
    batch_size: Annotated[int, typer.Option(help="Tiles in one forward pass.")] = 1,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    background: Annotated[bool, typer.Option(help="Also run the network where there is no tissue.")] = False,
    probabilities: Annotated[bool, typer.Option(help="Keep the probability of the predicted class.")] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a mask of this name made with other settings.")
    ] = False,
) -> None:
    """Segment slides into mask pyramids (OME-Zarr)."""
    from napari_kdseg.inference import PredictConfig
    from napari_kdseg.inference import predict as job

    for slide in slides:
        store = output if len(slides) == 1 else output / f"{Path(slide).stem}.ome.zarr"
        config = PredictConfig.model_validate(
            {
                "slide": slide, "checkpoint": checkpoint, "output": store, "name": name, "region": _region(region),
                "mpp": mpp, "slide_mpp": slide_mpp, "tile": tile, "halo": halo, "batch_size": batch_size,
                "device": device, "precision": precision, "skip_background": not background,
                "probabilities": probabilities, "overwrite": overwrite, "colours": colours,
            }
        )  # fmt: skip
        result = _run(job, config)
        print(
            f"{store}: label '{result.name}', {result.tiles_done} tiles segmented in {result.seconds:.1f} s "
            f"({result.mpx_per_s:.2f} Mpx/s), {result.tiles_skipped} of empty glass, {result.tiles_kept} there before"
        )


@app.command()
def correct(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    annotation: Annotated[
        str, typer.Option(help="Its mask: GeoJSON, XML, PNG, TIFF, OME-Zarr label, or synthetic:...")
    ],
    output: Annotated[Path, typer.Option(help="Mask store *.ome.zarr.")],
    run: Annotated[Path | None, typer.Option(help="Run folder whose teacher team corrects.")] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="Checkpoint of the teacher, without a run folder.")
    ] = None,
    region: Region = None,
    mpp: Annotated[
        float | None, typer.Option(help="Resolution to work at in µm per pixel; the teacher's own.")
    ] = None,
    slide_mpp: SlideMpp = None,
    colours: Colours = "stored",
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace a correction made with other settings.")] = False,
) -> None:
    """Correct the teacher's soft labels on an annotated slide and count who mended what."""
    from napari_kdseg.comparison import CorrectConfig
    from napari_kdseg.comparison import correct as job

    common: dict[str, Any] = {
        "slide": slide, "annotation": annotation, "output": output, "region": _region(region), "mpp": mpp,
        "slide_mpp": slide_mpp, "colours": colours, "device": device, "overwrite": overwrite,
    }  # fmt: skip
    if run is not None:
        config = CorrectConfig.from_run(run, **common)
    elif teacher is not None:
        config = CorrectConfig(teacher=teacher, **common)
    else:
        raise ConfigurationError("Say who corrects: --run FOLDER, or --teacher CHECKPOINT.")
    print(json.dumps(asdict(_run(job, config).counts), indent=2))


@app.command()
def view(
    slide: Annotated[str, typer.Argument(help="The slide.")],
    overlay: Annotated[list[Path] | None, typer.Option(help="Mask stores to lay over it.")] = None,
    annotation: Annotated[str | None, typer.Option(help="Its annotation.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder whose networks to load into the docks.")
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option(help="Write a picture instead of opening a window.")
    ] = None,
    region: Region = None,
    slide_mpp: SlideMpp = None,
    window: Annotated[
        bool, typer.Option("--window", help="Picture of the whole window with its docks.")
    ] = False,
    dock: Annotated[str, typer.Option(help="Dock to show in that picture.")] = "4 Compare",
    panes: Annotated[
        bool, typer.Option("--side-by-side", help="A pane each for teacher, correction, student.")
    ] = False,
    hide: Annotated[
        list[str] | None, typer.Option(help="Overlays not to show: teacher, stage, student ...")
    ] = None,
) -> None:
    """Open a slide with its overlays, or render it into a picture without a person."""
    from napari_kdseg.widgets import view as viewing

    places: dict[str, Any] = {
        "stores": overlay or [], "annotation": annotation, "slide_mpp": slide_mpp, "region": _region(region),
    }  # fmt: skip
    if screenshot is None:
        viewing.show(slide, run=run, **places)
    else:
        viewing.screenshot(
            slide, screenshot, window=window, run=run, dock=dock, panes=panes, hide=hide or [], **places
        )
        print(screenshot)


@annotation_commands.command("convert")
def convert_annotations(
    source: Annotated[
        Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; PNG or TIFF mask; OME-Zarr label.")
    ],
    target: Annotated[Path, typer.Argument(help="*.geojson, *.geojson.gz, *.xml; *.tif; *.ome.zarr.")],
    slide: Annotated[
        str | None, typer.Option(help="The slide they lie on; needed to make a mask of outlines.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names in the order of their indices: background,tumour,stroma.")
    ] = None,
    outside: Annotated[
        int | None, typer.Option(help="Outside of all outlines: 0 background, 255 not annotated.")
    ] = None,
    overlap: Annotated[
        str, typer.Option(help="On top where outlines overlap: smaller or later.")
    ] = "smaller",
    xml: Annotated[str, typer.Option(help="Program that an *.xml is for: asap or imagescope.")] = "asap",
    source_bounds: Annotated[
        bool, typer.Option("--source-bounds", help="IN counts from the scanned area (QuPath on MRXS).")
    ] = False,
    target_bounds: Annotated[
        bool, typer.Option("--target-bounds", help="OUT shall count from there.")
    ] = False,
    downsample: Annotated[
        float, typer.Option(help="Width of a pixel of the mask in pixels of the slide.")
    ] = 1.0,
    name: Annotated[str, typer.Option(help="Name of the label in an OME-Zarr.")] = "annotation",
    overwrite: Annotated[bool, typer.Option(help="Replace a file or label that is there.")] = False,
) -> None:
    """Convert annotations between QuPath, ASAP, ImageScope, TIFF masks and OME-Zarr labels."""
    from napari_kdseg.inference.annotation_export import ConvertAnnotationsConfig, convert_annotations

    config = ConvertAnnotationsConfig.model_validate(
        {
            "source": source, "target": target, "slide": slide, "outside": outside, "overlap": overlap, "xml": xml,
            "classes": None if classes is None else tuple(part.strip() for part in classes.split(",")),
            "source_bounds": source_bounds, "target_bounds": target_bounds, "downsample": downsample,
            "name": name, "overwrite": overwrite,
        }
    )  # fmt: skip
    result = _run(convert_annotations, config)
    count = "a mask" if result.shapes is None else f"{result.shapes} annotations"
    print(f"{target}: {count}, classes {', '.join(result.classes) or 'none'}")


# -- running jobs ------------------------------------------------------------------------------------


def _run(job: Job, config: Any, *, resumable: bool = True) -> Any:
    """Run ``job`` in a thread, show its progress here, stop it in good order on Ctrl-C; return its result."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=console,
        transient=True,
    ) as progress:
        display = _Display(progress)
        running = start_in_thread(job, config, display.show)
        try:
            while not running.join(0.2):
                pass
        except KeyboardInterrupt:
            kept = "what is done is kept" if resumable else "nothing half-written stays"
            console.print(f"Stopping after this step; {kept} …")
            running.control.cancel()
            running.join()
    if isinstance(running.end, Failed):
        raise KdsegError(running.end.message)
    if not isinstance(running.end, Done):
        console.print("Stopped. The same command goes on from here." if resumable else "Stopped.")
        sys.exit(130)
    return running.end.result


class _Display:
    """Puts a job's events on the terminal: a bar a stage, a line a message."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.bars: dict[str, Any] = {}
        self.lock = threading.Lock()

    def show(self, event: Event) -> None:
        with self.lock:
            if isinstance(event, Step):
                self._step(event)
            elif isinstance(event, Message):
                console.print(
                    event.text, style="yellow" if event.level == "warning" else None, highlight=False
                )
            elif isinstance(event, Validated):
                scores = ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
                console.print(f"{event.stage}, epoch {event.epoch}/{event.epochs}: {scores}", highlight=False)

    def _step(self, event: Step) -> None:
        if event.stage not in self.bars:
            self.bars[event.stage] = self.progress.add_task(event.stage.replace("_", " "), figures="")
        figures = " ".join(f"{name} {value:.3g}" for name, value in list(event.values.items())[:4])
        self.progress.update(self.bars[event.stage], completed=event.done, total=event.total, figures=figures)


# -- small things ------------------------------------------------------------------------------------


def _facts(path: str) -> list[tuple[str, str]]:
    place = Path(path)
    if (place / "config.json").is_file():
        return _run_facts(place)
    if place.suffix in (".safetensors", ".pt", ".pth") or (place / "model.safetensors").is_file():
        from napari_kdseg.networks import count_parameters, load

        checkpoint = load(place)
        spec = checkpoint.spec.model_dump(exclude={"versions", "options"})
        return [
            *((n, str(v)) for n, v in spec.items()),
            ("parameters", f"{count_parameters(checkpoint.module):,}"),
        ]
    from napari_kdseg.slides import describe_in_full, open_slide

    with open_slide(path) as slide:
        return describe_in_full(slide)


def _run_facts(folder: Path) -> list[tuple[str, str]]:
    config = json.loads((folder / "config.json").read_text())
    facts = [
        (name, str(config[name])) for name in ("method", "teacher", "student", "epochs") if name in config
    ]
    summary = folder / "report" / "summary.json"
    facts.append(
        (
            "state",
            "finished"
            if summary.is_file()
            else "not finished; kdseg distill with its config.json resumes it",
        )
    )
    if summary.is_file():
        facts += [(name, json.dumps(value)) for name, value in json.loads(summary.read_text()).items()]
    return facts


def _network(choice: str) -> dict[str, str]:
    return {"checkpoint" if Path(choice).exists() else "architecture": choice}


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set ``values[a][b] = value`` for the path ``a.b``; ``None`` leaves what is there."""
    if value is None:
        return
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def _size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise ConfigurationError(f"A size is width x height in pixels, as in 20000x16000, not {text!r}.")
    return int(width), int(height)


def _print_written(written: Any) -> None:
    height, width = written.shapes[0]
    print(
        f"{written.output}: {width:,} x {height:,}, {len(written.shapes)} levels, {written.bytes / 1e6:,.1f} MB"
    )


def _literal(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _region(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        y, x, height, width = (int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigurationError(f"A region is y,x,height,width in level-0 pixels, not {text!r}.") from error
    return y, x, height, width
