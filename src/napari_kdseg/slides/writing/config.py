"""What the jobs that write slides are told: pydantic models that load no library of images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from napari_kdseg.settings import setting
from napari_kdseg.slides.formats import WrittenFormat, written_format, written_suffix
from napari_kdseg.synthetic.address import Look, format_address

Compression = Literal["auto", "jpeg", "deflate", "lzw", "zstd", "none"]
MaskName = Literal["tissue", "gland", "tumour", "classes"]
DEFAULT_TILE = {"ome-zarr": 512}


class WriteConfig(BaseModel):
    """How a slide is written; the suffix of the output says the format."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Path = setting(title="Output", description="File or folder; its suffix says the format.")
    compression: Compression = setting(
        default="auto",
        title="Compression",
        description="jpeg, deflate, lzw, zstd or none; auto: JPEG for TIFF of RGB, deflate for other TIFF, zstd for "
        "OME-Zarr.",
    )
    quality: int = setting(default=85, ge=1, le=100, title="Quality", description="Of JPEG, 1 to 100.")
    tile: int | None = setting(
        default=None,
        ge=64,
        le=4096,
        multiple_of=16,
        title="Tile (pixels)",
        description="Side of a tile; 256, or 512 for OME-Zarr.",
    )
    step: Literal[2, 4] | None = setting(
        default=None,
        title="Step",
        description="How much coarser each level is: 2, or 4 as scanners have it (SVS).",
    )
    ome_zarr: Literal["0.4", "0.5"] = setting(
        default="0.5", title="OME-Zarr", description="Version of OME-Zarr: 0.5 or 0.4."
    )
    overwrite: bool = setting(default=False, title="Replace", description="Replace what is there.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format == "ome-zarr" and self.compression not in ("auto", "zstd", "none"):
            raise ValueError(f"OME-Zarr is written with zstd or none, not {self.compression}")
        return self

    @property
    def format(self) -> WrittenFormat:
        """Which one the suffix asks for."""
        return written_format(self.output)

    @property
    def in_folder(self) -> bool:
        """Whether the format is a folder of many files."""
        return self.format == "ome-zarr"

    @property
    def tile_side(self) -> int:
        """Side of a tile."""
        return self.tile or DEFAULT_TILE.get(self.format, 256)

    @property
    def level_step(self) -> int:
        """How much coarser each level is than the one before."""
        return self.step or (4 if self.format == "svs" else 2)


class ConvertConfig(WriteConfig):
    """Which slide is written, and how."""

    slide: str = setting(min_length=1, title="Slide", description="Path of the slide, or 'synthetic:...'.")
    mpp: float | None = setting(
        default=None,
        gt=0,
        allow_inf_nan=False,
        title="Pixel size (µm)",
        description="Pixel size of a slide whose file names none, in µm.",
    )
    pictures: bool = setting(
        default=False,
        title="Pictures",
        description="Keep label and macro in an SVS; a label may show the name of a patient.",
    )


class SynthConfig(WriteConfig):
    """A synthetic slide, and how it is written."""

    width: int = setting(default=20_000, ge=1, le=2**24, title="Width", description="Pixels of level 0.")
    height: int = setting(default=16_000, ge=1, le=2**24, title="Height", description="Pixels of level 0.")
    seed: int = setting(default=0, title="Seed", description="Another seed is another tissue.")
    mpp: float = setting(
        default=0.25, ge=0.01, le=100, title="Pixel size (µm)", description="Pixel size in µm; 0.25 is 40x."
    )
    stain: int = setting(
        default=0, ge=0, title="Stain", description="Number of the laboratory that stains it."
    )
    folds: bool = setting(default=True, title="Folds", description="Folds of the tissue.")
    pen: bool = setting(default=True, title="Pen", description="Pen on the glass.")
    blur: bool = setting(default=True, title="Blur", description="Fields out of focus.")
    masks: tuple[MaskName, ...] = setting(
        default=("gland",),
        title="Masks",
        description="Masks to write, with commas: tissue, gland, tumour, classes; or none. They become labels of an "
        "OME-Zarr, or TIFF files beside any other format.",
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.masks)) < len(self.masks):
            raise ValueError("every mask can be written once")
        return self

    def address(self, mask: str = "gland") -> str:
        """Return the address of the slide that is meant, with one of its masks."""
        look = Look(self.seed, self.mpp, self.stain, self.folds, self.pen, self.blur)
        return format_address((self.height, self.width), look, mask)

    def mask_path(self, name: str) -> Path:
        """Return where a mask goes that is a file of its own."""
        stem = self.output.name[: -len(written_suffix(self.output))]
        return self.output.with_name(f"{stem}.{name}.tif")
