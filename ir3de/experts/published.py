"""Checkpoints in the format in which the paper's experts were published."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM, PreTrainedModel

from ir3de.experts.presets import PRESETS, llama_config
from ir3de.experts.weights import Weights, listed
from ir3de.pretrained.checkpoint import load_checkpoint

_PREFIX = "_model."  # of every key


class PublishedCheckpoint(Weights):
    """A state dict as the paper published it: ``.pth``, every key with the prefix ``_model.``, a Llama's weights.

    Its configuration is a ``config.json`` beside it, or the preset whose shapes it has.
    """

    def __init__(self, source: str, path: Path) -> None:
        super().__init__(source)
        self._path = path

    @cached_property
    def files(self) -> list[Path]:
        config = self._path.parent / "config.json"
        return [self._path, *([config] if config.is_file() else [])]

    @cached_property
    def config(self) -> Any:
        if len(self.files) > 1:
            return AutoConfig.from_pretrained(self._path.parent, local_files_only=True)
        state = self._state
        shape = {key: tuple(value.shape) for key, value in state.items()}
        layers = sum(key.endswith(".input_layernorm.weight") for key in state)
        try:
            vocab_size, hidden = shape["model.embed_tokens.weight"]
            mlp = shape["model.layers.0.mlp.gate_proj.weight"][0]
            key_value = shape["model.layers.0.self_attn.k_proj.weight"][0]
        except KeyError as error:
            raise ValueError(f"Expected a Llama's weights in `{self.source}`, but {error} is missing.") from None
        for name, preset in PRESETS.items():
            heads = preset.hidden // preset.heads * preset.key_value_heads
            if (preset.hidden, preset.layers, preset.mlp, heads) == (hidden, layers, mlp, key_value):
                return llama_config(name, vocab_size=vocab_size, context_length=1024)
        raise ValueError(
            f"`{self.source}` has {layers} layers of {hidden} features (MLP {mlp}), which is none of the presets"
            f" {', '.join(PRESETS)}. Put the config.json of its Llama beside it."
        )

    @cached_property
    def _state(self) -> dict[str, torch.Tensor]:
        state = load_checkpoint(self.source, self._path)
        foreign = sorted(key for key in state if not key.startswith(_PREFIX))
        if foreign:
            raise ValueError(
                f"Expected every key of `{self.source}` to begin with `{_PREFIX}`, but got `{foreign[0]}`."
            )
        return {key.removeprefix(_PREFIX): value for key, value in state.items()}

    def load(self, dtype: torch.dtype) -> PreTrainedModel:
        config = self.config
        with torch.device("meta"):
            expected = {name: tuple(value.shape) for name, value in LlamaForCausalLM(config).state_dict().items()}
        found = {name: tuple(value.shape) for name, value in self._state.items()}
        if expected.keys() != found.keys():
            missing, unexpected = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
            raise ValueError(f"The weights of `{self.source}` do not fit its Llama: {listed(missing, unexpected)}.")
        for name, shape in expected.items():
            if found[name] != shape:
                raise ValueError(f"Expected `{name}` of `{self.source}` to be {shape}, but got {found[name]}.")
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
        model.load_state_dict(self._state, strict=True)
        return model.eval()
