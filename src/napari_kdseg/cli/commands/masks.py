"""Commands about masks on slides: the demo, prediction, correction, and looking at them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_kdseg.cli.app import AllowCode, Region, SlideMpp, app, console, region_of
from napari_kdseg.cli.options import options_of
from napari_kdseg.cli.running import run as run_job
from napari_kdseg.comparison.config import CorrectConfig
from napari_kdseg.errors import ConfigurationError, KdsegError
from napari_kdseg.inference.config import PredictConfig
from napari_kdseg.masks.export.config import ExportConfig
from napari_kdseg.synthetic.address import SCHEME

if TYPE_CHECKING:
    from napari_kdseg.inference import PredictResult


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
    result = run_job(demo, config)
    from napari_kdseg.widgets.view import screenshot, show

    shown = {"stores": [result.masks], "annotation": result.slide, "region": result.view}
    screenshot(result.slide, output / "overlay.png", **shown)
    screenshot(result.slide, output / "side-by-side.png", panes=True, **shown)
    write_summary(result)
    console.print(f"Made {output}/overlay.png, summary.md, masks.ome.zarr, run/")
    if window and has_display():
        show(result.slide, run=result.run, **shown)


@app.command()
@options_of(
    PredictConfig,
    without=("slide", "networks", "first"),
    flags={"skip_background": "--skip-background/--background"},
)
def predict(
    slides: Annotated[
        list[str], typer.Argument(help="Slides: files, folders, folders of slides, or synthetic:WxH.")
    ],
    checkpoint: Annotated[list[Path], typer.Option(help="A network; several go over the slide in one pass.")],
    output: Annotated[
        Path, typer.Option(help="Mask store *.ome.zarr; for several slides, a folder for them.")
    ],
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name of the mask of each network in the store; that of its file."),
    ] = None,
    region: Region = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a dask scheduler, tcp://host:8786, whose workers predict; local: workers here, as for "
            "several slides; none: one slide after the other in this program."
        ),
    ] = None,
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
    *,
    settings: dict[str, Any],
) -> None:
    """Segment slides into mask pyramids (OME-Zarr)."""
    from napari_kdseg.slides import slides_in

    networks = _by_name(name or [], checkpoint)
    found = [slide for place in slides for slide in slides_in(place)]
    several = len(found) > 1 or found != slides
    configs = [
        PredictConfig.model_validate(
            {
                "slide": slide, "networks": networks,
                "output": output / f"{_stem(slide)}.ome.zarr" if several else output,
                "region": region_of(region), **settings,
            }
        )
        for slide in found
    ]  # fmt: skip
    if scheduler == "none" or (scheduler is None and not several):
        _predict_here(configs)
    else:
        _predict_there(configs, scheduler or "local")


def _by_name(given: list[str], checkpoints: list[Path]) -> dict[str, Path]:
    """Return the networks by the names of their masks: those given, then those of their files."""
    names = [*given, *(path.name.split(".")[0] for path in checkpoints[len(given) :])]
    if len(set(names)) != len(checkpoints):
        raise ConfigurationError(
            f"{len(checkpoints)} networks need as many different names, not {', '.join(names)}. Give --name for each."
        )
    return dict(zip(names, checkpoints, strict=True))


def _predict_here(configs: list[PredictConfig]) -> None:
    from napari_kdseg.inference import predict as job

    for config in configs:
        _tell(run_job(job, config))


def _predict_there(configs: list[PredictConfig], scheduler: str) -> None:
    from napari_kdseg.inference.cluster import PredictManyConfig, predict_many

    result = run_job(predict_many, PredictManyConfig(slides=tuple(configs), scheduler=scheduler))
    for done in result.stores.values():
        _tell(done)
    if result.failures:
        raise KdsegError("Not predicted: " + " ".join(result.failures.values()))


def _tell(result: PredictResult) -> None:
    for mask in result.masks.values():
        print(
            f"{result.output}: label '{mask.name}', {mask.tiles_done} tiles segmented in {mask.seconds:.1f} s "
            f"({mask.mpx_per_s:.2f} Mpx/s), {mask.tiles_skipped} of empty glass, {mask.tiles_kept} there before"
        )
        print(f"  {mask.plan.describe()}")


def _stem(slide: str) -> str:
    name = Path(slide.removeprefix(SCHEME).replace("?", "-").replace("&", "-")).name
    return Path(name.removesuffix(".ome.zarr")).stem if Path(slide).exists() else name


@app.command()
@options_of(
    ExportConfig,
    without=("stores", "output", "names"),
    flags={"kinds": "--as", "compress": "--gzip", "bounds": "--bounds/--no-bounds"},
)
def export(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Mask stores *.ome.zarr, or folders of them; at the end the folder for the files."
        ),
    ],
    name: Annotated[list[str] | None, typer.Option(help="Which masks; all of classes when absent.")] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Write masks for other programs: outlines with measurements, areas of each class, pyramidal TIFF, DICOM SEG."""
    from napari_kdseg.masks import export_masks as job

    if len(paths) < 2:
        raise ConfigurationError("Say where the files shall go: kdseg export MASKS.ome.zarr FOLDER.")
    *stores, output = paths
    config = ExportConfig.model_validate(
        {"stores": tuple(stores), "output": output, "names": tuple(name or ()), **settings}
    )
    for file in run_job(job, config, resumable=False):
        print(file)


@app.command()
@options_of(CorrectConfig, without=("teacher", "false_pixel_assistant", "boundary_assistant", "settings"))
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
    allow_code: AllowCode = None,  # noqa: ARG001 - what is named is allowed while options are read
    *,
    settings: dict[str, Any],
) -> None:
    """Correct the teacher's soft labels on an annotated slide and count who mended what."""
    from napari_kdseg.comparison import correct as job

    common: dict[str, Any] = {
        "slide": slide, "annotation": annotation, "output": output, "region": region_of(region), **settings,
    }  # fmt: skip
    if run is not None:
        config = CorrectConfig.from_run(run, **common)
    elif teacher is not None:
        config = CorrectConfig(teacher=teacher, **common)
    else:
        raise ConfigurationError("Say who corrects: --run FOLDER, or --teacher CHECKPOINT.")
    print(json.dumps(asdict(run_job(job, config).counts), indent=2))


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
        list[str] | None, typer.Option(help="Overlays not to show: teacher, mended_by, student ...")
    ] = None,
) -> None:
    """Open a slide with its overlays, or render it into a picture without a person."""
    from napari_kdseg.widgets import view as viewing

    shown: dict[str, Any] = {
        "stores": overlay or [], "annotation": annotation, "slide_mpp": slide_mpp, "region": region_of(region),
    }  # fmt: skip
    if screenshot is None:
        viewing.show(slide, run=run, **shown)
    else:
        viewing.screenshot(
            slide, screenshot, window=window, run=run, dock=dock, panes=panes, hide=hide or [], **shown
        )
        print(screenshot)
