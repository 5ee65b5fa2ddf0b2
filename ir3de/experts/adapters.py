"""Experts that are PEFT adapters (LoRA) over a base that they share."""

import json
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ir3de.experts.weights import UNREADABLE, Weights
from ir3de.pretrained.tokenizer import TextTokenizer

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."  # of the names in an adapter's file


class SharedBase:
    """A base model under several adapters, in memory once; one adapter is active at a time.

    Args:
        weights: The base.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._model: PreTrainedModel | None = None
        self._adapters: dict[Path, str] = {}

    def with_adapter(self, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
        """Return the base with the adapter in ``folder``; a later call changes the same model."""
        model = self._model = self._model or self.weights.load(dtype)
        if folder not in self._adapters:
            name = f"expert_{len(self._adapters)}"
            try:
                model.load_adapter(str(folder), adapter_name=name)
                self._check(model, folder, name)
            except Exception:
                if name in getattr(model, "peft_config", {}):
                    model.delete_adapter(name)
                raise
            self._adapters[folder] = name
        model.set_adapter(self._adapters[folder])
        return model.eval()

    @staticmethod
    def _check(model: PreTrainedModel, folder: Path, name: str) -> None:
        """Refuse an adapter of which a weight did not arrive in the model, or a place of which stayed empty."""
        marked = re.compile(rf"\.{name}(?=\.|$)")
        state = {marked.sub("", key): value for key, value in model.state_dict().items()}
        places = {marked.sub("", key) for key in model.state_dict() if marked.search(key)}
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as weights:
            for key in list(weights.keys()):
                own = key.removeprefix(_PEFT_PREFIX)
                there = state.get(own)
                if there is None:
                    raise ValueError(f"its weight {own} has no place there")
                stored = weights.get_tensor(key).to(there.dtype)
                if there.shape != stored.shape or not bool(torch.equal(there, stored)):
                    raise ValueError(f"its weight {own} is not what the model has there")
                places.discard(own)
        if places:
            raise ValueError(f"{len(places)} of its weights are missing, such as {min(places)}")


class Adapter(Weights):
    """A PEFT adapter (LoRA) over a base that several experts share.

    Args:
        source: The adapter's folder or hub id.
        folder: Where it is.
        base: Returns the base for what the adapter's configuration names.
    """

    def __init__(self, source: str, folder: Path, base: Callable[[str], SharedBase]) -> None:
        super().__init__(source)
        self._folder = folder
        about = json.loads((folder / ADAPTER_CONFIG).read_text())
        if not (folder / ADAPTER_WEIGHTS).is_file():
            raise ValueError(f"Expected {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG} in `{source}` (safetensors).")
        self.base = base(str(about.get("base_model_name_or_path")))

    @cached_property
    def files(self) -> list[Path]:
        return [self._folder / ADAPTER_CONFIG, self._folder / ADAPTER_WEIGHTS, *self.base.weights.files]

    @cached_property
    def config(self) -> Any:
        return self.base.weights.config

    @property
    def shared_base(self) -> Weights:
        return self.base.weights

    @property
    def tokenizer(self) -> TextTokenizer | None:
        return self.base.weights.tokenizer

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        try:
            return self.base.with_adapter(self._folder, dtype)
        except ImportError as error:
            raise ValueError(
                f"The adapter `{self.source}` needs the package peft. Run `pip install 'ir3de[lora]'`."
            ) from error
        except UNREADABLE as error:
            raise ValueError(
                f"The adapter `{self.source}` does not fit its base: {str(error).splitlines()[0]}"
            ) from error
