"""The bank: the experts between which a router chooses, in a fixed order."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ir3de.experts.training_record import TRAINING_RECORD
from ir3de.pretrained.locate import local_path, unreachable
from ir3de.pretrained.tokenizer import TextTokenizer

DTypeName = Literal["float32", "bfloat16", "float16"]
_WEIGHTS = "*.safetensors"
# Fields that two configurations must share for their weights to be averaged.
_SHAPE_FIELDS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip


class ExpertBank:
    """The experts by name, in the order in which a router's columns stand for them.

    Args:
        experts: Expert name to folder or hub id.
        dtype: The one precision in which every expert is loaded.

    Raises:
        ValueError: if there are fewer than two experts.
        FileNotFoundError: if a path leads nowhere.
    """

    def __init__(self, experts: Mapping[str, str | Path], *, dtype: DTypeName = "float32") -> None:
        if len(experts) < 2:
            raise ValueError(f"Expected at least two experts to route between, but got {sorted(experts)}.")
        self.sources = {name: str(source) for name, source in experts.items()}
        self.dtype: DTypeName = dtype
        self._folders = {name: local_path(source) for name, source in self.sources.items()}
        self._fingerprints: dict[str, str] = {}

    @classmethod
    def from_folder(cls, folder: Path, names: list[str], *, dtype: DTypeName = "float32") -> Self:
        """Return the bank of the experts that ``train-experts`` left in ``folder``.

        Raises:
            FileNotFoundError: if one of them is not there, naming every missing one.
        """
        missing = [name for name in names if not (folder / name / TRAINING_RECORD).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Expected the experts {missing} in `{folder}`, but they are not trained yet."
                " Train them with `python main.py train-experts --config` and the config of this run."
            )
        return cls({name: folder / name for name in names}, dtype=dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names, in the bank's order."""
        return tuple(self.sources)

    def load(self, name: str) -> PreTrainedModel:
        """Return one expert for inference: in eval mode, in the bank's precision, with SDPA attention.

        Raises:
            ValueError: if the bank has no such expert, or no causal language model is where it should be.
        """
        folder = self._folder(name)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                local_files_only=True,
                dtype=getattr(torch, self.dtype),
                attn_implementation="sdpa",
                use_safetensors=True,
            )
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"Expected a causal language model in `{self.sources[name]}` for expert `{name}`: {reason}"
            ) from error
        return model.eval()

    def config(self, name: str) -> Any:
        """Return one expert's transformers configuration."""
        return AutoConfig.from_pretrained(self._folder(name), local_files_only=True)

    def architectures_differ(self) -> str | None:
        """Say what keeps the experts' weights from being averaged, or return ``None`` if nothing does."""
        first, *others = self.names
        reference = self.config(first)
        for other in others:
            config = self.config(other)
            for field in _SHAPE_FIELDS:
                mine, theirs = getattr(reference, field, None), getattr(config, field, None)
                if mine != theirs:
                    return f"`{first}` has {field} {mine} and `{other}` has {theirs}"
        return None

    def average(self) -> PreTrainedModel:
        """Return the model whose weights are the mean of all experts' (the paper's baseline), in eval mode.

        The mean is taken in float32, in the bank's order, one expert in memory beside it.

        Raises:
            ValueError: if the experts are not of one architecture.
        """
        difference = self.architectures_differ()
        if difference is not None:
            raise ValueError(
                f"The average of weights needs experts of one architecture, but {difference}. Leave the average out."
            )
        mean = self.load(self.names[0]).float()
        with torch.no_grad():
            for name in self.names[1:]:
                values = dict(self.load(name).named_parameters(remove_duplicate=False))
                for key, total in mean.named_parameters():  # a tied one comes once
                    total.add_(values[key].float())
            for total in mean.parameters():
                total.div_(len(self.names))
        return mean.to(getattr(torch, self.dtype))

    def fingerprint(self, name: str) -> str:
        """Return the SHA-256 of an expert's configuration and weight files, read once."""
        if name not in self._fingerprints:
            self._fingerprints[name] = weights_fingerprint(self._folder(name))
        return self._fingerprints[name]

    def check_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Refuse a tokenizer whose ids an expert does not know, or that is not the one an expert was saved with.

        Raises:
            ValueError: naming the expert.
        """
        for name in self.names:
            size = self.config(name).vocab_size
            if size < tokenizer.vocab_size:
                raise ValueError(
                    f"Expert `{name}` knows {size} ids, but the data's tokenizer has {tokenizer.vocab_size}."
                    " Prepare the data with the experts' tokenizer."
                )
            folder = self._folder(name)
            if (folder / "text_tokenizer.json").is_file():
                saved = TextTokenizer.from_folder(folder).fingerprint
                if saved != tokenizer.fingerprint:
                    raise ValueError(
                        f"Expert `{name}` was trained with another tokenizer ({saved[:12]}) than the data's"
                        f" ({tokenizer.fingerprint[:12]}). Prepare the data with the experts' tokenizer."
                    )

    def _folder(self, name: str) -> Path:
        """Where an expert's files are; a hub repository is fetched on first use."""
        if name not in self.sources:
            raise ValueError(f"Expected one of the experts {list(self.names)}, but got `{name}`.")
        folder = self._folders[name]
        if folder is None:
            try:
                folder = Path(snapshot_download(self.sources[name], allow_patterns=["*.json", _WEIGHTS]))
            except (OSError, ValueError) as error:
                raise ValueError(unreachable(self.sources[name])) from error
            self._folders[name] = folder
        if not (folder / "config.json").is_file() or not any(folder.glob(_WEIGHTS)):
            raise ValueError(
                f"Expected config.json and *.safetensors in `{self.sources[name]}` for expert `{name}`."
                " Save it with transformers' `save_pretrained`."
            )
        return folder


def weights_fingerprint(folder: Path) -> str:
    """Return the SHA-256 of a saved model's configuration and weight files."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob(_WEIGHTS))]:
        with file.open("rb") as content:
            digest.update(f"{file.name}:{hashlib.file_digest(content, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
