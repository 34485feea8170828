"""Whatever goes wrong ends in a plain sentence, or in the bytes of a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tifffile
from torch import nn

from napari_kdseg.inference import PredictConfig, predict
from napari_kdseg.inference.network import loading
from napari_kdseg.jobs import Done, Failed, Message, Step, run_inline
from napari_kdseg.masks import open_masks
from napari_kdseg.networks import Checkpoint, NetworkSpec
from napari_kdseg.slides import open_slide

SLIDE = "synthetic:600x400?seed=1&mpp=0.5"


def config(tmp_path, checkpoint, name="masks", **changes) -> PredictConfig:
    settings = {
        "slide": SLIDE,
        "networks": {"student": checkpoint},
        "output": tmp_path / f"{name}.ome.zarr",
        "tile": 128,
        "halo": 32,
        "batch_size": 1,
        "precision": "float32",
    }
    return PredictConfig(**{**settings, **changes})


def chunks(path) -> dict[str, bytes]:
    found = (item for item in sorted(path.rglob("c/*/*")) if item.is_file())
    return {str(item.relative_to(path)): item.read_bytes() for item in found}


def messages(job) -> list[str]:
    return [event.text for event in job.history if isinstance(event, Message)]


def write_slide(path, pixels):
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(128, 128), compression="deflate", resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    return str(path)


@pytest.fixture
def pixels() -> np.ndarray:
    with open_slide(SLIDE) as slide:
        return slide.read(0, 0, 0, 400, 600)


def test_unreadable_tiles_are_grey_counted_and_told_once(tmp_path, checkpoint, pixels):
    whole, damaged = (tmp_path / f"{name}.tif" for name in ("whole", "damaged"))
    write_slide(damaged, pixels)
    with tifffile.TiffFile(damaged) as tiff:
        places = [(tiff.pages[0].dataoffsets[index], tiff.pages[0].databytecounts[index]) for index in (6, 7)]
    with damaged.open("r+b") as file:
        for offset, count in places:
            file.seek(offset)
            file.write(b"\xff" * count)
    grey = pixels.copy()
    grey[128:256, 128:384] = 128  # tiles 6 and 7 of 5 in a row
    write_slide(whole, grey)

    job = run_inline(predict, config(tmp_path, checkpoint, slide=str(damaged), skip_background=False))
    assert isinstance(job.end, Done), job.end
    told = [text for text in messages(job) if "could not be read" in text]
    assert len(told) == 1
    assert told[0].startswith("2 tiles of damaged.tif")
    mask = open_masks(job.end.result.output)["student"]
    assert mask.metadata["unreadable_tiles"] == 2
    assert (np.asarray(mask.levels[0]) != 255).all()
    same = run_inline(predict, config(tmp_path, checkpoint, "whole", slide=str(whole), skip_background=False))
    assert chunks(job.end.result.output) == chunks(same.end.result.output)
    assert open_masks(same.end.result.output)["student"].metadata["unreadable_tiles"] == 0
    # A later run over the same mask reads nothing and still knows.
    again = run_inline(predict, config(tmp_path, checkpoint, slide=str(damaged), skip_background=False))
    assert [text for text in messages(again) if "could not be read" in text] == told


def test_a_full_disk_is_explained_and_the_next_run_goes_on(tmp_path, checkpoint):
    """A limit on the size of files stands in for a disk that is full: both fail in the middle of a write."""
    resource = pytest.importorskip("resource", reason="limits on the size of files are a matter of Unix")
    expected = run_inline(predict, config(tmp_path, checkpoint, "undisturbed", skip_background=False))
    settings = config(tmp_path, checkpoint, skip_background=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk(event):
        if isinstance(event, Step) and event.done == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30, before[1]))

    try:
        job = run_inline(predict, settings, fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert isinstance(job.end, Failed)
    assert "could not be written" in job.end.message
    assert "What was finished before is kept" in job.end.message
    end = run_inline(predict, settings).end
    assert isinstance(end, Done), end
    assert end.result.masks["student"].tiles_kept >= 5
    assert chunks(settings.output) == chunks(expected.end.result.output)


@pytest.mark.parametrize("what", ["file", "folder", "store"])
def test_something_else_in_the_way_is_left_alone(tmp_path, checkpoint, make_network, what):
    settings = config(tmp_path, checkpoint)
    if what == "file":
        settings.output.write_bytes(b"precious")
    elif what == "folder":
        settings.output.mkdir()
        (settings.output / "holiday.jpg").write_bytes(b"precious")
    else:
        other = make_network(tmp_path / "other.safetensors", seed=3, mpp=0.5)
        run_inline(predict, settings.model_copy(update={"networks": {"student": other}}))
    before = {item: item.read_bytes() for item in tmp_path.rglob("*") if item.is_file()}
    end = run_inline(predict, settings).end
    assert isinstance(end, Failed)
    assert "Choose another name" in end.message
    after = {item: item.read_bytes() for item in tmp_path.rglob("*") if item.is_file()}
    assert after == before


def test_two_runs_on_one_output_do_not_disturb_each_other(tmp_path, checkpoint):
    settings = config(tmp_path, checkpoint, skip_background=False)
    others = []

    def run_another(event):
        if isinstance(event, Step) and not others:
            others.append(run_inline(predict, settings).end)

    end = run_inline(predict, settings, run_another).end
    assert isinstance(others[0], Failed)
    assert "Another job is writing this mask" in others[0].message
    assert isinstance(end, Done), end
    expected = run_inline(predict, config(tmp_path, checkpoint, "undisturbed", skip_background=False)).end
    assert chunks(settings.output) == chunks(expected.result.output)


class Halving(nn.Module):
    """Gives an output half as large as its input, of so many classes."""

    def __init__(self, classes: int):
        super().__init__()
        self.layer = nn.Conv2d(3, classes, 3, stride=2, padding=1)

    def forward(self, image):
        return self.layer(image)


@pytest.mark.parametrize(
    ("module", "shape"), [(Halving(3), r"\[1, 3, 16, 16\]"), (nn.Conv2d(3, 5, 1), r"\[1, 5, 32, 32\]")]
)
def test_a_network_with_another_output_is_refused_before_anything_is_made(
    tmp_path, monkeypatch, make_network, module, shape
):
    path = make_network(tmp_path / "wrong.safetensors", seed=0, mpp=0.5)
    spec = NetworkSpec(architecture="enet", classes=("background", "a", "b"), mpp=0.5)
    monkeypatch.setattr(loading, "load", lambda path, device: Checkpoint(module, spec, path))
    loading._load.cache_clear()
    end = run_inline(predict, config(tmp_path, path)).end
    loading._load.cache_clear()
    assert isinstance(end, Failed)
    assert "wrong.safetensors gives an output of shape [" in end.message
    assert "a mask of its 3 classes needs" in end.message
    assert not list(tmp_path.glob("*.ome.zarr"))


def test_a_slide_without_tissue_is_background_and_says_so(tmp_path, checkpoint):
    slide = write_slide(tmp_path / "glass.tif", np.full((400, 600, 3), 245, np.uint8))
    job = run_inline(predict, config(tmp_path, checkpoint, slide=slide))
    assert isinstance(job.end, Done), job.end
    assert [text for text in messages(job) if "No tissue was found on glass.tif" in text]
    mask = open_masks(job.end.result.output)["student"]
    assert (np.asarray(mask.levels[0]) == 0).all()
    assert job.end.result.masks["student"].tiles_done == 0


def test_a_slide_without_a_pixel_size_gives_the_bytes_of_full_resolution(
    tmp_path, checkpoint, slide_without_mpp
):
    unknown = run_inline(predict, config(tmp_path, checkpoint, slide=str(slide_without_mpp)))
    assert [text for text in messages(unknown) if "slide has no pixel size" in text]
    known = run_inline(
        predict, config(tmp_path, checkpoint, "known", slide=str(slide_without_mpp), slide_mpp=0.5)
    )
    assert chunks(unknown.end.result.output) == chunks(known.end.result.output)


PROGRAM = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from napari_kdseg.inference import PredictConfig, prediction
    from napari_kdseg.jobs import Control
    from napari_kdseg.masks.writing.journal import Journal
    from napari_kdseg.masks.writing.pyramid_writer import PyramidWriter
    from napari_kdseg.masks.writing.writer import MaskWriter

    settings = PredictConfig.model_validate_json(sys.argv[1])
    HOMES = {"Journal": Journal, "PyramidWriter": PyramidWriter, "MaskWriter": MaskWriter}

    def killed_at(place, times):
        home, name = place.split(".")
        method, calls = getattr(HOMES[home], name), []

        def call(self, *arguments, **options):
            calls.append(0)
            if len(calls) == times:
                os.kill(os.getpid(), signal.SIGKILL)
            return method(self, *arguments, **options)

        setattr(HOMES[home], name, call)

    for moment in sys.argv[2:]:
        place, times = moment.split(":")
        child = os.fork()  # nothing has been computed here, so a fork is as good as a start
        if child == 0:
            killed_at(place, int(times))
            prediction.predict(settings, lambda event: None, Control())
            os._exit(0)
        print(moment, -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="SIGKILL and fork are a matter of Unix")
def test_killed_at_any_step_of_writing_it_goes_on_to_the_same_bytes(tmp_path, checkpoint):
    expected = run_inline(predict, config(tmp_path, checkpoint, "undisturbed", probabilities=True, threads=1))
    settings = config(tmp_path, checkpoint, probabilities=True, threads=1)
    moments = [
        "MaskWriter._catch_up:1",  # the masks were only just made
        "PyramidWriter.carry:4",  # chunks durable, not in the journal
        "Journal.append:3",
        "MaskWriter.commit:2",  # in the journal, not in the coarser levels
        "PyramidWriter.commit:2",
        "Journal.append_pyramid:1",
        "MaskWriter.finish:1",
        "MaskWriter._update:3",  # everything there, not marked as complete
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, settings.model_dump_json(), *moments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ends = dict(line.split() for line in done.stdout.splitlines())
    assert ends == {moment: str(int(signal.SIGKILL)) for moment in moments}, done.stderr
    end = run_inline(predict, settings).end
    assert isinstance(end, Done), end
    assert chunks(settings.output) == chunks(expected.end.result.output)
    assert open_masks(settings.output)["student"].metadata["status"] == "complete"
    metadata = json.loads((settings.output / "labels" / "student" / "zarr.json").read_text())["attributes"][
        "kdseg"
    ]
    assert metadata["regions"] == [None]
