"""Presets build what their names say, and the table in the docs says what they build."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ir3de.experts.presets import PRESETS, llama_config, preset_name

DOCS = Path(__file__).parents[2] / "docs" / "experts.md"
VOCABULARIES = (8_192, 128_002)


def _count(preset: str, vocab_size: int) -> tuple[int, int]:
    with torch.device("meta"):
        model = LlamaForCausalLM(llama_config(preset, vocab_size=vocab_size, context_length=256))
    whole = sum(parameter.numel() for parameter in model.parameters())
    body = whole - 2 * vocab_size * model.config.hidden_size
    return body, whole


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _row(preset: str) -> str:
    size = PRESETS[preset]
    heads = f"{size.heads}" if size.heads == size.key_value_heads else f"{size.heads} / {size.key_value_heads}"
    cells = [f"`{preset}`", size.hidden, size.layers, heads, size.mlp, _millions(_count(preset, 2)[0])]
    for vocab_size in VOCABULARIES:
        whole = _count(preset, vocab_size)[1]
        cells += [_millions(whole), f"{whole * 16 / 2**30:,.2f} GiB"]
    return f"| {' | '.join(str(cell) for cell in cells)} |"


@pytest.mark.parametrize("preset", PRESETS)
def test_docs_table_is_the_code(preset):
    assert _row(preset) in DOCS.read_text().splitlines()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_size_of_its_name(preset):
    assert _count(preset, 2)[0] == pytest.approx(float(preset), rel=0.15)


def test_the_papers_expert():
    config = llama_config("115e6", vocab_size=128_002, context_length=1024)
    shape = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads, config.intermediate_size)
    assert shape == (768, 12, 12, 3072)
    assert not config.tie_word_embeddings


@pytest.mark.parametrize(
    ("typo", "nearest"), [("110e6", "115e6"), ("1b", "1e9"), ("2M", "2e6"), ("5e-6", "2e6"), ("5e6s", "5e6")]
)
def test_an_unknown_preset_names_the_nearest(typo, nearest):
    with pytest.raises(ValueError, match=f"got `{typo}`. Did you mean `{nearest}`"):
        llama_config(typo, vocab_size=64, context_length=8)


def test_a_preset_without_quotes_is_a_number_in_yaml():
    assert preset_name(2e6) == preset_name("2e6") == "2e6"
    assert preset_name(1_000_000_000) == "1e9"
    with pytest.raises(ValueError, match="Did you mean `2e6`"):
        preset_name(3e6)
