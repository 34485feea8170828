"""How the weights of a stage are kept: as a checkpoint of a segmentation network, or plainly for any other network.

A paraphraser or a critic is in no catalogue, so its file holds the weights alone; the stage that made it reads it.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes

from napari_kdseg.distillation import Stage
from napari_kdseg.errors import CheckpointError, OutputError, explain
from napari_kdseg.files import write_whole
from napari_kdseg.networks import NetworkSpec, load, save, unwrap
from napari_kdseg.networks.catalogue import arguments


def segments(stage: Stage) -> bool:
    """Whether the network of a stage segments images; that of a paraphraser or a critic does not."""
    return getattr(stage, "segments", True)


def keep_weights(stage: Stage, spec: NetworkSpec, path: Path) -> Path:
    """Write the weights of a stage, whole or not at all.

    Parameters
    ----------
    stage
        Its network may be on any device.
    spec
        Description of the network; not looked at where the stage's network does not segment.
    path
        Ends in ``.safetensors``.

    Raises
    ------
    OutputError
        If it cannot be written; what was there before is untouched.
    """
    if segments(stage):
        return save(path, stage.network, spec)
    state = unwrap(stage.network).state_dict()
    # Cloned: safetensors refuses tensors that share their memory.
    content = to_bytes({key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()})
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(
            f"The weights {path} were not written; what was there before is untouched. {explain(error)}"
        ) from error
    return path


def load_weights(stage: Stage, spec: NetworkSpec, path: Path) -> None:
    """Give a stage's network the weights that :func:`keep_weights` wrote, on the device where it is.

    Raises
    ------
    CheckpointError
        If the file is missing or damaged, or holds another network or another revision of it.
    """
    if segments(stage):
        found = load(path, expect=spec)
        if arguments(found.spec) != arguments(spec):
            raise CheckpointError(
                f"The weights {path.name} were trained in another revision of {spec.architecture} than this stage "
                f"({stage.title.lower()}) builds, in which they would put out something else. Train the stage again."
            )
        stage.network.load_state_dict(found.module.state_dict())
        return
    try:
        unwrap(stage.network).load_state_dict(from_bytes(path.read_bytes()))
    except OSError as error:
        raise CheckpointError(f"The weights {path} cannot be read. {explain(error)}") from error
    except (SafetensorError, RuntimeError) as error:  # damaged; or other names and shapes
        raise CheckpointError(
            f"The weights {path.name} do not belong to this stage ({stage.title.lower()}) or are damaged. Start a "
            "new run in another folder."
        ) from error
