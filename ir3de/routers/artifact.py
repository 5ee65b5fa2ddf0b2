"""A saved router: a folder of safetensors and JSON whose hashes are checked before anything is used."""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from ir3de.files import replace_file

CONFIG, ROUTER, STATISTICS, EMBEDDINGS = (
    "config.json",
    "router.safetensors",
    "statistics.safetensors",
    "embeddings.safetensors",
)
FORMAT = 1


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors; equal tensors are equal bytes."""
    replace_file(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write ``config.json`` last: it names every other file of the folder with its SHA-256."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != CONFIG}
    content = json.dumps({"format": FORMAT, **config, "files": files}, indent=2, sort_keys=True, ensure_ascii=False)
    replace_file(folder / CONFIG, content.encode() + b"\n")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the checked ``config.json`` of a saved router.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if a file is missing, truncated or changed, or the format is unknown.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"Expected a saved router in `{folder}`, but there is no {CONFIG}. Run `python main.py fit` first."
        )
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text())
        known = config["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{folder / CONFIG}` is truncated or no router's ({error}). Fit the router again.") from error
    if not known:
        raise ValueError(f"Expected router format {FORMAT} in `{folder}`, but got {config['format']}. Update ir3de.")
    for name, expected in config["files"].items():
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            state = "is truncated or was changed" if path.is_file() else "is missing"
            raise ValueError(f"The saved router's file `{path}` {state}. Copy the folder again, or fit again.")
    return config


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file whole."""
    return load(path.read_bytes())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
