"""Networks as ONNX files: written with their description inside, and described again from the file alone.

No torch here, and the packages of ONNX are imported where a file needs them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_kdseg.errors import CheckpointError, ConfigurationError
from napari_kdseg.networks.spec import NetworkSpec

INSTALL = "pip install 'napari-kdseg[onnx]'"
#: Architecture of a network that only its ONNX file knows.
FOREIGN = "onnx"
SPEC_KEY, FACTS_KEY = "kdseg", "kdseg_facts"
#: Bytes that one file can hold: those of a protobuf message.
LARGEST = 2_000_000_000


class OnnxFacts(BaseModel):
    """What was found out about a network when it was written, and could not be as well from its ONNX file.

    Attributes
    ----------
    multiple
        What height and width of an image must be multiples of.
    radius
        Receptive-field radius in pixels; ``None`` for a network that sees the whole image.
    bytes_per_pixel
        Memory that a pass takes for a pixel of its input.
    parameters
        Their number; ``None`` where it is not known.
    largest_difference
        Of a logit from PyTorch's, on the images it was compared on; ``None`` for a file of another program.
    ends
        What its output is (:class:`~napari_kdseg.networks.foreign.onnx_ending.OnnxEnding`); ``None`` where nobody
        looked.
    classes_last
        Whether its output is ``[N, H, W, classes]``.
    """

    model_config = ConfigDict(frozen=True)

    multiple: int
    radius: int | None
    bytes_per_pixel: float
    parameters: int | None = None
    largest_difference: float | None = None
    ends: Literal["logits", "softmax", "sigmoid"] | None = None
    classes_last: bool = False


def onnx_package(name: str) -> Any:
    """Import ``onnx``, ``onnxscript`` or ``onnxruntime``.

    Raises
    ------
    ConfigurationError
        If it is not installed; says how to.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"ONNX files need the package {name}, which is not installed. Run: {INSTALL}"
        ) from error


def open_session(path: Path, *, threads: int = 1, cuda: bool = False, optimised: bool = True) -> Any:
    """Open an ONNX file in onnxruntime.

    Parameters
    ----------
    path
        The file.
    threads
        That compute one run.
    cuda
        Whether to compute on the GPU, where this onnxruntime can.
    optimised
        Whether the graph is made fast first, which takes time.

    Raises
    ------
    CheckpointError
        If the file is damaged, or asks for more than this onnxruntime has.
    """
    ort = onnx_package("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is raised, and said in a sentence
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others compute beside it
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    usable = ort.get_available_providers() if cuda else []
    providers = [name for name in ("CUDAExecutionProvider",) if name in usable] + ["CPUExecutionProvider"]
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its classes have no common parent of their own
        reason = str(error).strip().splitlines()[0]
        if any(word in reason for word in ("Protobuf parsing failed", "INVALID_PROTOBUF", "ModelProto")):
            raise CheckpointError(
                f"{path} is damaged or only half of it is there. Copy or download it again, or choose another "
                "checkpoint."
            ) from error
        raise CheckpointError(
            f"{path} cannot be opened by onnxruntime {ort.__version__}: {reason} Export it again, or update "
            "onnxruntime."
        ) from error


def read_header(path: Path) -> tuple[NetworkSpec | None, OnnxFacts | None]:
    """Read what is written in an ONNX file of ours; ``None`` twice for one of another program.

    Raises
    ------
    CheckpointError
        If the file is damaged, or its description cannot be understood.
    """
    return header_of(open_session(path, optimised=False), path)


def header_of(session: Any, path: Path) -> tuple[NetworkSpec | None, OnnxFacts | None]:
    """As :func:`read_header`, of a session that is open."""
    metadata = session.get_modelmeta().custom_metadata_map
    if SPEC_KEY not in metadata:
        return None, None
    try:
        facts = metadata.get(FACTS_KEY)
        return (
            NetworkSpec.from_header(metadata[SPEC_KEY]),
            None if facts is None else OnnxFacts.model_validate_json(facts),
        )
    except ValidationError as error:
        raise CheckpointError(
            f"The description of the network in {path} cannot be understood ({error.errors()[0]['msg']}). "
            "It may come from a newer version of this program; update it."
        ) from error


def described(model: Any, spec: NetworkSpec, facts: OnnxFacts) -> bytes:
    """Write the description into an ``onnx.ModelProto``, in place of an earlier one, and return its bytes."""
    kept = [item for item in model.metadata_props if item.key not in (SPEC_KEY, FACTS_KEY)]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in ((SPEC_KEY, spec), (FACTS_KEY, facts)):
        item = model.metadata_props.add()
        item.key, item.value = key, value.model_dump_json()
    return model.SerializeToString()


def undescribed_message(path: Path) -> str:
    """Say that an ONNX file of another program lacks what is needed to run it."""
    return (
        f"{path} does not say what its classes are called or how images are normalised. Write that into a copy: "
        f"kdseg describe-onnx {path.name} COPY.onnx --classes background,tumour --mean 0.485,0.456,0.406 "
        "--std 0.229,0.224,0.225 --mpp 0.5"
    )
