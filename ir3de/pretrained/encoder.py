"""Encoders and language models as a source of hidden states: safetensors, or the PyTorch file of older repositories."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from ir3de.pretrained.embeddings import INDEX, WEIGHTS
from ir3de.pretrained.locate import fetch, local_path, unreachable

PYTORCH_WEIGHTS = "pytorch_model.bin"


def load_encoder(source: str) -> PreTrainedModel:
    """Return the model of a hub id, a folder or ``package:NAME``, in evaluation mode and without gradients.

    Where there are no safetensors (DeBERTa-v3), ``pytorch_model.bin`` is read as tensors alone: nothing in it is run.

    Raises:
        FileNotFoundError: if a path leads nowhere.
        ValueError: if there is no such model, or weights are missing in it.
    """
    path = local_path(source)
    safe = _has_safetensors(source, path)
    try:
        loaded, found = _read(str(path or source), use_safetensors=safe)
    except UnpicklingError as error:  # its text advises to read it unsafely
        raise ValueError(
            f"`{source}` has a {PYTORCH_WEIGHTS} with more than tensors in it, which is not read."
        ) from error
    except (OSError, ValueError) as error:
        where = f"`{path}` holds no model that transformers can read." if path else unreachable(source)
        raise ValueError(f"{where} ({str(error).splitlines()[0]})") from error
    missing = sorted(key for key in found["missing_keys"] if "pooler" not in key)  # no hidden state needs the pooler
    if missing:
        raise ValueError(
            f"The weights of `{source}` do not fit its config.json: {len(missing)} are missing, such as {missing[0]}."
        )
    if loaded.dtype == torch.float16:  # as DeBERTa-v3 was published; its range is too small to compute in
        loaded = loaded.float()
    model: PreTrainedModel = loaded.eval().requires_grad_(False)
    return model


def _has_safetensors(source: str, path: Path | None) -> bool:
    if path is not None:
        return next(path.glob("*.safetensors"), None) is not None
    return fetch(source, WEIGHTS) is not None or fetch(source, INDEX) is not None


def _read(where: str, *, use_safetensors: bool) -> tuple[Any, dict[str, Any]]:
    read: Any = AutoModel.from_pretrained(
        where, use_safetensors=use_safetensors, weights_only=True, output_loading_info=True
    )
    return read[0], read[1]
