"""A tiny tokenizer and embedding table, and sequences over them."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor

from ir3de.pretrained.tokenizer import TextTokenizer
from ir3de.routers import Embeddings


def word_tokenizer(num_words: int = 20, *, prefix: str = "w") -> TextTokenizer:
    """Return a tokenizer of the words w0, w1, … whose ids are their numbers; unknown words are the last id."""
    vocabulary = {f"{prefix}{i}": i for i in range(num_words - 1)} | {"<unk>": num_words - 1}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return TextTokenizer(tokenizer)


def embeddings(num_words: int = 20, dim: int = 6, *, seed: int = 0) -> Embeddings:
    """Return random embeddings ``(num_words, dim)`` for ``word_tokenizer``."""
    generator = torch.Generator().manual_seed(seed)
    return Embeddings("random", word_tokenizer(num_words), torch.randn(num_words, dim, generator=generator))


def pad(rows: list[list[int]], *, side: str = "right", filler: int = 0) -> tuple[Tensor, Tensor]:
    """Return ids and mask ``(B, T)`` of ragged rows, padded with ``filler`` on one side."""
    width = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), width), filler)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids_BT[i, place] = torch.tensor(row, dtype=torch.int64)
        mask_BT[i, place] = True
    return ids_BT, mask_BT
