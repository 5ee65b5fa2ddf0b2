"""A model's input embedding table, read alone: no other weight is loaded (DESIGN.md 3.5)."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ir3de.pretrained.checkpoint import load_checkpoint, local_checkpoint
from ir3de.pretrained.locate import fetch, local_path

# How the input embedding table is called in the causal LMs and encoders of the transformers library.
TABLE_NAMES = (
    "embed_tokens.weight",
    "wte.weight",
    "word_embeddings.weight",
    "embed_in.weight",
    "tok_embeddings.weight",
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def load_embedding_table(source: str) -> Tensor:
    """Return the input embedding table ``(V, D)`` float32 of a hub id, a folder, a GGUF file or ``package:NAME``.

    A ``.pth`` checkpoint as published has one too; ``owner/name:path.pth`` is one on the hub.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if there is no table, more than one, or it holds NaN or infinities.
    """
    if source.endswith(".pth"):
        table = _from_checkpoint(source, local_checkpoint(source))
    else:
        path = local_path(source)
        table = (
            _from_gguf(path, path.stat().st_mtime_ns)
            if path is not None and path.is_file()
            else _from_safetensors(source, path)
        )
    check_table(table, source)
    return table


def check_table(table_VD: Tensor, source: str) -> None:
    """Refuse a table that is not a matrix of finite numbers.

    Raises:
        ValueError: if the table has another rank, no rows, or a NaN or infinite entry (its row is named).
    """
    if table_VD.ndim != 2 or 0 in table_VD.shape:
        raise ValueError(f"Expected the embedding table of `{source}` to be (V, D), but got {tuple(table_VD.shape)}.")
    bad_V = ~table_VD.isfinite().all(dim=1)
    if bad_V.any():
        raise ValueError(
            f"The embedding table of `{source}` has NaN or infinite values in {int(bad_V.sum())} rows, first in the"
            f" row of token id {int(bad_V.nonzero()[0])}. Repair the file, or choose another `embeddings`."
        )


def table_fingerprint(table_VD: Tensor) -> str:
    """Return the SHA-256 of the table's shape and float32 values."""
    digest = hashlib.sha256(f"{tuple(table_VD.shape)}".encode())
    digest.update(table_VD.detach().float().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=2)  # seconds to dequantize, and many routers of one process read the same
def _from_gguf(path: Path, modified: int) -> Tensor:
    try:
        from gguf import GGUFReader, dequantize  # noqa: PLC0415 - an optional extra
    except ImportError:
        raise ValueError(f"Reading `{path}` needs the package gguf. Run `pip install 'ir3de[gguf]'`.") from None
    tables = [tensor for tensor in GGUFReader(path).tensors if tensor.name == "token_embd.weight"]
    if len(tables) != 1:
        raise ValueError(f"Expected `{path}` to hold the tensor token_embd.weight, but it holds {len(tables)}.")
    return torch.from_numpy(dequantize(tables[0].data, tables[0].tensor_type).copy()).float()


def _from_checkpoint(source: str, path: Path) -> Tensor:
    state = load_checkpoint(source, path)
    found = [name for name in state if name.endswith(TABLE_NAMES)]
    if len(found) != 1:
        raise ValueError(f"Expected one input embedding table in `{source}`, but found {found}.")
    return state[found[0]].float()


def _from_safetensors(source: str, folder: Path | None) -> Tensor:
    index = folder / INDEX if folder else fetch(source, INDEX)
    if index is not None and index.is_file():
        shards: dict[str, str] = json.loads(index.read_text())["weight_map"]
        files = sorted({shard for name, shard in shards.items() if name.endswith(TABLE_NAMES)})
    else:
        files = [WEIGHTS]
    found: list[tuple[str, Path]] = []
    for file in files:
        path = folder / file if folder else fetch(source, file)
        if path is None or not path.is_file():
            raise FileNotFoundError(f"Expected `{source}` to have the weights file {file} (safetensors).")
        try:
            with safe_open(path, framework="pt") as weights:
                found += [(name, path) for name in list(weights.keys()) if name.endswith(TABLE_NAMES)]
        except SafetensorError as error:
            raise ValueError(f"`{path}` is no whole safetensors file ({error}). Fetch or write it again.") from error
    if not found:
        raise ValueError(f"Found no input embedding table in `{source}`; expected a weight called {TABLE_NAMES}.")
    if len(found) > 1:
        raise ValueError(f"Expected one input embedding table in `{source}`, but found {[name for name, _ in found]}.")
    name, path = found[0]
    with safe_open(path, framework="pt") as weights:
        return weights.get_tensor(name).float()
