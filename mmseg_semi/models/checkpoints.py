"""Reading MMEngine's checkpoints, and saying in one sentence when a file is none."""

import pickle

from mmengine.runner.checkpoint import CheckpointLoader


def read_checkpoint(path: str) -> dict:
    """The checkpoint at a path or address, its tensors on the CPU.

    Returns:
        dict: With ``state_dict`` and whatever else the training saved.

    Raises:
        ValueError: the file is none of MMEngine's, or broken.
    """
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f'{path} is no checkpoint or only a part of one ({error!r:.80}): give one that the training saved.'
        ) from None
    if not isinstance(checkpoint, dict) or 'state_dict' not in checkpoint:
        raise ValueError(f'{path} has no state_dict: give a checkpoint that the training saved.')
    return checkpoint
