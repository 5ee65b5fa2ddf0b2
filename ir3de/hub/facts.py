"""What is known without asking the hub: sizes of what the paper's settings use, and free copies of what is gated."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

GATED_COPIES: Mapping[str, str] = {  # the same tokenizer, free to fetch
    "meta-llama/Meta-Llama-3-8B": "NousResearch/Meta-Llama-3-8B",
    "meta-llama/Llama-3.2-1B": "unsloth/Llama-3.2-1B",
    "meta-llama/Llama-3.2-3B": "unsloth/Llama-3.2-3B",
}


@dataclass(frozen=True)
class Architecture:
    """What the size and the cost of a model follow from; ``width`` is the bytes of a weight as published.

    ``products`` are the parameters that a token is multiplied by: all but an embedding table that is only looked up in.
    """

    vocabulary: int
    hidden: int
    parameters: int
    width: int
    products: int

    @property
    def bytes(self) -> int:
        """Bytes of the published weights."""
        return self.parameters * self.width


def llama(
    *, vocabulary: int, hidden: int, layers: int, mlp: int, key_value: int | None = None, tied: bool = False
) -> Architecture:
    """Return a Llama in bfloat16; ``key_value`` is the features of its keys, ``hidden`` where queries share none."""
    attention = 2 * hidden * hidden + 2 * hidden * (key_value or hidden)
    layer = attention + 3 * hidden * mlp + 2 * hidden
    table, body = vocabulary * hidden, layers * layer + hidden
    return Architecture(vocabulary, hidden, body + table * (1 if tied else 2), 2, body + table)


PAPER_EXPERT = llama(vocabulary=128_002, hidden=768, layers=12, mlp=3072)
LLAMA_1B = llama(vocabulary=128_256, hidden=2048, layers=16, mlp=8192, key_value=512, tied=True)
LLAMA_3B = llama(vocabulary=128_256, hidden=3072, layers=28, mlp=8192, key_value=1024, tied=True)
ARCHITECTURES: Mapping[str, Architecture] = {
    "Erosinho/M2D2-Llama-115M-fixed-attn-experts": PAPER_EXPERT,
    "meta-llama/Llama-3.2-1B": LLAMA_1B,
    "unsloth/Llama-3.2-1B": LLAMA_1B,
    "meta-llama/Llama-3.2-3B": LLAMA_3B,
    "unsloth/Llama-3.2-3B": LLAMA_3B,
    **{f"MergeBench/Llama-3.2-3B_{name}": LLAMA_3B for name in ("coding", "math", "multilingual", "instruction")},
    # The model cards' parameters, in body and table; DeBERTa-v3 was published in half precision.
    "google-bert/bert-base-uncased": Architecture(30_522, 768, 110_000_000, 4, 86_000_000),
    "microsoft/deberta-v3-small": Architecture(128_100, 768, 44_000_000 + 98_000_000, 2, 44_000_000),
    "microsoft/deberta-v3-large": Architecture(128_100, 1024, 304_000_000 + 131_000_000, 2, 304_000_000),
}
_TOKENIZER_BYTES: Mapping[str, int] = {  # tokenizer.json, of 128 thousand pieces and their merges
    "meta-llama/Meta-Llama-3-8B": 9_100_000,
    "NousResearch/Meta-Llama-3-8B": 9_100_000,
    "meta-llama/Llama-3.2-1B": 9_100_000,
    "meta-llama/Llama-3.2-3B": 9_100_000,
    "unsloth/Llama-3.2-1B": 17_200_000,
    "unsloth/Llama-3.2-3B": 17_200_000,
}


# Files of the paper's data sets, by repository and by the pattern that shipped configs name them with. UltraChat's are
# its card's bytes, shared out by rows.
_RAW_TEXT: Mapping[str, Mapping[str, float]] = {
    "open-web-math/open-web-math": {"data/train-00000-of-00114-*.parquet": 236e6},
    "HuggingFaceH4/ultrachat_200k": {"data/train_sft-00000-of-*.parquet": 245e6, "data/test_sft-*.parquet": 81e6},
    "Skylion007/openwebtext": {"data/train-*.parquet": 24e9},
}
_ROUGHLY: Mapping[str, str] = {"allenai/peS2o": "several GB", "pile-of-law/pile-of-law": "tens of GB"}


def raw_text_size(repository: str, patterns: Collection[str]) -> str:
    """Return about how much the files of a data set take, as people read it."""
    known = _RAW_TEXT.get(repository, {})
    if all(pattern in known for pattern in patterns):
        return size_text(sum(known[pattern] for pattern in patterns), about=True)
    return _ROUGHLY.get(repository, "size unknown")


def known_bytes(repository: str, *, tokenizer: bool) -> int | None:
    """Return about how many bytes of a repository are needed, its tokenizer alone or its weights; None if unknown."""
    if tokenizer:
        return _TOKENIZER_BYTES.get(repository)
    known = ARCHITECTURES.get(repository)
    return known.bytes if known else None


def size_text(num_bytes: float | None, *, about: bool = False) -> str:
    """Return a size as people read it, in decimal units; ``None`` is unknown."""
    if num_bytes is None:
        return "size unknown"
    text = f"{num_bytes:,.0f} B"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            text = f"{num_bytes / scale:.3g} {unit}" if num_bytes < 1000 * scale else f"{num_bytes / scale:,.0f} {unit}"
            break
    return f"about {text}" if about else text
