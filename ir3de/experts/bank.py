"""The bank: the experts between which a router chooses, in a fixed order."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import torch
from transformers import PreTrainedModel

from ir3de.experts.adapters import SharedBase
from ir3de.experts.memory import Residence, choose_residence
from ir3de.experts.open_weights import open_weights
from ir3de.experts.training_record import TRAINING_RECORD
from ir3de.experts.weights import Weights
from ir3de.pretrained.tokenizer import TextTokenizer

DTypeName = Literal["float32", "bfloat16", "float16"]
WEIGHT_AVERAGE = "weight_average"
# Fields that two configurations must share for their weights to be averaged.
_SHAPE_FIELDS = (
    "model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip


class ExpertBank:
    """The experts by name, in the order in which a router's columns stand for them.

    Args:
        experts: Expert name to where its weights are: a folder, a hub id, a ``.pth`` checkpoint as published, a GGUF
            file, or a PEFT adapter.
        dtype: The one precision in which every expert is loaded.
        residence: Whether experts stay in memory once loaded: ``all``, ``one`` at a time, or ``auto`` by what is free.
        adapter_base: The base of all adapters, in the place of the one that their configurations name.

    Raises:
        ValueError: if there are fewer than two experts, or one is named like the average of weights.
        FileNotFoundError: if a path leads nowhere.
    """

    def __init__(
        self,
        experts: Mapping[str, str | Path],
        *,
        dtype: DTypeName = "float32",
        residence: Residence = "auto",
        adapter_base: str | None = None,
    ) -> None:
        if len(experts) < 2:
            raise ValueError(f"Expected at least two experts to route between, but got {sorted(experts)}.")
        if WEIGHT_AVERAGE in experts:
            raise ValueError(
                f"`{WEIGHT_AVERAGE}` is the average of the experts' weights. Give that expert another name."
            )
        self.sources = {name: str(source) for name, source in experts.items()}
        self.dtype: DTypeName = dtype
        self._asked: Residence = residence
        self._residence: Literal["all", "one"] = "one"
        self._adapter_base = adapter_base
        self._bases: dict[str, SharedBase] = {}
        self._weights = {name: self._open(name) for name in self.sources}
        self._loaded: dict[str, PreTrainedModel] = {}

    @classmethod
    def from_folder(cls, folder: Path, names: list[str], **settings: Any) -> Self:
        """Return the bank of the experts that ``train-experts`` left in ``folder``; ``settings`` as for the class.

        Raises:
            FileNotFoundError: if one of them is not there, naming every missing one.
        """
        missing = [name for name in names if not (folder / name / TRAINING_RECORD).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Expected the experts {missing} in `{folder}`, but they are not trained yet."
                " Train them with `python main.py train-experts --config` and the config of this run."
            )
        return cls({name: folder / name for name in names}, **settings)

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names, in the bank's order."""
        return tuple(self.sources)

    @property
    def members(self) -> tuple[str, ...]:
        """The experts, and the average of their weights where they share an architecture."""
        return self.names if self.architectures_differ() else (*self.names, WEIGHT_AVERAGE)

    def settle(self, free: int) -> str:
        """Decide, before anything is loaded, whether all experts fit into ``free`` bytes; return a sentence about it.

        Raises:
            ValueError: if memory is too short.
        """
        width = torch.empty(0, dtype=getattr(torch, self.dtype)).element_size()
        sizes: dict[str, int] = {}
        bases: set[int] = set()
        for name in self.names:
            base = self._of(name).shared_base
            sizes[name] = 0 if base is not None and id(base) in bases else width * self._of(name).parameters()
            bases.add(id(base))
        if not self.architectures_differ():
            sizes[WEIGHT_AVERAGE] = sizes[self.names[0]]
        self._residence, sentence = choose_residence(sizes, free, self._asked)
        return sentence

    def load(self, name: str) -> PreTrainedModel:
        """Return one member for inference: in eval mode, in the bank's precision, with SDPA attention.

        Adapters of one base are the same model in turn, so that a model is to be used before the next is loaded.

        Raises:
            ValueError: if the bank has no such expert, or no causal language model is where it should be.
        """
        if name == WEIGHT_AVERAGE:
            return self._kept(name) or self._keep(name, self.average())
        weights = self._of(name)
        if weights.shared_base is not None:
            return self._read(name)
        return self._kept(name) or self._keep(name, self._read(name))

    def config(self, name: str) -> Any:
        """Return one expert's transformers configuration."""
        return self._of(name).config

    def architectures_differ(self) -> str | None:
        """Say what keeps the experts' weights from being averaged, or return ``None`` if nothing does."""
        first, *others = self.names
        for name in self.names:
            if self._of(name).shared_base is not None:
                return f"`{name}` is an adapter"
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
        mean = self._read(self.names[0]).float()
        with torch.no_grad():
            for name in self.names[1:]:
                values = dict(self.load(name).named_parameters(remove_duplicate=False))
                for key, total in mean.named_parameters():  # a tied one comes once
                    total.add_(values[key].to(total))
            for total in mean.parameters():
                total.div_(len(self.names))
        return mean.to(getattr(torch, self.dtype))

    def fingerprint(self, name: str) -> str:
        """Return the SHA-256 of a member's configuration and weight files, read once."""
        if name == WEIGHT_AVERAGE:
            every = " ".join(self.fingerprint(one) for one in self.names)
            return hashlib.sha256(f"average of weights:{every}".encode()).hexdigest()
        return self._of(name).fingerprint

    def check_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Refuse a tokenizer whose ids an expert does not know, or understands otherwise.

        Raises:
            ValueError: naming the expert.
        """
        vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
        for name in self.names:
            size = self.config(name).vocab_size
            if size < tokenizer.vocab_size:
                raise ValueError(
                    f"Expert `{name}` knows {size} ids, but the data's tokenizer has {tokenizer.vocab_size}."
                    " Prepare the data with the experts' tokenizer."
                )
            own = self._of(name).tokenizer
            if own is None or own.fingerprint == tokenizer.fingerprint:
                continue
            theirs = own.backend.get_vocab(with_added_tokens=True)
            differing = sorted(token for token, number in vocabulary.items() if theirs.get(token) != number)
            if differing:
                raise ValueError(
                    f"Expert `{name}` has another tokenizer than the data: {len(differing)} of {len(vocabulary)}"
                    f" entries differ, such as {differing[0]!r}, {theirs.get(differing[0])} there and"
                    f" {vocabulary[differing[0]]} here."
                    " Prepare the data with the experts' tokenizer."
                )

    def _open(self, name: str) -> Weights:
        try:
            return open_weights(self.sources[name], base=self._base)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"Expert `{name}`: {error}") from error

    def _base(self, named: str) -> SharedBase:
        source = self._adapter_base or named
        if source not in self._bases:
            try:
                self._bases[source] = SharedBase(open_weights(source, base=self._base))
            except (ValueError, FileNotFoundError) as error:
                hint = "Set `experts.losses.adapter_base` to where its base is."
                raise type(error)(f"the adapter's base cannot be had: {error} {hint}") from error
        return self._bases[source]

    def _of(self, name: str) -> Weights:
        if name not in self._weights:
            raise ValueError(f"Expected one of the experts {list(self.names)}, but got `{name}`.")
        return self._weights[name]

    def _read(self, name: str) -> PreTrainedModel:
        try:
            return self._of(name).load(getattr(torch, self.dtype))
        except ValueError as error:
            raise ValueError(f"Expert `{name}`: {error}") from error

    def _kept(self, name: str) -> PreTrainedModel | None:
        return self._loaded.get(name)

    def _keep(self, name: str, model: PreTrainedModel) -> PreTrainedModel:
        if self._residence == "all":
            self._loaded[name] = model
        return model
