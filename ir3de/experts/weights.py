"""An expert's weights on disk, as transformers saves them or as GGUF."""

import hashlib
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.locate import local_path, unreachable
from ir3de.pretrained.tokenizer import TextTokenizer

SAFETENSORS = "*.safetensors"
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, SafetensorError)


class Weights(ABC):
    """One expert's weights on disk; nothing is read before it is asked for.

    Args:
        source: What the config says.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @cached_property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that decide the weights, fetched if they are not here."""

    @cached_property
    @abstractmethod
    def config(self) -> Any:
        """The transformers configuration."""

    @abstractmethod
    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        """Return the model on the CPU, with SDPA attention.

        Raises:
            ValueError: if the files hold no such model, or a weight is missing, unexpected or of another shape.
        """

    @property
    def shared_base(self) -> "Weights | None":
        """The base that other experts share, where this is an adapter."""
        return None

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """The tokenizer that lies beside the weights, if one does."""
        folder = self.files[0].parent
        found = any((folder / name).is_file() for name in ("text_tokenizer.json", "tokenizer.json"))
        return load_tokenizer(str(folder)) if found else None

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the files' names and contents."""
        return fingerprint(self.files)

    def parameters(self) -> int:
        """Return the number of parameters, without loading them."""
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(self.config)
        return sum(parameter.numel() for parameter in model.parameters())


class SavedModel(Weights):
    """A folder that ``save_pretrained`` wrote, or a hub repository with safetensors."""

    @cached_property
    def folder(self) -> Path:
        folder = local_path(self.source)
        if folder is None:
            try:
                patterns = ["*.json", SAFETENSORS, "tokenizer.model"]
                folder = Path(snapshot_download(self.source, allow_patterns=patterns))
            except (OSError, ValueError) as error:
                raise ValueError(unreachable(self.source)) from error
        if not (folder / "config.json").is_file() or not any(folder.glob(SAFETENSORS)):
            raise ValueError(
                f"Expected config.json and *.safetensors in `{self.source}`."
                " Save the model with transformers' `save_pretrained`."
            )
        return folder

    @cached_property
    def files(self) -> list[Path]:
        return [self.folder / "config.json", *sorted(self.folder.glob(SAFETENSORS))]

    @cached_property
    def config(self) -> Any:
        return AutoConfig.from_pretrained(self.folder, local_files_only=True)

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        return _from_pretrained(self.folder, dtype, self.source, use_safetensors=True)


class GgufModel(Weights):
    """A GGUF file, whose weights transformers turns into floating point."""

    def __init__(self, source: str, path: Path) -> None:
        super().__init__(source)
        self._path = path

    @cached_property
    def files(self) -> list[Path]:
        return [self._path]

    @cached_property
    def config(self) -> Any:
        return AutoConfig.from_pretrained(self._path.parent, gguf_file=self._path.name, local_files_only=True)

    @property
    def tokenizer(self) -> TextTokenizer | None:
        return load_tokenizer(str(self._path))

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        try:
            return _from_pretrained(self._path.parent, dtype, self.source, gguf_file=self._path.name)
        except ImportError as error:
            raise ValueError(
                f"Reading `{self.source}` needs the packages gguf and accelerate. Run `pip install 'ir3de[gguf]'`."
            ) from error


def fingerprint(files: list[Path]) -> str:
    """Return the SHA-256 of files' names and contents."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _from_pretrained(folder: Path, dtype: torch.dtype, source: str, **options: Any) -> PreTrainedModel:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            dtype=dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    except UNREADABLE as error:
        raise ValueError(f"Expected a causal language model in `{source}`: {str(error).splitlines()[0]}") from error
    model: PreTrainedModel = loaded[0]
    missing, unexpected = (sorted(loaded[1][key]) for key in ("missing_keys", "unexpected_keys"))
    if missing or unexpected:
        raise ValueError(f"The weights in `{source}` do not fit their config.json: {listed(missing, unexpected)}.")
    return model.eval()


def listed(missing: list[str], unexpected: list[str]) -> str:
    """Name the first few of the keys that do not fit."""
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            parts.append(f"{what} {shown}")
    return "; ".join(parts)
