"""A saved router: a folder whose ``config.json`` names every other file by its content, so that a change is one rename.

A change writes its files beside the old ones and then replaces ``config.json``: a reader sees the old router or the
new one, and a command that is killed leaves the old one.
"""

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from ir3de.files import alone_in, replace_file

CONFIG = "config.json"
ROUTER, STATISTICS, EMBEDDINGS = "router.safetensors", "statistics.safetensors", "embeddings.safetensors"
FORMAT = 2
_OURS = re.compile(
    r"(router|statistics|embeddings)-[0-9a-f]{16}\.safetensors|\.(router|statistics|embeddings|config).*"
)
_ATTEMPTS = 20


@dataclass(frozen=True)
class Artifact:
    """What a saved router's folder holds: its ``config`` and the checked content of each of its ``files``."""

    folder: Path
    config: dict[str, Any]
    files: dict[str, bytes]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of one of the files."""
        return load(self.files[name])

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of one of the files."""
        return str(self.config["files"][name])


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Return tensors as safetensors; equal tensors are equal bytes."""
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def sha256(content: bytes) -> str:
    """Return the SHA-256 of ``content`` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_artifact(folder: Path, config: dict[str, Any], files: dict[str, bytes]) -> None:
    """Write a router into ``folder``, over the one that may be there; equal routers are equal bytes.

    Raises:
        OSError: if it cannot be written, for want of room for example; the old router is left as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = stored_files(config, files)
    try:
        for name, content in contents.items():
            path = folder / name
            if name != CONFIG and not (path.is_file() and path.read_bytes() == content):
                replace_file(path, content)
        replace_file(folder / CONFIG, contents[CONFIG])
    finally:
        _remove_unnamed(folder)


def stored_files(config: dict[str, Any], files: dict[str, bytes]) -> dict[str, bytes]:
    """Return all that a router's folder holds, by name on disk: ``files`` under their hashes, and ``config.json``."""
    digests = {name: sha256(content) for name, content in sorted(files.items())}
    content = json.dumps({"format": FORMAT, **config, "files": digests}, indent=1, sort_keys=True, ensure_ascii=False)
    named = {stored_name(name, digest): files[name] for name, digest in digests.items()}
    return {**named, CONFIG: content.encode() + b"\n"}


def read_artifact(folder: Path) -> Artifact:
    """Return the router that is saved in ``folder``, whole: if it is changed meanwhile, it is read again.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if a file is missing, truncated or changed, or the format is unknown.
    """
    for _ in range(_ATTEMPTS):
        config, seen = read_config(folder)
        files: dict[str, bytes] = {}
        for name, digest in config["files"].items():
            path = folder / stored_name(name, digest)
            try:
                files[name] = path.read_bytes()
            except FileNotFoundError:
                problem = f"The saved router's file `{path}` is missing. Copy the folder again, or fit again."
                break
            if sha256(files[name]) != digest:
                problem = f"The saved router's file `{path}` is truncated or was changed. Copy it again, or fit again."
                break
        else:
            return Artifact(folder, config, files)
        if (folder / CONFIG).read_bytes() == seen:  # nobody changed the router: it is damaged
            raise ValueError(problem)
        time.sleep(0.05)
    raise ValueError(f"The router in `{folder}` was changed {_ATTEMPTS} times while it was being read. Try again.")


def stored_name(name: str, digest: str) -> str:
    """Return the name on disk of a file: tensors carry their content in it, the tokenizer's keep their own."""
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{digest[:16]}{dot}{suffix}" if suffix == "safetensors" else name


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Keep other commands from changing the router in ``folder`` meanwhile.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if another command is changing it.
    """
    read_config(folder)
    busy = f"Another command is changing the router in `{folder}`. Run this one when it is done."
    with alone_in(folder, busy=busy):
        yield


def is_ours(name: str) -> bool:
    """Return whether a file of this name in a router's folder is the router's, of this version or of one before."""
    return _OURS.fullmatch(name) is not None


def read_config(folder: Path) -> tuple[dict[str, Any], bytes]:
    """Return what ``config.json`` says, and its bytes, without a look at the other files.

    Raises:
        FileNotFoundError: if the folder is no saved router.
        ValueError: if it is damaged, or the format is unknown.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"Expected a saved router in `{folder}`, but there is no {CONFIG}. Run `python main.py fit` first."
        )
    content = (folder / CONFIG).read_bytes()
    try:
        config: dict[str, Any] = json.loads(content)
        known = config["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{folder / CONFIG}` is truncated or no router's ({error}). Fit the router again.") from error
    if not known:
        raise ValueError(f"Expected router format {FORMAT} in `{folder}`, but got {config['format']}. Fit it again.")
    return config, content


def _remove_unnamed(folder: Path) -> None:
    """Remove what no ``config.json`` names: the router before, or what a killed command left."""
    named: set[str] = set()
    if (folder / CONFIG).is_file():
        config, _ = read_config(folder)
        named = {stored_name(name, digest) for name, digest in config["files"].items()}
    for path in folder.iterdir():
        if path.name not in named and is_ours(path.name):
            path.unlink(missing_ok=True)
