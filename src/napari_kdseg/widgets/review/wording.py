"""Figures of a region as people read them."""

from __future__ import annotations

from napari_kdseg.codes import Difference
from napari_kdseg.comparison.regions.table import Region, RegionTable

SMALL_MM2 = 0.001
"""Below it an area is said in square micrometres."""


def area_text(area: float, *, scaled: bool = True) -> str:
    """Put an area in mm² into words; in pixels where there is no scale."""
    if not scaled:
        return f"{area:,.0f} px"
    if area < SMALL_MM2:
        return f"{area * 1e6:,.0f} µm²" if area else "0 mm²"
    return f"{area:,.1f} mm²" if area >= 1 else f"{area:.2g} mm²"


def area_of(region: Region) -> str:
    """Return the area of a region in words."""
    if region.area_mm2 is None:
        return area_text(region.area_px, scaled=False)
    return area_text(region.area_mm2)


def area_figure(region: Region) -> str:
    """Return the area of a region as a bare number: of mm², or of pixels without a scale."""
    if region.area_mm2 is None:
        return f"{region.area_px:,}"
    return f"{region.area_mm2:,.1f}" if region.area_mm2 >= 1 else f"{region.area_mm2:.2g}"


def gap_of(region: Region) -> str:
    """Return the confidence gap of a region, or a dash where it is not known."""
    return "–" if region.gap is None else f"{region.gap:.2f}"


def depth_figure(region: Region) -> str:
    """Return how deep a region is as a bare number: of micrometres, or of pixels without a scale."""
    return f"{region.depth_px if region.depth_um is None else region.depth_um:.0f}"


def classes_of(region: Region) -> str:
    """Return what the two masks say."""
    return f"{region.first_class} | {region.second_class}"


def seen(region: Region) -> str:
    """Return the class that one of the masks sees alone, or what both say."""
    alone = {Difference.ONLY_TEACHER: region.first_class, Difference.ONLY_STUDENT: region.second_class}
    return alone.get(region.kind, classes_of(region))


def sentence(table: RegionTable, region: Region) -> str:
    """Say in a line what a region is."""
    gap = "" if region.gap is None else f", gap {gap_of(region)}"
    unit = "px" if region.depth_um is None else "µm"
    depth = f"{depth_figure(region)} {unit} deep"
    return f"{table.kind_name(region.kind)}: {classes_of(region)}, {area_of(region)}{gap}, {depth}"
