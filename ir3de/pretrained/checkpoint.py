"""Published checkpoints: a state dict in a ``.pth`` file, here or on the hub, read without running anything."""

from pathlib import Path

import torch
from torch import Tensor

from ir3de.pretrained.locate import fetch


def local_checkpoint(source: str) -> Path:
    """Return the local copy of a ``.pth`` file: a path, or ``owner/name:path.pth`` on the hub.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the hub cannot be reached.
    """
    path = Path(source).expanduser()
    if not path.is_file() and ":" in source:
        path = fetch(*source.split(":", 1)) or path
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint at `{source}`, but there is no such file.")
    return path


def load_checkpoint(source: str, path: Path) -> dict[str, Tensor]:
    """Return the state dict in ``path``, mapped into memory.

    Raises:
        ValueError: if it cannot be read safely, or is no state dict.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever the unpickler stumbles over
        reason = str(error).splitlines()[0]
        raise ValueError(f"`{source}` is no checkpoint that can be read safely ({reason}).") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"Expected `{source}` to hold a state dict, names with tensors.")
    return {str(key): value for key, value in state.items()}
