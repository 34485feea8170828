from __future__ import annotations

from napari_kdseg.slides import describe, describe_in_full, open_slide


def test_the_window_is_told_the_few_facts_that_matter(files):
    with open_slide(files["tiff-pages"]) as slide:
        facts = dict(describe(slide))
    assert facts["Size"] == "0.55 x 0.45 mm"
    assert facts["Scale"] == "0.5 µm per pixel"
    assert facts["Pixels"] == "1,101 x 903, 3 levels"


def test_the_command_line_is_told_all(files, real_data):
    with open_slide(files["tiff-pages"]) as slide:
        facts = dict(describe_in_full(slide))
        assert facts["Hash"] == slide.identity()
    assert facts["Level 2"] == "275 x 225, 4.00364x smaller, tiles of 240 x 240"
    assert facts["Compression"] == "lzw"
    assert facts["Read by"] == "tifffile. It is a plain TIFF: its tiles are decoded directly."
    with open_slide(real_data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs") as slide:
        facts = dict(describe_in_full(slide))
    assert facts["Compression"] == "aperio_jp2000_rgb"
    assert "compared with those of OpenSlide" in facts["Read by"]
    assert facts["Level 2"].endswith("computed from the level before")
    assert facts["ICC profile"].endswith("bytes")
    assert "not in the file" in facts["Scale"]
