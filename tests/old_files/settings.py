"""The settings of each job, no field of them as it is by default: a field that is renamed or forgotten shows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from napari_kdseg.comparison import CorrectConfig
from napari_kdseg.demo import DemoConfig
from napari_kdseg.distillation import get_method
from napari_kdseg.inference import CostConfig, PredictConfig, Subject
from napari_kdseg.inference.cluster import PredictManyConfig
from napari_kdseg.inference.export import ExportModelConfig
from napari_kdseg.masks import ExportConfig
from napari_kdseg.masks.export.annotations import ConvertAnnotationsConfig
from napari_kdseg.slides.writing.convert import ConvertConfig
from napari_kdseg.slides.writing.synthesise import SynthConfig
from napari_kdseg.study import StudyConfig
from napari_kdseg.training import (
    AugmentationConfig,
    DataConfig,
    DistillConfig,
    NetworkChoice,
    OptimiserConfig,
)

DATA = DataConfig(
    folder=Path("../tiles"), images="pictures", masks="labels", manifest=Path("../tiles/manifest.csv"),
    classes=("background", "tumour"), labels="class_index", input_size=64, validation_fraction=0.2, test_fraction=0.1,
    mpp=0.5, limit=40, seed=3,
)  # fmt: skip
OPTIMISER = OptimiserConfig(
    name="sgd", learning_rate=0.01, weight_decay=0.001, momentum=0.8, nesterov=True, schedule="cosine",
    poly_power=1.5, warm_up=0.1, clip=2.0, ema=0.99,
)  # fmt: skip
AUGMENTATION = AugmentationConfig(
    flips=False, turns=False, stain_probability=0.5, stain=0.1, stain_shift=0.03, light_probability=0.2,
    brightness=0.02, contrast=0.2, blur_probability=0.2, blur=0.5, scale_probability=0.1, scale=0.3,
)  # fmt: skip
TRAINING = {
    "batch_size": 8, "optimiser": OPTIMISER, "augment": False, "augmentation": AUGMENTATION, "sampling": "lesion",
    "remember_teacher": True, "device": "cpu", "precision": "bf16", "threads": 2,
}  # fmt: skip
NETWORK = NetworkChoice(
    architecture="unet/resnet34", checkpoint=Path("t.safetensors"), options={"decoder_channels": [16, 8]},
    encoder_weights=Path("e.pth"), new_head=True, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), multiple=16,
    input_size=128,
)  # fmt: skip
ON_SLIDE = {
    "slide": "../slide.tif", "output": Path("masks.ome.zarr"), "region": (8, 16, 64, 32), "mpp": 1.0,
    "slide_mpp": 0.5, "colours": "srgb", "device": "cpu", "overwrite": True,
}  # fmt: skip
PREDICT = PredictConfig(
    **ON_SLIDE, networks={"teacher": Path("t.safetensors"), "student": Path("s.safetensors")}, tile=128,
    halo="exact", batch_size=2, precision="float32", threads=2, compile=True, skip_background=False,
    probabilities=True, first=((0, 0, 64, 64), (64, 0, 32, 32)),
)  # fmt: skip
METHOD = "plc-kd+cwd@2"
CONSTANTS = {
    "plc_kd_temperature": 3.0,
    "plc_kd_queue_length": 128,
    "cwd_temperature": 2.0,
    "dice_weight": 0.5,
}
WRITE = {
    "compression": "deflate",
    "quality": 70,
    "tile": 128,
    "step": 4,
    "ome_zarr": "0.4",
    "overwrite": True,
}

SETTINGS: dict[str, BaseModel] = {
    "distil": DistillConfig(
        **TRAINING, data=DATA, teacher=NETWORK, student=NetworkChoice(architecture="espnet"),
        more_teachers=(NetworkChoice(architecture="unet"),), method=METHOD,
        settings=get_method(METHOD).settings(CONSTANTS), teacher_epochs=7, epochs=9, validate_every=2, patience=3,
        weigh_classes=True, memory=Path("memory"), trained_stages={"false_pixel_assistant": Path("f.safetensors")},
        seed=5, deterministic=True, output=Path("elsewhere"), previews=False, report="student",
    ),
    "study": StudyConfig(
        **TRAINING, task="glands", data=DATA, teachers=(NETWORK,), students=("enet", "unet"),
        methods=("kd", "emkd:imd"), settings={"emkd": {"region_weight": 0.5}}, temperature=2.0, kd_weight=0.7,
        seeds=(4, 5), label_fractions=(0.2, 1.0), steps=90, validations=3, teacher_epochs=11, teacher_patience=2,
        teacher_validations=5, teacher_optimiser=OPTIMISER, at_once=2, keep_work=False, output=Path("elsewhere"),
        work=Path("work"),
    ),
    "predict": PREDICT,
    "predict-many": PredictManyConfig(slides=(PREDICT,), scheduler="tcp://head:8786", workers=3),
    "correct": CorrectConfig(
        **ON_SLIDE, annotation="../slide.gland.tif", teacher=Path("t.safetensors"),
        false_pixel_assistant=Path("f.safetensors"), boundary_assistant=Path("b.safetensors"),
        settings=get_method("plc-kd").settings({"temperature": 2.0, "use_similarity": False}), tile=128, halo=32,
    ),
    "costs": CostConfig(
        networks={"student": Subject(network="unet/resnet18", options={"encoder_depth": 3})}, measure="all", side=256,
        channels=4, classes=3, device="cpu", threads=2,
    ),
    "export-model": ExportModelConfig(
        checkpoint=Path("s.safetensors"), output=Path("out"), formats=("onnx", "safetensors"), run=Path("run"),
        overwrite=True,
    ),
    "export-masks": ExportConfig(
        stores=(Path("masks.ome.zarr"),), output=Path("out"), names=("student",), kinds=("tiff", "csv"),
        objects="annotation", compress=True, slide="../slide.tif", bounds=True, overwrite=True,
    ),
    "convert-annotations": ConvertAnnotationsConfig(
        source=Path("a.geojson"), target=Path("b.xml"), slide="../slide.tif", classes=("background", "tumour"),
        outside=255, overlap="later", xml="imagescope", source_bounds=True, target_bounds=True, downsample=2.0,
        name="drawn", overwrite=True,
    ),
    "convert": ConvertConfig(**WRITE, slide="../slide.tif", mpp=0.5, pictures=True, output=Path("copy.tif")),
    "synthesise": SynthConfig(
        **WRITE, width=512, height=384, seed=9, mpp=0.5, stain=1, folds=False, pen=False, blur=False,
        masks=("tissue", "tumour"), output=Path("slide.tif"),
    ),
    "demo": DemoConfig(output=Path("tour"), quick=True, mpp=2.0),
}  # fmt: skip
