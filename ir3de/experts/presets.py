"""Llama architectures by size, so that an expert of one's own is named by one word."""

import math
from dataclasses import dataclass
from difflib import get_close_matches

from transformers import LlamaConfig


@dataclass(frozen=True, slots=True)
class Preset:
    """What sets the size of a Llama: layers, widths, and heads (``key_value_heads`` are fewer where queries share)."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    key_value_heads: int


# Named by parameters without embeddings, as the paper names its own. `115e6` is the paper's expert and
# `1e9` has the body of Llama-3.2-1B, the base of its larger experts.
PRESETS: dict[str, Preset] = {
    "2e6": Preset(hidden=192, layers=4, heads=4, mlp=512, key_value_heads=4),
    "5e6": Preset(hidden=256, layers=6, heads=4, mlp=768, key_value_heads=4),
    "15e6": Preset(hidden=384, layers=8, heads=6, mlp=1024, key_value_heads=6),
    "50e6": Preset(hidden=640, layers=10, heads=10, mlp=1728, key_value_heads=10),
    "115e6": Preset(hidden=768, layers=12, heads=12, mlp=3072, key_value_heads=12),
    "300e6": Preset(hidden=1024, layers=24, heads=16, mlp=2816, key_value_heads=16),
    "1e9": Preset(hidden=2048, layers=16, heads=32, mlp=8192, key_value_heads=8),
}


def preset_name(preset: str | float) -> str:
    """Return the key of ``PRESETS`` that is meant; ``2e6`` without quotes is a number in YAML.

    Raises:
        ValueError: if there is no such preset, naming the nearest.
    """
    for name in PRESETS:
        if preset == name or (isinstance(preset, int | float) and _size(name) == preset):
            return name
    raise ValueError(
        f"Expected `preset` to be one of {', '.join(PRESETS)}, but got `{preset}`."
        f" Did you mean `{_nearest(str(preset))}`?"
    )


def llama_config(
    preset: str | float, *, vocab_size: int, context_length: int, end_of_text: int | None = None
) -> LlamaConfig:
    """Return the transformers configuration of a preset, with an output head of its own (untied).

    Args:
        preset: A key of ``PRESETS``: the size in parameters without embeddings.
        vocab_size: Entries of the experts' tokenizer.
        context_length: Tokens of the longest sequence.
        end_of_text: The id that ends a text, for generation, where the tokenizer has one.

    Raises:
        ValueError: if there is no such preset.
    """
    size = PRESETS[preset_name(preset)]
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=size.hidden,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_value_heads,
        max_position_embeddings=context_length,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=end_of_text,
        pad_token_id=None,
    )


def _nearest(preset: str) -> str:
    """The preset nearest in size, or in spelling where the name is no number."""
    suffixes = {"k": "e3", "m": "e6", "b": "e9"}
    number = preset.strip().lower()
    if number[-1:] in suffixes:
        number = number[:-1] + suffixes[number[-1]]
    size = _size(number)
    if math.isnan(size):
        return get_close_matches(preset, PRESETS, n=1, cutoff=0.0)[0]
    return min(PRESETS, key=lambda name: abs(_size(name) - size))


def _size(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return math.nan
