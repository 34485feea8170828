"""The networks that are recommended by name, with their size, their cost, and what papers printed of them.

A plain table that needs no torch. Every figure is checked by a test: sizes and multiply-adds to the digit, printed
figures at the precision they were printed with, counted as that paper counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Side of the image, in pixels, that :attr:`RecommendedNetwork.multiply_adds` are of.
COST_SIDE = 256
LIBRARY = "segmentation-models-pytorch"


@dataclass(frozen=True)
class Printed:
    """Size and cost of a network as a paper on distillation printed them, with what it counted.

    Attributes
    ----------
    paper
        Its name.
    parameters
        Millions, with the digits of the paper.
    cost
        Thousand millions of multiply-adds or, for EMKD, of operations, two a multiply-add.
    channels, side
        Of the image that the cost is of.
    with_norm
        Whether weights and biases of batch normalisation count as parameters.
    note
        Where the paper contradicts itself or its network, in a sentence.
    """

    paper: Literal["CoCo DistillNet", "EMKD"]
    parameters: str
    cost: str
    channels: int
    side: int
    with_norm: bool = True
    note: str = ""

    def describe(self) -> str:
        """Say it in words."""
        unit = "GFLOPs, two a multiply-add," if self.paper == "EMKD" else "G multiply-adds"
        norm = "" if self.with_norm else " without batch normalisation"
        figures = f"{self.parameters} M parameters{norm} and {self.cost} {unit}"
        image = f"{self.channels} x {self.side} x {self.side}"
        return f"{self.paper} printed {figures} at {image}.{' ' + self.note if self.note else ''}"


def _coco(parameters: str, cost: str, *, with_norm: bool, note: str = "") -> Printed:
    return Printed("CoCo DistillNet", parameters, cost, 1, 256, with_norm, note)


def _emkd(parameters: str, cost: str, *, channels: int = 3, note: str = "") -> Printed:
    return Printed("EMKD", parameters, cost, channels, 384, note=note)


@dataclass(frozen=True)
class RecommendedNetwork:
    """One recommended network.

    Attributes
    ----------
    name
        As :func:`napari_kdseg.networks.create` takes it.
    role
        What its size suits it for.
    parameters
        With three channels and two classes.
    multiply_adds
        Of one image of three channels and :data:`COST_SIDE` pixels a side.
    description
        A short sentence for the choice in the window.
    source
        Who defined it: a paper, or the library that makes it.
    printed
        Figures of a paper that used it; None where none did.
    """

    name: str
    role: Literal["teacher", "student"]
    parameters: int
    multiply_adds: int
    description: str
    source: str = LIBRARY
    printed: Printed | None = None


_STUDENTS = (
    RecommendedNetwork(
        "espnet",
        "student",
        183_725,
        273_120_256,
        "The smallest: pyramids of dilated convolutions that see wide context.",
        "Mehta et al., ECCV 2018",
        _emkd("0.183", "1.23"),
    ),
    RecommendedNetwork(
        "enet",
        "student",
        349_212,
        464_568_320,
        "Very small and fast; the student of CoCo DistillNet.",
        "Paszke et al. 2016, arXiv:1606.02147",
        _coco("0.349", "0.516", with_norm=True),
    ),
    RecommendedNetwork(
        "enet-emkd",
        "student",
        353_761,
        472_891_392,
        "ENet in the form that EMKD distils into.",
        "Paszke et al. 2016, arXiv:1606.02147",
        _emkd(
            "0.353",
            "2.03",
            note="The code of EMKD leaves out the fifth block of stage 3, which this one runs.",
        ),
    ),
    RecommendedNetwork(
        "erfnet",
        "student",
        2_063_344,
        3_307_716_608,
        "Small, of factorised convolutions; a student of CoCo DistillNet.",
        "Romera et al., IEEE T-ITS 2018",
        _coco("2.063", "3.681", with_norm=True),
    ),
    RecommendedNetwork(
        "mobilenetv2",
        "student",
        2_228_996,
        4_253_483_008,
        "MobileNetV2 at 1/8 with a classifier; EMKD's student.",
        "Sandler et al., CVPR 2018",
        _emkd("2.2", "19.14"),
    ),
    RecommendedNetwork(
        "segformer/mit_b0", "student", 3_714_658, 1_746_731_008, "Small transformer that sees wide context."
    ),
    RecommendedNetwork(
        "deeplabv3plus/mobilenet_v2",
        "student",
        4_378_770,
        1_482_686_464,
        "Small, with context from dilated convolutions.",
    ),
    RecommendedNetwork(
        "mobile-unet",
        "student",
        4_682_899,
        971_956_224,
        "MobileNetV2 with a decoder; the student of CoCo DistillNet.",
        "Zou and Sun, BIBM 2021",
        _coco("4.640", "1.492", with_norm=False),
    ),
    RecommendedNetwork(
        "unet/mobilenet_v2", "student", 6_629_090, 3_354_451_968, "U-Net on an encoder made for phones."
    ),
    RecommendedNetwork(
        "resnet18",
        "student",
        11_177_538,
        2_368_798_720,
        "ResNet-18 at 1/32 with a classifier: coarse; EMKD's student.",
        "He et al., CVPR 2016",
        _emkd("11.2", "10.66"),
    ),
    RecommendedNetwork(
        "unet/resnet18",
        "student",
        14_328_354,
        5_407_506_432,
        "U-Net on ResNet-18, the largest of the students.",
    ),
)

_TEACHERS = (
    RecommendedNetwork(
        "raunet",
        "teacher",
        22_143_394,
        5_879_108_608,
        "U-Net on ResNet-34 with attention; EMKD's teacher.",
        "Ni et al. 2019, arXiv:1909.10360",
        _emkd(
            "22.1",
            "24.81",
            note="No counting of its transposed convolutions gives that cost: it is 26.46 where each multiply-add "
            "counts, and 31.47 where each output pixel does.",
        ),
    ),
    RecommendedNetwork(
        "pspnet/resnet50",
        "teacher",
        24_305_602,
        2_918_318_080,
        "Context from pooling; half the size of EMKD's PSPNet.",
        printed=_emkd(
            "46.7", "207.18", note="That is the full ResNet-50 at 1/8; this one is 22.4 M smaller."
        ),
    ),
    RecommendedNetwork(
        "unet/resnet34", "teacher", 24_436_514, 7_823_425_536, "U-Net on ResNet-34, a safe first choice."
    ),
    RecommendedNetwork(
        "segformer/mit_b2", "teacher", 24_722_626, 5_534_908_416, "Transformer that sees wide context."
    ),
    RecommendedNetwork(
        "unetplusplus/resnet34",
        "teacher",
        26_078_754,
        18_393_071_616,
        "Nested U-Net for fine contours; slow.",
    ),
    RecommendedNetwork(
        "deeplabv3plus/resnet50",
        "teacher",
        26_677_842,
        9_141_747_712,
        "Wide context; half the size of EMKD's DeepLabV3+.",
        printed=_emkd("56.8", "272.48", note="That is on Xception-65 at 1/8; this one is 30.1 M smaller."),
    ),
    RecommendedNetwork(
        "unet",
        "teacher",
        34_527_106,
        65_351_450_624,
        "The plain U-Net of papers, 64 to 1024 channels; EMKD's teacher.",
        "Ronneberger et al., MICCAI 2015",
        _emkd("34.5", "293.83", channels=1),
    ),
    RecommendedNetwork(
        "unetplusplus",
        "teacher",
        36_629_698,
        137_829_023_744,
        "The plain nested U-Net of papers, 64 to 1024 channels; very slow.",
        "Zhou et al., DLMIA 2018",
        _emkd(
            "20.6",
            "620.04",
            channels=1,
            note="Its 20.6 M contradict its own cost, which is that of this network of 36.63 M.",
        ),
    ),
    RecommendedNetwork(
        "upernet/tu-convnext_tiny",
        "teacher",
        37_044_130,
        19_105_366_016,
        "Modern convolutions on a wide pyramid.",
    ),
    RecommendedNetwork(
        "fanet",
        "teacher",
        38_292_548,
        166_605_260_800,
        "Selective kernels and pooled context; CoCo DistillNet's teacher; very slow.",
        "Li et al., JBHI 2020",
        _coco("38.250", "171.556", with_norm=False),
    ),
    RecommendedNetwork(
        "transunet",
        "teacher",
        105_276_066,
        38_425_067_520,
        "Transformer inside a U-Net, PLC-KD's teacher; the largest listed here.",
        "Chen et al. 2021, arXiv:2102.04306",
    ),
)


def recommended_networks() -> tuple[RecommendedNetwork, ...]:
    """List the recommended networks, students first, each kind from small to large.

    Any other pair of an architecture and an encoder of segmentation-models-pytorch may be named as well.

    Returns
    -------
    tuple of RecommendedNetwork
    """
    return _STUDENTS + _TEACHERS
