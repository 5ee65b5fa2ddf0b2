"""Tiny stand-ins: a split in memory, a tokenizer, a Llama and a bank of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM

from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.types import Batch

VOCABULARY = 64


class FakeBlocks:
    """Sequences in memory, gathered like the data package's."""

    def __init__(self, rows: Sequence[np.ndarray], domains: Sequence[int]) -> None:
        self.rows = [np.asarray(row, dtype=np.int64) for row in rows]
        self.domains = list(domains)
        self.fingerprint = hashlib.sha256(b"|".join(row.tobytes() for row in self.rows)).hexdigest()
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Batch:
        self.asked += indices
        length = max(len(self.rows[i]) for i in indices)
        ids = torch.zeros(len(indices), length, dtype=torch.int64)
        mask = torch.zeros(len(indices), length, dtype=torch.bool)
        for place, i in enumerate(indices):
            ids[place, : len(self.rows[i])] = torch.from_numpy(self.rows[i])
            mask[place, : len(self.rows[i])] = True
        domain = torch.tensor([self.domains[i] for i in indices])
        return {"input_ids": ids, "attention_mask": mask, "domain": domain, "index": torch.tensor(indices)}


def blocks(domain: int, *, rows: int = 12, length: int = 8, seed: int = 0) -> FakeBlocks:
    """Sequences that prefer a stretch of the vocabulary of their own."""
    generator = np.random.default_rng([domain, seed])
    low = 8 + 16 * domain
    return FakeBlocks([generator.integers(low, low + 16, length) for _ in range(rows)], [domain] * rows)


def ragged_blocks(*, rows: int = 13, seed: int = 0) -> FakeBlocks:
    """Sequences of one to nine tokens, from three domains in turn."""
    generator = np.random.default_rng(seed)
    sequences = [generator.integers(0, VOCABULARY, 1 + i * 5 % 9) for i in range(rows)]
    return FakeBlocks(sequences, [i % 3 for i in range(rows)])


def tokenizer(extra: str = "") -> TextTokenizer:
    """Words w0 … w63."""
    vocabulary = {f"w{extra}{i}": i for i in range(VOCABULARY)}
    return TextTokenizer(Tokenizer(WordLevel(vocabulary, unk_token=f"w{extra}0")), end_of_text=0)


def tiny_llama(seed: int = 0, *, hidden: int = 16, tied: bool = False) -> LlamaForCausalLM:
    """A Llama of one layer whose logits are far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=32, tie_word_embeddings=tied, initializer_range=0.3, bos_token_id=None,
        eos_token_id=None, attn_implementation="sdpa",
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def save_bank(folder: Path, names: Sequence[str] = ("a", "b", "c"), *, tied: bool = False) -> dict[str, Path]:
    """Save one tiny Llama per name."""
    for seed, name in enumerate(names):
        tiny_llama(seed, tied=tied).save_pretrained(folder / name)
        tokenizer().save(folder / name)
    return {name: folder / name for name in names}
