"""What a ridge router reads text with: a tokenizer and an embedding table of its own (DESIGN.md 3.5)."""

from dataclasses import dataclass

from torch import Tensor

from ir3de.pretrained.embeddings import check_table, load_embedding_table
from ir3de.pretrained.loading import load_tokenizer
from ir3de.pretrained.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Embeddings:
    """The router's own tokenizer and embedding table ``(V, D)`` float32, and where they came from."""

    source: str
    tokenizer: TextTokenizer
    table_VD: Tensor

    def __post_init__(self) -> None:
        check_table(self.table_VD, self.source)
        if self.tokenizer.vocab_size > len(self.table_VD):
            raise ValueError(
                f"The tokenizer of `{self.source}` has {self.tokenizer.vocab_size} entries, but its embedding table has"
                f" {len(self.table_VD)} rows. Give the tokenizer and the table of one model."
            )

    @classmethod
    def load(cls, source: str, *, tokenizer: str | None = None) -> "Embeddings":
        """Read both from a hub id, a folder, a GGUF file or ``package:NAME``; ``tokenizer`` is where else that is."""
        return cls(source, load_tokenizer(tokenizer or source), load_embedding_table(source))
